//! The segments of one run, as their writer sees them.
//!
//! Owns which segment is written, its size and its identity. Promises to append only
//! to files it created (or, on resumption, to a plain file of this run), to notice when
//! they are moved or removed, and to change nothing else. A fault is returned, never
//! waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::folder::{Folder, is_link};
use super::name::SegmentName;
use super::policy::{LogFault, LogFormat, LogPolicy, StreamName};
use super::shelf::{Shelf, append};

/// How often a busy segment is compared with what stands at its name.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often a module that writes without rotating has its old segments aged out.
const TIDY_AGAIN: Duration = Duration::from_secs(3600);
/// Planted names passed over for one segment before giving up until the next attempt.
const PASSED_OVER: u32 = 32;

/// One sequence of segments: all of a run's records, or one stream's raw bytes.
#[derive(Debug, Default)]
pub struct Lane {
    segment: u64,
    size: u64,
    ident: Option<(u64, u64)>,
    looked: Option<Instant>,
    torn: bool,
    begun: bool,
}

/// The segments of one run.
#[derive(Debug)]
pub struct RunFiles {
    module: Arc<str>,
    run: u64,
    policy: LogPolicy,
    resume: bool,
    key: u64,
    tidied: Option<Instant>,
    fresh: Option<SegmentName>,
    lanes: [Lane; 3],
}

// -----------------------------------------------------------------------------

// -----------------------------------------------------------------------------

impl RunFiles {
    /// The files of a run; nothing is created before the first byte. With `resume`, the
    /// run's newest segment is continued if it is still plain.
    pub fn new(
        shelf: &mut Shelf,
        module: Arc<str>,
        run: u64,
        policy: LogPolicy,
        resume: bool,
    ) -> Self {
        let key = shelf.keys;
        shelf.keys += 3;
        Self {
            module,
            run,
            policy,
            resume,
            key,
            tidied: None,
            fresh: None,
            lanes: Default::default(),
        }
    }

    /// The segment opened since the last call, if one was.
    pub fn take_fresh(&mut self) -> Option<SegmentName> {
        self.fresh.take()
    }

    /// The policy in force.
    pub fn policy(&self) -> &LogPolicy {
        &self.policy
    }

    /// Other bounds from now on; the format stays, since files of this run have it.
    pub fn revise(&mut self, policy: LogPolicy) {
        let format = self.policy.format;
        self.policy = LogPolicy { format, ..policy };
        self.tidied = None;
    }

    /// Whether a stream's bytes become records.
    pub fn framed(&self, stream: StreamName) -> bool {
        self.policy.format == LogFormat::Cri || stream == StreamName::Lair
    }

    /// Bytes that a stream's segment still takes, and whether it is empty.
    pub fn room(&self, stream: StreamName) -> (u64, bool) {
        let lane = &self.lanes[self.lane(stream)];
        let size = if lane.ident.is_some() { lane.size } else { 0 };
        (self.policy.max_size.saturating_sub(size), size == 0)
    }

    /// The segment being written for a stream, and its size.
    pub fn current(&self, stream: StreamName) -> Option<(SegmentName, u64)> {
        let lane = self.lane(stream);
        self.lanes[lane]
            .ident
            .map(|_| (self.name(lane), self.lanes[lane].size))
    }

    /// The segment that the next byte of a stream goes to, and its size; `None` before a resumed run's was looked for.
    pub fn place(&self, stream: StreamName) -> Option<(u64, u64)> {
        let lane = &self.lanes[self.lane(stream)];
        let size = if lane.ident.is_some() { lane.size } else { 0 };
        (lane.begun || !self.resume).then_some((lane.segment, size))
    }

    /// The run is one of an earlier life: its newest segments are continued.
    pub fn resume(&mut self, shelf: &mut Shelf, now: Instant) {
        self.resume = true;
        self.take_up(shelf, now);
    }

    /// Of a resumed run: finds the segments to be continued now instead of with the first byte.
    pub fn take_up(&mut self, shelf: &mut Shelf, now: Instant) {
        let lanes = match self.policy.format {
            LogFormat::Cri => 0..1,
            LogFormat::Raw => 0..3,
        };
        let Ok(folder) = Folder::open(&shelf.log_dir, &self.module) else {
            return;
        };
        for at in lanes {
            // One that can't be opened now is tried again with the first byte.
            if let Ok(found) = self.continue_newest(shelf, at, &folder) {
                self.lanes[at].begun = true;
                self.lanes[at].looked = found.then_some(now);
            }
        }
    }

