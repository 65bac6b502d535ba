//! One probe of one incarnation: its timer, and the look that is under way.

use crate::clock::{Clock, Fire, TimerId};
use lair_manifests::launch::ProbeAction;
use lair_supervision::{ProbeKind, ProbeSpec, Uptime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::AbortHandle;

/// An armed timer. Dropping it disarms it.
pub(super) struct Armed {
    clock: Arc<dyn Clock>,
    timer: TimerId,
}

impl Armed {
    pub fn at(clock: &Arc<dyn Clock>, at: Uptime, fire: Fire) -> Self {
        Armed {
            clock: clock.clone(),
            timer: clock.arm(at, fire),
        }
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.clock.cancel(self.timer);
    }
}

/// A task under way. Dropping it ends it.
pub(super) struct Running(pub AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A look under way.
pub(super) struct Flight {
    pub began: Uptime,
    /// It began too late: its failure may be ours.
    pub late: bool,
    pub _task: Running,
}

/// One probe.
pub(super) struct Worker {
    pub spec: ProbeSpec,
    pub action: ProbeAction,
    /// Numbers looks and timers; what carries another number is of the past.
    pub serial: u64,
    pub timer: Option<Armed>,
    pub flight: Option<Flight>,
}

impl Worker {
    pub fn new(spec: ProbeSpec, action: ProbeAction) -> Self {
        Worker {
            spec,
            action,
            serial: 0,
            timer: None,
            flight: None,
        }
    }

    pub fn idle(&self) -> bool {
        self.timer.is_none() && self.flight.is_none()
    }

    pub fn rest(&mut self) {
        self.timer = None;
        self.flight = None;
    }
}

/// Does the module say this by itself, so that nobody has to ask?
pub(super) fn is_told(action: &ProbeAction) -> bool {
    match action {
        ProbeAction::Log { .. } | ProbeAction::Notify => true,
        ProbeAction::Command(_)
        | ProbeAction::Http { .. }
        | ProbeAction::Tcp { .. }
        | ProbeAction::Image => false,
    }
}

/// Which log patterns have matched.
#[derive(Debug, Default)]
pub(super) struct Lines([AtomicBool; 3]);

impl Lines {
    pub fn matched(&self, kind: ProbeKind) -> bool {
        self.0[kind as usize].load(Ordering::Acquire)
    }

    /// True if it is news.
    pub fn set(&self, kind: ProbeKind) -> bool {
        !self.0[kind as usize].swap(true, Ordering::AcqRel)
    }
}
