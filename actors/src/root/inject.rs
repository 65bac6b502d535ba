//! Doing something bad on purpose, behind the gate, and marking what comes of it.

use super::RootState;
use crate::fault::{ActorKind, Fault};
use crate::messages::{HealthMsg, LogMsg, ModuleMsg};
use lair_supervision::{
    ChildId, DeniedReason, NoticeKind, Origin, Scope, Seq, StartFault, StartStage,
};

impl RootState {
    pub(super) fn inject(&mut self, fault: Fault, label: String) -> Result<Seq, DeniedReason> {
        if !self.args.faults {
            return Err(DeniedReason::InjectionDisabled);
        }
        let whose = match &fault {
            Fault::CrashChild { id, .. } | Fault::FailNextSpawn { id, .. } => Some(id.clone()),
            Fault::PanicActor { id, .. } => id.clone(),
        };
        if let Some(id) = whose.as_ref().filter(|id| !self.children.contains_key(*id)) {
            tracing::debug!(module = %id, "fault for an unknown module");
            return Err(DeniedReason::UnknownModule);
        }
        let words = serde_json::to_string(&fault).unwrap_or_default();
        let origin = Origin::Injected {
            label: label.clone(),
        };
        let of = whose.unwrap_or_else(|| ChildId::new("lair"));
        let seq = self.publish(
            &of,
            NoticeKind::Injected {
                fault: words.clone(),
            },
            origin,
        );
        if let Some(known) = self.children.get_mut(&of) {
            known.injected = Some((known.child.inc, label.clone()));
            let inc = known.child.inc;
            let text = format!("injected label={label} fault={words}");
            let _ = self.log.cast(LogMsg::Remark { id: of, inc, text });
        }
        self.carry_out(fault, label);
        Ok(seq)
    }

    fn carry_out(&mut self, fault: Fault, label: String) {
        match fault {
            Fault::CrashChild { id, signal } => {
                if let Some(handle) = self.children.get(&id).and_then(|k| k.handle.as_ref()) {
                    handle.signal(signal, Scope::Leader);
                }
            }
            Fault::FailNextSpawn { id, stage, errno } => {
                if let Some(known) = self.children.get_mut(&id) {
                    known.injected = None;
                    known.fail_next = Some((injected_fault(stage, errno), label));
                }
            }
            Fault::PanicActor { which, id } => self.panic_actor(which, id, label),
        }
    }

    fn panic_actor(&mut self, which: ActorKind, id: Option<ChildId>, label: String) {
        match which {
            ActorKind::Root => panic!("injected: {label}"),
            ActorKind::Log => drop(self.log.cast(LogMsg::Crash { pump: false, label })),
            ActorKind::Pump => drop(self.log.cast(LogMsg::Crash { pump: true, label })),
            ActorKind::Health => drop(self.health.cast(HealthMsg::Crash(label))),
            ActorKind::Module => {
                if let Some(known) = id.as_ref().and_then(|id| self.children.get(id))
                    && let Some(owner) = known.owner_of(known.child.inc)
                {
                    let _ = owner.cast(ModuleMsg::Crash(label));
                }
            }
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
