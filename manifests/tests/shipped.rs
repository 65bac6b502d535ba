//! What is shipped and what neighbours ship: read, chosen for, planned.

use lair_manifests::facts::Gpu;
use lair_manifests::{
    Dirs, EngineFacts, GpuFacts, HostFacts, Launch, Mode, ModuleManifest, PlanContext, Policy,
    RuntimeConfig, parse_config, parse_module, plan, problem::render, read_manifest, select,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn module(path: &Path) -> ModuleManifest {
    let source = read_manifest(path).expect("a file");
    parse_module(&source).unwrap_or_else(|p| panic!("{}", render(&p)))
}

fn shipped() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(here("modules")).expect("the ready manifests");
    let files = folders.map(|f| f.expect("an entry").path().join("manifest.yaml"));
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files
}

fn rich_host() -> HostFacts {
    let gpu = Gpu {
        uuid: "GPU-1".into(),
        pci: "00000000:65:00.0".into(),
        index: 0,
        name: "some GPU".into(),
        memory_total: 24 << 30,
        memory_free: None,
    };
    HostFacts {
        engines: vec![EngineFacts {
            name: "podman".into(),
            version: None,
            usable: Ok(()),
        }],
        gpus: GpuFacts::Present(vec![gpu]),
        ..HostFacts::default()
    }
}

fn context() -> PlanContext {
    let names = [
        "MODEL",
        "COMFYUI_HOME",
        "PGDATA",
        "JUPYTER_TOKEN",
        "POSTGRES_PASSWORD",
    ];
    let env: BTreeMap<String, String> = names
        .iter()
        .map(|n| ((*n).to_owned(), format!("/srv/{n}")))
        .collect();
    let dirs = Dirs::of(&env, 0);
    PlanContext {
        env,
        gpus: rich_host().gpus,
        ..PlanContext::new(dirs)
    }
}

#[test]
fn every_ready_manifest_is_read_and_planned_in_every_mode_it_declares() {
    let (policy, config, host) = (Policy::default(), RuntimeConfig::default(), rich_host());
    for path in shipped() {
        let module = module(&path);
        let folder = path.parent().and_then(Path::file_name).expect("a folder");
        assert_eq!(folder.to_str(), Some(module.name.as_str()));
        for word in module.runtime.declared_modes() {
            let mode = if word.as_str() == "native" {
                Mode::Native
            } else {
                Mode::Container
            };
            let selected = select(&module, &host, &policy, &config, Some(mode), false, &Ok(()));
            let selected = selected.unwrap_or_else(|refusal| panic!("{refusal}"));
            assert_eq!(selected.mode, mode);
            let plan =
                plan(&module, &selected, &context()).unwrap_or_else(|p| panic!("{}", render(&p)));
            let text = serde_json::to_string(&plan).expect("JSON");
            assert!(!text.contains("${"), "{}: {text}", module.name);
            assert!(
                plan.spec.awaits_ready,
                "{} says when it is ready",
                module.name
            );
        }
    }
}

#[test]
fn the_ready_manifests_are_the_promised_ones_and_share_no_port() {
    let mut names = Vec::new();
    let mut ports = BTreeMap::new();
    for path in shipped() {
        let module = module(&path);
        for (name, port) in &module.runtime.ports {
            let before = ports.insert(port.port, (module.name.clone(), name.clone()));
            assert!(
                before.is_none(),
                "{} and {before:?} share a port",
                module.name
            );
        }
        names.push(module.name.to_string());
    }
    let promised = "chroma comfyui hello jupyterlab llama.cpp nginx ollama open-webui postgresql qdrant redis vllm";
    assert_eq!(names.join(" "), promised);
}

#[test]
fn a_cuda_module_gets_the_gpus_that_were_chosen() {
    let module = module(&here("modules/vllm/manifest.yaml"));
    let (policy, config) = (Policy::default(), RuntimeConfig::default());
    let selected = select(
        &module,
        &rich_host(),
        &policy,
        &config,
        Some(Mode::Native),
        false,
        &Ok(()),
    );
    let plan = plan(&module, &selected.expect("native"), &context()).expect("a plan");
    let Launch::Native(native) = &plan.launch else {
        panic!("a process")
    };
    assert_eq!(native.env["CUDA_VISIBLE_DEVICES"], "GPU-1");
    assert_eq!(plan.limits.gpu.expect("a demand").uuids, ["GPU-1"]);
}

#[test]
fn manifests_of_the_neighbour_are_read_and_their_foreign_modes_are_explained() {
    let (policy, config, host) = (Policy::default(), RuntimeConfig::default(), rich_host());
    for (file, rule) in [
        ("engine", "runtime.modes"),
        ("tool", "runtime.modes"),
        ("native", "runtime.native"),
    ] {
        let module = module(&here(&format!("tests/foreign/{file}.yaml")));
        let refusal = select(&module, &host, &policy, &config, None, false, &Ok(()));
        let refusal = refusal.expect_err("nothing to run");
        assert!(refusal.why.iter().all(|m| m.rule == rule), "{refusal}");
        assert_eq!(refusal.why.len(), module.runtime.declared_modes().len());
    }
    let module = module(&here("tests/foreign/engine.yaml"));
    let memory = module
        .hardware
        .and_then(|h| h.memory)
        .and_then(|m| m.ram_min);
    assert_eq!(
        memory.map(|m| m.get()),
        Some(4 << 30),
        "4GB is binary there"
    );
}

#[test]
fn the_configuration_of_the_neighbour_is_accepted_as_it_is() {
    let source = read_manifest(&here("tests/foreign/config.yaml")).expect("a file");
    let config = parse_config(&source).unwrap_or_else(|p| panic!("{}", render(&p)));
    assert!(config.docker_enabled && config.podman() && config.native_enabled);
    let dirs = config.dirs(&BTreeMap::new(), 0);
    assert_eq!(dirs.logs, Path::new("/var/lib/other/runtime"));
    assert_eq!(dirs.state, Path::new("/var/lib/lair"));
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for (file, schema) in [
        ("schema/manifest.json", lair_manifests::schema::manifest()),
        ("schema/config.json", lair_manifests::schema::config()),
    ] {
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        if std::env::var_os("LAIR_BLESS").is_some() {
            std::fs::write(here(file), &text).expect("writing the schema");
        }
        let committed = std::fs::read_to_string(here(file)).expect("a committed schema");
        assert!(
            committed == text,
            "{file} is old: LAIR_BLESS=1 cargo test -p lair-manifests"
        );
    }
}
