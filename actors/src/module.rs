//! The owner of one incarnation: its container, process or scripted child.
//!
//! Owns: the grip on one child from `Launch` to the report of its end. Promises: reports `Spawned` before `Exited`,
//! each at most once, and `Exited` only after the output is in the files or was given up with a count. Never: waits in
//! a handler, or decides. The root stops it on its last report: stopping by itself, its end would overtake the report
//! (supervision events go before messages).

use crate::backend::{Backend, ChildExit, ChildHandle, StartOrder, Started, is_transient};
use crate::files::LogFault;
use crate::messages::{ModuleMsg, ModuleReport, RootMsg, Spawned};
use crate::pump::{self, Drained, Pump, StreamKey, StreamStats};
use crate::undertaker::Birth;
use crate::vram::Vram;
use lair_manifests::launch;
use lair_supervision::{StartFault, StartStage};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How long output is read after a child's end before it is given up with a count.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// The behaviour; all data is in [`ModuleState`].
pub struct ModuleActor;

/// A child that runs already: the grip on it, and the counters of its log if its streams could be taken.
pub type Found = (Arc<dyn ChildHandle>, Option<Arc<StreamStats>>);

/// What a module actor is started with.
pub struct ModuleArgs {
    /// What to start.
    pub order: StartOrder,
    /// With what.
    pub backend: Arc<dyn Backend>,
    /// To whom it reports.
    pub root: ActorRef<RootMsg>,
    /// What keeps its output.
    pub pump: Pump,
    /// What of it is on GPUs; `None`: it has none.
    pub(crate) vram: Option<Vram>,
    /// Its log is known to be writable.
    pub log_proven: bool,
    /// It runs already and its streams are taken: a child of an earlier life.
    pub found: Option<Found>,
}

/// One incarnation.
pub struct ModuleState {
    args: ModuleArgs,
    start: Option<tokio::task::AbortHandle>,
    handle: Option<Arc<dyn ChildHandle>>,
    exit: Option<ChildExit>,
    log: Option<Arc<StreamStats>>,
}

impl Actor for ModuleActor {
    type Msg = ModuleMsg;
    type State = ModuleState;
    type Arguments = ModuleArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ModuleMsg>,
        args: ModuleArgs,
    ) -> Result<ModuleState, ActorProcessingErr> {
        myself.cast(ModuleMsg::Launch)?;
        Ok(ModuleState {
            args,
            start: None,
            handle: None,
            exit: None,
            log: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ModuleMsg>,
        msg: ModuleMsg,
        state: &mut ModuleState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            ModuleMsg::Launch => state.launch(&myself),
            ModuleMsg::Born(mut birth) => match birth.take() {
                Some(Ok(started)) => state.started(&myself, started),
                Some(Err(fault)) => state.report(ModuleReport::SpawnFailed { fault }),
                None => {}
            },
            ModuleMsg::Abort => state.abort(),
            ModuleMsg::Signal { signal, scope } => {
                if let Some(handle) = &state.handle {
                    handle.signal(signal, scope);
                }
            }
            ModuleMsg::Kill => {
                if let Some(handle) = &state.handle {
                    handle.kill();
                }
            }
            ModuleMsg::Exited(exit) => state.exited(&myself, exit),
            ModuleMsg::Sight(seen) if state.exit.is_none() && state.handle.is_some() => {
                state.report(ModuleReport::Sight(seen));
            }
            ModuleMsg::Sight(_) => {}
            ModuleMsg::Drained { dropped } => state.finish(dropped),
            ModuleMsg::Stall(until) => drop(until.await),
            ModuleMsg::Crash(label) => panic!("injected: {label}"),
        }
        Ok(())
    }
}

impl ModuleState {
    fn launch(&mut self, myself: &ActorRef<ModuleMsg>) {
        if let Some((handle, log)) = self.args.found.take() {
            self.log = log;
            return self.hold(myself, handle);
        }
        let (backend, order) = (self.args.backend.clone(), self.args.order.clone());
        let logs = self.check_logs();
        let start = async move {
            logs.await?;
            backend.start(order).await
        };
        let (owner, root) = (myself.clone(), self.args.root.clone());
        let (id, inc) = (self.args.order.id.clone(), self.args.order.inc);
        let pump = self.args.pump.clone();
        let task = tokio::spawn(async move {
            // Sent or not, taken or not: nobody else knows of this child until its owner does.
            let birth = Birth::new(start.await, pump, root, id, inc);
            let _ = owner.cast(ModuleMsg::Born(birth));
        });
        self.start = Some(task.abort_handle());
    }

    /// A module whose output could not be kept is not started.
    fn check_logs(&self) -> impl Future<Output = Result<(), StartFault>> + Send + use<> {
        let asked = (!self.args.log_proven).then(|| {
            let (tell, told) = oneshot::channel();
            let reply = move |checked| drop(tell.send(checked));
            self.args.pump.check(self.args.order.id.shared(), reply);
            told
        });
        async move {
            let Some(told) = asked else { return Ok(()) };
            match told.await {
                Ok(Err(fault)) => Err(log_fault(&fault)),
                // A pump that is gone is told of when the streams are handed over.
                Ok(Ok(())) | Err(_) => Ok(()),
            }
        }
    }

