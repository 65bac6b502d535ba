//! From `Stopping`: it was told to stop, or is being killed.

use super::Ignored;
use super::turn::{Counted, Life, Turn};
use crate::admission::Admission;
use crate::child::{ChildIdentity, Desired, DownReason, Phase, Sight, StopCause};
use crate::effect::{Effect, TimerKind};
use crate::event::{ChildEvent, ExitEvidence, ExitStatus, StartFault};
use crate::notice::NoticeKind;
use crate::time::Uptime;
use std::time::Duration;

pub(super) fn on(turn: &mut Turn<'_>, event: ChildEvent) -> Counted {
    let Some(dying) = Dying::of(turn) else {
        return Err(Ignored::Unexpected);
    };
    match event {
        ChildEvent::FreezeRequested | ChildEvent::ThawRequested => turn.denied_not_running(),
        ChildEvent::StartRequested | ChildEvent::RestartRequested { .. } => restart(turn, &dying),
        ChildEvent::StopRequested { grace } => stop(turn, &dying, grace),
        ChildEvent::KillRequested => kill(turn, &dying),
        ChildEvent::ShutdownRequested { grace } => {
            turn.child.draining = true;
            if turn.child.desired == Desired::Up {
                dying_mut(turn, |d| *d.cause = StopCause::Shutdown);
            }
            stop(turn, &dying, grace)
        }
        ChildEvent::Spawned { identity } => spawned(turn, &dying, identity),
        ChildEvent::SpawnFailed { fault } => nothing_was_made(turn, &dying, fault),
        ChildEvent::Exited { status, evidence } => exited(turn, &dying, status, evidence),
        ChildEvent::Deadline(TimerKind::Grace) if !dying.killed => {
            dying_mut(turn, |d| *d.grace_over = true);
            turn.kill();
            Ok(())
        }
        ChildEvent::Deadline(TimerKind::Kill) if dying.killed => outlived(turn, &dying),
        ChildEvent::Deadline(TimerKind::Resight) => turn.look_again(dying.sight),
        ChildEvent::SightLost => {
            let sight = turn.lose_sight(dying.sight);
            dying_mut(turn, |d| *d.sight = sight);
            Ok(())
        }
        ChildEvent::SightRegained => {
            let sight = turn.regain_sight(dying.sight);
            dying_mut(turn, |d| *d.sight = sight);
            Ok(())
        }
        ChildEvent::OwnerDied => owner_died(turn, &dying),
        ChildEvent::Deadline(
            TimerKind::Start
            | TimerKind::Readiness
            | TimerKind::Settle
            | TimerKind::Grace
            | TimerKind::Kill
            | TimerKind::Backoff,
        )
        | ChildEvent::BecameReady
        | ChildEvent::LostReadiness
        | ChildEvent::LivenessFailed { .. }
        | ChildEvent::Exposed
        | ChildEvent::Stalled => Err(Ignored::Stale),
        ChildEvent::Adopted { .. }
        | ChildEvent::Held
        | ChildEvent::Released { .. }
        | ChildEvent::GivenUp { .. } => Err(Ignored::Unexpected),
    }
}

/// What `Phase::Stopping` holds, out of the way of the child being changed.
struct Dying {
    since: Uptime,
    cause: StopCause,
    deadline: Uptime,
    killed: bool,
    grace_over: bool,
    stuck: bool,
    made: bool,
    sight: Sight,
}

impl Dying {
    fn of(turn: &Turn<'_>) -> Option<Self> {
        match &turn.child.phase {
            Phase::Stopping {
                since,
                cause,
                deadline,
                killed,
                grace_over,
                stuck,
                identity,
                sight,
            } => Some(Dying {
                since: *since,
                cause: *cause,
                deadline: *deadline,
                killed: *killed,
                grace_over: *grace_over,
                stuck: *stuck,
                made: identity.is_some(),
                sight: *sight,
            }),
            Phase::Down(_) | Phase::Spawning { .. } | Phase::Up { .. } | Phase::Waiting { .. } => {
                None
            }
        }
    }

    fn call_off(&self, turn: &mut Turn<'_>) {
        turn.cancel(if self.killed {
            TimerKind::Kill
        } else {
            TimerKind::Grace
        });
        if self.sight != Sight::Live {
            turn.cancel(TimerKind::Resight);
        }
    }
}

/// The parts of `Phase::Stopping` that change while it lasts.
struct DyingMut<'a> {
    cause: &'a mut StopCause,
    deadline: &'a mut Uptime,
    grace_over: &'a mut bool,
    stuck: &'a mut bool,
    identity: &'a mut Option<ChildIdentity>,
    sight: &'a mut Sight,
}

fn dying_mut(turn: &mut Turn<'_>, change: impl FnOnce(DyingMut<'_>)) {
    if let Phase::Stopping {
        cause,
        deadline,
        grace_over,
        stuck,
        identity,
        sight,
        since: _,
        killed: _,
    } = &mut turn.child.phase
    {
        change(DyingMut {
            cause,
            deadline,
            grace_over,
            stuck,
            identity,
            sight,
        });
    }
}

