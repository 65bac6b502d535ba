//! Modules that are restarted together: who goes down with whom, in which order, and when it is enough.
//!
//! Owns: the strategies (OTP's words) over the same children that `decide` moves one by one. Promises: pure, and a
//! function of what is seen, not of how it came about; members are stopped last first and started first first, each
//! one's end awaited before the next step; never more than `intensity.max` restarts within the window; whoever is
//! outside the group, or before the failed one under `rest_for_one`, is not touched. Never: starts a member that somebody
//! stopped, one that ended as it should, or one whose policy is never.

use crate::child::{Child, DownReason, Phase, Readiness};
use crate::restart;
use crate::spec::{ChildId, ChildSpec, Intensity};
use crate::time::Uptime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Who else is restarted when a member fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// All of the group.
    OneForAll,
    /// Those after it in the file.
    RestForOne,
}

impl Strategy {
    /// The word of the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::OneForOne => "one_for_one",
            Strategy::OneForAll => "one_for_all",
            Strategy::RestForOne => "rest_for_one",
        }
    }
}

/// A group, as policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its name.
    pub name: ChildId,
    /// Who else is restarted.
    pub strategy: Strategy,
    /// Its members, in the order in which they are started.
    pub members: Vec<ChildId>,
    /// Restarts allowed, of all members together; the members' own budgets do not count.
    pub intensity: Intensity,
}

/// Everything known about a group beside its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// When each counted restart was decided, oldest first; bounded by `intensity.max`.
    pub at: VecDeque<Uptime>,
    /// Restarts since it was loaded or last began anew.
    pub total: u32,
    /// What it is doing.
    pub phase: GroupPhase,
}

/// What a group is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupPhase {
    /// Nothing.
    #[default]
    Steady,
    /// Members from `from` on are being stopped, last first.
    Stopping {
        /// The first that is affected.
        from: usize,
        /// Delay before the first start.
        delay: Duration,
    },
    /// Members from `from` on are being started, first first.
    Starting {
        /// The first that is affected.
        from: usize,
        /// Whose turn it is.
        next: usize,
        /// It was told to go.
        released: bool,
        /// Delay before the first start; zero once that has been told to go.
        delay: Duration,
    },
    /// It is enough: all are being stopped, last first.
    GivingUp {
        /// How many are still to be looked at.
        left: usize,
        /// The incarnation of the last of these that was told to stop.
        told: Option<u64>,
        /// Why.
        why: GroupFailure,
    },
    /// It rests, until somebody starts one of its members.
    GaveUp {
        /// Why.
        why: GroupFailure,
    },
}

/// Why a group was given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupFailure {
    /// Whose failure was the last.
    pub member: ChildId,
    /// Restarts within the window.
    pub restarts: u32,
    /// The window.
    pub within: Duration,
    /// Its start can't succeed, so that trying again was pointless.
    pub hopeless: bool,
}

impl GroupFailure {
    /// One sentence for people, without trailing period.
    #[must_use]
    pub fn sentence(&self) -> String {
        let GroupFailure {
            member,
            restarts,
            within,
            hopeless,
        } = self;
        if *hopeless {
            return format!("given up: `{member}` cannot be started again");
        }
        let times = if *restarts == 1 {
            "restart"
        } else {
            "restarts"
        };
        format!("given up after {restarts} {times} within {within:?}: `{member}` failed once more")
    }
}

/// What is to be done to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stop it, or keep it from starting, until it is released.
    Hold(ChildId),
    /// Start it after this time.
    Release {
        /// Whom.
        member: ChildId,
        /// Zero means at once.
        after: Duration,
    },
    /// Stop it for good.
    GiveUp {
        /// Whom.
        member: ChildId,
        /// It was its failure that spent the budget: restarts, window.
        own: Option<(u32, Duration)>,
    },
    /// Tell observers: this member failed and the group restarts, those from the index on.
    TellRestart {
        /// Whose failure it is.
        failed: ChildId,
        /// Who is restarted.
        members: Vec<ChildId>,
    },
    /// Tell observers: the group is given up.
    TellGaveUp(GroupFailure),
}

/// A member as it is; one that isn't loaded is `None` in a list of them.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its policy.
    pub spec: &'a ChildSpec,
    /// What is known of it.
    pub child: &'a Child,
}

