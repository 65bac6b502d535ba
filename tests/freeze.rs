//! Modules that are held still, and go on: by the kernel, by their engine, and over lair's own death.

mod face;
mod support;

use face::until;
use lair::WaitFor;
use lair::actors::backend::container::find::EnginePlaces;
use lair::actors::view::HealthWord;
use serde_json::json;
use std::time::Duration;
use support::engines::{Kind, image};
use support::{Lair, SOON, asker, eventually, is_alive};

/// CPU time of a process in clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let rest = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

/// Its liveness probe asks for a word that it gives again and again, and would have it restarted after a second.
const PROBED: &str = "  health: { liveness: { command: [/bin/sh, -c, 'test \"$(find beat -mmin -0.02)\"'], interval: 100ms, timeout: 2s, failures: 5 } }\n  restart: { policy: always }";

#[tokio::test]
async fn a_frozen_module_rests_and_its_probes_with_it_until_it_is_thawed() {
    let lair = Lair::start("freeze").await;
    let folder = lair.home.path().display();
    let more = PROBED.replace("find beat", &format!("find {folder}/beat"));
    let script = format!("while :; do touch {folder}/beat; done");
    lair.sh("m", &script, &more).await;
    let healthy = |s: &lair::actors::status::ModuleStatus| s.health.state == HealthWord::Healthy;
    let up = lair.until("m", "healthy", healthy).await;
    let pid = up.pid.expect("a pid");
    lair.handle.freeze("m", asker()).await.expect("frozen");
    let still = |s: &lair::actors::status::ModuleStatus| {
        s.frozen && s.health.reason.as_deref() == Some("frozen")
    };
    let frozen = lair.until("m", "frozen", still).await;
    assert_eq!(frozen.health.state, HealthWord::Unknown);
    assert_eq!(frozen.state, "running");
    // Far longer than its probe would have borne: real time is what is asked here.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = ticks(pid);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ticks(pid), before, "it uses CPU");
    let rested = lair.status("m");
    assert_eq!((rested.run, rested.restarts.count), (1, 0));
    assert!(still(&rested));
    // Again is fine, and says so.
    lair.handle
        .freeze("m", asker())
        .await
        .expect("frozen already");
    lair.handle.thaw("m", asker()).await.expect("thawed");
    let back = lair.until("m", "healthy again", healthy).await;
    assert!(!back.frozen && back.run == 1 && back.pid == Some(pid));
    eventually("it goes on", || ticks(pid) > before).await;
    assert_eq!(
        (lair.count("m", "frozen"), lair.count("m", "thawed")),
        (1, 1)
    );
    lair.end().await;
}

#[tokio::test]
async fn a_stop_thaws_first_and_what_does_not_run_cannot_be_frozen() {
    let lair = Lair::start("freeze-stop").await;
    lair.sh(
        "m",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done",
        "  stop: { grace: 20s }",
    )
    .await;
    // Its trap is set when it speaks.
    lair.until("m", "up", |s| s.logs.bytes > 0).await;
    lair.handle.freeze("m", asker()).await.expect("frozen");
    let down = lair.stop("m").await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.killed_after_grace), (Some(7), false));
    assert!(!down.frozen);
    for refused in [
        lair.handle.freeze("m", asker()).await,
        lair.handle.thaw("m", asker()).await,
    ] {
        assert_eq!(refused.expect_err("it is down").code, "not_running");
    }
    // KILL reaches what is held still.
    lair.handle.start("m", asker()).await.expect("a start");
    lair.wait("m", WaitFor::Ready).await;
    lair.handle.freeze("m", asker()).await.expect("frozen");
    lair.handle.kill("m", None, asker()).await.expect("killed");
    lair.wait("m", WaitFor::Stopped).await;
    lair.end().await;
}

async fn a_container_is_frozen_by_its_engine(kind: Kind) {
    let story = format!("freeze-{}", kind.name());
    let mut places = EnginePlaces::default();
    match kind {
        Kind::Podman => places.podman.push(kind.socket()),
        Kind::Docker => places.docker.push(kind.socket()),
    }
    let lair = Lair::start_with(&story, |o| o.engines = Some(places)).await;
    let image = image("base");
    let manifest = format!(
        "name: c\nruntime:\n  container: {{ image: '{image}', command: [/bin/sh, -c, 'trap \"exit 7\" TERM; echo up; while :; do sleep 0.1; done'] }}\n  stop: {{ grace: 20s }}\n"
    );
    lair.load(&manifest).await.unwrap_or_else(|e| panic!("{e}"));
    lair.handle.start("c", asker()).await.expect("a start");
    let up = lair.until("c", "up", |s| s.logs.bytes > 0).await;
    let id = up.container.expect("a container");
    lair.handle.freeze("c", asker()).await.expect("frozen");
    assert!(lair.status("c").frozen);
    let paused = || kind.cli(&["inspect", "--format", "{{.State.Status}}", &id]);
    assert_eq!(paused(), "paused");
    lair.handle.thaw("c", asker()).await.expect("thawed");
    assert_eq!(paused(), "running");
    lair.handle.freeze("c", asker()).await.expect("frozen");
    let down = lair.stop("c").await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.killed_after_grace), (Some(7), false));
    lair.end().await;
}

#[tokio::test]
async fn podman_freezes_a_container() {
    a_container_is_frozen_by_its_engine(Kind::Podman).await;
}

#[tokio::test]
async fn docker_freezes_a_container() {
    a_container_is_frozen_by_its_engine(Kind::Docker).await;
}

#[test]
fn the_next_lair_knows_what_was_frozen_and_can_thaw_it() {
    let mut lair = face::Lair::folder();
    lair.module("m", "while :; do :; done", "");
    lair = lair.serve(&["--start"]);
    lair.until_state("m", "running");
    assert_eq!(lair.ask(&["freeze", "m"]).0, 0);
    let before = lair.status("m");
    assert_eq!(before["frozen"], true);
    let (_, table) = lair.ask(&["ps"]);
    assert!(table.contains("frozen"), "{table}");
    lair.kill();
    lair = lair.serve(&[]);
    let after = lair.status("m");
    assert_eq!(
        (&after["pid"], &after["run"]),
        (&before["pid"], &before["run"])
    );
    assert_eq!(after["frozen"], true, "{after}");
    until("its probes rest", SOON, || {
        lair.status("m")["health"]["reason"] == "frozen"
    });
    let pid = i32::try_from(after["pid"].as_i64().expect("a pid")).expect("a pid");
    let rested = ticks(pid);
    assert_eq!(lair.ask(&["thaw", "m"]).0, 0);
    until("it goes on", SOON, || ticks(pid) > rested);
    assert_eq!(lair.status("m")["frozen"], false);
    // One that was frozen over lair's death is thawed by a stop too.
    lair.connect().ok("module.freeze", json!({ "name": "m" }));
    lair.connect().ok("module.stop", json!({ "name": "m" }));
    lair.until_state("m", "stopped");
    assert!(!is_alive(pid));
    assert_eq!(lair.status("m")["exit"]["signal"], 15);
}
