//! The root actor: the only writer of lifecycle state, and the only caller of `decide`.
//!
//! Owns: every child's state, the actors beneath it, all notices. Promises: one event at a time, all effects of one
//! decision before the next event; every request is answered once; a child's failure, or its owner's panic, never ends
//! the root. Never: waits for a child, touches a process or a file.

mod admit;
mod adopt;
mod apply;
mod drain;
mod groups;
mod hearing;
mod inject;
mod park;
mod reload;
mod table;
mod unloaded;

use crate::backend::Backend;
use crate::clock::Clock;
use crate::dossier::Archive;
use crate::events::EventLog;
use crate::evidence::Evidence;
use crate::facts::{GpuDesk, Sampler};
use crate::health::{HealthActor, HealthArgs, HealthSink, Memory};
use crate::ledger::{Ledger, Mark};
use crate::log::{LogActor, LogArgs};
use crate::messages::{Answer, HealthMsg, HealthReport, Loaded, LogMsg, RootMsg};
use crate::pump::{KeptDesk, Pump, PumpEvent, PumpOptions};
use crate::view::Board;
use drain::Drain;
use groups::Groups;
use lair_manifests::launch::{Launch, LaunchPlan};
use lair_supervision::account::Rules;
use lair_supervision::{
    Account, ChildEvent, ChildId, DeniedReason, Notice, NoticeKind, Origin, Seq, Uptime,
};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use table::Managed;
use unloaded::Unloaded;

/// Modules known at once.
pub const MAX_MODULES: usize = 4096;

/// The backends of a runtime, by mode.
#[derive(Clone, Default)]
pub struct Backends {
    /// Runs processes of this machine.
    pub native: Option<Arc<dyn Backend>>,
    /// Runs containers, by the engine's name.
    pub container: BTreeMap<String, Arc<dyn Backend>>,
}

impl Backends {
    fn of(&self, plan: &LaunchPlan) -> Option<Arc<dyn Backend>> {
        match &plan.launch {
            Launch::Native(_) => self.native.clone(),
            Launch::Container(launch) => self.container.get(&launch.engine).cloned(),
        }
    }
}

/// What the root is started with.
pub struct RootArgs {
    /// Time and timers.
    pub clock: Arc<dyn Clock>,
    /// Where notices go.
    pub events: Arc<EventLog>,
    /// Where snapshots go.
    pub board: Arc<Board>,
    /// Where and how log bytes are kept.
    pub logs: PumpOptions,
    /// Where the pump's handle is put, for those who stop it at the end.
    pub pump: Arc<OnceLock<Pump>>,
    /// What runs modules.
    pub backends: Backends,
    /// What the trees use.
    pub sampler: Arc<Sampler>,
    /// What the health actor's lives have in common.
    pub memory: Arc<Memory>,
    /// What writes down how runs ended; none: nobody does.
    pub archive: Option<Arc<Archive>>,
    /// How memory is shared out.
    pub rules: Rules,
    /// What is on the GPUs.
    pub gpus: Arc<GpuDesk>,
    /// Seed of all jitter.
    pub seed: u64,
    /// Is the fault gate open?
    pub faults: bool,
    /// The desk of the log pump from which a kill takes nothing; `None`: one that goes with this process.
    pub desk: Option<KeptDesk>,
    /// What the next life must know; `None`: there is none.
    pub ledger: Option<Ledger>,
}

/// The behaviour; all data is in [`RootState`].
pub struct RootActor;

/// Everything the root knows.
pub struct RootState {
    args: RootArgs,
    pump: Pump,
    me: ActorRef<RootMsg>,
    log: ActorRef<LogMsg>,
    health: ActorRef<HealthMsg>,
    // In boxes: most nodes of a map are half empty, and what is known of a module is large.
    children: BTreeMap<ChildId, Box<Managed>>,
    owners: HashMap<ActorId, (ChildId, u64)>,
    starts: u64,
    unloaded: Unloaded,
    /// The time of the newest notice.
    told_at: Uptime,
    /// Children that are not down.
    up: usize,
    /// Fault injection: the root does nothing until this resolves.
    stalled: Option<crate::messages::Stall>,
    drain: Option<Drain>,
    groups: Groups,
}

