//! How modules are stopped, whatever they think of it: faults B1 to B8.

mod support;

use lair::WaitFor;
use lair::actors::messages::DrainOutcome;
use lair::supervision::{Admission, DownReason, NoticeKind, Phase, StopCause};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Lair, SOON, asker, is_alive, sh, word};

const STUBBORN: &str = "trap '' TERM; echo up; while :; do sleep 1000; done";

fn grace(ms: u64) -> Option<Duration> {
    Some(Duration::from_millis(ms))
}

/// Starts it and waits until its first three bytes are there: its traps are set.
async fn up(lair: &Lair, name: &str, script: &str, more: &str) -> i32 {
    lair.sh(name, script, more).await;
    let up = lair.until(name, "printing", |s| s.logs.bytes >= 3).await;
    up.pid.expect("a pid")
}

/// B1
#[tokio::test]
async fn one_that_ignores_the_stop_is_killed_after_its_grace() {
    let lair = Lair::start("b1").await;
    let pid = up(&lair, "m", STUBBORN, "  stop: { grace: 500ms }").await;
    let began = Instant::now();
    let down = lair.stop("m").await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let exit = down.exit.expect("an exit");
    assert_eq!(
        (exit.signal, exit.by_us, exit.killed_after_grace),
        (Some(9), Some(9), true)
    );
    assert_eq!(down.state, "stopped", "not failed");
    assert_eq!(down.reason.expect("a note").code, "killed_after_grace");
    assert!(!is_alive(pid));
    assert_eq!(
        lair.story("m"),
        "loaded#0 starting#1 running#1 ready#1 stopping#1 killing#1 exited#1 down#1"
    );
    lair.end().await;
}

/// B2
#[tokio::test]
async fn a_hundred_stops_are_a_hundred_answers_and_one_end() {
    let lair = Lair::start("b2").await;
    up(&lair, "m", STUBBORN, "  stop: { grace: 600ms }").await;
    let began = Instant::now();
    let mut clients = Vec::new();
    for client in 0..4 {
        let handle = lair.handle.clone();
        clients.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for n in 0..25 {
                // Every other one, and the last, would like to give it more time.
                let wish = if n % 2 == 1 {
                    None
                } else {
                    grace(60_000 + client)
                };
                let origin = lair::supervision::Origin::Requested {
                    peer: format!("client {client}"),
                };
                answers.push(handle.stop("m", wish, origin).await.expect("an answer"));
            }
            answers
        }));
    }
    let mut answers = Vec::new();
    for client in clients {
        answers.extend(client.await.expect("a client"));
    }
    assert_eq!(answers.len(), 100);
    let accepted = answers
        .iter()
        .filter(|a| matches!(a.admission, Admission::Accepted { .. }))
        .count();
    assert_eq!(accepted, 1, "the others were already so");
    lair.wait("m", WaitFor::Stopped).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "the grace was lengthened"
    );
    assert_eq!(
        (lair.count("m", "stopping"), lair.count("m", "exited")),
        (1, 1)
    );
    lair.end().await;
}

/// B3
#[tokio::test]
async fn a_kill_ends_the_grace_at_once() {
    let lair = Lair::start("b3").await;
    up(&lair, "m", STUBBORN, "  stop: { grace: 60s }").await;
    lair.handle.stop("m", None, asker()).await.expect("a stop");
    assert_eq!(lair.status("m").state, "stopping");
    let began = Instant::now();
    lair.handle.kill("m", None, asker()).await.expect("a kill");
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.killed_after_grace), (Some(9), false));
    assert_eq!(down.state, "stopped");
    assert_eq!(
        lair.view("m").child.phase,
        Phase::Down(DownReason::Requested)
    );
    lair.end().await;
}

/// B4
#[tokio::test]
async fn a_start_or_restart_while_stopping_comes_after_the_stop() {
    let lair = Lair::start("b4").await;
    let slow = "trap 'sleep 0.3; exit 0' TERM; echo up; while :; do sleep 0.02; done";
    up(&lair, "m", slow, "").await;
    for (run, restart) in [(1, false), (2, true), (3, false)] {
        lair.handle.stop("m", None, asker()).await.expect("a stop");
        assert_eq!(lair.status("m").state, "stopping");
        for _ in 0..3 {
            let answer = if restart {
                lair.handle.restart("m", None, asker()).await
            } else {
                lair.handle.start("m", asker()).await
            };
            let admission = answer.expect("an answer").admission;
            assert_eq!(admission, Admission::Deferred { inc: run + 1 });
        }
        let up = lair
            .until("m", "up again", |s| s.run == run + 1 && s.logs.bytes >= 3)
            .await;
        assert_eq!(up.state, "running");
        assert_eq!(lair.count("m", "starting") as u64, run + 1);
        assert_eq!(
            lair.processes_of("m")
                .iter()
                .filter(|p| Some(**p) == up.pid)
                .count(),
            1
        );
    }
    // A stop takes the wish back.
    lair.handle.stop("m", None, asker()).await.expect("a stop");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.stop("m").await;
    assert_eq!(lair.count("m", "starting"), 4);
    lair.end().await;
}

