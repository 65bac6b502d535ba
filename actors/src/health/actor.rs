//! The actor: one map, and messages in and out of it.

use super::memory::Memory;
use super::watched::Watched;
use super::{HealthSink, LogEvidence, ProbeDone, Tick, What};
use crate::clock::{Clock, Fire};
use crate::facts::{GpuDesk, Sampler};
use crate::messages::{HealthMsg, Watch};
use lair_supervision::{ChildId, Uptime};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The prober of everything.
pub struct HealthActor;

/// What it is started with. All of it may outlive the actor: give the same again to its next life, and send `Watch` for
/// every live module again.
#[derive(Clone)]
pub struct HealthArgs {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where findings go.
    pub sink: Arc<dyn HealthSink>,
    /// Where usage is read, for progress.
    pub sampler: Arc<Sampler>,
    /// Where GPUs are looked at; `None`: nowhere.
    pub gpus: Option<Arc<GpuDesk>>,
    /// Log bytes and lines.
    pub logs: Arc<dyn LogEvidence>,
    /// What earlier lives of the actor learnt.
    pub memory: Arc<Memory>,
    /// Seed of the jitter.
    pub seed: u64,
}

/// The actor's state.
pub struct State {
    context: Context,
    watched: BTreeMap<ChildId, Box<Watched>>,
}

/// What every watched module needs of its actor.
pub(super) struct Context {
    pub args: HealthArgs,
    pub me: ActorRef<HealthMsg>,
}

impl Context {
    pub fn now(&self) -> Uptime {
        self.args.clock.now()
    }

    /// A timer's message to this actor; lost if the actor is gone by then.
    pub fn tick(&self, id: &ChildId, inc: u64, what: What) -> Fire {
        let me = self.me.clone();
        let id = id.clone();
        Box::new(move || {
            let what = Tick(what);
            let _ = me.cast(HealthMsg::Tick { id, inc, what });
        })
    }
}

impl Actor for HealthActor {
    type Msg = HealthMsg;
    type State = State;
    type Arguments = HealthArgs;

    async fn pre_start(
        &self,
        me: ActorRef<HealthMsg>,
        args: HealthArgs,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State {
            context: Context { args, me },
            watched: BTreeMap::new(),
        })
    }

    async fn handle(
        &self,
        _me: ActorRef<HealthMsg>,
        message: HealthMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HealthMsg::Watch(watch) => state.watch(*watch),
            HealthMsg::Revise(watch) => state.revise(*watch),
            HealthMsg::Rest { id, inc, why } => state.rest(&id, inc, why),
            HealthMsg::Unwatch { id, inc } => state.unwatch(&id, inc),
            HealthMsg::ProbeDone(done) => state.done(*done),
            HealthMsg::Tick { id, inc, what } => state.tick(&id, inc, what.0),
            HealthMsg::Crash(why) => crash(&why),
            HealthMsg::Stall(until) => drop(until.await),
        }
        Ok(())
    }
}

#[expect(clippy::panic, reason = "the test seam's purpose")]
fn crash(why: &str) {
    panic!("{why}");
}

impl State {
    fn watch(&mut self, watch: Watch) {
        let id = watch.id.clone();
        if self
            .watched
            .get(&id)
            .is_some_and(|old| old.inc() > watch.inc)
        {
            return;
        }
        // The old one's timers and tasks end with it, before the new one's begin.
        self.watched.remove(&id);
        let watched = Box::new(Watched::begin(watch, &self.context));
        self.watched.insert(id, watched);
    }

    fn revise(&mut self, watch: Watch) {
        if let Some(old) = self.current(&watch.id, watch.inc) {
            old.stop_listening(&self.context);
            Watched::revise(&watch, &self.context);
            self.watch(watch);
        } else {
            // One that rests goes on under the new plan when it is watched again.
            Watched::revise(&watch, &self.context);
        }
    }

    fn rest(&mut self, id: &ChildId, inc: u64, why: &str) {
        if self.current(id, inc).is_some()
            && let Some(watched) = self.watched.remove(id)
        {
            watched.rest(why, &self.context);
        }
    }

    fn unwatch(&mut self, id: &ChildId, inc: u64) {
        self.context.args.memory.forget(id, inc);
        if self.current(id, inc).is_some()
            && let Some(watched) = self.watched.remove(id)
        {
            watched.end(&self.context);
        }
    }

    fn done(&mut self, done: ProbeDone) {
        if self.current(&done.id, done.inc).is_some()
            && let Some(watched) = self.watched.get_mut(&done.id)
        {
            watched.done(done.done, &self.context);
        }
    }

    fn tick(&mut self, id: &ChildId, inc: u64, what: What) {
        if self.current(id, inc).is_some()
            && let Some(watched) = self.watched.get_mut(id)
        {
            watched.tick(what, &self.context);
        }
    }

    fn current(&self, id: &ChildId, inc: u64) -> Option<&Watched> {
        let watched = self.watched.get(id).map(AsRef::as_ref);
        watched.filter(|watched: &&Watched| watched.inc() == inc)
    }
}
