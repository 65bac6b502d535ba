//! The lines of a ledger.

use lair_supervision::{Child, ChildId, ChildIdentity, Desired, Phase, Seq, StopCause};
use serde::{Deserialize, Serialize};

/// Raised with every change that an older reader would misunderstand.
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub lair_ledger: u32,
    /// The boot in which it was written.
    pub boot: String,
    /// Under which names processes may run that are spoken of here.
    #[serde(default)]
    pub lives: Vec<String>,
}

impl Head {
    pub fn of(boot: String, lives: Vec<String>) -> Self {
        Head {
            lair_ledger: VERSION,
            boot,
            lives,
        }
    }
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Head(Head),
    Load {
        id: ChildId,
        plan: serde_json::Value,
    },
    Unload {
        id: ChildId,
    },
    Mark {
        id: ChildId,
        mark: Mark,
    },
    Seq {
        to: Seq,
    },
}

/// Where a module stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its current or last run.
    pub run: u64,
    /// What was being done with it.
    pub standing: Standing,
    /// It has been ready in this run.
    #[serde(default)]
    pub ready: bool,
    /// Who it is, where that is known.
    #[serde(default)]
    pub identity: Option<ChildIdentity>,
    /// Wall clock, ms: when the run came up.
    #[serde(default)]
    pub since_ms: u64,
    /// Wall clock, ms: since when it is parked, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_ms: Option<u64>,
}

/// What was being done with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing: it is down.
    Down,
    /// It is started.
    Starting,
    /// It runs.
    Up,
    /// It is stopped, as somebody wants it down.
    Stopping,
    /// It is stopped in order to be started again.
    Restarting,
    /// It waits for its restart.
    Waiting,
}

impl Mark {
    pub(crate) fn of(child: &Child, since_ms: u64, parked_ms: Option<u64>) -> Self {
        let standing = match (&child.phase, child.desired) {
            (Phase::Down(_), _) => Standing::Down,
            (Phase::Spawning { .. }, Desired::Up) => Standing::Starting,
            (Phase::Up { .. }, _) => Standing::Up,
            (Phase::Waiting { .. }, _) => Standing::Waiting,
            (Phase::Stopping { cause, .. }, Desired::Up) => match cause {
                StopCause::Requested
                | StopCause::Shutdown
                | StopCause::GroupGaveUp
                | StopCause::Exposed => Standing::Stopping,
                StopCause::Restart | StopCause::Group => Standing::Restarting,
                // Nobody asked: what follows its end is for the restart policy.
                StopCause::Unhealthy(_)
                | StopCause::NotReadyInTime
                | StopCause::StartTimedOut
                | StopCause::OwnerDied => Standing::Up,
            },
            (Phase::Spawning { .. } | Phase::Stopping { .. }, Desired::Down) => Standing::Stopping,
        };
        Mark {
            run: child.inc,
            standing,
            ready: child.was_ready,
            identity: child.identity().cloned(),
            since_ms,
            parked_ms,
        }
    }

    /// The end of that run was noted.
    #[must_use]
    pub fn is_past(&self, run: u64) -> bool {
        let over = matches!(self.standing, Standing::Down | Standing::Waiting);
        run < self.run || (over && run == self.run)
    }

    /// Says the same of the module, whenever that was.
    pub(crate) fn same(&self, other: &Mark) -> bool {
        (self.run, self.standing, self.ready, &self.identity)
            == (other.run, other.standing, other.ready, &other.identity)
            && self.parked_ms == other.parked_ms
    }
}
