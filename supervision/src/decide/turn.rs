//! One decision in the making: the child as it becomes, and the effects so far.
//!
//! Owns: the moves that several phases share (spawn, stop, kill, end a life). Promises: `Spawn` never without
//! `Starting` and a Start deadline; `Exited` published once per report of an end. Never: looks at an event.

use super::{Decision, Ignored, Outcome};
use crate::admission::{Admission, DeniedReason};
use crate::child::{
    Child, ChildIdentity, Desired, DownReason, LastExit, Phase, Readiness, RestartHistory, Sight,
    StopCause,
};
use crate::effect::{Effect, Scope, TimerKind};
use crate::event::{ExitEvidence, ExitStatus};
use crate::notice::NoticeKind;
use crate::restart::{Rest, Verdict, verdict};
use crate::spec::{ChildSpec, RestartType};
use crate::time::Uptime;
use std::time::Duration;

const RESIGHT_FIRST: Duration = Duration::from_secs(1);
const RESIGHT_CAP: Duration = Duration::from_secs(30);
const STUCK_FIRST: Duration = Duration::from_secs(1);
const STUCK_CAP: Duration = Duration::from_secs(300);

/// Whether an event counted.
pub(super) type Counted = Result<(), Ignored>;

/// What can't be ignored.
const KILL: i32 = 9;

pub(super) struct Turn<'a> {
    pub(super) spec: &'a ChildSpec,
    pub(super) child: Child,
    pub(super) now: Uptime,
    effects: Vec<Effect>,
    answer: Option<Admission>,
}

/// The parts of a stop that differ from one to the next.
pub(super) struct Stop {
    pub(super) cause: StopCause,
    pub(super) grace: Duration,
    pub(super) identity: Option<ChildIdentity>,
    pub(super) sight: Sight,
}

impl<'a> Turn<'a> {
    pub(super) fn new(spec: &'a ChildSpec, child: &Child, now: Uptime) -> Self {
        Turn {
            spec,
            child: child.clone(),
            now,
            effects: Vec::new(),
            answer: None,
        }
    }

