//! The desk that outlives the pump: where each chunk was when lair was killed, so that the next life goes on there.
//!
//! Owns the memory in which the input lies, the begun lines and the notes on the chunk in work, and the pipe through
//! which a chunk comes. Promises that after a kill at any instant each byte taken from a module is in a file, or here,
//! and never both: a chunk moves from the module's pipe to ours by splice(2), of which there is no half; the notes say
//! how far it is written; what a kill left behind that place is cut off. Never decides what is written where.
//!
//! ```text
//!   Idle ──take──▶ Taking ──splice, read──▶ Writing ──all in the file──▶ Settling ──piece put away──▶ Idle
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::files::{LINE_MAX, LogFormat};
use crate::keeper::memory::{KeptMemory, PAGE};

use super::command::StreamKey;
use super::job::READ;

/// Runs whose begun lines are kept. Beyond it, a kill can cost a begun line.
const SLOTS: usize = 4096;
/// A run's entry: its number, the lengths of both begun lines, the length of its name, the name.
const ENTRY: usize = 128;
const NAME: usize = 32;
/// What the memory is called, with the version of its layout.
const MAGIC: u64 = 0x6c61_6972_6465_0001;

const INPUT: usize = SLOTS * ENTRY;
const PIECES: usize = INPUT + LINE_MAX + READ;
const LENGTH: usize = PAGE + PIECES + SLOTS * 2 * LINE_MAX;

const WANTED_PIPE: usize = 1 << 20;

// Words of the first page.
const W_MAGIC: usize = 0;
const W_STATE: usize = 1;
const W_SLOT: usize = 2;
const W_LANE: usize = 3;
const W_HAVE: usize = 4;
const W_TAKEN: usize = 5;
const W_LEN: usize = 6;
const W_FLUSH: usize = 7;
const W_FORMAT: usize = 8;
const W_AT: usize = 9;
/// Which of the two places is the valid one.
const W_SIDE: usize = 10;
const W_PLACES: [usize; 2] = [11, 14];

const IDLE: u64 = 0;
const TAKING: u64 = 1;
const WRITING: u64 = 2;
const SETTLING: u64 = 3;

/// The segment and its size in front of what is being written; `None`: not known, so nothing is cut off.
pub(super) type Place = Option<(u64, u64)>;

/// Whose chunk it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// The run's place in the pump.
    pub slot: usize,
    /// 0 stdout, 1 stderr, 2 lair's own.
    pub lane: usize,
    pub format: LogFormat,
}

/// A chunk that a kill interrupted.
#[derive(Debug)]
pub(super) struct Interrupted {
    pub slot: usize,
    /// 0 stdout, 1 stderr, 2 lair's own.
    pub lane: usize,
    pub raw: bool,
    pub flush: bool,
    /// Input before this is in the file, which ends at `place`.
    pub at: usize,
    pub len: usize,
    pub place: Place,
}

/// The desk, with the pipe through which chunks come.
#[derive(Debug)]
pub struct KeptDesk {
    memory: KeptMemory,
    inlet: OwnedFd,
    outlet: OwnedFd,
}

impl KeptDesk {
    /// A desk on which nothing lies.
    ///
    /// # Errors
    /// The system refuses the memory or the pipe.
    pub fn new() -> io::Result<Self> {
        let memory = KeptMemory::create("lair-desk", LENGTH)?;
        memory.set_word(W_MAGIC, MAGIC);
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Best effort: a smaller pipe means smaller chunks.
        let _ = rustix::pipe::fcntl_setpipe_size(&inlet, WANTED_PIPE);
        Ok(Self {
            memory,
            inlet,
            outlet,
        })
    }

