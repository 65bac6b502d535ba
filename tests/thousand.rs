//! A thousand modules at once, five times over: what that costs, and that it stays so.

#![allow(clippy::print_stdout, reason = "what was measured is worth reading")]

mod support;

use lair::WaitFor;
use std::time::{Duration, Instant};
use support::{Lair, asker};

const MODULES: usize = 1000;
const ROUNDS: usize = 5;
/// Log files open at once over all modules (64), and a few that come and go.
const SHARED: usize = 80;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident: usize,
}

fn held_by(pid: i32) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
    let number = |key: &str| {
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .expect("a line");
        line.split_ascii_whitespace()
            .next()
            .expect("a number")
            .parse()
            .expect("a number")
    };
    Held {
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("/proc")
            .count(),
        threads: number("Threads:"),
        resident: number("VmRSS:") << 10,
    }
}

/// The runtime, which is this process, and its keeper.
fn held(lair: &Lair) -> [Held; 2] {
    let me = i32::try_from(std::process::id()).expect("a pid");
    [held_by(me), held_by(lair.keeper().expect("a keeper"))]
}

fn descriptors(held: &[Held; 2]) -> usize {
    held.iter().map(|h| h.descriptors).sum()
}

// O65, O66
#[tokio::test]
async fn a_thousand_modules_cost_the_same_in_every_round() {
    raise_limit();
    let lair = Lair::start("thousand").await;
    let names: Vec<String> = (0..MODULES).map(|n| format!("m{n}")).collect();
    for name in &names {
        let manifest =
            format!("name: {name}\nruntime:\n  native: {{ command: [/bin/sleep, '100000'] }}\n");
        lair.load(&manifest).await.expect("a load");
    }
    let idle = held(&lair);
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let began = Instant::now();
        for name in &names {
            lair.handle.start(name, asker()).await.expect("a start");
        }
        for name in &names {
            lair.wait(name, WaitFor::Ready).await;
        }
        let started = began.elapsed();
        let up = held(&lair);
        assert!(
            descriptors(&up) <= descriptors(&idle) + 4 * MODULES + SHARED,
            "more than four descriptors a module: {idle:?} {up:?}"
        );
        // Status is answered at once, and true.
        let asked = Instant::now();
        let all = lair.handle.list().1;
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        assert!(
            all.iter()
                .all(|m| m.state == "running" && m.run == round as u64 + 1)
        );
        let asked = Instant::now();
        assert_eq!(lair.status("m500").state, "running");
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "I5: {:?}",
            asked.elapsed()
        );
        let stopping = Instant::now();
        for name in &names {
            lair.handle.stop(name, None, asker()).await.expect("a stop");
        }
        for name in &names {
            lair.wait(name, WaitFor::Stopped).await;
        }
        let stopped = stopping.elapsed();
        assert_eq!(lair.processes(), Vec::<i32>::new());
        support::eventually("descriptors back", || {
            descriptors(&held(&lair)) <= descriptors(&idle) + SHARED
        })
        .await;
        let down = held(&lair);
        eprintln!(
            "round {round}: up in {started:?}, down in {stopped:?}\n  up {up:?}\n  down {down:?}"
        );
        ups.push(up);
        downs.push(down);
    }
    // The first two rounds fill what is kept (events, runs' files, allocator); then nothing grows.
    for part in 0..2 {
        let (early, late) = (ups[1][part], ups[ROUNDS - 1][part]);
        assert!(late.threads <= early.threads, "{early:?} {late:?}");
        assert!(
            late.descriptors <= early.descriptors + SHARED,
            "{early:?} {late:?}"
        );
        assert!(
            late.resident <= early.resident + early.resident / 4 + (4 << 20),
            "{early:?} {late:?}"
        );
        let (early, late) = (downs[1][part], downs[ROUNDS - 1][part]);
        assert!(
            late.resident <= early.resident + early.resident / 4 + (4 << 20),
            "{early:?} {late:?}"
        );
    }
    lair.end().await;
}

/// The runtime of a program raises its own; here the host does.
fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, wanted).expect("a limit");
}
