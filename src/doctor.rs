//! What the machine offers and lacks, with the one step that mends it.

use crate::handle::Inner;
use lair_actors::facts;
use serde_json::{Value, json};

/// One finding a line: `ok`, `missing` or `note`, with what to do. Reads /proc; may take milliseconds.
pub(crate) fn examine(inner: &Inner) -> Value {
    let host = facts::host();
    let tracking = match &inner.tracking {
        Some(Ok(dir)) => finding(
            "process trees",
            "ok",
            format!("tracked by cgroup in {}", dir.display()),
            None,
        ),
        Some(Err(why)) => finding(
            "process trees",
            "note",
            format!("no tracking cgroup ({why}); trees are found by session and descent instead"),
            Some("give lair a writable cgroup-v2 subtree (systemd: Delegate=yes)"),
        ),
        None => finding("process trees", "note", "simulated".into(), None),
    };
    let gpus = match &*inner.gpus.read() {
        facts::GpuFacts::Present(gpus) => {
            finding("GPUs", "ok", format!("{} seen", gpus.len()), None)
        }
        facts::GpuFacts::Unavailable(why) => finding(
            "GPUs",
            "note",
            why.clone(),
            Some("install the NVIDIA driver if there is a GPU"),
        ),
    };
    let engines = finding(
        "container engines",
        "missing",
        "this version of lair runs no containers yet; modules run natively".into(),
        None,
    );
    json!({ "host": host, "findings": [tracking, gpus, engines] })
}

fn finding(what: &str, verdict: &str, text: String, mend: Option<&str>) -> Value {
    json!({ "what": what, "verdict": verdict, "found": text, "mend": mend })
}
