//! What the actors say to each other. Owned data only; no log byte, no channel of bytes.

#![allow(
    missing_docs,
    reason = "fields are explained by the sentence of their message"
)]

use crate::backend::container::News;
use crate::backend::{ChildExit, ChildHandle, ReadySource};
use crate::fault::Fault;
use crate::ledger::Mark;
use crate::pump::StreamStats;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{
    Admission, ChildEvent, ChildId, ChildIdentity, DeniedReason, ExitEvidence, ExitStatus,
    Measured, NoticeKind, Origin, Seq, Shortage, StartFault, TimerKind,
};
use ractor::RpcReplyPort;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Asked of, and reported to, the root: the only writer of lifecycle state.
pub enum RootMsg {
    /// Make a module known; `base` is the highest run number already on disk, `mark` what an earlier life wrote down of
    /// it, which [`RootMsg::Adopt`] or [`RootMsg::GoOn`] will go on with.
    Load {
        plan: Arc<LaunchPlan>,
        base: u64,
        mark: Option<Mark>,
        origin: Origin,
        reply: RpcReplyPort<Result<Loaded, DeniedReason>>,
    },
    /// Forget a module that is down.
    Unload {
        id: ChildId,
        origin: Origin,
        reply: RpcReplyPort<Result<(), DeniedReason>>,
    },
    /// Start, stop, restart or kill: `event` is one of the `*Requested` events.
    Ask {
        id: ChildId,
        event: ChildEvent,
        origin: Origin,
        /// What was measured for the account, where a start is judged.
        measured: Measured,
        reply: RpcReplyPort<Answer>,
    },
    /// Stop everything; answered when all is down or the deadline has passed.
    Drain {
        within: Duration,
        origin: Origin,
        reply: RpcReplyPort<DrainReport>,
    },
    /// Take over a child of an earlier life; answered when it is up, `false` if it can't be.
    Adopt {
        id: ChildId,
        inc: u64,
        started: Box<crate::backend::Started>,
        mark: Option<crate::ledger::Mark>,
        reply: RpcReplyPort<bool>,
    },
    /// Go on with a module of an earlier life of which no child was found; answered when that is decided.
    GoOn {
        id: ChildId,
        mark: crate::ledger::Mark,
        reply: RpcReplyPort<()>,
    },
    /// A module is about to be parked or woken.
    ParkBegins {
        id: ChildId,
        inc: u64,
        reply: RpcReplyPort<Result<(), Unfit>>,
    },
    /// That is over: `Parked`, `Woke`, or nothing came of it.
    ParkEnds {
        id: ChildId,
        inc: u64,
        outcome: Option<NoticeKind>,
        origin: Origin,
        /// Gets the number of the newest notice.
        reply: Option<RpcReplyPort<Seq>>,
    },
    /// Does it still take messages?
    Ping { reply: RpcReplyPort<()> },
    /// Skip the rest of the grace in a drain under way.
    DrainNow,
    /// Do something bad on purpose.
    Inject {
        fault: Fault,
        label: String,
        reply: RpcReplyPort<Result<Seq, DeniedReason>>,
    },
    /// From a module actor, a start task or the undertaker.
    Report {
        id: ChildId,
        inc: u64,
        report: ModuleReport,
    },
    /// From the health actor.
    Health {
        id: ChildId,
        inc: u64,
        change: HealthReport,
    },
    /// From the watch over sockets: what it listens on, against what it declared.
    Exposure {
        id: ChildId,
        inc: u64,
        exposure: lair_supervision::exposure::Exposure,
    },
    /// From the clock.
    Timer {
        id: ChildId,
        inc: u64,
        timer: TimerKind,
    },
    /// From the log actor: a module's files can't be written, or can again.
    LogState {
        id: ChildId,
        inc: u64,
        fault: Option<String>,
        dropped: u64,
    },
    /// The drain's own deadline.
    DrainDeadline,
    /// From a container backend: something happened beside the module's life.
    News { id: ChildId, inc: u64, news: News },
    /// From those who learn: a run takes more, or less, than the module's version before did.
    FootprintChanged { id: ChildId, inc: u64, what: String },
    /// Tell observers what came of reading configuration and manifests again.
    Reloaded { report: String, origin: Origin },
}

/// Answer to [`RootMsg::Load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loaded {
    /// It is known now.
    New,
    /// Nothing of it ran, and it is replaced.
    Replaced,
    /// It runs, and all that changed holds from now on.
    Updated,
    /// It runs, and a part of what changed holds from its next start on.
    RestartNeeded,
    /// The same module was loaded already.
    Same,
}

/// Answer to [`RootMsg::Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What became of the request.
    pub admission: Admission,
    /// Number of the newest notice when it was answered.
    pub seq: Seq,
    /// Where it was denied as overcommitted: the sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortage: Option<Box<Shortage>>,
}

/// Why a module can't be parked or woken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It does not run, or no more as it did.
    NotRunning,
    /// That is being done already.
    Underway,
    /// It is held still.
    Frozen,
    /// It has not come up yet.
    ComingUp,
}

/// What a drain left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainReport {
    /// Modules that were up and are down.
    pub stopped: u64,
    /// Of these, killed after their grace.
    pub killed: Vec<ChildId>,
    /// Still there at the deadline.
    pub remaining: Vec<ChildId>,
    /// Each of them, in the order in which they were down; those that are still there last.
    pub modules: Vec<DrainedModule>,
}