struct Sink(ActorRef<RootMsg>);

impl HealthSink for Sink {
    fn report(&self, id: &ChildId, inc: u64, change: HealthReport) {
        let _ = self.0.cast(RootMsg::Health {
            id: id.clone(),
            inc,
            change,
        });
    }
}

impl Actor for RootActor {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArgs;

    async fn pre_start(
        &self,
        me: ActorRef<RootMsg>,
        mut args: RootArgs,
    ) -> Result<RootState, ActorProcessingErr> {
        let pump = start_pump(&me, &mut args)?;
        let log = spawn_log(&me, &pump).await?;
        let health = spawn_health(&me, &args, &pump).await?;
        let account = Account::new(args.rules.clone());
        args.board.with_account(|slot| *slot = account);
        Ok(RootState {
            args,
            pump,
            me,
            log,
            health,
            children: BTreeMap::new(),
            owners: HashMap::new(),
            starts: 0,
            unloaded: Unloaded::default(),
            told_at: Uptime::default(),
            up: 0,
            stalled: None,
            drain: None,
            groups: Groups::default(),
        })
    }

    async fn handle(
        &self,
        _me: ActorRef<RootMsg>,
        msg: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            RootMsg::Load {
                plan,
                base,
                mark,
                origin,
                reply,
            } => {
                let _ = reply.send(state.load(plan, (base, mark), origin));
            }
            RootMsg::Unload { id, origin, reply } => {
                let _ = reply.send(state.unload(&id, origin));
            }
            RootMsg::Ask {
                id,
                event,
                origin,
                measured,
                reply,
            } => {
                let (admission, shortage) = state.ask(&id, event, origin, &measured).await;
                let _ = reply.send(Answer {
                    admission,
                    seq: state.args.events.newest(),
                    shortage,
                });
            }
            RootMsg::Drain {
                within,
                origin,
                reply,
            } => state.begin_drain(within, origin, reply).await,
            RootMsg::Adopt {
                id,
                inc,
                started,
                mark,
                reply,
            } => {
                let adopted = state.adopt(&id, inc, *started, mark).await;
                state.gone_on(&id);
                let _ = reply.send(adopted);
            }
            RootMsg::GoOn { id, mark, reply } => {
                state.go_on_without(&id, mark).await;
                state.gone_on(&id);
                let _ = reply.send(());
            }
            RootMsg::ParkBegins { id, inc, reply } => {
                let _ = reply.send(state.park_begins(&id, inc));
            }
            RootMsg::ParkEnds {
                id,
                inc,
                outcome,
                origin,
                reply,
            } => {
                let newest = state.park_ends(&id, inc, outcome, origin);
                if let Some(reply) = reply {
                    let _ = reply.send(newest);
                }
            }
            RootMsg::Ping { reply } => {
                let _ = reply.send(());
            }
            RootMsg::DrainNow => state.hurry_drain().await,
            RootMsg::DrainDeadline => state.drain_deadline().await,
            RootMsg::Inject {
                fault,
                label,
                reply,
            } => {
                let answer = state.inject(fault, label).await;
                let _ = reply.send(answer);
                if let Some(until) = state.stalled.take() {
                    let _ = until.await;
                }
            }
            RootMsg::Report { id, inc, report } => state.report(&id, inc, report).await,
            RootMsg::Health { id, inc, change } => state.health(&id, inc, change).await,
            RootMsg::Exposure { id, inc, exposure } => state.exposed(&id, inc, exposure).await,
            RootMsg::Timer { id, inc, timer } => {
                if let Some(child) = state.children.get_mut(&id) {
                    child.forget_timer(timer);
                }
                state.hear(&id, inc, ChildEvent::Deadline(timer)).await;
            }
            RootMsg::LogState {
                id,
                inc,
                fault,
                dropped,
            } => state.log_state(&id, inc, fault, dropped),
            RootMsg::News { id, inc, news } => state.news(&id, inc, news),
            RootMsg::FootprintChanged { id, inc, what } => {
                let kind = NoticeKind::FootprintChanged { what };
                if state.children.contains_key(&id) {
                    state.publish_for(&id, inc, kind, Origin::Observed);
                }
            }
            RootMsg::Reloaded { report, origin } => {
                let kind = NoticeKind::Reloaded { report };
                state.publish(&ChildId::new("lair"), kind, origin);
            }
        }
        state.settle_groups().await;
        state.advance_drain().await;
        state.check_drain();
        Ok(())
    }

    async fn post_stop(
        &self,
        _me: ActorRef<RootMsg>,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(ledger) = state.args.ledger.as_mut().filter(|_| state.up == 0) {
            ledger.erase();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, _) => {
                state.actor_gone(cell.get_id(), None).await?
            }
            SupervisionEvent::ActorFailed(cell, why) => {
                state
                    .actor_gone(cell.get_id(), Some(why.to_string()))
                    .await?;
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        state.settle_groups().await;
        state.advance_drain().await;
        state.check_drain();
        Ok(())
    }
}

