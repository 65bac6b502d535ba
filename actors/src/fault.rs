//! Fault injection: what may be broken on purpose, behind a gate.
//!
//! Owns: the words of the faults. Promises: real faults act on the world and are then observed like any other; scripted
//! events are for simulated children only, so that state and reality can't differ. Never: acts by itself; the root does,
//! if its gate is open.

use lair_supervision::ChildId;
use serde::{Deserialize, Serialize};

/// Something bad to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Send a signal to a child's leader, as a stranger would.
    CrashChild {
        /// Whose.
        id: ChildId,
        /// Which.
        signal: i32,
    },
    /// Stop a child's whole tree (STOP), until it is resumed.
    PauseChild {
        /// Whose.
        id: ChildId,
        /// Resume it by itself after this long.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// Let a paused child's tree go on (CONT).
    ResumeChild {
        /// Whose.
        id: ChildId,
    },
    /// Let the next start of a module fail at this stage.
    FailNextSpawn {
        /// Whose.
        id: ChildId,
        /// Where.
        stage: lair_supervision::StartStage,
        /// The system's error number.
        errno: i32,
    },
    /// Let the next writes of a module's log fail.
    FailLogWrites {
        /// Whose.
        id: ChildId,
        /// The system's error number.
        errno: i32,
        /// How many.
        count: u64,
    },
    /// Keep nothing more of a stream: what comes is read, dropped and counted.
    CloseStream {
        /// Whose.
        id: ChildId,
        /// Which.
        stream: FaultStream,
    },
    /// Panic in an actor.
    PanicActor {
        /// Which.
        which: ActorKind,
        /// Whose, for a module actor.
        #[serde(default)]
        id: Option<ChildId>,
    },
    /// Keep an actor from doing anything for a time.
    StallActor {
        /// Which.
        which: ActorKind,
        /// Whose, for a module actor.
        #[serde(default)]
        id: Option<ChildId>,
        /// How long.
        for_ms: u64,
    },
    /// KILL the keeper, the parent of all native children.
    KillKeeper,
    /// Lose the container engine for a time.
    DropEngine {
        /// How long.
        for_ms: u64,
    },
    /// Make an event of a simulated child up.
    Scripted {
        /// Whose.
        id: ChildId,
        /// What happens.
        event: ScriptedEvent,
    },
}

/// The actors that can be hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The owner of one incarnation.
    Module,
    /// The owner of the log files.
    Log,
    /// The pump behind the log files.
    Pump,
    /// The prober.
    Health,
    /// The root.
    Root,
}

/// A stream of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What may be made up of a simulated child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScriptedEvent {
    /// It ends with this code.
    Exits {
        /// The exit code.
        code: i32,
    },
    /// A signal ends it.
    Dies {
        /// The signal.
        signal: i32,
    },
    /// It serves now.
    BecomesReady,
    /// It serves no longer.
    LosesReadiness,
    /// Its liveness probe has failed too often.
    FailsLiveness,
}

impl Fault {
    /// Whose child it is about, if it is about one.
    #[must_use]
    pub fn child(&self) -> Option<&ChildId> {
        match self {
            Fault::CrashChild { id, .. }
            | Fault::PauseChild { id, .. }
            | Fault::ResumeChild { id }
            | Fault::FailNextSpawn { id, .. }
            | Fault::FailLogWrites { id, .. }
            | Fault::CloseStream { id, .. }
            | Fault::Scripted { id, .. } => Some(id),
            Fault::PanicActor { id, .. } | Fault::StallActor { id, .. } => id.as_ref(),
            Fault::KillKeeper | Fault::DropEngine { .. } => None,
        }
    }
}