    /// Cuts off what was written behind `place` by a writer that was killed: the only one there was.
    ///
    /// # Errors
    /// The segment can't be opened or cut.
    pub fn cut_back(
        &self,
        shelf: &Shelf,
        stream: StreamName,
        (segment, size): (u64, u64),
    ) -> Result<(), LogFault> {
        let fault = |errno| LogFault::io("cut", errno);
        let Ok(folder) = Folder::open(&shelf.log_dir, &self.module) else {
            return Ok(());
        };
        let lane = self.name(self.lane(stream)).stream;
        let names = folder.segments().unwrap_or_default();
        let ours = names
            .iter()
            .filter(|n| n.run == self.run && n.stream == lane && !n.zst);
        let Some(newest) = ours.max().filter(|n| n.segment >= segment) else {
            return Ok(());
        };
        let text = newest.to_string();
        if folder.is_link(&text) {
            return Ok(());
        }
        let size = if newest.segment > segment { 0 } else { size };
        let fd = folder.append(&text).map_err(fault)?;
        let stat = rustix::fs::fstat(&fd).map_err(fault)?;
        if u64::try_from(stat.st_size).unwrap_or(0) > size && stat.st_nlink == 1 {
            rustix::fs::ftruncate(&fd, size).map_err(fault)?;
        }
        Ok(())
    }

