//! Groups of a stack: who goes down with whom, in which order, and what is said of it.

mod face;

use face::{SOON, until};
use lair::actors::status::ModuleStatus;
use lair::supervision::{ExitStatus, NoticeKind};
use lair::testing::{Fault, OnStop, Script, Simulation};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A stack with the group `g` over `a`, `b`, `c`, and `x` outside of it. All are restarted after a second.
fn stack(strategy: &str, max: u32, policies: [&str; 3]) -> String {
    let mut text = "modules:\n".to_owned();
    for (name, policy) in ["a", "b", "c", "x"]
        .iter()
        .zip(policies.iter().chain(&["always"]))
    {
        text += &format!(
            "- name: {name}\n  runtime:\n    native: {{ command: [/bin/true] }}\n    restart: {{ policy: {policy}, backoff: {{ first: 1s, factor: 1, jitter: 0 }} }}\n"
        );
    }
    text + &format!(
        "groups: [ {{ name: g, strategy: {strategy}, modules: [a, b, c], max: {max}, within: 10m }} ]\n"
    )
}

const ALWAYS: [&str; 3] = ["always"; 3];

async fn running(stack: &str) -> Simulation {
    let sim = Simulation::builder()
        .faults()
        .start()
        .await
        .expect("starts");
    sim.load(stack).await.expect("loaded");
    for name in ["a", "b", "c", "x"] {
        sim.start(name).await.expect("started");
    }
    sim
}

async fn crash(sim: &Simulation, name: &str) {
    let fault = Fault::CrashChild {
        id: lair::supervision::ChildId::new(name),
        signal: 11,
    };
    let injected = sim.handle().inject(fault, "story", Simulation::origin());
    injected.await.expect("an open gate");
    sim.settle().await;
}

fn status(sim: &Simulation, name: &str) -> ModuleStatus {
    sim.handle().status(name).expect("known")
}

fn runs(sim: &Simulation) -> Vec<(String, u64)> {
    let all = sim.handle().list().1;
    all.into_iter().map(|m| (m.state, m.run)).collect()
}

fn all_running(numbers: [u64; 4]) -> Vec<(String, u64)> {
    numbers.map(|n| ("running".to_owned(), n)).to_vec()
}

/// What was told since this number, of starts and ends: `exited b`.
fn told(sim: &Simulation, since: usize) -> Vec<String> {
    let word = |kind: &NoticeKind| match kind {
        NoticeKind::Starting => Some("starting"),
        NoticeKind::Exited { .. } => Some("exited"),
        NoticeKind::GroupRestart { .. } => Some("restart for"),
        NoticeKind::GroupGaveUp { .. } => Some("gave up for"),
        _ => None,
    };
    let notices = sim.notices();
    let news = notices.iter().skip(since);
    news.filter_map(|n| word(&n.kind).map(|w| format!("{w} {}", n.id)))
        .collect()
}

/// O46, O63: the branch is restarted, and nobody beside it notices.
#[tokio::test]
async fn one_for_all_stops_last_first_and_starts_first_first_after_the_delay() {
    let sim = running(&stack("one_for_all", 5, ALWAYS)).await;
    // Each takes its time, so that whoever did not wait would be seen.
    for name in ["a", "b", "c"] {
        sim.backend().script(
            name,
            Script {
                spawn_after: SECOND,
                ..Script::default()
            },
        );
    }
    let before = sim.notices().len();
    crash(&sim, "b").await;
    assert_eq!(status(&sim, "b").state, "backoff");
    let held = status(&sim, "c");
    assert_eq!(held.reason.expect("a reason").code, "group_restart");
    assert_eq!(held.group.expect("a group").state, "restarting");
    sim.advance(10 * SECOND).await;
    assert_eq!(
        told(&sim, before),
        [
            "exited b",
            "restart for b",
            "exited c",
            "exited a",
            "starting a",
            "starting b",
            "starting c"
        ]
    );
    assert_eq!(runs(&sim), all_running([2, 2, 2, 1]));
    let group = status(&sim, "a").group.expect("a group");
    assert_eq!((group.state.as_str(), group.restarts), ("steady", 1));
    assert_eq!(status(&sim, "x").group, None);
    sim.check().expect("every promise");
    sim.shutdown(SECOND).await;
}

