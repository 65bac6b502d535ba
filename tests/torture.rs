//! The torture run: sixty modules that print, clients that ask at random, and lair, its keeper and its engines killed at
//! random instants. At the end the files, what lair said and what the modules prove must agree. `tests/run torture`.
//!
//! `LAIR_TORTURE_SECONDS` (1200) and `LAIR_SEED` are its length and its dice; `LAIR_TORTURE_REPORT` a file for the figures.

#![allow(clippy::print_stdout, reason = "its figures are its result")]

#[path = "torture/audit.rs"]
mod audit;
#[path = "torture/clients.rs"]
mod clients;
#[path = "torture/dice.rs"]
mod dice;
mod face;
mod support;
#[path = "torture/world.rs"]
mod world;

use audit::{Auditor, Books};
use dice::Dice;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};
use world::{PATIENCE, World, now_ms};

const CLIENTS: u64 = 2;

fn number(variable: &str, else_: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.and_then(|s| s.parse().ok()).unwrap_or(else_)
}

/// The families R and G, all at once.
#[test]
#[ignore = "twenty minutes: tests/run torture"]
fn under_torture_no_line_is_lost_or_doubled_nothing_runs_twice_and_every_end_is_told() {
    let seconds = number("LAIR_TORTURE_SECONDS", 1200);
    let seed = number("LAIR_SEED", now_ms() % 1_000_000);
    println!("seed {seed}, {seconds} s");
    let mut dice = Dice::new(seed);
    let mut world = World::new();
    let shared = world.shared.clone();
    let mut crowd = Vec::new();
    for client in 0..CLIENTS {
        let (shared, dice) = (shared.clone(), Dice::new(seed ^ (client + 1) << 32));
        crowd.push(std::thread::spawn(move || shared.ask_at_random(dice)));
    }
    let listening = shared.clone();
    let listener = std::thread::spawn(move || listening.listen());
    start_all(&world);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut audits = 0;
    while Instant::now() < end {
        dice.sleep(Duration::from_millis(6000));
        if dice.once_in(25) {
            world.kill_keeper();
        }
        if dice.once_in(10) {
            world.kill_engine(&mut dice);
        }
        world.kill_lair(&mut dice);
        if dice.once_in(15) {
            quiet(&world);
            audits += 1;
        }
    }
    quiet(&world);
    shared.pause.store(true, Relaxed);
    let resident = world.resident();
    assert_eq!(world.lair.term(), Some(0), "{}", world.lair.log());
    shared.over.store(true, Relaxed);
    for thread in crowd.into_iter().chain([listener]) {
        thread.join().expect("a client");
    }
    let mut wrong = leftovers(&world);
    let mut auditor = Auditor {
        dir: &world.lair.dir,
        kills: &world.kills,
        told: std::mem::take(&mut *shared.told.lock().expect("a map")),
        books: Books::default(),
    };
    for name in shared.names() {
        auditor.module(name);
    }
    let mut books = auditor.books;
    wrong.append(&mut books.wrong);
    wrong.append(&mut shared.wrong.lock().expect("a list"));
    let told = figures(&world, &books, (seed, seconds, audits, resident));
    println!("{told}");
    if let Ok(path) = std::env::var("LAIR_TORTURE_REPORT") {
        fs::write(path, &told).expect("a report");
    }
    let count = wrong.len();
    wrong.truncate(60);
    assert!(
        wrong.is_empty(),
        "seed {seed}, {count} faults:\n{}",
        wrong.join("\n")
    );
}

fn start_all(world: &World) {
    for name in world.shared.names() {
        let mut line = world.shared.connect().expect("lair");
        line.ask("module.start", serde_json::json!({ "name": name }));
    }
}

