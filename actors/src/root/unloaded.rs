//! The last runs of modules that were unloaded: whoever loads one again goes on counting.
//!
//! Promises that no two runs of a life of the runtime have one number, though the first one's log was not written yet or
//! was removed; the oldest of more than [`KEPT`] are forgotten, whose logs had their time. Never: reads a file.

use lair_supervision::ChildId;
use std::collections::VecDeque;

/// Modules that are remembered.
const KEPT: usize = 1024;

/// Names and last runs, oldest first.
#[derive(Default)]
pub(super) struct Unloaded(VecDeque<(ChildId, u64)>);

impl Unloaded {
    /// This module is unloaded after that run.
    pub fn remember(&mut self, id: &ChildId, run: u64) {
        self.0.retain(|(known, _)| known != id);
        self.0.push_back((id.clone(), run));
        while self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The module's last run; 0 if none is remembered.
    pub fn last_run(&self, id: &ChildId) -> u64 {
        let found = self.0.iter().find(|(known, _)| known == id);
        found.map_or(0, |(_, run)| *run)
    }
}

#[cfg(test)]
mod test {
    use super::{KEPT, Unloaded};
    use lair_supervision::ChildId;

    #[test]
    fn the_newest_are_remembered_and_no_more_than_promised() {
        let mut unloaded = Unloaded::default();
        let id = |n: usize| ChildId::new(&format!("m{n}"));
        for n in 0..=KEPT {
            unloaded.remember(&id(n), 1);
        }
        unloaded.remember(&id(1), 7);
        assert_eq!(unloaded.last_run(&id(0)), 0);
        assert_eq!(unloaded.last_run(&id(1)), 7);
        assert_eq!(unloaded.last_run(&id(KEPT)), 1);
        assert_eq!(unloaded.0.len(), KEPT);
    }
}
