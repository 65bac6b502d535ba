//! What modules usually take, learned from real runs: kept, shown, compared; and never in anybody's way.

#[path = "support/driver.rs"]
mod driver;
mod face;
mod support;

use driver::{Driver, GIB};
use lair::WaitFor;
use lair::actors::footprint::Footprint;
use lair::supervision::{Notice, NoticeKind};
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use support::{Lair, asker};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

/// Takes so much memory after so many seconds, says that it serves, and stays.
fn takes(mib: u64, seconds: &str) -> String {
    format!(
        "sleep {seconds}; exec python3 -c 'import time; x = bytearray({mib} << 20); print(\"serving\", flush=True); time.sleep(1000)'"
    )
}

const SERVES: &str = "  health: { startup: { log: { pattern: serving } } }";

/// Waits until a sample was taken that has the memory in it.
async fn seen(lair: &Lair, name: &str, mib: u64) {
    let taken = || {
        let why = lair.handle.why(name, None).expect("a dossier");
        why.footprint.and_then(|f| f.taken.memory)
    };
    support::eventually("a sample", || taken() >= Some(mib * MIB)).await;
}

async fn learnt(lair: &Lair, name: &str, runs: u64) -> Footprint {
    let known = || lair.status(name).footprint.filter(|f| f.runs >= runs);
    support::eventually("a footprint", || known().is_some()).await;
    Footprint::clone(&known().expect("a footprint"))
}

/// Starts it, waits until it serves and was seen, and stops it.
async fn one_run(lair: &Lair, name: &str, mib: u64) {
    lair.handle.start(name, asker()).await.expect("a start");
    lair.wait(name, WaitFor::Ready).await;
    seen(lair, name, mib).await;
    lair.stop(name).await;
}

fn told(lair: &Lair, name: &str) -> Vec<String> {
    let notices = lair.notices(name);
    let what = notices.iter().filter_map(|n| match &n.kind {
        NoticeKind::FootprintChanged { what } => Some(what.clone()),
        _ => None,
    });
    what.collect()
}

#[tokio::test]
async fn a_footprint_is_learned_from_runs_that_served_and_has_their_spread() {
    let lair = Lair::start("footprint").await;
    let manifest = support::sh("m", &takes(100, "0.3"), SERVES);
    lair.load(&manifest).await.expect("loaded");
    assert!(lair.status("m").footprint.is_none());
    one_run(&lair, "m", 100).await;
    let first = learnt(&lair, "m", 1).await;
    let memory = first.memory.expect("memory");
    assert_eq!((memory.least, memory.most), (memory.usual, memory.usual));
    assert!((100 * MIB..400 * MIB).contains(&memory.usual), "{first:?}");
    let ready = first.ready_ms.expect("time to ready");
    assert!(ready.usual >= 300, "{first:?}");
    // It has no GPU: that is unknown, and not zero.
    assert_eq!(first.gpu_memory, None);
    one_run(&lair, "m", 100).await;
    assert_eq!(learnt(&lair, "m", 2).await.runs, 2);
    // A run that never serves says nothing of what the module takes.
    let never = support::sh("never", "exec sleep 1000", SERVES);
    lair.load(&never).await.expect("loaded");
    lair.handle.start("never", asker()).await.expect("a start");
    seen(&lair, "never", 0).await;
    lair.stop("never").await;
    one_run(&lair, "m", 100).await;
    learnt(&lair, "m", 3).await;
    assert!(lair.status("never").footprint.is_none());
    // The dossier has what this run took beside what is usual, and its course.
    let dossier = lair.handle.why("m", None).expect("a dossier");
    let footprint = dossier.footprint.expect("a footprint");
    assert_eq!(footprint.taken.run, 3);
    assert!(footprint.taken.memory >= Some(100 * MIB) && footprint.change.is_none());
    let series = dossier.series.expect("its course");
    assert_eq!(series.at_ms.len(), series.memory.len());
    assert!(series.memory.iter().flatten().any(|n| *n >= 100 * MIB));
    lair.end().await;
}

#[tokio::test]
async fn a_version_that_takes_more_is_told_of_once_with_numbers() {
    let lair = Lair::start("footprint-change").await;
    lair.load(&support::sh("m", &takes(50, "0.1"), SERVES))
        .await
        .expect("loaded");
    one_run(&lair, "m", 50).await;
    learnt(&lair, "m", 1).await;
    // The same, written otherwise, is no new version.
    let same = support::sh("m", &takes(50, "0.1"), SERVES).replace("1.0.0", "1.0.1");
    lair.load(&format!("# new words\n{same}"))
        .await
        .expect("loaded");
    one_run(&lair, "m", 50).await;
    assert_eq!(learnt(&lair, "m", 2).await.version, "1.0.1");
    assert!(told(&lair, "m").is_empty());
    let more = support::sh("m", &takes(350, "4"), SERVES).replace("1.0.0", "2.0.0");
    lair.load(&more).await.expect("loaded");
    assert!(
        lair.status("m").footprint.is_none(),
        "of this nothing is known"
    );
    lair.handle.start("m", asker()).await.expect("a start");
    lair.wait("m", WaitFor::Ready).await;
    seen(&lair, "m", 350).await;
    // Told while it runs.
    support::eventually("it is told", || !told(&lair, "m").is_empty()).await;
    let what = told(&lair, "m").remove(0);
    assert!(
        what.starts_with('+') && what.contains("slower to ready"),
        "{what}"
    );
    assert!(what.ends_with("(2 runs of version 1.0.1)"), "{what}");
    let why = lair.handle.why("m", None).expect("a dossier");
    let change = why.footprint.and_then(|f| f.change).expect("a change");
    assert!(change.contains("MiB"), "{change}");
    lair.stop("m").await;
    learnt(&lair, "m", 1).await;
    one_run(&lair, "m", 350).await;
    learnt(&lair, "m", 2).await;
    // One that takes less is told of too, and after all that there is to tell of the runs before.
    let less = support::sh("m", &takes(40, "0.2"), SERVES);
    lair.load(&less).await.expect("loaded");
    one_run(&lair, "m", 40).await;
    let last = || told(&lair, "m").pop().filter(|what| what.contains('-'));
    support::eventually("less is told", || last().is_some()).await;
    assert!(last().is_some_and(|what| what.contains("faster to ready")));
    let notices = lair.notices("m");
    let changed = |n: &Arc<Notice>| matches!(n.kind, NoticeKind::FootprintChanged { .. });
    let runs: Vec<u64> = notices
        .iter()
        .filter(|n| changed(n))
        .map(|n| n.inc)
        .collect();
    assert!(!runs.contains(&4), "a second run is no news: {runs:?}");
    lair.end().await;
}

