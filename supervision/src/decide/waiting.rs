//! From `Waiting`: it will be started again.

use super::Ignored;
use super::turn::{Counted, Turn};
use crate::child::Desired;
use crate::effect::TimerKind;
use crate::event::ChildEvent;

pub(super) fn on(turn: &mut Turn<'_>, event: ChildEvent) -> Counted {
    match event {
        ChildEvent::StartRequested | ChildEvent::RestartRequested { .. } => {
            if turn.child.draining {
                return turn.denied_draining();
            }
            turn.cancel(TimerKind::Backoff);
            turn.spawn_as_asked();
            turn.accepted()
        }
        ChildEvent::StopRequested { .. } | ChildEvent::KillRequested => give_in(turn),
        ChildEvent::ShutdownRequested { .. } => {
            turn.child.draining = true;
            give_in(turn)
        }
        ChildEvent::Deadline(TimerKind::Backoff) => {
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
        ChildEvent::Adopted { .. }
        | ChildEvent::Spawned { .. }
        | ChildEvent::SpawnFailed { .. }
        | ChildEvent::Exited { .. } => Err(Ignored::Unexpected),
    }
}

fn give_in(turn: &mut Turn<'_>) -> Counted {
    turn.child.desired = Desired::Down;
    turn.cancel(TimerKind::Backoff);
    turn.down_as_asked(None);
    turn.accepted()
}
