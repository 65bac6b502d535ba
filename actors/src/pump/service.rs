//! Serving one stream: reading its pipe, gathering its lines, ending it.

#![allow(
    clippy::disallowed_methods,
    reason = "the pump's thread has its own timers: bytes never wait for an actor"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use memchr::memchr_iter;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;

use crate::files::{LogFault, StreamName, Tally};

use super::command::{CrashPoint, PumpEvent, StreamKey};
use super::job::{Input, Poured, READ};
use super::kept::Line;
use super::run::SIDES;
use super::timers::Alarm;
use super::worker::{State, token};

/// Reads in a row for one stream, while others may wait.
const TURN: usize = 4;
/// A busy stream that yields less than this at a time is left to gather more.
const LITTLE: usize = 512 << 10;
/// A stream read twice within this is busy.
const BUSY: Duration = Duration::from_millis(2);
/// A disk on which one turn takes longer is given less at a time, so that others' streams, drains and commands wait
/// less for this one's.
const SLOW: Duration = Duration::from_millis(100);
const LEAST: usize = 4 << 10;
/// A default pipe that is about full when it is read wants to be larger.
const FULL: usize = 48 << 10;
const PIPE: usize = 1 << 20;
/// A job that panics this often is given up.
const STRIKES: u8 = 3;
/// How long buffers are kept after the last use.
const REST_AFTER: Duration = Duration::from_secs(1);

enum Got {
    Bytes(usize),
    Nothing,
    End,
}

// -----------------------------------------------------------------------------

impl State {
    /// Reads what a stream has, writes it, and decides how it is waited for next.
    pub(super) fn serve(&mut self, slot: usize, side: usize) {
        let now = Instant::now();
        self.retry_if_due(slot, now);
        let (mut total, mut more) = (0, true);
        self.remarks_first(slot, side);
        let mut reads = 0;
        while more && reads < TURN && now.elapsed() < SLOW {
            match self.read_chunk(slot, side) {
                Got::Bytes(count) => {
                    self.finish_job(now);
                    total += count;
                    more = count >= self.bite;
                }
                Got::Nothing => more = false,
                Got::End => {
                    self.keep_awake(now);
                    self.end_pipe(slot, side, now);
                    return self.check_drained(slot);
                }
            }
            reads += 1;
        }
        if total > 0 {
            self.keep_awake(now);
            self.bite = match now.elapsed() > SLOW {
                true => (self.bite / 4).max(LEAST),
                false => (self.bite * 2).min(READ),
            };
        }
        self.wait_for(slot, side, now, total);
    }

    /// What lair said before the module's next bytes stands before them.
    fn remarks_first(&mut self, slot: usize, side: usize) {
        let waiting = self.runs[slot].as_deref().is_some_and(|run| {
            let pipe = run.pipes[side].as_ref();
            let has_bytes =
                |p: &super::run::Pipe| rustix::io::ioctl_fionread(&p.fd).unwrap_or(0) > 0;
            !run.remarks.is_empty() && pipe.is_some_and(has_bytes)
        });
        if waiting {
            self.write_remarks(slot);
        }
    }

