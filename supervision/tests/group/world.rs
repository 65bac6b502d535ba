//! A group of real children in a world that answers as it likes; the promises are checked after every step.

use lair_supervision::group::{Command, Member, decide as decide_group};
use lair_supervision::{
    Backoff, Child, ChildEvent, ChildId, ChildIdentity, ChildSpec, DownReason, Effect,
    ExitEvidence, ExitStatus, Group, GroupPhase, GroupSpec, Intensity, Phase, RestartType,
    StartFault, StartStage, Strategy, TimerKind, Uptime, decide,
};
use std::time::Duration;

/// Steps that a group may take without anything happening in between.
const PATIENCE: usize = 64;

/// What may happen to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    ComesUp,
    FailsToStart,
    CannotStart,
    BecomesReady,
    Crashes,
    Completes,
    Ends,
    DelayPasses,
    IsStarted,
    IsStopped,
    IsRestarted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub children: Vec<Child>,
    pub group: Group,
    pub now: Uptime,
    /// Everything the group did, and who was started: `hold b`, `start a`.
    pub done: Vec<String>,
    /// Members that somebody started or restarted by name: the order is theirs then.
    meddled: bool,
}

/// A group, and its members' policies.
#[derive(Clone)]
pub struct Setting {
    pub spec: GroupSpec,
    pub members: Vec<ChildSpec>,
}

impl Setting {
    /// Members `a`, `b`, ... of these types, without delays.
    pub fn of(strategy: Strategy, types: &[RestartType]) -> Self {
        let names = ["a", "b", "c", "d"];
        let members: Vec<ChildSpec> = names
            .iter()
            .zip(types)
            .map(|(name, restart)| ChildSpec {
                restart: *restart,
                grouped: true,
                backoff: Backoff {
                    first: Duration::ZERO,
                    ..Backoff::default()
                },
                ..ChildSpec::new(ChildId::new(name))
            })
            .collect();
        let spec = GroupSpec {
            name: ChildId::new("g"),
            strategy,
            members: members.iter().map(|m| m.id.clone()).collect(),
            intensity: Intensity {
                max: 2,
                within: Duration::from_secs(60),
            },
        };
        Setting { spec, members }
    }

    pub fn max(mut self, max: u32) -> Self {
        self.spec.intensity.max = max;
        self
    }
}

impl World {
    /// All are loaded, none runs.
    pub fn down(setting: &Setting) -> Self {
        World {
            children: setting.members.iter().map(|_| Child::loaded(0)).collect(),
            group: Group::default(),
            now: Uptime::ZERO,
            done: Vec::new(),
            meddled: false,
        }
    }

    /// All run.
    pub fn up(setting: &Setting) -> Self {
        let mut world = World::down(setting);
        for i in 0..setting.members.len() {
            world.happen(setting, i, Happening::IsStarted);
            world.happen(setting, i, Happening::ComesUp);
            world.happen(setting, i, Happening::BecomesReady);
        }
        world.done.clear();
        world.meddled = false;
        world
    }

    pub fn choices(&self, setting: &Setting, requests: bool) -> Vec<(usize, Happening)> {
        let mut all = Vec::new();
        for (i, child) in self.children.iter().enumerate() {
            let mut may = |what: &[Happening]| all.extend(what.iter().map(|w| (i, *w)));
            match &child.phase {
                Phase::Down(_) => {}
                Phase::Spawning { .. } => may(&[
                    Happening::ComesUp,
                    Happening::FailsToStart,
                    Happening::CannotStart,
                ]),
                Phase::Up { .. } => {
                    may(&[Happening::Crashes, Happening::Completes]);
                    if setting.members[i].awaits_ready && !child.was_ready {
                        may(&[Happening::BecomesReady]);
                    }
                }
                Phase::Stopping { .. } => may(&[Happening::Ends]),
                Phase::Waiting { until: Some(_), .. } => may(&[Happening::DelayPasses]),
                Phase::Waiting { until: None, .. } => {}
            }
            if requests {
                may(&[
                    Happening::IsStarted,
                    Happening::IsStopped,
                    Happening::IsRestarted,
                ]);
            }
        }
        all
    }

