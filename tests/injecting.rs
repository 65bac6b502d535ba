//! Fault injection as harnesses use it: each fault is real, told, marked with its label, and survived.

mod face;
mod support;

use lair::supervision::{ChildId, ExitStatus, NoticeKind, Origin};
use lair::testing::{ActorKind, Fault, FaultStream, OnStop, Script, ScriptedEvent, Simulation};
use lair::{Refused, WaitFor};
use serde_json::json;
use std::time::{Duration, Instant};
use support::{Lair, asker, eventually};

const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";

async fn faulty(name: &str) -> Lair {
    Lair::start_with(name, |o| o.faults = true).await
}

fn id(name: &str) -> ChildId {
    ChildId::new(name)
}

async fn inject(lair: &Lair, fault: Fault) -> Result<u64, Refused> {
    lair.handle
        .inject(fault, "drill", asker())
        .await
        .map(|s| s.0)
}

/// Everything told of this module from the fault on is marked, as far as `kinds` go.
fn marked(lair: &Lair, name: &str, kinds: &[&str]) {
    for kind in kinds {
        let all = lair.notices(name);
        let told = all.iter().rfind(|n| support::word(&n.kind) == *kind);
        let told = told.unwrap_or_else(|| panic!("{kind} was not told: {}", lair.story(name)));
        let origin = Origin::Injected {
            label: "drill".into(),
        };
        assert_eq!(told.origin, origin, "{kind}: {}", lair.story(name));
    }
}

fn state_of(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .and_then(|(_, r)| r.chars().next())
        .unwrap_or('?')
}

#[tokio::test]
async fn a_paused_module_stands_still_until_it_is_resumed() {
    let lair = faulty("pause").await;
    lair.sh("m", "sleep 1000 & exec sleep 1000", "").await;
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    inject(
        &lair,
        Fault::PauseChild {
            id: id("m"),
            for_ms: None,
        },
    )
    .await
    .expect("injected");
    eventually("it stands still", || state_of(pid) == 'T').await;
    assert_eq!(lair.status("m").state, "running");
    inject(&lair, Fault::ResumeChild { id: id("m") })
        .await
        .expect("injected");
    eventually("it goes on", || state_of(pid) == 'S').await;
    inject(
        &lair,
        Fault::PauseChild {
            id: id("m"),
            for_ms: Some(50),
        },
    )
    .await
    .expect("injected");
    eventually("it goes on by itself", || state_of(pid) == 'S').await;
    marked(&lair, "m", &["injected"]);
    lair.stop("m").await;
    lair.end().await;
}

#[tokio::test]
async fn a_log_that_can_not_be_written_for_a_while_is_told_and_counted() {
    let lair = faulty("fail-log").await;
    lair.sh("m", COUNTER, "").await;
    lair.until("m", "printing", |m| m.logs.bytes > 20).await;
    let fault = Fault::FailLogWrites {
        id: id("m"),
        errno: libc::ENOSPC,
        count: 2,
    };
    inject(&lair, fault).await.expect("injected");
    eventually("it can be written again", || {
        lair.count("m", "log_recovered") > 0
    })
    .await;
    marked(&lair, "m", &["injected", "log_degraded", "log_recovered"]);
    lair.stop("m").await;
    let lost = lair
        .notices("m")
        .iter()
        .any(|n| matches!(n.kind, NoticeKind::LogRecovered { dropped } if dropped > 0));
    assert!(lost, "{}", lair.story("m"));
    let remarks = String::from_utf8_lossy(&lair.output("m", "lair")).into_owned();
    assert!(remarks.contains("dropped bytes="), "{remarks}");
    lair.end().await;
}

#[tokio::test]
async fn a_closed_stream_keeps_nobody_waiting_and_what_it_costs_is_counted() {
    let lair = faulty("close-stream").await;
    let script = "echo one; read x < go; head -c 3000000 /dev/zero; echo done >&2; exit 0";
    let fifo = lair.home.path().join("go");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("a fifo");
    lair.sh("m", script, "").await;
    lair.until("m", "printing", |m| m.logs.bytes >= 4).await;
    let fault = Fault::CloseStream {
        id: id("m"),
        stream: FaultStream::Stdout,
    };
    inject(&lair, fault).await.expect("injected");
    let open = tokio::task::spawn_blocking(move || std::fs::write(fifo, "go\n"));
    open.await.expect("told").expect("written");
    let status = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(status.logs.dropped, 3_000_000, "{status:#?}");
    assert_eq!(lair.output("m", "stderr"), b"done\n");
    assert_eq!(lair.output("m", "stdout"), b"one\n");
    lair.end().await;
}

