//! The connection itself: the socket, the table of children, and the task that reads.
//!
//! The table is behind a lock that is never held across an await; both the task and the callers only look
//! something up under it, send one datagram, and let go.

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

use super::{EmptyNote, ExitNote, SendFault, SpawnedChild, Streams};
use crate::keeper::message::{self, Received};
use crate::keeper::orphan;
use crate::keeper::spec::{ChildKey, Ending, ProcessId, SpawnFault, Stage};
use crate::keeper::wire::{Event, Request};

/// No event is longer: its only text, the marker, is bounded.
const MAX_EVENT: usize = 4096;

/// The longest marker a child may be given.
pub(super) const MAX_MARKER: usize = 1024;

/// Requests kept while the keeper does not read; beyond it callers are refused.
const MAX_QUEUE: usize = 16_384;

/// What the callers and the task share.
pub(super) struct Link {
    pub(super) socket: AsyncFd<OwnedFd>,
    pub(super) table: Mutex<Table>,
    pub(super) queued: Notify,
    pub(super) failures: AtomicU64,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) last_key: u64,
    pub(super) pending: HashMap<ChildKey, Pending>,
    pub(super) live: HashMap<ChildKey, Live>,
    pub(super) queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    pub(super) scratch: Vec<u8>,
    pub(super) state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Open,
    /// The keeper is gone; what is live is watched from here.
    Gone,
    /// The last client is gone; nobody waits for anything.
    Dropped,
}

pub(super) struct Pending {
    pub(super) answer: oneshot::Sender<Result<SpawnedChild, SpawnFault>>,
    pub(super) ready: bool,
    pub(super) marker: CString,
}

pub(super) struct Live {
    pub(super) process: ProcessId,
    pub(super) marker: CString,
    pub(super) exit: Option<oneshot::Sender<ExitNote>>,
    pub(super) empty: Option<oneshot::Sender<EmptyNote>>,
    /// Nobody took the child: it was killed, and is acknowledged as soon as it has ended.
    pub(super) abandoned: bool,
}

/// Registers a socket with the current runtime.
pub(super) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open description until it is dropped, and it lives inside the AsyncFd.
    unsafe { AsyncFd::register(socket) }.map_err(|fault| fault.into_parts().1)
}

impl Link {
    pub(super) fn new(socket: AsyncFd<OwnedFd>) -> Self {
        Self {
            socket,
            table: Mutex::default(),
            queued: Notify::new(),
            failures: AtomicU64::new(0),
        }
    }

    /// Every change under the lock is complete before anything that could panic, so poison is no damage.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one event. Safe to cancel.
    pub(super) async fn next(&self) -> io::Result<(Event, Vec<OwnedFd>)> {
        let mut buffer = [0; MAX_EVENT];
        loop {
            let mut ready = self.socket.readable().await?;
            let attempt =
                ready.try_io(|socket| message::receive(socket.get_ref().as_fd(), &mut buffer));
            let Ok(received) = attempt else { continue };
            let Received { length, fds } = received?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = buffer.get(..length).unwrap_or_default();
            match Event::decode(bytes) {
                Ok(event) => return Ok((event, fds)),
                Err(fault) => return Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
            }
        }
    }

    /// Sends a request before the task runs.
    pub(super) fn put(&self, request: &Request) -> io::Result<()> {
        self.send(request).map_err(|fault| match fault {
            SendFault::Os(errno) => io::Error::from_raw_os_error(errno),
            _ => io::ErrorKind::ConnectionReset.into(),
        })
    }

    pub(super) fn send(&self, request: &Request) -> Result<(), SendFault> {
        self.post(&mut self.table(), request, Vec::new())
    }

