//! Thresholds, gates and lives, on a simulated clock with a child whose commands answer as told.

use crate::support::{FakeHandle, SEC, World, command, ended, eventually, every, plan, settle};
use lair_actors::backend::CommandOutcome;
use lair_actors::clock::SimClock;
use lair_actors::messages::{HealthMsg, HealthReport, Watch};
use lair_actors::view::HealthWord;
use lair_supervision::{ChildEvent, ChildId, OnLiveness, ProbeKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ProbeKind::{Liveness, Readiness, Startup};

/// F1
#[tokio::test]
async fn a_flapping_probe_changes_readiness_only_at_its_thresholds() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let outcomes = [0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0].map(ended);
    let handle = Arc::new(FakeHandle::new(outcomes));
    let plan = plan(&[(Readiness, command(), every(SEC, 3, 3))]);
    world.watch(plan, 1, handle.clone()).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let known = world.events().len();
        for event in &world.events()[seen.len().min(known)..] {
            seen.push((handle.runs(), event.clone()));
        }
        clock.advance(SEC, settle).await;
    }
    let expected = [
        (6, ChildEvent::BecameReady),
        (12, ChildEvent::LostReadiness),
        (18, ChildEvent::BecameReady),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_first_look_comes_at_once_and_not_after_an_interval() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(0)]));
    let mut thresholds = every(60 * SEC, 3, 1);
    thresholds.initial_delay = 5 * SEC;
    let delayed = plan(&[(Readiness, command(), thresholds)]);
    world.watch(delayed, 1, handle.clone()).await;
    assert_eq!(handle.runs(), 0);
    clock.advance(5 * SEC, settle).await;
    assert_eq!((handle.runs(), world.word()), (1, HealthWord::Healthy));
    let at_once = plan(&[(Readiness, command(), every(60 * SEC, 3, 1))]);
    world.watch(at_once, 2, handle.clone()).await;
    assert_eq!(handle.runs(), 2);
}

/// F2
#[tokio::test]
async fn a_hanging_probe_is_never_joined_by_a_second_one() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let mut handle = FakeHandle::new([]);
    handle.hangs = true;
    let handle = Arc::new(handle);
    let plan = plan(&[(Liveness, command(), every(SEC, 1, 1))]);
    world.watch(plan, 1, handle.clone()).await;
    clock.advance(60 * SEC, settle).await;
    assert_eq!(handle.runs(), 1);
    assert_eq!(world.word(), HealthWord::Unknown);
}

/// F2
#[tokio::test]
async fn a_probe_that_timed_out_has_failed_and_says_so() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([CommandOutcome::TimedOut]));
    let plan = plan(&[(Liveness, command(), every(SEC, 2, 1))]);
    world.watch(plan, 1, handle).await;
    clock.advance(2 * SEC, settle).await;
    assert_eq!(world.word(), HealthWord::Unhealthy);
    assert!(
        world
            .reason()
            .contains("`check` did not end within 2000 ms")
    );
    // On `report` the child is left alone.
    assert_eq!(world.events(), []);
}

/// F4
#[tokio::test]
async fn a_probe_that_cannot_run_changes_no_state_but_is_seen() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(0)]));
    let plan = plan(&[(Liveness, command(), every(SEC, 1, 1))]);
    world.watch(plan, 1, handle.clone()).await;
    assert_eq!(world.word(), HealthWord::Healthy);
    let checked = world.verdict().checked_ms.load(Ordering::Relaxed);
    handle.answer(CommandOutcome::CouldNotRun("no such file".into()));
    clock.advance(10 * SEC, settle).await;
    assert_eq!(world.word(), HealthWord::Healthy);
    assert!(world.reason().contains("could not be run: no such file"));
    assert_eq!(world.verdict().checked_ms.load(Ordering::Relaxed), checked);
    handle.answer(ended(0));
    clock.advance(2 * SEC, settle).await;
    assert_eq!(world.verdict().reason, None);
    assert!(world.verdict().checked_ms.load(Ordering::Relaxed) > checked);
    assert_eq!(world.events(), []);
}

#[tokio::test]
async fn a_panic_in_a_probe_stays_in_that_probe() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let mut handle = FakeHandle::new([ended(0)]);
    handle.panics = true;
    let plan = plan(&[(Liveness, command(), every(SEC, 1, 1))]);
    world.watch(plan, 1, Arc::new(handle)).await;
    assert!(world.reason().contains("the prober panicked"));
    assert_eq!(world.word(), HealthWord::Unknown);
    clock.advance(2 * SEC, settle).await;
    assert_eq!(world.word(), HealthWord::Healthy);
}

