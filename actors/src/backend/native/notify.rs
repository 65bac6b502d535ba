//! The socket on which a child says `READY=1` (sd_notify(3)).

use super::io_fault;
use lair_supervision::{StartFault, StartStage};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, socket_with, sockopt,
};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A bound socket and its path. Dropped with its path, it takes that along.
pub(super) struct NotifySocket {
    socket: Option<OwnedFd>,
    path: PathBuf,
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if self.socket.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl NotifySocket {
    /// `NOTIFY_SOCKET=...` for the child's environment.
    pub fn variable(&self) -> CString {
        let mut text = b"NOTIFY_SOCKET=".to_vec();
        text.extend_from_slice(self.path.as_os_str().as_bytes());
        CString::new(text).unwrap_or_default()
    }

    /// The socket, and the path that somebody else removes from now on.
    pub fn hand_over(mut self) -> Option<(OwnedFd, PathBuf)> {
        let socket = self.socket.take()?;
        Some((socket, self.path.clone()))
    }
}

/// Binds a socket for one incarnation. Anyone may send to it: who is heard is decided by the kernel's word for the
/// sender, not by the file's mode.
///
/// `for_others`: the child is another user, who has to get to the socket through lair's own folders.
pub(super) fn bind(
    run_dir: &Path,
    name: &str,
    for_others: bool,
) -> Result<NotifySocket, StartFault> {
    let dir = run_dir.join("notify");
    try_bind(&dir, name)
        .and_then(|bound| {
            if for_others {
                super::pass_through(run_dir)?;
                super::pass_through(&dir)?;
            }
            Ok(bound)
        })
        .map_err(|e| io_fault(StartStage::PrepareDirs, "bind the notify socket", &e))
}

fn try_bind(dir: &Path, name: &str) -> io::Result<NotifySocket> {
    fs::create_dir_all(dir)?;
    let path = dir.join(name);
    let _ = fs::remove_file(&path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&socket, true)?;
    bind_to(&socket, &SocketAddrUnix::new(&path)?)?;
    let socket = Some(socket);
    let bound = NotifySocket { socket, path };
    fs::set_permissions(&bound.path, Permissions::from_mode(0o666))?;
    Ok(bound)
}