    fn started(&mut self, myself: &ActorRef<ModuleMsg>, started: Started) {
        let Started {
            identity,
            streams,
            ready,
            handle,
        } = started;
        let log = self.attach(streams);
        self.log.clone_from(&log);
        self.start = None;
        let sight = handle.sight();
        self.hold(myself, handle.clone());
        self.report(ModuleReport::Spawned(Box::new(Spawned {
            identity,
            handle,
            ready,
            log,
        })));
        if let Some(sight) = sight {
            tokio::spawn(pass_on_sight(sight, myself.clone()));
        }
    }

    fn hold(&mut self, myself: &ActorRef<ModuleMsg>, handle: Arc<dyn ChildHandle>) {
        let (owner, exit) = (myself.clone(), handle.exit());
        self.handle = Some(handle);
        let vram = self.args.vram.take();
        tokio::spawn(async move {
            let mut exit = exit.await;
            if let Some(vram) = vram {
                exit.leftover.extend(Box::pin(vram.left()).await);
            }
            let _ = owner.cast(ModuleMsg::Exited(exit));
        });
    }

    fn key(&self) -> StreamKey {
        StreamKey {
            module: self.args.order.id.shared(),
            run: self.args.order.inc,
        }
    }

    fn attach(&self, streams: crate::backend::Streams) -> Option<Arc<StreamStats>> {
        let streams = pump::Streams {
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let policy = policy(&self.args.order.plan.logs);
        match self.args.pump.attach(self.key(), policy, streams, false) {
            Ok(stats) => Some(stats),
            Err(fault) => {
                tracing::error!(module = %self.args.order.id, %fault, "its output is not kept");
                None
            }
        }
    }

    fn abort(&mut self) {
        if !self.args.backend.undoes_at_once() {
            let order = &self.args.order;
            return self.args.backend.give_up(&order.id, order.inc);
        }
        // Dropping the start's future undoes it; a start that has just finished is ended by its own messages.
        if let Some(task) = self.start.take().filter(|t| !t.is_finished()) {
            task.abort();
            self.report(ModuleReport::SpawnFailed {
                fault: StartFault {
                    stage: StartStage::Create,
                    errno: None,
                    message: "the start was given up before it finished".into(),
                    transient: true,
                },
            });
        }
    }

    fn exited(&mut self, myself: &ActorRef<ModuleMsg>, exit: ChildExit) {
        self.exit = Some(exit);
        // The ends of the streams are often read before the end of the process is known.
        if let Some(log) = self.log.as_ref().filter(|log| log.ended()) {
            return self.finish(log.dropped().bytes);
        }
        let owner = myself.clone();
        let reply = move |d: Drained| {
            let _ = owner.cast(ModuleMsg::Drained {
                dropped: d.dropped.bytes,
            });
        };
        if !self.args.pump.drain(self.key(), DRAIN_WITHIN, reply) {
            let _ = myself.cast(ModuleMsg::Drained { dropped: 0 });
        }
    }

    fn finish(&mut self, dropped: u64) {
        let Some(exit) = self.exit.take() else { return };
        let handle = self.handle.take();
        self.report(ModuleReport::exited(exit, dropped, handle));
    }

    fn report(&self, report: ModuleReport) {
        let (id, inc) = (self.args.order.id.clone(), self.args.order.inc);
        // Fails only when the root is gone, and with it everybody who would care.
        let _ = self.args.root.cast(RootMsg::Report { id, inc, report });
    }
}

/// Tells the owner each time that sight is lost or regained; ends with the owner.
async fn pass_on_sight(mut sight: watch::Receiver<bool>, owner: ActorRef<ModuleMsg>) {
    let mut told = true;
    loop {
        let seen = *sight.borrow_and_update();
        if seen != told {
            told = seen;
            if owner.cast(ModuleMsg::Sight(seen)).is_err() {
                return;
            }
        }
        let gone = owner.get_cell();
        tokio::select! {
            changed = sight.changed() => if changed.is_err() { return },
            () = stopped(&gone) => return,
        }
    }
}

async fn stopped(cell: &ractor::ActorCell) {
    let _ = cell.wait(None).await;
}

fn log_fault(fault: &LogFault) -> StartFault {
    let errno = match fault {
        LogFault::Io { errno, .. } => Some(*errno),
        _ => None,
    };
    StartFault {
        stage: StartStage::OpenLogs,
        errno,
        message: format!("cannot keep its output: {fault}"),
        transient: errno.is_some_and(is_transient),
    }
}

/// The manifest's words as the pump's.
pub(crate) fn policy(logs: &launch::LogPolicy) -> crate::files::LogPolicy {
    crate::files::LogPolicy {
        max_size: logs.max_size,
        max_files: usize::try_from(logs.max_files).unwrap_or(usize::MAX),
        max_age: logs.max_age,
        compress: logs.compress,
        format: match logs.format {
            launch::LogFormat::Cri => crate::files::LogFormat::Cri,
            launch::LogFormat::Raw => crate::files::LogFormat::Raw,
        },
    }
}