    pub(super) fn close(mut self, before: &Child, counted: Counted) -> Decision {
        let outcome = match counted {
            Err(ignored) => Outcome::Ignored(ignored),
            Ok(()) if self.child == *before => Outcome::Unchanged,
            Ok(()) => Outcome::Changed,
        };
        if outcome == Outcome::Ignored(Ignored::Stale) {
            self.child.stale = self.child.stale.saturating_add(1);
        }
        Decision {
            child: self.child,
            effects: self.effects,
            answer: self.answer,
            outcome,
        }
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn publish(&mut self, kind: NoticeKind) {
        self.effects.push(Effect::Publish(kind));
    }

    pub(super) fn arm(&mut self, timer: TimerKind, at: Uptime) {
        self.effects.push(Effect::Arm { timer, at });
    }

    pub(super) fn cancel(&mut self, timer: TimerKind) {
        self.effects.push(Effect::Cancel { timer });
    }

    pub(super) fn answer(&mut self, answer: Admission) -> Counted {
        self.answer = Some(answer);
        Ok(())
    }

    pub(super) fn accepted(&mut self) -> Counted {
        let inc = self.child.inc;
        self.answer(Admission::Accepted { inc })
    }

    pub(super) fn satisfied(&mut self) -> Counted {
        let inc = self.child.inc;
        self.answer(Admission::AlreadySatisfied { inc })
    }

    /// What is asked can only be done to a child that runs.
    pub(super) fn denied_not_running(&mut self) -> Counted {
        self.answer(Admission::Denied(DeniedReason::NotRunning))
    }

    pub(super) fn denied_draining(&mut self) -> Counted {
        self.answer(Admission::Denied(DeniedReason::Draining))
    }

    /// A start that somebody asked for: it has the whole restart budget before it.
    pub(super) fn spawn_as_asked(&mut self) {
        self.child.history = RestartHistory::default();
        self.spawn();
    }

    /// The one way to a new incarnation; closed while draining.
    pub(super) fn spawn(&mut self) {
        if self.child.draining {
            self.child.desired = Desired::Down;
            return self.down(DownReason::ShutDown);
        }
        let inc = self.child.inc + 1;
        let deadline = self.now + self.spec.start_deadline;
        self.child.inc = inc;
        self.child.desired = Desired::Up;
        self.child.was_ready = false;
        self.child.phase = Phase::Spawning {
            since: self.now,
            deadline,
            abort: None,
        };
        self.publish(NoticeKind::Starting);
        self.push(Effect::Spawn { inc });
        self.arm(TimerKind::Start, deadline);
    }

    /// It runs; it serves too if nothing must say so first.
    pub(super) fn up(&mut self, identity: ChildIdentity) {
        self.publish(NoticeKind::Running);
        self.push(Effect::Watch);
        let readiness = if self.spec.awaits_ready {
            let deadline = self.spec.ready_deadline.map(|limit| self.now + limit);
            if let Some(at) = deadline {
                self.arm(TimerKind::Readiness, at);
            }
            Readiness::Awaiting { deadline }
        } else {
            self.serve()
        };
        self.child.phase = Phase::Up {
            since: self.now,
            identity,
            readiness,
            sight: Sight::Live,
            frozen: None,
        };
    }

    /// It serves from now on.
    pub(super) fn serve(&mut self) -> Readiness {
        self.child.was_ready = true;
        self.publish(NoticeKind::Ready);
        self.arm(TimerKind::Settle, self.now + self.spec.settle);
        Readiness::Ready { since: self.now }
    }

    /// Asks it to stop; without any grace that is a kill.
    pub(super) fn stop(&mut self, stop: Stop) {
        let deadline = self.now + stop.grace;
        let cause = stop.cause;
        self.child.phase = Phase::Stopping {
            since: self.now,
            cause,
            deadline,
            killed: false,
            grace_over: false,
            stuck: false,
            identity: stop.identity,
            sight: stop.sight,
        };
        self.publish(NoticeKind::Stopping { cause });
        if stop.grace.is_zero() {
            self.kill();
        } else {
            self.push(Effect::Signal {
                signal: self.spec.stop_signal,
                scope: Scope::Group,
            });
            self.arm(TimerKind::Grace, deadline);
        }
    }

    /// Sends KILL and waits for proof.
    pub(super) fn kill(&mut self) {
        self.publish(NoticeKind::Killing);
        self.push(Effect::Kill);
        self.note_killed();
    }

    /// KILL is on its way, by our own hand or the undertaker's: proof of death is due.
    pub(super) fn note_killed(&mut self) {
        let due = self.now + self.spec.kill_confirm;
        if let Phase::Stopping {
            deadline, killed, ..
        } = &mut self.child.phase
        {
            *deadline = due;
            *killed = true;
            self.arm(TimerKind::Kill, due);
        }
    }

    /// When to ask next about a child that KILL did not end: later each time.
    pub(super) fn next_proof(&self, since: Uptime) -> Uptime {
        let patience = self.spec.kill_confirm.max(self.now.since(since));
        self.now + patience.clamp(STUCK_FIRST, STUCK_CAP)
    }

    /// `Err` if there is nothing to look for.
    pub(super) fn look_again(&mut self, sight: Sight) -> Counted {
        match sight {
            Sight::Live => Err(Ignored::Stale),
            Sight::Lost { since } => {
                self.push(Effect::LookAgain);
                self.arm_resight(since);
                Ok(())
            }
        }
    }

    /// The sight after it was lost.
    pub(super) fn lose_sight(&mut self, sight: Sight) -> Sight {
        match sight {
            Sight::Lost { .. } => sight,
            Sight::Live => {
                self.publish(NoticeKind::SightLost);
                self.arm_resight(self.now);
                Sight::Lost { since: self.now }
            }
        }
    }

    /// The sight after it was regained.
    pub(super) fn regain_sight(&mut self, sight: Sight) -> Sight {
        if sight != Sight::Live {
            self.cancel(TimerKind::Resight);
            self.publish(NoticeKind::SightRegained);
        }
        Sight::Live
    }

    fn arm_resight(&mut self, since: Uptime) {
        let delay = self.now.since(since).clamp(RESIGHT_FIRST, RESIGHT_CAP);
        self.arm(TimerKind::Resight, self.now + delay);
    }

    /// Records and publishes the end of a life.
    pub(super) fn exited(&mut self, status: ExitStatus, evidence: ExitEvidence, graceless: bool) {
        self.push(Effect::EraseLedger);
        self.publish(NoticeKind::Exited {
            status,
            evidence: evidence.clone(),
        });
        // Where the end came just before the KILL that was ordered, it was never sent.
        let graceless = graceless && evidence.by_us.is_none_or(|last| last == KILL);
        self.child.last_exit = Some(LastExit {
            inc: self.child.inc,
            status,
            evidence,
            at: self.now,
            killed_after_grace: graceless,
        });
    }

    pub(super) fn down(&mut self, reason: DownReason) {
        self.child.phase = Phase::Down(reason.clone());
        self.publish(NoticeKind::Down { reason });
    }

    /// Down for good reason: somebody asked, or the runtime shuts down.
    pub(super) fn down_as_asked(&mut self, cause: Option<StopCause>) {
        let reason = match cause {
            Some(StopCause::Requested) => DownReason::Requested,
            Some(StopCause::Shutdown) => DownReason::ShutDown,
            Some(
                StopCause::Restart
                | StopCause::Unhealthy(_)
                | StopCause::NotReadyInTime
                | StopCause::StartTimedOut
                | StopCause::Exposed
                | StopCause::OwnerDied
                | StopCause::Group
                | StopCause::GroupGaveUp,
            )
            | None => self.asked(),
        };
        self.down(reason);
    }

    fn asked(&self) -> DownReason {
        if self.child.draining {
            DownReason::ShutDown
        } else {
            DownReason::Requested
        }
    }

    /// The cause of a stop that somebody asked for.
    pub(super) fn asked_cause(&self) -> StopCause {
        if self.child.draining {
            StopCause::Shutdown
        } else {
            StopCause::Requested
        }
    }

    /// Restart, wait or rest after a life that nobody asked to end. `reason` is what status says of that life.
    pub(super) fn judge(&mut self, life: Life) {
        let verdict = verdict(
            self.spec,
            &self.child.history,
            life.cause,
            life.failed,
            self.now,
        );
        match verdict {
            Verdict::Rest(Rest::Completed | Rest::Failed) => self.down(life.reason),
            Verdict::Rest(Rest::Requested | Rest::ShutDown) => self.down_as_asked(life.cause),
            Verdict::GiveUp { restarts, within } => self.down(DownReason::GaveUp {
                restarts,
                within,
                last: life.status,
            }),
            Verdict::Restart { .. } if self.child.draining => self.down(life.reason),
            Verdict::Restart { history, .. } if self.spec.grouped => {
                self.child.history = history;
                self.hold(life.reason);
            }
            Verdict::Restart { after, history } => {
                self.child.history = history;
                if after.is_zero() && life.lived {
                    self.spawn();
                } else {
                    self.wait(after, life.reason);
                }
            }
        }
    }

    /// Stopped for its group's sake: it comes back with it, if its policy lets it come back at all.
    pub(super) fn rest_with_group(&mut self) {
        if self.spec.restart == RestartType::Temporary || self.child.draining {
            return self.down(DownReason::Group);
        }
        let history = &mut self.child.history;
        history.total = history.total.saturating_add(1);
        self.hold(DownReason::Group);
    }

    fn hold(&mut self, reason: DownReason) {
        self.child.phase = Phase::Waiting {
            until: None,
            attempt: self.child.history.streak,
            after: Box::new(reason),
        };
        self.publish(NoticeKind::Held);
    }

    pub(super) fn wait(&mut self, delay: Duration, reason: DownReason) {
        let attempt = self.child.history.streak;
        let until = self.now + delay;
        self.child.phase = Phase::Waiting {
            until: Some(until),
            attempt,
            after: Box::new(reason),
        };
        self.publish(NoticeKind::Backoff { delay, attempt });
        self.arm(TimerKind::Backoff, until);
    }
}

/// A life that ended without being asked to.
pub(super) struct Life {
    pub(super) status: ExitStatus,
    pub(super) cause: Option<StopCause>,
    pub(super) failed: bool,
    pub(super) reason: DownReason,
    /// It ran. A failed start never is tried again at once, so that requests come between two attempts.
    pub(super) lived: bool,
}
