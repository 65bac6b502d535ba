//! When modules are started again, and when not: faults C1 to C10.

mod support;

use lair::WaitFor;
use lair::actors::status::ModuleStatus;
use lair::supervision::{DownReason, ExitStatus, NoticeKind, Phase};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use support::{Lair, SOON, asker, signal};

const LOOPING: &str =
    "  restart: { policy: always, max: 3, within: 10s, backoff: { first: 10ms, jitter: 0 } }";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// It is at rest: no timer is armed that could start it, and nothing did while another module lived for `time`.
async fn rests(lair: &Lair, name: &str, time: &str) {
    let before = lair.view(name);
    assert!(
        matches!(before.child.phase, Phase::Down(_)),
        "{:?}",
        before.child.phase
    );
    assert_eq!(lair.status(name).restarts.next_at, None);
    let clock = format!("clock-{}", lair.handle.list().1.len());
    lair.sh(&clock, &format!("exec sleep {time}"), "").await;
    lair.wait(&clock, WaitFor::Stopped).await;
    assert_eq!(
        lair.view(name).child,
        before.child,
        "nothing happened meanwhile"
    );
}

/// Delays and attempts of all backoffs that were told.
fn backoffs(lair: &Lair, name: &str) -> Vec<(Duration, u32)> {
    let notices = lair.notices(name);
    let told = notices.iter().filter_map(|n| match &n.kind {
        NoticeKind::Backoff { delay, attempt } => Some((*delay, *attempt)),
        _ => None,
    });
    told.collect()
}

fn gave_up(lair: &Lair, name: &str) -> Option<(u32, ExitStatus)> {
    match &lair.view(name).child.phase {
        Phase::Down(DownReason::GaveUp { restarts, last, .. }) => Some((*restarts, *last)),
        _ => None,
    }
}

/// C1
#[tokio::test]
async fn a_crash_without_permission_is_not_restarted() {
    let lair = Lair::start("c1").await;
    lair.sh("m", "exit 1", "").await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(
        (down.state.as_str(), down.restarts.policy.as_str()),
        ("failed", "never")
    );
    rests(&lair, "m", "1.5").await;
    assert_eq!(lair.count("m", "starting"), 1);
    lair.end().await;
}

/// C2
#[tokio::test]
async fn each_policy_restarts_after_its_own_ends_only() {
    let lair = Lair::start("c2").await;
    let ends = [
        ("zero", "exit 0"),
        ("one", "exit 1"),
        ("signal", "kill -KILL $$"),
        ("asked", ""),
    ];
    for (policy, restarted) in [
        ("never", [false; 4]),
        ("on-failure", [false, true, true, false]),
        ("always", [true, true, true, false]),
    ] {
        for ((end, how), again) in ends.iter().zip(restarted) {
            let name = format!("{policy}-{end}");
            let flag = lair.home.path().join(&name);
            let flag = flag.display();
            // The second life stays.
            let script =
                format!("[ -e {flag} ] && exec sleep 1000; touch {flag}; {how}\nexec sleep 1000");
            let more = format!("  restart: {{ policy: {policy}, backoff: {{ first: 20ms }} }}");
            lair.sh(&name, &script, &more).await;
            if *end == "asked" {
                lair.stop(&name).await;
                assert_eq!(
                    lair.view(&name).child.phase,
                    Phase::Down(DownReason::Requested)
                );
            } else if again {
                lair.until(&name, "in its second life", |s| {
                    s.run == 2 && s.state == "running"
                })
                .await;
                assert_eq!(lair.status(&name).restarts.count, 1);
            } else {
                lair.wait(&name, WaitFor::Stopped).await;
            }
        }
    }
    for (policy, end) in [
        ("never", "zero"),
        ("never", "one"),
        ("never", "signal"),
        ("on-failure", "zero"),
    ] {
        let name = format!("{policy}-{end}");
        assert_eq!(
            (lair.status(&name).run, lair.count(&name, "starting")),
            (1, 1),
            "{name}"
        );
    }
    rests(&lair, "never-signal", "0.3").await;
    rests(&lair, "always-asked", "0.3").await;
    lair.end().await;
}