    pub(super) fn post(
        &self,
        table: &mut Table,
        request: &Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(), SendFault> {
        request.encode(&mut table.scratch);
        self.post_scratch(table, fds)
    }

    /// Sends what is in the scratch buffer, behind everything that waits already.
    pub(super) fn post_scratch(
        &self,
        table: &mut Table,
        fds: Vec<OwnedFd>,
    ) -> Result<(), SendFault> {
        if table.state != State::Open {
            return Err(SendFault::KeeperGone);
        }
        self.send_queued(table);
        if table.queue.is_empty() {
            match self.transmit(&table.scratch, &fds) {
                Ok(()) => return Ok(()),
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
                Err(fault) => return Err(refused(&fault)),
            }
        }
        if table.queue.len() >= MAX_QUEUE {
            return Err(SendFault::Overloaded);
        }
        table.queue.push_back((table.scratch.clone(), fds));
        self.queued.notify_one();
        Ok(())
    }

    /// A burst of requests comes in one turn of its task: what the keeper has made room for goes out meanwhile.
    fn send_queued(&self, table: &mut Table) {
        while let Some((bytes, fds)) = table.queue.front()
            && self.transmit(bytes, fds).is_ok()
        {
            table.queue.pop_front();
        }
    }

    fn transmit(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        message::send(self.socket.get_ref().as_fd(), bytes, &fds)
    }

    /// Never ends while the connection lives: sends what is queued whenever the socket takes it.
    pub(super) async fn flush(&self) -> io::Result<()> {
        loop {
            if self.table().queue.is_empty() {
                self.queued.notified().await;
                continue;
            }
            let mut ready = self.socket.writable().await?;
            let mut table = self.table();
            let Some((bytes, fds)) = table.queue.front() else {
                continue;
            };
            if let Ok(sent) = ready.try_io(|_| self.transmit(bytes, fds)) {
                table.queue.pop_front();
                sent?;
            }
        }
    }

    // -----------------------------------------------------------------------------------------------------

    pub(super) fn take(&self, event: Event, fds: Vec<OwnedFd>) {
        let mut table = self.table();
        match event {
            Event::Spawned { key, process } => self.spawned(&mut table, key, process, fds),
            Event::SpawnFailed { key, fault } => {
                if let Some(pending) = table.pending.remove(&key) {
                    // A caller that no longer waits has nothing to clean up either.
                    let _ = pending.answer.send(Err(fault));
                }
            }
            Event::Exited {
                key,
                status,
                tree_empty,
            } => {
                self.exited(&mut table, key, Ending::from_status(status), tree_empty);
            }
            Event::Empty { key } => {
                if let Some(empty) = table.live.get_mut(&key).and_then(|live| live.empty.take()) {
                    let _ = empty.send(EmptyNote);
                }
                table.forget_finished(key);
            }
            Event::Failed { key, errno } => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    key = key.0,
                    errno,
                    "the keeper could not carry out a request"
                );
            }
            Event::Hello { .. } | Event::Listed { .. } | Event::Stored { .. } | Event::ListEnd => {}
        }
    }

    fn spawned(&self, table: &mut Table, key: ChildKey, process: ProcessId, fds: Vec<OwnedFd>) {
        let Some(Pending {
            answer,
            ready,
            marker,
        }) = table.pending.remove(&key)
        else {
            return;
        };
        let (exit, exit_seen) = oneshot::channel();
        let (empty, empty_seen) = oneshot::channel();
        let live = Live {
            process,
            marker,
            exit: Some(exit),
            empty: Some(empty),
            abandoned: false,
        };
        table.live.insert(key, live);
        let taken = match streams(fds, ready) {
            Some(streams) => {
                let child = SpawnedChild {
                    key,
                    process,
                    streams,
                    exit: exit_seen,
                    empty: empty_seen,
                };
                answer.send(Ok(child)).is_ok()
            }
            None => {
                // Received without its streams: this process has no descriptors left.
                let _ = answer.send(Err(SpawnFault {
                    stage: Stage::Handover,
                    errno: libc::EMFILE,
                }));
                false
            }
        };
        if !taken {
            self.abandon(table, key);
        }
    }

    fn abandon(&self, table: &mut Table, key: ChildKey) {
        if let Some(live) = table.live.get_mut(&key) {
            live.abandoned = true;
        }
        if let Err(fault) = self.post(table, &Request::Kill { key }, Vec::new()) {
            tracing::warn!(key = key.0, %fault, "an abandoned child could not be killed");
        }
    }

    fn exited(&self, table: &mut Table, key: ChildKey, ending: Ending, tree_empty: bool) {
        let Some(live) = table.live.get_mut(&key) else {
            return;
        };
        if let Some(exit) = live.exit.take() {
            let _ = exit.send(ExitNote { ending, tree_empty });
        }
        if tree_empty && let Some(empty) = live.empty.take() {
            let _ = empty.send(EmptyNote);
        }
        if live.abandoned && self.post(table, &Request::Ack { key }, Vec::new()).is_err() {
            tracing::warn!(key = key.0, "an abandoned child could not be acknowledged");
        }
        table.forget_finished(key);
    }

    /// The keeper is gone: answers what is pending and watches what is live from here.
    pub(super) fn lost(&self) {
        let mut table = self.table();
        table.queue.clear();
        table.pending.clear();
        if table.state == State::Dropped {
            table.live.clear();
            return;
        }
        table.state = State::Gone;
        for live in table.live.values_mut() {
            live.empty = None;
            let Some(exit) = live.exit.take() else {
                continue;
            };
            // Opened now: the number is the child's only for as long as nobody reaps it.
            let watch = orphan::Watch::open(live.process);
            tokio::spawn(async move {
                let ending = watch.ended().await;
                let _ = exit.send(ExitNote {
                    ending,
                    tree_empty: false,
                });
            });
        }
    }
}

impl Table {
    pub(super) fn forget_finished(&mut self, key: ChildKey) {
        if self
            .live
            .get(&key)
            .is_some_and(|live| live.exit.is_none() && live.empty.is_none())
        {
            self.live.remove(&key);
        }
    }
}

fn refused(fault: &io::Error) -> SendFault {
    match fault.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) | None => SendFault::KeeperGone,
        Some(errno) => SendFault::Os(errno),
    }
}

pub(super) fn streams(fds: Vec<OwnedFd>, ready: bool) -> Option<Streams> {
    let mut fds = fds.into_iter();
    let (stdout, stderr) = (fds.next()?, fds.next()?);
    let last = fds.next();
    if ready != last.is_some() {
        return None;
    }
    Some(Streams {
        stdout,
        stderr,
        ready: last,
    })
}
