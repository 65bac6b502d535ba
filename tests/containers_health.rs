//! Probes of containers, and what is told of them: by command inside and by published port.

mod support;

use lair::WaitFor;
use lair::actors::status::ModuleStatus;
use lair::actors::view::HealthWord;
use std::net::TcpListener;
use support::contained::{end, lair_on, sh, start, up};
use support::engines::{Kind, image};
use support::{Lair, asker, eventually, processes_with};

const FOREVER: &str = "echo up; exec sleep 1000";

fn reason(status: &ModuleStatus) -> String {
    status.health.reason.clone().unwrap_or_default()
}

/// A probe as a script inside; `more` are its thresholds.
fn probe(kind: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!("  health:\n    {kind}: {{ command: [/bin/sh, -c, {script}], {more} }}")
}

async fn unhealthy(lair: &Lair) -> ModuleStatus {
    let so = |s: &ModuleStatus| s.health.state == HealthWord::Unhealthy;
    lair.until("m", "unhealthy", so).await
}

/// F2: a probe inside that hangs has failed by time, is joined by no second one, and is gone with all it started.
async fn a_hanging_probe_inside_times_out_and_is_gone(kind: Kind) {
    let lair = lair_on("f2", kind).await;
    let mark = format!("HANGING_{}_{}", kind.name(), std::process::id());
    let script = format!("export {mark}=1; sleep 1000 & sleep 1000");
    let more = probe(
        "liveness",
        &script,
        "interval: 1h, timeout: 1s, failures: 1",
    );
    up(&lair, "m", &sh("m", FOREVER, &more)).await;
    let sick = unhealthy(&lair).await;
    assert!(reason(&sick).contains("1000 ms"), "{}", reason(&sick));
    assert_eq!(sick.state, "running", "reported, and nothing else");
    eventually("it is gone, and the module is not", || {
        processes_with(&mark).is_empty()
    })
    .await;
    assert_eq!(lair.status("m").run, 1);
    lair.stop("m").await;
    end(lair, |args| kind.cli(args)).await;
}

/// F3: what a probe leaves in the background inside is removed with it, whether it failed or not.
async fn what_a_probe_inside_leaves_is_removed_with_it(kind: Kind) {
    let lair = lair_on("f3", kind).await;
    let mark = format!("LEAKED_{}_{}", kind.name(), std::process::id());
    let script = format!("export {mark}=1; sleep 1000 & setsid sleep 1000 & exit 1");
    let more = probe(
        "liveness",
        &script,
        "interval: 1h, timeout: 15s, failures: 1",
    );
    up(&lair, "m", &sh("m", FOREVER, &more)).await;
    let sick = unhealthy(&lair).await;
    assert!(!reason(&sick).contains("15000 ms"), "it failed by its code");
    eventually("nothing of it is left", || processes_with(&mark).is_empty()).await;
    lair.stop("m").await;
    end(lair, |args| kind.cli(args)).await;
}

/// F4: a probe that can't be run inside is no verdict on the module, and is seen.
async fn a_probe_that_is_not_inside_changes_nothing_and_is_seen(kind: Kind) {
    let lair = lair_on("f4", kind).await;
    let more = "  health:\n    liveness: { command: [/nowhere/at/all], interval: 200ms, failures: 1, on_failure: restart }";
    up(&lair, "m", &sh("m", FOREVER, more)).await;
    let seen = lair
        .until("m", "seen", |s| reason(s).contains("/nowhere/at/all"))
        .await;
    assert_eq!(
        (seen.state.as_str(), seen.health.state),
        ("running", HealthWord::Unknown)
    );
    assert_eq!(lair.count("m", "stopping"), 0);
    lair.stop("m").await;
    end(lair, |args| kind.cli(args)).await;
}

/// F5: a listener inside that answers without an end costs bounded time, and its module is not ready.
async fn a_published_port_that_talks_nonsense_is_not_ready(kind: Kind) {
    let lair = lair_on("f5", kind).await;
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address").port()
    };
    let port = free();
    let script = format!("echo up; while :; do yes endless | nc -l -p {port} >/dev/null; done");
    let more = format!(
        "  ports: {{ http: {port} }}\n  health:\n    readiness: {{ http: {{ port: http }}, interval: 200ms, timeout: 1s, failures: 1 }}"
    );
    up(&lair, "m", &sh("m", &script, &more)).await;
    let unasked = "has not said yes yet";
    let so = |s: &ModuleStatus| !s.ready && !reason(s).is_empty() && !reason(s).contains(unasked);
    let seen = lair.until("m", "seen", so).await;
    assert_eq!(seen.state, "running", "{}", reason(&seen));
    let down = lair.stop("m").await;
    assert_eq!(down.state, "stopped");
    end(lair, |args| kind.cli(args)).await;
}

