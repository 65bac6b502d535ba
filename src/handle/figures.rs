//! What metrics are made of, besides status.

use super::RuntimeHandle;
use lair_actors::tally::Counts;
use lair_supervision::ChildId;
use std::collections::BTreeMap;
use std::time::Duration;

impl RuntimeHandle {
    /// What each loaded module's events add up to since this runtime started.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<ChildId, Counts> {
        self.inner.events.tally().read()
    }

    /// Since this runtime started.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.inner.clock.now().0
    }

    /// Dossiers that were not written.
    pub(crate) fn dossiers_lost(&self) -> u64 {
        self.inner.archive.lost()
    }
}