fn start_pump(me: &ActorRef<RootMsg>, args: &mut RootArgs) -> Result<Pump, ActorProcessingErr> {
    let root = me.clone();
    let sink = move |event| {
        let (key, fault, dropped) = match event {
            PumpEvent::Degraded { key, fault } => (key, Some(fault.to_string()), 0),
            PumpEvent::Recovered { key, tally } => (key, None, tally.bytes),
            PumpEvent::Ended { .. } => return,
            PumpEvent::Restarted { count } => {
                tracing::error!(count, "the log pump panicked and went on where it had been");
                return;
            }
        };
        let _ = root.cast(RootMsg::LogState {
            id: ChildId::new(&key.module),
            inc: key.run,
            fault,
            dropped,
        });
    };
    let pump = Pump::start_at(args.logs.clone(), args.desk.take(), sink)?;
    let _ = args.pump.set(pump.clone());
    Ok(pump)
}

async fn spawn_log(
    me: &ActorRef<RootMsg>,
    pump: &Pump,
) -> Result<ActorRef<LogMsg>, ActorProcessingErr> {
    let log = LogArgs { pump: pump.clone() };
    Ok(Actor::spawn_linked(None, LogActor, log, me.get_cell())
        .await?
        .0)
}

async fn spawn_health(
    me: &ActorRef<RootMsg>,
    args: &RootArgs,
    pump: &Pump,
) -> Result<ActorRef<HealthMsg>, ActorProcessingErr> {
    let health = HealthArgs {
        clock: args.clock.clone(),
        sink: Arc::new(Sink(me.clone())),
        sampler: args.sampler.clone(),
        gpus: Some(args.gpus.clone()),
        logs: Arc::new(Evidence {
            board: args.board.clone(),
            pump: pump.clone(),
        }),
        memory: args.memory.clone(),
        seed: args.seed,
    };
    Ok(
        Actor::spawn_linked(None, HealthActor, health, me.get_cell())
            .await?
            .0,
    )
}

impl RootState {
    fn load(
        &mut self,
        plan: Arc<LaunchPlan>,
        (base, mark): (u64, Option<Mark>),
        origin: Origin,
    ) -> Result<Loaded, DeniedReason> {
        if self.drain.is_some() {
            return Err(DeniedReason::Draining);
        }
        let id = plan.spec.id.clone();
        let backend = self
            .args
            .backends
            .of(&plan)
            .ok_or(DeniedReason::NotPermitted)?;
        let fallback = plan.fallback.clone();
        let full = self.children.len() >= MAX_MODULES;
        let (again, first) = ((plan.clone(), backend.clone()), (plan, backend));
        let reloaded = self.reload(&id, again.0, again.1, origin.clone());
        let outcome = match reloaded {
            Some(Loaded::Same) => return Ok(Loaded::Same),
            Some(outcome) => outcome,
            None if full => return Err(DeniedReason::Busy),
            None => {
                // What the log folder tells of the last run, it may not tell yet, or no more.
                let base = base.max(self.unloaded.last_run(&id));
                let mut known = Box::new(Managed::new(first.0, first.1, base));
                known.past = mark.map(Box::new);
                self.children.insert(id.clone(), known);
                self.join_group(&id);
                self.show(&id);
                self.publish(&id, NoticeKind::Loaded, origin.clone());
                Loaded::New
            }
        };
        self.keep_plan(&id);
        self.note(&id);
        if let Some(reason) = fallback {
            self.publish(&id, NoticeKind::ModeFallback { reason }, origin);
        }
        Ok(outcome)
    }

