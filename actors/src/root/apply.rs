//! From events to decisions, and from decisions to casts.

use super::RootState;
use crate::backend::{ChildHandle, StartOrder};
use crate::dossier::Ended;
use crate::messages::{HealthMsg, LogMsg, ModuleMsg, ModuleReport, RootMsg};
use crate::module::{ModuleActor, ModuleArgs};
use crate::view::View;
use crate::vram::Vram;
use lair_supervision::{
    Admission, ChildEvent, ChildId, Effect, NoticeKind, Origin, Phase, StartFault, StartStage,
    TimerKind, Uptime, decide,
};
use ractor::Actor;
use std::sync::Arc;

/// Why the probes of a module rest, as its health tells.
const FROZEN: &str = "frozen";
/// The same of one that is parked.
pub(super) const PARKED: &str = "parked";

/// What one decision still asks for.
pub(super) struct Todo {
    /// When it was decided, which is the time of all that is told of it.
    at: Uptime,
    effects: Vec<(u64, Effect)>,
    origin: Origin,
    /// A run that begins with this, and why.
    begun: Option<(u64, Origin)>,
    answer: Option<Admission>,
}

impl RootState {
    /// Feeds one event to the core and does what it says. The answer is there for requests.
    pub(super) async fn step(
        &mut self,
        id: &ChildId,
        inc: Option<u64>,
        event: ChildEvent,
        origin: Option<Origin>,
    ) -> Option<Admission> {
        let todo = self.decide(id, inc, event, origin)?;
        self.follow_up(id, todo).await
    }

    /// Takes in what was reported of a run. One that has `ended` may be forgotten by whoever ran it once the ledger has
    /// its end: before, a kill of lair would leave nobody who knows of it.
    pub(super) async fn step_of(
        &mut self,
        id: &ChildId,
        inc: u64,
        event: ChildEvent,
        origin: Option<Origin>,
        ended: Option<Arc<dyn ChildHandle>>,
    ) {
        let todo = self.decide(id, Some(inc), event, origin);
        if let Some(handle) = ended {
            handle.release();
        }
        if let Some(todo) = todo {
            self.follow_up(id, todo).await;
        }
    }

    /// Feeds one event to many children: signals go out before anything else is done, so that the last child is not
    /// asked to stop only after all that is to be told of the others.
    pub(super) async fn step_all(&mut self, events: Vec<(ChildId, ChildEvent)>, origin: &Origin) {
        let mut todos = Vec::with_capacity(events.len());
        for (id, event) in events {
            let Some(mut todo) = self.decide(&id, None, event, Some(origin.clone())) else {
                continue;
            };
            todo.effects.retain(|(_, effect)| match effect {
                Effect::Signal { signal, scope } => {
                    self.signal(&id, *signal, *scope);
                    false
                }
                _ => true,
            });
            todos.push((id, todo));
        }
        for (id, todo) in todos {
            self.follow_up(&id, todo).await;
        }
    }

    /// The new state is taken; what is to be done about it is still to come.
    fn decide(
        &mut self,
        id: &ChildId,
        inc: Option<u64>,
        event: ChildEvent,
        origin: Option<Origin>,
    ) -> Option<Todo> {
        let now = self.now();
        let known = self.children.get_mut(id)?;
        let decision = decide::decide(&known.plan.spec, &known.child, inc, event, now);
        if let decide::Outcome::Ignored(why) = decision.outcome {
            tracing::debug!(module = %id, run = ?inc, ?why, "ignored an event");
        }
        let effects: Vec<(u64, Effect)> = decision
            .addressed()
            .map(|(inc, e)| (inc, e.clone()))
            .collect();
        let was_up = !known.child.is_down();
        let was_stopping = matches!(known.child.phase, Phase::Stopping { .. });
        let begins = decision.child.inc != known.child.inc;
        let renewed = begins && known.next.is_some();
        if begins {
            self.starts += 1;
            known.begins(self.starts, self.args.clock.wall_ms());
        }
        known.child = decision.child;
        if let Some(group) = &known.plan.group {
            self.groups.touch(&group.name);
        }
        match (was_up, !known.child.is_down()) {
            (false, true) => self.up += 1,
            (true, false) => self.up -= 1,
            (false, false) | (true, true) => {}
        }
        let moved = was_up == known.child.is_down();
        if renewed && let Some(ledger) = &mut self.args.ledger {
            ledger.loaded(&known.plan);
        }
        // Who had it stopped to be started again is why there is a next run, whatever became of the last one meanwhile.
        let begun = begins && was_stopping;
        let begun = begun.then(|| (known.child.inc, known.origin.clone()));
        if let Some(origin) = origin.filter(|_| decision.outcome == decide::Outcome::Changed) {
            known.origin = origin;
        }
        let origin = known.origin.clone();
        if let Some((_, asked)) = &begun {
            known.origin = asked.clone();
        }
        // The intent comes before the deed.
        self.note(id);
        if moved {
            self.settle_account(id);
        }
        Some(Todo {
            at: now,
            effects,
            origin,
            begun,
            answer: decision.answer,
        })
    }

