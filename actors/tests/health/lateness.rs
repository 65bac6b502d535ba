//! Our own lateness is no failure of a module (F9, X4).

use crate::support::{FakeHandle, JumpClock, SEC, World, command, ended, every, plan, settle};
use lair_actors::clock::SystemClock;
use lair_actors::probe::{slack, within};
use lair_actors::view::HealthWord;
use lair_manifests::launch::ProbeAction;
use lair_supervision::{ChildEvent, OnLiveness, ProbeKind};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
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

/// Answers every request well, after 200 ms.
fn slow_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            std::thread::sleep(Duration::from_millis(200));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    port
}

/// F9, with a real SIGSTOP in the middle of real probes.
#[test]
fn a_runtime_that_was_stopped_finds_no_failure_in_its_modules() {
    let mut life = Command::new(std::env::current_exe().unwrap())
        .args([
            "lateness::a_life_to_be_stopped",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("LAIR_TEST_PORT", slow_server().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(life.id()).unwrap()).unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        kill_process(pid, Signal::STOP).unwrap();
        std::thread::sleep(Duration::from_millis(2500));
        kill_process(pid, Signal::CONT).unwrap();
    }
    let mut said = String::new();
    life.stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(life.wait().unwrap().success(), "{said}");
    assert!(said.contains("events: [] word: Healthy"), "{said}");
}

#[tokio::test]
#[ignore = "run by a_runtime_that_was_stopped_finds_no_failure_in_its_modules"]
async fn a_life_to_be_stopped() {
    let world = World::new(SystemClock::start()).await;
    let action = ProbeAction::Http {
        address: "127.0.0.1".into(),
        port: std::env::var("LAIR_TEST_PORT").unwrap().parse().unwrap(),
        path: "/".into(),
        expect: None,
    };
    let mut thresholds = every(Duration::from_millis(50), 1, 1);
    thresholds.timeout = SEC;
    let mut plan = plan(&[(ProbeKind::Liveness, action, thresholds)]);
    plan.spec.on_liveness = OnLiveness::Restart;
    world.watch(plan, 1, Arc::new(FakeHandle::new([]))).await;
    let end = std::time::Instant::now() + 11 * SEC;
    while std::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("events: {:?} word: {:?}", world.events(), world.word());
}
