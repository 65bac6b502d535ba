//! Where the next life of the runtime knocks: a listening socket, reachable by this user only.
//!
//! Owns the socket and its path. Promises mode 0600, that a peer is this very user by the kernel's word, and that
//! a living keeper's path is never taken from it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{accept_with, bind, connect, listen, socket_with, sockopt};
use rustix::process::geteuid;

/// The door, if there is to be one.
pub(super) enum Door {
    /// Nobody is to come.
    None,
    /// Somebody may come.
    Open { listener: OwnedFd, path: PathBuf },
    /// It could not be opened.
    Stuck { errno: i32 },
}

impl Door {
    pub(super) fn open(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::None };
        match listen_at(path) {
            Ok(listener) => Self::Open {
                listener,
                path: path.to_owned(),
            },
            Err(fault) => Self::Stuck {
                errno: fault.raw_os_error().unwrap_or(libc::EINVAL),
            },
        }
    }

    pub(super) fn errno(&self) -> i32 {
        match self {
            Self::None | Self::Open { .. } => 0,
            Self::Stuck { errno } => *errno,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    pub(super) fn raw(&self) -> RawFd {
        match self {
            Self::Open { listener, .. } => listener.as_raw_fd(),
            Self::None | Self::Stuck { .. } => -1,
        }
    }

    /// Whether somebody waits to be let in.
    pub(super) fn is_knocked(&self) -> bool {
        let mut fd = libc::pollfd {
            fd: self.raw(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, and it is said to be one.
        unsafe { libc::poll(&raw mut fd, 1, 0) > 0 }
    }

    /// Lets the next peer in, if it is this very user.
    pub(super) fn admit(&self) -> Option<OwnedFd> {
        let Self::Open { listener, .. } = self else {
            return None;
        };
        let peer = accept_with(listener.as_fd(), SocketFlags::CLOEXEC).ok()?;
        let credentials = sockopt::socket_peercred(&peer).ok()?;
        (credentials.uid == geteuid()).then_some(peer)
    }

    /// Takes the path away.
    pub(super) fn close(&mut self) {
        if let Self::Open { path, .. } = self {
            // Somebody else may have removed it, which is what is wanted.
            let _ = std::fs::remove_file(path);
        }
        *self = Self::None;
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    if connect(&new_socket()?, &address) == Err(rustix::io::Errno::CONNREFUSED) {
        // Nobody is behind it: a dead keeper left it.
        std::fs::remove_file(path)?;
    }
    let listener = new_socket()?;
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = bind(&listener, &address);
    rustix::process::umask(mask);
    bound?;
    listen(&listener, 4)?;
    Ok(listener)
}
