//! Listens where a module says by itself that it is ready: its ready descriptor, or its notify socket.
//!
//! Owns: the descriptor and the task that reads it. Promises: only the module's own tree is believed; whatever it
//! writes costs bounded memory and no message to anybody, except when something changes that matters. Never: acts.

#![allow(
    clippy::disallowed_methods,
    reason = "real probes take real time; simulated ones never come here"
)]

use super::notify::{Note, parse};
use crate::backend::{ReadySource, Tree};
use crate::clock::Clock;
use crate::facts::belongs;
use lair_supervision::Uptime;
use procfs::process::Process;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, UCred, recvmsg,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Datagrams taken in one turn before others get theirs.
const BURST: usize = 64;
/// Longest datagram that is read whole; the rest of a longer one is lost (as with systemd).
const DATAGRAM: usize = 4096;
/// The pause after a failing read.
const PAUSE: Duration = Duration::from_secs(1);

/// What a module has said of itself so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// It serves.
    pub ready: bool,
    /// It will never say so: the ready descriptor was closed without a newline.
    pub never: bool,
    /// It is about to end.
    pub stopping: bool,
    /// What it is doing, in its words.
    pub status: Option<String>,
    /// The last `WATCHDOG=1`.
    pub pinged: Option<Uptime>,
    /// It asked for patience until then.
    pub patience: Option<Uptime>,
    /// When it last asked for that.
    pub extended: Option<Uptime>,
    /// Datagrams of strangers, which were not believed.
    pub strangers: u64,
}

/// A ready source that is being listened to. Dropping it ends that.
pub struct ReadyListener {
    said: watch::Receiver<Said>,
    task: tokio::task::AbortHandle,
}

impl ReadyListener {
    /// Begins to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The descriptor can't be listened to.
    pub fn start(source: ReadySource, tree: Tree, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (tell, said) = watch::channel(Said::default());
        let task = match source {
            ReadySource::Fd(fd) => {
                let pipe = pipe::Receiver::from_owned_fd(fd)?;
                tokio::spawn(read_newline(pipe, tell))
            }
            ReadySource::Notify(fd) => {
                rustix::net::sockopt::set_socket_passcred(&fd, true)?;
                rustix::io::ioctl_fionbio(&fd, true)?;
                let socket = UnixDatagram::from_std(fd.into())?;
                tokio::spawn(read_notes(socket, tell, tree, clock))
            }
        };
        Ok(ReadyListener {
            said,
            task: task.abort_handle(),
        })
    }

    /// What was said so far.
    #[must_use]
    pub fn said(&self) -> Said {
        self.said.borrow().clone()
    }

    /// Wakes for `ready`, `never`, `stopping` and the first `WATCHDOG=1`; pings and status texts wake nobody.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Said> {
        let mut said = self.said.clone();
        said.mark_changed();
        said
    }
}

impl Drop for ReadyListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_newline(mut pipe: pipe::Receiver, tell: watch::Sender<Said>) {
    let mut bytes = [0; 256];
    loop {
        match pipe.read(&mut bytes).await {
            Ok(0) => break tell.send_modify(|said| said.never = true),
            Ok(n) if bytes[..n].contains(&b'\n') => {
                break tell.send_modify(|said| said.ready = true);
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn read_notes(
    socket: UnixDatagram,
    tell: watch::Sender<Said>,
    tree: Tree,
    clock: Arc<dyn Clock>,
) {
    loop {
        for _ in 0..BURST {
            match socket
                .async_io(Interest::READABLE, || receive(&socket))
                .await
            {
                Ok((text, sender)) => {
                    let ours = sender.is_some_and(|sender| is_member(&sender, &tree));
                    tell.send_if_modified(|said| hear(said, ours, &text, clock.now()));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes in one datagram; true if somebody should be woken for it.
fn hear(said: &mut Said, ours: bool, text: &[u8], now: Uptime) -> bool {
    if !ours {
        said.strangers += 1;
        return false;
    }
    let before = (said.ready, said.stopping, said.pinged.is_some());
    for note in parse(text) {
        match note {
            Note::Ready => said.ready = true,
            Note::Stopping => said.stopping = true,
            Note::Status(text) => said.status = Some(text),
            Note::Watchdog => said.pinged = Some(now),
            Note::Extend(by) => {
                said.extended = Some(now);
                said.patience = said.patience.max(Some(now + by));
            }
        }
    }
    before != (said.ready, said.stopping, said.pinged.is_some())
}

fn receive(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Option<UCred>)> {
    let mut text = vec![0; DATAGRAM];
    // Room for a few descriptors, so that what a stranger passes is received, and closed by the drop below.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            flags,
        ) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut sender = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmCredentials(credentials) = message {
            sender = Some(credentials);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Ok((Vec::new(), sender));
    }
    text.truncate(received.bytes);
    Ok((text, sender))
}

/// The sender's pid decides. Where it tells nothing (it has ended already, as `systemd-notify` does; another pid
/// namespace) its user must be the one of a process of the tree.
fn is_member(sender: &UCred, tree: &Tree) -> bool {
    if let Some(member) = belongs(sender.pid.as_raw_nonzero().get(), tree) {
        return member;
    }
    crate::facts::pids(tree)
        .first()
        .and_then(|pid| Process::new(*pid).ok()?.uid().ok())
        .is_some_and(|uid| uid == sender.uid.as_raw())
}
