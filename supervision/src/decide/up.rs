//! From `Up`: it runs.

use super::Ignored;
use super::turn::{Counted, Life, Stop, Turn};
use crate::admission::Admission;
use crate::child::{
    ChildIdentity, Desired, DownReason, Phase, Readiness, RestartHistory, Sight, StopCause,
};
use crate::effect::{Effect, TimerKind};
use crate::event::{ChildEvent, ExitEvidence, ExitStatus};
use crate::notice::NoticeKind;
use crate::time::Uptime;
use std::time::Duration;

pub(super) fn on(turn: &mut Turn<'_>, event: ChildEvent) -> Counted {
    let Some(life) = Living::of(turn) else {
        return Err(Ignored::Unexpected);
    };
    let grace = turn.spec.grace;
    if life.frozen.is_some() && from_probes(&event) {
        // It crossed with the decision that laid the probes to rest.
        return Err(Ignored::Stale);
    }
    match event {
        ChildEvent::FreezeRequested => freeze(turn, &life),
        ChildEvent::ThawRequested => thaw(turn, &life),
        ChildEvent::StartRequested => {
            if turn.child.draining {
                return turn.denied_draining();
            }
            turn.satisfied()
        }
        ChildEvent::StopRequested { grace: asked } => {
            end(turn, life, StopCause::Requested, asked.unwrap_or(grace))
        }
        ChildEvent::KillRequested => end(turn, life, StopCause::Requested, Duration::ZERO),
        ChildEvent::ShutdownRequested { grace: asked } => {
            turn.child.draining = true;
            end(turn, life, StopCause::Shutdown, asked.unwrap_or(grace))
        }
        ChildEvent::RestartRequested { grace: asked } => restart(turn, life, asked),
        ChildEvent::BecameReady => became_ready(turn, &life),
        ChildEvent::LostReadiness => lost_readiness(turn, &life),
        ChildEvent::LivenessFailed { kind } => {
            life.stop(turn, StopCause::Unhealthy(kind), grace);
            Ok(())
        }
        ChildEvent::Exposed => {
            life.stop(turn, StopCause::Exposed, grace);
            Ok(())
        }
        ChildEvent::Stalled | ChildEvent::Deadline(TimerKind::Readiness) => not_ready(turn, life),
        ChildEvent::Deadline(TimerKind::Settle) => settled(turn, &life),
        ChildEvent::Deadline(TimerKind::Resight) => turn.look_again(life.sight),
        ChildEvent::Deadline(
            TimerKind::Start | TimerKind::Grace | TimerKind::Kill | TimerKind::Backoff,
        ) => Err(Ignored::Stale),
        ChildEvent::Exited { status, evidence } => exited(turn, &life, status, evidence),
        ChildEvent::SightLost => {
            let sight = turn.lose_sight(life.sight);
            sight_is(turn, sight)
        }
        ChildEvent::SightRegained => {
            let sight = turn.regain_sight(life.sight);
            sight_is(turn, sight)
        }
        ChildEvent::OwnerDied => owner_died(turn, life),
        ChildEvent::Held => {
            life.stop(turn, StopCause::Group, grace);
            Ok(())
        }
        ChildEvent::GivenUp { .. } => {
            life.stop(turn, StopCause::GroupGaveUp, grace);
            Ok(())
        }
        ChildEvent::Adopted { .. }
        | ChildEvent::Spawned { .. }
        | ChildEvent::SpawnFailed { .. }
        | ChildEvent::Released { .. } => Err(Ignored::Unexpected),
    }
}

/// What `Phase::Up` holds, out of the way of the child being changed.
struct Living {
    identity: ChildIdentity,
    readiness: Readiness,
    sight: Sight,
    frozen: Option<Uptime>,
}

impl Living {
    fn of(turn: &Turn<'_>) -> Option<Self> {
        match &turn.child.phase {
            Phase::Up {
                identity,
                readiness,
                sight,
                frozen,
                since: _,
            } => Some(Living {
                identity: identity.clone(),
                readiness: *readiness,
                sight: *sight,
                frozen: *frozen,
            }),
            Phase::Down(_)
            | Phase::Spawning { .. }
            | Phase::Stopping { .. }
            | Phase::Waiting { .. } => None,
        }
    }

    /// Probes stop before the signal is sent, so that a stop is never seen as a failure.
    fn unwatch(&self, turn: &mut Turn<'_>) {
        turn.push(Effect::Unwatch);
        if self.frozen.is_none() {
            self.disarm(turn);
        }
    }

    /// While it is held still its timers are off already.
    fn disarm(&self, turn: &mut Turn<'_>) {
        match self.readiness {
            Readiness::Awaiting { deadline: Some(_) } => turn.cancel(TimerKind::Readiness),
            Readiness::Ready { .. } => turn.cancel(TimerKind::Settle),
            Readiness::Awaiting { deadline: None } | Readiness::NotReady { .. } => {}
        }
    }

    fn stop(self, turn: &mut Turn<'_>, cause: StopCause, grace: Duration) {
        self.unwatch(turn);
        turn.stop(Stop {
            cause,
            grace,
            identity: Some(self.identity),
            sight: self.sight,
        });
    }
}

fn end(turn: &mut Turn<'_>, life: Living, cause: StopCause, grace: Duration) -> Counted {
    turn.child.desired = Desired::Down;
    life.stop(turn, cause, grace);
    turn.accepted()
}

fn not_ready(turn: &mut Turn<'_>, life: Living) -> Counted {
    match life.readiness {
        Readiness::Awaiting { .. } => {
            life.stop(turn, StopCause::NotReadyInTime, turn.spec.grace);
            Ok(())
        }
        Readiness::Ready { .. } | Readiness::NotReady { .. } => Err(Ignored::Stale),
    }
}

