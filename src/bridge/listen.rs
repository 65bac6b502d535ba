//! The socket file: bound so that whoever sees it can connect, and put back when somebody removes it.
//!
//! Promises: mode 0600 from its first moment; a file that is there is only replaced when the caller holds the lock
//! that proves its owner dead. Never: touches a file at the path that is not a socket.

use rustix::fs::inotify;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

/// Longest path of a Unix socket on Linux.
const MAX_PATH: usize = 107;

/// What to do with a socket that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Fail: somebody may be listening.
    Keep,
    /// Replace it: the caller holds the runtime's lock, so its owner is dead.
    Replace,
}

/// A bound socket and the path it is found at.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Bound {
    /// Where clients find it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is the file at the path still this socket?
    #[must_use]
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode)
    }

    /// Binds again after the file was removed; a file that is there now is somebody else's and stays.
    ///
    /// # Errors
    /// It can't be bound.
    pub fn again(&self) -> io::Result<Bound> {
        bind(&self.path, Stale::Keep)
    }

    /// Removes the file, if it is still this socket.
    pub fn remove(&self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a socket at `path`, making its folder (0700) if there is none.
///
/// # Errors
/// The path is too long or relative, the folder can be written by others, something is there, or the system refuses.
pub fn bind(path: &Path, stale: Stale) -> io::Result<Bound> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid(format!("{} names no file", path.display())));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let hidden = dir.join(hidden);
    if hidden.as_os_str().len() > MAX_PATH {
        return Err(invalid(format!(
            "{} is too long for a socket path: at most {} bytes, leaving room for a temporary name",
            path.display(),
            MAX_PATH,
        )));
    }
    check_dir(dir)?;
    check_place(path, stale)?;
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    // Renamed into place when it listens and has its mode: whoever sees the file can connect.
    let placed = fs::set_permissions(&hidden, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&hidden))
        .and_then(|meta| fs::rename(&hidden, path).map(|()| (meta.dev(), meta.ino())));
    match placed {
        Ok(inode) => Ok(Bound {
            listener,
            path: path.to_owned(),
            inode,
        }),
        Err(e) => {
            let _ = fs::remove_file(&hidden);
            Err(e)
        }
    }
}

fn check_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = fs::metadata(dir)?;
    let me = rustix::process::geteuid().as_raw();
    let sticky = meta.mode() & 0o1000 != 0;
    if (meta.uid() != me && meta.uid() != 0 && me != 0) || (meta.mode() & 0o002 != 0 && !sticky) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "the folder {} belongs to others or can be written by them",
                dir.display()
            ),
        ));
    }
    Ok(())
}

fn check_place(path: &Path, stale: Stale) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    // The lock may be on another folder than the socket: nobody who still answers is replaced.
    let answers = || std::os::unix::net::UnixStream::connect(path).is_ok();
    if meta.file_type().is_socket() && stale == Stale::Replace && !answers() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("{} is there already", path.display()),
    ))
}

/// Wakes when something in a folder changes; sleeps at no cost else.
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches a folder for files that come, go, or are written to.
    ///
    /// # Errors
    /// The system is out of watches or descriptors.
    pub fn folder(dir: &Path, flags: inotify::WatchFlags) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, dir, flags | inotify::WatchFlags::ONLYDIR)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe only for types whose descriptor can change; an OwnedFd's can't"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Watch { fd })
    }

    /// Files that come and go.
    #[must_use]
    pub fn names() -> inotify::WatchFlags {
        use inotify::WatchFlags as F;
        F::DELETE | F::MOVED_FROM | F::MOVED_TO | F::DELETE_SELF | F::MOVE_SELF
    }

    /// Waits for the next change and forgets all that are queued. An error means that watching is over.
    ///
    /// # Errors
    /// The descriptor failed.
    pub async fn changed(&self) -> io::Result<()> {
        let mut seen = [0u8; 4096];
        loop {
            let mut ready = self.fd.readable().await?;
            let mut any = false;
            loop {
                match rustix::io::read(self.fd.get_ref().as_fd(), &mut seen) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => any = true,
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            ready.clear_ready();
            if any {
                return Ok(());
            }
        }
    }
}