    /// The desk of an earlier life, from the descriptors that it shared.
    ///
    /// # Errors
    /// They are not a desk of this version.
    pub fn open(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let [memfd, inlet, outlet] =
            <[OwnedFd; 3]>::try_from(fds).map_err(|_| io::ErrorKind::InvalidData)?;
        let memory = KeptMemory::open(memfd, LENGTH)?;
        if memory.word(W_MAGIC) != MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            memory,
            inlet,
            outlet,
        })
    }

    /// Descriptors from which [`KeptDesk::open`] makes the same desk again.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(vec![
            self.memory.share()?,
            self.inlet.try_clone()?,
            self.outlet.try_clone()?,
        ])
    }

    /// Where the input lies.
    pub(super) fn input(&self) -> &[u8] {
        &self.memory.bytes()[INPUT..PIECES]
    }

    pub(super) fn input_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[INPUT..PIECES]
    }

    /// Gives the input's room back.
    pub(super) fn rest(&mut self) {
        self.memory
            .give_back(INPUT.next_multiple_of(PAGE), (LINE_MAX + READ) - PAGE);
    }

    fn set(&self, word: usize, value: usize) {
        self.memory.set_word(word, value as u64);
    }

    fn get(&self, word: usize) -> usize {
        usize::try_from(self.memory.word(word)).unwrap_or(usize::MAX)
    }

    // -----------------------------------------------------------------------------

    /// Takes at most `most` bytes from a module's pipe into the input behind `have` bytes that lie there already.
    /// What is no pipe can't be taken from that way (`EINVAL`).
    pub(super) fn take(
        &mut self,
        pipe: BorrowedFd<'_>,
        line: Line,
        have: usize,
        most: usize,
    ) -> Result<usize, Errno> {
        self.is_for(line);
        self.set(W_HAVE, have);
        self.set(W_TAKEN, 0);
        self.memory.set_word(W_STATE, TAKING);
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let taken = match splice(pipe, None, &self.inlet, None, most, flags) {
            Ok(taken) if taken > 0 => taken,
            other => {
                self.memory.set_word(W_STATE, IDLE);
                return other;
            }
        };
        self.set(W_TAKEN, taken);
        self.fetch(have, taken)?;
        Ok(taken)
    }

    fn is_for(&self, line: Line) {
        self.set(W_SLOT, line.slot);
        self.set(W_LANE, line.lane);
        self.set(W_FORMAT, usize::from(line.format == LogFormat::Raw));
    }

    /// Reads `count` bytes that lie in our pipe to that place of the input.
    fn fetch(&mut self, mut at: usize, count: usize) -> Result<(), Errno> {
        let end = at + count;
        while at < end {
            let outlet = self.outlet.as_fd();
            match rustix::io::read(
                outlet,
                &mut self.memory.bytes_mut()[INPUT + at..INPUT + end],
            ) {
                // The pipe has them: only a broken kernel says otherwise.
                Ok(0) => return Err(Errno::IO),
                Ok(got) => at += got,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// The input is complete, and what is written of it is written behind `place`.
    pub(super) fn begin(&self, line: Line, (len, flush): (usize, bool), place: Place) {
        self.is_for(line);
        self.set(W_LEN, len);
        self.set(W_FLUSH, usize::from(flush));
        self.reached(0, place);
        self.memory.set_word(W_STATE, WRITING);
    }

    /// Input before `at` is in the file, which ends at `place`.
    pub(super) fn reached(&self, at: usize, place: Place) {
        let side = 1 - self.get(W_SIDE).min(1);
        let (segment, size) = place.map_or((u64::MAX, 0), |(segment, size)| (segment, size));
        self.set(W_PLACES[side], at);
        self.memory.set_word(W_PLACES[side] + 1, segment);
        self.memory.set_word(W_PLACES[side] + 2, size);
        self.set(W_SIDE, side);
    }

    /// All of the chunk is in the file, but for the piece from `at` on, which is put away.
    pub(super) fn settle(&mut self, at: usize, len: usize) {
        self.set(W_AT, at);
        self.set(W_LEN, len);
        self.memory.set_word(W_STATE, SETTLING);
        self.put_away();
    }

    fn put_away(&mut self) {
        let (slot, lane) = (self.get(W_SLOT), self.get(W_LANE));
        let (at, len) = (self.get(W_AT), self.get(W_LEN));
        if slot < SLOTS && lane < 2 {
            let count = len.saturating_sub(at).min(LINE_MAX);
            let to = PIECES + (slot * 2 + lane) * LINE_MAX;
            let from = INPUT + at.min(LINE_MAX + READ - count);
            let bytes = self.memory.bytes_mut();
            if count > 0 {
                bytes.copy_within(from..from + count, to);
            }
            write_u64(bytes, slot * ENTRY + 8 + lane * 8, count as u64);
        }
        self.memory.set_word(W_STATE, IDLE);
    }

    // -----------------------------------------------------------------------------

    /// What was interrupted, brought to where its writing can go on. Asked again, it says the same.
    pub(super) fn interrupted(&mut self) -> Option<Interrupted> {
        match self.memory.word(W_STATE) {
            TAKING => self.finish_taking(),
            WRITING => {
                let side = W_PLACES[self.get(W_SIDE).min(1)];
                let segment = self.memory.word(side + 1);
                let place = (segment != u64::MAX).then(|| (segment, self.memory.word(side + 2)));
                Some(Interrupted {
                    slot: self.get(W_SLOT),
                    lane: self.get(W_LANE),
                    raw: self.get(W_FORMAT) == 1,
                    flush: self.get(W_FLUSH) == 1,
                    at: self.get(side).min(LINE_MAX + READ),
                    len: self.get(W_LEN).min(LINE_MAX + READ),
                    place,
                })
            }
            SETTLING => {
                self.put_away();
                None
            }
            _ => None,
        }
    }

    /// Nothing of it is in a file yet: the rest is fetched, and all of it becomes the begun line's continuation.
    fn finish_taking(&mut self) -> Option<Interrupted> {
        let (slot, have) = (self.get(W_SLOT), self.get(W_HAVE).min(LINE_MAX));
        let left = usize::try_from(rustix::io::ioctl_fionread(&self.outlet).unwrap_or(0));
        let left = left.unwrap_or(0).min(READ);
        // Without a count nothing has been fetched yet.
        let taken = match self.get(W_TAKEN) {
            0 => left,
            taken => taken.min(READ),
        };
        let fetched = taken.saturating_sub(left);
        self.set(W_TAKEN, taken);
        let all_there = taken == 0 || self.fetch(have + fetched, left).is_ok();
        if taken == 0 || !all_there {
            self.memory.set_word(W_STATE, IDLE);
            return None;
        }
        Some(Interrupted {
            slot,
            lane: self.get(W_LANE),
            raw: self.get(W_FORMAT) == 1,
            flush: false,
            at: 0,
            len: have + taken,
            place: None,
        })
    }

    // -----------------------------------------------------------------------------

    /// The run in this slot from now on; its begun lines stay if it was there before.
    pub(super) fn name_slot(&mut self, slot: usize, key: &StreamKey) {
        if slot >= SLOTS || self.key_of(slot).is_some_and(|known| known == *key) {
            return;
        }
        self.free_slot(slot);
        let (entry, name) = (slot * ENTRY, key.module.as_bytes());
        let count = name.len().min(ENTRY - NAME);
        let bytes = self.memory.bytes_mut();
        write_u64(bytes, entry, key.run);
        bytes[entry + NAME..entry + NAME + count].copy_from_slice(&name[..count]);
        // Last: an entry without a length is none.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        write_u64(bytes, entry + 24, count as u64);
    }

    pub(super) fn free_slot(&mut self, slot: usize) {
        if slot < SLOTS {
            let bytes = self.memory.bytes_mut();
            write_u64(bytes, slot * ENTRY + 24, 0);
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
            bytes[slot * ENTRY..slot * ENTRY + 24].fill(0);
        }
    }

    pub(super) fn key_of(&self, slot: usize) -> Option<StreamKey> {
        let entries = &self.memory.bytes()[..INPUT];
        let entry = entries.get(slot * ENTRY..(slot + 1) * ENTRY)?;
        let count = usize::try_from(read_u64(entry, 24)).ok()?;
        let name = entry
            .get(NAME..NAME + count)
            .filter(|name| !name.is_empty())?;
        Some(StreamKey {
            module: Arc::from(std::str::from_utf8(name).ok()?),
            run: read_u64(entry, 0),
        })
    }

    /// The runs of the earlier life, by slot.
    pub(super) fn slots(&self) -> Vec<(usize, StreamKey)> {
        (0..SLOTS)
            .filter_map(|slot| Some((slot, self.key_of(slot)?)))
            .collect()
    }

    /// The begun line of one side of a run.
    pub(super) fn piece(&self, slot: usize, side: usize) -> &[u8] {
        if slot >= SLOTS || side > 1 {
            return &[];
        }
        let bytes = self.memory.bytes();
        let count = read_u64(bytes, slot * ENTRY + 8 + side * 8);
        let count = usize::try_from(count).unwrap_or(0).min(LINE_MAX);
        let from = PIECES + (slot * 2 + side) * LINE_MAX;
        &bytes[from..from + count]
    }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    u64::from_ne_bytes(word)
}

fn write_u64(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}
