//! What a supervisor should do next, and never doing it.
//!
//! Owns: the vocabulary of a child's life ([`child`], [`spec`], [`event`], [`effect`], [`notice`]) and the one
//! function that moves it, [`decide::decide`]; what it weighs ([`restart`], [`probe`], [`shutdown`]), what the
//! machine is promised to ([`account`]), and how a child reads to people and programs ([`status`]). Promises: total
//! (every phase meets every event), deterministic, no clock, no randomness but a seed, no I/O. Never: waits, spawns, logs, or names an actor.
#![forbid(unsafe_code)]

pub mod account;
pub mod admission;
pub mod child;
pub mod decide;
pub mod effect;
pub mod event;
pub mod exposure;
pub mod group;
pub mod notice;
pub mod probe;
pub mod restart;
pub mod shutdown;
pub mod spec;
pub mod status;
pub mod time;

pub use account::{Account, Claim, GpuClaim, Measured, Pool, Shortage};
pub use admission::{Admission, DeniedReason, Request};
pub use child::{Child, ChildIdentity, Desired, DownReason, Phase, Readiness, Sight, StopCause};
pub use decide::{Decision, Ignored, Outcome, decide};
pub use effect::{Effect, Scope, TimerKind};
pub use event::{ChildEvent, ExitEvidence, ExitStatus, Origin, StartFault, StartStage, Tri};
pub use group::{Group, GroupFailure, GroupPhase, GroupSpec, Strategy};
pub use notice::{Notice, NoticeKind, Seq};
pub use probe::{Health, HealthChange, HealthState, HealthVerdict, ProbeOutcome};
pub use restart::{Rest, Verdict, verdict};
pub use shutdown::ShutdownPlan;
pub use spec::{
    Backoff, ChildId, ChildSpec, Intensity, OnLiveness, ProbeKind, ProbeSpec, Probes, RestartType,
    SuccessCodes,
};
pub use status::{Exit, Lifecycle, Reason, ReasonCode, State};
pub use time::Uptime;
