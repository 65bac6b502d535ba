//! The pump's loop: sleep, take commands, serve what is ready, do what is due.
//!
//! The state is owned here, outside the frames that a panic unwinds; after one, the
//! waiting is set up anew from the registry and the job on the desk is finished.

#![allow(
    clippy::disallowed_methods,
    reason = "the pump's thread has its own timers: bytes never wait for an actor"
)]

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;

use crate::files::{Folder, Shelf};

use super::command::{Command, CrashPoint, Drained, PumpEvent, Reply, StreamKey};
use super::handle::{Bell, PumpOptions};
use super::job::{Desk, Input};
use super::kept::KeptDesk;
use super::run::{Run, SIDES};
use super::timers::{Alarm, RunId, Timers};

const BELL: u64 = u64::MAX;
/// Commands taken up before streams get their turn.
const COMMANDS: usize = 256;
/// A pause after panics in a row without a good turn between them.
const CALM: Duration = Duration::from_millis(10);

/// Runs [`State`] and survives its panics.
pub(super) struct Worker {
    inbox: Receiver<Command>,
    bell: Arc<Bell>,
    state: State,
}

/// All that the pump knows.
pub(super) struct State {
    pub options: PumpOptions,
    pub epoll: OwnedFd,
    pub sink: Box<dyn Fn(PumpEvent) + Send>,
    pub runs: Vec<Option<Box<Run>>>,
    pub index: HashMap<StreamKey, usize>,
    /// Places of the earlier life's runs that nobody has claimed yet.
    pub reserved: HashMap<StreamKey, usize>,
    pub shelf: Shelf,
    pub desk: Desk,
    pub timers: Timers,
    pub active: Instant,
    pub rest_alarm: bool,
    pub free: Vec<usize>,
    pub serial: u32,
    pub flushes: Vec<Reply>,
    /// Bytes of one read.
    pub bite: usize,
    panics: u64,
    panics_in_row: u32,
    untold: u64,
    stopping: bool,
    pub stopped: bool,
}

// -----------------------------------------------------------------------------

impl Worker {
    pub fn new(
        options: PumpOptions,
        desk: Option<KeptDesk>,
        bell: Arc<Bell>,
        inbox: Receiver<Command>,
        sink: Box<dyn Fn(PumpEvent) + Send>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &bell.fd, EventData::new_u64(BELL), EventFlags::IN)?;
        let shelf = Shelf::new(&options.log_dir, options.open_files, options.upkeep.clone());
        let state = State {
            options,
            epoll,
            sink,
            runs: Vec::new(),
            index: HashMap::new(),
            reserved: HashMap::new(),
            shelf,
            desk: Desk {
                input: desk.map_or_else(Input::default, |desk| Input::Kept(Box::new(desk))),
                ..Desk::default()
            },
            timers: Timers::default(),
            active: Instant::now(),
            rest_alarm: false,
            bite: super::job::READ,
            free: Vec::new(),
            serial: 0,
            flushes: Vec::new(),
            panics: 0,
            panics_in_row: 0,
            untold: 0,
            stopping: false,
            stopped: false,
        };
        Ok(Self { inbox, bell, state })
    }

    pub fn run(&mut self) {
        // A chunk that can't be finished is no reason for a life without logs.
        if catch_unwind(AssertUnwindSafe(|| self.state.inherit())).is_err() {
            tracing::error!("what an earlier life had in work could not be finished");
        }
        while !self.state.stopped {
            let Self { inbox, bell, state } = self;
            if catch_unwind(AssertUnwindSafe(|| state.turns(inbox, bell))).is_err() {
                state.survived();
                // What waited behind the panic has rung already and will not again.
                bell.ring();
            }
        }
    }
}

// -----------------------------------------------------------------------------

impl State {
    fn turns(&mut self, inbox: &Receiver<Command>, bell: &Bell) {
        self.pick_up();
        while !self.stopped {
            if self.stopping {
                return self.stop();
            }
            self.turn(inbox, bell);
            self.panics_in_row = 0;
        }
    }

