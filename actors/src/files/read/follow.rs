//! Following a log as it grows.
//!
//! A follower keeps its place per sequence of segments (one for cri, one per stream for
//! raw), so rotation, compression and new runs lose nothing. It can be told to look, or
//! wait on the descriptor that the kernel makes readable when the folder changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::files::{SegmentName, StreamName};

use super::query::{LogReader, Query, Runs};
use super::segment::{Cursor, Entry, Segment};

/// Given at once; the rest with the next call.
const AT_ONCE: usize = 1024;

/// What has come since the last look.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records that fit.
    pub entries: Vec<Entry>,
    /// Segments that were deleted before they could be read.
    pub missed: u64,
    /// Whether there is more to be had at once.
    pub more: bool,
}

/// A place in a growing log.
pub struct Follower {
    reader: LogReader,
    query: Query,
    lanes: Vec<Lane>,
    changes: OwnedFd,
    from: Option<Cursor>,
}

struct Lane {
    stream: Option<StreamName>,
    open: Segment,
}

// -----------------------------------------------------------------------------

impl Follower {
    /// Follows from `from`, or from the end of what is there. Of `query`, the stream, the
    /// times and the pattern count; with [`Runs::Number`] later runs are not followed.
    pub fn new(reader: LogReader, query: Query, from: Option<Cursor>) -> io::Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        // By descriptor, so that the folder watched is the folder opened.
        let path = format!(
            "/proc/self/fd/{}",
            rustix::fd::AsRawFd::as_raw_fd(&reader.folder().as_fd())
        );
        inotify::add_watch(&changes, path, flags)?;
        let mut follower = Self {
            reader,
            query,
            lanes: Vec::new(),
            changes,
            from,
        };
        if from.is_none() {
            follower.go_to_end()?;
        }
        Ok(follower)
    }

    /// What has come since the last call. Never waits.
    pub fn look(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        // Changes after this point make the descriptor readable again.
        let mut space = [0u8; 4096];
        while rustix::io::read(&self.changes, &mut space).is_ok_and(|n| n > 0) {}
        let names = self.names()?;
        self.enter_new_lanes(&names, &mut batch)?;
        let mut lanes = std::mem::take(&mut self.lanes);
        let done = lanes
            .iter_mut()
            .try_for_each(|lane| self.read_lane(lane, &names, &mut batch));
        self.lanes = lanes;
        done.map(|()| batch)
    }

    /// Waits until the folder changes; `false` if it did not within the time.
    pub fn wait(&self, within: Duration) -> io::Result<bool> {
        let bound = Timespec::try_from(within).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(
            &mut [PollFd::new(&self.changes, PollFlags::IN)],
            Some(&bound),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Where the follower is in each sequence of segments; one for cri.
    pub fn cursors(&self) -> Vec<Cursor> {
        self.lanes
            .iter()
            .map(|l| Cursor::at(l.open.name, l.open.offset()))
            .collect()
    }

    fn names(&self) -> io::Result<Vec<SegmentName>> {
        let runs = match self.query.runs {
            one @ Runs::Number(_) => one,
            _ => Runs::All,
        };
        self.reader.names(runs)
    }

    fn go_to_end(&mut self) -> io::Result<()> {
        let names = self.names()?;
        for stream in streams() {
            let Some(&name) = names.iter().rfind(|n| n.stream == stream) else {
                continue;
            };
            let end = self
                .reader
                .folder()
                .read(&name.to_string())?
                .metadata()?
                .len();
            let open = Segment::open(self.reader.folder(), name, end)?;
            self.lanes.push(Lane { stream, open });
        }
        // What comes to be from now on is read from its beginning.
        self.from = None;
        Ok(())
    }

    fn enter_new_lanes(&mut self, names: &[SegmentName], batch: &mut Batch) -> io::Result<()> {
        for stream in streams() {
            if self.lanes.iter().any(|l| l.stream == stream) {
                continue;
            }
            let from = self.from.filter(|f| f.stream == stream);
            let after = |n: &&SegmentName| from.is_none_or(|f| Cursor::at(**n, u64::MAX) >= f);
            for &name in names.iter().filter(|n| n.stream == stream).filter(after) {
                let offset = from
                    .filter(|f| Cursor::at(name, f.offset) == *f)
                    .map_or(0, |f| f.offset);
                match Segment::open(self.reader.folder(), name, offset) {
                    Ok(open) => {
                        self.lanes.push(Lane { stream, open });
                        break;
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => batch.missed += 1,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    fn read_lane(
        &self,
        lane: &mut Lane,
        names: &[SegmentName],
        batch: &mut Batch,
    ) -> io::Result<()> {
        let (stream, here) = (lane.stream, lane.open.name.with_zst(false));
        let ours = names.iter().filter(|n| n.stream == stream);
        let mut next = ours.skip_while(|n| **n <= here).peekable();
        loop {
            // A segment with one behind it was closed before the names were listed.
            let last = next.peek().is_some();
            while let Some(entry) = lane.open.next(last)? {
                if self.query.fits(&entry) {
                    batch.entries.push(entry);
                }
                if batch.entries.len() >= AT_ONCE {
                    batch.more = true;
                    return Ok(());
                }
            }
            let Some(&name) = next.next() else {
                return Ok(());
            };
            match Segment::open(self.reader.folder(), name, 0) {
                Ok(segment) => lane.open = segment,
                Err(e) if e.kind() == io::ErrorKind::NotFound => batch.missed += 1,
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for Follower {
    /// Readable when the folder has changed since the last look.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

fn streams() -> [Option<StreamName>; 4] {
    [
        None,
        Some(StreamName::Stdout),
        Some(StreamName::Stderr),
        Some(StreamName::Lair),
    ]
}
