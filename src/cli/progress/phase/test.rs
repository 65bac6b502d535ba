//! A look in, words out.

use super::*;
use serde_json::json;

fn status(state: &str, memory: u64, log: u64) -> ModuleStatus {
    serde_json::from_value(json!({
        "name": "m", "version": "1", "run": 1, "mode": "native", "backend": "native", "state": state,
        "reason": null, "desired": "up", "ready": false,
        "health": { "state": "unknown", "reason": "not ready yet: refused", "since": null, "probe": "startup", "checked": null },
        "pid": 1, "container": null, "started_at": null, "finished_at": null, "exit": null,
        "restarts": { "count": 0, "policy": "never", "next_at": null },
        "resources": { "memory": { "limit": null, "enforced": false, "by": null, "current": memory, "peak": null },
                       "cpu_ms": 0, "processes": 1, "gpu": [] },
        "ports": [], "exposure": "unknown",
        "logs": { "dir": "/x", "current": null, "bytes": log, "dropped": 0 }, "origin": "observed"
    }))
    .expect("a status")
}

fn seen() -> Seen {
    let plan = json!({ "probes": { "startup": { "stall": { "secs": 120, "nanos": 0 } } },
        "spec": { "ready_deadline": { "secs": 1800, "nanos": 0 }, "grace": { "secs": 7, "nanos": 0 } } });
    Seen {
        read: Some(3 << 30),
        line: Some("loading shard 2 of 4".into()),
        plan: Some(plan),
    }
}

#[test]
fn a_start_says_its_phase_its_evidence_and_its_clocks() {
    let mut tracked = Tracked::default();
    tracked.take(status("running", 1 << 30, 10), seen(), 0);
    tracked.take(status("running", 3 << 30, 10), seen(), 1000);
    let words = tracked.words(1000).expect("words");
    assert_eq!(
        words,
        "not ready yet: refused; memory 3GiB (+2GiB); read 3GiB; says \"loading shard 2 of 4\"; given 30m0s in all"
    );
    let words = tracked.words(46_000).expect("words");
    assert!(
        words.contains("nothing moved for 45s, stuck after 2m0s"),
        "{words}"
    );
    tracked.take(status("running", 3 << 30, 11), seen(), 47_000);
    let words = tracked.words(47_000).expect("words");
    assert!(
        !words.contains("nothing moved"),
        "a line is a move: {words}"
    );
}

#[test]
fn a_start_that_was_seen_before_says_how_long_it_usually_takes() {
    let mut known = status("running", 1 << 30, 10);
    let footprint = json!({ "version": "1", "runs": 3, "memory": null, "gpu_memory": null, "cpu_milli": null,
        "ready_ms": { "usual": 41_000, "least": 40_000, "most": 52_000 } });
    known.footprint = serde_json::from_value(footprint).expect("a footprint");
    let mut tracked = Tracked::default();
    tracked.take(known, seen(), 0);
    let words = tracked.words(1000).expect("words");
    assert!(words.ends_with("; usually 41s"), "{words}");
}

#[test]
fn an_image_on_its_way_and_a_stop_are_told() {
    let mut tracked = Tracked::default();
    tracked.take(status("starting", 0, 0), seen(), 0);
    tracked.pulling = Some("layer abc 120MB of 400MB".into());
    assert!(
        tracked
            .words(0)
            .is_some_and(|w| w.contains("image: layer abc 120MB"))
    );
    tracked.take(status("stopping", 0, 0), seen(), 5000);
    let words = tracked.words(8000).expect("words");
    assert_eq!(words, "stopping since 3s, killed after 7s");
}

#[test]
fn what_can_no_longer_become_ready_is_not_waited_for() {
    assert!(!is_done(&status("running", 0, 0), "ready"));
    assert!(is_done(&status("failed", 0, 0), "ready"));
    assert!(is_done(&status("stopped", 0, 0), "stopped"));
    assert!(!is_done(&status("stopping", 0, 0), "stopped"));
}
