//! A world of fakes: a child whose probe commands answer as told, a sink that remembers, clocks that obey.

use lair_actors::backend::{BoxFuture, ChildExit, ChildHandle, CommandOutcome, ReadySource, Tree};
use lair_actors::clock::{Clock, Fire, SimClock, TimerId};
use lair_actors::facts::Sampler;
use lair_actors::health::{HealthActor, HealthArgs, HealthSink, LogEvidence, Memory, NoLogs};
use lair_actors::messages::{HealthMsg, HealthReport, Watch};
use lair_actors::view::{HealthView, HealthWord};
use lair_manifests::launch::{
    Launch, LaunchPlan, Limits, LogPolicy, Mode, NativeLaunch, ProbeAction, ProbeActions,
    StartupAction,
};
use lair_supervision::{
    ChildEvent, ChildId, ChildSpec, ExitStatus, ProbeKind, ProbeSpec, Scope, Uptime,
};
use ractor::{Actor, ActorRef};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const SEC: Duration = Duration::from_secs(1);

pub fn ended(code: i32) -> CommandOutcome {
    CommandOutcome::Ended {
        status: ExitStatus::Code(code),
        output: Vec::new(),
    }
}

/// Answers each command with the next outcome, the last one for ever.
pub struct FakeHandle {
    pub answers: Mutex<VecDeque<CommandOutcome>>,
    pub runs: AtomicUsize,
    pub tree: Tree,
    /// Commands never answer.
    pub hangs: bool,
    /// The first command panics.
    pub panics: bool,
    pub gone: Mutex<bool>,
}

impl FakeHandle {
    pub fn new(answers: impl IntoIterator<Item = CommandOutcome>) -> Self {
        FakeHandle {
            answers: Mutex::new(answers.into_iter().collect()),
            runs: AtomicUsize::new(0),
            tree: Tree::None,
            hangs: false,
            panics: false,
            gone: Mutex::new(false),
        }
    }

    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub fn answer(&self, outcome: CommandOutcome) {
        *self.answers.lock().unwrap() = VecDeque::from([outcome]);
    }
}

impl ChildHandle for FakeHandle {
    fn signal(&self, _signal: i32, _scope: Scope) {}
    fn kill(&self) {}
    fn exit(&self) -> BoxFuture<ChildExit> {
        if !*self.gone.lock().unwrap() {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(ChildExit {
            status: ExitStatus::Code(1),
            oom: lair_supervision::Tri::No,
            core: None,
            by_us: None,
            leftover: Vec::new(),
        }))
    }
    fn run(&self, _argv: Vec<String>, _timeout: Duration) -> BoxFuture<CommandOutcome> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        assert!(!(self.panics && run == 0), "a prober's bug");
        if self.hangs {
            return Box::pin(std::future::pending());
        }
        let mut answers = self.answers.lock().unwrap();
        let last = answers.len() == 1;
        let answer = if last {
            answers.front().cloned()
        } else {
            answers.pop_front()
        };
        Box::pin(std::future::ready(answer.unwrap()))
    }
    fn tree(&self) -> Tree {
        self.tree.clone()
    }
    fn release(&self) {}
}

#[derive(Default)]
pub struct Sink(Mutex<Vec<(ChildId, u64, HealthReport)>>);

impl HealthSink for Sink {
    fn report(&self, id: &ChildId, inc: u64, report: HealthReport) {
        self.0.lock().unwrap().push((id.clone(), inc, report));
    }
}

/// A clock that can jump over the heads of its timers, as after SIGSTOP.
#[derive(Default)]
pub struct JumpClock {
    now: Mutex<Uptime>,
    sim: Arc<SimClock>,
    armed: Mutex<Vec<(TimerId, Uptime, Fire)>>,
}

impl JumpClock {
    pub fn jump(&self, by: Duration) {
        let now = {
            let mut now = self.now.lock().unwrap();
            *now = *now + by;
            *now
        };
        let due: Vec<_> = {
            let mut armed = self.armed.lock().unwrap();
            let (due, later) = armed.drain(..).partition(|(_, at, _)| *at <= now);
            *armed = later;
            due
        };
        for (_, _, fire) in due {
            fire();
        }
    }

    pub fn next_due(&self) -> Option<Uptime> {
        self.armed
            .lock()
            .unwrap()
            .iter()
            .map(|(_, at, _)| *at)
            .min()
    }
}

impl Clock for JumpClock {
    fn now(&self) -> Uptime {
        *self.now.lock().unwrap()
    }
    fn wall_ms(&self) -> u64 {
        u64::try_from(self.now().0.as_millis()).unwrap()
    }
    fn arm(&self, at: Uptime, fire: Fire) -> TimerId {
        // The simulated clock lends its names of timers; it is never advanced.
        let id = self.sim.arm(at, Box::new(|| ()));
        self.armed.lock().unwrap().push((id, at, fire));
        id
    }
    fn cancel(&self, timer: TimerId) {
        self.armed.lock().unwrap().retain(|(id, _, _)| *id != timer);
    }
}