#[tokio::test]
async fn what_it_takes_of_a_gpu_is_learned_too() {
    let driver = Driver::cards(1);
    let nvml = driver.nvml();
    let lair = Lair::start_with("footprint-gpu", |options| options.config.gpu.nvml = nvml).await;
    let more = format!("{SERVES}\n  resources: {{ gpu: {{ required: true, vram: 4GiB }} }}");
    lair.load(&support::sh("m", &takes(1, "0.1"), &more))
        .await
        .expect("loaded");
    lair.handle.start("m", asker()).await.expect("a start");
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    let used = 3 * GIB;
    driver.set(&format!(
        "gpu GPU-0 {} {used}\nproc 0 {pid} {used}\n",
        8 * GIB
    ));
    let taken = || {
        let why = lair.handle.why("m", None).expect("a dossier");
        why.footprint.and_then(|f| f.taken.gpu_memory)
    };
    support::eventually("it is seen", || taken() == Some(used)).await;
    driver.set(&driver::cards(1));
    lair.stop("m").await;
    let footprint = learnt(&lair, "m", 1).await;
    assert_eq!(footprint.gpu_memory.map(|g| g.most), Some(used));
    let why = lair.handle.why("m", None).expect("a dossier");
    let series = why.series.expect("its course");
    assert!(series.gpu_memory.contains(&Some(used)), "{series:?}");
    lair.end().await;
}

fn json(lair: &face::Lair, args: &[&str]) -> Value {
    let (_, out) = lair.ask(args);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
}

#[test]
fn footprints_outlive_lair_are_shown_by_every_verb_and_bad_files_are_put_aside() {
    let mut lair = face::Lair::folder();
    let limit = "  resources: { memory: 1GiB }\n";
    let serves = format!("{SERVES}\n{limit}");
    let file = lair.module("m", &takes(100, "1.2"), &serves);
    lair.module("bad", "echo serving; exec sleep 1000", SERVES);
    lair = lair.serve(&[]);
    let started = lair.lair(&["start", "m", "bad", "--wait=ready", "-q"]);
    assert!(started.status.success(), "{started:?}");
    face::until("a sample", SOON, || {
        json(&lair, &["why", "m", "-o", "json"])["footprint"]["memory"].as_u64() >= Some(100 * MIB)
    });
    assert!(
        lair.lair(&["stop", "m", "bad", "--wait", "-q"])
            .status
            .success()
    );
    face::until("a footprint", SOON, || {
        lair.status("m")["footprint"]["runs"] == 1 && lair.status("bad")["footprint"]["runs"] == 1
    });
    assert_eq!(lair.term(), Some(0));
    let folder = lair.dir.join("state/footprints");
    fs::write(folder.join("bad.json"), b"\x00 not JSON").expect("written");

    lair = lair.serve(&[]);
    let status = lair.status("m");
    assert_eq!(status["footprint"]["runs"], 1, "{status:#}");
    assert!(status["footprint"]["ready_ms"]["usual"].as_u64() >= Some(1200));
    assert!(lair.status("bad")["footprint"].is_null());
    assert!(folder.join("bad.json.aside").exists());
    face::until("a word in its log", SOON, || {
        lair.log().contains("learned anew")
    });
    let (_, page) = lair.ask(&["status", "m"]);
    assert!(
        page.contains("Usually: memory 1") && page.contains(", 1 run"),
        "{page}"
    );

    // Of the limit that the file declares, whatever that is.
    let path = file.display().to_string();
    let (_, plan) = lair.ask(&["plan", &path]);
    assert!(plan.contains("within the declared 1GiB"), "{plan}");
    let text = fs::read_to_string(&file).expect("text");
    fs::write(&file, text.replace("1GiB", "64MiB")).expect("written");
    let plan = json(&lair, &["plan", &path, "-o", "json"]);
    let hint = plan["modules"][0]["hints"][0].as_str().expect("a hint");
    assert!(hint.contains("more than the declared 64MiB"), "{hint}");
    assert_eq!(plan["modules"][0]["footprint"]["runs"], 1);

    lair.term();
}