    async fn follow_up(&mut self, id: &ChildId, todo: Todo) -> Option<Admission> {
        // Before anything is told or asked: who acts on an event finds at least the state it tells of.
        self.show(id);
        for (inc, effect) in todo.effects {
            let of_next = todo.begun.as_ref().filter(|(next, _)| *next == inc);
            let origin = of_next.map_or(&todo.origin, |(_, asked)| asked);
            self.apply(id, inc, effect, origin, todo.at).await;
        }
        todo.answer
    }

    async fn apply(&mut self, id: &ChildId, inc: u64, effect: Effect, origin: &Origin, at: Uptime) {
        match effect {
            Effect::Publish(kind) => {
                self.remark(id, inc, &kind);
                self.publish_at(at, id, inc, kind, origin.clone());
            }
            Effect::Spawn { inc } => self.spawn(id, inc).await,
            Effect::AbortSpawn => self.tell_owner(id, ModuleMsg::Abort),
            Effect::Signal { signal, scope } => self.signal(id, signal, scope),
            Effect::Kill => self.kill(id),
            Effect::Watch => self.watch(id),
            Effect::Rest => self.rest(id, inc, FROZEN),
            Effect::Unwatch => {
                let _ = self.health.cast(HealthMsg::Unwatch {
                    id: id.clone(),
                    inc,
                });
            }
            Effect::Arm { timer, at } => self.arm(id, timer, at),
            Effect::Cancel { timer } => {
                let clock = self.args.clock.clone();
                if let Some(known) = self.children.get_mut(id) {
                    known.cancel(&*clock, timer);
                }
            }
            Effect::Entomb => self.entomb(id),
            // The ledger is written with every change of state, before its effects; the streams of a survivor are
            // handed over before it is adopted.
            Effect::ConfirmLedger
            | Effect::EraseLedger
            | Effect::AttachLogs
            | Effect::LookAgain => {}
        }
    }

    /// What a reader of the log should find between the module's own lines.
    fn remark(&self, id: &ChildId, inc: u64, kind: &NoticeKind) {
        let text = match kind {
            NoticeKind::Running => match self.children.get(id).and_then(|k| k.child.identity()) {
                Some(identity) => format!(
                    "started run={inc} {}",
                    crate::status::identity_words(identity)
                ),
                None => format!("started run={inc}"),
            },
            NoticeKind::Stopping { cause } => {
                format!("stopping cause={}", crate::status::cause_word(*cause))
            }
            NoticeKind::Killing => {
                "killing: the grace period is over, or somebody asked".to_owned()
            }
            NoticeKind::Exited { status, evidence } => crate::status::exit_words(*status, evidence),
            _ => return,
        };
        let _ = self.log.cast(LogMsg::Remark {
            id: id.clone(),
            inc,
            text,
        });
        if let NoticeKind::Exited { status, .. } = kind {
            let failed = !matches!(status, lair_supervision::ExitStatus::Code(0));
            let _ = self.log.cast(LogMsg::Close {
                id: id.clone(),
                inc,
                failed,
            });
        }
    }

