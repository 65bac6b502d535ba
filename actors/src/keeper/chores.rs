//! What can wait until nobody waits for the keeper: removing the groups of children that are forgotten.
//!
//! Promises that a restart is not held up by what its former life left, and that everything is done before the
//! keeper ends.

#![allow(
    clippy::disallowed_methods,
    reason = "the keeper has no runtime above it: its rounds are timed by its own clock"
)]

use std::time::{Duration, Instant};

use super::cgroup;
use super::spec::CgroupDir;

/// How long a group may stay after its child is forgotten; longer than a restart takes.
const LATER: Duration = Duration::from_millis(5);

/// Groups to be removed, and when.
#[derive(Default)]
pub(super) struct Chores {
    groups: Vec<CgroupDir>,
    due: Option<Instant>,
}

impl Chores {
    pub(super) fn add(&mut self, groups: impl Iterator<Item = CgroupDir>) {
        self.groups.extend(groups);
        if !self.groups.is_empty() {
            self.due = Some(Instant::now() + LATER);
        }
    }

    /// When there is something to do, if there is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does what is due.
    pub(super) fn turn(&mut self) {
        if self.due.is_some_and(|at| at <= Instant::now()) {
            self.finish();
        }
    }

    /// Does everything, due or not.
    pub(super) fn finish(&mut self) {
        self.due = None;
        for group in self.groups.drain(..) {
            cgroup::remove(&group);
        }
        self.groups.shrink_to(16);
    }
}
