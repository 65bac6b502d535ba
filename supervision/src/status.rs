//! The lifecycle part of status, derived from a child and its spec, never stored.
//!
//! Owns: the words people and programs see: states, reason codes, sentences. Promises: a requested stop is never
//! called a crash; what could not be seen is said to be unknown; codes are stable. Never: holds state of its own.

use crate::child::{Child, Desired, DownReason, LastExit, Phase, Readiness, Sight, StopCause};
use crate::event::{ExitStatus, StartFault, StartStage, Tri};
use crate::spec::ProbeKind;
use crate::time::Uptime;
use serde::{Deserialize, Serialize};

/// A module's state: LocalAIStack's five words, and the one they lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The backend is starting it.
    Starting,
    /// It runs.
    Running,
    /// It was told to stop.
    Stopping,
    /// Nothing runs: never started, asked to stop, or ended with success.
    Stopped,
    /// Nothing runs, and that is not as it should be; the reason says why.
    Failed,
    /// It will be started again.
    Backoff,
}

/// Why a module is in its state: the stable set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// It never ran; see stage and errno.
    StartFailed,
    /// The start took too long.
    StartTimedOut,
    /// It ended by itself, with failure.
    Crashed,
    /// A probe failed.
    Unhealthy,
    /// It did not become ready in time.
    NotReadyInTime,
    /// It listened where it must not.
    ExposureViolated,
    /// The restart budget is used up.
    GaveUp,
    /// Something of it outlived its end.
    StopIncomplete,
    /// lair itself failed here.
    Internal,
    /// Another of its group failed, and it is, or was, stopped with it.
    GroupRestart,
    /// Its group's restart budget is used up.
    GroupGaveUp,
    /// A note: it stopped as asked, but only through KILL.
    KilledAfterGrace,
    /// A note: it can't be observed for now.
    OutOfSight,
}

/// Why a module is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// One sentence for people, without trailing period.
    pub message: String,
    /// The step that failed, if the start did.
    pub stage: Option<StartStage>,
    /// The system's error number, if there was one.
    pub errno: Option<i32>,
}

/// How the last life of the current run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, if it returned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Nobody could tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// Did the kernel's OOM killer do it? `None`: could not be seen.
    pub oom: Option<bool>,
    /// Did it dump core? `None`: could not be seen.
    pub core: Option<bool>,
    /// The last signal lair itself sent.
    pub by_us: Option<i32>,
    /// When.
    pub at: Uptime,
    /// KILL was needed because the grace period ran out.
    pub killed_after_grace: bool,
    /// What is left of it; empty means verified gone.
    pub leftover: Vec<String>,
    /// Bytes of output that could not be kept.
    pub log_dropped: u64,
}

/// The lifecycle part of status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// The state.
    pub state: State,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// What was asked for.
    pub desired: Desired,
    /// Does it serve?
    pub ready: bool,
    /// Number of the current or last run; 0 if it never started.
    pub run: u64,
    /// Since when it runs, while it does.
    pub started_at: Option<Uptime>,
    /// When it will be started again, if it will.
    pub next_at: Option<Uptime>,
    /// Restarts since it was loaded or last started by request.
    pub restarts: u32,
    /// How the current run ended, once it has.
    pub exit: Option<Exit>,
}

impl Lifecycle {
    /// The status of `child`.
    #[must_use]
    pub fn of(child: &Child) -> Self {
        let exit = child.last_exit.as_ref().filter(|e| e.inc == child.inc);
        let (state, reason) = state_of(child, exit);
        Lifecycle {
            state,
            reason,
            desired: child.desired,
            ready: is_ready(&child.phase),
            run: child.inc,
            started_at: match child.phase {
                Phase::Up { since, .. } => Some(since),
                Phase::Down(_)
                | Phase::Spawning { .. }
                | Phase::Stopping { .. }
                | Phase::Waiting { .. } => None,
            },
            next_at: match child.phase {
                Phase::Waiting { until, .. } => until,
                Phase::Down(_)
                | Phase::Spawning { .. }
                | Phase::Up { .. }
                | Phase::Stopping { .. } => None,
            },
            restarts: child.history.total,
            exit: exit.map(Exit::of),
        }
    }
}

