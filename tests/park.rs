//! Modules that let go of memory when they are asked, and take it again: a real server that holds 200 MiB.

mod face;
mod support;

use face::until;
use lair::handle::ParkReport;
use lair::supervision::NoticeKind;
use lair::{Refused, WaitFor};
use serde_json::json;
use std::path::Path;
use support::{Lair, SOON, asker, eventually};

const MIB: i64 = 1 << 20;

/// What the server's process holds beside its 200 MiB moves by a few of them.
const MOST: i64 = 190 * MIB;

const SERVES: &str =
    "  health: { readiness: { http: { port: api, path: /health }, interval: 100ms } }\n";
const SLEEPS: &str = "  park: { http: { port: api, path: /sleep?level=1 } }\n  wake: { http: { port: api, path: /wake } }";

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The server's command, and `more` with its port.
fn server(go: &Path, more: &str) -> (String, String) {
    let port = free_port();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/sleeper.py");
    (
        format!("exec python3 {program} {port} 200 {}", go.display()),
        format!("  ports: {{ api: {port} }}\n{more}"),
    )
}

/// A runtime with the server as its module `m`, ready.
async fn lair_with(story: &str, more: &str) -> Lair {
    let lair = Lair::start(story).await;
    let (script, more) = server(&lair.home.path().join("go"), more);
    lair.sh("m", &script, &more).await;
    lair.wait("m", WaitFor::Ready).await;
    lair
}

/// Waits until the server has said that it was asked this.
async fn until_asked(lair: &Lair, name: &str, what: &str) {
    eventually(what, || {
        String::from_utf8_lossy(&lair.output(name, "stdout")).contains(what)
    })
    .await;
}

fn code(result: &Result<ParkReport, Refused>) -> &str {
    result.as_ref().expect_err("a refusal").code
}

#[tokio::test]
async fn what_a_module_lets_go_of_is_told_and_waking_it_tells_when_it_serves() {
    let lair = lair_with("park", &format!("{SERVES}{SLEEPS}")).await;
    assert!(lair.status("m").parked.is_none());
    let parked = lair.handle.park("m", asker()).await.expect("parked");
    let memory = parked.memory;
    assert!(memory.freed.expect("known") > MOST, "{parked:?}");
    assert!(memory.before.expect("known") > memory.after.expect("known"));
    // It asked for no GPU: nobody looked.
    assert_eq!(parked.gpu_memory.freed, None);
    assert_eq!((parked.run, parked.ready), (1, None));
    let asleep = lair.status("m");
    let since = asleep.parked.expect("parked").since;
    assert_eq!(asleep.state, "running");
    // Its probes go on, and say what is so.
    lair.until("m", "not ready", |s| !s.ready).await;
    // Again is fine: it is asked again, and there is nothing left.
    let again = lair.handle.park("m", asker()).await.expect("parked");
    assert!(again.memory.freed.expect("known") < 20 * MIB, "{again:?}");
    assert_eq!(lair.status("m").parked.expect("parked").since, since);
    let woken = lair.handle.wake("m", asker()).await.expect("woken");
    assert!(woken.memory.freed.expect("known") < -MOST, "{woken:?}");
    assert_eq!(woken.ready, Some(true));
    assert!(lair.status("m").parked.is_none());
    assert_eq!((lair.count("m", "parked"), lair.count("m", "woke")), (2, 1));
    let told = lair.notices("m").iter().find_map(|n| match n.kind {
        NoticeKind::Parked { freed, took_ms, .. } => Some((freed, took_ms)),
        _ => None,
    });
    assert_eq!(told, Some((memory.freed, parked.took_ms)));
    lair.end().await;
}

#[tokio::test]
async fn one_that_answers_first_and_lets_go_later_is_measured_until_it_has() {
    let body = r#"  park: { http: { port: api, path: /later, body: '{"unload_models":true}', expect: 200 } }"#;
    let lair = lair_with("park-later", &format!("{SERVES}{body}")).await;
    let parked = lair.handle.park("m", asker()).await.expect("parked");
    assert!(parked.memory.freed.expect("known") > MOST, "{parked:?}");
    assert!(parked.took_ms >= 900, "{parked:?}");
    // Its next use wakes it, of which nobody would be told: so nobody says that it is parked.
    assert!(lair.status("m").parked.is_none());
    assert_eq!(lair.count("m", "parked"), 1);
    let wake = lair.handle.wake("m", asker()).await;
    assert_eq!(code(&wake), "park_undeclared");
    let asked = r#"asked /later application/json {"unload_models":true}"#;
    until_asked(&lair, "m", asked).await;
    lair.end().await;
}

#[tokio::test]
async fn a_request_that_fails_is_refused_and_nothing_changes() {
    let broken = "  park: { http: { port: api, path: /broken } }\n  wake: { http: { port: api, path: /hold }, within: 300ms }";
    let lair = lair_with("park-fails", &format!("{SERVES}{broken}")).await;
    let refused = lair.handle.park("m", asker()).await;
    assert_eq!(code(&refused), "park_failed");
    let why = refused.expect_err("a refusal").message;
    assert!(why.contains("answered 500: no such model"), "{why}");
    assert!(!why.contains("and more"), "{why}");
    let refused = lair.handle.wake("m", asker()).await;
    assert_eq!(code(&refused), "park_failed");
    let why = refused.expect_err("a refusal").message;
    assert!(why.contains("did not answer within 300ms"), "{why}");
    let status = lair.status("m");
    assert!(status.ready && status.parked.is_none() && status.run == 1);
    assert_eq!((lair.count("m", "parked"), lair.count("m", "woke")), (0, 0));
    lair.end().await;
}

