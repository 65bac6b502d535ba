//! Runs as they come and go.

#![allow(
    clippy::disallowed_methods,
    reason = "the pump's thread has its own timers: bytes never wait for an actor"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::OFlags;

use crate::files::{LogPolicy, RunFiles};

use super::command::{DrainReply, StreamKey, Streams};
use super::run::{Drain, Pipe, Run};
use super::stats::StreamStats;
use super::timers::{Alarm, RunId};
use super::worker::{State, token};

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
                run.pipes[side] = Some(Pipe::new(fd, now));
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
        let slot = self.free.pop().unwrap_or_else(|| {
            self.runs.push(None);
            self.runs.len() - 1
        });
        self.serial = self.serial.wrapping_add(1);
        let id = RunId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            serial: self.serial,
        };
        let files = RunFiles::new(&mut self.shelf, key.module.clone(), key.run, policy, resume);
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