/// The next step: what becomes of the group, and what to do. `None`: nothing, until a member changes.
///
/// `members` are in the order of `spec.members`. Ask again after each step.
#[must_use]
pub fn decide(
    spec: &GroupSpec,
    group: &Group,
    members: &[Option<Member<'_>>],
    now: Uptime,
) -> Option<(Group, Vec<Command>)> {
    if members.iter().flatten().any(|m| m.child.draining) {
        return None;
    }
    let turn = Turn {
        spec,
        group,
        members,
        now,
    };
    match &group.phase {
        GroupPhase::Steady => turn.steady(),
        GroupPhase::Stopping { from, delay } => turn.stopping(*from, *delay),
        GroupPhase::Starting {
            from,
            next,
            released,
            delay,
        } => turn.starting(*from, *next, *released, *delay),
        GroupPhase::GivingUp { left, told, why } => turn.giving_up(*left, *told, why),
        GroupPhase::GaveUp { .. } => turn.gave_up(),
    }
}

/// How a member is, as far as its group cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing runs and nothing is pending.
    Down,
    /// Nothing runs; its start can't succeed.
    Hopeless,
    /// It failed, and waits for its group's word.
    Failed,
    /// It was stopped for its group, and waits for its word.
    Held,
    /// It has its word, and a delay to wait for.
    Due,
    /// It changes by itself: it is being started or stopped.
    Moving,
    /// It runs.
    Up { serves: bool, inc: u64 },
}

fn seen(member: &Option<Member<'_>>) -> Seen {
    let Some(Member { child, .. }) = member else {
        return Seen::Down;
    };
    match &child.phase {
        Phase::Down(DownReason::StartFailed(_)) => Seen::Hopeless,
        Phase::Down(_) => Seen::Down,
        Phase::Waiting { until: Some(_), .. } => Seen::Due,
        Phase::Waiting {
            until: None, after, ..
        } if **after == DownReason::Group => Seen::Held,
        Phase::Waiting { until: None, .. } => Seen::Failed,
        Phase::Spawning { .. } | Phase::Stopping { .. } => Seen::Moving,
        Phase::Up { readiness, .. } => Seen::Up {
            serves: !matches!(readiness, Readiness::Awaiting { .. }),
            inc: child.inc,
        },
    }
}

struct Turn<'a> {
    spec: &'a GroupSpec,
    group: &'a Group,
    members: &'a [Option<Member<'a>>],
    now: Uptime,
}

type Step = Option<(Group, Vec<Command>)>;