    async fn spawn(&mut self, id: &ChildId, inc: u64) {
        let Some(known) = self.children.get_mut(id) else {
            return;
        };
        if let Some((fault, label)) = known.fail_next.take() {
            known.injected = Some((inc, label));
            let report = ModuleReport::SpawnFailed { fault };
            let _ = self.me.cast(RootMsg::Report {
                id: id.clone(),
                inc,
                report,
            });
            return;
        }
        let args = ModuleArgs {
            order: StartOrder {
                id: id.clone(),
                inc,
                plan: known.plan.clone(),
            },
            backend: known.backend.clone(),
            root: self.me.clone(),
            pump: self.pump.clone(),
            vram: Vram::before(&known.plan, inc, &self.args.gpus, &self.args.clock),
            log_proven: known.log_proven,
            found: None,
        };
        match Actor::spawn_linked(None, ModuleActor, args, self.me.get_cell()).await {
            Ok((owner, _)) => {
                self.owners.insert(owner.get_id(), (id.clone(), inc));
                known.owner = Some((inc, owner));
            }
            Err(e) => {
                let fault = StartFault {
                    stage: StartStage::Create,
                    errno: None,
                    message: format!("no actor could be started for the module: {e}"),
                    transient: true,
                };
                let report = ModuleReport::SpawnFailed { fault };
                let _ = self.me.cast(RootMsg::Report {
                    id: id.clone(),
                    inc,
                    report,
                });
            }
        }
    }

    fn tell_owner(&self, id: &ChildId, msg: ModuleMsg) {
        let Some(known) = self.children.get(id) else {
            return;
        };
        if let Some(owner) = known.owner_of(known.child.inc) {
            let _ = owner.cast(msg);
        }
    }

    // The grip is shared with the owner, so a signal costs no hop; an owner that died changes nothing.
    fn signal(&self, id: &ChildId, signal: i32, scope: lair_supervision::Scope) {
        match self.children.get(id).and_then(|k| k.handle.as_ref()) {
            Some(handle) => handle.signal(signal, scope),
            None => self.tell_owner(id, ModuleMsg::Signal { signal, scope }),
        }
    }

    fn kill(&self, id: &ChildId) {
        match self.children.get(id).and_then(|k| k.handle.as_ref()) {
            Some(handle) => handle.kill(),
            None => self.tell_owner(id, ModuleMsg::Kill),
        }
    }

    pub(super) fn watch(&self, id: &ChildId) {
        let Some(known) = self.children.get(id) else {
            return;
        };
        if let Some(watch) = known.watch() {
            let _ = self.health.cast(HealthMsg::Watch(Box::new(watch)));
        }
        // Handed to a new health actor, or freed of one of two reasons to rest.
        if known.child.is_frozen() {
            self.rest(id, known.child.inc, FROZEN);
        } else if known.parking.rests() {
            self.rest(id, known.child.inc, PARKED);
        }
    }

    pub(super) fn rest(&self, id: &ChildId, inc: u64, why: &'static str) {
        let id = id.clone();
        let _ = self.health.cast(HealthMsg::Rest { id, inc, why });
    }

    /// What was unwatched while no health actor was there to hear it.
    pub(super) fn forget_unwatched(&self) {
        self.args.memory.retain(|id, inc| {
            let known = self.children.get(id).filter(|k| k.child.inc == inc);
            known.is_some_and(|k| matches!(k.child.phase, lair_supervision::Phase::Up { .. }))
        });
    }

    /// Hands every running child to a new health actor.
    pub(super) fn rewatch(&self) {
        for (id, known) in &self.children {
            if matches!(known.child.phase, lair_supervision::Phase::Up { .. }) {
                self.watch(id);
            }
        }
    }

    fn arm(&mut self, id: &ChildId, timer: TimerKind, at: Uptime) {
        let clock = self.args.clock.clone();
        let Some(known) = self.children.get_mut(id) else {
            return;
        };
        let (me, inc, of) = (self.me.clone(), known.child.inc, id.clone());
        let armed = clock.arm(
            at,
            Box::new(move || {
                let _ = me.cast(RootMsg::Timer { id: of, inc, timer });
            }),
        );
        known.arm(&*clock, timer, armed);
    }

    /// Hands a run that has ended to those who write down how.
    pub(super) fn keep_dossier(&self, id: &ChildId, run: u64, before: Option<Arc<View>>) {
        if let (Some(archive), Some(before)) = (&self.args.archive, before) {
            let after = self.args.board.get(id.as_str());
            // Its next run may have served before this one is written down.
            let ready = self.args.events.tally().served(id, run);
            archive.keep(Ended {
                run,
                before,
                after,
                ready,
            });
        }
    }

    pub(super) fn entomb(&mut self, id: &ChildId) {
        let Some(known) = self.children.get_mut(id) else {
            return;
        };
        if let Some(handle) = &known.handle {
            let (handle, pump) = (handle.clone(), self.pump.clone());
            crate::undertaker::bury(handle, pump, self.me.clone(), id.clone(), known.child.inc);
        }
        // Without a grip the start is still under way: its task finds its owner gone and buries what it made.
    }
}
