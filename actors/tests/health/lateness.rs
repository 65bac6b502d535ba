//! Our own lateness is no failure of a module (F9, X4).

use crate::support::{FakeHandle, JumpClock, SEC, World, command, ended, every, plan, settle};
use lair_actors::probe::{slack, within};
use lair_actors::view::HealthWord;
use lair_supervision::{ChildEvent, OnLiveness, ProbeKind};
use std::sync::Arc;
use std::time::Duration;

async fn live(clock: &Arc<JumpClock>) -> (World, Arc<FakeHandle>) {
    let world = World::new(clock.clone()).await;
    let handle = Arc::new(FakeHandle::new([ended(0)]));
    let mut plan = plan(&[(ProbeKind::Liveness, command(), every(SEC, 1, 1))]);
    plan.spec.on_liveness = OnLiveness::Restart;
    world.watch(plan, 1, handle.clone()).await;
    assert_eq!(world.word(), HealthWord::Healthy);
    (world, handle)
}

/// F9
#[tokio::test]
async fn after_a_long_pause_each_probe_runs_once_and_its_failure_does_not_count() {
    let clock = Arc::new(JumpClock::default());
    let (world, handle) = live(&clock).await;
    handle.answer(ended(1));
    clock.jump(60 * SEC);
    settle().await;
    assert_eq!(handle.runs(), 2, "no burst");
    assert_eq!(
        (world.events(), world.word()),
        (vec![], HealthWord::Healthy)
    );
    // The next one is on time: what it finds is true now.
    clock.jump(clock.next_due().unwrap() - lair_actors::clock::Clock::now(&*clock));
    settle().await;
    let kind = ProbeKind::Liveness;
    assert_eq!(world.events(), [ChildEvent::LivenessFailed { kind }]);
}

/// X4
#[tokio::test]
async fn a_little_lateness_is_no_excuse() {
    let clock = Arc::new(JumpClock::default());
    let (world, handle) = live(&clock).await;
    handle.answer(ended(1));
    clock.jump(Duration::from_millis(1100));
    settle().await;
    assert_eq!(handle.runs(), 2);
    assert_eq!(world.word(), HealthWord::Unhealthy);
}

/// F9, X4
#[tokio::test]
async fn time_in_which_we_did_not_run_uses_up_no_timeout() {
    let limit = Duration::from_millis(400);
    let answer = within(limit, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Stands for SIGSTOP: nothing of this thread runs.
        std::thread::sleep(Duration::from_millis(900));
        tokio::time::sleep(Duration::from_millis(100)).await;
        "answer"
    })
    .await;
    assert_eq!((answer.value, answer.starved), (Some("answer"), true));
    let silence = within(limit, std::future::pending::<()>()).await;
    assert_eq!(silence.value, None);
    assert_eq!(slack(10 * SEC), 2 * SEC);
}