/// The start is owed once the stop has ended, whatever the stop was for.
fn restart(turn: &mut Turn<'_>, dying: &Dying) -> Counted {
    if turn.child.draining {
        return turn.denied_draining();
    }
    match dying.cause {
        StopCause::Requested | StopCause::Restart => {}
        StopCause::Shutdown
        | StopCause::Unhealthy(_)
        | StopCause::NotReadyInTime
        | StopCause::StartTimedOut
        | StopCause::Exposed
        | StopCause::OwnerDied
        | StopCause::Group
        | StopCause::GroupGaveUp => dying_mut(turn, |d| *d.cause = StopCause::Restart),
    }
    turn.child.desired = Desired::Up;
    let inc = turn.child.inc + 1;
    turn.answer(Admission::Deferred { inc })
}

/// A second request can shorten the grace period, never lengthen it.
fn stop(turn: &mut Turn<'_>, dying: &Dying, grace: Option<Duration>) -> Counted {
    let deadline = turn.now + grace.unwrap_or(turn.spec.grace);
    if !dying.killed && deadline < dying.deadline {
        dying_mut(turn, |d| *d.deadline = deadline);
        turn.arm(TimerKind::Grace, deadline);
    }
    if turn.child.desired == Desired::Down {
        return turn.satisfied();
    }
    turn.child.desired = Desired::Down;
    turn.accepted()
}

fn kill(turn: &mut Turn<'_>, dying: &Dying) -> Counted {
    if dying.killed {
        let was = std::mem::replace(&mut turn.child.desired, Desired::Down);
        return match was {
            Desired::Down => turn.satisfied(),
            Desired::Up => turn.accepted(),
        };
    }
    turn.child.desired = Desired::Down;
    turn.cancel(TimerKind::Grace);
    turn.kill();
    turn.accepted()
}

/// The start lost its race with the deadline: what came of it must go.
fn spawned(turn: &mut Turn<'_>, dying: &Dying, made: ChildIdentity) -> Counted {
    if dying.made {
        return Err(Ignored::Unexpected);
    }
    dying_mut(turn, |d| *d.identity = Some(made));
    turn.push(Effect::ConfirmLedger);
    turn.push(Effect::Kill);
    turn.note_killed();
    Ok(())
}

fn nothing_was_made(turn: &mut Turn<'_>, dying: &Dying, fault: StartFault) -> Counted {
    if dying.made {
        return Err(Ignored::Unexpected);
    }
    dying.call_off(turn);
    turn.push(Effect::EraseLedger);
    turn.publish(NoticeKind::StartFailed { fault });
    ended(turn, dying, ExitStatus::Unknown, false);
    Ok(())
}

fn exited(
    turn: &mut Turn<'_>,
    dying: &Dying,
    status: ExitStatus,
    evidence: ExitEvidence,
) -> Counted {
    dying.call_off(turn);
    turn.exited(status, evidence, dying.grace_over);
    ended(turn, dying, status, true);
    Ok(())
}

fn ended(turn: &mut Turn<'_>, dying: &Dying, status: ExitStatus, lived: bool) {
    if turn.child.desired == Desired::Down {
        return turn.down_as_asked(Some(dying.cause));
    }
    let reason = match dying.cause {
        StopCause::Requested | StopCause::Restart => return turn.spawn_as_asked(),
        StopCause::Group => return turn.rest_with_group(),
        StopCause::GroupGaveUp => return turn.down(DownReason::GroupGaveUp),
        StopCause::Shutdown => DownReason::ShutDown,
        StopCause::Unhealthy(kind) => DownReason::Unhealthy(kind),
        StopCause::NotReadyInTime => DownReason::NotReadyInTime,
        StopCause::StartTimedOut => DownReason::StartTimedOut,
        StopCause::Exposed => DownReason::Exposed,
        StopCause::OwnerDied => DownReason::Internal,
    };
    turn.judge(Life {
        status,
        cause: Some(dying.cause),
        failed: true,
        reason,
        lived,
    });
}

/// Never claimed to be down without proof: say so, send KILL again in case it was lost, and wait longer.
fn outlived(turn: &mut Turn<'_>, dying: &Dying) -> Counted {
    let next = turn.next_proof(dying.since);
    dying_mut(turn, |d| {
        *d.deadline = next;
        *d.stuck = true;
    });
    if !dying.stuck {
        turn.publish(NoticeKind::Stuck);
    }
    turn.push(Effect::Kill);
    turn.arm(TimerKind::Kill, next);
    Ok(())
}

fn owner_died(turn: &mut Turn<'_>, dying: &Dying) -> Counted {
    turn.publish(NoticeKind::OwnerDied);
    if !dying.killed {
        turn.cancel(TimerKind::Grace);
    }
    turn.push(Effect::Entomb);
    turn.note_killed();
    Ok(())
}