/// F6, H4
#[tokio::test]
async fn after_unwatch_health_is_unknown_and_nothing_fails_any_more() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(0), ended(1)]));
    let mut plan = plan(&[(Liveness, command(), every(SEC, 2, 1))]);
    plan.spec.on_liveness = OnLiveness::Restart;
    world.watch(plan, 1, handle.clone()).await;
    clock.advance(Duration::from_millis(1100), settle).await;
    assert_eq!((handle.runs(), world.word()), (2, HealthWord::Healthy));
    world.unwatch(1).await;
    clock.advance(60 * SEC, settle).await;
    assert_eq!((handle.runs(), world.word()), (2, HealthWord::Unknown));
    assert_eq!(world.events(), []);
    assert_eq!(clock.next_due(), None);
}

/// F7
#[tokio::test]
async fn liveness_is_silent_until_startup_has_succeeded() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(1)]));
    let mut plan = plan(&[
        (Startup, command(), every(SEC, 3, 1)),
        (Liveness, command(), every(SEC, 1, 1)),
    ]);
    plan.spec.on_liveness = OnLiveness::Restart;
    plan.spec.ready_deadline = Some(1800 * SEC);
    world.watch(plan, 1, handle.clone()).await;
    clock.advance(600 * SEC, settle).await;
    assert_eq!(
        (world.events(), world.word()),
        (vec![], HealthWord::Unknown)
    );
    assert!(
        world
            .reason()
            .starts_with("not ready yet: `check` exited with 1")
    );
    handle.answer(ended(0));
    clock.advance(2 * SEC, settle).await;
    assert_eq!(world.events(), [ChildEvent::BecameReady]);
    handle.answer(ended(1));
    clock.advance(2 * SEC, settle).await;
    let failed = ChildEvent::LivenessFailed { kind: Liveness };
    assert_eq!(world.events(), [ChildEvent::BecameReady, failed]);
    // The explanation comes before the event; then the probes are on hold.
    let reports = world.reports();
    assert!(matches!(
        &reports[reports.len() - 2..],
        [HealthReport::Verdict(view), HealthReport::Event(_)] if view.state == HealthWord::Unhealthy
    ));
    let runs = handle.runs();
    clock.advance(60 * SEC, settle).await;
    assert_eq!(handle.runs(), runs);
}

/// F8
#[tokio::test]
async fn the_next_life_of_the_actor_goes_on_where_the_last_one_ended() {
    let clock = SimClock::new();
    let mut world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(0)]));
    let plan = plan(&[
        (Startup, command(), every(SEC, 1, 1)),
        (Readiness, command(), every(SEC, 2, 1)),
    ]);
    world.watch(plan.clone(), 1, handle.clone()).await;
    assert_eq!(world.word(), HealthWord::Healthy);
    world.rebirth().await;
    let before = world.reports().len();
    world.watch(plan, 1, handle.clone()).await;
    clock.advance(30 * SEC, settle).await;
    assert_eq!(world.reports().len(), before, "nothing was news");
    // It remembers that it was ready, so that losing that is still noticed.
    handle.answer(ended(1));
    clock.advance(3 * SEC, settle).await;
    assert_eq!(
        world.events(),
        [ChildEvent::BecameReady, ChildEvent::LostReadiness]
    );
    assert_eq!(world.word(), HealthWord::Unhealthy);
}

#[tokio::test]
async fn an_older_incarnation_is_neither_watched_nor_believed() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let old = Arc::new(FakeHandle::new([ended(1)]));
    let new = Arc::new(FakeHandle::new([ended(0)]));
    let plan = plan(&[(Readiness, command(), every(SEC, 1, 1))]);
    world.watch(plan.clone(), 2, new.clone()).await;
    world.watch(plan, 1, old.clone()).await;
    world.unwatch(1).await;
    clock.advance(10 * SEC, settle).await;
    assert_eq!(old.runs(), 0);
    assert!(new.runs() > 9);
    assert_eq!(world.word(), HealthWord::Healthy);
}

/// H3: running is not healthy.
#[tokio::test]
async fn a_thousand_modules_without_probes_are_unknown_and_cost_no_timer() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([]));
    for n in 0..1000 {
        let mut plan = plan(&[]);
        plan.spec.id = ChildId::new(&format!("m{n}"));
        let watch = Watch {
            id: plan.spec.id.clone(),
            inc: 1,
            plan: Arc::new(plan),
            handle: handle.clone(),
            ready: None,
            served: false,
        };
        world.actor.cast(HealthMsg::Watch(Box::new(watch))).unwrap();
    }
    eventually("all have a verdict", || world.reports().len() == 1000).await;
    assert_eq!(clock.next_due(), None);
    assert_eq!(world.word(), HealthWord::Unknown);
    assert_eq!(world.reason(), "no probe declared");
    assert_eq!(handle.runs(), 0);
}
