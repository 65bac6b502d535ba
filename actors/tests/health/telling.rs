//! What modules say by themselves: the ready descriptor, the notify socket, a line of their log.

use crate::support::{FakeHandle, JumpClock, SEC, World, eventually, every, plan, settle};
use lair_actors::backend::{ReadySource, Tree};
use lair_actors::clock::{Clock, SimClock};
use lair_actors::health::{LogEvidence, OnLine};
use lair_actors::view::HealthWord;
use lair_manifests::launch::{LaunchPlan, ProbeAction};
use lair_supervision::{ChildEvent, ChildId, OnLiveness, ProbeKind};
use std::io::{PipeWriter, Write};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn ready_when_told() -> LaunchPlan {
    plan(&[(ProbeKind::Readiness, ProbeAction::Notify, every(SEC, 3, 3))])
}

async fn with_fd(clock: &Arc<SimClock>, handle: FakeHandle) -> (World, PipeWriter) {
    let world = World::new(clock.clone()).await;
    let (reader, writer) = std::io::pipe().unwrap();
    let source = ReadySource::Fd(reader.into());
    let handle = Arc::new(handle);
    world
        .watch_source(ready_when_told(), 1, handle, Some(source))
        .await;
    (world, writer)
}

#[tokio::test]
async fn a_newline_on_the_ready_descriptor_is_ready_and_costs_no_timer() {
    let clock = SimClock::new();
    let (world, mut writer) = with_fd(&clock, FakeHandle::new([])).await;
    assert_eq!(clock.next_due(), None);
    writer.write_all(b"almost").unwrap();
    settle().await;
    assert_eq!(world.events(), []);
    writer.write_all(b"\n").unwrap();
    eventually("ready", || world.events() == [ChildEvent::BecameReady]).await;
    drop(writer);
    settle().await;
    assert_eq!(world.word(), HealthWord::Healthy);
    assert_eq!((world.events().len(), clock.next_due()), (1, None));
}

/// D7
#[tokio::test]
async fn a_ready_descriptor_closed_without_newline_will_never_be_ready() {
    let clock = SimClock::new();
    let (world, mut writer) = with_fd(&clock, FakeHandle::new([])).await;
    writer.write_all(b"no line").unwrap();
    drop(writer);
    eventually("the end was seen", || clock.next_due().is_some()).await;
    clock.advance(SEC, settle).await;
    eventually("told", || world.events() == [ChildEvent::Stalled]).await;
    assert_eq!(world.word(), HealthWord::Unhealthy);
    assert!(world.reason().contains("closed its ready descriptor"));
}

/// I6: what ends with its descriptor has crashed, which its exit will tell.
#[tokio::test]
async fn a_ready_descriptor_that_ends_with_its_module_is_not_the_news() {
    let clock = SimClock::new();
    let handle = FakeHandle::new([]);
    *handle.gone.lock().unwrap() = true;
    let (world, writer) = with_fd(&clock, handle).await;
    drop(writer);
    eventually("the end was seen", || clock.next_due().is_some()).await;
    clock.advance(SEC, settle).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.events(), []);
}

