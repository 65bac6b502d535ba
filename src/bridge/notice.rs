//! A notice as its one wire shape: `{"seq":..,"at":..,"type":"module.running","name":..,"run":..,"origin":..,...}`.
//!
//! Promises: `type` words and field names never change meaning; times are RFC 3339 UTC, durations carry their unit.

use crate::handle::RuntimeHandle;
use lair_supervision::{
    DownReason, ExitEvidence, ExitStatus, Notice, NoticeKind, Origin, StartFault, StopCause, Tri,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

/// A notice, to be serialised.
pub struct WireEvent<'a>(pub &'a Notice);

impl Serialize for WireEvent<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let n = self.0;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("seq", &n.seq)?;
        map.serialize_entry("at", &RuntimeHandle::rfc3339(n.wall_ms))?;
        map.serialize_entry("type", kind_word(&n.kind))?;
        map.serialize_entry("name", n.id.as_str())?;
        map.serialize_entry("run", &n.inc)?;
        match &n.origin {
            Origin::Observed => map.serialize_entry("origin", "observed")?,
            Origin::Requested { peer } => {
                map.serialize_entry("origin", "requested")?;
                map.serialize_entry("peer", peer)?;
            }
            Origin::Injected { label } => {
                map.serialize_entry("origin", "injected")?;
                map.serialize_entry("label", label)?;
            }
        }
        if let Value::Object(more) = details(&n.kind) {
            for (key, value) in &more {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// The stable word of a kind.
#[must_use]
pub fn kind_word(kind: &NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Loaded => "module.loaded",
        NoticeKind::Unloaded => "module.unloaded",
        NoticeKind::Changed { .. } => "module.changed",
        NoticeKind::Reloaded { .. } => "runtime.reloaded",
        NoticeKind::Starting => "module.starting",
        NoticeKind::Running => "module.running",
        NoticeKind::Ready => "module.ready",
        NoticeKind::NotReady => "module.not_ready",
        NoticeKind::Settled => "module.settled",
        NoticeKind::Frozen => "module.frozen",
        NoticeKind::Thawed => "module.thawed",
        NoticeKind::Parked { .. } => "module.parked",
        NoticeKind::Woke { .. } => "module.woke",
        NoticeKind::Stopping { .. } => "module.stopping",
        NoticeKind::Killing => "module.killing",
        NoticeKind::Stuck => "module.stuck",
        NoticeKind::SightLost => "module.sight_lost",
        NoticeKind::SightRegained => "module.sight_regained",
        NoticeKind::Adopted => "module.adopted",
        NoticeKind::StartFailed { .. } => "module.start_failed",
        NoticeKind::Exited { .. } => "module.exited",
        NoticeKind::Down { reason } if down_code(reason).1 => "module.failed",
        NoticeKind::Down { .. } => "module.stopped",
        NoticeKind::Backoff { .. } => "module.backoff",
        NoticeKind::Held => "module.held",
        NoticeKind::GroupRestart { .. } => "group.restart",
        NoticeKind::GroupGaveUp { .. } => "group.gave_up",
        NoticeKind::Health { .. } => "module.health",
        NoticeKind::Exposure { .. } => "module.exposure",
        NoticeKind::LogDegraded { .. } => "module.log_degraded",
        NoticeKind::LogRecovered { .. } => "module.log_recovered",
        NoticeKind::LimitNotEnforced { .. } => "module.limit_not_enforced",
        NoticeKind::ModeFallback { .. } => "module.mode_fallback",
        NoticeKind::Pulling { .. } => "module.pulling",
        NoticeKind::Reclaimed { .. } => "module.reclaimed",
        NoticeKind::Differs { .. } => "module.differs",
        NoticeKind::FootprintChanged { .. } => "module.footprint_changed",
        NoticeKind::Injected { .. } => "fault.injected",
        NoticeKind::OwnerDied => "module.owner_died",
    }
}

fn details(kind: &NoticeKind) -> Value {
    match kind {
        NoticeKind::Stopping { cause } => json!({ "cause": cause_word(*cause) }),
        NoticeKind::StartFailed { fault } => start_fault(fault),
        NoticeKind::Exited { status, evidence } => json!({ "exit": exit(*status, evidence) }),
        NoticeKind::Down { reason } => {
            let mut about = json!({ "reason": down_code(reason).0 });
            if let (DownReason::StartFailed(fault), Some(map)) = (reason, about.as_object_mut()) {
                map.insert("fault".into(), start_fault(fault));
            }
            about
        }
        NoticeKind::Backoff { delay, attempt } => {
            json!({ "delay_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), "attempt": attempt })
        }
        NoticeKind::Health {
            state,
            reason,
            probe,
        } => {
            json!({ "health": { "state": state, "reason": reason, "probe": probe } })
        }
        NoticeKind::Exposure { state, sockets } => {
            json!({ "exposure": state, "sockets": sockets })
        }
        NoticeKind::Parked {
            freed,
            gpu_freed,
            took_ms,
        } => json!({ "freed": freed, "gpu_freed": gpu_freed, "took_ms": took_ms }),
        NoticeKind::Woke { ready, took_ms } => json!({ "ready": ready, "took_ms": took_ms }),
        NoticeKind::LogDegraded { fault } => json!({ "fault": fault }),
        NoticeKind::LogRecovered { dropped } => json!({ "dropped": dropped }),
        NoticeKind::LimitNotEnforced {
            limit,
            asked,
            reason,
        } => json!({ "limit": limit, "asked": asked, "reason": reason }),
        NoticeKind::ModeFallback { reason } => json!({ "reason": reason }),
        NoticeKind::Pulling { progress } => json!({ "progress": progress }),
        NoticeKind::Reclaimed { what } => json!({ "what": what }),
        NoticeKind::Differs { what } => json!({ "what": what }),
        NoticeKind::FootprintChanged { what } => json!({ "what": what }),
        NoticeKind::Injected { fault } => json!({ "fault": fault }),
        NoticeKind::Changed { live, next_start } => {
            json!({ "live": live, "next_start": next_start })
        }
        NoticeKind::Reloaded { report } => serde_json::from_str(report).unwrap_or_default(),
        NoticeKind::GroupRestart { group, members } => {
            json!({ "group": group, "members": members })
        }
        NoticeKind::GroupGaveUp { group, reason } => json!({ "group": group, "reason": reason }),
        NoticeKind::Loaded
        | NoticeKind::Held
        | NoticeKind::Unloaded
        | NoticeKind::Starting
        | NoticeKind::Running
        | NoticeKind::Ready
        | NoticeKind::NotReady
        | NoticeKind::Settled
        | NoticeKind::Frozen
        | NoticeKind::Thawed
        | NoticeKind::Killing
        | NoticeKind::Stuck
        | NoticeKind::SightLost
        | NoticeKind::SightRegained
        | NoticeKind::Adopted
        | NoticeKind::OwnerDied => Value::Null,
    }
}

fn exit(status: ExitStatus, evidence: &ExitEvidence) -> Value {
    let mut exit = match status {
        ExitStatus::Code(code) => json!({ "code": code }),
        ExitStatus::Signal(signal) => json!({ "signal": signal }),
        ExitStatus::Unknown => json!({ "unknown": true }),
    };
    if let Some(map) = exit.as_object_mut() {
        let oom = match evidence.oom {
            Tri::Yes => json!(true),
            Tri::No => json!(false),
            Tri::Unknown => Value::Null,
        };
        map.insert("oom".into(), oom);
        map.insert("by_us".into(), json!(evidence.by_us));
        map.insert("leftover".into(), json!(evidence.leftover));
        map.insert("log_dropped".into(), json!(evidence.log_dropped));
    }
    exit
}

fn start_fault(fault: &StartFault) -> Value {
    json!({ "stage": fault.stage, "errno": fault.errno, "message": fault.message, "transient": fault.transient })
}

/// The word for programs, which leaves out the probe.
fn cause_word(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Unhealthy(_) => "unhealthy",
        other => lair_actors::status::cause_word(other),
    }
}

/// The stable code of a reason, and whether it is a failure.
fn down_code(reason: &DownReason) -> (&'static str, bool) {
    match reason {
        DownReason::NeverStarted => ("never_started", false),
        DownReason::Requested => ("requested", false),
        DownReason::ShutDown => ("shut_down", false),
        DownReason::Completed(_) => ("completed", false),
        DownReason::Crashed(_) => ("crashed", true),
        DownReason::StartFailed(_) => ("start_failed", true),
        DownReason::StartTimedOut => ("start_timed_out", true),
        DownReason::Unhealthy(_) => ("unhealthy", true),
        DownReason::NotReadyInTime => ("not_ready_in_time", true),
        DownReason::GaveUp { .. } => ("gave_up", true),
        DownReason::Exposed => ("exposure_violated", true),
        DownReason::Internal => ("internal", true),
        DownReason::Group => ("group_restart", false),
        DownReason::GroupGaveUp => ("group_gave_up", true),
    }
}
