//! The owning end of a link: what callers do with it, and the task's life.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use super::link::{Link, Live, MAX_MARKER, Pending, State, streams};
use super::{AdoptedChild, EmptyNote, ExitNote, Inheritance, SendFault, SpawnedChild};
use crate::keeper::orphan;
use crate::keeper::spec::{ChildKey, Ending, ProcessId, Scope, SpawnFault, SpawnSpec, Stage};
use crate::keeper::wire::{Event, MAX_DATAGRAM, MAX_MEMFD, Request, STORES_SINCE};

type Answer = oneshot::Receiver<Result<SpawnedChild, SpawnFault>>;

/// The connection with its task; dropping it closes the connection.
pub(super) struct Handle {
    link: Arc<Link>,
    keeper: ProcessId,
    version: u32,
    closed: watch::Receiver<bool>,
}

impl Handle {
    /// Takes over a greeted connection, with the events of a list if one was asked for.
    pub(super) fn start(
        link: Link,
        (keeper, version): (ProcessId, u32),
        child: Option<Child>,
        early: Vec<(Event, Vec<OwnedFd>)>,
    ) -> (Self, Inheritance) {
        let mut left = Inheritance::default();
        for (event, fds) in early {
            match event {
                Event::Listed { .. } => left.children.extend(adopt(&link, event, fds)),
                Event::Stored { tag } => left.stored.push((tag, fds)),
                other => link.take(other, fds),
            }
        }
        let link = Arc::new(link);
        let (closing, closed) = watch::channel(false);
        tokio::spawn(run(Arc::clone(&link), child, closing));
        (
            Self {
                link,
                keeper,
                version,
                closed,
            },
            left,
        )
    }

    pub(super) fn keeper(&self) -> ProcessId {
        self.keeper
    }

    pub(super) fn failures(&self) -> u64 {
        self.link.failures.load(Ordering::Relaxed)
    }

    pub(super) async fn closed(&self) {
        self.closing().await;
    }

    pub(super) fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.closed.clone();
        async move {
            // The sender goes only with the task, and that with the connection: an error says the same.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        let table = self.link.table();
        table.queue.is_empty() || table.state != State::Open
    }

    pub(super) fn is_gone(&self) -> bool {
        self.link.table().state == State::Gone
    }

    pub(super) fn store(&self, tag: CString, fds: Vec<OwnedFd>) -> Result<(), SendFault> {
        if self.version < STORES_SINCE {
            return Err(SendFault::Os(libc::EOPNOTSUPP));
        }
        let mut table = self.link.table();
        self.link.post(&mut table, &Request::Store { tag }, fds)
    }

    pub(super) fn unstore(&self, tag: CString) -> Result<(), SendFault> {
        if self.version < STORES_SINCE {
            return Ok(());
        }
        self.send(&Request::Unstore { tag })
    }

    pub(super) fn send(&self, request: &Request) -> Result<(), SendFault> {
        self.link.send(request)
    }

    pub(super) fn spawn(&self, spec: SpawnSpec) -> Result<Answer, SpawnFault> {
        let at_request = |errno| SpawnFault {
            stage: Stage::Request,
            errno,
        };
        if spec.marker.as_bytes().len() > MAX_MARKER {
            return Err(at_request(libc::ENAMETOOLONG));
        }
        let (answer, answered) = oneshot::channel();
        let pending = Pending {
            answer,
            ready: spec.ready,
            marker: spec.marker.clone(),
        };
        let mut table = self.link.table();
        table.last_key += 1;
        let key = ChildKey(table.last_key);
        Request::Spawn {
            key,
            spec: Box::new(spec),
        }
        .encode(&mut table.scratch);
        let memfd = if table.scratch.len() <= MAX_DATAGRAM {
            Vec::new()
        } else if table.scratch.len() <= MAX_MEMFD {
            let memfd = in_memfd(&table.scratch).map_err(|fault| at_request(errno_of(&fault)))?;
            Request::SpawnInMemfd { key }.encode(&mut table.scratch);
            vec![memfd]
        } else {
            // No kernel executes that much.
            return Err(SpawnFault {
                stage: Stage::Exec,
                errno: libc::E2BIG,
            });
        };
        match self.link.post_scratch(&mut table, memfd) {
            Ok(()) => {
                table.pending.insert(key, pending);
                Ok(answered)
            }
            Err(SendFault::KeeperGone) => Err(SpawnFault {
                stage: Stage::KeeperGone,
                errno: libc::ECONNRESET,
            }),
            Err(SendFault::Os(errno)) => Err(at_request(errno)),
            Err(SendFault::Overloaded | SendFault::UnknownChild) => Err(at_request(libc::EAGAIN)),
        }
    }

