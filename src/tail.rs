//! A module's output as it grows, for whoever shows it: the bridge, `run`, `up`.
//!
//! Owns: a place in a log and the kernel's word that its folder has changed. Promises: no wake-up while nothing is
//! written. Never: holds more than one batch.

use lair_actors::files::read::{Batch, Cursor, Follower, LogReader, Query};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;

/// One log, followed.
pub struct Tail {
    follower: Follower,
    changes: AsyncFd<OwnedFd>,
    /// There may be something to be had without waiting.
    fresh: bool,
}

impl Tail {
    /// Follows a module's log from a place, or from its end.
    ///
    /// # Errors
    /// The name is none, the folder can't be made or read, or the system is out of watches.
    pub fn open(
        log_dir: &Path,
        name: &str,
        query: Query,
        from: Option<Cursor>,
    ) -> io::Result<Self> {
        let reader = open_log(log_dir, name)?;
        let follower = Follower::new(reader, query, from)?;
        let fd = follower.as_fd().try_clone_to_owned()?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe only for types whose descriptor can change; an OwnedFd's can't"
        )]
        let changes = AsyncFd::new(fd)?;
        Ok(Tail {
            follower,
            changes,
            fresh: true,
        })
    }

    /// What has come. Reads files, but never waits; empty if nothing is new.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn look(&mut self) -> io::Result<Batch> {
        if !self.fresh {
            return Ok(Batch::default());
        }
        let batch = self.follower.look()?;
        self.fresh = batch.more;
        Ok(batch)
    }

    /// The same whether or not the kernel has said that something changed: for the last look.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn look_now(&mut self) -> io::Result<Batch> {
        self.fresh = true;
        self.look()
    }

    /// Is ready when there may be something to look at.
    pub fn poll_fresh(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.fresh {
            return Poll::Ready(());
        }
        match ready!(self.changes.poll_read_ready(cx)) {
            Ok(mut guard) => {
                // `look` empties the descriptor; what comes after that makes it readable again.
                guard.clear_ready();
                self.fresh = true;
                Poll::Ready(())
            }
            Err(_) => Poll::Pending,
        }
    }
}

/// Opens a module's log folder; makes it if the module has not written yet.
///
/// # Errors
/// The name is none, or the folder can't be made or opened.
pub fn open_log(log_dir: &Path, name: &str) -> io::Result<LogReader> {
    match LogReader::open(log_dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    lair_actors::files::Folder::open_or_create(log_dir, name)
        .map_err(|fault| io::Error::other(format!("the log folder can't be made: {fault:?}")))?;
    LogReader::open(log_dir, name)
}
