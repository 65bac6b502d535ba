//! Runs as they come and go.

#![allow(
    clippy::disallowed_methods,
    reason = "the pump's thread has its own timers: bytes never wait for an actor"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::OFlags;

use crate::files::{LogFormat, LogPolicy, RunFiles, StreamName};

use super::command::{DrainReply, StreamKey, Streams};
use super::kept::Interrupted;
use super::run::{Drain, Pipe, Run, SIDES};
use super::stats::StreamStats;
use super::timers::{Alarm, RunId};
use super::worker::{State, token};

/// The streams by their lane on the desk.
const STREAMS: [StreamName; 3] = [StreamName::Stdout, StreamName::Stderr, StreamName::Lair];

impl State {
    pub(super) fn attach(
        &mut self,
        key: StreamKey,
        policy: LogPolicy,
        streams: Streams,
        resume: bool,
        stats: Arc<StreamStats>,
    ) {
        let now = Instant::now();
        let slot = match self.index.get(&key) {
            Some(&slot) => {
                (0..2).for_each(|side| self.end_pipe(slot, side, now));
                slot
            }
            None => self.admit(key, policy, resume, stats.clone()),
        };
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        if !Arc::ptr_eq(&run.stats, &stats) {
            stats.continue_from(&run.stats);
            run.stats = stats;
        }
        run.detached = false;
        for (side, fd) in [streams.stdout, streams.stderr].into_iter().enumerate() {
            let Some(fd) = fd else { continue };
            let unblocked = rustix::fs::fcntl_getfl(&fd).and_then(|flags| {
                if flags.contains(OFlags::NONBLOCK) {
                    return Ok(());
                }
                rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
            });
            // A descriptor that cannot be waited for can only be refused.
            let token = token(run.id, side);
            if unblocked
                .and_then(|()| epoll::add(&self.epoll, &fd, token, EventFlags::IN))
                .is_ok()
            {
                let mut pipe = Pipe::new(fd, now);
                if let Some(kept) = self.desk.input.kept().filter(|_| resume) {
                    pipe.piece = kept.piece(slot, side).to_vec();
                }
                if !pipe.piece.is_empty() {
                    pipe.piece_alarm = true;
                    let alarm = Alarm::Piece { run: run.id, side };
                    self.timers.set(now + self.options.piece_after, alarm);
                }
                run.pipes[side] = Some(pipe);
            }
        }
    }