/// C3
#[tokio::test]
async fn a_crash_loop_is_given_up_after_its_budget() {
    let lair = Lair::start("c3").await;
    lair.sh("sibling", "exec sleep 1000", "").await;
    let sibling = lair.wait("sibling", WaitFor::Ready).await;
    lair.sh("m", "exit 6", LOOPING).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(
        (down.state.as_str(), down.run, down.restarts.count),
        ("failed", 4, 3)
    );
    assert_eq!(gave_up(&lair, "m"), Some((3, ExitStatus::Code(6))));
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.code, "gave_up");
    assert!(
        reason.message.contains('3') && reason.message.contains('6'),
        "{}",
        reason.message
    );
    assert_eq!(
        (lair.count("m", "starting"), lair.count("m", "exited")),
        (4, 4)
    );
    rests(&lair, "m", "0.5").await;
    let now = lair.status("sibling");
    assert_eq!(
        (now.run, now.pid, now.state.as_str()),
        (1, sibling.pid, "running")
    );
    lair.end().await;
}

/// C4
#[tokio::test]
async fn one_crash_a_window_is_never_given_up() {
    let lair = Lair::start("c4").await;
    let more = "  restart: { policy: always, max: 1, within: 200ms, backoff: { first: 0s } }";
    lair.sh("m", "sleep 0.4; exit 1", more).await;
    lair.until("m", "in its sixth life", |s| s.run == 6).await;
    assert_eq!(lair.count("m", "down"), 0);
    assert_eq!(lair.status("m").restarts.count, 5);
    lair.stop("m").await;
    lair.end().await;
}

const GROWING: &str = "  restart: { policy: always, max: 5, backoff: { first: 200ms, factor: 2, cap: 1s, jitter: 0.25 } }";

/// C5
#[tokio::test]
async fn the_delay_grows_to_its_cap_within_its_jitter() {
    let (one, two) = tokio::join!(delays_with(7), delays_with(7));
    assert_eq!(one, two, "the same seed, the same gaps");
    assert_ne!(one, delays_with(8).await, "another seed, other gaps");
}

