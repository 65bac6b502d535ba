//! What is known about one child. Status is derived from this and never stored beside it.

use crate::event::{ExitEvidence, ExitStatus, StartFault};
use crate::spec::ProbeKind;
use crate::time::Uptime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// What was asked for, as opposed to what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It should run.
    Up,
    /// It should not.
    Down,
}

/// Who a running child is, so that no stranger is ever taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildIdentity {
    /// A process of this machine.
    Native {
        /// Process id of the leader.
        pid: i32,
        /// Field 22 of proc_pid_stat(5), clock ticks since boot.
        start_ticks: u64,
    },
    /// A container.
    Container {
        /// The engine's id of it.
        engine_id: String,
        /// Its init process on this machine, where known.
        init_pid: Option<i32>,
    },
    /// A scripted child of the simulated backend.
    Sim {
        /// Number given by the backend.
        serial: u64,
    },
}

/// Whether an up child serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Not yet; `deadline` is when patience ends, if it does.
    Awaiting {
        /// When it has failed to become ready.
        deadline: Option<Uptime>,
    },
    /// It serves.
    Ready {
        /// Since when.
        since: Uptime,
    },
    /// It served and no longer does.
    NotReady {
        /// Since when.
        since: Uptime,
    },
}

/// Whether the child can be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// Yes.
    Live,
    /// No; unknown is not dead.
    Lost {
        /// Since when.
        since: Uptime,
    },
}

/// Why a child is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Somebody asked.
    Requested,
    /// Somebody asked for a new incarnation.
    Restart,
    /// The runtime is shutting down.
    Shutdown,
    /// This probe failed and the spec says restart.
    Unhealthy(ProbeKind),
    /// It did not become ready in time, or made no progress.
    NotReadyInTime,
    /// The backend did not finish the start in time.
    StartTimedOut,
    /// It listened where it must not.
    Exposed,
    /// The actor that owned it died.
    OwnerDied,
    /// Another of its group failed, and the strategy restarts this one too.
    Group,
    /// Its group was given up.
    GroupGaveUp,
}

/// Why a child is down.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownReason {
    /// Loaded, not yet started.
    NeverStarted,
    /// Somebody asked.
    Requested,
    /// The runtime shut down.
    ShutDown,
    /// It ended by itself, with success.
    Completed(ExitStatus),
    /// It ended by itself, with failure.
    Crashed(ExitStatus),
    /// It never ran.
    StartFailed(StartFault),
    /// The start took too long and was undone.
    StartTimedOut,
    /// A liveness probe failed and it was stopped for that.
    Unhealthy(ProbeKind),
    /// It did not become ready in time and was stopped for that.
    NotReadyInTime,
    /// It listened where it must not and was stopped for that.
    Exposed,
    /// The restart budget is used up.
    GaveUp {
        /// Restarts within the window.
        restarts: u32,
        /// The window.
        within: Duration,
        /// How the last one ended; `Unknown` if it did not start.
        last: ExitStatus,
    },
    /// lair itself failed here: the owner of the child died.
    Internal,
    /// Another of its group failed, and the strategy stopped this one too.
    Group,
    /// Its group was given up.
    GroupGaveUp,
}

/// One life: how and when it ended, for status and history.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LastExit {
    /// Which incarnation.
    pub inc: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// Why that is believed.
    pub evidence: ExitEvidence,
    /// When, since the runtime's start.
    pub at: Uptime,
    /// Was KILL needed because the grace period ran out?
    pub killed_after_grace: bool,
}

/// Where a child is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not running, nothing pending.
    Down(DownReason),
    /// The backend is starting it.
    Spawning {
        /// Since when.
        since: Uptime,
        /// When patience ends.
        deadline: Uptime,
        /// `AbortSpawn` was sent; if it comes up all the same, and is still unwanted, it gets this grace.
        abort: Option<Duration>,
    },
    /// It runs.
    Up {
        /// Since when.
        since: Uptime,
        /// Who it is.
        identity: ChildIdentity,
        /// Does it serve?
        readiness: Readiness,
        /// Can it be seen?
        sight: Sight,
        /// Since when it is held still, by request.
        frozen: Option<Uptime>,
    },
    /// It was told to stop, or is being killed.
    Stopping {
        /// Since when.
        since: Uptime,
        /// Why.
        cause: StopCause,
        /// When the next step (KILL, or the report that it is stuck) comes.
        deadline: Uptime,
        /// KILL was sent.
        killed: bool,
        /// The grace period ran out, which is why KILL was sent.
        grace_over: bool,
        /// It outlived KILL by the confirmation time.
        stuck: bool,
        /// Who it is, unless the stop came while it was being spawned.
        identity: Option<ChildIdentity>,
        /// Can it be seen?
        sight: Sight,
    },
    /// It will be started again.
    Waiting {
        /// When; `None`: when its group says so.
        until: Option<Uptime>,
        /// Failures in a row.
        attempt: u32,
        /// Why the last life ended, as it would read in status.
        after: Box<DownReason>,
    },
}

/// Restarts of the recent past: the input of the verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RestartHistory {
    /// When each counted restart was decided, oldest first; bounded by `intensity.max + 1`.
    pub at: VecDeque<Uptime>,
    /// Failures in a row since the child last settled: the exponent of the backoff.
    pub streak: u32,
    /// Restarts since it was loaded or last started by request, for status.
    pub total: u32,
}

/// Everything known about one child.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Child {
    /// Number of the current or last incarnation; 0 if it never started. The first is `base + 1`.
    pub inc: u64,
    /// What was asked for.
    pub desired: Desired,
    /// What is.
    pub phase: Phase,
    /// Restarts so far.
    pub history: RestartHistory,
    /// How the last life ended.
    pub last_exit: Option<LastExit>,
    /// Has it ever served in this incarnation? Without a startup or readiness question it serves once it runs.
    pub was_ready: bool,
    /// The runtime is shutting down: no row leads back to `Spawning`. An ordered shutdown sets it for all children
    /// at once, before the first of them is asked to stop.
    pub draining: bool,
    /// Reports of other incarnations that were ignored.
    pub stale: u64,
}

impl Child {
    /// A loaded child that never started; its first incarnation will be `base + 1` (runs already on disk are never overwritten).
    #[must_use]
    pub fn loaded(base: u64) -> Self {
        Child {
            inc: base,
            desired: Desired::Down,
            phase: Phase::Down(DownReason::NeverStarted),
            history: RestartHistory::default(),
            last_exit: None,
            was_ready: false,
            draining: false,
            stale: 0,
        }
    }

    /// Is it held still?
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        matches!(
            self.phase,
            Phase::Up {
                frozen: Some(_),
                ..
            }
        )
    }

    /// Is there nothing running and nothing pending?
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down(_))
    }

    /// Who the running child is, if it runs.
    #[must_use]
    pub fn identity(&self) -> Option<&ChildIdentity> {
        match &self.phase {
            Phase::Up { identity, .. } => Some(identity),
            Phase::Stopping { identity, .. } => identity.as_ref(),
            Phase::Down(_) | Phase::Spawning { .. } | Phase::Waiting { .. } => None,
        }
    }
}
