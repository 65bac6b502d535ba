//! The keeper's table: every child it was asked to start and has not been allowed to forget.
//!
//! Owns the streams' duplicates and the exit statuses, and knows what the runtime has yet to be told about each
//! child; the table is the queue, so a runtime that does not read costs no memory. Never makes a system call.

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::os::fd::OwnedFd;

use super::spec::{CgroupDir, ChildKey, ProcessId};

/// One child.
pub(super) struct Entry {
    pub(super) process: ProcessId,
    pub(super) stop_signal: i32,
    pub(super) marker: CString,
    pub(super) cgroups: Vec<CgroupDir>,
    /// Given up when acknowledged.
    pub(super) streams: Vec<OwnedFd>,
    /// The raw wait status, once the child itself has ended and was reaped.
    pub(super) status: Option<i32>,
    /// Nothing is left of its tree; implies a status.
    pub(super) empty: bool,
    pub(super) acked: bool,
    /// Its tree is to be killed until nothing is left.
    pub(super) killing: bool,
    pub(super) due: Due,
}

/// What the runtime has yet to be told about one child.
#[derive(Clone, Copy, Default)]
pub(super) struct Due {
    pub(super) spawned: bool,
    pub(super) listed: bool,
    pub(super) exited: bool,
    pub(super) empty: bool,
    queued: bool,
}

#[derive(Default)]
pub(super) struct Children {
    entries: HashMap<ChildKey, Entry>,
    /// Unreaped children, by number.
    leaders: HashMap<i32, ChildKey>,
    /// All that linger, and perhaps some that did.
    lingering: Vec<ChildKey>,
    due: VecDeque<ChildKey>,
}

impl Entry {
    /// The v2 group, if there is one: the proof of the tree's end.
    pub(super) fn unified(&self) -> Option<&CgroupDir> {
        self.cgroups.iter().find(|group| group.unified)
    }

    /// The child itself is gone, something of its tree is not, or may not be.
    pub(super) fn lingers(&self) -> bool {
        self.status.is_some() && !self.empty
    }
}

impl Children {
    pub(super) fn contains(&self, key: ChildKey) -> bool {
        self.entries.contains_key(&key)
    }

    pub(super) fn get(&self, key: ChildKey) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: ChildKey) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ChildKey, &Entry)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ChildKey, &mut Entry)> {
        self.entries.iter_mut().map(|(key, entry)| (*key, entry))
    }

    pub(super) fn keys(&self) -> Vec<ChildKey> {
        self.entries.keys().copied().collect()
    }

    /// Whose unreaped leader this number is.
    pub(super) fn leader(&self, pid: i32) -> Option<ChildKey> {
        self.leaders.get(&pid).copied()
    }

    pub(super) fn insert(&mut self, key: ChildKey, entry: Entry) {
        self.leaders.insert(entry.process.pid, key);
        self.entries.insert(key, entry);
    }

    /// Takes a reaped leader's status; nothing if the number is no leader's, but an orphan's.
    pub(super) fn reaped(&mut self, pid: i32, status: i32) -> Option<ChildKey> {
        let key = self.leaders.remove(&pid)?;
        self.entries.get_mut(&key)?.status = Some(status);
        self.lingering.push(key);
        self.owe(key, |due| due.exited = true);
        Some(key)
    }

    /// Those whose tree is not known to be gone, in the order of their ends: no look at all the others for it.
    pub(super) fn lingering(&mut self) -> Vec<ChildKey> {
        let entries = &self.entries;
        let lingers = |key: &ChildKey| entries.get(key).is_some_and(Entry::lingers);
        self.lingering.retain(lingers);
        self.lingering.clone()
    }

    /// The tree is gone. Within the exit's own message where that has not been sent yet.
    pub(super) fn emptied(&mut self, key: ChildKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.empty = true;
            entry.killing = false;
            self.owe(key, |due| due.empty = !due.exited);
        }
    }

    /// Forgets the child if it is over and the runtime knows.
    pub(super) fn forget_finished(&mut self, key: ChildKey) -> Option<Entry> {
        if self
            .entries
            .get(&key)
            .is_some_and(|entry| entry.acked && entry.empty && !entry.due.empty)
        {
            self.entries.remove(&key)
        } else {
            None
        }
    }

    /// Notes that the runtime has something to be told.
    pub(super) fn owe(&mut self, key: ChildKey, what: impl FnOnce(&mut Due)) {
        if let Some(entry) = self.entries.get_mut(&key) {
            what(&mut entry.due);
            if !entry.due.queued {
                entry.due.queued = true;
                self.due.push_back(key);
            }
        }
    }

    /// The next child about which the runtime has something to be told.
    pub(super) fn next_due(&self) -> Option<ChildKey> {
        self.due.front().copied()
    }

    /// Everything about that child has been told.
    pub(super) fn told(&mut self) {
        if let Some(key) = self.due.pop_front()
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.due = Due::default();
        }
    }

    /// There is nobody to tell any more; the next runtime will ask.
    pub(super) fn tell_nobody(&mut self) {
        self.due.clear();
        for entry in self.entries.values_mut() {
            entry.due = Due::default();
        }
    }
}