#[tokio::test]
async fn a_stalled_actor_delays_no_status_and_loses_nothing() {
    let lair = faulty("stall").await;
    lair.sh("m", COUNTER, "").await;
    lair.wait("m", WaitFor::Ready).await;
    for (which, whose) in [
        (ActorKind::Log, None),
        (ActorKind::Health, None),
        (ActorKind::Pump, None),
        (ActorKind::Module, Some(id("m"))),
        (ActorKind::Root, None),
    ] {
        let fault = Fault::StallActor {
            which,
            id: whose,
            for_ms: 300,
        };
        inject(&lair, fault).await.expect("injected");
        let begun = Instant::now();
        assert_eq!(lair.status("m").state, "running", "{which:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{which:?}");
    }
    // Behind all of them, the stop still comes.
    lair.stop("m").await;
    let lines = String::from_utf8_lossy(&lair.output("m", "stdout")).into_owned();
    let numbers: Vec<u64> = lines
        .lines()
        .filter_map(|l| l.strip_prefix("line ")?.parse().ok())
        .collect();
    assert!(
        numbers.len() > 10 && numbers.windows(2).all(|w| w[1] == w[0] + 1),
        "{numbers:?}"
    );
    lair.end().await;
}

#[tokio::test]
async fn without_its_keeper_what_is_unknown_is_said_to_be_and_marked() {
    let lair = faulty("kill-keeper").await;
    lair.sh("m", "exec sleep 1000", "").await;
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    let keeper = lair.keeper().expect("a keeper");
    inject(&lair, Fault::KillKeeper).await.expect("injected");
    eventually("the keeper is gone", || !support::is_alive(keeper)).await;
    assert!(support::is_alive(pid));
    assert_eq!(lair.status("m").state, "running");
    support::signal(pid, libc::SIGKILL);
    let status = lair.wait("m", WaitFor::Stopped).await;
    let exit = status.exit.expect("an exit");
    if exit.unknown == Some(true) {
        marked(&lair, "m", &["exited"]);
    } else {
        assert_eq!(exit.signal, Some(libc::SIGKILL), "invented: {exit:?}");
    }
    // The keeper was killed, so it can't be asked to end: this runtime is dropped, not shut down.
    let _ = lair.runtime.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_nothing_here_can_do_is_refused_by_its_own_code() {
    let lair = faulty("unsupported").await;
    lair.sh("m", "exec sleep 1000", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let scripted = Fault::Scripted {
        id: id("m"),
        event: ScriptedEvent::Exits { code: 0 },
    };
    let refused = inject(&lair, scripted)
        .await
        .expect_err("it is a real process");
    assert_eq!(refused.code, "unsupported");
    assert_eq!(lair.status("m").state, "running");
    let unknown = inject(&lair, Fault::ResumeChild { id: id("nobody") }).await;
    assert_eq!(unknown.expect_err("nobody").code, "unknown_module");
    assert_eq!(
        lair.count("m", "injected"),
        0,
        "what was refused is not told as done"
    );
    lair.end().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_simulated_module_does_what_the_script_of_a_rehearsal_says() {
    let script = Script {
        on_stop: OnStop::Ignore,
        ..Script::default()
    };
    let sim = Simulation::builder()
        .seed(3)
        .faults()
        .script("m", script)
        .start()
        .await
        .expect("a simulation");
    sim.load(&support::sh(
        "m",
        "never run",
        "  restart: { policy: on-failure }",
    ))
    .await
    .expect("loaded");
    sim.start("m").await.expect("started");
    sim.settle().await;
    let happen = |event| {
        let fault = Fault::Scripted { id: id("m"), event };
        sim.handle().inject(fault, "script", Simulation::origin())
    };
    happen(ScriptedEvent::Dies { signal: 6 })
        .await
        .expect("injected");
    sim.settle().await;
    let exit = |n: &lair::supervision::Notice| match &n.kind {
        NoticeKind::Exited { status, .. } => Some((*status, n.origin.clone())),
        _ => None,
    };
    let told = sim.notices().iter().find_map(|n| exit(n)).expect("an exit");
    let origin = Origin::Injected {
        label: "script".into(),
    };
    assert_eq!(told, (ExitStatus::Signal(6), origin));
    assert_eq!(sim.handle().status("m").expect("there").state, "backoff");
    sim.check().expect("every promise");
}

/// R10
/// The run that a restart asks for is the asker's, though a fault ended the one before it.
#[tokio::test]
async fn a_restart_that_meets_a_fault_is_still_the_askers() {
    let slow = Script {
        on_stop: OnStop::Ignore,
        ..Script::default()
    };
    let sim = Simulation::builder().faults().script("m", slow);
    let sim = sim.start().await.expect("starts");
    let text = "name: m\nruntime: { native: { command: [/bin/true] } }\n";
    sim.load(text).await.expect("loaded");
    sim.start("m").await.expect("started");
    sim.settle().await;
    let restart = sim.handle().restart("m", None, Simulation::origin());
    restart.await.expect("accepted");
    let fault = Fault::CrashChild {
        id: id("m"),
        signal: 11,
    };
    let injected = sim.handle().inject(fault, "drill", Simulation::origin());
    injected.await.expect("an open gate");
    sim.settle().await;
    let notices = sim.notices();
    let of = |run: u64, kind: fn(&NoticeKind) -> bool| {
        let mut found = notices.iter().filter(|n| n.inc == run && kind(&n.kind));
        found.next().expect("it is told").origin.clone()
    };
    let exited = of(1, |k| matches!(k, NoticeKind::Exited { .. }));
    assert!(matches!(exited, Origin::Injected { .. }), "{exited:?}");
    for kind in [
        (|k| matches!(k, NoticeKind::Starting)) as fn(&NoticeKind) -> bool,
        |k| matches!(k, NoticeKind::Running),
    ] {
        assert_eq!(of(2, kind), Simulation::origin());
    }
    sim.check().expect("every promise");
}

#[test]
fn a_root_that_panics_ends_the_program_with_its_own_code_and_no_orphan() {
    let lair = face::Lair::folder();
    lair.module("m", "trap '' TERM; sleep 1000 & exec sleep 1000", "");
    let mut lair = lair.serve(&["--start", "--allow-faults"]);
    lair.until_state("m", "running");
    let pid = lair.status("m")["pid"]
        .as_i64()
        .and_then(|p| i32::try_from(p).ok())
        .expect("a pid");
    let mut conn = lair.connect();
    conn.send(br#"{"jsonrpc":"2.0","id":1,"method":"fault.inject","params":{"fault":{"panic_actor":{"which":"root"}},"label":"drill"}}"#);
    // An answer, an error or the end of the connection; no hang.
    let _ = conn.line();
    let code = lair
        .daemon
        .take()
        .expect("a daemon")
        .wait()
        .expect("its end")
        .code();
    assert_eq!(code, Some(70), "{}", lair.log());
    face::until("the module is gone", face::SOON, || !support::is_alive(pid));
}

#[test]
fn the_verb_injects_and_a_closed_gate_says_so() {
    let lair = face::Lair::folder();
    lair.module("m", face::SLEEPER, "");
    let lair = lair.serve(&["--start", "--allow-faults"]);
    lair.until_state("m", "running");
    let (code, text) = lair.ask(&[
        "inject", "crash", "m", "--signal", "SEGV", "--label", "by-verb",
    ]);
    assert_eq!(code, 0, "{text}");
    lair.until_state("m", "failed");
    let status = lair.status("m");
    assert_eq!(
        (status["exit"]["signal"].as_i64(), status["origin"].as_str()),
        (Some(11), Some("injected: by-verb"))
    );
    assert_eq!(lair.ask(&["inject", "drop-engine"]).0, 0);
    assert_eq!(lair.ask(&["inject", "stall", "module"]).0, 2);
    assert_eq!(
        lair.ask(&[
            "inject",
            "fail-start",
            "m",
            "--errno",
            "EAGAIN",
            "--stage",
            "create"
        ])
        .0,
        0
    );
    let mut conn = lair.connect();
    conn.ok("module.start", json!({ "name": "m" }));
    lair.until_state("m", "failed");
    assert_eq!(lair.status("m")["reason"]["errno"], "EAGAIN");
    drop(conn);
    drop(lair);
    let lair = face::Lair::folder();
    lair.module("m", face::SLEEPER, "");
    let lair = lair.serve(&["--start"]);
    assert_eq!(lair.ask(&["inject", "crash", "m"]).0, 5);
    assert_eq!(lair.ask(&["chaos", "--for", "1s"]).0, 5);
}

#[test]
fn chaos_breaks_much_and_finds_every_promise_kept() {
    let lair = face::Lair::folder();
    for name in ["a", "b"] {
        lair.module(name, COUNTER, "");
    }
    lair.module("c", COUNTER, "  restart: { policy: always, max: 1000, within: 1m, backoff: { first: 10ms, cap: 50ms } }\n");
    let lair = lair.serve(&["--allow-faults"]);
    let (code, text) = lair.ask(&["chaos", "--seed", "7", "--for", "6s", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(code, 0, "{report:#}");
    assert!(
        report["steps"].as_u64().is_some_and(|n| n > 20),
        "{report:#}"
    );
    let numbered = report["findings"].as_array().expect("findings").iter();
    let i7 = numbered.clone().find(|f| f["promise"] == "I7").expect("I7");
    assert!(
        i7["seen"]
            .as_str()
            .is_some_and(|s| s.contains("numbered lines")),
        "{i7}"
    );
    // The same schedule, from a file.
    let (_, made) = lair.ask(&["chaos", "--seed", "7", "--for", "2s", "--print"]);
    let (_, again) = lair.ask(&["chaos", "--seed", "7", "--for", "2s", "--print"]);
    assert_eq!(made, again);
    let file = lair.dir.join("drill.jsonl");
    std::fs::write(&file, format!("# a drill\n{made}")).expect("a schedule");
    let (code, text) = lair.ask(&["chaos", &file.display().to_string()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("I11"), "{text}");
    std::fs::write(&file, "{\"after_ms\": 1}\n").expect("a schedule");
    assert_eq!(lair.ask(&["chaos", &file.display().to_string()]).0, 2);
}

#[test]
fn chaos_with_some_modules_finds_nothing_amiss_in_that_others_run_on() {
    let lair = face::Lair::folder();
    for name in ["a", "b"] {
        lair.module(name, COUNTER, "");
    }
    let lair = lair.serve(&["--allow-faults", "--start"]);
    lair.until_state("b", "running");
    let (code, text) = lair.ask(&["chaos", "--for", "1s", "--module", "a", "-o", "json"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(lair.status("b")["state"], "running");
}