/// B5
#[tokio::test]
async fn one_that_ends_as_the_stop_arrives_was_stopped() {
    let lair = Lair::start("b5").await;
    let gate = lair.home.path().join("gate");
    assert!(
        Command::new("mkfifo")
            .arg(&gate)
            .status()
            .expect("mkfifo")
            .success()
    );
    let mut opened = std::fs::OpenOptions::new();
    let mut door = opened
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&gate)
        .expect("the gate");
    let script = format!("echo up; read line < {}; exit 3", gate.display());
    lair.load(&support::sh("m", &script, "  restart: always"))
        .await
        .expect("a load");
    let mut crossed = 0;
    for run in 1..=100 {
        let _ = door.read(&mut [0; 64]);
        lair.handle.start("m", asker()).await.expect("a start");
        lair.until("m", "printing", |s| s.run == run && s.logs.bytes >= 3)
            .await;
        let stop = lair.handle.stop("m", None, asker());
        if run % 2 == 0 {
            door.write_all(b"\n").expect("opened");
            stop.await.expect("a stop");
        } else {
            let (stopped, ()) =
                tokio::join!(stop, async { door.write_all(b"\n").expect("opened") });
            stopped.expect("a stop");
        }
        let down = lair.wait("m", WaitFor::Stopped).await;
        assert_eq!((down.run, down.state.as_str()), (run, "stopped"));
        assert_eq!(
            lair.view("m").child.phase,
            Phase::Down(DownReason::Requested)
        );
        crossed += u32::from(down.exit.expect("an exit").code == Some(3));
    }
    assert_eq!(lair.count("m", "starting"), 100, "never restarted");
    assert!(
        crossed > 0,
        "it never ended of itself: the story tells nothing"
    );
    lair.end().await;
}

/// B6, O15
#[tokio::test]
async fn an_absurd_grace_is_refused_or_harmless() {
    let lair = Lair::start("b6").await;
    for absurd in [
        "0",
        "0s",
        "-1",
        "-5s",
        "9223372036854775808",
        "9223372036854775808s",
        "1e30h",
        "NaN",
        "soon",
    ] {
        let more = format!("  stop: {{ grace: '{absurd}' }}");
        let refused = lair
            .load(&support::sh("m", "exit 0", &more))
            .await
            .expect_err(absurd);
        assert_eq!(refused.code, "invalid_manifest", "{absurd}");
        let problems = refused.data["problems"].to_string();
        assert!(problems.contains("grace"), "{absurd}: {problems}");
    }
    // Missing: ten seconds.
    up(&lair, "m", STUBBORN, "").await;
    assert_eq!(lair.view("m").plan.spec.grace, Duration::from_secs(10));
    // In a request: no overflow, no kill by accident.
    lair.handle
        .stop("m", Some(Duration::MAX), asker())
        .await
        .expect("a stop");
    let status = lair.status("m");
    assert_eq!(status.state, "stopping");
    assert_eq!(lair.count("m", "killing"), 0);
    // Zero is a wish that can be meant.
    lair.handle
        .stop("m", Some(Duration::ZERO), asker())
        .await
        .expect("a stop");
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(
        (down.state.as_str(), down.exit.expect("an exit").signal),
        ("stopped", Some(9))
    );
    lair.handle
        .restart("m", Some(Duration::MAX), asker())
        .await
        .expect("a restart");
    lair.until("m", "up", |s| s.logs.bytes >= 3 && s.run == 2)
        .await;
    lair.handle
        .restart("m", Some(Duration::MAX), asker())
        .await
        .expect("a restart");
    lair.handle.kill("m", None, asker()).await.expect("a kill");
    lair.wait("m", WaitFor::Stopped).await;
    // Neither does a drain, and timers work as before.
    lair.sh("other", STUBBORN, "  stop: { grace: 100ms }").await;
    lair.until("other", "up", |s| s.logs.bytes >= 3).await;
    let report = lair
        .handle
        .drain(Duration::MAX, asker())
        .await
        .expect("a report");
    assert_eq!(report.killed.len(), 1, "{report:?}");
    lair.end().await;
}

