//! Which GPUs a module can see, as variables.
//!
//! Owns: the variables of the drivers. Promises: without `resources.gpu` every GPU is hidden; with it, only those that
//! were chosen can be seen, in an order that doesn't depend on their speed. Never: chooses; see [`crate::facts`].

use std::collections::BTreeMap;

const CUDA: &str = "CUDA_VISIBLE_DEVICES";
const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";
/// AMD's: emptied unless the manifest itself sets them, since nothing here can choose among AMD's GPUs.
const AMD: [&str; 2] = ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

fn order(gpus: &[String]) -> Option<(String, String)> {
    let fixed = ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
    (!gpus.is_empty()).then_some(fixed)
}

/// For a process: an empty list hides all.
pub(super) fn native(gpus: &[String]) -> BTreeMap<String, String> {
    let list = gpus.join(",");
    let names = [CUDA, NVIDIA].map(|name| (name.to_owned(), list.clone()));
    let hidden = AMD.map(|name| (name.to_owned(), String::new()));
    names.into_iter().chain(hidden).chain(order(gpus)).collect()
}

/// For a container. Images of CUDA set `NVIDIA_VISIBLE_DEVICES=all`, which a default runtime of NVIDIA's would obey:
/// `void` is its word for hands off. The chosen ones come as devices, by the engine.
pub(super) fn container(gpus: &[String]) -> BTreeMap<String, String> {
    let void = gpus
        .is_empty()
        .then(|| (NVIDIA.to_owned(), "void".to_owned()));
    void.into_iter().chain(order(gpus)).collect()
}

/// The variables that no longer say what was chosen.
pub(super) fn changed(
    ours: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<&'static str> {
    [CUDA, NVIDIA]
        .into_iter()
        .filter(|name| {
            ours.get(*name)
                .is_some_and(|value| now.get(*name) != Some(value))
        })
        .collect()
}
