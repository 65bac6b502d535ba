//! OTP's supervisor suite on a whole runtime: what it tells of its modules at every step, and that its work grows with
//! their number and no faster. Numbers are those of `faults.md`, section 5.

mod support;

use lair::actors::status::ModuleStatus;
use lair::supervision::{ExitStatus, NoticeKind, StartFault, StartStage};
use lair::testing::{Fault, OnStop, Script, Simulation};
use lair::{Folders, Runtime, RuntimeError, RuntimeOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{Home, Lair, asker, is_alive};

const SECOND: Duration = Duration::from_secs(1);

fn module(name: &str, more: &str) -> String {
    format!("name: {name}\nruntime:\n  native: {{ command: [/bin/true] }}\n{more}")
}

const ALWAYS: &str =
    "  restart: { policy: always, backoff: { first: 10s, jitter: 0 }, max: 100 }\n";

async fn simulation() -> Simulation {
    Simulation::builder()
        .faults()
        .start()
        .await
        .expect("starts")
}

async fn all_up(sim: &Simulation, names: &[String], more: &str) {
    for name in names {
        sim.load(&module(name, more)).await.expect("loaded");
        let answer = sim.handle().start(name, Simulation::origin()).await;
        answer.expect("started");
    }
    sim.settle().await;
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n}")).collect()
}

/// How many are listed in each state.
fn counts(sim: &Simulation) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for module in sim.handle().list().1 {
        *counts.entry(module.state).or_default() += 1;
    }
    counts
}

async fn crash(sim: &Simulation, name: &str) {
    let fault = Fault::CrashChild {
        id: lair::supervision::ChildId::new(name),
        signal: 9,
    };
    let injected = sim.handle().inject(fault, "story", Simulation::origin());
    injected.await.expect("an open gate");
    sim.settle().await;
}

fn no_such_file() -> StartFault {
    StartFault {
        stage: StartStage::Exec,
        errno: Some(libc::ENOENT),
        message: "no such file".to_owned(),
        transient: false,
    }
}

/// O1, O2: a runtime without modules is whole.
#[tokio::test]
async fn a_runtime_without_modules_lives_and_ends_well() {
    let sim = simulation().await;
    assert_eq!(sim.handle().list().1.len(), 0);
    sim.advance(100 * SECOND).await;
    assert_eq!(
        sim.notices().len(),
        0,
        "it says nothing when nothing happens"
    );
    let report = sim.shutdown(SECOND).await;
    assert_eq!((report.stopped, report.remaining.len()), (0, 0));
}

/// O3: the others start all the same.
#[tokio::test]
async fn one_that_cannot_start_stays_listed_and_keeps_no_other_back() {
    let sim = Simulation::builder()
        .script(
            "m0",
            Script {
                fail: [no_such_file()].into(),
                ..Script::default()
            },
        )
        .start()
        .await
        .expect("starts");
    all_up(&sim, &names(2), "").await;
    let expected = [("failed".to_owned(), 1), ("running".to_owned(), 1)];
    assert_eq!(counts(&sim), expected.into());
    sim.shutdown(SECOND).await;
}

/// O9: nothing is left of a runtime whose keeper can't be made.
#[tokio::test]
async fn a_runtime_whose_keeper_dies_at_once_fails_with_its_reason_and_leaves_nothing() {
    let home = Home::new("otp-keeper");
    let mut options = RuntimeOptions::new(Default::default(), Folders::below(home.path()));
    options.keeper = PathBuf::from("/bin/false");
    let refused = Runtime::start(options).await.err().expect("no keeper");
    assert!(matches!(refused, RuntimeError::Keeper(_)), "{refused}");
    assert_eq!(refused.code(), "keeper_failed");
    // The folders are free for the next one.
    let mut options = RuntimeOptions::new(Default::default(), Folders::below(home.path()));
    options.keeper = PathBuf::from(env!("CARGO_BIN_EXE_lair"));
    let runtime = Runtime::start(options).await.expect("a runtime");
    runtime.shutdown(SECOND).await;
}

