//! The world of one child: a backend that may answer in any way it is allowed to, timers, and late messages.

use super::invariants::{Books, check};
use lair_supervision::{
    Child, ChildEvent, ChildIdentity, ChildSpec, Decision, Effect, ExitEvidence, ExitStatus,
    ProbeKind, StartFault, StartStage, TimerKind, Uptime, decide,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the backend has of the child.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    None,
    Starting { inc: u64 },
    Running { inc: u64, killed: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: Uptime,
    pub child: Child,
    pub process: Process,
    pub owner_lives: bool,
    pub in_sight: bool,
    pub watched: bool,
    pub rests: bool,
    pub ledger: Option<u64>,
    pub timers: BTreeMap<TimerKind, (u64, Uptime)>,
    /// Messages that crossed with the decision that called them off.
    pub late: Vec<(u64, ChildEvent)>,
    pub books: Books,
}

pub struct Choice {
    inc: Option<u64>,
    event: ChildEvent,
    at: Uptime,
    late: Option<usize>,
}

const LATE_KEPT: usize = 2;

impl World {
    pub fn new() -> Self {
        World {
            now: Uptime::ZERO,
            child: Child::loaded(0),
            process: Process::None,
            owner_lives: true,
            in_sight: true,
            watched: false,
            rests: false,
            ledger: None,
            timers: BTreeMap::new(),
            late: Vec::new(),
            books: Books::default(),
        }
    }

    pub fn choices(&self, spec: &ChildSpec) -> Vec<Choice> {
        let mut all = requests();
        all.extend(self.reports(spec));
        let now = self.now;
        let choice = |(inc, event), at, late| Choice {
            inc,
            event,
            at,
            late,
        };
        let mut choices = Vec::new();
        if let Some((timer, (inc, at))) = self.timers.iter().min_by_key(|(_, (_, at))| *at) {
            let due = now.max(*at);
            choices.push(choice(
                (Some(*inc), ChildEvent::Deadline(*timer)),
                due,
                None,
            ));
            // Messages that come when the timer is due, and before it.
            let tied = all.iter().filter(|(_, event)| ties(event)).cloned();
            choices.extend(tied.map(|message| choice(message, due, None)));
        }
        choices.extend(all.into_iter().map(|message| choice(message, now, None)));
        let late = self.late.iter().enumerate();
        choices.extend(
            late.map(|(i, (inc, event))| choice((Some(*inc), event.clone()), now, Some(i))),
        );
        choices
    }

    fn reports(&self, spec: &ChildSpec) -> Vec<(Option<u64>, ChildEvent)> {
        let (inc, reports) = match self.process {
            Process::None => return Vec::new(),
            Process::Starting { inc } => (inc, self.start_reports()),
            Process::Running { inc, killed } => (inc, self.life_reports(spec, killed)),
        };
        reports
            .into_iter()
            .map(|event| (Some(inc), event))
            .collect()
    }

    fn start_reports(&self) -> Vec<ChildEvent> {
        let mut all = vec![
            ChildEvent::Spawned {
                identity: ChildIdentity::Sim { serial: 1 },
            },
            failed(true),
            failed(false),
        ];
        if self.owner_lives {
            all.push(ChildEvent::OwnerDied);
        } else {
            // The undertaker found something and ended it.
            all.push(exited(ExitStatus::Unknown));
        }
        all
    }

    fn life_reports(&self, spec: &ChildSpec, killed: bool) -> Vec<ChildEvent> {
        let mut all = Vec::new();
        if self.in_sight {
            all.push(ChildEvent::SightLost);
            match (self.owner_lives, killed) {
                (false, _) => all.push(exited(ExitStatus::Unknown)),
                (true, true) => all.push(exited(ExitStatus::Signal(9))),
                (true, false) => {
                    all.push(exited(ExitStatus::Code(0)));
                    all.push(exited(ExitStatus::Code(1)));
                }
            }
        } else {
            all.push(ChildEvent::SightRegained);
            all.push(exited(ExitStatus::Unknown));
        }
        if self.owner_lives {
            all.push(ChildEvent::OwnerDied);
        }
        if self.watched {
            all.push(liveness());
            all.push(ChildEvent::Exposed);
            if spec.awaits_ready {
                all.push(ChildEvent::BecameReady);
                all.push(ChildEvent::LostReadiness);
                all.push(ChildEvent::Stalled);
            }
        }
        all
    }

    /// Is nothing running, and nothing on its way?
    pub fn is_over(&self) -> bool {
        self.child.is_down() && self.process == Process::None
    }

    /// As the runtime does to every child before an ordered shutdown.
    pub fn marked_as_draining(&self) -> World {
        let mut next = self.clone();
        next.child.draining = true;
        next.books.drain();
        next
    }

    pub fn step(&self, spec: &ChildSpec, choice: Choice) -> World {
        let mut next = self.clone();
        next.now = choice.at;
        match (&choice.late, &choice.event) {
            (Some(i), _) => {
                next.late.remove(*i);
            }
            (None, ChildEvent::Deadline(timer)) => {
                next.timers.remove(timer);
            }
            (None, event) => next.happen(event, choice.inc),
        }
        let said = format!("{:?} of {:?}", choice.event, choice.inc);
        let decision = decide(
            spec,
            &self.child,
            choice.inc,
            choice.event.clone(),
            next.now,
        );
        next.books.hear(&choice.event, &decision);
        for (inc, effect) in decision.addressed() {
            next.obey(spec, inc, effect);
            next.books.note(inc, effect, next.now, spec);
        }
        next.child = decision.child.clone();
        next.in_sight |= next.process == Process::None;
        if let Err(broken) = check(spec, self, &next, &decision) {
            panic!("{broken}\nafter {said}\nfrom {self:#?}\ndecided {decision:#?}");
        }
        next
    }

    /// What is true before the report of it arrives.
    fn happen(&mut self, event: &ChildEvent, inc: Option<u64>) {
        match event {
            ChildEvent::Spawned { .. } => {
                if let Some(inc) = inc {
                    self.process = Process::Running { inc, killed: false };
                }
            }
            ChildEvent::SpawnFailed { .. } | ChildEvent::Exited { .. } => {
                self.process = Process::None;
            }
            ChildEvent::OwnerDied => self.owner_lives = false,
            ChildEvent::SightLost => self.in_sight = false,
            ChildEvent::SightRegained => self.in_sight = true,
            _ => {}
        }
    }

    fn obey(&mut self, spec: &ChildSpec, inc: u64, effect: &Effect) {
        match effect {
            Effect::Spawn { inc: born } => {
                assert_eq!(
                    self.process,
                    Process::None,
                    "spawned while one runs: {self:#?}"
                );
                assert_eq!((self.ledger, inc), (None, *born));
                self.process = Process::Starting { inc };
                self.owner_lives = true;
                self.ledger = Some(inc);
            }
            Effect::Kill | Effect::Entomb => {
                if let Process::Running { killed, .. } = &mut self.process {
                    *killed = true;
                }
            }
            Effect::ConfirmLedger => assert_eq!(self.ledger, Some(inc)),
            Effect::EraseLedger => assert_eq!(self.ledger.take(), Some(inc)),
            Effect::Watch => (self.watched, self.rests) = (true, false),
            Effect::Rest | Effect::Unwatch => {
                assert!(self.watched || self.rests, "unwatched twice");
                let watched = std::mem::take(&mut self.watched);
                self.rests = *effect == Effect::Rest;
                if watched {
                    self.crossed(inc, liveness());
                    if spec.awaits_ready {
                        self.crossed(inc, ChildEvent::BecameReady);
                    }
                }
            }
            Effect::Arm { timer, at } => {
                let old = self.timers.insert(*timer, (inc, *at));
                self.may_have_fired(*timer, old);
            }
            Effect::Cancel { timer } => {
                let old = self.timers.remove(timer);
                self.may_have_fired(*timer, old);
            }
            Effect::AbortSpawn
            | Effect::Signal { .. }
            | Effect::LookAgain
            | Effect::AttachLogs
            | Effect::Publish(_) => {}
        }
    }

    /// A timer that is due when it is called off may be in the mailbox already.
    fn may_have_fired(&mut self, timer: TimerKind, old: Option<(u64, Uptime)>) {
        if let Some((inc, at)) = old
            && at <= self.now
        {
            self.crossed(inc, ChildEvent::Deadline(timer));
        }
    }

    fn crossed(&mut self, inc: u64, event: ChildEvent) {
        if self.late.len() == LATE_KEPT {
            self.late.remove(0);
        }
        self.late.push((inc, event));
    }
}

fn ties(event: &ChildEvent) -> bool {
    matches!(
        event,
        ChildEvent::StopRequested { .. }
            | ChildEvent::LostReadiness
            | ChildEvent::Spawned { .. }
            | ChildEvent::Exited { .. }
    )
}

fn requests() -> Vec<(Option<u64>, ChildEvent)> {
    let short = Some(Duration::from_secs(2));
    [
        ChildEvent::StartRequested,
        ChildEvent::StopRequested { grace: None },
        ChildEvent::KillRequested,
        ChildEvent::RestartRequested { grace: short },
        ChildEvent::ShutdownRequested { grace: short },
        ChildEvent::FreezeRequested,
        ChildEvent::ThawRequested,
    ]
    .map(|request| (None, request))
    .into()
}

fn exited(status: ExitStatus) -> ChildEvent {
    ChildEvent::Exited {
        status,
        evidence: ExitEvidence::default(),
    }
}

fn liveness() -> ChildEvent {
    ChildEvent::LivenessFailed {
        kind: ProbeKind::Liveness,
    }
}

fn failed(transient: bool) -> ChildEvent {
    ChildEvent::SpawnFailed {
        fault: StartFault {
            stage: StartStage::Create,
            errno: None,
            message: "busy".to_owned(),
            transient,
        },
    }
}

/// Whether `decision` says that the child is down now, and was not before.
pub fn went_down(before: &World, decision: &Decision) -> bool {
    decision.child.is_down() && !before.child.is_down()
}
