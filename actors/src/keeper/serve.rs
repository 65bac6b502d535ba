//! The keeper's loop: one thread, one poll, requests in, events out.
//!
//! ```text
//!   Serving ──connection closes, Keep──▶ Waiting ──Hello──▶ Serving
//!      │ ╲                                  │
//!      │  ╲─connection closes, Kill─▶ Stopping ──grace──▶ Ending ──nothing left──▶ (end)
//!      └──Shutdown──────────────────────────────────────────▲
//! ```
//!
//! Promises that a runtime that does not read is never waited for and costs no memory: what it must know stays
//! due in the table, and no further request is read until its answers are out.

#![allow(
    clippy::disallowed_methods,
    reason = "the keeper has no runtime above it: its rounds are timed by its own clock"
)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::boot::{Ground, Orders};
use super::children::Children;
use super::chores::Chores;
use super::door::Door;
use super::exec::Launcher;
use super::family;
use super::message;
use super::pages;
use super::spec::{DeathPolicy, ProcessId};
use super::store::Store;
use super::storm::Storm;
use super::tree::Rounds;
use super::wire::{Event, MAX_DATAGRAM, OLDEST_VERSION, Request};

/// How soon a send that failed for want of memory or descriptors in flight is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// So many milliseconds without anything to do, and the start counts as over.
const REST_MS: i32 = 1500;

/// Starts made in one turn, before exits are looked at again. Signals are cheap and many die of them: they go first.
const TURN: usize = 64;

/// The keeper's whole state.
pub(super) struct Keeper {
    pub(super) children: Children,
    pub(super) chores: Chores,
    pub(super) launcher: Launcher,
    pub(super) rounds: Rounds,
    storm: Storm,
    pub(super) phase: Phase,
    pub(super) policy: DeathPolicy,
    pub(super) outbox: VecDeque<Event>,
    /// Children of a list that are still due; the list's end follows the last.
    pub(super) listing: Option<usize>,
    pub(super) store: Store,
    pub(super) door: Door,
    pub(super) itself: ProcessId,
    connection: Option<OwnedFd>,
    greeted: bool,
    /// The newest protocol it speaks.
    version: u32,
    signals: OwnedFd,
    blocked: Option<Blocked>,
    /// It has given back what only its start needed.
    slim: bool,
    /// The request under way is the first start of this turn.
    pub(super) first: bool,
    inbox: Vec<u8>,
    pub(super) scratch: Vec<u8>,
}

/// What the keeper lives for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A runtime is connected.
    Serving,
    /// No runtime is connected; the next one may come.
    Waiting,
    /// No runtime will come: the trees were asked to stop.
    Stopping { deadline: Instant },
    /// Everything is being killed.
    Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// Until the runtime reads.
    Full,
    /// Until resources are there again, which nothing announces.
    Starved,
}

impl Keeper {
    pub(super) fn new(ground: Ground, orders: &Orders) -> io::Result<Self> {
        let pid = std::process::id().cast_signed();
        Ok(Self {
            children: Children::default(),
            chores: Chores::default(),
            launcher: Launcher::new(ground.undo)?,
            rounds: Rounds::default(),
            storm: Storm::default(),
            phase: Phase::Serving,
            policy: orders.policy,
            outbox: VecDeque::new(),
            listing: None,
            store: Store::default(),
            door: Door::open(orders.socket_path.as_deref()),
            itself: ProcessId {
                pid,
                start_ticks: family::start_ticks(pid).unwrap_or(0),
            },
            connection: Some(ground.connection),
            greeted: false,
            version: orders.version,
            signals: ground.signals,
            blocked: None,
            slim: false,
            first: false,
            inbox: vec![0; MAX_DATAGRAM],
            scratch: Vec::new(),
        })
    }