    /// One thing happens, and the group does what it then does.
    pub fn happen(&mut self, setting: &Setting, i: usize, what: Happening) {
        let about = Some(self.children[i].inc);
        let (inc, event) = match what {
            Happening::IsStarted => (None, ChildEvent::StartRequested),
            Happening::IsRestarted => (None, ChildEvent::RestartRequested { grace: None }),
            Happening::IsStopped => (None, ChildEvent::StopRequested { grace: None }),
            Happening::ComesUp => (
                about,
                ChildEvent::Spawned {
                    identity: ChildIdentity::Sim { serial: 1 },
                },
            ),
            Happening::FailsToStart => (about, start_failed(true)),
            Happening::CannotStart => (about, start_failed(false)),
            Happening::BecomesReady => (about, ChildEvent::BecameReady),
            Happening::Crashes => (about, exited(ExitStatus::Code(1))),
            Happening::Completes => (about, exited(ExitStatus::Code(0))),
            Happening::Ends => (about, exited(ExitStatus::Signal(15))),
            Happening::DelayPasses => {
                if let Phase::Waiting {
                    until: Some(at), ..
                } = &self.children[i].phase
                {
                    self.now = self.now.max(*at);
                }
                (about, ChildEvent::Deadline(TimerKind::Backoff))
            }
        };
        self.meddled |= matches!(what, Happening::IsStarted | Happening::IsRestarted);
        self.tell(setting, i, inc, event);
        self.settle(setting);
        self.check(setting);
    }

    fn tell(&mut self, setting: &Setting, i: usize, inc: Option<u64>, event: ChildEvent) {
        let decision = decide(
            &setting.members[i],
            &self.children[i],
            inc,
            event.clone(),
            self.now,
        );
        let unexpected = lair_supervision::Ignored::Unexpected;
        assert!(
            decision.outcome != lair_supervision::Outcome::Ignored(unexpected),
            "{event:?} was not expected by {:?}",
            self.children[i]
        );
        let spawns = |e: &Effect| matches!(e, Effect::Spawn { .. });
        if decision.effects.iter().any(spawns) {
            self.done.push(format!("start {}", setting.members[i].id));
        }
        self.children[i] = decision.child;
    }

    fn settle(&mut self, setting: &Setting) {
        for _ in 0..PATIENCE {
            let members: Vec<_> = setting
                .members
                .iter()
                .zip(&self.children)
                .map(|(spec, child)| Some(Member { spec, child }))
                .collect();
            let step = decide_group(&setting.spec, &self.group, &members, self.now);
            let Some((group, commands)) = step else {
                return;
            };
            assert!(
                group != self.group || !commands.is_empty(),
                "a step that does nothing: {self:#?}"
            );
            let before = std::mem::replace(&mut self.group, group);
            for command in commands {
                self.obey(setting, &before, command);
            }
        }
        panic!("the group never comes to an end: {self:#?}");
    }

    fn obey(&mut self, setting: &Setting, before: &Group, command: Command) {
        let (member, word, event) = match command {
            Command::Hold(member) => (member, "hold", ChildEvent::Held),
            Command::Release { member, after } => {
                (member, "release", ChildEvent::Released { after })
            }
            Command::GiveUp { member, own } => (member, "end", ChildEvent::GivenUp { own }),
            Command::TellRestart { failed, .. } => {
                return self.done.push(format!("restart for {failed}"));
            }
            Command::TellGaveUp(why) => {
                return self.done.push(format!("give up for {}", why.member));
            }
        };
        let i = setting.members.iter().position(|m| m.id == member);
        let i = i.expect("a member of the group");
        self.check_order(setting, before, i, word);
        if word != "release" {
            self.done.push(format!("{word} {member}"));
        }
        let inc = Some(self.children[i].inc);
        self.tell(setting, i, inc, event);
    }

    fn rests(&self, i: usize) -> bool {
        matches!(
            self.children[i].phase,
            Phase::Down(_) | Phase::Waiting { .. }
        )
    }

