//! What observers are told, numbered.

use crate::child::{DownReason, StopCause};
use crate::event::{ExitEvidence, ExitStatus, Origin, StartFault};
use crate::spec::{ChildId, ProbeKind};
use crate::time::Uptime;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Number of a notice: 1, 2, 3, ... without holes, per life of the runtime.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// What happened to one child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// It is known now.
    Loaded,
    /// It is forgotten now.
    Unloaded,
    /// A new manifest was loaded while it runs.
    Changed {
        /// Parts that hold from now on.
        live: Vec<String>,
        /// Parts that hold from its next start on.
        next_start: Vec<String>,
    },
    /// The runtime has read its configuration and manifests again.
    Reloaded {
        /// What came of it, as a JSON object.
        report: String,
    },
    /// A start began.
    Starting,
    /// It runs (not: it serves).
    Running,
    /// It serves.
    Ready,
    /// It no longer serves.
    NotReady,
    /// Stable for long enough: the restart history is forgotten.
    Settled,
    /// It is held still from now on: its probes rest.
    Frozen,
    /// It goes on.
    Thawed,
    /// It was asked to let go of memory, and has answered.
    Parked {
        /// Bytes of memory that it holds less than before; below zero: more. `None`: unknown.
        freed: Option<i64>,
        /// The same of GPU memory.
        gpu_freed: Option<i64>,
        /// From the request until it let go of no more, milliseconds.
        took_ms: u64,
    },
    /// It was asked to take its memory again, and has answered.
    Woke {
        /// Does it serve, as it says when asked? `None`: it can't be asked.
        ready: Option<bool>,
        /// From the request until it served, milliseconds; until it answered, where it can't be asked.
        took_ms: u64,
    },
    /// It was told to stop.
    Stopping {
        /// Why.
        cause: StopCause,
    },
    /// KILL was sent: the grace period ran out, or somebody asked.
    Killing,
    /// It outlived KILL.
    Stuck,
    /// It can't be observed.
    SightLost,
    /// It can be observed again.
    SightRegained,
    /// It was found alive and taken back.
    Adopted,
    /// The start failed.
    StartFailed {
        /// Why.
        fault: StartFault,
    },
    /// It ended; its output is in the files.
    Exited {
        /// How.
        status: ExitStatus,
        /// Why that is believed.
        evidence: ExitEvidence,
    },
    /// Nothing runs and nothing is pending.
    Down {
        /// Why.
        reason: DownReason,
    },
    /// It will be started again.
    Backoff {
        /// After this time.
        delay: Duration,
        /// Failures in a row.
        attempt: u32,
    },
    /// It will be started again when its group says so.
    Held,
    /// It failed, and its group is restarted.
    GroupRestart {
        /// The group's name.
        group: String,
        /// Who is restarted, in the order of starts.
        members: Vec<ChildId>,
    },
    /// It failed once too often: its group rests as failed.
    GroupGaveUp {
        /// The group's name.
        group: String,
        /// One sentence.
        reason: String,
    },
    /// A health verdict changed: `healthy`, `unhealthy`, `unknown`.
    Health {
        /// The verdict.
        state: String,
        /// One sentence.
        reason: Option<String>,
        /// Which probe said so.
        probe: Option<ProbeKind>,
    },
    /// What it listens on was compared with what it declared: `as-declared`, `violated`, `unknown`.
    Exposure {
        /// The verdict.
        state: String,
        /// The sockets that were not declared.
        sockets: Vec<String>,
    },
    /// The log files can't be written; output is dropped and counted.
    LogDegraded {
        /// What is wrong.
        fault: String,
    },
    /// The log files can be written again.
    LogRecovered {
        /// Bytes that were dropped.
        dropped: u64,
    },
    /// A limit that was asked for does not hold.
    LimitNotEnforced {
        /// `memory cpus pids`.
        limit: String,
        /// What was asked for: bytes, thousandths of a CPU, processes and threads.
        asked: u64,
        /// Why.
        reason: String,
    },
    /// The mode that was preferred could not be taken.
    ModeFallback {
        /// The explanation's last line.
        reason: String,
    },
    /// Its image is being fetched.
    Pulling {
        /// One line of the engine's progress.
        progress: String,
    },
    /// Something of an earlier life was in the way and was removed.
    Reclaimed {
        /// What.
        what: String,
    },
    /// What was asked for and what the engine says is in force differ.
    Differs {
        /// One sentence each.
        what: Vec<String>,
    },
    /// It takes more, or less, than its version before did.
    FootprintChanged {
        /// The differences in words.
        what: String,
    },
    /// A fault was injected.
    Injected {
        /// What.
        fault: String,
    },
    /// The owner of the child died; the undertaker has it.
    OwnerDied,
}

/// A numbered public event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number.
    pub seq: Seq,
    /// When, since the runtime's start.
    pub at: Uptime,
    /// Wall clock, milliseconds since 1970-01-01 UTC, for display only.
    pub wall_ms: u64,
    /// Whose.
    pub id: ChildId,
    /// Of which incarnation (run).
    pub inc: u64,
    /// Why it happened.
    pub origin: Origin,
    /// What happened.
    pub kind: NoticeKind,
}
