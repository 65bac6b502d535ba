//! One child, told from the outside.
#![allow(dead_code, reason = "each test file uses a part")]

use lair_supervision::{
    Admission, Backoff, Child, ChildEvent, ChildId, ChildIdentity, ChildSpec, Effect, ExitEvidence,
    ExitStatus, Lifecycle, ReasonCode, RestartType, StartFault, StartStage, State, TimerKind,
    Uptime, decide,
};
use std::time::Duration;

/// One child and the only thing that matters of its world: the time.
pub struct Life {
    pub spec: ChildSpec,
    pub child: Child,
    pub now: Uptime,
    pub effects: Vec<Effect>,
}

impl Life {
    pub fn of(restart: RestartType) -> Self {
        Life {
            spec: ChildSpec {
                restart,
                backoff: Backoff {
                    jitter: 0.0,
                    ..Backoff::default()
                },
                ..ChildSpec::new(ChildId::new("m"))
            },
            child: Child::loaded(0),
            now: Uptime::ZERO,
            effects: Vec::new(),
        }
    }

    pub fn running(restart: RestartType) -> Self {
        let mut life = Life::of(restart);
        life.ask(ChildEvent::StartRequested);
        life.spawned();
        life
    }

    pub fn take(&mut self, inc: Option<u64>, event: ChildEvent) -> Option<Admission> {
        let decision = decide(&self.spec, &self.child, inc, event, self.now);
        self.child = decision.child;
        self.effects.extend(decision.effects);
        decision.answer
    }

    pub fn ask(&mut self, event: ChildEvent) -> Admission {
        self.take(None, event).expect("every request is answered")
    }

    pub fn tell(&mut self, event: ChildEvent) {
        let answer = self.take(Some(self.child.inc), event);
        assert_eq!(answer, None);
    }

    pub fn stop(&mut self) -> Admission {
        self.ask(ChildEvent::StopRequested { grace: None })
    }

    pub fn spawned(&mut self) {
        self.tell(ChildEvent::Spawned {
            identity: ChildIdentity::Sim { serial: 1 },
        });
    }

    pub fn spawn_failed(&mut self, transient: bool) {
        self.tell(ChildEvent::SpawnFailed {
            fault: StartFault {
                stage: StartStage::Exec,
                errno: Some(2),
                message: "no such file".to_owned(),
                transient,
            },
        });
    }

    pub fn exits(&mut self, status: ExitStatus) {
        self.tell(ChildEvent::Exited {
            status,
            evidence: ExitEvidence::default(),
        });
    }

    /// Crashes, waits for the backoff, and runs again.
    pub fn crashes_and_returns(&mut self) {
        self.exits(ExitStatus::Code(1));
        let next = self.status().next_at.expect("it will be started again");
        self.now = next;
        self.tell(ChildEvent::Deadline(TimerKind::Backoff));
        self.spawned();
    }

    pub fn pass(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
    }

    pub fn status(&self) -> Lifecycle {
        Lifecycle::of(&self.child)
    }

    pub fn state(&self) -> (State, Option<ReasonCode>) {
        let status = self.status();
        (status.state, status.reason.map(|reason| reason.code))
    }

    pub fn spawns(&self) -> usize {
        let spawns = |e: &&Effect| matches!(e, Effect::Spawn { .. });
        self.effects.iter().filter(spawns).count()
    }

    pub fn notices(&self) -> Vec<String> {
        let mut all = Vec::new();
        for effect in &self.effects {
            if let Effect::Publish(kind) = effect {
                let text = format!("{kind:?}");
                all.push(text.split([' ', '{']).next().unwrap_or_default().to_owned());
            }
        }
        all
    }
}

pub const CRASH: ExitStatus = ExitStatus::Code(1);