    /// One read, made the job together with the piece that waited.
    fn read_chunk(&mut self, slot: usize, side: usize) -> Got {
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return Got::Nothing;
        };
        let line = run.line(side);
        let Some(pipe) = run.pipes[side].as_mut() else {
            return Got::Nothing;
        };
        self.desk.lay_out();
        let have = pipe.piece.len();
        self.desk.input[..have].copy_from_slice(&pipe.piece);
        let count = loop {
            match fill(&mut self.desk.input, &pipe.fd, line, have, self.bite) {
                Ok(0) => return Got::End,
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Got::Nothing,
                Err(_) => return Got::End,
            }
        };
        if pipe.discard {
            let new = &self.desk.input[have..have + count];
            let lines = memchr_iter(b'\n', new).count() as u64;
            run.stats.add_read(count as u64, lines, since_boot());
            run.stats.add_dropped(Tally {
                bytes: count as u64,
                lines,
            });
            return Got::Bytes(count);
        }
        pipe.piece.clear();
        if !pipe.sized && count >= FULL {
            pipe.sized = true;
            // Best effort: without privilege a user's pipes share a budget.
            let _ = rustix::pipe::fcntl_setpipe_size(&pipe.fd, PIPE);
        }
        self.desk.begin(run, (slot, side), have + count, false);
        let new = &self.desk.input[have..have + count];
        run.stats.add_read(
            count as u64,
            memchr_iter(b'\n', new).count() as u64,
            since_boot(),
        );
        if let Some(watch) = run.watch.as_mut()
            && watch.feed(&run.key, side, new).is_break()
        {
            run.watch = None;
        }
        self.desk.crash_at(CrashPoint::Read);
        Got::Bytes(count)
    }

    /// Fault injection: from now on what this stream brings is dropped and counted.
    pub(super) fn discard(&mut self, key: &StreamKey, stream: StreamName) {
        let Some(side) = SIDES.iter().position(|s| *s == stream) else {
            return;
        };
        let run = self.index.get(key).and_then(|&s| self.runs[s].as_mut());
        if let Some(pipe) = run.and_then(|r| r.pipes[side].as_mut()) {
            pipe.discard = true;
        }
    }

    /// Brings the job to its end, whoever began it.
    pub(super) fn finish_job(&mut self, now: Instant) {
        let Some(job) = &mut self.desk.job else {
            return;
        };
        job.strikes += 1;
        let (slot, lost_cause, ours) = (
            job.slot,
            job.strikes > STRIKES,
            SIDES.iter().all(|s| *s != job.stream),
        );
        let Some(run) = self.runs[slot].as_deref_mut() else {
            self.desk.job = None;
            return;
        };
        let lost = if lost_cause {
            Some((LogFault::Bug, self.desk.give_up(run, &mut self.shelf)))
        } else if let (Some(outage), false) = (&run.outage, ours) {
            Some((
                outage.fault.clone(),
                self.desk.give_up(run, &mut self.shelf),
            ))
        } else {
            match self.desk.pour(run, &mut self.shelf, now) {
                Poured::Done => None,
                Poured::Lost(fault, tally) => Some((fault, tally)),
            }
        };
        self.settle(slot, now);
        if let Some((fault, tally)) = lost {
            self.count_lost(slot, fault, tally, now);
        }
        self.tell_notices(slot);
    }

    /// Clears the desk; what is left of the job goes back to its stream.
    fn settle(&mut self, slot: usize, now: Instant) {
        let Some(job) = self.desk.job else { return };
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        if let Some(side) = SIDES.iter().position(|s| *s == job.stream)
            && let Some(pipe) = run.pipes[side].as_mut()
            && job.at < job.len
        {
            pipe.piece.clear();
            pipe.piece
                .extend_from_slice(&self.desk.input[job.at..job.len]);
            pipe.piece_since = now;
            if !pipe.piece_alarm {
                pipe.piece_alarm = true;
                let alarm = Alarm::Piece { run: run.id, side };
                self.timers.set(now + self.options.piece_after, alarm);
            }
        }
        self.desk.job = None;
        if let Some(kept) = self.desk.input.kept() {
            kept.settle(job.at, job.len);
        }
        if let Some(name) = run.files.take_fresh() {
            run.stats.opened(name);
        }
    }

    /// Makes a record of a line that has not ended.
    pub(super) fn flush_piece(&mut self, slot: usize, side: usize, now: Instant) {
        let there = self.runs[slot]
            .as_deref()
            .and_then(|r| r.pipes[side].as_ref());
        if there.is_some_and(|pipe| !pipe.piece.is_empty()) {
            self.write_remarks(slot);
        }
        self.desk.lay_out();
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let Some(pipe) = run.pipes[side].as_mut() else {
            return;
        };
        let len = pipe.piece.len();
        if len > 0 {
            self.desk.input[..len].copy_from_slice(&pipe.piece);
            pipe.piece.clear();
            self.desk.begin(run, (slot, side), len, true);
            self.finish_job(now);
        }
    }

    /// Lets go of a stream, with what it left.
    pub(super) fn end_pipe(&mut self, slot: usize, side: usize, now: Instant) {
        self.flush_piece(slot, side, now);
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let Some(pipe) = run.pipes[side].take() else {
            return;
        };
        // Others may hold the same open pipe: closing ours alone would not end its events.
        let _ = epoll::delete(&self.epoll, &pipe.fd);
        // An outage has its tally still to write, and a detached stream somebody else still writes to.
        let over = run.pipes.iter().all(Option::is_none) && run.outage.is_none();
        if over && run.drain.is_none() && !run.detached {
            run.stats.set_ended();
        }
        let key = run.key.clone();
        (self.sink)(PumpEvent::Ended {
            key,
            stream: SIDES[side],
        });
    }

    /// By readiness if the stream is quiet, by the clock if it is busy with little.
    fn wait_for(&mut self, slot: usize, side: usize, now: Instant, total: usize) {
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let id = run.id;
        let Some(pipe) = run.pipes[side].as_mut() else {
            return;
        };
        let busy = pipe.served.is_some_and(|t| now.duration_since(t) < BUSY);
        if total > 0 {
            pipe.served = Some(now);
        }
        let gather = total > 0 && busy && !self.options.gather.is_zero();
        // While watched, each write(2) of the module pays for a wake-up call, which is
        // dear for a line: so a gathering stream is not merely muted but let go of.
        if gather && !pipe.gathering {
            pipe.gathering = epoll::delete(&self.epoll, &pipe.fd).is_ok();
        } else if !gather && pipe.gathering {
            let watched = epoll::add(&self.epoll, &pipe.fd, token(id, side), EventFlags::IN);
            pipe.gathering = watched.is_err();
        }
        let gather = pipe.gathering;
        if gather && !pipe.gather_alarm {
            pipe.gather_alarm = true;
            let pause = if total < LITTLE {
                self.options.gather
            } else {
                Duration::ZERO
            };
            self.timers
                .set(Instant::now() + pause, Alarm::Gathered { run: id, side });
        }
    }

    pub(super) fn keep_awake(&mut self, now: Instant) {
        self.active = now;
        if !self.rest_alarm {
            self.rest_alarm = true;
            self.timers.set(now + REST_AFTER, Alarm::Rest);
        }
    }

    /// Frees what only busy streams need; later, if there was one lately.
    pub(super) fn rest(&mut self, now: Instant) {
        let due = self.active + REST_AFTER;
        if now < due {
            return self.timers.set(due, Alarm::Rest);
        }
        self.rest_alarm = false;
        self.desk.clear();
        for pipe in self
            .runs
            .iter_mut()
            .flatten()
            .flat_map(|r| r.pipes.iter_mut().flatten())
        {
            pipe.piece.shrink_to_fit();
        }
    }
}

/// One read. Where a kill must lose nothing it goes by way of the desk's own pipe, if the stream is a pipe.
fn fill(
    input: &mut Input,
    fd: &OwnedFd,
    line: Line,
    have: usize,
    most: usize,
) -> Result<usize, Errno> {
    if let Some(kept) = input.kept() {
        match kept.take(fd.as_fd(), line, have, most) {
            Err(Errno::INVAL) => {}
            taken => return taken,
        }
    }
    rustix::io::read(fd, &mut input[have..have + most])
}

fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
