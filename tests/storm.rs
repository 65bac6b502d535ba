//! Everything at once: random requests and deaths, and the promises at the end. The seed is printed.

#![allow(clippy::print_stdout, reason = "what was measured is worth reading")]

mod support;

use lair::supervision::{Admission, Origin};
use std::time::Duration;
use support::{Lair, asker};

/// splitmix64
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

const FAST: &str = "backoff: { first: 5ms, cap: 20ms }, max: 1000";

/// Name, script and what stands below `runtime:`.
fn modules() -> Vec<(&'static str, &'static str, String)> {
    let grace = "  stop: { grace: 100ms }\n";
    let restart = |policy: &str| format!("{grace}  restart: {{ policy: {policy}, {FAST} }}");
    vec![
        ("calm", "exec sleep 1000", grace.to_owned()),
        (
            "deaf",
            "trap '' TERM; while :; do sleep 1; done",
            grace.to_owned(),
        ),
        ("brief", "exit 0", grace.to_owned()),
        ("looping", "sleep 0.01; exit 3", restart("always")),
        (
            "failing",
            "sleep 0.02; kill -SEGV $$",
            restart("on-failure"),
        ),
        ("steady", "exec sleep 1000", restart("always")),
        (
            "family",
            "sleep 1000 & setsid sleep 1000 & exec sleep 1000",
            grace.to_owned(),
        ),
        (
            "mute",
            "exec 3>&-; exec sleep 1000",
            format!("{}\n  health: {{ ready: fd }}", restart("on-failure")),
        ),
    ]
}

async fn storm(seed: u64) {
    eprintln!("seed {seed}");
    let lair = Lair::start(&format!("storm-{seed}")).await;
    let all = modules();
    for (name, script, more) in &all {
        lair.load(&support::sh(name, script, more))
            .await
            .expect("a load");
    }
    let mut dice = Dice(seed);
    let mut asked = Vec::new();
    for _ in 0..400 {
        let (name, script, more) = &all[dice.roll(all.len() as u64) as usize];
        let (handle, what, wait) = (lair.handle.clone(), dice.roll(12), dice.roll(8));
        let name = (*name).to_owned();
        match what {
            // A stranger's deed.
            0 | 1 => {
                let signals = [
                    libc::SIGKILL,
                    libc::SIGSTOP,
                    libc::SIGCONT,
                    libc::SIGTERM,
                    libc::SIGHUP,
                ];
                strike(&lair, &name, signals[dice.roll(5) as usize]);
            }
            2 => {
                let _ = lair.handle.unload(&name, asker()).await;
                let loaded = lair.load(&support::sh(&name, script, more)).await;
                assert!(loaded.is_ok_and(|l| l.len() == 1));
            }
            _ => asked.push(tokio::spawn(async move {
                let origin = Origin::Requested {
                    peer: format!("client {wait}"),
                };
                let grace = (wait % 3 == 0).then(|| Duration::from_millis(wait * 10));
                let answer = match what {
                    3..=6 => handle.start(&name, origin).await,
                    7 | 8 => handle.stop(&name, grace, origin).await,
                    9 | 10 => handle.restart(&name, grace, origin).await,
                    _ => handle.kill(&name, None, origin).await,
                };
                let admission = answer.map(|a| a.admission);
                assert!(!matches!(admission, Ok(Admission::Denied(_))));
                // Unloaded in between is the only refusal there is.
                assert!(
                    admission.as_ref().is_ok_and(|_| true)
                        || admission.is_err_and(|e| e.code == "unknown_module")
                );
            })),
        }
        // I5: it answers throughout.
        assert_eq!(lair.handle.list().1.len(), all.len());
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    for answer in asked {
        answer.await.expect("exactly one answer");
    }
    let told = lair.handle.events(lair::supervision::Seq(0), usize::MAX);
    assert!(
        told.gap.is_none(),
        "more was told than is kept: the promises could not be checked"
    );
    // In the middle of it all.
    for (name, ..) in &all {
        lair.handle.start(name, asker()).await.expect("a start");
    }
    lair.end().await;
}

/// Signals the leader, if it is still the one that was told of.
fn strike(lair: &Lair, name: &str, signal: i32) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(pid) = lair.status(name).pid.and_then(Pid::from_raw) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if lair
        .processes_of(name)
        .contains(&pid.as_raw_nonzero().get())
    {
        let _ = pidfd_send_signal(&pidfd, Signal::from_named_raw(signal).expect("a signal"));
    }
}

/// I1 to I6, I10
#[tokio::test]
async fn the_promises_hold_in_a_storm() {
    for seed in [1, 2, 3] {
        storm(seed).await;
    }
}

/// I1 to I6, I10: `LAIR_STORM=<seed> cargo nextest run --test storm --run-ignored all`
#[tokio::test]
#[ignore = "for as long as one likes"]
async fn the_promises_hold_in_a_storm_of_ones_own() {
    let seed = std::env::var("LAIR_STORM")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(100);
    for seed in seed..seed + 20 {
        storm(seed).await;
    }
}