/// Of the neighbour's H1 to H5: the first look comes at once, in the module's own surroundings; a new run starts unknown; what has no probe
/// is unknown and what was stopped is not unhealthy.
async fn health_is_of_this_run_and_of_nothing_else(kind: Kind) {
    let lair = lair_on("h", kind).await;
    let text = format!(
        "name: m\nruntime:\n  container: {{ image: '{}', user: nobody, env: {{ A: x }}, command: [/bin/sh, -c, 'echo up; exec sleep 1000'] }}\n  stop: {{ grace: 400ms }}\n{}",
        image("base"),
        "  health:\n    readiness: { command: [/bin/sh, -c, 'test \"$A\" = x && test $(id -u) = 65534'], interval: 1h }\n    liveness: { command: ['false'], interval: 200ms, failures: 2 }\n",
    );
    up(&lair, "m", &text).await;
    lair.until("m", "ready by its first look", |s| s.ready)
        .await;
    unhealthy(&lair).await;
    lair.handle
        .restart("m", None, asker())
        .await
        .expect("a restart");
    lair.until("m", "up again", |s| s.run == 2 && s.state == "running")
        .await;
    unhealthy(&lair).await;
    let story = lair.story("m");
    let at = |word: &str| {
        story
            .find(word)
            .unwrap_or_else(|| panic!("{word}: {story}"))
    };
    assert!(at("running#2") < at("health#2"), "{story}");
    let down = lair.stop("m").await;
    assert_ne!(down.health.state, HealthWord::Unhealthy, "stopped, not ill");
    up(&lair, "n", &sh("n", FOREVER, "")).await;
    assert_eq!(lair.status("n").health.state, HealthWord::Unknown);
    lair.stop("n").await;
    end(lair, |args| kind.cli(args)).await;
}

/// What each container uses is read from the kernel when somebody asks: CPU, memory, processes, bytes to and from disks. No process
/// and no question to the engine follows a container for it.
async fn what_it_uses_is_shown_without_a_follower(kind: Kind) {
    let lair = lair_on("usage", kind).await;
    let busy = "echo up; dd if=/dev/zero of=/data/file bs=64k count=64 conv=fsync 2>/dev/null; while :; do :; done & sleep 1000";
    let text = sh("m", busy, "").replace(
        "command:",
        "user: '0:0', volumes: [{ source: '${module.data}', target: /data }], command:",
    );
    up(&lair, "m", &text).await;
    let so = |s: &ModuleStatus| {
        let r = &s.resources;
        r.cpu_ms.is_some_and(|ms| ms > 0)
            && r.memory.current.is_some_and(|bytes| bytes > 0)
            && r.processes.is_some_and(|n| n >= 3)
            && r.written_bytes.is_some_and(|n| n >= 4 << 20)
    };
    lair.until("m", "seen to work", so).await;
    let mine = std::process::id();
    let children: Vec<_> = std::fs::read_to_string(format!("/proc/{mine}/task/{mine}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert!(
        children.len() <= 1,
        "the keeper and nobody else: {children:?}"
    );
    lair.stop("m").await;
    end(lair, |args| kind.cli(args)).await;
}

/// Of the neighbour's L1: runs that follow each other within a second keep each its own output.
async fn runs_of_one_second_keep_each_its_output(kind: Kind) {
    let lair = lair_on("l1", kind).await;
    lair.load(&sh("m", "echo one of three", ""))
        .await
        .expect("a load");
    for _ in 0..3 {
        lair.handle.start("m", asker()).await.expect("a start");
        lair.wait("m", WaitFor::Stopped).await;
    }
    let out = String::from_utf8(lair.output("m", "stdout")).expect("text");
    assert_eq!(out, "one of three\n".repeat(3));
    let again = lair.load("name: ../../escape\nruntime:\n  container: { image: x }\n");
    assert!(again.await.is_err(), "L2: a name is no path");
    start(&lair, "n", &sh("n", "true", "")).await;
    lair.wait("n", WaitFor::Stopped).await;
    end(lair, |args| kind.cli(args)).await;
}

macro_rules! on_both {
    ($($story:ident)*) => {
        mod podman { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Podman).await; })* }
        mod docker { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Docker).await; })* }
    };
}

on_both! {
    a_hanging_probe_inside_times_out_and_is_gone
    what_a_probe_inside_leaves_is_removed_with_it
    a_probe_that_is_not_inside_changes_nothing_and_is_seen
    a_published_port_that_talks_nonsense_is_not_ready
    health_is_of_this_run_and_of_nothing_else
    what_it_uses_is_shown_without_a_follower
    runs_of_one_second_keep_each_its_output
}