    fn admit(
        &mut self,
        key: StreamKey,
        policy: LogPolicy,
        resume: bool,
        stats: Arc<StreamStats>,
    ) -> usize {
        let slot = self.place_for(&key);
        self.serial = self.serial.wrapping_add(1);
        let id = RunId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            serial: self.serial,
        };
        let mut files = RunFiles::new(&mut self.shelf, key.module.clone(), key.run, policy, resume);
        if resume {
            files.take_up(&mut self.shelf, Instant::now());
        }
        self.index.insert(key.clone(), slot);
        self.runs[slot] = Some(Box::new(Run {
            id,
            key,
            stats,
            files,
            pipes: [None, None],
            watch: None,
            drain: None,
            outage: None,
            detached: false,
            remarks: Vec::new(),
        }));
        slot
    }

    /// A free place; on a kept desk the one that the run had in the earlier life.
    fn place_for(&mut self, key: &StreamKey) -> usize {
        let slot = self.reserved.remove(key).unwrap_or_else(|| {
            self.free.pop().unwrap_or_else(|| {
                self.runs.push(None);
                self.runs.len() - 1
            })
        });
        if let Some(kept) = self.desk.input.kept() {
            kept.name_slot(slot, key);
        }
        slot
    }

    /// Finishes what the earlier life had in work, and keeps the places of its runs for them.
    pub(super) fn inherit(&mut self) {
        let Some(kept) = self.desk.input.kept() else {
            return;
        };
        let (slots, interrupted) = (kept.slots(), kept.interrupted());
        for (slot, key) in slots {
            while self.runs.len() <= slot {
                self.free.push(self.runs.len());
                self.runs.push(None);
            }
            self.free.retain(|free| *free != slot);
            self.reserved.insert(key, slot);
        }
        if let Some(interrupted) = interrupted {
            self.finish_interrupted(&interrupted);
        }
    }

    fn finish_interrupted(&mut self, job: &Interrupted) {
        let key = self
            .desk
            .input
            .kept()
            .and_then(|kept| kept.key_of(job.slot));
        let (Some(key), Some(&stream)) = (key, STREAMS.get(job.lane)) else {
            return tracing::warn!("a chunk of an unknown run was left on the desk");
        };
        // Only what was begun is ended here: no segment is closed, deleted or compressed.
        let policy = LogPolicy {
            max_size: u64::MAX,
            max_files: usize::MAX,
            max_age: None,
            compress: false,
            format: if job.raw {
                LogFormat::Raw
            } else {
                LogFormat::Cri
            },
        };
        let log_dir = self.options.log_dir.clone().into();
        let stats = Arc::new(StreamStats::new(log_dir, key.clone(), job.raw));
        let slot = self.admit(key.clone(), policy, false, stats);
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let cut = job
            .place
            .map(|place| run.files.cut_back(&self.shelf, stream, place));
        if let Some(Err(fault)) = cut {
            tracing::error!(%key, %fault, "what a killed writer left half written stays");
        }
        run.files.resume(&mut self.shelf, Instant::now());
        if job.lane < SIDES.len() {
            self.desk.begin(run, (slot, job.lane), job.len, job.flush);
            if let Some(begun) = &mut self.desk.job {
                begun.at = job.at;
            }
            self.finish_job(Instant::now());
        } else if let Some(kept) = self.desk.input.kept() {
            kept.settle(0, 0);
        }
        if let Some(mut run) = self.runs[slot].take() {
            run.files.close(&mut self.shelf);
            self.index.remove(&run.key);
        }
        self.reserved.insert(key, slot);
    }

    pub(super) fn begun(&mut self, key: &StreamKey) -> [Vec<u8>; 2] {
        let slot = self.reserved.get(key).copied();
        let (Some(slot), Some(kept)) = (slot, self.desk.input.kept()) else {
            return Default::default();
        };
        [kept.piece(slot, 0).to_vec(), kept.piece(slot, 1).to_vec()]
    }

    /// Nobody claims the other runs of the earlier life.
    pub(super) fn disown(&mut self) {
        for (_, slot) in self.reserved.drain() {
            if let Some(kept) = self.desk.input.kept() {
                kept.free_slot(slot);
            }
            self.free.push(slot);
        }
    }

    pub(super) fn begin_drain(&mut self, slot: usize, within: Duration, reply: DrainReply) {
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let until = Instant::now() + within;
        let drain = run.drain.get_or_insert_with(|| {
            Box::new(Drain {
                until,
                replies: Vec::new(),
            })
        });
        drain.until = drain.until.min(until);
        drain.replies.push(reply);
        let (run, until) = (run.id, drain.until);
        (0..2).for_each(|side| self.serve_if_there(slot, side));
        self.check_drained(slot);
        if self.runs[slot]
            .as_deref()
            .is_some_and(|r| r.drain.is_some())
        {
            self.timers.set(until, Alarm::DrainBound { run });
        }
    }

    pub(super) fn flush(&mut self) {
        let now = Instant::now();
        for slot in 0..self.runs.len() {
            self.write_remarks(slot);
            for side in 0..2 {
                self.serve_if_there(slot, side);
                self.flush_piece(slot, side, now);
            }
        }
        for reply in self.flushes.drain(..) {
            reply();
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        let now = Instant::now();
        (0..2).for_each(|side| self.end_pipe(slot, side, now));
        if self.runs[slot]
            .as_deref()
            .is_some_and(|r| r.drain.is_some())
        {
            self.finish_drain(slot);
        }
        self.write_remarks(slot);
        if let Some(mut run) = self.runs[slot].take() {
            run.files.close(&mut self.shelf);
            self.index.remove(&run.key);
            self.free.push(slot);
            if let Some(kept) = self.desk.input.kept() {
                kept.free_slot(slot);
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.flush();
        for slot in 0..self.runs.len() {
            self.close(slot);
        }
        self.stopped = true;
    }
}
