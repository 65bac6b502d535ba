//! What the machine offers and lacks, with the one step that mends it.

use crate::handle::Inner;
use lair_actors::cgroup::{Cgroups, Limit};
use lair_actors::facts;
use serde_json::{Value, json};

/// One finding a line: `ok`, `missing` or `note`, with what to do. Reads /proc; may take milliseconds.
pub(crate) fn examine(inner: &Inner) -> Value {
    let host = facts::host();
    let tracking = match inner.cgroups.as_ref().map(Cgroups::tracking) {
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
    let limits = Limit::ALL.map(|limit| limited(inner, limit));
    let mut findings = vec![tracking];
    findings.extend(limits);
    findings.extend([own_score(), gpus, engines]);
    json!({ "host": host, "findings": findings })
}

fn limited(inner: &Inner, limit: Limit) -> Value {
    let what = match limit {
        Limit::Memory => "memory limits",
        Limit::Cpus => "CPU limits",
        Limit::Pids => "process limits",
    };
    match inner.cgroups.as_ref().map(|c| c.enforcer(limit)) {
        Some(Ok((by, dir))) => {
            let text = format!("of native modules are held by {by} in {}", dir.display());
            finding(what, "ok", text, None)
        }
        Some(Err(why)) => finding(
            what,
            "missing",
            format!("of native modules are not enforced: {why}"),
            Some("run lair as root, or give it a control group of its own (systemd: Delegate=yes)"),
        ),
        None => finding(what, "note", "simulated".into(), None),
    }
}

/// What the kernel would rather end than lair, when the machine has no memory left.
fn own_score() -> Value {
    let what = "lair itself";
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    match score.trim().parse::<i32>() {
        Ok(score) if score < 0 => finding(
            what,
            "ok",
            format!("is spared when memory runs out (oom_score_adj {score})"),
            None,
        ),
        _ => finding(
            what,
            "note",
            "counts like any other program when the machine's memory runs out".into(),
            Some("run lair with CAP_SYS_RESOURCE, or set OOMScoreAdjust= in its systemd unit"),
        ),
    }
}

fn finding(what: &str, verdict: &str, text: String, mend: Option<&str>) -> Value {
    json!({ "what": what, "verdict": verdict, "found": text, "mend": mend })
}