impl Exit {
    fn of(last: &LastExit) -> Self {
        let (code, signal) = match last.status {
            ExitStatus::Code(code) => (Some(code), None),
            ExitStatus::Signal(signal) => (None, Some(signal)),
            ExitStatus::Unknown => (None, None),
        };
        Exit {
            code,
            signal,
            unknown: last.status == ExitStatus::Unknown,
            oom: match last.evidence.oom {
                Tri::Yes => Some(true),
                Tri::No => Some(false),
                Tri::Unknown => None,
            },
            core: last.evidence.core,
            by_us: last.evidence.by_us,
            at: last.at,
            killed_after_grace: last.killed_after_grace,
            leftover: last.evidence.leftover.clone(),
            log_dropped: last.evidence.log_dropped,
        }
    }
}

fn is_ready(phase: &Phase) -> bool {
    match phase {
        Phase::Up { readiness, .. } => match readiness {
            Readiness::Ready { .. } => true,
            Readiness::Awaiting { .. } | Readiness::NotReady { .. } => false,
        },
        Phase::Down(_)
        | Phase::Spawning { .. }
        | Phase::Stopping { .. }
        | Phase::Waiting { .. } => false,
    }
}

fn state_of(child: &Child, exit: Option<&LastExit>) -> (State, Option<Reason>) {
    match &child.phase {
        Phase::Down(reason) => down(reason, exit),
        // An aborted start is on its way down, whatever becomes of it.
        Phase::Spawning { .. } => match child.desired {
            Desired::Up => (State::Starting, None),
            Desired::Down => (State::Stopping, None),
        },
        Phase::Up { sight, .. } => (State::Running, out_of_sight(*sight)),
        Phase::Stopping { stuck: true, .. } => (
            State::Stopping,
            Some(reason(
                ReasonCode::StopIncomplete,
                "it outlived KILL and is not yet proven to be gone".to_owned(),
            )),
        ),
        Phase::Stopping { cause, sight, .. } => (
            State::Stopping,
            out_of_sight(*sight).or_else(|| stopped_for(*cause)),
        ),
        Phase::Waiting { after, .. } => (State::Backoff, failure(after, exit)),
    }
}

fn down(why: &DownReason, exit: Option<&LastExit>) -> (State, Option<Reason>) {
    if *why == DownReason::Group {
        let stopped = "it was stopped because another of its group failed, and its policy is not to start it again";
        return (
            State::Stopped,
            Some(reason(ReasonCode::GroupRestart, stopped.to_owned())),
        );
    }
    if let Some(failure) = failure(why, exit) {
        return (State::Failed, Some(failure));
    }
    let Some(exit) = exit else {
        return (State::Stopped, None);
    };
    if !exit.evidence.leftover.is_empty() {
        let left = exit.evidence.leftover.join(", ");
        let message = format!("it ended, but left behind {left}");
        return (
            State::Failed,
            Some(reason(ReasonCode::StopIncomplete, message)),
        );
    }
    let note = exit.killed_after_grace.then(|| {
        reason(
            ReasonCode::KilledAfterGrace,
            "it stopped as asked, but only through KILL after the grace period".to_owned(),
        )
    });
    (State::Stopped, note)
}