fn restart(turn: &mut Turn<'_>, life: Living, grace: Option<Duration>) -> Counted {
    if turn.child.draining {
        return turn.denied_draining();
    }
    let inc = turn.child.inc + 1;
    let grace = grace.unwrap_or(turn.spec.grace);
    life.stop(turn, StopCause::Restart, grace);
    turn.answer(Admission::Accepted { inc })
}

fn readiness_is(turn: &mut Turn<'_>, next: Readiness) -> Counted {
    if let Phase::Up { readiness, .. } = &mut turn.child.phase {
        *readiness = next;
    }
    Ok(())
}

fn sight_is(turn: &mut Turn<'_>, next: Sight) -> Counted {
    if let Phase::Up { sight, .. } = &mut turn.child.phase {
        *sight = next;
    }
    Ok(())
}

/// Is this what probes find, or what falls due while they find nothing?
fn from_probes(event: &ChildEvent) -> bool {
    matches!(
        event,
        ChildEvent::BecameReady
            | ChildEvent::LostReadiness
            | ChildEvent::LivenessFailed { .. }
            | ChildEvent::Stalled
            | ChildEvent::Deadline(TimerKind::Readiness | TimerKind::Settle)
    )
}

fn freeze(turn: &mut Turn<'_>, life: &Living) -> Counted {
    if life.frozen.is_some() {
        return turn.satisfied();
    }
    let now = turn.now;
    if let Phase::Up { frozen, .. } = &mut turn.child.phase {
        *frozen = Some(now);
    }
    turn.push(Effect::Rest);
    life.disarm(turn);
    turn.publish(NoticeKind::Frozen);
    turn.accepted()
}

/// The time in which it was held still counts neither against its patience nor for its stability.
fn thaw(turn: &mut Turn<'_>, life: &Living) -> Counted {
    let Some(since) = life.frozen else {
        return turn.satisfied();
    };
    let lost = turn.now.since(since);
    let next = match life.readiness {
        Readiness::Awaiting { deadline } => {
            let deadline = deadline.map(|at| at + lost);
            if let Some(at) = deadline {
                turn.arm(TimerKind::Readiness, at);
            }
            Readiness::Awaiting { deadline }
        }
        Readiness::Ready { since } => {
            let since = since + lost;
            turn.arm(TimerKind::Settle, (since + turn.spec.settle).max(turn.now));
            Readiness::Ready { since }
        }
        Readiness::NotReady { since } => Readiness::NotReady { since },
    };
    if let Phase::Up {
        frozen, readiness, ..
    } = &mut turn.child.phase
    {
        (*frozen, *readiness) = (None, next);
    }
    turn.publish(NoticeKind::Thawed);
    turn.push(Effect::Watch);
    turn.accepted()
}

fn became_ready(turn: &mut Turn<'_>, life: &Living) -> Counted {
    match life.readiness {
        Readiness::Ready { .. } => return Ok(()),
        Readiness::Awaiting { deadline: Some(_) } => turn.cancel(TimerKind::Readiness),
        Readiness::Awaiting { deadline: None } | Readiness::NotReady { .. } => {}
    }
    let ready = turn.serve();
    readiness_is(turn, ready)
}

fn lost_readiness(turn: &mut Turn<'_>, life: &Living) -> Counted {
    match life.readiness {
        Readiness::Awaiting { .. } | Readiness::NotReady { .. } => Ok(()),
        Readiness::Ready { .. } => {
            turn.cancel(TimerKind::Settle);
            turn.publish(NoticeKind::NotReady);
            let since = turn.now;
            readiness_is(turn, Readiness::NotReady { since })
        }
    }
}

fn settled(turn: &mut Turn<'_>, life: &Living) -> Counted {
    match life.readiness {
        Readiness::Ready { since } => {
            let due = since + turn.spec.settle;
            if turn.now < due {
                // The timer of an earlier stretch of readiness was already under way.
                turn.arm(TimerKind::Settle, due);
                return Ok(());
            }
            let total = turn.child.history.total;
            turn.child.history = RestartHistory {
                total,
                ..RestartHistory::default()
            };
            turn.publish(NoticeKind::Settled);
            Ok(())
        }
        Readiness::Awaiting { .. } | Readiness::NotReady { .. } => Err(Ignored::Stale),
    }
}

fn exited(
    turn: &mut Turn<'_>,
    life: &Living,
    status: ExitStatus,
    evidence: ExitEvidence,
) -> Counted {
    life.unwatch(turn);
    if life.sight != Sight::Live {
        turn.cancel(TimerKind::Resight);
    }
    turn.exited(status, evidence, false);
    let never_served = turn.spec.awaits_ready && !turn.child.was_ready;
    let failed = never_served || !turn.spec.success.holds(status);
    turn.judge(Life {
        status,
        cause: None,
        failed,
        reason: if failed {
            DownReason::Crashed(status)
        } else {
            DownReason::Completed(status)
        },
        lived: true,
    });
    Ok(())
}

fn owner_died(turn: &mut Turn<'_>, life: Living) -> Counted {
    life.unwatch(turn);
    let cause = StopCause::OwnerDied;
    turn.publish(NoticeKind::OwnerDied);
    turn.child.phase = Phase::Stopping {
        since: turn.now,
        cause,
        deadline: turn.now,
        killed: false,
        grace_over: false,
        stuck: false,
        identity: Some(life.identity),
        sight: life.sight,
    };
    turn.publish(NoticeKind::Stopping { cause });
    turn.push(Effect::Entomb);
    turn.note_killed();
    Ok(())
}
