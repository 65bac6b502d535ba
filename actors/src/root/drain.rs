//! Shutting down: everything is told to stop at once, but for the members of a group, one after the other, last first; all
//! within one bound.

use super::RootState;
use crate::messages::{DrainOutcome, DrainReport, DrainedModule, RootMsg};
use crate::status::exit_words;
use lair_supervision::shutdown::{self, Candidate, Line};
use lair_supervision::{ChildEvent, ChildId, DownReason, Origin, Phase, Uptime};
use ractor::RpcReplyPort;
use std::time::Duration;

/// A drain under way.
pub(super) struct Drain {
    replies: Vec<RpcReplyPort<DrainReport>>,
    stopping: Vec<ChildId>,
    /// Those who wait for their turn.
    lines: Vec<Line>,
    /// Who asked.
    origin: Origin,
    began: Uptime,
    /// When the next step is due. Timers of what was due later, before somebody was in more of a hurry, count no more.
    until: Uptime,
    /// The deadline has passed and KILL was sent to all that was left.
    last_call: bool,
    /// The last call has passed too.
    over: bool,
}

impl RootState {
    pub(super) async fn begin_drain(
        &mut self,
        within: Duration,
        origin: Origin,
        reply: RpcReplyPort<DrainReport>,
    ) {
        let until = self.now() + within;
        if let Some(drain) = &mut self.drain {
            drain.replies.push(reply);
            // Whoever has less time decides: each is promised an answer within its own.
            if !drain.last_call && until < drain.until {
                drain.lines.iter_mut().for_each(|line| line.end_by(until));
                self.arm_drain(until);
            }
            return;
        }
        let now = self.now();
        let mut known: Vec<_> = self.children.values().collect();
        known.sort_unstable_by_key(|k| k.started);
        let candidates = known.into_iter().map(|k| Candidate {
            spec: &k.plan.spec,
            child: &k.child,
            group: k.plan.group.as_deref(),
        });
        let plan = shutdown::plan(candidates, now, within);
        self.drain = Some(Drain {
            replies: vec![reply],
            stopping: plan.all().cloned().collect(),
            lines: plan.lines,
            origin: origin.clone(),
            began: now,
            until,
            last_call: false,
            over: false,
        });
        // Who waits for its turn is started no more, whatever becomes of it.
        for known in self.children.values_mut() {
            known.child.draining = true;
        }
        let events = plan
            .now
            .into_iter()
            .map(|(id, grace)| (id, ChildEvent::ShutdownRequested { grace: Some(grace) }));
        self.step_all(events.collect(), &origin).await;
        self.arm_drain(until);
        self.advance_drain().await;
    }

    /// Asks those whose turn has come.
    pub(super) async fn advance_drain(&mut self) {
        let now = self.now();
        loop {
            let Some(drain) = self.drain.as_mut().filter(|d| !d.last_call) else {
                return;
            };
            let children = &self.children;
            let is_down = |id: &ChildId| children.get(id).is_none_or(|k| k.child.is_down());
            let mut wake = None;
            let due = drain.lines.iter_mut().find_map(|line| {
                let due = line.next(now, is_down);
                wake = line.wake().filter(|_| due.is_some());
                due
            });
            let Some((id, grace)) = due else { return };
            let origin = Some(drain.origin.clone());
            let asked = ChildEvent::ShutdownRequested { grace: Some(grace) };
            if let Some(wake) = wake {
                self.look_again_at(wake);
            }
            self.step(&id, None, asked, origin).await;
        }
    }

    /// Skips the rest of everybody's grace.
    pub(super) async fn hurry_drain(&mut self) {
        let now = self.now();
        if let Some(drain) = self.drain.as_mut().filter(|d| !d.last_call) {
            drain.until = now;
            self.drain_deadline().await;
        }
    }

