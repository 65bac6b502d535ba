//! From `Waiting`: it will be started again.

use super::Ignored;
use super::turn::{Counted, Turn};
use crate::child::{Desired, DownReason, Phase};
use crate::effect::TimerKind;
use crate::event::{ChildEvent, ExitStatus};
use std::time::Duration;

pub(super) fn on(turn: &mut Turn<'_>, event: ChildEvent) -> Counted {
    match event {
        ChildEvent::FreezeRequested | ChildEvent::ThawRequested => turn.denied_not_running(),
        ChildEvent::StartRequested | ChildEvent::RestartRequested { .. } => {
            if turn.child.draining {
                return turn.denied_draining();
            }
            call_off(turn);
            turn.spawn_as_asked();
            turn.accepted()
        }
        ChildEvent::StopRequested { .. } | ChildEvent::KillRequested => give_in(turn),
        ChildEvent::ShutdownRequested { .. } => {
            turn.child.draining = true;
            give_in(turn)
        }
        ChildEvent::Deadline(TimerKind::Backoff) => {
            if !is_due(turn) {
                return Err(Ignored::Stale);
            }
            turn.spawn();
            Ok(())
        }
        ChildEvent::Deadline(
            TimerKind::Start
            | TimerKind::Readiness
            | TimerKind::Settle
            | TimerKind::Grace
            | TimerKind::Kill
            | TimerKind::Resight,
        )
        | ChildEvent::OwnerDied
        | ChildEvent::BecameReady
        | ChildEvent::LostReadiness
        | ChildEvent::LivenessFailed { .. }
        | ChildEvent::Exposed
        | ChildEvent::Stalled
        | ChildEvent::SightLost
        | ChildEvent::SightRegained => Err(Ignored::Stale),
        ChildEvent::Held => hold(turn),
        ChildEvent::Released { after } => release(turn, after),
        ChildEvent::GivenUp { own } => give_up(turn, own),
        ChildEvent::Adopted { .. }
        | ChildEvent::Spawned { .. }
        | ChildEvent::SpawnFailed { .. }
        | ChildEvent::Exited { .. } => Err(Ignored::Unexpected),
    }
}

fn give_in(turn: &mut Turn<'_>) -> Counted {
    turn.child.desired = Desired::Down;
    call_off(turn);
    turn.down_as_asked(None);
    turn.accepted()
}

/// Has it a delay to wait for, and not its group's word?
fn is_due(turn: &Turn<'_>) -> bool {
    matches!(turn.child.phase, Phase::Waiting { until: Some(_), .. })
}

fn call_off(turn: &mut Turn<'_>) {
    if is_due(turn) {
        turn.cancel(TimerKind::Backoff);
    }
}

fn hold(turn: &mut Turn<'_>) -> Counted {
    call_off(turn);
    if let Phase::Waiting { until, .. } = &mut turn.child.phase {
        *until = None;
    }
    Ok(())
}

fn release(turn: &mut Turn<'_>, after: Duration) -> Counted {
    let Phase::Waiting {
        until: None,
        after: why,
        ..
    } = &turn.child.phase
    else {
        return Err(Ignored::Stale);
    };
    let why = (**why).clone();
    if after.is_zero() {
        turn.spawn();
    } else {
        turn.wait(after, why);
    }
    Ok(())
}

fn give_up(turn: &mut Turn<'_>, own: Option<(u32, Duration)>) -> Counted {
    call_off(turn);
    let ended = turn.child.last_exit.as_ref();
    let last = ended
        .filter(|exit| exit.inc == turn.child.inc)
        .map_or(ExitStatus::Unknown, |exit| exit.status);
    turn.down(match own {
        Some((restarts, within)) => DownReason::GaveUp {
            restarts,
            within,
            last,
        },
        None => DownReason::GroupGaveUp,
    });
    Ok(())
}
