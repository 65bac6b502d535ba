//! What can happen to a child, and what is known about how it ended.

use crate::child::ChildIdentity;
use crate::effect::TimerKind;
use crate::spec::ProbeKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Why something happened: seen in the world, asked for, or caused by the fault gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The world did it.
    #[default]
    Observed,
    /// Somebody asked for it; `peer` says who (`uid 0`, `host`, ...).
    Requested {
        /// Who asked.
        peer: String,
    },
    /// The fault gate did it.
    Injected {
        /// The label given with the fault.
        label: String,
    },
}

/// How a process ended. Never invented: `Unknown` is a truthful answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody could tell.
    Unknown,
}

/// Yes, no, or nobody could tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tri {
    /// Seen.
    Yes,
    /// Seen not to be.
    No,
    /// Could not be seen.
    #[default]
    Unknown,
}

/// Why an exit status is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExitEvidence {
    /// Did the kernel's OOM killer do it?
    pub oom: Tri,
    /// Did it dump core?
    pub core: Option<bool>,
    /// The last signal that lair itself sent to it, if any.
    pub by_us: Option<i32>,
    /// What is left of the module after its end (`pid 17 nginx`, `port 8080`); empty means verified gone.
    pub leftover: Vec<String>,
    /// Bytes of output that could not be kept.
    pub log_dropped: u64,
}

/// At which step a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStage {
    /// Finding or pulling the image.
    ResolveImage,
    /// Creating the container, the process or its pipes.
    Create,
    /// Opening the log files.
    OpenLogs,
    /// Making or checking folders.
    PrepareDirs,
    /// Joining cgroups, setting rlimits.
    EnterLimits,
    /// Changing to the working directory.
    ChangeDir,
    /// Changing user, groups, capabilities.
    DropPrivileges,
    /// execve(2).
    Exec,
    /// Starting the created container.
    Start,
    /// Learning the identity of what was started.
    Identify,
}

/// Why a start failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StartFault {
    /// The step.
    pub stage: StartStage,
    /// The system's error number, if there was one.
    pub errno: Option<i32>,
    /// One sentence, without trailing period.
    pub message: String,
    /// Whether trying again can help (busy, out of descriptors) or not (no such file).
    pub transient: bool,
}

/// What can happen to a child. `inc` (the incarnation) travels beside it: see `decide`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildEvent {
    /// Someone wants it up.
    StartRequested,
    /// Someone wants it down, within `grace` if given, else the spec's.
    StopRequested {
        /// Overrides the spec's grace period.
        grace: Option<Duration>,
    },
    /// Someone wants it down now.
    KillRequested,
    /// Someone wants a new incarnation.
    RestartRequested {
        /// Overrides the spec's grace period.
        grace: Option<Duration>,
    },
    /// The runtime is shutting down.
    ShutdownRequested {
        /// Overrides the spec's grace period.
        grace: Option<Duration>,
    },
    /// Someone wants it held still; what can hold it does so after this is accepted.
    FreezeRequested,
    /// Someone wants it to go on.
    ThawRequested,
    /// A live child of an earlier life of the runtime was found.
    Adopted {
        /// Its incarnation, kept.
        inc: u64,
        /// Who it is.
        identity: ChildIdentity,
    },
    /// The backend has it running.
    Spawned {
        /// Who it is.
        identity: ChildIdentity,
    },
    /// The backend could not start it; nothing is left of the attempt.
    SpawnFailed {
        /// Why.
        fault: StartFault,
    },
    /// Its question was answered: it serves.
    BecameReady,
    /// It no longer serves.
    LostReadiness,
    /// A probe's failure threshold was reached and the spec says restart.
    LivenessFailed {
        /// Which probe.
        kind: ProbeKind,
    },
    /// The startup probe saw no progress for its stall time.
    Stalled,
    /// It listens where it must not, and is to be stopped for that.
    Exposed,
    /// It ended; its output is drained.
    Exited {
        /// How.
        status: ExitStatus,
        /// Why that is believed.
        evidence: ExitEvidence,
    },
    /// It can't be observed for now.
    SightLost,
    /// It can be observed again.
    SightRegained,
    /// The actor that owned it died without a report.
    OwnerDied,
    /// Its group wants it down until it is released. Never sent while it is being started or stopped.
    Held,
    /// Its group lets it start, after this time.
    Released {
        /// Zero means at once.
        after: Duration,
    },
    /// Its group gives up. Never sent while it is being started or stopped.
    GivenUp {
        /// It was this child's failure that spent the budget: restarts, window.
        own: Option<(u32, Duration)>,
    },
    /// A timer that was armed for it fired.
    Deadline(TimerKind),
}