#[tokio::test]
async fn a_drain_tells_of_each_module_how_it_went_and_how_long_it_took() {
    let lair = Lair::start("drain-report").await;
    up(&lair, "deaf", STUBBORN, "  stop: { grace: 400ms }").await;
    let polite = "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done";
    up(&lair, "polite", polite, "").await;
    let again = "  restart: { policy: on-failure, backoff: { first: 60s, cap: 60s } }";
    lair.sh("waits", "exit 1", again).await;
    lair.until("waits", "waiting", |s| s.restarts.next_at.is_some())
        .await;
    lair.load(&sh("never", "exec sleep 1000", ""))
        .await
        .expect("a load");
    let report = lair.handle.drain(SOON, asker()).await.expect("a report");
    let told = report
        .modules
        .iter()
        .map(|m| (m.name.as_str(), m.run, m.outcome, m.exit.as_str()));
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        [
            ("waits", 1, DrainOutcome::Stopped, ""),
            ("polite", 1, DrainOutcome::Stopped, "exited code=7 by_us=15"),
            ("deaf", 1, DrainOutcome::Killed, "exited signal=9 by_us=9"),
        ]
    );
    let took = |n: usize| Duration::from_millis(report.modules[n].took_ms);
    assert!(took(1) < took(2), "{report:?}");
    assert!(
        took(2) >= Duration::from_millis(400) && took(2) < SOON,
        "{report:?}"
    );
    assert_eq!(
        (report.stopped, report.remaining.len()),
        (3, 0),
        "{report:?}"
    );
    lair.end().await;
}

/// B7, O61
#[tokio::test]
async fn the_whole_family_is_gone_when_it_is_down() {
    let lair = Lair::start("b7").await;
    // In the leader's group; in a session of its own; orphaned; deaf; and one without any mark.
    let script = "sleep 1000 & setsid sleep 1000 & (sleep 1000 &) ; (trap '' TERM; exec sleep 1000) & \
                  setsid env -i sh -c 'echo $$; exec sleep 1000' & exec sleep 1000";
    for stop in ["asked", "killed", "stranger"] {
        lair.sh(stop, script, "  stop: { grace: 300ms }").await;
        lair.until(stop, "five and one", |s| {
            lair.processes_of(stop).len() == 5 && s.logs.bytes > 1
        })
        .await;
        support::eventually("its number", || !lair.output(stop, "stdout").is_empty()).await;
        let unmarked = String::from_utf8(lair.output(stop, "stdout")).expect("text");
        let unmarked: i32 = unmarked.trim().parse().expect("a pid");
        assert!(is_alive(unmarked));
        match stop {
            "asked" => drop(lair.stop(stop).await),
            "killed" => {
                lair.handle.kill(stop, None, asker()).await.expect("a kill");
                lair.wait(stop, WaitFor::Stopped).await;
            }
            _ => {
                support::signal(lair.status(stop).pid.expect("a pid"), libc::SIGKILL);
                let down = lair.wait(stop, WaitFor::Stopped).await;
                assert_eq!(down.state, "failed");
            }
        }
        assert_eq!(lair.processes_of(stop), Vec::<i32>::new(), "{stop}");
        assert!(!is_alive(unmarked), "{stop}");
        let view = lair.view(stop);
        let exit = view.child.last_exit.as_ref().expect("an exit");
        assert_eq!(exit.evidence.leftover, Vec::<String>::new());
    }
    lair.end().await;
}

