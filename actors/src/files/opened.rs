//! The few descriptors that all open segments share.
//!
//! A module's segment needs a descriptor only while it is written; the least recently
//! used one is closed when there are too many, and opened again by need.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
struct Entry {
    key: u64,
    used: u64,
    fd: OwnedFd,
}

/// Open segment files, by the key of their lane.
#[derive(Debug)]
pub(crate) struct Opened {
    entries: Vec<Entry>,
    most: usize,
    tick: u64,
}

// -----------------------------------------------------------------------------

impl Opened {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            entries: Vec::new(),
            most: most.max(1),
            tick: 0,
        }
    }

    pub(crate) fn get(&mut self, key: u64) -> Option<BorrowedFd<'_>> {
        self.tick += 1;
        let tick = self.tick;
        let entry = self.entries.iter_mut().find(|e| e.key == key)?;
        entry.used = tick;
        Some(entry.fd.as_fd())
    }

    pub(crate) fn put(&mut self, key: u64, fd: OwnedFd) {
        self.close(key);
        if self.entries.len() >= self.most
            && let Some(oldest) = (0..self.entries.len()).min_by_key(|&i| self.entries[i].used)
        {
            self.entries.swap_remove(oldest);
        }
        self.tick += 1;
        self.entries.push(Entry {
            key,
            used: self.tick,
            fd,
        });
    }

    pub(crate) fn close(&mut self, key: u64) {
        self.entries.retain(|e| e.key != key);
    }

    /// Closes all; each is opened again by need.
    pub(crate) fn clear(&mut self) {
        self.entries = Vec::new();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