/// O49, O51
#[tokio::test]
async fn rest_for_one_leaves_those_before_alone() {
    let sim = running(&stack("rest_for_one", 5, ALWAYS)).await;
    crash(&sim, "b").await;
    sim.advance(5 * SECOND).await;
    assert_eq!(runs(&sim), all_running([1, 2, 2, 1]));
    sim.shutdown(SECOND).await;
}

/// O44: the third death within the window ends the group, and nothing beside it.
#[tokio::test]
async fn a_group_that_gives_up_rests_failed_with_its_reason_and_a_start_gives_it_a_new_budget() {
    let sim = running(&stack("one_for_one", 2, ALWAYS)).await;
    for name in ["a", "b"] {
        crash(&sim, name).await;
        sim.advance(2 * SECOND).await;
    }
    assert_eq!(runs(&sim), all_running([2, 2, 1, 1]));
    let before = sim.notices().len();
    crash(&sim, "c").await;
    sim.advance(5 * SECOND).await;
    assert_eq!(
        told(&sim, before),
        ["exited c", "exited b", "exited a", "gave up for c"]
    );
    let (a, c) = (status(&sim, "a"), status(&sim, "c"));
    assert_eq!((a.state.as_str(), c.state.as_str()), ("failed", "failed"));
    assert_eq!(a.reason.expect("a reason").code, "group_gave_up");
    assert_eq!(c.reason.expect("a reason").code, "gave_up");
    let group = a.group.expect("a group");
    assert_eq!(
        (group.state.as_str(), group.reason.as_deref()),
        (
            "failed",
            Some("given up after 2 restarts within 600s: `c` failed once more")
        )
    );
    assert_eq!(runs(&sim)[3], ("running".to_owned(), 1));
    assert!(a.origin.starts_with("injected"), "{}", a.origin);
    sim.start("a").await.expect("started");
    let group = status(&sim, "b").group.expect("a group");
    assert_eq!((group.state.as_str(), group.restarts), ("steady", 0));
    sim.check().expect("every promise");
    sim.shutdown(SECOND).await;
}

/// O42
#[tokio::test]
async fn a_bystander_that_never_restarts_is_stopped_with_its_group_and_stays_down() {
    let sim = running(&stack("one_for_all", 1, ["always", "never", "on-failure"])).await;
    crash(&sim, "a").await;
    sim.advance(5 * SECOND).await;
    let b = status(&sim, "b");
    assert_eq!(b.state, "stopped");
    assert_eq!(b.reason.expect("a note").code, "group_restart");
    assert_eq!(status(&sim, "c").run, 2);
    assert_eq!(status(&sim, "a").group.expect("a group").restarts, 1);
    sim.shutdown(SECOND).await;
}

/// O58, O59: a group in the middle of a restart answers, and can be shut down.
#[tokio::test]
async fn a_shutdown_in_the_middle_of_a_groups_restart_leaves_nothing() {
    let sim = running(&stack("one_for_all", 5, ALWAYS)).await;
    for name in ["a", "b", "c"] {
        sim.backend().script(
            name,
            Script {
                on_stop: OnStop::Exit(2 * SECOND, ExitStatus::Code(0)),
                spawn_after: 2 * SECOND,
                ..Script::default()
            },
        );
    }
    crash(&sim, "a").await;
    sim.advance(5 * SECOND).await;
    crash(&sim, "a").await;
    let backend = sim.backend().clone();
    let report = sim.shutdown(10 * SECOND).await;
    assert!(report.remaining.is_empty(), "{report:?}");
    assert_eq!(backend.alive(), 0);
}

