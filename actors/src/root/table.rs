//! One row of the root's table: a child's state and what the root holds for it.

use super::park::Parking;
use super::reload::Next;
use crate::backend::{Backend, ChildHandle, ReadySource};
use crate::clock::{Clock, TimerId};
use crate::ledger::Mark;
use crate::messages::{ModuleMsg, Spawned, Watch};
use crate::pump::StreamStats;
use crate::view::{GroupView, HealthView, View};
use lair_manifests::launch::LaunchPlan;
use lair_supervision::exposure::Exposure;
use lair_supervision::{Child, ChildEvent, ChildId, Origin, Phase, StartFault, TimerKind};
use ractor::{ActorId, ActorRef};
use std::collections::HashMap;
use std::sync::Arc;

/// How long the proof that a log can be written holds, in milliseconds of the wall clock.
const LOG_PROOF_MS: u64 = 10_000;

/// What the root knows and holds of one module.
pub(super) struct Managed {
    pub plan: Arc<LaunchPlan>,
    /// What was asked for since it runs, and needs a new run.
    pub next: Option<Next>,
    pub child: Child,
    pub backend: Arc<dyn Backend>,
    pub owner: Option<(u64, ActorRef<ModuleMsg>)>,
    pub handle: Option<Arc<dyn ChildHandle>>,
    pub ready: Option<ReadySource>,
    pub log: Option<Arc<StreamStats>>,
    /// The run before has just written its log: a restart need not ask whether it can be.
    pub log_proven: bool,
    pub health: HealthView,
    pub exposure: Exposure,
    pub group: Option<GroupView>,
    pub origin: Origin,
    /// Position in the order of starts, for the order of stops.
    pub started: u64,
    /// A start fault to deliver instead of the next start, with its label.
    pub fail_next: Option<(StartFault, String)>,
    /// Label of a fault whose effect on this incarnation is still to be seen.
    pub injected: Option<(u64, String)>,
    /// Label of a fault that keeps this incarnation's end from being known.
    pub blinded: Option<(u64, String)>,
    /// Label of a fault of the log that is not over.
    pub log_injected: Option<String>,
    /// Its current run was ready in an earlier life of the runtime.
    pub served: bool,
    /// What the ledger says of it.
    pub noted: Option<Mark>,
    /// Where it stood in an earlier life, until this one has gone on with it: a kill before that must not lose it.
    pub past: Option<Box<Mark>>,
    pub parking: Parking,
    timers: Vec<(TimerKind, TimerId)>,
    started_ms: Option<u64>,
    finished_ms: Option<u64>,
}

impl Managed {
    pub fn new(plan: Arc<LaunchPlan>, backend: Arc<dyn Backend>, base: u64) -> Self {
        Managed {
            plan,
            next: None,
            child: Child::loaded(base),
            backend,
            owner: None,
            handle: None,
            ready: None,
            log: None,
            log_proven: false,
            health: HealthView::default(),
            exposure: Exposure::default(),
            group: None,
            origin: Origin::Observed,
            started: 0,
            fail_next: None,
            injected: None,
            blinded: None,
            log_injected: None,
            served: false,
            noted: None,
            past: None,
            parking: Parking::default(),
            timers: Vec::new(),
            started_ms: None,
            finished_ms: None,
        }
    }

    pub fn replace(&mut self, plan: Arc<LaunchPlan>, backend: Arc<dyn Backend>) {
        self.plan = plan;
        self.next = None;
        self.backend = backend;
    }

    /// A run begins: what was known of the log and the times of the one before is not about this one.
    pub fn begins(&mut self, place: u64, wall_ms: u64) {
        let just_ended = self
            .finished_ms
            .is_some_and(|at| wall_ms.saturating_sub(at) < LOG_PROOF_MS);
        let wrote = |log: &Arc<StreamStats>| log.segments() > 0 && !log.degraded();
        self.log_proven = just_ended && self.log.as_ref().is_some_and(wrote);
        if let Some(Next { plan, backend }) = self.next.take() {
            self.replace(plan, backend);
        }
        self.started = place;
        self.exposure = Exposure::default();
        self.parking = Parking::default();
        self.log = None;
        self.started_ms = None;
        self.finished_ms = None;
    }

    pub fn came_up(&mut self, spawned: Spawned, wall_ms: u64) {
        self.handle = Some(spawned.handle);
        self.ready = spawned.ready;
        self.log = spawned.log;
        self.started_ms = Some(wall_ms);
        self.finished_ms = None;
    }

    /// The run is one of an earlier life: its beginning is not now.
    pub fn adopted(&mut self, log: Option<Arc<StreamStats>>, since_ms: u64) {
        self.log = log;
        self.started_ms = Some(since_ms);
        self.finished_ms = None;
    }

