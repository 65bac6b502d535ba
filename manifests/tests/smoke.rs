//! From a file to a plan.

use lair_manifests::{
    Dirs, EngineFacts, HostFacts, Launch, PlanContext, Policy, RuntimeConfig, parse_stack, plan,
    read_manifest, select,
};
use std::path::Path;

#[test]
fn the_hello_module_is_planned_as_a_process() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("modules/hello/manifest.yaml");
    let source = read_manifest(&path).expect("a file");
    let stack =
        parse_stack(&source).unwrap_or_else(|p| panic!("{}", lair_manifests::problem::render(&p)));
    let module = &stack.modules[0];
    let (host, policy, config) = (
        HostFacts::default(),
        Policy::default(),
        RuntimeConfig::default(),
    );
    let _: Option<EngineFacts> = None;
    let selected = select(module, &host, &policy, &config, None, false, &Ok(())).expect("a mode");
    let context = PlanContext::new(Dirs::of(&Default::default(), 0));
    let plan = plan(module, &selected, &context).expect("a plan");
    println!("{}", serde_json::to_string_pretty(&plan).expect("json"));
    let Launch::Native(native) = &plan.launch else {
        panic!("a process")
    };
    assert_eq!(native.argv[0], "/bin/sh");
    assert_eq!(native.env["LANG"], "C.UTF-8");
}
