//! The upper half of fault injection: what may be broken on purpose, behind a gate.

use lair_supervision::ChildId;
use serde::{Deserialize, Serialize};

/// Something bad to do. Real faults act on the world and are then observed like any other.
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
    /// Panic in an actor.
    PanicActor {
        /// Which.
        which: ActorKind,
        /// Whose, for a module actor.
        id: Option<ChildId>,
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