/// O17, O19: ten at once, without grace and with it: bounded by one grace, not by their sum.
#[tokio::test]
async fn ten_that_are_stopped_together_take_as_long_as_one() {
    let mut builder = Simulation::builder();
    for name in names(10) {
        let deaf = Script {
            on_stop: OnStop::Ignore,
            ..Script::default()
        };
        builder = builder.script(&name, deaf);
    }
    let sim = builder.start().await.expect("starts");
    all_up(&sim, &names(10), "  stop: { grace: 5s }\n").await;
    for name in names(5) {
        sim.handle()
            .kill(&name, None, Simulation::origin())
            .await
            .expect("killed");
    }
    sim.settle().await;
    assert_eq!(counts(&sim)["stopped"], 5, "without grace at once");
    for name in &names(10)[5..] {
        sim.handle()
            .stop(name, None, Simulation::origin())
            .await
            .expect("told");
    }
    sim.advance(Duration::from_millis(4900)).await;
    assert_eq!(counts(&sim)["stopping"], 5);
    sim.advance(Duration::from_millis(200)).await;
    assert_eq!(counts(&sim)["stopped"], 10);
    sim.shutdown(SECOND).await;
}

/// O20, O21: whatever they end with, a shutdown is a shutdown.
#[tokio::test]
async fn modules_that_end_badly_when_told_to_stop_are_a_clean_shutdown() {
    let mut builder = Simulation::builder();
    let ends = [
        ExitStatus::Code(0),
        ExitStatus::Code(1),
        ExitStatus::Signal(6),
        ExitStatus::Unknown,
    ];
    for (name, status) in names(4).iter().zip(ends) {
        let script = Script {
            on_stop: OnStop::Exit(SECOND, status),
            ..Script::default()
        };
        builder = builder.script(name, script);
    }
    let sim = builder.start().await.expect("starts");
    all_up(&sim, &names(4), ALWAYS).await;
    let (handle, backend) = (sim.handle().clone(), sim.backend().clone());
    let report = sim.shutdown(20 * SECOND).await;
    assert_eq!((report.stopped, report.killed.len()), (4, 0));
    assert!(report.remaining.is_empty());
    assert_eq!((backend.alive(), backend.starts()), (0, 4));
    drop(handle);
}

/// O25: what no module of ours is called is no module, though a process has the number.
#[tokio::test]
async fn a_stranger_cannot_be_named_and_is_left_alive() {
    let lair = Lair::start("otp-stranger").await;
    let mut stranger = std::process::Command::new("/bin/sleep")
        .arg("1000")
        .spawn()
        .expect("a stranger");
    let pid = stranger.id().to_string();
    lair.sh("m", "exec sleep 1000", "").await;
    lair.until("m", "running", |s| s.state == "running").await;
    for verb in ["stop", "kill", "restart"] {
        let answer = match verb {
            "stop" => lair.handle.stop(&pid, None, asker()).await,
            "kill" => lair.handle.kill(&pid, None, asker()).await,
            _ => lair.handle.restart(&pid, None, asker()).await,
        };
        assert_eq!(answer.expect_err("a stranger").code, "unknown_module");
    }
    lair.stop("m").await;
    assert!(is_alive(i32::try_from(stranger.id()).expect("a pid")));
    stranger.kill().expect("killed");
    stranger.wait().expect("waited for");
    lair.end().await;
}

/// O30: what the list says, status says.
#[tokio::test]
async fn list_and_status_agree_at_every_step() {
    let sim = simulation().await;
    let agree = || {
        for listed in sim.handle().list().1 {
            let asked: ModuleStatus = sim.handle().status(&listed.name).expect("known");
            let text = |s: &ModuleStatus| serde_json::to_string(s).expect("text");
            assert_eq!(text(&listed), text(&asked));
        }
    };
    all_up(&sim, &names(3), "").await;
    agree();
    sim.handle()
        .stop("m1", None, Simulation::origin())
        .await
        .expect("told");
    agree();
    sim.settle().await;
    agree();
    sim.handle()
        .unload("m1", Simulation::origin())
        .await
        .expect("unloaded");
    agree();
    let known: Vec<String> = sim.handle().list().1.into_iter().map(|m| m.name).collect();
    assert_eq!(known, ["m0", "m2"]);
    let gone = sim.handle().status("m1").expect_err("unloaded");
    assert_eq!(gone.code, "unknown_module");
    sim.shutdown(SECOND).await;
}