    /// Signals a child whose keeper is gone.
    pub(super) fn signal_orphan(
        &self,
        key: ChildKey,
        signal: i32,
        scope: Scope,
    ) -> Result<(), SendFault> {
        let (process, marker) = {
            let table = self.link.table();
            let live = table.live.get(&key).ok_or(SendFault::UnknownChild)?;
            (live.process, live.marker.clone())
        };
        match orphan::signal(process, &marker, signal, scope) {
            Ok(0) => Err(SendFault::UnknownChild),
            Ok(_) => Ok(()),
            Err(fault) => Err(SendFault::Os(errno_of(&fault))),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.table().state = State::Dropped;
        // Wakes the task, which then lets go of the socket; a failure means that it is already down.
        let _ = rustix::net::shutdown(self.link.socket.get_ref(), Shutdown::Both);
    }
}

fn errno_of(fault: &io::Error) -> i32 {
    fault.raw_os_error().unwrap_or(libc::EIO)
}

fn in_memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memfd = memfd_create("lair-spawn", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&memfd, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(memfd)
}

fn adopt(link: &Link, event: Event, fds: Vec<OwnedFd>) -> Option<AdoptedChild> {
    let Event::Listed {
        key,
        process,
        marker,
        status,
        tree_empty,
    } = event
    else {
        return None;
    };
    let (exit_sender, exit) = oneshot::channel();
    let (empty_sender, empty) = oneshot::channel();
    let mut live = Live {
        process,
        marker: marker.clone(),
        exit: Some(exit_sender),
        empty: Some(empty_sender),
        abandoned: false,
    };
    if let Some(status) = status
        && let Some(sender) = live.exit.take()
    {
        let _ = sender.send(ExitNote {
            ending: Ending::from_status(status),
            tree_empty,
        });
    }
    if tree_empty && let Some(sender) = live.empty.take() {
        let _ = sender.send(EmptyNote);
    }
    let mut table = link.table();
    table.last_key = table.last_key.max(key.0);
    table.live.insert(key, live);
    table.forget_finished(key);
    let ready = fds.len() > 2;
    Some(AdoptedChild {
        key,
        process,
        marker,
        streams: streams(fds, ready),
        exit,
        empty,
    })
}

async fn run(link: Arc<Link>, child: Option<Child>, closing: watch::Sender<bool>) {
    loop {
        tokio::select! {
            biased;
            event = link.next() => match event {
                Ok((event, fds)) => link.take(event, fds),
                Err(_) => break,
            },
            flushed = link.flush() => if flushed.is_err() { break },
        }
    }
    link.lost();
    drop(link);
    if let Some(child) = child {
        reap(child).await;
    }
    // Nobody listening is fine.
    let _ = closing.send(true);
}

/// The keeper is this process's own child: it is waited for, by its number only.
async fn reap(mut child: Child) {
    let pidfd = rustix::process::Pid::from_raw(child.id().cast_signed()).and_then(|pid| {
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).ok()
    });
    if let Some(pidfd) = pidfd {
        // SAFETY: an OwnedFd names one open description until it is dropped, and it lives inside the AsyncFd.
        let watch = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        if let Ok(watch) = watch
            && watch.readable().await.is_err()
        {
            tracing::warn!("the keeper's end could not be awaited");
        }
    }
    if let Err(error) = child.try_wait() {
        tracing::warn!(%error, "the keeper could not be reaped");
    }
}