struct Notified {
    world: World,
    path: std::path::PathBuf,
    _dir: Folder,
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn with_socket(
    clock: &Arc<impl Clock>,
    plan: LaunchPlan,
    tree: Tree,
    name: &str,
) -> Notified {
    said_before(clock, plan, tree, name, None).await
}

/// As a backend does it: the credentials are asked for when the socket is bound, before anybody can speak.
async fn said_before(
    clock: &Arc<impl Clock>,
    plan: LaunchPlan,
    tree: Tree,
    name: &str,
    early: Option<&str>,
) -> Notified {
    let dir = std::env::temp_dir().join(format!("lair-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let dir = Folder(dir);
    let path = dir.0.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
    if let Some(text) = early {
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(text.as_bytes(), &path).unwrap();
    }
    let world = World::new(clock.clone()).await;
    let mut handle = FakeHandle::new([]);
    handle.tree = tree;
    let source = Some(ReadySource::Notify(socket.into()));
    world.watch_source(plan, 1, Arc::new(handle), source).await;
    Notified {
        world,
        path,
        _dir: dir,
    }
}

impl Notified {
    fn send(&self, text: &str) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(text.as_bytes(), &self.path).unwrap();
    }
}

fn ourselves() -> Tree {
    Tree::Descendants(i32::try_from(std::process::id()).unwrap())
}

#[tokio::test]
async fn the_tree_is_believed_when_it_says_ready_and_stopping() {
    let clock = SimClock::new();
    let module = with_socket(&clock, ready_when_told(), ourselves(), "tree").await;
    module.send("STATUS=loading 4/9");
    module.send("READY=1\nMAINPID=1");
    let world = &module.world;
    eventually("ready", || world.events() == [ChildEvent::BecameReady]).await;
    module.send("STOPPING=1");
    let lost = [ChildEvent::BecameReady, ChildEvent::LostReadiness];
    eventually("stopping", || world.events() == lost).await;
    assert!(world.reason().contains("STOPPING=1"));
}

#[tokio::test]
async fn what_was_said_before_anybody_listened_is_heard() {
    let clock = SimClock::new();
    let early = Some("READY=1");
    let module = said_before(&clock, ready_when_told(), ourselves(), "early", early).await;
    let world = &module.world;
    eventually("ready", || world.events() == [ChildEvent::BecameReady]).await;
}

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let clock = SimClock::new();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let tree = Tree::Descendants(i32::try_from(child.id()).unwrap());
    let module = with_socket(&clock, ready_when_told(), tree, "stranger").await;
    module.send("READY=1");
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let events = module.world.events();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(events, []);
}

fn watched_over() -> LaunchPlan {
    let mut plan = plan(&[(ProbeKind::Liveness, ProbeAction::Notify, every(SEC, 2, 1))]);
    plan.spec.on_liveness = OnLiveness::Restart;
    plan
}

#[tokio::test]
async fn a_watchdog_that_is_not_fed_fails_and_one_that_is_does_not() {
    let clock = SimClock::new();
    let module = with_socket(&clock, watched_over(), ourselves(), "watchdog").await;
    let world = &module.world;
    module.send("WATCHDOG=1");
    eventually("fed", || world.word() == HealthWord::Healthy).await;
    for _ in 0..10 {
        clock.advance(SEC, settle).await;
        module.send("WATCHDOG=1");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.events(), []);
    clock.advance(10 * SEC, settle).await;
    let kind = ProbeKind::Liveness;
    assert_eq!(world.events(), [ChildEvent::LivenessFailed { kind }]);
    assert!(world.reason().contains("no WATCHDOG=1 for 2000 ms"));
}

/// F9: pings that lie unread in the socket are not missing.
#[tokio::test]
async fn a_watchdog_that_is_looked_at_too_late_starts_anew() {
    let clock = Arc::new(JumpClock::default());
    let module = with_socket(&clock, watched_over(), ourselves(), "late").await;
    let world = &module.world;
    for _ in 0..5 {
        clock.jump(60 * SEC);
        settle().await;
    }
    assert_eq!(
        (world.events(), world.word()),
        (vec![], HealthWord::Unknown)
    );
    for _ in 0..2 {
        clock.jump(2 * SEC);
        settle().await;
    }
    assert_eq!(world.word(), HealthWord::Unhealthy);
}

/// F8: the descriptors live on when the actor dies.
#[tokio::test]
async fn what_a_module_says_between_two_lives_of_the_actor_is_heard() {
    let clock = SimClock::new();
    let mut module = with_socket(&clock, ready_when_told(), ourselves(), "lives").await;
    module.world.rebirth().await;
    module.send("READY=1");
    let handle = Arc::new(FakeHandle::new([]));
    module.world.watch(ready_when_told(), 1, handle).await;
    let world = &module.world;
    eventually("ready", || world.events() == [ChildEvent::BecameReady]).await;
}

#[derive(Default)]
struct Lines(Mutex<Option<(String, OnLine)>>);

impl LogEvidence for Lines {
    fn bytes(&self, _id: &ChildId, _inc: u64) -> Option<u64> {
        None
    }
    fn watch_pattern(&self, _: &ChildId, _: u64, pattern: &str, on: OnLine) -> Result<(), String> {
        *self.0.lock().unwrap() = Some((pattern.to_owned(), on));
        Ok(())
    }
    fn unwatch(&self, _: &ChildId, _: u64) {
        *self.0.lock().unwrap() = None;
    }
}

#[tokio::test]
async fn two_log_probes_share_one_watch_and_each_waits_for_its_own_line() {
    let clock = SimClock::new();
    let lines = Arc::new(Lines::default());
    let world = World::with_logs(clock.clone(), lines.clone()).await;
    let log = |pattern: &str| ProbeAction::Log {
        pattern: pattern.into(),
    };
    let plan = plan(&[
        (ProbeKind::Startup, log("model loaded"), every(SEC, 3, 1)),
        (
            ProbeKind::Readiness,
            log("listening on [0-9]+"),
            every(SEC, 3, 3),
        ),
    ]);
    world.watch(plan, 1, Arc::new(FakeHandle::new([]))).await;
    let feed = |line: &str| {
        let mut watch = lines.0.lock().unwrap();
        let (pattern, on_line) = watch.as_mut().unwrap();
        assert_eq!(pattern, "(?:model loaded)|(?:listening on [0-9]+)");
        on_line(line)
    };
    assert!(feed("listening on 8080").is_continue());
    settle().await;
    assert_eq!(world.events(), [], "startup gates readiness");
    assert!(feed("model loaded in 3 s").is_break());
    settle().await;
    assert_eq!(world.events(), [ChildEvent::BecameReady]);
    assert_eq!(clock.next_due(), None);
    world.unwatch(1).await;
    assert!(lines.0.lock().unwrap().is_none());
}