/// Nobody asks for a moment: what lair says of each module must then be what the kernel says of its lock.
fn quiet(world: &World) {
    let shared = &world.shared;
    shared.pause.store(true, SeqCst);
    let begun = Instant::now();
    while shared.idle.load(SeqCst) < CLIENTS {
        assert!(begun.elapsed() < PATIENCE * 2, "a client waits for ever");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut doubtful: Vec<String> = shared.names().to_vec();
    while !doubtful.is_empty() {
        let (before, locked, after) = (states(world), locked(world), states(world));
        doubtful.retain(|name| {
            let state = before.get(name).filter(|s| after.get(name) == Some(s));
            let is_locked = locked.get(name).copied().unwrap_or(false);
            match state.map(|(state, _)| state.as_str()) {
                Some("running") => !is_locked,
                Some("stopped" | "failed") => is_locked,
                // It is not loaded now.
                None if !before.contains_key(name) => is_locked,
                _ => true,
            }
        });
        let late = begun.elapsed() > PATIENCE * 2;
        assert!(
            !late,
            "lair and the kernel do not agree: {doubtful:?} {after:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    shared.pause.store(false, SeqCst);
}

fn states(world: &World) -> BTreeMap<String, (String, u64)> {
    let list = world.listed();
    list.into_iter()
        .map(|(name, state, run, _)| (name, (state, run)))
        .collect()
}

/// Which modules' locks are held, by the kernel's list.
fn locked(world: &World) -> BTreeMap<String, bool> {
    let held = fs::read_to_string("/proc/locks").expect("/proc/locks");
    let held: Vec<u64> = held
        .lines()
        .filter(|l| l.contains("FLOCK"))
        .filter_map(|l| {
            l.split_whitespace()
                .nth(5)?
                .rsplit(':')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    let of = |name: &String| {
        let path = world.lair.dir.join("proof").join(format!("{name}.lock"));
        let node = fs::metadata(path).map(|m| m.ino());
        (name.clone(), node.is_ok_and(|node| held.contains(&node)))
    };
    world.shared.names().iter().map(of).collect()
}

/// What there must not be any more.
fn leftovers(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let begun = Instant::now();
    while !(world.processes().is_empty() && world.containers().is_empty())
        && begun.elapsed() < Duration::from_secs(10)
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    wrong.extend(
        world
            .processes()
            .iter()
            .map(|pid| format!("process {pid} is left")),
    );
    wrong.extend(
        world
            .containers()
            .iter()
            .map(|id| format!("container {id} is left")),
    );
    if let Ok(names) = fs::read_to_string(world.lair.dir.join("proof/twice")) {
        wrong.push(format!("ran twice at once: {}", names.replace('\n', " ")));
    }
    wrong
}

fn figures(world: &World, books: &Books, at: (u64, u64, u64, u64)) -> String {
    let ((seed, seconds, audits, resident), kills) = (at, &world.kills);
    let shared = &world.shared;
    let refused = shared.refused.lock().expect("a map");
    let refused: Vec<String> = refused.iter().map(|(c, n)| format!("{c} {n}")).collect();
    format!(
        "torture: seed {seed}, {seconds} s, {} native modules, {} in containers\n\
         kills of lair {} (while coming up {}, handed over by USR2 {}), of the keeper {}, of podman {}, of dockerd {}\n\
         modules taken over as they were {}, comparisons with the kernel {audits}\n\
         requests {}, answered {}, cut off by a kill {}; refused: {}\n\
         events {}, gaps told {}\n\
         lives {}, files {}, lines {}\n\
         lines lost: with lair and keeper both dead {}, with dockerd {}, with container starts that a kill cut off {} (of {} starts); gaps that a log tells of {}\n\
         ends: told {}, unknown {}, of no record {}, told wrongly by dockerd {}\n\
         lair's memory at the end {} MiB",
        world::NATIVES,
        world::CONTAINERS,
        kills.lair.len() as u64 + kills.rising - kills.handed,
        kills.rising,
        kills.handed,
        kills.keeper.len(),
        kills.podman.len(),
        kills.docker.len(),
        kills.adopted,
        shared.asked.load(Relaxed),
        shared.answered.load(Relaxed),
        shared.asked.load(Relaxed) - shared.answered.load(Relaxed),
        refused.join(", "),
        shared.events.load(Relaxed),
        shared.gaps.load(Relaxed),
        books.lives,
        books.segments,
        books.lines,
        books.lost_with_both,
        books.lost_with_engine,
        books.lost_with_start,
        books.cut_off_starts,
        books.said_gaps,
        books.ends_told,
        books.ends_unknown,
        books.ends_untold,
        books.ends_wrong_by_docker,
        resident / 1024,
    )
}