    /// Serves until nothing is left to be kept.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            self.flush();
            self.settle_slowly();
            self.kill_round();
            self.flush();
            self.chores.turn();
            if self.finished() {
                self.chores.finish();
                self.door.close();
                return Ok(());
            }
            self.end_turn();
            self.turn()?;
        }
    }

    /// Waits for one thing to happen and takes it.
    fn turn(&mut self) -> io::Result<()> {
        let [signals, connection, listener] = self.wait()?;
        if self.blocked == Some(Blocked::Starved) || connection & libc::POLLOUT != 0 {
            self.blocked = None;
        }
        if connection & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 {
            self.read_requests();
        }
        if signals != 0 {
            self.drain_signals();
        }
        if signals != 0 || self.rounds.unreaped {
            self.rounds.unreaped = true;
            if self.storm.until(Instant::now()).is_none() {
                self.reap();
            }
        }
        if listener != 0 {
            self.connection = self.door.admit();
            self.greeted = false;
        }
        Ok(())
    }

    /// What happened: to the children, to the connection, at the door.
    fn wait(&mut self) -> io::Result<[i16; 3]> {
        let connection = self.connection.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let listener = if self.phase == Phase::Waiting && self.connection.is_none() {
            self.door.raw()
        } else {
            -1
        };
        let held = self.storm.until(Instant::now()).is_some();
        let events = match self.blocked {
            None => libc::POLLIN,
            Some(Blocked::Full) => libc::POLLOUT,
            Some(Blocked::Starved) => 0,
        };
        let mut fds = [
            libc::pollfd {
                fd: if held { -1 } else { self.signals.as_raw_fd() },
                events: libc::POLLIN,
                revents: 0,
            },
            libc::pollfd {
                fd: connection,
                events,
                revents: 0,
            },
            libc::pollfd {
                fd: listener,
                events: libc::POLLIN,
                revents: 0,
            },
        ];
        let due = self.patience();
        let is_rest = due < 0 && !self.slim;
        let patience = if is_rest { REST_MS } else { due };
        // SAFETY: the array is as long as it is said to be.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 3, patience) };
        if ready == 0 && is_rest {
            self.slim = true;
            pages::give_back();
        }
        if ready < 0 {
            let fault = io::Error::last_os_error();
            return if fault.kind() == io::ErrorKind::Interrupted {
                Ok([0; 3])
            } else {
                Err(fault)
            };
        }
        Ok(fds.map(|fd| fd.revents))
    }

    /// How long to wait at most, in milliseconds; rounded up, so that a deadline is over when it ends.
    fn patience(&self) -> i32 {
        let now = Instant::now();
        let storm = self.storm.until(now);
        if self.rounds.unreaped && storm.is_none() {
            return 0;
        }
        let stop = match self.phase {
            Phase::Stopping { deadline } => Some(deadline),
            _ => None,
        };
        let retry = (self.blocked == Some(Blocked::Starved)).then(|| now + RETRY);
        let next = [stop, retry, storm, self.next_round(), self.chores.due()]
            .into_iter()
            .flatten()
            .min();
        next.map_or(-1, |at| {
            let left = at.saturating_duration_since(now).as_micros().div_ceil(1000);
            i32::try_from(left).unwrap_or(i32::MAX)
        })
    }

    /// One SIGCHLD may stand for many; the descriptor only wakes.
    fn drain_signals(&self) {
        let mut info = [0_u8; 1024];
        while rustix::io::read(&self.signals, &mut info).is_ok_and(|length| length == info.len()) {}
    }

    fn finished(&mut self) -> bool {
        match self.phase {
            Phase::Serving => false,
            Phase::Waiting => {
                self.connection.is_none() && self.children.is_empty() && !self.door.is_knocked()
            }
            Phase::Stopping { .. } | Phase::Ending => self.nothing_left(),
        }
    }

    // -----------------------------------------------------------------------------------------------------

    fn read_requests(&mut self) {
        let mut signals = 0;
        self.read_some_requests(&mut signals);
        self.storm.hear(signals, Instant::now());
    }

    fn read_some_requests(&mut self, signals: &mut usize) {
        let mut starts = 0;
        while starts < TURN {
            let Some(connection) = &self.connection else {
                return;
            };
            let received = match message::receive(connection.as_fd(), &mut self.inbox) {
                Ok(received) if received.length > 0 => received,
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => return self.disconnect(),
            };
            let request = Request::decode(self.inbox.get(..received.length).unwrap_or_default());
            match request {
                Ok(Request::Signal { .. }) => *signals += 1,
                _ => starts += 1,
            }
            self.first = starts == 1;
            match request {
                Ok(Request::Hello { version }) => self.greet(version),
                _ if !self.greeted => return self.disconnect(),
                Ok(request) => self.obey(request, received.fds),
                Err(_) => self.refuse_unread(),
            }
            self.flush();
            if self.blocked.is_some() {
                return;
            }
        }
    }

    fn greet(&mut self, version: u32) {
        let spoken = (OLDEST_VERSION..=self.version).contains(&version);
        self.outbox.push_back(Event::Hello {
            version: if spoken { version } else { self.version },
            keeper: self.itself,
            listen_errno: self.door.errno(),
        });
        if !spoken {
            self.flush();
            return self.disconnect();
        }
        // What happened while nobody was connected is for the list to tell.
        self.children.tell_nobody();
        self.store.tell_nobody();
        self.greeted = true;
        self.phase = Phase::Serving;
    }

    /// The runtime's end is closed: what is due will be asked for by the next one.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.blocked = None;
        self.outbox.clear();
        self.listing = None;
        self.store.tell_nobody();
        self.children.tell_nobody();
        self.forget_all_finished();
        let was_greeted = std::mem::replace(&mut self.greeted, false);
        match (self.phase, self.policy) {
            (Phase::Stopping { .. } | Phase::Ending, _) => {}
            (Phase::Waiting, _) => {}
            (Phase::Serving, DeathPolicy::Keep) if was_greeted => self.wait_for_the_next(),
            (Phase::Serving, DeathPolicy::Kill { grace_ms }) if was_greeted => {
                self.stop_all(grace_ms)
            }
            (Phase::Serving, _) => self.phase = Phase::Ending,
        }
    }

    // -----------------------------------------------------------------------------------------------------

    /// Sends what can be sent.
    pub(super) fn flush(&mut self) {
        while self.blocked.is_none() && self.connection.is_some() {
            if self.tell_stored() {
                continue;
            }
            if let Some(event) = self.outbox.front() {
                event.encode(&mut self.scratch);
                if self.transmit(None) {
                    self.outbox.pop_front();
                }
            } else if let Some(key) = self.children.next_due().filter(|_| self.greeted) {
                self.tell(key);
            } else {
                return;
            }
        }
    }

    /// Sends what is in the scratch buffer, with the streams of that child.
    pub(super) fn transmit(&mut self, streams: Option<super::ChildKey>) -> bool {
        let owned = streams
            .and_then(|key| self.children.get(key))
            .map_or(&[][..], |entry| &entry.streams);
        let sent = self.send(owned);
        self.sent(sent)
    }

    /// Gives back the next stored descriptors, before anything that ends the list; `false` if there are none.
    fn tell_stored(&mut self) -> bool {
        let Some((tag, fds)) = self.store.next_due() else {
            return false;
        };
        Event::Stored { tag: tag.clone() }.encode(&mut self.scratch);
        let sent = self.send(fds);
        if self.sent(sent) {
            self.store.told();
        }
        true
    }

    fn send(&self, owned: &[OwnedFd]) -> io::Result<()> {
        let Some(connection) = &self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let fds: Vec<BorrowedFd<'_>> = owned.iter().map(AsFd::as_fd).collect();
        message::send(connection.as_fd(), &self.scratch, &fds)
    }

    fn sent(&mut self, sent: io::Result<()>) -> bool {
        match sent {
            Ok(()) => return true,
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = Some(Blocked::Full)
            }
            Err(fault) => match fault.raw_os_error() {
                Some(libc::ENOBUFS | libc::ENOMEM | libc::ETOOMANYREFS) => {
                    self.blocked = Some(Blocked::Starved)
                }
                _ => self.disconnect(),
            },
        }
        false
    }
}