async fn delays_with(seed: u64) -> Vec<Duration> {
    let lair = Lair::start_with(&format!("c5-{seed}"), |o| o.seed = seed).await;
    lair.sh("m", "exit 1", GROWING).await;
    lair.wait("m", WaitFor::Stopped).await;
    let told = backoffs(&lair, "m");
    for ((delay, attempt), full) in told.iter().zip([200, 400, 800, 1000, 1000]) {
        let band = ms(full).mul_f64(0.75)..=ms(full);
        assert!(
            band.contains(delay),
            "attempt {attempt}: {delay:?} outside of {band:?}"
        );
    }
    assert_eq!(
        told.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    // What was told is what was done.
    let notices = lair.notices("m");
    let at = |kind: &str, inc: u64| {
        let found = notices
            .iter()
            .find(|n| n.inc == inc && support::word(&n.kind) == kind);
        found.expect("told").at
    };
    for (run, (delay, _)) in (1..).zip(&told) {
        let gap = at("starting", run + 1).since(at("backoff", run));
        assert!(
            gap >= *delay && gap < *delay + ms(1500),
            "run {run}: {gap:?} for {delay:?}"
        );
    }
    assert_eq!(gave_up(&lair, "m").expect("given up").0, 5);
    lair.end().await;
    told.into_iter().map(|(delay, _)| delay).collect()
}

/// C6
#[tokio::test]
async fn after_settling_the_delay_begins_anew() {
    let lair = Lair::start("c6").await;
    let lives = lair.home.path().join("lives");
    let script = format!(
        "echo x >> {0}; [ $(wc -l < {0}) -le 3 ] && exit 1; exec sleep 1000",
        lives.display()
    );
    let more = "  restart: { policy: always, max: 4, settle: 300ms, backoff: { first: 20ms, factor: 3, jitter: 0 } }";
    lair.sh("m", &script, more).await;
    lair.until("m", "settled", |_| lair.count("m", "settled") == 1)
        .await;
    assert_eq!(
        backoffs(&lair, "m"),
        [(ms(20), 1), (ms(60), 2), (ms(180), 3)]
    );
    let up = lair.status("m");
    assert_eq!(up.run, 4);
    signal(up.pid.expect("a pid"), libc::SIGKILL);
    lair.until("m", "up again", |s| s.run == 5 && s.state == "running")
        .await;
    assert_eq!(backoffs(&lair, "m").last(), Some(&(ms(20), 1)));
    lair.end().await;
}

/// C7
#[tokio::test]
async fn a_stop_in_the_middle_of_a_delay_is_the_end() {
    let lair = Lair::start("c7").await;
    let more = "  restart: { policy: always, backoff: { first: 400ms, jitter: 0 } }";
    for how in ["stop", "kill"] {
        lair.sh(how, "exit 1", more).await;
        lair.until(how, "waiting", |s| s.state == "backoff").await;
        assert!(lair.status(how).restarts.next_at.is_some());
        // What may start again by itself is not forgotten behind its back.
        let refused = lair
            .handle
            .unload(how, asker())
            .await
            .expect_err("still pending");
        assert_eq!(refused.code, "still_up");
        if how == "stop" {
            lair.handle.stop(how, None, asker()).await.expect("a stop");
        } else {
            lair.handle.kill(how, None, asker()).await.expect("a kill");
        }
        let view = lair.view(how);
        assert_eq!(view.child.phase, Phase::Down(DownReason::Requested));
        assert_eq!(lair.status(how).state, "stopped");
        rests(&lair, how, "0.6").await;
        assert_eq!(lair.count(how, "starting"), 1);
    }
    lair.handle
        .unload("stop", asker())
        .await
        .expect("an unload");
    assert_eq!(
        lair.handle.status("stop").expect_err("gone").code,
        "unknown_module"
    );
    // A drain is no different.
    let more = "  restart: { policy: always, backoff: { first: 1h, cap: 1h } }";
    lair.sh("drained", "exit 1", more).await;
    lair.until("drained", "waiting", |s| s.state == "backoff")
        .await;
    let began = Instant::now();
    let handle = lair.handle.clone();
    lair.end().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it waited for the delay"
    );
    let phase = &handle.view("drained").expect("a view").child.phase;
    assert_eq!(*phase, Phase::Down(DownReason::ShutDown));
}

/// C8
#[tokio::test]
async fn starts_that_fail_count_if_trying_again_can_help() {
    let lair = Lair::start("c8").await;
    let dir = lair.home.path().to_owned();
    for name in ["gone", "busy"] {
        let program = dir.join(name);
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").expect("a program");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let command = program.display();
        let manifest =
            format!("name: {name}\nruntime:\n  native: {{ command: ['{command}'] }}\n{LOOPING}\n");
        lair.load(&manifest).await.expect("a load");
    }
    std::fs::remove_file(dir.join("gone")).expect("removed");
    let writer = std::fs::OpenOptions::new()
        .append(true)
        .open(dir.join("busy"))
        .expect("open");
    lair.handle.start("gone", asker()).await.expect("a start");
    let down = lair.wait("gone", WaitFor::Stopped).await;
    assert_eq!(
        (down.run, down.reason.expect("a reason").code.as_str()),
        (1, "start_failed")
    );
    assert_eq!(backoffs(&lair, "gone"), []);
    lair.handle.start("busy", asker()).await.expect("a start");
    let down = lair.wait("busy", WaitFor::Stopped).await;
    assert_eq!(
        (down.run, down.reason.expect("a reason").code.as_str()),
        (4, "gave_up")
    );
    assert_eq!(gave_up(&lair, "busy"), Some((3, ExitStatus::Unknown)));
    assert_eq!(lair.count("busy", "start_failed"), 4);
    rests(&lair, "gone", "0.3").await;
    // Mended: it goes on in the middle of the next round.
    lair.handle.start("busy", asker()).await.expect("a start");
    drop(writer);
    lair.until("busy", "up", |s| s.state == "running").await;
    lair.end().await;
}

