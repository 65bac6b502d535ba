//! One incarnation that is watched: its probes, their counts, and what it said by itself.

mod asking;
mod gpus;
mod telling;

pub(in crate::health) use gpus::Look as GpuLook;
pub(crate) use gpus::pause;

use super::actor::Context;
use super::memory::Remembered;
use super::progress::Progress;
use super::verdict::{self, UNWATCHED};
use super::worker::{Armed, Lines, Running, Worker, is_told};
use super::{Done, What};
use crate::backend::{ChildHandle, ImageCheck};
use crate::messages::{HealthReport, Watch};
use crate::probe::Look;
use crate::probe::ready::ReadyListener;
use crate::view::{HealthView, HealthWord};
use lair_manifests::launch::{LaunchPlan, ProbeAction};
use lair_supervision::{
    ChildEvent, ChildId, HealthChange, HealthState, ProbeKind, ProbeOutcome, ProbeSpec, Probes,
    Uptime,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The last finding of each probe.
pub(super) type Heard = BTreeMap<ProbeKind, Look>;

const KINDS: [ProbeKind; 3] = [
    ProbeKind::Startup,
    ProbeKind::Readiness,
    ProbeKind::Liveness,
];

/// One incarnation. Dropping it ends its timers and tasks.
pub(super) struct Watched {
    id: ChildId,
    inc: u64,
    handle: Arc<dyn ChildHandle>,
    /// When it was first watched: initial delays count from here.
    since: Uptime,
    stall: Option<Duration>,
    workers: BTreeMap<ProbeKind, Worker>,
    state: HealthState,
    heard: Heard,
    view: HealthView,
    topic: String,
    /// Why it will never become ready.
    doomed: Option<String>,
    source: Option<Arc<ReadyListener>>,
    lines: Arc<Lines>,
    progress: Option<Progress>,
    progress_timer: Option<Armed>,
    /// Armed when the ready descriptor was closed.
    breath: Option<Armed>,
    gpus: Option<gpus::Gpus>,
    tasks: Vec<Running>,
}

impl Watched {
    pub fn begin(watch: Watch, context: &Context) -> Self {
        let Watch {
            id,
            inc,
            plan,
            handle,
            ready,
            served,
        } = watch;
        let workers = workers(&plan, handle.image_check());
        let known = context.args.memory.recall(&id, inc);
        let mut watched = match known {
            Some(known) => Watched::resumed(id, handle, workers, known),
            None => {
                let mut known = unknown(inc, &workers, &plan, context);
                if served {
                    known.state = known.state.served();
                    known.lines.set(ProbeKind::Startup);
                    known.lines.set(ProbeKind::Readiness);
                }
                Watched::resumed(id, handle, workers, known)
            }
        };
        watched.stall = plan
            .probes
            .startup
            .as_ref()
            .and_then(|startup| startup.stall);
        if let Some(source) = ready {
            watched.listen(source, context);
        }
        watched.follow(context);
        watched.look_for_gpus(&plan, context);
        watched.settle(context);
        watched
    }

    fn resumed(
        id: ChildId,
        handle: Arc<dyn ChildHandle>,
        workers: BTreeMap<ProbeKind, Worker>,
        known: Remembered,
    ) -> Self {
        Watched {
            id,
            inc: known.inc,
            handle,
            since: known.since,
            stall: None,
            workers,
            state: known.state,
            heard: known.heard,
            topic: known.topic,
            view: known.view,
            doomed: known.doomed,
            source: known.source,
            lines: known.lines,
            progress: None,
            progress_timer: None,
            breath: None,
            gpus: None,
            tasks: Vec::new(),
        }
    }

    /// Goes on under a new plan: what was learnt of this life is kept.
    pub fn revise(watch: &Watch, context: &Context) {
        let memory = &context.args.memory;
        let Some(mut known) = memory.recall(&watch.id, watch.inc) else {
            return;
        };
        let probes = specs(&workers(&watch.plan, watch.handle.image_check()));
        let (state, serves) = known.state.revised(&probes, watch.plan.spec.on_liveness);
        known.state = state;
        known.lines = Arc::default();
        memory.keep(&watch.id, known);
        if serves {
            let event = HealthReport::Event(ChildEvent::BecameReady);
            context.args.sink.report(&watch.id, watch.inc, event);
        }
    }

    /// Its lines are of no use to it any more.
    pub fn stop_listening(&self, context: &Context) {
        if self.has_log_probe() {
            context.args.logs.unwatch(&self.id, self.inc);
        }
    }

    pub fn inc(&self) -> u64 {
        self.inc
    }

    /// It is held still or parked: nobody looks, and what was true is unknown, until it is watched again.
    pub fn rest(mut self, why: &str, context: &Context) {
        self.stop_listening(context);
        let view = HealthView {
            state: HealthWord::Unknown,
            reason: Some(why.into()),
            probe: None,
            since_ms: context.args.clock.wall_ms(),
            checked_ms: self.view.checked_ms.clone(),
        };
        why.clone_into(&mut self.topic);
        self.view = view.clone();
        self.remember(context);
        self.report(HealthReport::Verdict(view), context);
    }

    /// Nobody looks any more: what was true is unknown now.
    pub fn end(self, context: &Context) {
        if self.has_log_probe() {
            context.args.logs.unwatch(&self.id, self.inc);
        }
        if self.view.state == HealthWord::Unknown {
            return;
        }
        let view = HealthView {
            state: HealthWord::Unknown,
            reason: Some(UNWATCHED.into()),
            probe: None,
            since_ms: context.args.clock.wall_ms(),
            checked_ms: self.view.checked_ms.clone(),
        };
        self.report(HealthReport::Verdict(view), context);
    }

    pub fn tick(&mut self, what: What, context: &Context) {
        match what {
            What::Due { kind, serial, due } => self.due(kind, serial, due, context),
            What::Progress { due } => self.look_at_progress(due, context),
            What::Said => self.settle(context),
            What::Never => self.ask_if_gone(context),
        }
    }

    pub fn done(&mut self, done: Done, context: &Context) {
        match done {
            Done::Look { kind, serial, look } => self.landed(kind, serial, look, context),
            Done::Progress { due, evidence } => self.progressed(due, &evidence, context),
            Done::Never => {
                let why = "it closed its ready descriptor without a newline: it will never say that it is ready";
                self.doom(why.into(), context);
            }
            Done::Gpus(look) => self.gpus_looked_at(&look, context),
        }
    }

    /// Takes in what the module says by itself, then sees to it that everything due is armed, and nothing else.
    fn settle(&mut self, context: &Context) {
        while let Some((kind, look)) = self.told() {
            self.count(kind, look, context);
        }
        self.publish(context);
        self.remember(context);
        self.arm(context);
    }

    /// Counts a finding and reports what it changes.
    fn count(&mut self, kind: ProbeKind, look: Look, context: &Context) {
        let outcome = look.outcome;
        if outcome != ProbeOutcome::CouldNotRun {
            let wall = context.args.clock.wall_ms();
            self.view.checked_ms.store(wall, Ordering::Relaxed);
        }
        self.heard.insert(kind, look);
        for change in self.state.observe(kind, outcome, context.now()) {
            let event = match change {
                HealthChange::BecameReady => ChildEvent::BecameReady,
                HealthChange::LostReadiness => ChildEvent::LostReadiness,
                HealthChange::LivenessFailed(kind) => ChildEvent::LivenessFailed { kind },
                HealthChange::Verdict { .. } => {
                    self.publish(context);
                    continue;
                }
            };
            self.report(HealthReport::Event(event), context);
        }
    }

    /// It will never become ready.
    fn doom(&mut self, why: String, context: &Context) {
        if self.doomed.is_some() || !self.is_starting() {
            return;
        }
        self.doomed = Some(why);
        self.settle(context);
        self.report(HealthReport::Event(ChildEvent::Stalled), context);
    }

    fn publish(&mut self, context: &Context) {
        let said = self.source.as_ref().and_then(|source| source.said().status);
        let mut draft = verdict::draft(&self.state, &self.heard, self.doomed.as_deref());
        draft.add_status(said.as_deref());
        self.complain_of_gpus(&mut draft);
        let now = context.args.clock.wall_ms();
        if let Some(view) = verdict::news(draft, &self.view, &mut self.topic, now) {
            self.view = view.clone();
            self.report(HealthReport::Verdict(view), context);
        }
    }

    fn report(&self, report: HealthReport, context: &Context) {
        context.args.sink.report(&self.id, self.inc, report);
    }

    fn remember(&self, context: &Context) {
        let part = Remembered {
            inc: self.inc,
            since: self.since,
            state: self.state.clone(),
            view: self.view.clone(),
            topic: self.topic.clone(),
            heard: self.heard.clone(),
            doomed: self.doomed.clone(),
            source: self.source.clone(),
            lines: self.lines.clone(),
        };
        context.args.memory.keep(&self.id, part);
    }

    /// Has its startup or readiness question not been answered yes yet?
    fn is_starting(&self) -> bool {
        [ProbeKind::Startup, ProbeKind::Readiness]
            .iter()
            .any(|kind| {
                let probe = self.state.probe(*kind);
                probe.is_some_and(|probe| probe.reached.is_none())
            })
    }

    fn has_log_probe(&self) -> bool {
        let is_log = |worker: &Worker| matches!(worker.action, ProbeAction::Log { .. });
        self.workers.values().any(is_log)
    }
}

/// A fresh incarnation, of which nothing is known yet.
fn unknown(
    inc: u64,
    workers: &BTreeMap<ProbeKind, Worker>,
    plan: &LaunchPlan,
    context: &Context,
) -> Remembered {
    let probes = specs(workers);
    let view = HealthView {
        since_ms: context.args.clock.wall_ms(),
        ..HealthView::default()
    };
    Remembered {
        inc,
        since: context.now(),
        state: HealthState::new(&probes, plan.spec.on_liveness),
        view,
        topic: String::new(),
        heard: Heard::new(),
        doomed: None,
        source: None,
        lines: Arc::default(),
    }
}

fn specs(workers: &BTreeMap<ProbeKind, Worker>) -> Probes {
    let spec = |kind| workers.get(&kind).map(|worker| worker.spec.clone());
    Probes {
        startup: spec(ProbeKind::Startup),
        readiness: spec(ProbeKind::Readiness),
        liveness: spec(ProbeKind::Liveness),
    }
}

/// The probes of the plan; one that is the image's own keeps the image's schedule, and where the plan asks nothing the
/// image's check is the liveness probe.
fn workers(plan: &LaunchPlan, check: Option<ImageCheck>) -> BTreeMap<ProbeKind, Worker> {
    let actions = &plan.probes;
    let specs = &plan.spec.probes;
    let startup = actions.startup.as_ref().map(|startup| &startup.action);
    let patient = plan.spec.ready_deadline.is_some()
        || actions.startup.as_ref().is_some_and(|s| s.stall.is_some());
    let asks_nothing =
        startup.is_none() && actions.readiness.is_none() && actions.liveness.is_none();
    let usual = (asks_nothing && check.is_some()).then_some(ProbeAction::Image);
    [
        (ProbeKind::Startup, startup, &specs.startup),
        (
            ProbeKind::Readiness,
            actions.readiness.as_ref(),
            &specs.readiness,
        ),
        (
            ProbeKind::Liveness,
            actions.liveness.as_ref().or(usual.as_ref()),
            &specs.liveness,
        ),
    ]
    .into_iter()
    .filter_map(|(kind, action, spec)| {
        let mut spec = spec.clone().unwrap_or_default();
        let action = action?.clone();
        if let (ProbeAction::Image, Some(check)) = (&action, &check) {
            spec.interval = check.interval.max(Duration::from_millis(1));
            spec.timeout = check.timeout;
            spec.failures = check.retries;
        }
        adapt(&mut spec, kind, &action, patient);
        Some((kind, Worker::new(spec, action)))
    })
    .collect()
}

/// What is said once needs no repetition; what a deadline or a stall time ends is not ended by counting.
fn adapt(spec: &mut ProbeSpec, kind: ProbeKind, action: &ProbeAction, patient: bool) {
    if is_told(action) {
        spec.successes = 1;
        if kind != ProbeKind::Liveness {
            spec.failures = 1;
        }
    }
    if kind == ProbeKind::Startup && patient {
        spec.failures = u32::MAX;
    }
}
