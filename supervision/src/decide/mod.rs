//! Given a child, an event and the time: what is next.
//!
//! Owns: every transition of a child's life; one file per phase it starts from, each with an exhaustive match over
//! the events and no wildcard arm. `docs/state-machine.md` is the table of it. Promises: total and deterministic;
//! every request gets an answer; a report of another incarnation changes nothing but a count; a draining child is
//! never started. Never: claims a child is down without a report that says so.

mod down;
mod spawning;
mod stopping;
mod turn;
mod up;
mod waiting;

use crate::admission::Admission;
use crate::child::{Child, Phase};
use crate::effect::Effect;
use crate::event::ChildEvent;
use crate::notice::NoticeKind;
use crate::spec::ChildSpec;
use crate::time::Uptime;
use turn::Turn;

/// What a child becomes, and what is to be done about it, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The child from now on.
    pub child: Child,
    /// What to do, in this order.
    pub effects: Vec<Effect>,
    /// The answer, if the event was a request.
    pub answer: Option<Admission>,
    /// Whether the child changed, or why not.
    pub outcome: Outcome,
}

/// What an event did to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The child changed.
    Changed,
    /// The event was in order and changed nothing.
    Unchanged,
    /// The event did not count.
    Ignored(Ignored),
}

/// Why an event did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is about something that is over: another incarnation, a timer or a probe that was already called off.
    Stale,
    /// Nothing that works as promised sends it here. Worth a log line.
    Unexpected,
}

impl Decision {
    /// The effects with the incarnation each is meant for.
    ///
    /// One decision can end a life and begin the next: what comes before `Publish(Starting)` is about the life
    /// before, the rest about the new one.
    pub fn addressed(&self) -> impl Iterator<Item = (u64, &Effect)> {
        let starting = Effect::Publish(NoticeKind::Starting);
        let born = self.effects.iter().position(|e| *e == starting);
        self.effects.iter().enumerate().map(move |(i, effect)| {
            let before = born.is_some_and(|born| i < born);
            (self.child.inc - u64::from(before), effect)
        })
    }
}

/// Decides what `event` does to `child`.
///
/// `inc` is the incarnation the event is about: always given with reports and timers, `None` with requests.
/// `Adopted` carries its own. A report without an incarnation is unexpected.
#[must_use]
pub fn decide(
    spec: &ChildSpec,
    child: &Child,
    inc: Option<u64>,
    event: ChildEvent,
    now: Uptime,
) -> Decision {
    let mut turn = Turn::new(spec, child, now);
    let counted = match timely(child, inc, &event) {
        Some(ignored) => Err(ignored),
        None => match &child.phase {
            Phase::Down(_) => down::on(&mut turn, event),
            Phase::Spawning { .. } => spawning::on(&mut turn, event),
            Phase::Up { .. } => up::on(&mut turn, event),
            Phase::Stopping { .. } => stopping::on(&mut turn, event),
            Phase::Waiting { .. } => waiting::on(&mut turn, event),
        },
    };
    turn.close(child, counted)
}

/// `None` if the event is about the child's current incarnation, or needs none.
fn timely(child: &Child, inc: Option<u64>, event: &ChildEvent) -> Option<Ignored> {
    match event {
        ChildEvent::StartRequested
        | ChildEvent::StopRequested { .. }
        | ChildEvent::KillRequested
        | ChildEvent::RestartRequested { .. }
        | ChildEvent::ShutdownRequested { .. }
        | ChildEvent::FreezeRequested
        | ChildEvent::ThawRequested
        | ChildEvent::Adopted { .. } => None,
        ChildEvent::Spawned { .. }
        | ChildEvent::SpawnFailed { .. }
        | ChildEvent::BecameReady
        | ChildEvent::LostReadiness
        | ChildEvent::LivenessFailed { .. }
        | ChildEvent::Exposed
        | ChildEvent::Stalled
        | ChildEvent::Exited { .. }
        | ChildEvent::SightLost
        | ChildEvent::SightRegained
        | ChildEvent::OwnerDied
        | ChildEvent::Held
        | ChildEvent::Released { .. }
        | ChildEvent::GivenUp { .. }
        | ChildEvent::Deadline(_) => match inc {
            Some(inc) if inc == child.inc => None,
            Some(_) => Some(Ignored::Stale),
            None => Some(Ignored::Unexpected),
        },
    }
}