    /// Appends as much as the kernel takes in one call.
    pub fn write(
        &mut self,
        shelf: &mut Shelf,
        stream: StreamName,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, LogFault> {
        let lane = self.lane(stream);
        self.ready(shelf, lane, now)?;
        if self.lanes[lane].torn {
            append(shelf, self.key + lane as u64, b"\n")?;
            self.lanes[lane].torn = false;
            self.lanes[lane].size += 1;
        }
        let written = append(shelf, self.key + lane as u64, bytes)?;
        self.lanes[lane].size += written as u64;
        Ok(written)
    }

    /// Takes back the last bytes of a stream's segment: the head of a record whose rest
    /// could not be written.
    pub fn take_back(&mut self, shelf: &mut Shelf, stream: StreamName, bytes: u64) {
        let at = self.lane(stream);
        let lane = &mut self.lanes[at];
        let size = lane.size.saturating_sub(bytes);
        let done = shelf
            .opened
            .get(self.key + at as u64)
            .is_some_and(|fd| rustix::fs::ftruncate(fd, size).is_ok());
        match done {
            true => lane.size = size,
            false => lane.torn = true,
        }
    }

    /// Ends a stream's segment; the next byte opens another.
    pub fn rotate(&mut self, shelf: &mut Shelf, stream: StreamName) {
        let lane = self.lane(stream);
        if self.lanes[lane].ident.is_some() {
            self.forget(shelf, lane);
            self.lanes[lane].segment += 1;
        }
    }

    /// Ends the run's files.
    pub fn close(&mut self, shelf: &mut Shelf) {
        for lane in 0..3 {
            self.forget(shelf, lane);
        }
    }

    fn lane(&self, stream: StreamName) -> usize {
        match (self.policy.format, stream) {
            (LogFormat::Cri, _) => 0,
            (LogFormat::Raw, StreamName::Stdout) => 0,
            (LogFormat::Raw, StreamName::Stderr) => 1,
            (LogFormat::Raw, StreamName::Lair) => 2,
        }
    }

    fn name(&self, lane: usize) -> SegmentName {
        let stream = match (self.policy.format, lane) {
            (LogFormat::Cri, _) => None,
            (LogFormat::Raw, 0) => Some(StreamName::Stdout),
            (LogFormat::Raw, 1) => Some(StreamName::Stderr),
            (LogFormat::Raw, _) => Some(StreamName::Lair),
        };
        SegmentName {
            run: self.run,
            segment: self.lanes[lane].segment,
            stream,
            zst: false,
        }
    }

    fn forget(&mut self, shelf: &mut Shelf, lane: usize) {
        shelf.opened.close(self.key + lane as u64);
        if self.lanes[lane].ident.take().is_some() {
            shelf.now_live(&self.module, self.name(lane), None);
        }
        self.lanes[lane].looked = None;
        self.lanes[lane].torn = false;
    }

    /// Sees to it that the lane's file is open and still what stands at its name.
    fn ready(&mut self, shelf: &mut Shelf, at: usize, now: Instant) -> Result<(), LogFault> {
        let key = self.key + at as u64;
        if let Some(ident) = self.lanes[at].ident {
            let open = shelf.opened.get(key).is_some();
            let fresh = self.lanes[at]
                .looked
                .is_some_and(|t| now.duration_since(t) < LOOK_AGAIN);
            if open && fresh {
                return Ok(());
            }
            self.lanes[at].looked = Some(now);
            let name = self.name(at);
            match self.find_again(shelf, name, ident, (!open).then_some(key)) {
                Ok(()) => return self.tidy_at_times(shelf, now),
                Err(fault @ LogFault::Io { .. }) => return Err(fault),
                Err(gone) => shelf.notices.push(gone),
            }
            self.forget(shelf, at);
            self.lanes[at].segment += 1;
        }
        let folder = Folder::open_or_create(&shelf.log_dir, &self.module)?;
        if !self.lanes[at].begun && self.resume && self.continue_newest(shelf, at, &folder)? {
            self.lanes[at].looked = Some(now);
            return Ok(());
        }
        self.begin(shelf, at, &folder)?;
        self.lanes[at].looked = Some(now);
        self.tidied = Some(now);
        shelf.tidy(&folder, &self.module, &self.policy);
        Ok(())
    }

    fn tidy_at_times(&mut self, shelf: &mut Shelf, now: Instant) -> Result<(), LogFault> {
        let due = self
            .tidied
            .is_none_or(|t| now.duration_since(t) >= TIDY_AGAIN);
        if due && self.policy.max_age.is_some() {
            self.tidied = Some(now);
            let folder = Folder::open_or_create(&shelf.log_dir, &self.module)?;
            shelf.tidy(&folder, &self.module, &self.policy);
        }
        Ok(())
    }

    /// Compares the segment with what stands at its name; with `open_as`, opens it.
    fn find_again(
        &self,
        shelf: &mut Shelf,
        name: SegmentName,
        ident: (u64, u64),
        open_as: Option<u64>,
    ) -> Result<(), LogFault> {
        let text = name.to_string();
        let place = format!("{}/{text}", self.module);
        let vanished = || LogFault::Vanished {
            name: place.clone(),
        };
        let gone = |errno| match errno {
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR => vanished(),
            other => LogFault::io("open", other),
        };
        let folder = Folder::open(&shelf.log_dir, &self.module)
            .map_err(|e| gone(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        let found = match open_as {
            None => folder.stat(&text).map_err(gone)?,
            Some(key) => {
                let fd = folder.append(&text).map_err(gone)?;
                let stat = rustix::fs::fstat(&fd).map_err(gone)?;
                if identity(&stat) == ident {
                    shelf.opened.put(key, fd);
                }
                stat
            }
        };
        if identity(&found) == ident {
            Ok(())
        } else {
            Err(vanished())
        }
    }

    /// Creates the lane's next segment, passing over names that are taken.
    fn begin(&mut self, shelf: &mut Shelf, at: usize, folder: &Folder) -> Result<(), LogFault> {
        let mut refused = None;
        for _ in 0..PASSED_OVER {
            let name = self.name(at);
            let text = name.to_string();
            match folder.create(&text) {
                Ok(fd) => {
                    let stat = rustix::fs::fstat(&fd).map_err(|e| LogFault::io("create", e))?;
                    self.adopt(shelf, at, fd, &stat);
                    if let Err(errno) = folder.link_current(&text) {
                        shelf.notices.push(LogFault::io("link to", errno));
                    }
                    return Ok(());
                }
                Err(Errno::EXIST) if folder.is_link(&text) => {
                    let name = format!("{}/{text}", self.module);
                    let fault = LogFault::LinkRefused { name };
                    shelf.notices.push(fault.clone());
                    refused = Some(fault);
                    self.lanes[at].segment += 1;
                }
                Err(Errno::EXIST) => {
                    self.lanes[at].segment = self.beyond(folder, self.lanes[at].segment);
                }
                Err(errno) => return Err(LogFault::io("create", errno)),
            }
        }
        Err(refused.unwrap_or(LogFault::io("create", Errno::EXIST)))
    }

    /// The first segment number of this run that nothing on disk has, after `taken`.
    fn beyond(&self, folder: &Folder, taken: u64) -> u64 {
        let names = folder.segments().unwrap_or_default();
        let ours = names
            .iter()
            .filter(|n| n.run == self.run)
            .map(|n| n.segment);
        ours.max().unwrap_or(0).max(taken).saturating_add(1)
    }

    /// Opens the newest segment of this run; `false` if there is none to continue.
    fn continue_newest(
        &mut self,
        shelf: &mut Shelf,
        at: usize,
        folder: &Folder,
    ) -> Result<bool, LogFault> {
        let names = folder.segments().unwrap_or_default();
        let lane_stream = self.name(at).stream;
        let ours = names
            .iter()
            .filter(|n| n.run == self.run && n.stream == lane_stream);
        let Some(newest) = ours.max().copied() else {
            return Ok(false);
        };
        self.lanes[at].segment = newest.segment + u64::from(newest.zst);
        if newest.zst {
            return Ok(false);
        }
        let text = newest.to_string();
        if folder.is_link(&text) {
            return Ok(false);
        }
        let fd = folder.append(&text).map_err(|e| LogFault::io("open", e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| LogFault::io("open", e))?;
        let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !plain || is_link(&stat) || stat.st_nlink != 1 {
            let name = format!("{}/{text}", self.module);
            shelf.notices.push(LogFault::NotAFile { name });
            self.lanes[at].segment += 1;
            return Ok(false);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut last = [b'\n'];
        let torn = size > 0
            && self.policy.format == LogFormat::Cri
            && rustix::io::pread(&fd, &mut last, size - 1).is_ok()
            && last != *b"\n";
        self.adopt(shelf, at, fd, &stat);
        self.lanes[at].size = size;
        self.lanes[at].torn = torn;
        Ok(true)
    }

    fn adopt(&mut self, shelf: &mut Shelf, at: usize, fd: std::os::fd::OwnedFd, stat: &Stat) {
        let lane = &mut self.lanes[at];
        lane.ident = Some(identity(stat));
        lane.size = 0;
        lane.torn = false;
        lane.begun = true;
        shelf.opened.put(self.key + at as u64, fd);
        let name = self.name(at);
        self.fresh = Some(name);
        shelf.now_live(&self.module, name, Some(name));
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
