//! Starting a keeper or finding one, up to the point where the task takes the connection over.

#![allow(
    clippy::disallowed_methods,
    reason = "the one process that lair starts itself is the keeper"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as dial, socket_with,
    socketpair,
};

use super::handle::Handle;
use super::link::{Link, register};
use super::{Inheritance, KeeperOptions};
use crate::keeper::KEEPER_VERB;
use crate::keeper::spec::{DeathPolicy, ProcessId};
use crate::keeper::wire::{Event, OLDEST_VERSION, PROTOCOL_VERSION, Request};

/// A keeper answers in well under a millisecond; this bound is for a program that is none.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn launch(options: &KeeperOptions) -> io::Result<Handle> {
    if options.policy == DeathPolicy::Keep && options.socket_path.is_none() {
        // Children kept where nobody could ever find them.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (ours, theirs) = pair()?;
    let child = start(options, theirs)?;
    let link = Link::new(register(ours)?);
    let greeted = tokio::time::timeout(HELLO_LIMIT, greet(&link, PROTOCOL_VERSION)).await;
    let (keeper, listen_errno) = match greeted {
        Ok(Ok((PROTOCOL_VERSION, keeper, listen_errno))) => (keeper, listen_errno),
        Ok(Ok(_)) => return Err(discard(child, io::ErrorKind::Unsupported.into())),
        Ok(Err(fault)) => return Err(discard(child, fault)),
        Err(_) => return Err(discard(child, io::ErrorKind::TimedOut.into())),
    };
    if listen_errno != 0 {
        return Err(discard(child, io::Error::from_raw_os_error(listen_errno)));
    }
    let itself = (keeper, PROTOCOL_VERSION);
    Ok(Handle::start(link, itself, Some(child), Vec::new()).0)
}

pub(super) async fn connect(path: &Path) -> io::Result<(Handle, Inheritance)> {
    let (mut link, mut version) = (dial_at(path)?, PROTOCOL_VERSION);
    let keeper = loop {
        let (spoken, keeper, _) = greet(&link, version).await?;
        if spoken == version {
            break keeper;
        }
        if !(OLDEST_VERSION..version).contains(&spoken) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // An older keeper has said so and hung up: it is asked again, in its own version.
        (link, version) = (dial_at(path)?, spoken);
    };
    link.put(&Request::List)?;
    let mut early = Vec::new();
    loop {
        let (event, fds) = link.next().await?;
        let last = event == Event::ListEnd;
        early.push((event, fds));
        if last {
            return Ok(Handle::start(link, (keeper, version), None, early));
        }
    }
}

fn dial_at(path: &Path) -> io::Result<Link> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    dial(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(Link::new(register(socket)?))
}

/// A program that is no keeper, or an unusable one, is ended here so that no stray process is left.
fn discard(mut child: Child, fault: io::Error) -> io::Error {
    let ended = child.kill().and_then(|()| child.wait());
    if let Err(error) = ended {
        tracing::warn!(%error, "a keeper that did not greet could not be ended");
    }
    fault
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// The socket is passed as standard input: the one descriptor `posix_spawn` places without a `pre_exec`,
/// which would make this a fork of the whole runtime.
fn start(options: &KeeperOptions, socket: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&options.program);
    command.arg0("lair-keeper").arg(KEEPER_VERB).env_clear();
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    match options.policy {
        DeathPolicy::Keep => command.arg("keep"),
        DeathPolicy::Kill { grace_ms } => command.arg(grace_ms.to_string()),
    };
    if let Some(path) = &options.socket_path {
        command.arg(std::path::absolute(path)?);
    }
    command
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The version that is answered, the keeper, and why it cannot listen.
async fn greet(link: &Link, version: u32) -> io::Result<(u32, ProcessId, i32)> {
    link.put(&Request::Hello { version })?;
    match link.next().await? {
        (
            Event::Hello {
                version,
                keeper,
                listen_errno,
            },
            _,
        ) => Ok((version, keeper, listen_errno)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
