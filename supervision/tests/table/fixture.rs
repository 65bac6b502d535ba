//! Children and events by name: `up, ready, permanent, budget used`, `Deadline(Grace)`.

use lair_supervision::child::RestartHistory;
use lair_supervision::{
    Child, ChildEvent, ChildId, ChildIdentity, ChildSpec, Desired, DownReason, ExitEvidence,
    ExitStatus, Phase, ProbeKind, Readiness, RestartType, Sight, StartFault, StartStage, StopCause,
    TimerKind, Uptime,
};
use std::time::Duration;

pub const NOW: Uptime = Uptime(Duration::from_secs(100));
const BEFORE: Uptime = Uptime(Duration::from_secs(90));
const INC: u64 = 7;

pub const PHASES: [&str; 5] = ["down", "spawning", "up", "stopping", "waiting"];

pub const EVENTS: [&str; 29] = [
    "StartRequested",
    "StopRequested",
    "KillRequested",
    "RestartRequested",
    "ShutdownRequested",
    "FreezeRequested",
    "ThawRequested",
    "Adopted(7)",
    "Spawned",
    "SpawnFailed",
    "BecameReady",
    "LostReadiness",
    "LivenessFailed",
    "Stalled",
    "Exposed",
    "Exited(1)",
    "SightLost",
    "SightRegained",
    "OwnerDied",
    "Held",
    "Released(0)",
    "GivenUp",
    "Deadline(Start)",
    "Deadline(Readiness)",
    "Deadline(Settle)",
    "Deadline(Grace)",
    "Deadline(Kill)",
    "Deadline(Backoff)",
    "Deadline(Resight)",
];

pub fn child(name: &str) -> (ChildSpec, Child) {
    let mut spec = ChildSpec::new(ChildId::new("m"));
    spec.backoff.jitter = 0.0;
    spec.ready_deadline = Some(Duration::from_secs(30));
    let mut child = Child::loaded(INC);
    for word in name.split(", ") {
        if !of_spec(&mut spec, word) && !of_child(&mut child, word) && !of_phase(&mut child, word) {
            panic!("what is a child that is {word:?}?");
        }
    }
    (spec, child)
}

fn of_spec(spec: &mut ChildSpec, word: &str) -> bool {
    match word {
        "transient" => spec.restart = RestartType::Transient,
        "permanent" => spec.restart = RestartType::Permanent,
        "at once" => spec.backoff.first = Duration::ZERO,
        "must say ready" => spec.awaits_ready = true,
        "grouped" => spec.grouped = true,
        "without patience" => spec.ready_deadline = None,
        _ => return false,
    }
    true
}

fn of_child(child: &mut Child, word: &str) -> bool {
    match word {
        "draining" => child.draining = true,
        "wanted" => child.desired = Desired::Up,
        "unwanted" => child.desired = Desired::Down,
        "once ready" => child.was_ready = true,
        "budget used" => {
            child.history = RestartHistory {
                at: [BEFORE; 5].into(),
                streak: 5,
                total: 5,
            }
        }
        _ => return false,
    }
    true
}

fn of_phase(child: &mut Child, word: &str) -> bool {
    if let Some(phase) = phase(word) {
        child.desired = match phase {
            Phase::Down(_) => Desired::Down,
            Phase::Spawning { .. } | Phase::Up { .. } | Phase::Waiting { .. } => Desired::Up,
            Phase::Stopping { .. } => Desired::Down,
        };
        child.phase = phase;
        return true;
    }
    match (&mut child.phase, word) {
        (Phase::Spawning { abort, .. }, "aborted") => *abort = Some(Duration::from_secs(10)),
        (Phase::Spawning { abort, .. }, "killed") => *abort = Some(Duration::ZERO),
        (Phase::Waiting { until, .. }, "held") => *until = None,
        (Phase::Up { readiness, .. }, "awaited") => {
            let deadline = Some(BEFORE + Duration::from_secs(30));
            *readiness = Readiness::Awaiting { deadline };
        }
        (Phase::Up { frozen, .. }, "frozen") => *frozen = Some(BEFORE + Duration::from_secs(4)),
        (Phase::Up { readiness, .. }, "not ready") => {
            *readiness = Readiness::NotReady { since: BEFORE };
        }
        (Phase::Up { readiness, .. }, "settled") => {
            *readiness = Readiness::Ready {
                since: Uptime::ZERO,
            };
        }
        (Phase::Up { sight, .. } | Phase::Stopping { sight, .. }, "out of sight") => {
            *sight = Sight::Lost { since: BEFORE };
        }
        (Phase::Stopping { killed, .. }, "killed") => *killed = true,
        (Phase::Stopping { grace_over, .. }, "grace over") => *grace_over = true,
        (Phase::Stopping { stuck, .. }, "stuck") => *stuck = true,
        (Phase::Stopping { identity, .. }, "not yet made") => *identity = None,
        (Phase::Stopping { cause, .. }, word) => match cause_of(word) {
            Some(why) => *cause = why,
            None => return false,
        },
        _ => return false,
    }
    true
}

