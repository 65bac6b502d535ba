//! What the root says while things cross each other: events and snapshots, owners that die, drains in a hurry.

mod support;

use lair::actors::backend::sim::{OnStop, Script, SimBackend};
use lair::actors::backend::{
    Backend, BoxFuture, ChildExit, ChildHandle, CommandOutcome, StartOrder, Started, Tree,
};
use lair::actors::clock::{Clock, Fire, SystemClock, TimerId};
use lair::actors::fault::{ActorKind, Fault};
use lair::actors::root::Backends;
use lair::supervision::{ChildId, NoticeKind, Origin, Scope, Seq, StartFault, StartStage, Uptime};
use lair::{RuntimeHandle, WaitFor};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use support::{Lair, SOON, asker, word};
use tokio::sync::Notify;

// -- the parts -------------------------------------------------------------------------------------------------------

/// A clock that looks, whenever the root tells something, whether what was told before is on the board.
struct Peek {
    clock: Arc<SystemClock>,
    handle: OnceLock<RuntimeHandle>,
    lies: Mutex<Vec<String>>,
}

impl Peek {
    fn look(&self) {
        let Some(handle) = self.handle.get() else {
            return;
        };
        let newest = handle.newest_event().borrow().0;
        let told = handle.events(Seq(newest.saturating_sub(1)), 1);
        let Some(notice) = told.notices.first() else {
            return;
        };
        let view = handle.view(notice.id.as_str()).ok();
        let child = view.as_ref().map(|v| &v.child);
        let shown = match notice.kind {
            NoticeKind::Loaded => child.is_some(),
            NoticeKind::Unloaded => child.is_none(),
            NoticeKind::Starting => child.is_some_and(|c| c.inc == notice.inc && !c.is_down()),
            NoticeKind::Running => child.is_some_and(|c| c.identity().is_some()),
            NoticeKind::Stopping { .. } => child.is_some_and(|c| {
                let words = format!("{:?}", c.phase);
                words.starts_with("Stopping") || words.starts_with("Down")
            }),
            NoticeKind::Exited { .. } => {
                child.is_some_and(|c| c.last_exit.as_ref().is_some_and(|e| e.inc == notice.inc))
            }
            _ => true,
        };
        let over = child.is_some_and(|c| c.inc > notice.inc);
        if !shown && !over {
            let lie = format!("{} #{}", word(&notice.kind), notice.inc);
            self.lies.lock().expect("a lock").push(lie);
        }
    }
}

impl Clock for Peek {
    fn now(&self) -> Uptime {
        self.clock.now()
    }
    fn wall_ms(&self) -> u64 {
        self.look();
        self.clock.wall_ms()
    }
    fn arm(&self, at: Uptime, fire: Fire) -> TimerId {
        self.clock.arm(at, fire)
    }
    fn cancel(&self, timer: TimerId) {
        self.clock.cancel(timer);
    }
}

/// Starts a scripted child when it is told to; the child's end takes a while to be seen.
struct Held {
    sim: Arc<SimBackend>,
    go: Arc<Notify>,
    waits: Arc<Notify>,
    dying: Duration,
}

impl Backend for Held {
    fn name(&self) -> &'static str {
        "held"
    }
    fn start(&self, order: StartOrder) -> BoxFuture<Result<Started, StartFault>> {
        let (go, waits, dying) = (self.go.clone(), self.waits.clone(), self.dying);
        let start = self.sim.start(order);
        Box::pin(async move {
            waits.notify_one();
            go.notified().await;
            let mut started = start.await?;
            started.handle = Arc::new(Slow(started.handle, dying));
            Ok(started)
        })
    }
    fn undoes_at_once(&self) -> bool {
        false
    }
}

struct Slow(Arc<dyn ChildHandle>, Duration);

impl ChildHandle for Slow {
    fn signal(&self, signal: i32, scope: Scope) {
        self.0.signal(signal, scope);
    }
    fn kill(&self) {
        self.0.kill();
    }
    fn exit(&self) -> BoxFuture<ChildExit> {
        let (exit, dying) = (self.0.exit(), self.1);
        Box::pin(async move {
            let exit = exit.await;
            tokio::time::sleep(dying).await;
            exit
        })
    }
    fn run(&self, argv: Vec<String>, timeout: Duration) -> BoxFuture<CommandOutcome> {
        self.0.run(argv, timeout)
    }
    fn tree(&self) -> Tree {
        self.0.tree()
    }
    fn release(&self) {
        self.0.release();
    }
}

