//! Work on closed segments that the hot path must not wait for.
//!
//! Owns one thread of low priority, started with the first task: it compresses
//! segments some time after they were closed (a flood deletes them before, so nobody
//! compresses what is about to go), removes what an interrupted compression left, and
//! gives back the space of deleted files. Loses tasks rather than growing: a segment
//! that stays plain is found again when the next one is opened.

#![allow(
    clippy::disallowed_methods,
    reason = "the upkeep thread's own waits; no lifecycle decision depends on them"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use super::folder::Folder;
use super::name::{SegmentName, TMP};

const QUEUE: usize = 1024;
const WAITING: usize = 4096;
const CORPSES: usize = 8;
const LEVEL: i32 = 1;

/// How closed segments are treated.
#[derive(Debug, Clone)]
pub struct UpkeepOptions {
    /// How long a segment has been closed before it is compressed.
    pub compress_after: Duration,
}

/// Where tasks are handed in.
#[derive(Debug)]
pub struct Upkeep {
    log_dir: PathBuf,
    options: UpkeepOptions,
    tasks: Option<SyncSender<Task>>,
    corpses: Arc<AtomicUsize>,
}

enum Task {
    Compress { module: Arc<str>, name: SegmentName },
    Sweep { module: Arc<str>, name: SegmentName },
    Bury(OwnedFd),
}

// -----------------------------------------------------------------------------

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            compress_after: Duration::from_secs(1),
        }
    }
}

impl Upkeep {
    /// Upkeep of the folders below `log_dir`. Starts no thread yet.
    pub fn new(log_dir: PathBuf, options: UpkeepOptions) -> Self {
        Self {
            log_dir,
            options,
            tasks: None,
            corpses: Arc::default(),
        }
    }

    /// Compresses a closed segment, later.
    pub fn compress(&mut self, module: &Arc<str>, name: SegmentName) {
        self.hand(Task::Compress {
            module: module.clone(),
            name,
        });
    }

    /// Removes what an interrupted compression of a segment left.
    pub fn sweep(&mut self, module: &Arc<str>, name: SegmentName) {
        self.hand(Task::Sweep {
            module: module.clone(),
            name,
        });
    }

    /// Drops the last hold on a deleted file, which frees its space.
    pub fn bury(&mut self, file: OwnedFd) {
        if self.corpses.fetch_add(1, Ordering::Relaxed) >= CORPSES {
            self.corpses.fetch_sub(1, Ordering::Relaxed);
            return drop(file);
        }
        if !self.hand(Task::Bury(file)) {
            self.corpses.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn hand(&mut self, task: Task) -> bool {
        let tasks = match &self.tasks {
            Some(tasks) => tasks,
            None => match self.spawn() {
                Ok(tasks) => self.tasks.insert(tasks),
                Err(_) => return false,
            },
        };
        match tasks.try_send(task) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.tasks = None;
                false
            }
        }
    }

    fn spawn(&self) -> io::Result<SyncSender<Task>> {
        let (tasks, todo) = sync_channel(QUEUE);
        let (log_dir, after) = (self.log_dir.clone(), self.options.compress_after);
        let corpses = self.corpses.clone();
        std::thread::Builder::new()
            .name("lair-log-upkeep".into())
            .stack_size(256 << 10)
            .spawn(move || work(&log_dir, after, &todo, &corpses))?;
        Ok(tasks)
    }
}

fn work(log_dir: &Path, after: Duration, todo: &Receiver<Task>, corpses: &AtomicUsize) {
    // Best effort: a refused priority only costs politeness.
    let _ = rustix::process::setpriority_process(None, 19);
    let mut waiting: std::collections::VecDeque<(Instant, Arc<str>, SegmentName)> =
        Default::default();
    loop {
        let next = match waiting.front() {
            None => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((due, ..)) => todo.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(Task::Bury(file)) => {
                drop(file);
                corpses.fetch_sub(1, Ordering::Relaxed);
            }
            Ok(Task::Sweep { module, name }) => {
                let _ = Folder::open(log_dir, &module).map(|f| f.unlink(&format!("{name}{TMP}")));
            }
            Ok(Task::Compress { module, name }) => {
                let known = waiting.iter().any(|(_, m, n)| (m, n) == (&module, &name));
                if !known && waiting.len() < WAITING {
                    waiting.push_back((Instant::now() + after, module, name));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, module, name)) = waiting.pop_front() {
                    compress_or_leave(log_dir, &module, name);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A segment that cannot be compressed stays as it is, readable.
fn compress_or_leave(log_dir: &Path, module: &str, name: SegmentName) {
    let Ok(folder) = Folder::open(log_dir, module) else {
        return;
    };
    if compress(&folder, name).is_err() {
        let _ = folder.unlink(&format!("{name}{TMP}"));
    }
}

fn compress(folder: &Folder, name: SegmentName) -> io::Result<()> {
    let (plain, tmp) = (name.to_string(), format!("{name}{TMP}"));
    let mut source = folder.read(&plain)?;
    let _ = folder.unlink(&tmp);
    let target = std::fs::File::from(folder.create(&tmp)?);
    let mut encoder = zstd::stream::Encoder::new(target, LEVEL)?;
    let copied = io::copy(&mut source, &mut encoder)?;
    let target = encoder.finish()?;
    let stat = rustix::fs::fstat(&source)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    };
    rustix::fs::futimens(&target, &times)?;
    // The plain file goes next: what replaces it must survive a power cut.
    target.sync_all()?;
    let still = folder.stat(&plain)?;
    if copied != u64::try_from(stat.st_size).unwrap_or(0) || still.st_ino != stat.st_ino {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    folder.rename(&tmp, &name.with_zst(true).to_string())?;
    Ok(folder.unlink(&plain)?)
}