fn cause_of(word: &str) -> Option<StopCause> {
    Some(match word {
        "requested" => StopCause::Requested,
        "to restart" => StopCause::Restart,
        "shutdown" => StopCause::Shutdown,
        "unhealthy" => StopCause::Unhealthy(ProbeKind::Liveness),
        "not ready in time" => StopCause::NotReadyInTime,
        "exposed" => StopCause::Exposed,
        "start timed out" => StopCause::StartTimedOut,
        "owner died" => StopCause::OwnerDied,
        "for its group" => StopCause::Group,
        "group gave up" => StopCause::GroupGaveUp,
        _ => return None,
    })
}

fn phase(word: &str) -> Option<Phase> {
    Some(match word {
        "down" => Phase::Down(DownReason::NeverStarted),
        "spawning" => Phase::Spawning {
            since: BEFORE,
            deadline: BEFORE + Duration::from_secs(60),
            abort: None,
        },
        "up" => Phase::Up {
            since: BEFORE,
            identity: identity(),
            readiness: Readiness::Ready { since: BEFORE },
            sight: Sight::Live,
            frozen: None,
        },
        "stopping" => Phase::Stopping {
            since: BEFORE,
            cause: StopCause::Requested,
            deadline: NOW + Duration::from_secs(5),
            killed: false,
            grace_over: false,
            stuck: false,
            identity: Some(identity()),
            sight: Sight::Live,
        },
        "waiting" => Phase::Waiting {
            until: Some(NOW),
            attempt: 1,
            after: Box::new(DownReason::Crashed(ExitStatus::Code(1))),
        },
        _ => return None,
    })
}

fn identity() -> ChildIdentity {
    ChildIdentity::Sim { serial: 1 }
}

/// The event, and the incarnation it is about: `Exited(1) of #6` is about another than the child's.
pub fn event(name: &str, inc: u64) -> (Option<u64>, ChildEvent) {
    let (name, about) = match name.split_once(" of #") {
        Some((name, other)) => (name, other.parse().expect("a number")),
        None => (name, inc),
    };
    let (word, rest) = name.split_once('(').unwrap_or((name, ""));
    let inside = rest.trim_end_matches(')');
    match request(word, inside) {
        Some(request) => (None, request),
        None => (Some(about), report(word, inside)),
    }
}

fn request(word: &str, inside: &str) -> Option<ChildEvent> {
    let grace = inside.strip_suffix('s').and_then(|n| n.parse().ok());
    let grace = grace.map(Duration::from_secs);
    Some(match word {
        "StartRequested" => ChildEvent::StartRequested,
        "StopRequested" => ChildEvent::StopRequested { grace },
        "KillRequested" => ChildEvent::KillRequested,
        "RestartRequested" => ChildEvent::RestartRequested { grace },
        "FreezeRequested" => ChildEvent::FreezeRequested,
        "ThawRequested" => ChildEvent::ThawRequested,
        "ShutdownRequested" => ChildEvent::ShutdownRequested { grace },
        _ => return None,
    })
}

fn report(word: &str, inside: &str) -> ChildEvent {
    match word {
        "Adopted" => ChildEvent::Adopted {
            inc: inside.parse().expect("an incarnation"),
            identity: identity(),
        },
        "Spawned" => ChildEvent::Spawned {
            identity: identity(),
        },
        "SpawnFailed" => ChildEvent::SpawnFailed {
            fault: StartFault {
                stage: StartStage::Exec,
                errno: None,
                message: "no".to_owned(),
                transient: inside == "transient",
            },
        },
        "BecameReady" => ChildEvent::BecameReady,
        "LostReadiness" => ChildEvent::LostReadiness,
        "LivenessFailed" => ChildEvent::LivenessFailed {
            kind: ProbeKind::Liveness,
        },
        "Stalled" => ChildEvent::Stalled,
        "Exposed" => ChildEvent::Exposed,
        "Exited" => ChildEvent::Exited {
            status: match inside {
                "KILL" => ExitStatus::Signal(9),
                "?" => ExitStatus::Unknown,
                code => ExitStatus::Code(code.parse().expect("a code")),
            },
            evidence: ExitEvidence::default(),
        },
        "SightLost" => ChildEvent::SightLost,
        "SightRegained" => ChildEvent::SightRegained,
        "OwnerDied" => ChildEvent::OwnerDied,
        "Held" => ChildEvent::Held,
        "Released" => ChildEvent::Released {
            after: Duration::from_secs(inside.parse().expect("seconds")),
        },
        "GivenUp" => ChildEvent::GivenUp {
            own: (inside == "own").then_some((3, Duration::from_secs(60))),
        },
        "Deadline" => ChildEvent::Deadline(timer(inside)),
        _ => panic!("what is {word:?}?"),
    }
}

fn timer(name: &str) -> TimerKind {
    match name {
        "Start" => TimerKind::Start,
        "Readiness" => TimerKind::Readiness,
        "Settle" => TimerKind::Settle,
        "Grace" => TimerKind::Grace,
        "Kill" => TimerKind::Kill,
        "Backoff" => TimerKind::Backoff,
        "Resight" => TimerKind::Resight,
        _ => panic!("what timer is {name:?}?"),
    }
}
