//! Whether a request is accepted, already satisfied, or denied: the closed set of answers (OTP's idea).

use crate::child::Child;
use serde::{Deserialize, Serialize};

/// What may be asked of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make it run.
    Start,
    /// Make it stop.
    Stop,
    /// Make it stop at once.
    Kill,
    /// New incarnation.
    Restart,
    /// Forget it.
    Unload,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// It is being done, for this incarnation.
    Accepted {
        /// The incarnation the request acts on or creates.
        inc: u64,
    },
    /// Nothing to do: `already up`, `already starting`, `already down`, `already stopping`.
    AlreadySatisfied {
        /// The incarnation it is about.
        inc: u64,
    },
    /// It will be done when the stop under way has ended.
    Deferred {
        /// The incarnation that will be created.
        inc: u64,
    },
    /// Not now, or not at all.
    Denied(DeniedReason),
}

/// Why a request was denied: the whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedReason {
    /// No module of that name is loaded.
    UnknownModule,
    /// It runs, or something is pending; stop it first.
    StillUp,
    /// It does not run.
    NotRunning,
    /// The runtime is shutting down.
    Draining,
    /// Too many modules, or too many starts at once.
    Busy,
    /// What it declares doesn't fit beside what is granted: see [`crate::account`].
    Overcommitted,
    /// The fault gate is closed.
    InjectionDisabled,
    /// The peer may not.
    NotPermitted,
    /// Nothing here can do that: a fault of an engine where there is none, a scripted event for a real process.
    Unsupported,
}

/// Whether a child may be forgotten: only when nothing runs and nothing is pending.
///
/// # Errors
/// `StillUp` otherwise.
pub fn unload(child: &Child) -> Result<(), DeniedReason> {
    if child.is_down() {
        Ok(())
    } else {
        Err(DeniedReason::StillUp)
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::child::{DownReason, Phase};
    use crate::time::Uptime;

    #[test]
    fn only_a_child_that_is_down_can_be_unloaded() {
        let mut child = Child::loaded(0);
        assert_eq!(unload(&child), Ok(()));
        child.phase = Phase::Waiting {
            until: Some(Uptime::ZERO),
            attempt: 1,
            after: Box::new(DownReason::NeverStarted),
        };
        assert_eq!(unload(&child), Err(DeniedReason::StillUp));
    }
}
