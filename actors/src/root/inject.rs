//! Doing something bad on purpose, behind the gate, and marking what comes of it.
//!
//! Promises: denied as a whole, or told (`fault.injected`) before anything that follows from it; what follows carries
//! the label. Never: makes up an event of a real child.

use super::RootState;
use crate::backend::BackendFault;
use crate::fault::{ActorKind, Fault, FaultStream, ScriptedEvent};
use crate::files::StreamName;
use crate::messages::{HealthMsg, LogMsg, ModuleMsg, Stall};
use crate::pump::StreamKey;
use lair_supervision::{
    ChildEvent, ChildId, DeniedReason, ExitStatus, NoticeKind, Origin, ProbeKind, Scope, Seq,
    StartFault, StartStage,
};
use std::time::Duration;

impl RootState {
    pub(super) async fn inject(
        &mut self,
        fault: Fault,
        label: String,
    ) -> Result<Seq, DeniedReason> {
        if !self.args.faults {
            return Err(DeniedReason::InjectionDisabled);
        }
        let whose = fault.child().cloned();
        if let Some(id) = whose.as_ref().filter(|id| !self.children.contains_key(*id)) {
            tracing::debug!(module = %id, "fault for an unknown module");
            return Err(DeniedReason::UnknownModule);
        }
        self.check_supported(&fault)?;
        let words = serde_json::to_string(&fault).unwrap_or_default();
        let origin = Origin::Injected {
            label: label.clone(),
        };
        let of = whose.unwrap_or_else(|| ChildId::new("lair"));
        let kind = NoticeKind::Injected {
            fault: words.clone(),
        };
        let seq = self.publish(&of, kind, origin);
        if let Some(known) = self.children.get_mut(&of) {
            known.injected = Some((known.child.inc, label.clone()));
            let inc = known.child.inc;
            let text = format!("injected label={label} fault={words}");
            let _ = self.log.cast(LogMsg::Remark { id: of, inc, text });
        }
        self.carry_out(fault, label).await;
        Ok(seq)
    }

    /// What only a backend can do is done here: whether it can is known when it has.
    fn check_supported(&mut self, fault: &Fault) -> Result<(), DeniedReason> {
        let backends = &self.args.backends;
        let done = match fault {
            Fault::KillKeeper => {
                let native = backends.native.as_ref();
                native.is_some_and(|b| b.inject(BackendFault::KillKeeper))
            }
            Fault::DropEngine { for_ms } => {
                let fault = BackendFault::DropEngine(Duration::from_millis(*for_ms));
                let engines = backends.container.values();
                // Each of them, so no short cut.
                engines.filter(|engine| engine.inject(fault)).count() > 0
            }
            Fault::Scripted { id, .. } => {
                let known = self.children.get(id);
                known.is_some_and(|k| k.backend.simulated() && k.handle.is_some())
            }
            _ => true,
        };
        if done {
            Ok(())
        } else {
            Err(DeniedReason::Unsupported)
        }
    }

    async fn carry_out(&mut self, fault: Fault, label: String) {
        match fault {
            Fault::CrashChild { id, signal } => self.send(&id, signal, Scope::Leader),
            Fault::PauseChild { id, for_ms } => self.pause(id, for_ms),
            Fault::ResumeChild { id } => self.send(&id, libc::SIGCONT, Scope::All),
            Fault::FailNextSpawn { id, stage, errno } => {
                if let Some(known) = self.children.get_mut(&id) {
                    known.injected = None;
                    known.fail_next = Some((injected_fault(stage, errno), label));
                }
            }
            Fault::FailLogWrites { id, errno, count } => {
                if let Some(known) = self.children.get_mut(&id) {
                    known.injected = None;
                    known.log_injected = Some(label);
                }
                self.pump.fail_writes(id.shared(), errno, count);
            }
            Fault::CloseStream { id, stream } => self.close_stream(&id, stream),
            Fault::PanicActor { which, id } => self.panic_actor(which, id, label),
            Fault::StallActor { which, id, for_ms } => {
                self.stall_actor(which, id, Duration::from_millis(for_ms));
            }
            Fault::KillKeeper => self.blind(&label),
            Fault::DropEngine { .. } => {}
            Fault::Scripted { id, event } => self.script(&id, event).await,
        }
    }