impl Turn<'_> {
    fn seen(&self, i: usize) -> Seen {
        self.members.get(i).map_or(Seen::Down, seen)
    }

    fn name(&self, i: usize) -> ChildId {
        self.spec.members[i].clone()
    }

    fn count(&self) -> usize {
        self.spec.members.len()
    }

    /// The first of these that has failed and was not counted yet.
    fn failed(&self, among: impl IntoIterator<Item = usize>) -> Option<usize> {
        among.into_iter().find(|i| self.seen(*i) == Seen::Failed)
    }

    fn becomes(&self, phase: GroupPhase, commands: Vec<Command>) -> Step {
        let group = Group {
            phase,
            ..self.group.clone()
        };
        Some((group, commands))
    }

    fn steady(&self) -> Step {
        if let Some(i) = self.failed(0..self.count()) {
            return self.charge(i);
        }
        // Held by an earlier form of the group, before it was loaded anew.
        let held = (0..self.count()).find(|i| self.seen(*i) == Seen::Held)?;
        let release = Command::Release {
            member: self.name(held),
            after: Duration::ZERO,
        };
        self.becomes(GroupPhase::Steady, vec![release])
    }

    /// A failure that counts: the restart it leads to, or the end of all restarts.
    fn charge(&self, i: usize) -> Step {
        let Intensity { max, within } = self.spec.intensity;
        let mut group = self.group.clone();
        group.at.retain(|at| self.now.since(*at) <= within);
        while group.at.len() > max as usize {
            group.at.pop_front();
        }
        let done = u32::try_from(group.at.len()).unwrap_or(u32::MAX);
        if done >= max {
            let why = GroupFailure {
                member: self.name(i),
                restarts: done,
                within,
                hopeless: false,
            };
            return Some((self.ending(group, why), Vec::new()));
        }
        group.at.push_back(self.now);
        group.total = group.total.saturating_add(1);
        let from = match self.spec.strategy {
            Strategy::OneForOne => return self.release_alone(group, i),
            Strategy::OneForAll => 0,
            Strategy::RestForOne => i,
        };
        let affected = (from..self.count()).filter(|i| self.seen(*i) != Seen::Down);
        let tell = Command::TellRestart {
            failed: self.name(i),
            members: affected.map(|i| self.name(i)).collect(),
        };
        let delay = self.delay(i);
        group.phase = GroupPhase::Stopping { from, delay };
        Some((group, vec![tell]))
    }

    fn release_alone(&self, mut group: Group, i: usize) -> Step {
        group.phase = GroupPhase::Steady;
        let release = Command::Release {
            member: self.name(i),
            after: self.delay(i),
        };
        Some((group, vec![release]))
    }

    fn delay(&self, i: usize) -> Duration {
        self.members[i].as_ref().map_or(Duration::ZERO, |m| {
            let history = &m.child.history;
            restart::delay(&m.spec.backoff, history.streak, history.total)
        })
    }

    fn ending(&self, group: Group, why: GroupFailure) -> Group {
        let phase = GroupPhase::GivingUp {
            left: self.count(),
            told: None,
            why,
        };
        Group { phase, ..group }
    }

    fn stopping(&self, from: usize, delay: Duration) -> Step {
        if let Some(i) = self.failed(0..from) {
            return self.charge(i);
        }
        for i in (from..self.count()).rev() {
            match self.seen(i) {
                Seen::Down | Seen::Hopeless | Seen::Failed | Seen::Held => {}
                Seen::Moving => return None,
                Seen::Due | Seen::Up { .. } => {
                    let phase = self.group.phase.clone();
                    return self.becomes(phase, vec![Command::Hold(self.name(i))]);
                }
            }
        }
        let phase = GroupPhase::Starting {
            from,
            next: from,
            released: false,
            delay,
        };
        self.becomes(phase, Vec::new())
    }

    fn starting(&self, from: usize, next: usize, released: bool, delay: Duration) -> Step {
        let begun = next + usize::from(released);
        if let Some(i) = self.failed(0..begun.min(self.count())) {
            return self.charge(i);
        }
        if next >= self.count() {
            return self.becomes(GroupPhase::Steady, Vec::new());
        }
        let turn = |next, released, delay| GroupPhase::Starting {
            from,
            next,
            released,
            delay,
        };
        match self.seen(next) {
            Seen::Hopeless if released => {
                let why = GroupFailure {
                    member: self.name(next),
                    restarts: u32::try_from(self.group.at.len()).unwrap_or(u32::MAX),
                    within: self.spec.intensity.within,
                    hopeless: true,
                };
                Some((self.ending(self.group.clone(), why), Vec::new()))
            }
            Seen::Failed | Seen::Held => {
                let release = Command::Release {
                    member: self.name(next),
                    after: delay,
                };
                self.becomes(turn(next, true, Duration::ZERO), vec![release])
            }
            Seen::Down | Seen::Hopeless | Seen::Up { serves: true, .. } => {
                self.becomes(turn(next + 1, false, delay), Vec::new())
            }
            Seen::Due | Seen::Moving | Seen::Up { serves: false, .. } => None,
        }
    }

    fn giving_up(&self, left: usize, told: Option<u64>, why: &GroupFailure) -> Step {
        let phase = |left, told| GroupPhase::GivingUp {
            left,
            told,
            why: why.clone(),
        };
        let Some(i) = left.checked_sub(1) else {
            let tell = Command::TellGaveUp(why.clone());
            let phase = GroupPhase::GaveUp { why: why.clone() };
            return self.becomes(phase, vec![tell]);
        };
        let stop = |own| Command::GiveUp {
            member: self.name(i),
            own,
        };
        match (self.seen(i), told) {
            (Seen::Down | Seen::Hopeless, _) => self.becomes(phase(i, None), Vec::new()),
            // Somebody started it again.
            (Seen::Up { inc, .. }, Some(told)) if inc != told => {
                self.becomes(phase(i, None), Vec::new())
            }
            (Seen::Up { .. } | Seen::Moving, Some(_)) | (Seen::Moving, None) => None,
            (Seen::Up { inc, .. }, None) => self.becomes(phase(left, Some(inc)), vec![stop(None)]),
            (Seen::Failed | Seen::Held | Seen::Due, _) => {
                let own = self.name(i) == why.member && !why.hopeless;
                let own = own.then_some((why.restarts, why.within));
                self.becomes(phase(i, None), vec![stop(own)])
            }
        }
    }

    /// Somebody who starts a member gives the group its whole budget again.
    fn gave_up(&self) -> Step {
        let down = |i| matches!(self.seen(i), Seen::Down | Seen::Hopeless);
        if (0..self.count()).all(down) {
            return None;
        }
        Some((Group::default(), Vec::new()))
    }
}