/// An ext4 in a file, mounted; thawed and unmounted at the end, come what may.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mounted(below: &Path) -> Disk {
        let (image, at) = (below.join("disk.img"), below.join("disk"));
        std::fs::File::create(&image)
            .and_then(|f| f.set_len(16 << 20))
            .expect("an image");
        std::fs::create_dir(&at).expect("a folder");
        tool("mkfs.ext4", &["-q", "-F"], &image);
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &at])
            .output()
            .expect("mount");
        assert!(
            mounted.status.success(),
            "no loop mount on this machine: {}",
            text(&mounted.stderr)
        );
        Disk { at }
    }

    fn freeze(&self) {
        tool("fsfreeze", &["-f"], &self.at);
    }

    fn thaw(&self) {
        tool("fsfreeze", &["-u"], &self.at);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).output();
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn tool(program: &str, args: &[&str], path: &Path) {
    let done = Command::new(program).args(args).arg(path).output();
    let done = done.unwrap_or_else(|e| panic!("{program} is needed here: {e}"));
    assert!(done.status.success(), "{program}: {}", text(&done.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// B8
#[tokio::test]
async fn one_that_cannot_die_is_stuck_until_it_can() {
    let lair = Lair::start("b8").await;
    let disk = Disk::mounted(lair.home.path());
    let script = format!(
        "echo up; while :; do echo x >> {}/file; done",
        disk.at.display()
    );
    let pid = up(&lair, "m", &script, "  stop: { grace: 200ms }").await;
    lair.sh("sibling", "exec sleep 1000", "").await;
    disk.freeze();
    support::eventually("uninterruptible", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('D'))
    })
    .await;
    lair.handle.stop("m", None, asker()).await.expect("a stop");
    lair.until("m", "stuck", |_| lair.count("m", "stuck") == 1)
        .await;
    let stuck = lair.status("m");
    assert_eq!((stuck.state.as_str(), stuck.pid), ("stopping", Some(pid)));
    assert_eq!(stuck.reason.expect("a reason").code, "stop_incomplete");
    assert!(is_alive(pid), "no death was invented");
    // Everybody else goes on.
    let began = Instant::now();
    lair.stop("sibling").await;
    lair.handle
        .start("sibling", asker())
        .await
        .expect("a start");
    lair.wait("sibling", WaitFor::Ready).await;
    assert_eq!(lair.handle.list().1.len(), 2);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        lair.handle
            .unload("m", asker())
            .await
            .expect_err("still there")
            .code,
        "still_up"
    );
    disk.thaw();
    let down = lair.wait("m", WaitFor::Stopped).await;
    let exit = down.exit.expect("an exit");
    // Both signals waited for it; which of them the kernel took is the kernel's word.
    assert!(
        matches!(exit.signal, Some(libc::SIGTERM | libc::SIGKILL)),
        "{exit:?}"
    );
    assert_eq!(
        (down.state.as_str(), exit.killed_after_grace),
        ("stopped", true)
    );
    assert!(!is_alive(pid));
    let told: Vec<String> = lair.notices("m").iter().map(|n| word(&n.kind)).collect();
    assert_eq!(
        told[told.len() - 5..],
        ["stopping", "killing", "stuck", "exited", "down"]
    );
    lair.end().await;
}

/// B8, I12
#[tokio::test]
async fn a_shutdown_does_not_wait_for_what_cannot_die() {
    let lair = Lair::start("b8-drain").await;
    let disk = Disk::mounted(lair.home.path());
    let script = format!(
        "echo up; while :; do echo x >> {}/file; done",
        disk.at.display()
    );
    let pid = up(&lair, "m", &script, "").await;
    lair.sh("sibling", "exec sleep 1000", "").await;
    disk.freeze();
    let (keeper, handle) = (lair.keeper().expect("a keeper"), lair.handle.clone());
    let Lair { home, runtime, .. } = lair;
    let began = Instant::now();
    let ending = runtime.shutdown(Duration::from_millis(500));
    let report = tokio::time::timeout(SOON, ending).await;
    let took = began.elapsed();
    let status = handle.status("m").expect("a status");
    let alive = is_alive(pid);
    disk.thaw();
    let report = report.expect("I12: an end with a stuck module");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(report.remaining, [lair::supervision::ChildId::new("m")]);
    assert_eq!((status.state.as_str(), alive), ("stopping", true));
    // The keeper sees to it when it can.
    support::eventually("gone", || !is_alive(pid) && !is_alive(keeper)).await;
    drop((disk, home));
}

/// I12
#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_frozen_keeper() {
    let lair = Lair::start("frozen").await;
    let pid = up(&lair, "m", "echo up; exec sleep 1000", "").await;
    let keeper = lair.keeper().expect("a keeper");
    support::signal(keeper, libc::SIGSTOP);
    let Lair { home, runtime, .. } = lair;
    let ending = runtime.shutdown(Duration::from_millis(500));
    let report = tokio::time::timeout(SOON, ending).await;
    support::signal(keeper, libc::SIGCONT);
    let report = report.expect("I12: an end with a frozen keeper");
    assert_eq!(report.remaining, [lair::supervision::ChildId::new("m")]);
    support::eventually("gone", || !is_alive(pid) && !is_alive(keeper)).await;
    drop(home);
}

/// Not the default TERM, and the cause is told.
#[tokio::test]
async fn the_manifests_stop_signal_is_the_one_that_is_sent() {
    let lair = Lair::start("b-signal").await;
    let script = "trap 'exit 4' INT; trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done";
    up(&lair, "m", script, "  stop: { signal: SIGINT }").await;
    let down = lair.stop("m").await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.by_us), (Some(4), Some(libc::SIGINT)));
    let requested = NoticeKind::Stopping {
        cause: StopCause::Requested,
    };
    assert!(lair.notices("m").iter().any(|n| n.kind == requested));
    lair.end().await;
}