/// What became of one module in a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrainedModule {
    /// Which.
    pub name: ChildId,
    /// Which run of it.
    pub run: u64,
    /// How it went.
    pub outcome: DrainOutcome,
    /// How its process ended, as in its log (`exited code=0`); empty: nothing of it ran, or it has not ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exit: String,
    /// Milliseconds from the begin of the drain until it was down, or until now.
    pub took_ms: u64,
}

/// How a module went down in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainOutcome {
    /// In its grace.
    Stopped,
    /// By KILL, after it.
    Killed,
    /// It is still there, or something of it.
    Remaining,
}

/// What happened to one incarnation, told to the root. `Spawned` comes before `Exited`.
pub enum ModuleReport {
    /// It runs.
    Spawned(Box<Spawned>),
    /// It could not be started; nothing is left.
    SpawnFailed { fault: StartFault },
    /// It ended; its output is in the files.
    Exited {
        status: ExitStatus,
        evidence: ExitEvidence,
        /// The grip on it, to be released once its end is noted; `None`: it has none any more.
        handle: Option<Arc<dyn ChildHandle>>,
    },
    /// It can be observed again, or no more.
    Sight(bool),
}

impl ModuleReport {
    /// The end of a child, with what of its output could not be kept.
    #[must_use]
    pub fn exited(exit: ChildExit, log_dropped: u64, handle: Option<Arc<dyn ChildHandle>>) -> Self {
        ModuleReport::Exited {
            handle,
            status: exit.status,
            evidence: ExitEvidence {
                oom: exit.oom,
                core: exit.core,
                by_us: exit.by_us,
                leftover: exit.leftover,
                log_dropped,
            },
        }
    }
}

/// A child that runs, as its owner reports it.
pub struct Spawned {
    /// Who it is.
    pub identity: ChildIdentity,
    /// The grip on it.
    pub handle: Arc<dyn ChildHandle>,
    /// Where it says that it is ready, where the launch has that.
    pub ready: Option<ReadySource>,
    /// Counters of its log; `None` if its streams could not be taken.
    pub log: Option<Arc<StreamStats>>,
}

/// What the health actor found.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthReport {
    /// An event for the core: BecameReady, LostReadiness, LivenessFailed or Stalled.
    Event(ChildEvent),
    /// A new verdict, to publish.
    Verdict(crate::view::HealthView),
}

/// Asked of, and reported to, one incarnation's owner.
pub enum ModuleMsg {
    /// Begin (sent to itself after start, so that `pre_start` can't block).
    Launch,
    /// The backend has it running, or could not start it.
    Born(crate::undertaker::Birth),
    /// Give the start up.
    Abort,
    /// Pass a signal on.
    Signal {
        signal: i32,
        scope: lair_supervision::Scope,
    },
    /// KILL the whole tree.
    Kill,
    /// From the watcher: it ended.
    Exited(ChildExit),
    /// From the backend: it can be observed again, or no more.
    Sight(bool),
    /// From the log actor: its output is in the files.
    Drained { dropped: u64 },
    /// Test seam.
    Crash(String),
    /// Fault injection: do nothing until this resolves.
    Stall(Stall),
}

/// Resolves when a stalled actor may go on.
pub type Stall = tokio::sync::oneshot::Receiver<()>;

/// Asked of the keeper of log files. Streams never pass through here: a module's owner hands them to the pump itself,
/// so that no descriptor is lost with a mailbox.
pub enum LogMsg {
    /// Write lair's own remark into a run's log.
    Remark { id: ChildId, inc: u64, text: String },
    /// The run is over and its remark written: close its files.
    Close { id: ChildId, inc: u64, failed: bool },
    /// Begin a new segment.
    Rotate { id: ChildId, inc: u64 },
    /// Test seam: panic in the actor, or in the pump.
    Crash { pump: bool, label: String },
    /// Fault injection: do nothing until this resolves.
    Stall(Stall),
}

/// Asked of the prober of everything.
pub enum HealthMsg {
    /// Begin to probe.
    Watch(Box<Watch>),
    /// Go on by a new plan.
    Revise(Box<Watch>),
    /// Stop until it is watched again; `why`, in a word. What was learnt of it is kept.
    Rest {
        id: ChildId,
        inc: u64,
        why: &'static str,
    },
    /// Stop; nothing more is reported of this incarnation.
    Unwatch { id: ChildId, inc: u64 },
    /// From a probe task.
    ProbeDone(Box<crate::health::ProbeDone>),
    /// From the clock: a probe is due, or progress must be looked at.
    Tick {
        id: ChildId,
        inc: u64,
        what: crate::health::Tick,
    },
    /// Test seam.
    Crash(String),
    /// Fault injection: do nothing until this resolves.
    Stall(Stall),
}

/// What the health actor needs to watch one incarnation.
pub struct Watch {
    /// The module.
    pub id: ChildId,
    /// The incarnation.
    pub inc: u64,
    /// Probes and thresholds.
    pub plan: Arc<LaunchPlan>,
    /// The grip on the child: for commands in its context and for its tree.
    pub handle: Arc<dyn ChildHandle>,
    /// Where the child says that it is ready, where the launch has that.
    pub ready: Option<ReadySource>,
    /// It was ready in an earlier life of the runtime: it is not asked again whether it has come up.
    pub served: bool,
}