    /// Last first down, first first up, and never one before the former is through.
    fn check_order(&self, setting: &Setting, before: &Group, i: usize, word: &str) {
        let after = i + 1..self.children.len();
        let first = match setting.spec.strategy {
            Strategy::OneForOne if word == "release" => return,
            _ => match &before.phase {
                GroupPhase::Stopping { from, .. } | GroupPhase::Starting { from, .. } => *from,
                GroupPhase::GivingUp { .. } => 0,
                GroupPhase::Steady | GroupPhase::GaveUp { .. } => i,
            },
        };
        assert!(i >= first, "{word} of one that is not affected: {self:#?}");
        if self.meddled {
            return;
        }
        assert!(
            after.clone().all(|j| self.rests(j)),
            "{word} of {i} before those after it are down: {self:#?}"
        );
        if word == "release" {
            let through = |j: usize| match &self.children[j].phase {
                Phase::Down(_) => true,
                Phase::Up { .. } => self.children[j].was_ready,
                _ => false,
            };
            assert!(
                (first..i).all(through),
                "release of {i} before those before it serve: {self:#?}"
            );
        }
    }

    fn check(&self, setting: &Setting) {
        let Intensity { max, within } = setting.spec.intensity;
        let recent = self
            .group
            .at
            .iter()
            .filter(|at| self.now.since(**at) <= within);
        assert!(recent.count() <= max as usize, "over budget: {self:#?}");
        let idle = |c: &Child| {
            matches!(
                c.phase,
                Phase::Down(_) | Phase::Up { .. } | Phase::Waiting { until: None, .. }
            )
        };
        let waits_for_ready = |(c, spec): (&Child, &ChildSpec)| {
            matches!(c.phase, Phase::Up { .. }) && spec.awaits_ready && !c.was_ready
        };
        let mut both = self.children.iter().zip(&setting.members);
        if self.children.iter().all(idle) && !both.any(waits_for_ready) {
            // Nothing is under way, so nobody may be waiting for a word.
            let held = |c: &Child| matches!(c.phase, Phase::Waiting { .. });
            assert!(
                !self.children.iter().any(held),
                "somebody was forgotten: {self:#?}"
            );
            assert!(
                matches!(
                    self.group.phase,
                    GroupPhase::Steady | GroupPhase::GaveUp { .. }
                ),
                "the group was forgotten: {self:#?}"
            );
        }
        for (child, spec) in self.children.iter().zip(&setting.members) {
            if spec.restart == RestartType::Temporary {
                let waits = matches!(child.phase, Phase::Waiting { .. });
                assert!(!waits, "a temporary one waits to be restarted: {self:#?}");
            }
        }
        if matches!(self.group.phase, GroupPhase::GaveUp { .. }) {
            assert!(self.children.iter().all(Child::is_down), "{self:#?}");
        }
    }

    /// All that is under way ends well, without time passing beyond the delays.
    pub fn calm(&mut self, setting: &Setting) {
        for _ in 0..PATIENCE {
            let good = |(_, w): &(usize, Happening)| {
                matches!(
                    w,
                    Happening::ComesUp
                        | Happening::BecomesReady
                        | Happening::Ends
                        | Happening::DelayPasses
                )
            };
            let Some((i, what)) = self.choices(setting, false).into_iter().find(good) else {
                return;
            };
            self.happen(setting, i, what);
        }
        panic!("it never calms down: {self:#?}");
    }

    pub fn runs(&self) -> Vec<u64> {
        let up = |c: &Child| matches!(c.phase, Phase::Up { .. });
        let run = |c: &Child| if up(c) { c.inc } else { 0 };
        self.children.iter().map(run).collect()
    }

    pub fn reason(&self, i: usize) -> Option<&DownReason> {
        match &self.children[i].phase {
            Phase::Down(reason) => Some(reason),
            _ => None,
        }
    }

    pub fn gave_up(&self) -> bool {
        matches!(self.group.phase, GroupPhase::GaveUp { .. })
    }

    /// What was done since the last look.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }
}

fn exited(status: ExitStatus) -> ChildEvent {
    ChildEvent::Exited {
        status,
        evidence: ExitEvidence::default(),
    }
}

fn start_failed(transient: bool) -> ChildEvent {
    ChildEvent::SpawnFailed {
        fault: StartFault {
            stage: StartStage::Exec,
            errno: None,
            message: "no".to_owned(),
            transient,
        },
    }
}