async fn held(story: &str, dying: Duration) -> (Lair, Arc<Held>) {
    let clock = SystemClock::start();
    let sim = SimBackend::new(clock.clone());
    let backend = Arc::new(Held {
        sim,
        go: Arc::default(),
        waits: Arc::default(),
        dying,
    });
    let backends = Backends {
        native: Some(backend.clone()),
        container: std::collections::BTreeMap::new(),
    };
    let lair = Lair::start_with(story, |o| {
        o.simulated = Some((clock, backends));
        o.faults = true;
    })
    .await;
    (lair, backend)
}

fn panic_of(which: ActorKind, name: Option<&str>) -> Fault {
    let id = name.map(ChildId::new);
    Fault::PanicActor { which, id }
}

async fn wait(lair: &Lair, what: WaitFor) -> String {
    let waiting = lair.handle.wait("m", what, None);
    match tokio::time::timeout(SOON, waiting).await {
        Ok(Ok(status)) => status.state,
        Ok(Err(refused)) => refused.code.to_owned(),
        Err(_) => format!("still {} : {}", lair.status("m").state, lair.story("m")),
    }
}

// -- events and snapshots --------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_acts_on_an_event_finds_at_least_its_state() {
    let peek = Arc::new(Peek {
        clock: SystemClock::start(),
        handle: OnceLock::new(),
        lies: Mutex::default(),
    });
    let sim = SimBackend::new(peek.clone());
    let backends = Backends {
        native: Some(sim),
        container: std::collections::BTreeMap::new(),
    };
    let clock = peek.clone();
    let lair = Lair::start_with("peek", |o| o.simulated = Some((clock, backends))).await;
    let _ = peek.handle.set(lair.handle.clone());
    lair.sh("m", "true", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let again = lair.handle.restart("m", None, asker()).await;
    again.expect("a restart");
    lair.until("m", "its second run", |s| s.run == 2 && s.ready)
        .await;
    lair.stop("m").await;
    lair.handle.unload("m", asker()).await.expect("an unload");
    lair.load(&support::sh("n", "true", ""))
        .await
        .expect("a load");
    assert_eq!(*peek.lies.lock().expect("a lock"), Vec::<String>::new());
    lair.end().await;
}

#[tokio::test]
async fn a_run_that_never_ran_shows_no_time_of_the_run_before() {
    let lair = Lair::start_with("times", |o| o.faults = true).await;
    lair.sh("m", "exit 0", "").await;
    let first = lair.wait("m", WaitFor::Exited).await;
    assert!(first.started_at.is_some() && first.finished_at.is_some());
    let fault = Fault::FailNextSpawn {
        id: ChildId::new("m"),
        stage: StartStage::Exec,
        errno: 2,
    };
    let told = lair.handle.inject(fault, "story", asker()).await;
    told.expect("injected");
    lair.handle.start("m", asker()).await.expect("an answer");
    let failed = lair.until("m", "failed", |s| s.state == "failed").await;
    assert_eq!(
        (failed.run, failed.started_at, failed.finished_at),
        (2, None, None)
    );
    lair.end().await;
}

#[tokio::test]
async fn a_module_that_is_loaded_again_goes_on_counting_though_its_log_is_gone() {
    let lair = Lair::start("counting").await;
    lair.sh("m", "exec sleep 1000", "").await;
    lair.wait("m", WaitFor::Ready).await;
    lair.stop("m").await;
    let folder = lair.home.path().join("logs/m");
    lair.until("m", "its dossier is there", |_| {
        folder.join("1.dossier.json").exists()
    })
    .await;
    lair.handle.unload("m", asker()).await.expect("unloaded");
    std::fs::remove_dir_all(&folder).expect("its logs");
    lair.sh("m", "exec sleep 1000", "").await;
    assert_eq!(lair.wait("m", WaitFor::Ready).await.run, 2);
    lair.end().await;
}

