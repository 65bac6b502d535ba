//! Runs probes and says what they found: one actor for all modules.
//!
//! Owns: when each module is looked at, and what the looks come to. Promises: handlers never wait; at most one probe of
//! a kind under way for each module; nothing is reported of another incarnation, nor after `Unwatch` but that health is
//! unknown again; a module without probes costs no timer; running is not healthy. Never: decides a module's life; it
//! reports to the root through [`HealthSink`].
//!
//! **Lateness.** A failure counts only if lair itself was on time. One that is found by a probe that began late (its
//! timer fired late by more than [`crate::probe::slack`]), or during which we did not run for as long (stopped, asleep,
//! starved), is discarded: it changes nothing, and `checked` does not move. Success always counts. A watchdog or a
//! stall clock that is looked at too late starts anew. After a pause each probe runs once, not once for each interval
//! missed.
//!
//! **Startup.** Where a startup probe has a stall time or the module a ready deadline, those two end it and nothing
//! else: the failures that a slow load makes are not counted against it, however many.

mod actor;
mod contain;
mod memory;
mod progress;
mod schedule;
mod verdict;
mod watched;
mod worker;

pub use actor::{HealthActor, HealthArgs};
pub use memory::Memory;
pub(crate) use watched::pause;

use crate::messages::HealthReport;
use crate::probe::Look;
use lair_supervision::{ChildId, ProbeKind, Uptime};
use std::ops::ControlFlow;

/// Where findings go: the root.
pub trait HealthSink: Send + Sync + 'static {
    /// A send, nothing that waits. A verdict that explains an event comes before that event.
    fn report(&self, id: &ChildId, inc: u64, report: HealthReport);
}

/// Called with each matching line until it breaks off.
pub type OnLine = Box<dyn FnMut(&str) -> ControlFlow<()> + Send>;

/// What the health actor needs of the logs.
pub trait LogEvidence: Send + Sync + 'static {
    /// Bytes that this run has written so far; `None` if nobody counts them.
    fn bytes(&self, id: &ChildId, inc: u64) -> Option<u64>;

    /// Calls `on_line` for each complete line of this run that matches, those before the call included where they are
    /// still to be had. Watching again replaces.
    ///
    /// # Errors
    /// Why the lines can't be watched; it becomes evidence.
    fn watch_pattern(
        &self,
        id: &ChildId,
        inc: u64,
        pattern: &str,
        on_line: OnLine,
    ) -> Result<(), String>;

    /// Ends the watching.
    fn unwatch(&self, id: &ChildId, inc: u64);
}

/// A runtime without logs.
pub struct NoLogs;

impl LogEvidence for NoLogs {
    fn bytes(&self, _id: &ChildId, _inc: u64) -> Option<u64> {
        None
    }

    fn watch_pattern(
        &self,
        _id: &ChildId,
        _inc: u64,
        _pattern: &str,
        _on_line: OnLine,
    ) -> Result<(), String> {
        Err("this runtime keeps no logs".into())
    }

    fn unwatch(&self, _id: &ChildId, _inc: u64) {}
}

/// What a task of the health actor found.
pub struct ProbeDone {
    id: ChildId,
    inc: u64,
    done: Done,
}

enum Done {
    /// A probe.
    Look {
        kind: ProbeKind,
        serial: u64,
        look: Look,
    },
    /// A look at progress.
    Progress {
        due: Uptime,
        evidence: progress::Evidence,
    },
    /// It closed its ready descriptor and has not ended.
    Never,
    /// A look for it on its GPUs.
    Gpus(watched::GpuLook),
}

/// What a timer, or a word of the module's, is about.
pub struct Tick(What);

enum What {
    /// A probe, or the watchdog, is due.
    Due {
        kind: ProbeKind,
        serial: u64,
        due: Uptime,
    },
    /// Progress is to be looked at.
    Progress { due: Uptime },
    /// The module said something, or a line matched.
    Said,
    /// The ready descriptor was closed a moment ago.
    Never,
}
