//! The chunk in work: from the pipe's bytes to the file's, one committed step at a time.
//!
//! Lives outside the frames that a panic unwinds. Each step computes first and commits
//! with plain stores, so whoever finds a job can go on with it: no byte is lost and
//! none is written twice.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use memchr::{memchr_iter, memrchr};

use crate::files::{
    LINE_MAX, LogFault, Prefix, Shelf, Stamp, Stamper, StreamName, Tally, frame, tally_of,
};

use super::command::CrashPoint;
use super::kept::{KeptDesk, Place};
use super::run::{Run, SIDES};

/// Read at once.
pub(super) const READ: usize = 256 << 10;
/// Framed and written at once.
const WRITE: usize = 256 << 10;

/// How far one chunk has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub slot: usize,
    pub stream: StreamName,
    /// Input before this is framed (cri) or written (raw).
    pub at: usize,
    pub len: usize,
    /// Whether a last piece without newline becomes a record.
    pub flush: bool,
    /// Framed bytes, and how many of them are written.
    pub out_len: usize,
    pub out_at: usize,
    pub strikes: u8,
}

/// Where the bytes in work lie: in memory of this process's own, or where a kill loses none of them.
#[derive(Debug)]
pub(super) enum Input {
    Own(Vec<u8>),
    Kept(Box<KeptDesk>),
}

impl Default for Input {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(desk) => desk.input(),
        }
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(desk) => desk.input_mut(),
        }
    }
}

impl Input {
    pub fn kept(&mut self) -> Option<&mut KeptDesk> {
        match self {
            Self::Own(_) => None,
            Self::Kept(desk) => Some(desk),
        }
    }

    /// Input before `at` is in the file; what follows it is written behind `place`.
    fn reached(&self, at: usize, place: Place) {
        if let Self::Kept(desk) = self {
            desk.reached(at, place);
        }
    }
}

/// The buffers that all streams share, and the job that is in them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub input: Input,
    pub out: Vec<u8>,
    pub job: Option<Job>,
    pub stamper: Stamper,
    pub crash: Option<CrashPoint>,
}

/// How a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Poured {
    /// All of it is in the file, but for the piece that stays.
    Done,
    /// The file failed; what was lost, with the piece that stays.
    Lost(LogFault, Tally),
}

// -----------------------------------------------------------------------------

impl Job {
    pub fn new(slot: usize, stream: StreamName, len: usize, flush: bool) -> Self {
        Self {
            slot,
            stream,
            at: 0,
            len,
            flush,
            out_len: 0,
            out_at: 0,
            strikes: 0,
        }
    }
}

impl Desk {
    /// Room for a piece and a read behind it.
    pub fn lay_out(&mut self) {
        if let Input::Own(bytes) = &mut self.input
            && bytes.is_empty()
        {
            *bytes = vec![0; LINE_MAX + READ];
        }
    }

    /// Gives the buffers' memory back.
    pub fn clear(&mut self) {
        if self.job.is_none() {
            match &mut self.input {
                Input::Own(bytes) => *bytes = Vec::new(),
                Input::Kept(desk) => desk.rest(),
            }
            self.out = Vec::new();
        }
    }

    /// Makes what lies in the input the job of one of the module's streams.
    pub fn begin(&mut self, run: &Run, (slot, side): (usize, usize), len: usize, flush: bool) {
        if let Some(kept) = self.input.kept() {
            let place = run.files.place(SIDES[side]);
            kept.begin(run.line(side), (len, flush), place);
        }
        self.job = Some(Job::new(slot, SIDES[side], len, flush));
    }

    /// Makes one of lair's records the job.
    pub fn remark(&mut self, run: &Run, slot: usize, at: Stamp, text: &str) {
        if let Some(kept) = self.input.kept() {
            let place = run.files.place(StreamName::Lair);
            kept.begin(run.line(SIDES.len()), (0, false), place);
        }
        let prefix = Prefix::new(self.stamper.text(at), StreamName::Lair);
        self.out.clear();
        prefix.remark(text, &mut self.out);
        let mut job = Job::new(slot, StreamName::Lair, 0, false);
        job.out_len = self.out.len();
        self.job = Some(job);
    }

    /// Panics if the seam asks for it here.
    pub fn crash_at(&mut self, point: CrashPoint) {
        if self.crash == Some(point) {
            self.crash = None;
            panic!("injected: the log pump's work panics at {point:?}");
        }
    }

