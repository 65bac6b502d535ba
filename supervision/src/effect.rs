//! What the world should be asked to do.

use crate::notice::NoticeKind;
use crate::time::Uptime;
use serde::{Deserialize, Serialize};

/// Which timer of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// The start deadline.
    Start,
    /// The readiness deadline.
    Readiness,
    /// Proven stability: forget the restart history.
    Settle,
    /// The grace period.
    Grace,
    /// Proof of death after KILL.
    Kill,
    /// The delay before a restart.
    Backoff,
    /// Look again for a child out of sight.
    Resight,
}

/// Who of a child's tree is meant by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The process that was started.
    Leader,
    /// Its process group.
    Group,
    /// Everything that belongs to it.
    All,
}

/// One thing to do. Which incarnation it is meant for: see `Decision::addressed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Note the intent in the ledger, then start incarnation `inc`.
    Spawn {
        /// The new incarnation.
        inc: u64,
    },
    /// Give up the start under way, if it can still be.
    AbortSpawn,
    /// Write the identity into the ledger.
    ConfirmLedger,
    /// The ledger may forget it.
    EraseLedger,
    /// Send `signal` and CONT.
    Signal {
        /// The signal's number.
        signal: i32,
        /// To whom.
        scope: Scope,
    },
    /// Send KILL to everything that belongs to it.
    Kill,
    /// Begin to probe.
    Watch,
    /// Stop probing until it is watched again; what was learnt of this incarnation is kept.
    Rest,
    /// Stop probing; nothing of this incarnation is reported any more.
    Unwatch,
    /// Ask the backend whether a child out of sight is there; the answer is a report, or silence.
    LookAgain,
    /// Take over the streams of an adopted child.
    AttachLogs,
    /// Arm a timer; an armed one of the same kind is replaced.
    Arm {
        /// Which.
        timer: TimerKind,
        /// When it fires.
        at: Uptime,
    },
    /// Disarm a timer; none armed is fine.
    Cancel {
        /// Which.
        timer: TimerKind,
    },
    /// Hand what the dead owner left to the undertaker, which kills and confirms.
    Entomb,
    /// Tell observers.
    Publish(NoticeKind),
}