    pub(super) async fn drain_deadline(&mut self) {
        let now = self.now();
        let Some(drain) = self.drain.as_mut().filter(|d| d.until <= now) else {
            return;
        };
        if drain.last_call {
            drain.over = true;
            return;
        }
        drain.last_call = true;
        let confirm = self
            .children
            .values()
            .map(|k| k.plan.spec.kill_confirm)
            .max()
            .unwrap_or_default();
        let origin = drain.origin.clone();
        for id in self.by_start_reversed() {
            let Some(known) = self.children.get(&id).filter(|k| !k.child.is_down()) else {
                continue;
            };
            if matches!(known.child.phase, Phase::Up { .. }) {
                // Its turn had not come.
                let grace = Some(Duration::ZERO);
                let asked = ChildEvent::ShutdownRequested { grace };
                self.step(&id, None, asked, Some(origin.clone())).await;
            }
            self.step(&id, None, ChildEvent::KillRequested, None).await;
        }
        self.arm_drain(now + confirm);
    }

    /// Answers when all is down, or nothing more can be done.
    pub(super) fn check_drain(&mut self) {
        let Some(drain) = &self.drain else { return };
        if drain.replies.is_empty() {
            return;
        }
        if self.up == 0 || drain.over {
            let remaining: Vec<ChildId> = self.remaining();
            let report = self.drain_report(remaining);
            if let Some(drain) = &mut self.drain {
                for reply in drain.replies.drain(..) {
                    let _ = reply.send(report.clone());
                }
            }
        }
    }

    fn remaining(&self) -> Vec<ChildId> {
        self.children
            .values()
            .filter(|k| {
                let left = k
                    .child
                    .last_exit
                    .as_ref()
                    .is_some_and(|e| !e.evidence.leftover.is_empty());
                !k.child.is_down()
                    || (left && matches!(k.child.phase, Phase::Down(DownReason::ShutDown)))
            })
            .map(|k| k.plan.spec.id.clone())
            .collect()
    }

    fn drain_report(&self, remaining: Vec<ChildId>) -> DrainReport {
        let Some(drain) = &self.drain else {
            return DrainReport::default();
        };
        let asked = drain.stopping.iter();
        let mut modules: Vec<DrainedModule> = asked
            .filter_map(|id| self.drained(id, drain.began, remaining.contains(id)))
            .collect();
        let left = |m: &DrainedModule| m.outcome == DrainOutcome::Remaining;
        modules.sort_by_key(|m| (left(m), m.took_ms));
        let down = |id: &ChildId| self.children.get(id).is_some_and(|k| k.child.is_down());
        let killed = modules.iter().filter(|m| m.outcome == DrainOutcome::Killed);
        DrainReport {
            stopped: drain.stopping.iter().filter(|id| down(id)).count() as u64,
            killed: killed.map(|m| m.name.clone()).collect(),
            remaining,
            modules,
        }
    }

    fn drained(&self, id: &ChildId, began: Uptime, remains: bool) -> Option<DrainedModule> {
        let child = &self.children.get(id)?.child;
        let last = child.last_exit.as_ref();
        let exit = last.filter(|exit| exit.inc == child.inc && exit.at >= began);
        let outcome = match exit {
            _ if remains => DrainOutcome::Remaining,
            Some(exit) if exit.killed_after_grace => DrainOutcome::Killed,
            _ => DrainOutcome::Stopped,
        };
        let down = match exit {
            Some(exit) => exit.at,
            None if remains => self.now(),
            None => began,
        };
        Some(DrainedModule {
            name: id.clone(),
            run: child.inc,
            outcome,
            exit: exit.map_or_else(String::new, |exit| exit_words(exit.status, &exit.evidence)),
            took_ms: u64::try_from(down.since(began).as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn by_start_reversed(&self) -> Vec<ChildId> {
        let mut all: Vec<(u64, ChildId)> = self
            .children
            .values()
            .map(|k| (k.started, k.plan.spec.id.clone()))
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().map(|(_, id)| id).collect()
    }

    fn arm_drain(&mut self, until: Uptime) {
        if let Some(drain) = &mut self.drain {
            drain.until = until;
        }
        self.look_again_at(until);
    }

    fn look_again_at(&mut self, until: Uptime) {
        let me = self.me.clone();
        self.args.clock.arm(
            until,
            Box::new(move || {
                let _ = me.cast(RootMsg::DrainDeadline);
            }),
        );
    }
}