/// The order of a file is the order of its starts, and what somebody stopped stays down.
#[tokio::test]
async fn what_was_stopped_by_hand_stays_down_when_its_group_is_restarted() {
    let sim = running(&stack("one_for_all", 5, ALWAYS)).await;
    let stopped = sim.handle().stop("b", None, Simulation::origin());
    stopped.await.expect("stopped");
    sim.settle().await;
    crash(&sim, "c").await;
    sim.advance(5 * SECOND).await;
    let state = |name| status(&sim, name).state;
    assert_eq!(
        [state("a"), state("b"), state("c")],
        ["running", "stopped", "running"]
    );
    sim.shutdown(SECOND).await;
}

/// Random groups, scripts, crashes and requests: nothing is lost, and nobody waits for ever.
#[tokio::test]
async fn histories_of_groups_break_no_promise() {
    for seed in 1..=40_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let strategy = ["one_for_one", "one_for_all", "rest_for_one"][roll(3) as usize];
        let policy = |n: u64| ["always", "on-failure", "never"][n as usize];
        let policies = [policy(roll(3)), policy(roll(3)), policy(roll(2))];
        let sim = running(&stack(strategy, 3, policies)).await;
        for _ in 0..20 {
            let name = ["a", "b", "c"][roll(3) as usize];
            match roll(8) {
                0 => drop(sim.start(name).await),
                1 => drop(sim.handle().stop(name, None, Simulation::origin()).await),
                2 => drop(sim.handle().restart(name, None, Simulation::origin()).await),
                _ => crash(&sim, name).await,
            }
            sim.advance(Duration::from_millis(roll(4000))).await;
            sim.check()
                .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
        sim.advance(100 * SECOND).await;
        for module in sim.handle().list().1 {
            assert_ne!(
                module.state, "backoff",
                "seed {seed}: {} was forgotten",
                module.name
            );
        }
        sim.shutdown(SECOND).await;
    }
}

#[test]
fn a_stack_under_the_daemon_restarts_the_rest_and_shows_its_group() {
    let lair = face::Lair::folder();
    let mut text = "modules:\n".to_owned();
    for name in ["db", "engine", "ui", "other"] {
        text += &format!(
            "- name: {name}\n  runtime:\n    native: {{ command: [/bin/sleep, '1000'] }}\n    restart: {{ policy: always, backoff: {{ first: 0s }} }}\n"
        );
    }
    text += "groups: [ { name: web, strategy: rest_for_one, modules: [db, engine, ui] } ]\n";
    let file = lair.dir.join("modules/stack.yaml");
    std::fs::write(&file, text).expect("a file");
    let lair = lair.serve(&["--start"]);
    let names = ["db", "engine", "ui", "other"];
    names
        .iter()
        .for_each(|name| lair.until_state(name, "running"));
    let pids = || names.map(|name| lair.status(name)["pid"].as_i64());
    let before = pids();
    let engine = before[1].expect("a pid").to_string();
    let killed = std::process::Command::new("kill")
        .args(["-9", &engine])
        .status();
    assert!(killed.expect("kill").success());
    until("the rest runs again", SOON, || {
        let now = pids();
        [1, 2]
            .iter()
            .all(|i| now[*i].is_some() && now[*i] != before[*i])
    });
    let after = pids();
    assert_eq!((after[0], after[3]), (before[0], before[3]));
    until("it is steady", SOON, || {
        lair.status("ui")["group"]["state"] == "steady"
    });
    let (_, page) = lair.ask(&["status", "ui"]);
    assert!(page.contains("web (rest_for_one), steady"), "{page}");
    assert_eq!(lair.status("other")["group"], serde_json::Value::Null);
}

