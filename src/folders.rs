//! The folders of a runtime, and the lock that keeps a second one out.
//!
//! Owns: where state, logs and sockets are. Promises: folders are made with their documented modes whatever the umask;
//! one that is not ours or that others may write is refused by name. Never: `/tmp` by default.

use crate::runtime::RuntimeError;
use lair_manifests::Dirs;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a runtime keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// What outlives the runtime: modules' data.
    pub state: PathBuf,
    /// Log folders, one a module.
    pub logs: PathBuf,
    /// Lock and notify sockets.
    pub run: PathBuf,
    /// The bridge's socket.
    pub socket: PathBuf,
    /// The configuration's folder; the daemon trusts `modules` in it.
    pub config: PathBuf,
}

impl From<Dirs> for Folders {
    fn from(dirs: Dirs) -> Self {
        let Dirs {
            state,
            logs,
            run,
            socket,
            config,
        } = dirs;
        Folders {
            state,
            logs,
            run,
            socket,
            config,
        }
    }
}

impl Folders {
    /// All three below one folder: for tests, hosts and one-off runs.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Folders {
            state: root.join("state"),
            logs: root.join("logs"),
            run: root.join("run"),
            socket: root.join("run/lair.sock"),
            config: root.join("config"),
        }
    }

    /// The same, as the manifests' crate knows them.
    #[must_use]
    pub fn dirs(&self) -> Dirs {
        let Folders {
            state,
            logs,
            run,
            socket,
            config,
        } = self.clone();
        Dirs {
            state,
            logs,
            run,
            socket,
            config,
        }
    }

    /// Names this runtime's life in cgroups and markers: unique on the machine at any time.
    #[must_use]
    pub fn instance(&self) -> String {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        format!("{}-{serial}", std::process::id())
    }

    /// Makes what is missing and checks what is there.
    ///
    /// # Errors
    /// The folder and why it can't be used.
    pub fn make(&self) -> Result<(), RuntimeError> {
        for (path, mode) in [
            (&self.state, 0o750),
            (&self.logs, 0o750),
            (&self.run, 0o700),
        ] {
            make(path, mode).map_err(|why| RuntimeError::Folder {
                path: path.clone(),
                why,
            })?;
        }
        Ok(())
    }
}

fn make(path: &Path, mode: u32) -> Result<(), String> {
    if !path.is_absolute() {
        return Err("the path is not absolute".into());
    }
    if !path.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(|e| e.to_string())?;
        // The umask may have taken bits away; ours are the documented ones.
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| e.to_string())?;
    }
    let meta = fs::metadata(path).map_err(|e| e.to_string())?;
    if !meta.is_dir() {
        return Err("it is not a folder".into());
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        return Err(format!("it belongs to uid {}, not to uid {me}", meta.uid()));
    }
    if meta.mode() & 0o002 != 0 {
        return Err("everybody may write to it; run `chmod o-w` on it".into());
    }
    try_writing(path).map_err(|e| format!("cannot write to it: {e}"))
}

/// Others of its group may write to the folder as well: nothing that is there already is opened, followed or removed.
fn try_writing(path: &Path) -> io::Result<()> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let probe = path.join(format!(".lair-probe-{}-{serial}", std::process::id()));
    match fs::File::create_new(&probe) {
        Ok(_) => fs::remove_file(&probe),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// The lock that keeps a second runtime off the same folders. Dropping it gives it back.
pub struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Takes `<run>/lair.lock`.
    ///
    /// # Errors
    /// Another runtime has it, or the file can't be made.
    pub fn take(run: &Path) -> Result<Lock, RuntimeError> {
        let path = run.join("lair.lock");
        let folder = |e: io::Error| RuntimeError::Folder {
            path: path.clone(),
            why: e.to_string(),
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|e| folder(e.into()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = fs::read_to_string(&path)
                .ok()
                .and_then(|s| s.trim().parse().ok());
            return Err(RuntimeError::Running { lock: path, pid });
        }
        let mut text = fs::File::from(file.try_clone().map_err(folder)?);
        text.set_len(0)
            .and_then(|()| writeln!(text, "{}", std::process::id()))
            .map_err(folder)?;
        Ok(Lock { _file: file })
    }
}