    fn turn(&mut self, inbox: &Receiver<Command>, bell: &Bell) {
        let mut space = [MaybeUninit::<Event>::uninit(); 64];
        let (ready, rung) = self.sleep(&mut space);
        if rung {
            let _ = rustix::io::read(&bell.fd, &mut [0u8; 8]);
            bell.rung.store(false, Ordering::SeqCst);
            self.desk.crash_at(CrashPoint::Wake);
            self.obey(inbox, bell);
            self.desk.crash_at(CrashPoint::Wake);
        }
        for event in ready {
            let (slot, side) = (event >> 1 & 0xffff_ffff, event & 1);
            self.serve_if_there(slot as usize, side as usize);
        }
        let now = Instant::now();
        while let Some(alarm) = self.timers.due(now) {
            self.ring(alarm, now);
        }
    }

    /// Sleeps until something is ready or due.
    fn sleep(&mut self, space: &mut [MaybeUninit<Event>; 64]) -> (Vec<u64>, bool) {
        const AT_ONCE: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let pause = self
            .timers
            .next()
            .map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(pause) = pause
            && !pause.is_zero()
        {
            // epoll_wait counts milliseconds, and gathering is shorter than one.
            let bound = Timespec::try_from(pause).unwrap_or(AT_ONCE);
            let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&bound));
        }
        let bound = pause.map(|_| &AT_ONCE);
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut space[..], bound) else {
            return (Vec::new(), false);
        };
        let rung = events.iter().any(|e| e.data.u64() == BELL);
        let ready = events
            .iter()
            .map(|e| e.data.u64())
            .filter(|&d| d != BELL)
            .collect();
        (ready, rung)
    }

    fn obey(&mut self, inbox: &Receiver<Command>, bell: &Bell) {
        for _ in 0..COMMANDS {
            let Ok(command) = inbox.try_recv() else {
                return;
            };
            bell.queued.fetch_sub(1, Ordering::Relaxed);
            self.carry_out(command);
        }
        // More may wait than one turn takes: come back without being rung.
        bell.ring();
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Check { module, reply } => {
                reply(Folder::check(&self.options.log_dir, &module));
            }
            Command::Attach {
                key,
                policy,
                streams,
                resume,
                stats,
            } => {
                self.attach(key, policy, streams, resume, stats);
            }
            Command::Remark { key, text } => {
                if let Some(&slot) = self.index.get(&key) {
                    self.keep_remark(slot, text);
                }
            }
            Command::Drain { key, within, reply } => match self.index.get(&key) {
                Some(&slot) => self.begin_drain(slot, within, reply),
                None => reply(unknown(key)),
            },
            Command::Rotate { key } => {
                if let Some(&slot) = self.index.get(&key) {
                    self.write_remarks(slot);
                }
                if let Some(run) = self.index.get(&key).and_then(|&s| self.runs[s].as_mut()) {
                    SIDES
                        .iter()
                        .for_each(|&s| run.files.rotate(&mut self.shelf, s));
                }
            }
            Command::Flush { reply } => {
                self.flushes.push(reply);
                self.flush();
            }
            Command::Close { key, reply } => {
                if let Some(&slot) = self.index.get(&key) {
                    self.close(slot);
                }
                if let Some(reply) = reply {
                    reply();
                }
            }
            Command::Pin { key } => self.shelf.pin(&key.module, key.run),
            Command::Revise { key, policy } => {
                if let Some(run) = self.index.get(&key).and_then(|&s| self.runs[s].as_mut()) {
                    run.files.revise(policy);
                }
            }
            Command::Watch { key, watch } => {
                if let Some(run) = self.index.get(&key).and_then(|&s| self.runs[s].as_mut()) {
                    run.watch = watch;
                }
            }
            Command::Begun { key, reply } => reply(self.begun(&key)),
            Command::Disown => self.disown(),
            Command::Crash(point) => self.desk.crash = Some(point),
            Command::FailWrites {
                module,
                errno,
                count,
            } => self.shelf.fail_writes(module, errno, count),
            Command::Discard { key, stream } => self.discard(&key, stream),
            Command::Stall(time) => std::thread::sleep(time),
            Command::Stop => self.stopping = true,
        }
    }

    pub(super) fn serve_if_there(&mut self, slot: usize, side: usize) {
        let there = self.runs.get(slot).and_then(|r| r.as_deref());
        if there.is_some_and(|r| r.pipes[side].is_some()) {
            self.serve(slot, side);
        }
    }

    fn ring(&mut self, alarm: Alarm, now: Instant) {
        let meant = match alarm {
            Alarm::Rest => return self.rest(now),
            Alarm::Gathered { run, .. }
            | Alarm::Piece { run, .. }
            | Alarm::Remarks { run }
            | Alarm::DrainBound { run } => run,
        };
        let slot = meant.slot as usize;
        let Some(run) = self.runs.get_mut(slot).and_then(|r| r.as_deref_mut()) else {
            return;
        };
        if run.id != meant {
            return;
        }
        match alarm {
            Alarm::Gathered { side, .. } => {
                let Some(pipe) = run.pipes[side].as_mut() else {
                    return;
                };
                pipe.gather_alarm = false;
                if pipe.gathering {
                    self.serve(slot, side);
                }
            }
            Alarm::Piece { side, .. } => {
                let Some(pipe) = run.pipes[side].as_mut() else {
                    return;
                };
                pipe.piece_alarm = !pipe.piece.is_empty();
                if !pipe.piece_alarm {
                    return;
                }
                let due = pipe.piece_since + self.options.piece_after;
                if due > now {
                    return self.timers.set(due, alarm);
                }
                pipe.piece_alarm = false;
                self.flush_piece(slot, side, now);
            }
            Alarm::DrainBound { .. } => {
                if run.drain.as_ref().is_some_and(|d| d.until <= now) {
                    // The bound counts what could be read by then: look once more.
                    (0..2).for_each(|side| self.serve_if_there(slot, side));
                    if self.runs[slot]
                        .as_deref()
                        .is_some_and(|r| r.drain.is_some())
                    {
                        self.finish_drain(slot);
                    }
                }
            }
            Alarm::Remarks { .. } => self.write_remarks(slot),
            Alarm::Rest => {}
        }
    }
}