/// `None` if the end is as it should be.
fn failure(why: &DownReason, exit: Option<&LastExit>) -> Option<Reason> {
    let oom = exit.is_some_and(|e| e.evidence.oom == Tri::Yes);
    match why {
        DownReason::NeverStarted
        | DownReason::Requested
        | DownReason::ShutDown
        | DownReason::Completed(_) => None,
        DownReason::Crashed(status) => {
            let message = format!("it {}", ended(*status, oom));
            Some(reason(ReasonCode::Crashed, message))
        }
        DownReason::StartFailed(fault) => Some(start_failed(fault)),
        DownReason::StartTimedOut => stopped_for(StopCause::StartTimedOut),
        DownReason::Unhealthy(kind) => stopped_for(StopCause::Unhealthy(*kind)),
        DownReason::NotReadyInTime => stopped_for(StopCause::NotReadyInTime),
        DownReason::Exposed => stopped_for(StopCause::Exposed),
        DownReason::Internal => stopped_for(StopCause::OwnerDied),
        DownReason::Group => stopped_for(StopCause::Group),
        DownReason::GroupGaveUp => stopped_for(StopCause::GroupGaveUp),
        DownReason::GaveUp {
            restarts,
            within,
            last,
        } => {
            let times = if *restarts == 1 {
                "restart"
            } else {
                "restarts"
            };
            let last = ended(*last, oom);
            let message = format!("given up after {restarts} {times} within {within:?}: it {last}");
            Some(reason(ReasonCode::GaveUp, message))
        }
    }
}

fn stopped_for(cause: StopCause) -> Option<Reason> {
    let (code, message) = match cause {
        StopCause::Requested | StopCause::Restart | StopCause::Shutdown => return None,
        StopCause::Unhealthy(ProbeKind::Startup) => {
            (ReasonCode::Unhealthy, "its startup probe failed")
        }
        StopCause::Unhealthy(ProbeKind::Readiness) => {
            (ReasonCode::Unhealthy, "its readiness probe failed")
        }
        StopCause::Unhealthy(ProbeKind::Liveness) => {
            (ReasonCode::Unhealthy, "its liveness probe failed")
        }
        StopCause::NotReadyInTime => (
            ReasonCode::NotReadyInTime,
            "it did not become ready in time",
        ),
        StopCause::StartTimedOut => (
            ReasonCode::StartTimedOut,
            "its start did not finish in time and was undone",
        ),
        StopCause::Exposed => (
            ReasonCode::ExposureViolated,
            "it listened where it had not declared to, which is not allowed here",
        ),
        StopCause::Group => (
            ReasonCode::GroupRestart,
            "another of its group failed, and it is restarted with it",
        ),
        StopCause::GroupGaveUp => (ReasonCode::GroupGaveUp, "its group was given up"),
        StopCause::OwnerDied => (
            ReasonCode::Internal,
            "the part of lair that looked after it failed, so it was ended",
        ),
    };
    Some(reason(code, message.to_owned()))
}

fn out_of_sight(sight: Sight) -> Option<Reason> {
    match sight {
        Sight::Live => None,
        Sight::Lost { .. } => Some(reason(
            ReasonCode::OutOfSight,
            "it cannot be observed for now; what is shown is what was last known".to_owned(),
        )),
    }
}

fn start_failed(fault: &StartFault) -> Reason {
    Reason {
        code: ReasonCode::StartFailed,
        message: fault.message.clone(),
        stage: Some(fault.stage),
        errno: fault.errno,
    }
}

fn reason(code: ReasonCode, message: String) -> Reason {
    Reason {
        code,
        message,
        stage: None,
        errno: None,
    }
}

fn ended(status: ExitStatus, oom: bool) -> String {
    match status {
        ExitStatus::Code(code) if oom => {
            format!("exited with code {code} after part of it was killed for lack of memory")
        }
        ExitStatus::Code(code) => format!("exited with code {code}"),
        ExitStatus::Signal(_) if oom => "was killed for lack of memory".to_owned(),
        ExitStatus::Signal(signal) => match signal_name(signal) {
            Some(name) => format!("was ended by signal {signal} ({name})"),
            None => format!("was ended by signal {signal}"),
        },
        ExitStatus::Unknown => "ended, and nobody could tell how".to_owned(),
    }
}

/// The names that are the same on every Linux.
fn signal_name(signal: i32) -> Option<&'static str> {
    match signal {
        1 => Some("HUP"),
        2 => Some("INT"),
        3 => Some("QUIT"),
        4 => Some("ILL"),
        6 => Some("ABRT"),
        8 => Some("FPE"),
        9 => Some("KILL"),
        11 => Some("SEGV"),
        13 => Some("PIPE"),
        14 => Some("ALRM"),
        15 => Some("TERM"),
        _ => None,
    }
}

#[cfg(test)]
mod test;