#[tokio::test]
async fn nobody_waits_for_a_root_that_is_dead() {
    let (lair, backend) = held("dead", Duration::ZERO).await;
    backend.go.notify_one();
    lair.sh("m", "true", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let fault = panic_of(ActorKind::Root, None);
    let (code, _) = tokio::join!(
        wait(&lair, WaitFor::Stopped),
        lair.handle.inject(fault, "story", asker())
    );
    assert_eq!(code, "internal");
}

// -- owners that die -------------------------------------------------------------------------------------------------

/// The start's result is in the mailbox of an owner that dies of the message before it.
#[tokio::test]
async fn a_child_that_comes_to_an_owner_just_dead_is_buried() {
    let (lair, backend) = held("late", Duration::ZERO).await;
    lair.sh("m", "true", "").await;
    backend.waits.notified().await;
    let fault = panic_of(ActorKind::Module, Some("m"));
    let (told, ()) = tokio::join!(lair.handle.inject(fault, "story", asker()), async {
        backend.go.notify_one();
    });
    told.expect("injected");
    assert_eq!(wait(&lair, WaitFor::Stopped).await, "failed");
    assert_eq!(lair.count("m", "exited"), 1, "{}", lair.story("m"));
    // Not `lair.end()`: it was never said to run.
    lair.runtime.shutdown(SOON).await;
}

/// The owner dies of the message after: its end overtakes its report that the child runs.
#[tokio::test]
async fn a_child_whose_owner_died_with_its_first_report_is_buried() {
    let (lair, backend) = held("early", Duration::ZERO).await;
    lair.sh("m", "true", "").await;
    backend.waits.notified().await;
    let fault = panic_of(ActorKind::Module, Some("m"));
    let go = async { backend.go.notify_one() };
    let ((), told) = tokio::join!(go, lair.handle.inject(fault, "story", asker()));
    told.expect("injected");
    assert_eq!(wait(&lair, WaitFor::Stopped).await, "failed");
    assert_eq!(lair.count("m", "exited"), 1, "{}", lair.story("m"));
    // Not `lair.end()`: it was never said to run.
    lair.runtime.shutdown(SOON).await;
}

// -- why it happened -------------------------------------------------------------------------------------------------

fn origin_of(lair: &Lair, what: &str) -> Origin {
    let told = lair.notices("m");
    let notice = told.iter().find(|n| word(&n.kind) == what);
    notice
        .unwrap_or_else(|| panic!("no {what} in {}", lair.story("m")))
        .origin
        .clone()
}

#[tokio::test]
async fn what_a_probe_ends_was_asked_for_by_nobody() {
    let lair = Lair::start("unasked").await;
    let probe = "  health: { liveness: { command: [/bin/false], interval: 50ms, failures: 1, on_failure: restart } }";
    lair.sh("m", "exec sleep 1000", probe).await;
    lair.wait("m", WaitFor::Stopped).await;
    for what in ["stopping", "exited", "down"] {
        assert_eq!(origin_of(&lair, what), Origin::Observed, "{what}");
    }
    lair.end().await;
}

#[tokio::test]
async fn all_that_an_injected_death_of_the_owner_causes_says_so() {
    let (lair, backend) = held("marked", Duration::ZERO).await;
    backend.go.notify_one();
    lair.sh("m", "true", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let fault = panic_of(ActorKind::Module, Some("m"));
    let told = lair.handle.inject(fault, "story", asker()).await;
    told.expect("injected");
    lair.wait("m", WaitFor::Stopped).await;
    for what in ["owner_died", "stopping", "exited", "down"] {
        let label = "story".to_owned();
        assert_eq!(origin_of(&lair, what), Origin::Injected { label }, "{what}");
    }
    lair.end().await;
}

// -- drains ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_drain_that_is_hurried_still_waits_for_the_proof() {
    let (lair, backend) = held("hurry", Duration::from_millis(600)).await;
    let ignore = Script {
        on_stop: OnStop::Ignore,
        ..Script::default()
    };
    backend.sim.script("m", ignore);
    backend.go.notify_one();
    lair.sh("m", "true", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let drain = lair.handle.drain(Duration::from_millis(300), asker());
    let hurry = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        lair.handle.drain_now();
    };
    let (report, ()) = tokio::join!(drain, hurry);
    let report = report.expect("a report");
    assert!(report.remaining.is_empty(), "{report:?}");
    lair.end().await;
}

#[tokio::test]
async fn whoever_has_less_time_for_a_drain_decides() {
    let (lair, backend) = held("less", Duration::ZERO).await;
    let ignore = Script {
        on_stop: OnStop::Ignore,
        ..Script::default()
    };
    backend.sim.script("m", ignore);
    backend.go.notify_one();
    lair.sh("m", "true", "  stop: { grace: 60s }").await;
    lair.wait("m", WaitFor::Ready).await;
    let long = lair.handle.drain(Duration::from_secs(90), asker());
    let short = async {
        tokio::task::yield_now().await;
        lair.handle.drain(Duration::from_millis(100), asker()).await
    };
    let both = async { tokio::join!(long, short) };
    let (long, short) = tokio::time::timeout(SOON, both).await.expect("in time");
    assert_eq!(long.expect("a report"), short.expect("a report"));
    lair.end().await;
}
