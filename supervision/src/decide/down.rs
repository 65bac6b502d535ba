//! From `Down`: nothing runs, nothing is pending.

use super::Ignored;
use super::turn::{Counted, Stop, Turn};
use crate::child::{ChildIdentity, Desired, Sight, StopCause};
use crate::effect::Effect;
use crate::event::ChildEvent;
use crate::notice::NoticeKind;

pub(super) fn on(turn: &mut Turn<'_>, event: ChildEvent) -> Counted {
    match event {
        ChildEvent::FreezeRequested | ChildEvent::ThawRequested => turn.denied_not_running(),
        ChildEvent::StartRequested | ChildEvent::RestartRequested { .. } => {
            if turn.child.draining {
                return turn.denied_draining();
            }
            turn.spawn_as_asked();
            turn.accepted()
        }
        ChildEvent::StopRequested { .. } | ChildEvent::KillRequested => {
            turn.child.desired = Desired::Down;
            turn.satisfied()
        }
        ChildEvent::ShutdownRequested { .. } => {
            turn.child.draining = true;
            turn.child.desired = Desired::Down;
            turn.satisfied()
        }
        ChildEvent::Adopted { inc, identity } => adopt(turn, inc, identity),
        ChildEvent::Deadline(_)
        | ChildEvent::OwnerDied
        | ChildEvent::BecameReady
        | ChildEvent::LostReadiness
        | ChildEvent::LivenessFailed { .. }
        | ChildEvent::Exposed
        | ChildEvent::Stalled
        | ChildEvent::SightLost
        | ChildEvent::SightRegained
        | ChildEvent::Held
        | ChildEvent::Released { .. }
        | ChildEvent::GivenUp { .. } => Err(Ignored::Stale),
        ChildEvent::Spawned { .. } | ChildEvent::SpawnFailed { .. } | ChildEvent::Exited { .. } => {
            Err(Ignored::Unexpected)
        }
    }
}

/// Takes a survivor back. One of an incarnation that is already history is nobody's: its finder must reclaim it.
fn adopt(turn: &mut Turn<'_>, inc: u64, identity: ChildIdentity) -> Counted {
    let ended = turn.child.last_exit.as_ref().map(|exit| exit.inc);
    if inc < turn.child.inc || ended == Some(inc) {
        return Err(Ignored::Stale);
    }
    turn.child.inc = inc;
    turn.child.was_ready = false;
    turn.publish(NoticeKind::Adopted);
    turn.push(Effect::AttachLogs);
    if turn.child.draining {
        turn.publish(NoticeKind::Running);
        turn.stop(Stop {
            cause: StopCause::Shutdown,
            grace: turn.spec.grace,
            identity: Some(identity),
            sight: Sight::Live,
        });
    } else {
        turn.child.desired = Desired::Up;
        turn.up(identity);
    }
    Ok(())
}