pub struct World {
    pub args: HealthArgs,
    pub sink: Arc<Sink>,
    pub actor: ActorRef<HealthMsg>,
}

impl World {
    pub async fn new(clock: Arc<dyn Clock>) -> Self {
        World::with_logs(clock, Arc::new(NoLogs)).await
    }

    pub async fn with_logs(clock: Arc<dyn Clock>, logs: Arc<dyn LogEvidence>) -> Self {
        let sink = Arc::new(Sink::default());
        let args = HealthArgs {
            sampler: Sampler::new(clock.clone()),
            clock,
            sink: sink.clone(),
            gpus: None,
            logs,
            memory: Arc::new(Memory::default()),
            seed: 7,
        };
        let (actor, _) = Actor::spawn(None, HealthActor, args.clone()).await.unwrap();
        World { args, sink, actor }
    }

    /// Kills the actor with a panic and starts its next life.
    pub async fn rebirth(&mut self) {
        self.actor
            .cast(HealthMsg::Crash("injected".into()))
            .unwrap();
        let old = self.actor.clone();
        eventually("the actor is dead", || {
            old.get_status() == ractor::ActorStatus::Stopped
        })
        .await;
        let (actor, _) = Actor::spawn(None, HealthActor, self.args.clone())
            .await
            .unwrap();
        self.actor = actor;
    }

    pub async fn watch(&self, plan: LaunchPlan, inc: u64, handle: Arc<dyn ChildHandle>) {
        self.watch_source(plan, inc, handle, None).await;
    }

    pub async fn watch_source(
        &self,
        plan: LaunchPlan,
        inc: u64,
        handle: Arc<dyn ChildHandle>,
        ready: Option<ReadySource>,
    ) {
        let id = plan.spec.id.clone();
        let plan = Arc::new(plan);
        let watch = Watch {
            id,
            inc,
            plan,
            handle,
            ready,
            served: false,
        };
        self.actor.cast(HealthMsg::Watch(Box::new(watch))).unwrap();
        settle().await;
    }

    pub async fn unwatch(&self, inc: u64) {
        let id = ChildId::new("m");
        self.actor.cast(HealthMsg::Unwatch { id, inc }).unwrap();
        settle().await;
    }

    pub fn reports(&self) -> Vec<HealthReport> {
        let all = self.sink.0.lock().unwrap();
        all.iter().map(|(_, _, report)| report.clone()).collect()
    }

    pub fn events(&self) -> Vec<ChildEvent> {
        let all = self.reports().into_iter();
        all.filter_map(|report| match report {
            HealthReport::Event(event) => Some(event),
            HealthReport::Verdict(_) => None,
        })
        .collect()
    }

    pub fn verdict(&self) -> HealthView {
        let all = self.reports().into_iter().rev();
        all.filter_map(|report| match report {
            HealthReport::Event(_) => None,
            HealthReport::Verdict(view) => Some(view),
        })
        .next()
        .unwrap()
    }

    pub fn word(&self) -> HealthWord {
        self.verdict().state
    }

    pub fn reason(&self) -> String {
        self.verdict().reason.unwrap_or_default()
    }
}

/// Lets every task of this one-threaded runtime run until it waits.
pub async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn command() -> ProbeAction {
    ProbeAction::Command(vec!["check".into()])
}

pub fn every(interval: Duration, failures: u32, successes: u32) -> ProbeSpec {
    ProbeSpec {
        interval,
        failures,
        successes,
        ..ProbeSpec::default()
    }
}

/// A plan with one name and these probes.
pub fn plan(probes: &[(ProbeKind, ProbeAction, ProbeSpec)]) -> LaunchPlan {
    let mut spec = ChildSpec::new(ChildId::new("m"));
    let mut actions = ProbeActions::default();
    for (kind, action, thresholds) in probes.iter().cloned() {
        match kind {
            ProbeKind::Startup => {
                spec.probes.startup = Some(thresholds);
                actions.startup = Some(StartupAction {
                    action,
                    stall: None,
                });
            }
            ProbeKind::Readiness => {
                spec.probes.readiness = Some(thresholds);
                actions.readiness = Some(action);
            }
            ProbeKind::Liveness => {
                spec.probes.liveness = Some(thresholds);
                actions.liveness = Some(action);
            }
        }
    }
    LaunchPlan {
        spec,
        version: "1".into(),
        mode: Mode::Native,
        launch: Launch::Native(NativeLaunch {
            argv: vec!["true".into()],
            env: Default::default(),
            passed: Default::default(),
            secrets: Default::default(),
            data: None,
            workdir: "/".into(),
            user: None,
            ready_fd: false,
            notify: false,
        }),
        ports: Vec::new(),
        probes: actions,
        park: None,
        logs: LogPolicy::default(),
        limits: Limits::default(),
        explanation: Vec::new(),
        fallback: None,
        digest: String::new(),
        group: None,
        source: None,
    }
}
