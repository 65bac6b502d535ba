//! What all runs share: the open files, the upkeep, and who writes what.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::folder::Folder;
use super::name::SegmentName;
use super::opened::Opened;
use super::policy::{LogFault, LogPolicy};
use super::retain::{Kept, chores};
use super::stamp::Stamp;
use super::upkeep::{Upkeep, UpkeepOptions};

/// What all runs share: the open files, the upkeep, who writes what.
#[derive(Debug)]
pub struct Shelf {
    pub(super) log_dir: PathBuf,
    pub(super) opened: Opened,
    upkeep: Upkeep,
    live: HashMap<Arc<str>, Vec<SegmentName>>,
    pins: HashMap<Arc<str>, u64>,
    pub(super) keys: u64,
    pub(super) notices: Vec<LogFault>,
    /// Fault injection: whose writes fail, how, and how many more.
    failing: Option<(Arc<str>, i32, u64)>,
}

impl Shelf {
    /// A shelf for the folders below `log_dir`, with at most `most` files open.
    pub fn new(log_dir: &Path, most: usize, upkeep: UpkeepOptions) -> Self {
        Self {
            log_dir: log_dir.to_owned(),
            opened: Opened::new(most),
            upkeep: Upkeep::new(log_dir.to_owned(), upkeep),
            live: HashMap::new(),
            pins: HashMap::new(),
            keys: 0,
            notices: Vec::new(),
            failing: None,
        }
    }

    /// Faults that cost no byte, since the last call.
    pub fn take_notices(&mut self) -> Vec<LogFault> {
        // An empty Vec allocates nothing, so asking after each write is free.
        std::mem::take(&mut self.notices)
    }

    /// Segment files open now.
    pub fn open_files(&self) -> usize {
        self.opened.len()
    }

    /// Closes all descriptors; they are opened again by need.
    pub fn rest(&mut self) {
        self.opened.clear();
    }

    /// Keeps the last segment of a module's run as long as anything else can go.
    pub fn pin(&mut self, module: &Arc<str>, run: u64) {
        self.pins.insert(module.clone(), run);
    }

    /// Deletes and hands to the upkeep what a module's policy says.
    pub(super) fn tidy(&mut self, folder: &Folder, module: &Arc<str>, policy: &LogPolicy) {
        let Ok((names, leftovers)) = folder.contents() else {
            return;
        };
        let changed = |name: &SegmentName| match policy.max_age {
            None => Some(Stamp(0)),
            Some(_) => folder.stat(&name.to_string()).ok().map(|s| {
                Stamp(
                    s.st_mtime
                        .saturating_mul(1_000_000_000)
                        .saturating_add(s.st_mtime_nsec as _),
                )
            }),
        };
        let kept = names.iter().filter_map(|&name| {
            Some(Kept {
                name,
                changed: changed(&name)?,
            })
        });
        let live = self.live.get(module).map_or(&[][..], Vec::as_slice);
        let pinned = self.pins.get(module).copied();
        let todo = chores(kept.collect(), live, pinned, policy, Stamp::now());
        for name in todo.delete {
            let name = name.to_string();
            // Freeing the pages of a large file takes a while: the upkeep does it.
            if let Ok(held) = folder.hold(&name) {
                self.upkeep.bury(held);
            }
            if let Err(errno) = folder.unlink(&name) {
                self.notices.push(LogFault::io("delete", errno));
            }
        }
        todo.compress
            .into_iter()
            .for_each(|name| self.upkeep.compress(module, name));
        leftovers
            .into_iter()
            .for_each(|name| self.upkeep.sweep(module, name));
    }

    /// Fault injection: the next `count` writes of a module's log fail with this error.
    pub fn fail_writes(&mut self, module: Arc<str>, errno: i32, count: u64) {
        self.failing = Some((module, errno, count));
    }

    /// What is to fail of this module, once.
    pub(super) fn injected(&mut self, module: &str) -> Result<(), LogFault> {
        let Some((_, errno, left)) = self.failing.as_mut().filter(|(m, ..)| **m == *module) else {
            return Ok(());
        };
        let errno = *errno;
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.failing = None;
        }
        Err(LogFault::io("write", Errno::from_raw_os_error(errno)))
    }

    /// Which segments of a module are being written.
    pub(super) fn now_live(
        &mut self,
        module: &Arc<str>,
        gone: SegmentName,
        new: Option<SegmentName>,
    ) {
        let names = self.live.entry(module.clone()).or_default();
        names.retain(|n| *n != gone);
        names.extend(new);
        if names.is_empty() {
            self.live.remove(module);
        }
    }
}

/// Appends to an open segment in one call, or says why not.
pub(super) fn append(shelf: &mut Shelf, key: u64, bytes: &[u8]) -> Result<usize, LogFault> {
    let Some(fd) = shelf.opened.get(key) else {
        return Err(LogFault::io("write", Errno::BADF));
    };
    let mut tried_again = false;
    loop {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(LogFault::io("write", Errno::NOSPC)),
            Ok(written) => return Ok(written),
            Err(Errno::INTR) => {}
            // A transient error of the device gets one more chance.
            Err(Errno::IO) if !tried_again => tried_again = true,
            Err(errno) => return Err(LogFault::io("write", errno)),
        }
    }
}
