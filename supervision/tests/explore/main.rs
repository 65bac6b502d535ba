//! Everything that can happen, in every order, to a fixed depth; then long seeded walks beyond it.
//!
//! A world of one child answers effects in every way a backend may; after every step the invariants are checked.

mod histories;
mod invariants;
mod world;

use lair_supervision::{Backoff, ChildId, ChildSpec, Intensity, RestartType};
use std::collections::HashSet;
use std::time::Duration;
use world::World;

fn temporary() -> ChildSpec {
    ChildSpec::new(ChildId::new("temporary"))
}

/// Restarts at once, so that one decision can end a life and begin the next.
fn permanent_with_intensity_two() -> ChildSpec {
    ChildSpec {
        restart: RestartType::Permanent,
        intensity: Intensity {
            max: 2,
            within: Duration::from_secs(30),
        },
        backoff: Backoff {
            first: Duration::ZERO,
            ..Backoff::default()
        },
        ..ChildSpec::new(ChildId::new("permanent"))
    }
}

fn transient_with_readiness() -> ChildSpec {
    ChildSpec {
        restart: RestartType::Transient,
        intensity: Intensity {
            max: 2,
            within: Duration::from_secs(600),
        },
        awaits_ready: true,
        ready_deadline: Some(Duration::from_secs(30)),
        ..ChildSpec::new(ChildId::new("transient"))
    }
}

fn explore(spec: &ChildSpec, depth: usize, at_least: usize) {
    let mut seen = HashSet::new();
    let mut edge = vec![World::new()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for world in &edge {
            let marked = world.marked_as_draining();
            if seen.insert(marked.clone()) {
                next.push(marked);
            }
            for choice in world.choices(spec) {
                let after = world.step(spec, choice);
                if seen.insert(after.clone()) {
                    next.push(after);
                }
            }
        }
        edge = next;
    }
    // An explorer that goes nowhere finds nothing.
    assert!(seen.len() >= at_least, "only {} states seen", seen.len());
}

#[test]
fn a_temporary_child_keeps_every_promise_in_every_order() {
    explore(&temporary(), 7, 30_000);
}

#[test]
fn a_permanent_child_keeps_every_promise_in_every_order() {
    explore(&permanent_with_intensity_two(), 7, 30_000);
}

#[test]
fn a_transient_child_that_must_say_ready_keeps_every_promise_in_every_order() {
    explore(&transient_with_readiness(), 7, 30_000);
}

/// N4, on values alone.
#[test]
fn long_random_lives_keep_every_promise() {
    for spec in [
        temporary(),
        permanent_with_intensity_two(),
        transient_with_readiness(),
    ] {
        for seed in 1..=400_u64 {
            walk(&spec, seed, 120);
        }
    }
}

fn walk(spec: &ChildSpec, seed: u64, steps: usize) {
    let mut world = World::new();
    let mut random = seed;
    for step in 0..steps {
        if step + 20 == steps && seed.is_multiple_of(4) {
            world = world.marked_as_draining();
        }
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let choices = world.choices(spec);
        let pick = usize::try_from(random % choices.len() as u64).expect("fits");
        let choice = choices.into_iter().nth(pick).expect("in range");
        world = world.step(spec, choice);
    }
}
