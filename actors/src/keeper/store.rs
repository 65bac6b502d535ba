//! Descriptors that the runtime wants its next life to have: sockets it listens on, memory it shares with nobody.
//!
//! Owns duplicates under tags. Promises to give each back with every list, and that there are only so many. Never looks
//! into one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Tags at most: one for each module, and some for the runtime itself.
const MOST: usize = 4096 + 16;

/// What is stored.
#[derive(Default)]
pub(super) struct Store {
    kept: BTreeMap<CString, Vec<OwnedFd>>,
    /// Tags that are still to be told in the list under way.
    due: Vec<CString>,
}

impl Store {
    /// Keeps descriptors, in place of those with this tag. The error number says why not.
    pub(super) fn put(&mut self, tag: CString, fds: Vec<OwnedFd>) -> Result<(), i32> {
        if fds.is_empty() {
            return Err(libc::EBADF);
        }
        if self.kept.len() >= MOST && !self.kept.contains_key(&tag) {
            return Err(libc::ENOSPC);
        }
        self.kept.insert(tag, fds);
        Ok(())
    }

    pub(super) fn remove(&mut self, tag: &CString) {
        self.kept.remove(tag);
    }

    /// All of them are to be told.
    pub(super) fn list(&mut self) {
        self.due = self.kept.keys().cloned().collect();
    }

    /// The next to be told, with its descriptors.
    pub(super) fn next_due(&self) -> Option<(&CString, &[OwnedFd])> {
        let tag = self.due.last()?;
        Some((tag, self.kept.get(tag).map_or(&[][..], Vec::as_slice)))
    }

    pub(super) fn told(&mut self) {
        self.due.pop();
    }

    pub(super) fn tell_nobody(&mut self) {
        self.due.clear();
    }
}