    fn unload(&mut self, id: &ChildId, origin: Origin) -> Result<(), DeniedReason> {
        let known = self.children.get(id).ok_or(DeniedReason::UnknownModule)?;
        if !known.child.is_down() {
            return Err(DeniedReason::StillUp);
        }
        let inc = known.child.inc;
        self.unloaded.remember(id, inc);
        self.children.remove(id);
        if let Some(ledger) = &mut self.args.ledger {
            ledger.unloaded(id);
        }
        self.leave_group(id);
        self.args.board.remove(id);
        self.settle_account(id);
        self.publish_for(id, inc, NoticeKind::Unloaded, origin);
        Ok(())
    }

    async fn actor_gone(
        &mut self,
        gone: ActorId,
        failure: Option<String>,
    ) -> Result<(), ActorProcessingErr> {
        if gone == self.log.get_id() {
            tracing::error!(
                why = failure.as_deref().unwrap_or("stopped"),
                "the log actor died; starting a new one"
            );
            self.log = spawn_log(&self.me, &self.pump).await?;
            self.close_logs();
        } else if gone == self.health.get_id() {
            tracing::error!(
                why = failure.as_deref().unwrap_or("stopped"),
                "the health actor died; starting a new one"
            );
            self.health = spawn_health(&self.me, &self.args, &self.pump).await?;
            self.forget_unwatched();
            self.rewatch();
        } else if let Some((id, inc)) = self.owners.remove(&gone) {
            tracing::error!(module = %id, run = inc, why = failure.as_deref().unwrap_or("stopped"), "a module's owner died");
            self.hear(&id, inc, ChildEvent::OwnerDied).await;
        }
        Ok(())
    }

    /// What the dead log actor had still to close, in case it was told so.
    fn close_logs(&self) {
        for (id, known) in self.children.iter().filter(|(_, k)| k.child.is_down()) {
            let (id, inc) = (id.clone(), known.child.inc);
            let failed = false;
            let _ = self.log.cast(LogMsg::Close { id, inc, failed });
        }
    }

    fn publish(&mut self, id: &ChildId, kind: NoticeKind, origin: Origin) -> Seq {
        let inc = self.children.get(id).map_or(0, |k| k.child.inc);
        self.publish_for(id, inc, kind, origin)
    }

    fn publish_for(&mut self, id: &ChildId, inc: u64, kind: NoticeKind, origin: Origin) -> Seq {
        self.publish_at(self.now(), id, inc, kind, origin)
    }

    /// As of a moment that has passed; what was told before stays before it.
    fn publish_at(
        &mut self,
        at: Uptime,
        id: &ChildId,
        inc: u64,
        kind: NoticeKind,
        origin: Origin,
    ) -> Seq {
        self.told_at = self.told_at.max(at);
        let seq = self.args.events.append(Notice {
            seq: Seq(0),
            at: self.told_at,
            wall_ms: self.args.clock.wall_ms(),
            id: id.clone(),
            inc,
            origin,
            kind,
        });
        if let Some(ledger) = &mut self.args.ledger {
            ledger.told(seq);
        }
        seq
    }

    fn show(&self, id: &ChildId) {
        if let Some(known) = self.children.get(id) {
            self.args.board.put(Arc::new(known.view()));
        }
    }

    fn now(&self) -> Uptime {
        self.args.clock.now()
    }
}