/// C9
#[tokio::test]
async fn an_explicit_start_after_giving_up_has_the_whole_budget() {
    let lair = Lair::start("c9").await;
    lair.sh("m", "exit 1", LOOPING).await;
    lair.wait("m", WaitFor::Stopped).await;
    for round in 2..=3 {
        let answer = lair.handle.start("m", asker()).await.expect("a start");
        let first = (round - 1) * 4 + 1;
        assert_eq!(
            answer.admission,
            lair::supervision::Admission::Accepted { inc: first }
        );
        let down = lair.wait("m", WaitFor::Stopped).await;
        assert_eq!((down.run, down.restarts.count), (round * 4, 3));
        assert_eq!(gave_up(&lair, "m"), Some((3, ExitStatus::Code(1))));
    }
    assert_eq!(lair.count("m", "starting"), 12);
    lair.end().await;
}

/// The keeper, frozen: every start takes as long as this lives.
struct Frozen(i32);

/// The signal has been taken.
fn until_stopped(pid: i32) {
    let stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T'))
    };
    let begun = Instant::now();
    while !stopped() {
        assert!(begun.elapsed() < SOON, "{pid} does not stop");
        std::thread::yield_now();
    }
}

impl Frozen {
    fn keeper(lair: &Lair) -> Frozen {
        let keeper = lair.keeper().expect("a keeper");
        signal(keeper, libc::SIGSTOP);
        until_stopped(keeper);
        Frozen(keeper)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, libc::SIGCONT);
    }
}

/// A start of `m` that a frozen keeper has not answered: what it said before it froze has been taken in.
async fn waiting_start(lair: &Lair, round: u32) -> (Frozen, ModuleStatus) {
    loop {
        let frozen = Frozen::keeper(lair);
        let seen = lair
            .until("m", "slow to start, or up", |s| {
                matches!(s.state.as_str(), "starting" | "running")
            })
            .await;
        for turn in 0..3 {
            let name = format!("turn-{round}-{turn}");
            lair.load(&support::sh(&name, "exit 0", ""))
                .await
                .expect("a load");
            lair.handle.unload(&name, asker()).await.expect("an unload");
        }
        let now = lair.status("m");
        if seen.state == "starting" && (now.run, now.state.as_str()) == (seen.run, "starting") {
            return (frozen, now);
        }
        // It froze between a start and its end: nobody would hear of that.
        drop(frozen);
        tokio::task::yield_now().await;
    }
}

/// C10
#[tokio::test]
async fn a_loop_of_slow_starts_keeps_nobody_waiting() {
    let lair = Lair::start("c10").await;
    lair.sh("sibling", "exec sleep 1000", "").await;
    lair.wait("sibling", WaitFor::Ready).await;
    let more = "  restart: { policy: always, max: 1000, backoff: { first: 10ms, cap: 10ms } }";
    lair.sh("m", "exit 1", more).await;
    for round in 0..3 {
        let (frozen, slow) = waiting_start(&lair, round).await;
        let began = Instant::now();
        assert_eq!(lair.status("sibling").state, "running");
        assert_eq!(lair.handle.list().1.len(), 2);
        lair.load(&support::sh(&format!("new-{round}"), "exit 0", ""))
            .await
            .expect("a load");
        lair.handle
            .unload(&format!("new-{round}"), asker())
            .await
            .expect("an unload");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(
            lair.status("m").run,
            slow.run,
            "no second start beside the first"
        );
        drop(frozen);
        lair.until("m", "some lives later", |s| s.run > slow.run + 2)
            .await;
    }
    // A stop works between two attempts and in the middle of one.
    let (frozen, slow) = waiting_start(&lair, 3).await;
    lair.handle.stop("m", None, asker()).await.expect("a stop");
    // What the keeper may still make is not called down.
    assert_eq!(lair.status("m").state, "stopping");
    assert_eq!(
        lair.handle
            .unload("m", asker())
            .await
            .expect_err("pending")
            .code,
        "still_up"
    );
    drop(frozen);
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!((down.run, down.state.as_str()), (slow.run, "stopped"));
    assert_eq!(
        lair.view("m").child.phase,
        Phase::Down(DownReason::Requested)
    );
    assert_eq!(lair.processes_of("m"), Vec::<i32>::new(), "I1");
    lair.handle.unload("m", asker()).await.expect("an unload");
    assert_eq!(lair.status("sibling").run, 1);
    lair.end().await;
}