/// O44, O63: only the dead one changes, and only its own budget is spent.
#[tokio::test]
async fn a_modules_death_and_its_giving_up_touch_nobody_else() {
    let sim = simulation().await;
    let twice = "  restart: { policy: always, backoff: { first: 0s }, max: 2 }\n";
    all_up(&sim, &names(3), twice).await;
    let others = || {
        let about = |name: &str| {
            let status = sim.handle().status(name).expect("known");
            (status.run, status.started_at, status.restarts.count)
        };
        [about("m0"), about("m2")]
    };
    let before = others();
    let told = sim.notices().len();
    for _ in 0..3 {
        crash(&sim, "m1").await;
    }
    let dead = sim.handle().status("m1").expect("known");
    assert_eq!((dead.state.as_str(), dead.run), ("failed", 3));
    assert_eq!(dead.reason.expect("a reason").code, "gave_up");
    assert_eq!(others(), before);
    let strangers = sim.notices()[told..]
        .iter()
        .filter(|n| n.id.as_str() != "m1")
        .count();
    assert_eq!(strangers, 0, "nothing is told of the others");
    sim.shutdown(SECOND).await;
}

/// O41, O62: three specs, one up, two waiting; then three up.
#[tokio::test]
async fn counts_are_true_while_some_are_restarting() {
    let sim = simulation().await;
    all_up(&sim, &names(3), ALWAYS).await;
    crash(&sim, "m0").await;
    crash(&sim, "m2").await;
    let expected = [("backoff".to_owned(), 2), ("running".to_owned(), 1)];
    assert_eq!(counts(&sim), expected.into());
    assert_eq!(sim.backend().alive(), 1);
    sim.advance(11 * SECOND).await;
    assert_eq!(counts(&sim), [("running".to_owned(), 3)].into());
    let running = |n: &&std::sync::Arc<lair::supervision::Notice>| n.kind == NoticeKind::Running;
    assert_eq!(sim.notices().iter().filter(running).count(), 5);
    sim.shutdown(SECOND).await;
}

/// O65, O66: lists agree and are stable; after all have been killed, nothing is up.
#[tokio::test]
async fn a_thousand_are_listed_once_each_and_killed_to_the_last() {
    let sim = simulation().await;
    let names = names(1000);
    all_up(&sim, &names, "").await;
    for _ in 0..3 {
        assert_eq!(counts(&sim), [("running".to_owned(), 1000)].into());
    }
    for name in &names {
        sim.handle()
            .kill(name, None, Simulation::origin())
            .await
            .expect("killed");
    }
    sim.settle().await;
    assert_eq!(counts(&sim), [("stopped".to_owned(), 1000)].into());
    assert_eq!(sim.backend().alive(), 0);
    sim.shutdown(SECOND).await;
}

/// O87, O88: ten times as many take about ten times as long, to start and to stop.
#[tokio::test]
async fn starting_and_stopping_grow_with_the_number_of_modules_and_no_faster() {
    let mut took = Vec::new();
    for count in [150, 1500] {
        let sim = simulation().await;
        let began = Instant::now();
        all_up(&sim, &names(count), "").await;
        let started = began.elapsed();
        assert_eq!(counts(&sim)["running"], count);
        let began = Instant::now();
        let report = sim.shutdown(10 * SECOND).await;
        assert_eq!(report.stopped as usize, count);
        took.push((started, began.elapsed()));
    }
    let [few, many] = took[..] else {
        panic!("two measurements")
    };
    // OTP's own bound is fifty; what is quadratic would take a hundred times as long.
    let floor = Duration::from_millis(5);
    assert!(many.0 < 50 * few.0.max(floor), "start: {took:?}");
    assert!(many.1 < 50 * few.1.max(floor), "stop: {took:?}");
}