/// O22, R1: members go one after the other, last first; who is in no group waits for nobody; one that is deaf costs its
/// own grace, and not those of the others.
#[test]
fn a_drain_stops_the_members_of_a_group_last_first_each_after_the_end_of_the_next() {
    let lair = face::Lair::folder();
    let order = lair.dir.join("order");
    let mut text = "modules:\n".to_owned();
    for name in ["db", "engine", "deaf", "ui", "alone"] {
        let says = format!(
            "trap 'echo ask {name} >> {0}; sleep 0.2; echo end {name} >> {0}; exit 0' TERM; ",
            order.display()
        );
        let (trap, grace) = match name {
            "deaf" => (says.replace("exit 0", "sleep 1000 & wait"), "500ms"),
            _ => (says, "10s"),
        };
        let script = format!("{trap} echo up; while :; do sleep 0.02; done");
        let script = serde_json::to_string(&script).expect("a string");
        text += &format!(
            "- name: {name}\n  runtime:\n    native: {{ command: [/bin/sh, -c, {script}] }}\n    stop: {{ grace: {grace} }}\n"
        );
    }
    text += "groups: [ { name: web, strategy: one_for_one, modules: [db, engine, deaf, ui] } ]\n";
    std::fs::write(lair.dir.join("modules/stack.yaml"), text).expect("a file");
    let mut lair = lair.serve(&["--start", "--drain", "60s"]);
    for name in ["db", "engine", "deaf", "ui", "alone"] {
        until("its trap is set", SOON, || {
            lair.status(name)["logs"]["bytes"] == 3
        });
    }
    assert_eq!(lair.term(), Some(0), "{}", lair.log());
    let told = std::fs::read_to_string(order).expect("an order");
    let lines: Vec<&str> = told.lines().collect();
    let of_group: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| !line.ends_with("alone"))
        .collect();
    assert_eq!(
        of_group,
        [
            "ask ui",
            "end ui",
            "ask deaf",
            "end deaf",
            "ask engine",
            "end engine",
            "ask db",
            "end db"
        ]
    );
    let at = |what| lines.iter().position(|line| *line == what);
    assert!(at("ask alone") < at("ask deaf"), "{lines:?}");
}

/// I12: each has its share of the time, and the whole ends within its bound.
#[tokio::test]
async fn a_drain_of_a_deaf_group_ends_within_its_bound() {
    let deaf = || Script {
        on_stop: OnStop::Ignore,
        ..Script::default()
    };
    let mut builder = Simulation::builder().faults();
    for name in ["a", "b", "c"] {
        builder = builder.script(name, deaf());
    }
    let sim = builder.start().await.expect("starts");
    let loaded = sim.load(&stack("rest_for_one", 5, ALWAYS)).await;
    loaded.expect("loaded");
    for name in ["a", "b", "c", "x"] {
        sim.start(name).await.expect("started");
    }
    let before = sim.notices().len();
    let (handle, origin) = (sim.handle().clone(), Simulation::origin());
    let drain = tokio::spawn(async move { handle.drain(6 * SECOND, origin).await });
    sim.settle().await;
    let mut passed = Duration::ZERO;
    while !drain.is_finished() {
        assert!(passed <= 6 * SECOND, "{:?}", told(&sim, before));
        if passed == SECOND {
            // Who waits for its turn is not started again, whatever becomes of it.
            let refused = sim.handle().restart("a", None, Simulation::origin()).await;
            assert_eq!(refused.expect_err("no restart now").code, "draining");
            crash(&sim, "a").await;
        }
        sim.advance(SECOND / 2).await;
        passed += SECOND / 2;
    }
    let report = drain.await.expect("no panic").expect("a report");
    assert!(report.remaining.is_empty(), "{report:?}");
    assert_eq!((report.stopped, report.killed.len()), (4, 2), "{report:?}");
    assert_eq!(
        told(&sim, before),
        ["exited x", "exited a", "exited c", "exited b"]
    );
    sim.shutdown(SECOND).await;
}
