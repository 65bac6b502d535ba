//! A bounded ring of notices with sequence numbers; whoever lags is told which ones are gone.
//!
//! Owns: the last notices, and what all of them add up to. Promises: numbers without holes; a reader gets every notice it is not too late for, in
//! order, and an explicit gap else. Never: waits for a reader.

use crate::tally::Tally;
use lair_supervision::{ChildId, Notice, Seq};
use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};
use tokio::sync::watch;

/// Notices kept by default.
pub const KEPT: usize = 4096;

/// The ring. One writer (the root actor), any number of readers.
pub struct EventLog {
    ring: RwLock<VecDeque<std::sync::Arc<Notice>>>,
    capacity: usize,
    newest: watch::Sender<Seq>,
    tally: Tally,
}

/// What a reader gets.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Notices that are gone for good: first and last number.
    pub gap: Option<(Seq, Seq)>,
    /// Notices in order.
    pub notices: Vec<std::sync::Arc<Notice>>,
}

impl EventLog {
    /// An empty ring for `capacity` notices.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        EventLog {
            ring: RwLock::new(VecDeque::new()),
            capacity: capacity.max(1),
            newest: watch::Sender::new(Seq(0)),
            tally: Tally::default(),
        }
    }

    /// An empty ring whose first notice gets the number after `newest`: what came before is a gap to every reader.
    #[must_use]
    pub fn after(newest: Seq, capacity: usize) -> Self {
        EventLog {
            ring: RwLock::new(VecDeque::new()),
            capacity: capacity.max(1),
            newest: watch::Sender::new(newest),
            tally: Tally::default(),
        }
    }

    /// Number of the newest notice; 0 if there was none.
    #[must_use]
    pub fn newest(&self) -> Seq {
        *self.newest.borrow()
    }

    /// What all notices so far add up to.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Appends a notice and gives it the next number.
    pub fn append(&self, mut notice: Notice) -> Seq {
        let seq = Seq(self.newest().0 + 1);
        notice.seq = seq;
        self.tally.take(&notice);
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == self.capacity {
            ring.pop_front();
        }
        ring.push_back(std::sync::Arc::new(notice));
        drop(ring);
        self.newest.send_replace(seq);
        seq
    }

    /// Up to `max` notices after number `after`.
    #[must_use]
    pub fn read(&self, after: Seq, max: usize) -> Batch {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let Some(oldest) = ring.front().map(|n| n.seq.0) else {
            return Batch::default();
        };
        let first = after.0 + 1;
        let gap = (first < oldest).then_some((Seq(first), Seq(oldest - 1)));
        let skip = usize::try_from(first.saturating_sub(oldest)).unwrap_or(usize::MAX);
        Batch {
            gap,
            notices: ring.iter().skip(skip).take(max).cloned().collect(),
        }
    }

    /// The kept notices of one run, oldest first.
    #[must_use]
    pub fn of(&self, id: &ChildId, inc: u64) -> Vec<std::sync::Arc<Notice>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let its = |n: &&std::sync::Arc<Notice>| n.inc == inc && n.id == *id;
        ring.iter().filter(its).cloned().collect()
    }

    /// Follows the newest number: `changed().await` wakes a reader.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.newest.subscribe()
    }
}
