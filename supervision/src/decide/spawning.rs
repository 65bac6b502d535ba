//! From `Spawning`: the backend is starting it.

use super::Ignored;
use super::turn::{Counted, Life, Stop, Turn};
use crate::child::{ChildIdentity, Desired, DownReason, Phase, Sight, StopCause};
use crate::effect::{Effect, TimerKind};
use crate::event::{ChildEvent, ExitStatus, StartFault};
use crate::notice::NoticeKind;
use std::time::Duration;

pub(super) fn on(turn: &mut Turn<'_>, event: ChildEvent) -> Counted {
    match event {
        ChildEvent::FreezeRequested | ChildEvent::ThawRequested => turn.denied_not_running(),
        ChildEvent::StartRequested | ChildEvent::RestartRequested { .. } => {
            if turn.child.draining {
                return turn.denied_draining();
            }
            turn.child.desired = Desired::Up;
            turn.satisfied()
        }
        ChildEvent::StopRequested { grace } => abort(turn, grace.unwrap_or(turn.spec.grace)),
        ChildEvent::KillRequested => abort(turn, Duration::ZERO),
        ChildEvent::ShutdownRequested { grace } => {
            turn.child.draining = true;
            abort(turn, grace.unwrap_or(turn.spec.grace))
        }
        ChildEvent::Spawned { identity } => spawned(turn, identity),
        ChildEvent::SpawnFailed { fault } => failed(turn, fault),
        ChildEvent::OwnerDied => owner_died(turn),
        ChildEvent::Deadline(TimerKind::Start) => timed_out(turn),
        ChildEvent::Deadline(
            TimerKind::Readiness
            | TimerKind::Settle
            | TimerKind::Grace
            | TimerKind::Kill
            | TimerKind::Backoff
            | TimerKind::Resight,
        ) => Err(Ignored::Stale),
        ChildEvent::Adopted { .. }
        | ChildEvent::BecameReady
        | ChildEvent::LostReadiness
        | ChildEvent::LivenessFailed { .. }
        | ChildEvent::Exposed
        | ChildEvent::Stalled
        | ChildEvent::Exited { .. }
        | ChildEvent::SightLost
        | ChildEvent::SightRegained
        | ChildEvent::Held
        | ChildEvent::Released { .. }
        | ChildEvent::GivenUp { .. } => Err(Ignored::Unexpected),
    }
}

/// The grace an aborted start would get, if it was aborted.
fn aborted(turn: &Turn<'_>) -> Option<Duration> {
    match &turn.child.phase {
        Phase::Spawning { abort, .. } => *abort,
        Phase::Down(_) | Phase::Up { .. } | Phase::Stopping { .. } | Phase::Waiting { .. } => None,
    }
}

fn abort(turn: &mut Turn<'_>, grace: Duration) -> Counted {
    let before = aborted(turn);
    let shorter = before.map_or(grace, |before| before.min(grace));
    if let Phase::Spawning { abort, .. } = &mut turn.child.phase {
        *abort = Some(shorter);
    }
    if before.is_none() {
        turn.push(Effect::AbortSpawn);
    }
    if turn.child.desired == Desired::Down && before == Some(shorter) {
        return turn.satisfied();
    }
    turn.child.desired = Desired::Down;
    turn.accepted()
}

fn spawned(turn: &mut Turn<'_>, identity: ChildIdentity) -> Counted {
    turn.push(Effect::ConfirmLedger);
    turn.cancel(TimerKind::Start);
    match turn.child.desired {
        Desired::Up => turn.up(identity),
        Desired::Down => {
            turn.publish(NoticeKind::Running);
            turn.stop(Stop {
                cause: turn.asked_cause(),
                grace: aborted(turn).unwrap_or(turn.spec.grace),
                identity: Some(identity),
                sight: Sight::Live,
            });
        }
    }
    Ok(())
}

fn failed(turn: &mut Turn<'_>, fault: StartFault) -> Counted {
    turn.cancel(TimerKind::Start);
    turn.push(Effect::EraseLedger);
    turn.publish(NoticeKind::StartFailed {
        fault: fault.clone(),
    });
    match turn.child.desired {
        Desired::Down => turn.down_as_asked(None),
        // Stopped and started again in the meantime: the failure is our own abort, and the start is still owed.
        Desired::Up if aborted(turn).is_some() => turn.spawn_as_asked(),
        Desired::Up if fault.transient => turn.judge(Life {
            status: ExitStatus::Unknown,
            cause: None,
            failed: true,
            reason: DownReason::StartFailed(fault),
            lived: false,
        }),
        Desired::Up => turn.down(DownReason::StartFailed(fault)),
    }
    Ok(())
}

/// What is left of the start must go, whether or not it came to something.
fn undo(turn: &mut Turn<'_>, cause: StopCause) {
    turn.child.phase = Phase::Stopping {
        since: turn.now,
        cause,
        deadline: turn.now,
        killed: false,
        grace_over: false,
        stuck: false,
        identity: None,
        sight: Sight::Live,
    };
    turn.publish(NoticeKind::Stopping { cause });
}

fn timed_out(turn: &mut Turn<'_>) -> Counted {
    let cause = match aborted(turn) {
        Some(_) => turn.asked_cause(),
        None => StopCause::StartTimedOut,
    };
    turn.push(Effect::AbortSpawn);
    undo(turn, cause);
    turn.kill();
    Ok(())
}

fn owner_died(turn: &mut Turn<'_>) -> Counted {
    turn.cancel(TimerKind::Start);
    turn.publish(NoticeKind::OwnerDied);
    undo(turn, StopCause::OwnerDied);
    turn.push(Effect::Entomb);
    turn.note_killed();
    Ok(())
}
