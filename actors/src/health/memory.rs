//! What must outlive the health actor: counts, verdicts, and the descriptors on which modules speak.
//!
//! Held by whoever starts the actor, so that its next life goes on where the last one ended: nothing that was learnt
//! is unlearnt, no ready descriptor is closed, no matched line forgotten.

use super::watched::Heard;
use super::worker::Lines;
use crate::probe::ready::ReadyListener;
use crate::view::HealthView;
use lair_supervision::{ChildId, HealthState, Uptime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One incarnation's part.
#[derive(Clone)]
pub(super) struct Remembered {
    pub inc: u64,
    pub since: Uptime,
    pub state: HealthState,
    pub view: HealthView,
    pub topic: String,
    pub heard: Heard,
    pub doomed: Option<String>,
    pub source: Option<Arc<ReadyListener>>,
    pub lines: Arc<Lines>,
}

/// All parts, by module. Give the same one to each life of the actor.
#[derive(Default)]
pub struct Memory {
    parts: Mutex<BTreeMap<ChildId, Box<Remembered>>>,
}

impl Memory {
    pub(super) fn recall(&self, id: &ChildId, inc: u64) -> Option<Remembered> {
        let parts = self.lock();
        let part = parts.get(id).filter(|part| part.inc == inc)?;
        Some(Remembered::clone(part))
    }

    pub(super) fn keep(&self, id: &ChildId, part: Remembered) {
        self.lock().insert(id.clone(), Box::new(part));
    }

    /// Forgets every incarnation that is not `live`: what was unwatched while no actor was there to hear it.
    pub fn retain(&self, live: impl Fn(&ChildId, u64) -> bool) {
        self.lock().retain(|id, part| live(id, part.inc));
    }

    pub(super) fn forget(&self, id: &ChildId, inc: u64) {
        let mut parts = self.lock();
        if parts.get(id).is_some_and(|part| part.inc == inc) {
            parts.remove(id);
        }
    }

    // Each critical section is a single map operation: a panic leaves whole values behind.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChildId, Box<Remembered>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