    /// Brings the job to its end. The job stays set; its `at` tells what is left over.
    pub fn pour(&mut self, run: &mut Run, shelf: &mut Shelf, now: Instant) -> Poured {
        loop {
            let Some(job) = self.job else {
                return Poured::Done;
            };
            let written = match run.files.framed(job.stream) {
                true => self.write_framed(run, shelf, now),
                false => self.write_raw(run, shelf, now),
            };
            if let Err(fault) = written {
                return Poured::Lost(fault, self.give_up(run, shelf));
            }
            let Some(job) = self.job else {
                return Poured::Done;
            };
            if job.at >= job.len {
                return Poured::Done;
            }
            if !run.files.framed(job.stream) {
                continue;
            }
            if !self.frame_next(run, shelf) {
                return Poured::Done;
            }
        }
    }

    /// Writes what is framed.
    fn write_framed(
        &mut self,
        run: &mut Run,
        shelf: &mut Shelf,
        now: Instant,
    ) -> Result<(), LogFault> {
        while let Some(job) = &mut self.job
            && job.out_at < job.out_len
        {
            let mut rest = &self.out[job.out_at..job.out_len];
            if self.crash == Some(CrashPoint::Written) {
                rest = &rest[..rest.len().div_ceil(2)];
            }
            job.out_at += run.files.write(shelf, job.stream, rest, now)?;
            self.crash_at(CrashPoint::Written);
        }
        Ok(())
    }

    /// Frames the next part of the input; `false` if only a piece is left.
    fn frame_next(&mut self, run: &mut Run, shelf: &mut Shelf) -> bool {
        let Some(mut job) = self.job else {
            return false;
        };
        let prefix = Prefix::new(self.stamper.text(Stamp::now()), job.stream);
        let (room, empty) = run.files.room(job.stream);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(WRITE);
        self.input.reached(job.at, run.files.place(job.stream));
        self.out.clear();
        self.out.reserve(WRITE + LINE_MAX);
        let input = &self.input[..job.len];
        let framed = frame(
            input,
            job.at,
            job.flush,
            (room, empty),
            &prefix,
            &mut self.out,
        );
        if framed.full && framed.to == job.at {
            run.files.rotate(shelf, job.stream);
            return true;
        }
        let some = framed.to > job.at;
        job.at = framed.to;
        job.out_len = self.out.len();
        job.out_at = 0;
        self.job = Some(job);
        self.crash_at(CrashPoint::Framed);
        some
    }

    /// Writes bytes as they are, up to a line's end near the segment's.
    fn write_raw(
        &mut self,
        run: &mut Run,
        shelf: &mut Shelf,
        now: Instant,
    ) -> Result<(), LogFault> {
        while let Some(job) = &mut self.job
            && job.at < job.len
        {
            let (room, empty) = run.files.room(job.stream);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let mut rest = &self.input[job.at..job.len];
            if rest.len() > room {
                let line_end = memrchr(b'\n', &rest[..room]).map(|at| at + 1);
                match line_end {
                    Some(end) => rest = &rest[..end],
                    None if empty => rest = &rest[..room.max(1)],
                    None => {
                        run.files.rotate(shelf, job.stream);
                        continue;
                    }
                }
            }
            if self.crash == Some(CrashPoint::Written) {
                rest = &rest[..rest.len().div_ceil(2)];
            }
            job.at += run.files.write(shelf, job.stream, rest, now)?;
            let at = job.at;
            self.input.reached(at, run.files.place(job.stream));
            self.crash_at(CrashPoint::Written);
        }
        Ok(())
    }

    /// Ends the job without writing more; counts what of the module's is lost.
    pub fn give_up(&mut self, run: &mut Run, shelf: &mut Shelf) -> Tally {
        let Some(job) = &mut self.job else {
            return Tally::default();
        };
        let mut lost = Tally::default();
        if job.out_at < job.out_len {
            let done = &self.out[..job.out_at];
            let whole = memrchr(b'\n', done).map_or(0, |at| at + 1);
            if whole < job.out_at {
                run.files
                    .take_back(shelf, job.stream, (job.out_at - whole) as u64);
            }
            lost.add(tally_of(&self.out[whole..job.out_len]));
        }
        job.out_len = 0;
        job.out_at = 0;
        let rest = &self.input[job.at..job.len];
        // A begun line stays: it may yet be written whole.
        let kept = match memrchr(b'\n', rest) {
            _ if job.flush || !run.files.framed(job.stream) => rest.len(),
            None => 0,
            Some(end) => end + 1,
        };
        let kept = if rest.len() - kept > LINE_MAX {
            rest.len()
        } else {
            kept
        };
        lost.bytes += kept as u64;
        lost.lines += memchr_iter(b'\n', &rest[..kept]).count() as u64;
        job.at += kept;
        lost
    }
}
