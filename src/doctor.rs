//! What the machine offers and lacks, with the one step that mends it.

use crate::containers;
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
    let gpus = match inner.gpus.gpus() {
        facts::GpuFacts::Present(gpus) => {
            finding("GPUs", "ok", format!("{} seen", gpus.len()), None)
        }
        facts::GpuFacts::Unavailable(why) => finding(
            "GPUs",
            "note",
            why,
            Some("install the NVIDIA driver if there is a GPU"),
        ),
    };
    let mut findings = vec![tracking, gpus];
    findings.extend(engines(inner));
    json!({ "host": host, "findings": findings })
}

/// One line an engine. One of them is enough, so the lack of another is only noted.
fn engines(inner: &Inner) -> Vec<Value> {
    let found = containers::look_again(&inner.engines);
    let any = found.iter().any(|f| f.info.is_ok());
    let lack = if any { "note" } else { "missing" };
    let mut lines: Vec<Value> = found
        .iter()
        .map(|f| match &f.info {
            Ok(info) => finding(f.name, "ok", containers::describe(info), None),
            Err(fault) => finding(f.name, lack, fault.to_string(), f.mend),
        })
        .collect();
    if lines.is_empty() {
        let off =
            "container engines are switched off by configuration, or this runtime is simulated";
        lines.push(finding("container engines", "note", off.into(), None));
    }
    lines
}

fn finding(what: &str, verdict: &str, text: String, mend: Option<&str>) -> Value {
    json!({ "what": what, "verdict": verdict, "found": text, "mend": mend })
}