#[tokio::test]
async fn a_second_request_at_the_same_time_is_refused() {
    let hold = "  park: { http: { port: api, path: /hold } }";
    let lair = lair_with("park-twice", &format!("{SERVES}{hold}")).await;
    let go = lair.home.path().join("go");
    let (handle, origin) = (lair.handle.clone(), asker());
    let first = tokio::spawn(async move { handle.park("m", origin).await });
    until_asked(&lair, "m", "asked /hold").await;
    for _ in 0..3 {
        assert_eq!(code(&lair.handle.park("m", asker()).await), "park_busy");
    }
    std::fs::write(&go, "").expect("a file");
    first.await.expect("a task").expect("parked");
    assert_eq!(lair.count("m", "parked"), 1);
    // One that is held still would not answer.
    lair.handle.freeze("m", asker()).await.expect("frozen");
    assert_eq!(code(&lair.handle.park("m", asker()).await), "park_busy");
    lair.handle.thaw("m", asker()).await.expect("thawed");
    lair.sh("plain", "exec sleep 1000", "").await;
    let plain = lair.handle.park("plain", asker()).await;
    assert_eq!(code(&plain), "park_undeclared");
    lair.stop("m").await;
    assert_eq!(code(&lair.handle.park("m", asker()).await), "not_running");
    lair.end().await;
}

#[tokio::test]
async fn the_end_of_its_run_forgets_that_it_was_parked_and_ends_what_is_asked_of_it() {
    let lair = lair_with("park-end", &format!("{SERVES}{SLEEPS}")).await;
    lair.handle.park("m", asker()).await.expect("parked");
    assert!(lair.status("m").parked.is_some());
    assert!(lair.stop("m").await.parked.is_none());
    lair.handle.start("m", asker()).await.expect("a start");
    let up = lair.wait("m", WaitFor::Ready).await;
    assert!(up.parked.is_none() && up.run == 2);
    let (script, more) = server(
        &lair.home.path().join("never"),
        &format!("{SERVES}  park: {{ http: {{ port: api, path: /hold }} }}"),
    );
    lair.sh("n", &script, &more).await;
    lair.wait("n", WaitFor::Ready).await;
    let handle = lair.handle.clone();
    let asked = tokio::spawn(async move { handle.park("n", asker()).await });
    until_asked(&lair, "n", "asked /hold").await;
    lair.handle.kill("n", None, asker()).await.expect("killed");
    // Whichever is seen first: that its run is over, or that its connection is.
    let answer = asked.await.expect("a task");
    assert!(["not_running", "park_failed"].contains(&code(&answer)));
    lair.end().await;
}

#[tokio::test]
async fn its_probes_rest_while_it_is_parked_where_its_manifest_says_so() {
    let rests = "  health: { startup: { http: { port: api, path: /health }, interval: 100ms }, readiness: { http: { port: api, path: /health }, interval: 100ms }, liveness: { http: { port: api, path: /health }, interval: 100ms, failures: 2, on_failure: restart } }\n  restart: { policy: always }\n  park: { http: { port: api, path: /sleep }, probes: rest }\n  wake: { http: { port: api, path: /wake } }";
    let lair = lair_with("park-rests", rests).await;
    lair.handle.park("m", asker()).await.expect("parked");
    let rested = |s: &lair::actors::status::ModuleStatus| {
        s.parked.is_some() && s.health.reason.as_deref() == Some("parked")
    };
    lair.until("m", "its probes rest", rested).await;
    // A thaw lets nothing go on that rests for another reason.
    lair.handle.freeze("m", asker()).await.expect("frozen");
    lair.handle.thaw("m", asker()).await.expect("thawed");
    // Far longer than its probes would have borne: real time is what is asked here.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let status = lair.status("m");
    assert_eq!((status.run, status.ready), (1, true));
    assert!(rested(&status), "{:?}", status.health);
    lair.handle.wake("m", asker()).await.expect("woken");
    let back = lair
        .until("m", "healthy again", |s| {
            s.health.state == lair::actors::view::HealthWord::Healthy
        })
        .await;
    assert_eq!(back.run, 1);
    lair.end().await;
}

#[test]
fn the_next_lair_knows_what_was_parked_and_can_wake_it() {
    let mut lair = face::Lair::folder();
    let (script, more) = server(&lair.dir.join("go"), &format!("{SERVES}{SLEEPS}"));
    lair.module("m", &script, &more);
    lair = lair.serve(&["--start"]);
    until("it is ready", SOON, || lair.status("m")["ready"] == true);
    let (code, said) = lair.ask(&["park", "m"]);
    assert_eq!(code, 0);
    assert!(said.contains("freed); GPU memory unknown"), "{said}");
    let before = lair.status("m");
    assert!(before["parked"]["since"].is_string(), "{before}");
    let (_, table) = lair.ask(&["ps"]);
    assert!(table.contains("parked"), "{table}");
    let (_, page) = lair.ask(&["status", "m"]);
    assert!(page.contains("Parked: since "), "{page}");
    let told = |lair: &face::Lair| lair.ask(&["call", "runtime.metrics"]).1;
    let metric = told(&lair);
    assert!(
        metric.contains(r#"lair_module_parked{module=\"m\"} 1"#),
        "{metric}"
    );
    lair.kill();
    lair = lair.serve(&[]);
    let after = lair.status("m");
    assert_eq!(
        (&after["pid"], &after["parked"]),
        (&before["pid"], &before["parked"])
    );
    let woken = lair.connect().ok("module.wake", json!({ "name": "m" }));
    assert_eq!(woken["ready"], true, "{woken}");
    assert!(woken["took_ms"].is_u64() && woken["memory"]["freed"].is_i64());
    assert!(lair.status("m")["parked"].is_null());
    lair.connect().ok("module.stop", json!({ "name": "m" }));
    lair.until_state("m", "stopped");
}