    /// When the current run came up.
    pub fn started_ms(&self) -> Option<u64> {
        self.started_ms
    }

    pub fn went_down(&mut self, wall_ms: u64) {
        self.handle = None;
        self.ready = None;
        self.served = false;
        self.parking = Parking::default();
        self.finished_ms = Some(wall_ms);
        self.health = HealthView::default();
        // What it was ended for stays to be seen.
        if self.exposure == Exposure::AsDeclared {
            self.exposure = Exposure::Unknown;
        }
    }

    /// The owner has made its last report: its end is no news.
    pub fn owner_done(&mut self, inc: u64, owners: &mut HashMap<ActorId, (ChildId, u64)>) {
        if let Some((_, owner)) = self.owner.take_if(|(of, _)| *of == inc) {
            owners.remove(&owner.get_id());
            owner.stop(None);
        }
    }

    pub fn owner_of(&self, inc: u64) -> Option<&ActorRef<ModuleMsg>> {
        self.owner
            .as_ref()
            .filter(|(of, _)| *of == inc)
            .map(|(_, owner)| owner)
    }

    /// Is the owner of this incarnation alive, as far as was heard?
    pub fn is_owned(&self, inc: u64, owners: &HashMap<ActorId, (ChildId, u64)>) -> bool {
        let owner = self.owner_of(inc);
        owner.is_some_and(|owner| owners.contains_key(&owner.get_id()))
    }

    /// Why what is reported now happened; `None`: for the reason of what led to it (a stop that was asked for).
    pub fn origin_of(&mut self, inc: u64, event: &ChildEvent) -> Option<Origin> {
        let ends = matches!(
            event,
            ChildEvent::Exited { .. } | ChildEvent::SpawnFailed { .. }
        );
        let troubles = matches!(
            event,
            ChildEvent::LostReadiness
                | ChildEvent::LivenessFailed { .. }
                | ChildEvent::Stalled
                | ChildEvent::Exposed
                | ChildEvent::OwnerDied
                | ChildEvent::Deadline(TimerKind::Start | TimerKind::Readiness)
        );
        if !ends && !troubles && !matches!(event, ChildEvent::Spawned { .. }) {
            return None;
        }
        if let Some((_, label)) = self.injected.as_ref().filter(|(of, _)| *of == inc) {
            let label = label.clone();
            if ends {
                self.injected = None;
            }
            return Some(Origin::Injected { label });
        }
        let unknown = matches!(
            event,
            ChildEvent::Exited {
                status: lair_supervision::ExitStatus::Unknown,
                ..
            }
        );
        if let Some((_, label)) = self.blinded.take_if(|(of, _)| *of == inc && unknown) {
            return Some(Origin::Injected { label });
        }
        let unasked = match self.child.phase {
            Phase::Up { .. } => ends || troubles,
            Phase::Spawning { abort: None, .. } => troubles,
            Phase::Spawning { .. }
            | Phase::Down(_)
            | Phase::Stopping { .. }
            | Phase::Waiting { .. } => false,
        };
        unasked.then_some(Origin::Observed)
    }

    pub fn arm(&mut self, clock: &dyn Clock, timer: TimerKind, id: TimerId) {
        self.cancel(clock, timer);
        self.timers.push((timer, id));
    }

    pub fn cancel(&mut self, clock: &dyn Clock, timer: TimerKind) {
        self.timers.retain(|(kind, id)| {
            if *kind == timer {
                clock.cancel(*id);
            }
            *kind != timer
        });
    }

    pub fn forget_timer(&mut self, timer: TimerKind) {
        self.timers.retain(|(kind, _)| *kind != timer);
    }

    pub fn watch(&self) -> Option<Watch> {
        let ready = self.ready.as_ref().and_then(|r| r.try_clone().ok());
        Some(Watch {
            id: self.plan.spec.id.clone(),
            inc: self.child.inc,
            plan: self.plan.clone(),
            handle: self.handle.clone()?,
            ready,
            served: self.served,
        })
    }

    pub fn view(&self) -> View {
        View {
            backend: self.backend.name(),
            plan: self.plan.clone(),
            child: self.child.clone(),
            group: self.group.clone(),
            next_start: self
                .next
                .as_ref()
                .map_or_else(Vec::new, |next| self.plan.difference(&next.plan).next_start),
            health: self.health.clone(),
            exposure: self.exposure.clone(),
            handle: self.handle.clone(),
            parked_ms: self.parking.since_ms,
            log: self.log.clone(),
            origin: self.origin.clone(),
            started_ms: self.started_ms,
            finished_ms: self.finished_ms,
        }
    }
}
