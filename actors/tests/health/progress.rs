//! A slow load that gets somewhere is left alone; one that is stuck is told (pain 6).

use crate::support::{FakeHandle, SEC, World, command, ended, eventually, every, plan, settle};
use lair_actors::backend::Tree;
use lair_actors::clock::{Clock, SimClock};
use lair_actors::facts::usage;
use lair_actors::health::{LogEvidence, OnLine};
use lair_actors::view::HealthWord;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ChildEvent, ChildId, OnLiveness, ProbeKind};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A log that grows by so many bytes at each look.
struct Growing {
    bytes: AtomicU64,
    by: u64,
}

impl LogEvidence for Growing {
    fn bytes(&self, _id: &ChildId, _inc: u64) -> Option<u64> {
        Some(self.bytes.fetch_add(self.by, Ordering::SeqCst))
    }
    fn watch_pattern(&self, _: &ChildId, _: u64, _: &str, _: OnLine) -> Result<(), String> {
        Err("not here".into())
    }
    fn unwatch(&self, _: &ChildId, _: u64) {}
}

fn loading(stall: u64) -> LaunchPlan {
    // Seldom asked, so that the only timer of most seconds is that of the look at progress.
    let asked = every(50 * SEC, 3, 1);
    let mut plan = plan(&[(ProbeKind::Startup, command(), asked)]);
    plan.spec.on_liveness = OnLiveness::Restart;
    plan.probes.startup.as_mut().unwrap().stall = Some(Duration::from_secs(stall));
    plan
}

async fn world(clock: &Arc<SimClock>, by: u64) -> World {
    let bytes = AtomicU64::new(0);
    World::with_logs(clock.clone(), Arc::new(Growing { bytes, by })).await
}

/// Moves on by single seconds; the look of each second is over before the next one begins.
async fn seconds(clock: &Arc<SimClock>, world: &World, count: u32) {
    for _ in 0..count {
        clock.advance(SEC, settle).await;
        eventually("the look is over", || {
            let next = clock.now() + SEC;
            clock.next_due().is_some_and(|at| at <= next) || !world.events().is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_load_that_writes_to_its_log_may_take_its_time() {
    let clock = SimClock::new();
    let world = world(&clock, 1).await;
    let handle = Arc::new(FakeHandle::new([ended(1)]));
    world.watch(loading(10), 1, handle.clone()).await;
    seconds(&clock, &world, 120).await;
    assert_eq!(
        (world.events(), world.word()),
        (vec![], HealthWord::Unknown)
    );
    handle.answer(ended(0));
    clock.advance(60 * SEC, settle).await;
    assert_eq!(world.events(), [ChildEvent::BecameReady]);
    assert_eq!(clock.next_due(), None, "nothing is left to look at");
}

/// Runs as a process of its own; ended with the value.
struct Real(Child);

impl Real {
    fn sh(script: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        Real(command.spawn().unwrap())
    }
    fn tree(&self) -> Tree {
        Tree::Descendants(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_load_that_stands_still_is_reported_with_its_reason() {
    let clock = SimClock::new();
    let world = world(&clock, 0).await;
    let stuck = Real::sh("exec sleep 1000");
    let mut handle = FakeHandle::new([ended(1)]);
    handle.tree = stuck.tree();
    world.watch(loading(20), 1, Arc::new(handle)).await;
    seconds(&clock, &world, 18).await;
    assert_eq!(world.events(), []);
    seconds(&clock, &world, 12).await;
    assert_eq!(world.events(), [ChildEvent::Stalled]);
    assert_eq!(world.word(), HealthWord::Unhealthy);
    assert!(
        world.reason().starts_with("no progress for 2"),
        "{}",
        world.reason()
    );
    assert_eq!(clock.next_due(), None, "it is not asked again");
}

#[tokio::test]
async fn a_load_that_computes_in_silence_is_left_alone() {
    let clock = SimClock::new();
    let world = world(&clock, 0).await;
    let busy = Real::sh("while :; do :; done");
    let mut handle = FakeHandle::new([ended(1)]);
    handle.tree = busy.tree();
    world.watch(loading(5), 1, Arc::new(handle)).await;
    // A simulated second lasts until the process has had a tenth of one of CPU, however busy the machine is.
    for tenth in 1..=12 {
        eventually("it computed", || usage(&busy.tree()).cpu_ms >= tenth * 100).await;
        seconds(&clock, &world, 1).await;
    }
    assert_eq!(world.events(), []);
}

#[tokio::test]
async fn a_module_of_which_nothing_can_be_seen_is_not_called_stuck() {
    let clock = SimClock::new();
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(1)]));
    world.watch(loading(5), 1, handle).await;
    seconds(&clock, &world, 60).await;
    assert_eq!(world.events(), []);
}
