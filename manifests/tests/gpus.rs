//! Which GPUs a module can see: none without asking, and those that were chosen.

use lair_manifests::config::Dirs;
use lair_manifests::facts::Gpu;
use lair_manifests::nvml::Nvml;
use lair_manifests::{
    GpuFacts, Launch, Mode, PlanContext, Problem, Selected, Source, parse_config, parse_module,
    plan,
};
use std::collections::BTreeMap;
use std::path::Path;

fn planned(
    resources: &str,
    env: &str,
    mode: Mode,
    set: &[(&str, &str)],
) -> Result<Launch, Vec<Problem>> {
    let text = format!(
        "name: m\nruntime:\n  modes: [native, container]\n  native: {{ command: [x], env: {env} }}\n  container: {{ image: i, env: {env} }}\n  resources: {resources}\n"
    );
    let module = parse_module(&Source::of_text("m.yaml", &text, Path::new("/m")))?;
    let mut context = PlanContext::new(Dirs::of(&BTreeMap::new(), 0));
    context.set = set
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let gpu = |n: u32| Gpu {
        uuid: format!("GPU-{n}"),
        pci: format!("0000:0{n}:00.0"),
        index: n,
        name: "Imaginary".into(),
        memory_total: 8 << 30,
        memory_free: Some(6 << 30),
    };
    context.gpus = GpuFacts::Present(vec![gpu(0), gpu(1)]);
    let selected = Selected {
        mode,
        explanation: Vec::new(),
        fallback: None,
    };
    Ok(plan(&module, &selected, &context)?.launch)
}

fn native(resources: &str) -> BTreeMap<String, String> {
    match planned(resources, "{}", Mode::Native, &[]) {
        Ok(Launch::Native(launch)) => launch.env.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

const NAMES: [&str; 4] = [
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
];

#[test]
fn without_asking_every_gpu_is_hidden_from_a_process() {
    let env = native("{}");
    assert_eq!(NAMES.map(|name| env[name].as_str()), [""; 4]);
    assert!(!env.contains_key("CUDA_DEVICE_ORDER"));
}

#[test]
fn a_process_sees_the_chosen_gpus_by_uuid_and_in_a_fixed_order() {
    let env = native("{ gpu: { devices: [1, \"0000:00:00.0\"] } }");
    let list = "GPU-1,GPU-0";
    assert_eq!(NAMES.map(|name| env[name].as_str()), [list, list, "", ""]);
    assert_eq!(env["CUDA_DEVICE_ORDER"], "PCI_BUS_ID");
}

#[test]
fn a_container_gets_the_chosen_devices_and_else_nvidias_word_for_hands_off() {
    let launch = |resources| match planned(resources, "{}", Mode::Container, &[]) {
        Ok(Launch::Container(launch)) => launch,
        other => panic!("{other:?}"),
    };
    let none = launch("{}");
    assert_eq!(none.gpu_devices, Vec::<String>::new());
    assert_eq!(none.env["NVIDIA_VISIBLE_DEVICES"], "void");
    let one = launch("{ gpu: { count: 1 } }");
    assert_eq!(one.gpu_devices, ["GPU-0"]);
    assert!(!one.env.contains_key("NVIDIA_VISIBLE_DEVICES"));
}

#[test]
fn a_variable_that_would_show_other_gpus_is_a_mistake() {
    for mode in [Mode::Native, Mode::Container] {
        let env = "{ NVIDIA_VISIBLE_DEVICES: all }";
        let problems = planned("{}", env, mode, &[]).expect_err("a way around");
        assert!(
            problems[0].pointer.ends_with("/env/NVIDIA_VISIBLE_DEVICES"),
            "{problems:?}"
        );
    }
    let set = [("CUDA_VISIBLE_DEVICES", "0")];
    assert!(planned("{}", "{}", Mode::Native, &set).is_err());
    // To say the same is fine, and AMD's are the manifest's own.
    let env = "{ CUDA_VISIBLE_DEVICES: \"${gpu.uuids}\", HIP_VISIBLE_DEVICES: \"0\" }";
    assert!(planned("{ gpu: { count: 2 } }", env, Mode::Native, &[]).is_ok());
}

#[test]
fn the_library_is_the_systems_none_or_the_one_the_configuration_names() {
    let read = |value: &str| {
        let text = format!("runtime:\n  gpu: {{ nvml: {value} }}\n");
        let source = Source::of_text("config.yaml", &text, Path::new("/"));
        parse_config(&source).map(|config| config.gpu.nvml)
    };
    assert_eq!(read("true"), Ok(Nvml::System));
    assert_eq!(read("false"), Ok(Nvml::Off));
    assert!(
        matches!(read("/opt/libnvidia-ml.so.1"), Ok(Nvml::At(path)) if path.as_str() == "/opt/libnvidia-ml.so.1")
    );
    assert!(read("libnvidia-ml.so.1").is_err());
}