    fn send(&self, id: &ChildId, signal: i32, scope: Scope) {
        if let Some(handle) = self.children.get(id).and_then(|k| k.handle.as_ref()) {
            handle.signal(signal, scope);
        }
    }

    fn pause(&mut self, id: ChildId, for_ms: Option<u64>) {
        self.send(&id, libc::SIGSTOP, Scope::All);
        let Some(handle) = self.children.get(&id).and_then(|k| k.handle.clone()) else {
            return;
        };
        if let Some(ms) = for_ms {
            let at = self.now() + Duration::from_millis(ms);
            let resume = move || handle.signal(libc::SIGCONT, Scope::All);
            self.args.clock.arm(at, Box::new(resume));
        }
    }

    fn close_stream(&self, id: &ChildId, stream: FaultStream) {
        let Some(known) = self.children.get(id) else {
            return;
        };
        let key = StreamKey {
            module: id.shared(),
            run: known.child.inc,
        };
        let stream = match stream {
            FaultStream::Stdout => StreamName::Stdout,
            FaultStream::Stderr => StreamName::Stderr,
        };
        self.pump.discard(key, stream);
    }

    /// Without its keeper the end of a child may be unknown: then that is the fault's doing.
    fn blind(&mut self, label: &str) {
        for known in self.children.values_mut().filter(|k| k.handle.is_some()) {
            known.blinded = Some((known.child.inc, label.to_owned()));
        }
    }

    async fn script(&mut self, id: &ChildId, event: ScriptedEvent) {
        let Some(known) = self.children.get(id) else {
            return;
        };
        let (inc, handle) = (known.child.inc, known.handle.clone());
        let ends = |status| handle.as_ref().is_some_and(|h| h.end(status));
        let event = match event {
            ScriptedEvent::Exits { code } => {
                ends(ExitStatus::Code(code));
                return;
            }
            ScriptedEvent::Dies { signal } => {
                ends(ExitStatus::Signal(signal));
                return;
            }
            ScriptedEvent::BecomesReady => ChildEvent::BecameReady,
            ScriptedEvent::LosesReadiness => ChildEvent::LostReadiness,
            ScriptedEvent::FailsLiveness => ChildEvent::LivenessFailed {
                kind: ProbeKind::Liveness,
            },
        };
        self.hear(id, inc, event).await;
    }

    fn panic_actor(&mut self, which: ActorKind, id: Option<ChildId>, label: String) {
        match which {
            ActorKind::Root => panic!("injected: {label}"),
            ActorKind::Log => drop(self.log.cast(LogMsg::Crash { pump: false, label })),
            ActorKind::Pump => drop(self.log.cast(LogMsg::Crash { pump: true, label })),
            ActorKind::Health => drop(self.health.cast(HealthMsg::Crash(label))),
            ActorKind::Module => self.hit_owner(id, ModuleMsg::Crash(label)),
        }
    }

    fn stall_actor(&mut self, which: ActorKind, id: Option<ChildId>, time: Duration) {
        if which == ActorKind::Pump {
            self.pump.stall(time);
            return;
        }
        let until = self.stall(time);
        match which {
            // Only when the answer is out: see the root's handler.
            ActorKind::Root => self.stalled = Some(until),
            ActorKind::Log => drop(self.log.cast(LogMsg::Stall(until))),
            ActorKind::Health => drop(self.health.cast(HealthMsg::Stall(until))),
            ActorKind::Module | ActorKind::Pump => self.hit_owner(id, ModuleMsg::Stall(until)),
        }
    }

    fn stall(&self, time: Duration) -> Stall {
        let (over, until) = tokio::sync::oneshot::channel();
        let at = self.now() + time;
        self.args.clock.arm(
            at,
            Box::new(move || {
                let _ = over.send(());
            }),
        );
        until
    }

    fn hit_owner(&self, id: Option<ChildId>, msg: ModuleMsg) {
        if let Some(known) = id.as_ref().and_then(|id| self.children.get(id))
            && let Some(owner) = known.owner_of(known.child.inc)
        {
            let _ = owner.cast(msg);
        }
    }
}

fn injected_fault(stage: StartStage, errno: i32) -> StartFault {
    let transient = crate::backend::is_transient(errno);
    let message = format!("injected: {}", std::io::Error::from_raw_os_error(errno));
    StartFault {
        stage,
        errno: Some(errno),
        message,
        transient,
    }
}