// -----------------------------------------------------------------------------

impl State {
    fn survived(&mut self) {
        self.panics += 1;
        self.untold = self.panics;
        self.panics_in_row += 1;
        if self.panics_in_row > 3 {
            std::thread::sleep(CALM);
        }
    }

    /// After a panic: finishes the job it left and waits for everything anew.
    fn pick_up(&mut self) {
        if self.untold == 0 {
            return;
        }
        let now = Instant::now();
        self.timers.clear();
        self.timers.set(now, Alarm::Rest);
        self.rest_alarm = true;
        for run in self.runs.iter_mut().flatten() {
            for (side, pipe) in run.pipes.iter_mut().enumerate() {
                let Some(pipe) = pipe else { continue };
                pipe.gathering = false;
                pipe.gather_alarm = false;
                pipe.piece_alarm = true;
                let (fd, token) = (&pipe.fd, token(run.id, side));
                if epoll::modify(&self.epoll, fd, token, EventFlags::IN).is_err() {
                    let _ = epoll::add(&self.epoll, fd, token, EventFlags::IN);
                }
                self.timers.set(now, Alarm::Piece { run: run.id, side });
            }
            if !run.remarks.is_empty() {
                self.timers.set(now, Alarm::Remarks { run: run.id });
            }
            if let Some(drain) = &run.drain {
                self.timers
                    .set(drain.until, Alarm::DrainBound { run: run.id });
            }
        }
        // A command may have waited behind the one that panicked.
        self.finish_job(now);
        (0..self.runs.len()).for_each(|slot| self.check_drained(slot));
        if !self.flushes.is_empty() {
            self.flush();
        }
        let count = std::mem::take(&mut self.untold);
        (self.sink)(PumpEvent::Restarted { count });
    }
}

pub(super) fn token(run: RunId, side: usize) -> EventData {
    EventData::new_u64(u64::from(run.slot) << 1 | side as u64)
}

fn unknown(key: StreamKey) -> Drained {
    Drained {
        key,
        bytes: 0,
        lines: 0,
        dropped: Default::default(),
        eof: false,
    }
}
