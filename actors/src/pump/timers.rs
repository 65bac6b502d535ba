//! What the pump does later. Empty when nothing is written, so that it sleeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Why the pump wakes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A busy stream has been left to fill its pipe for a moment.
    Gathered { run: RunId, side: usize },
    /// A piece of a line may have waited long enough.
    Piece { run: RunId, side: usize },
    /// lair's own records have waited long enough.
    Remarks { run: RunId },
    /// A drain's bound is reached.
    DrainBound { run: RunId },
    /// Nothing may have happened for a while: buffers can go.
    Rest,
}

/// A place in the registry, and which tenant of it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunId {
    pub slot: u32,
    pub serial: u32,
}

/// Alarms by time.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, Alarm)>>);

// -----------------------------------------------------------------------------

impl Timers {
    pub fn set(&mut self, at: Instant, alarm: Alarm) {
        self.0.push(Reverse((at, alarm)));
    }

    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub fn due(&mut self, now: Instant) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, alarm))| alarm)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
