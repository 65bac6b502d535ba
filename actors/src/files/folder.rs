//! A module's log folder, held by descriptor.
//!
//! Every name is resolved relative to the descriptor and no link is followed, so
//! nobody who can write to the folder can make lair write elsewhere. Modes do not
//! depend on the umask.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::name::{CURRENT, SegmentName, TMP, dossier_run};
use super::policy::LogFault;

const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

/// An open log folder of one module.
#[derive(Debug)]
pub struct Folder(OwnedFd);

// -----------------------------------------------------------------------------

impl Folder {
    /// Opens the folder if it is there and not a link.
    pub fn open(log_dir: &Path, module: &str) -> io::Result<Self> {
        Self::open_raw(log_dir, module).map_err(io::Error::from)
    }

    fn open_raw(log_dir: &Path, module: &str) -> Result<Self, Errno> {
        let base = rustix::fs::open(
            log_dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::openat(base, module, FOLDER_FLAGS, Mode::empty()).map(Self)
    }

    /// Opens the folder, creating it and what is missing above it.
    pub fn open_or_create(log_dir: &Path, module: &str) -> Result<Self, LogFault> {
        match Self::open_raw(log_dir, module) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused_folder(log_dir, module, errno)),
        }
        create_log_dir(log_dir)?;
        match rustix::fs::mkdir(log_dir.join(module), Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(LogFault::io("create the folder of", errno)),
        }
        let folder = Self::open_raw(log_dir, module)
            .map_err(|errno| refused_folder(log_dir, module, errno))?;
        rustix::fs::fchmod(&folder.0, Mode::from_raw_mode(FOLDER_MODE))
            .map_err(|e| LogFault::io("set the mode of", e))?;
        Ok(folder)
    }

    /// Whether a module's output could be kept here. A disk that is full or failing is no reason to say no: that is
    /// mended while the module runs, and what is lost until then is counted.
    pub fn check(log_dir: &Path, module: &str) -> Result<(), LogFault> {
        let writable = Self::open_or_create(log_dir, module).and_then(|folder| {
            rustix::fs::accessat(
                &folder.0,
                ".",
                Access::WRITE_OK | Access::EXEC_OK,
                AtFlags::EACCESS,
            )
            .map_err(|e| LogFault::io("write to the folder of", e))
        });
        match writable {
            Err(LogFault::Io {
                errno: libc::ENOSPC | libc::EDQUOT | libc::EIO,
                ..
            }) => Ok(()),
            other => other,
        }
    }

    /// The segments in it, in no order. Strangers' files are passed over.
    pub fn segments(&self) -> io::Result<Vec<SegmentName>> {
        let mut found = Vec::new();
        self.each(|name| found.extend(SegmentName::parse(name)))?;
        Ok(found)
    }

    /// The segments in it, and what an interrupted compression left behind.
    pub(crate) fn contents(&self) -> io::Result<(Vec<SegmentName>, Vec<SegmentName>)> {
        let (mut found, mut leftovers) = (Vec::new(), Vec::new());
        self.each(|name| match name.strip_suffix(TMP.as_bytes()) {
            Some(stem) => leftovers.extend(SegmentName::parse(stem)),
            None => found.extend(SegmentName::parse(name)),
        })?;
        Ok((found, leftovers))
    }

    /// The runs that have a dossier in it, oldest first.
    pub(crate) fn dossiers(&self) -> io::Result<Vec<u64>> {
        let mut runs = Vec::new();
        self.each(|name| runs.extend(dossier_run(name)))?;
        runs.sort_unstable();
        Ok(runs)
    }

    fn each(&self, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            visit(entry?.file_name().to_bytes());
        }
        Ok(())
    }

    /// Creates a file that was not there, for appending.
    pub(crate) fn create(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        // Less than wanted while it has no mode of its own; the umask can only take away.
        let fd = rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(FILE_MODE))?;
        Ok(fd)
    }

    /// Opens a segment that is there, for appending.
    pub(crate) fn append(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK;
        rustix::fs::openat(&self.0, name, flags, Mode::empty())
    }

    /// Opens a segment for reading.
    pub fn read(&self, name: &str) -> io::Result<File> {
        // Non-blocking, so that a planted FIFO cannot hold the reader.
        let flags = FILE_FLAGS | OFlags::RDONLY | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(file)
    }

    /// Pins a file's contents: they outlive an unlink until this is dropped.
    pub(crate) fn hold(&self, name: &str) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.0, name, FILE_FLAGS | OFlags::PATH, Mode::empty())
    }

    /// What stands at a name; a link is described, not followed.
    pub(crate) fn stat(&self, name: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether a link stands at a name.
    pub(crate) fn is_link(&self, name: &str) -> bool {
        self.stat(name).is_ok_and(|s| is_link(&s))
    }

    /// Points `current.log` at a segment, in one step.
    pub(crate) fn link_current(&self, name: &str) -> Result<(), Errno> {
        const NEXT: &str = ".current.log.tmp";
        if let Err(Errno::EXIST) = rustix::fs::symlinkat(name, &self.0, NEXT) {
            self.unlink(NEXT)?;
            rustix::fs::symlinkat(name, &self.0, NEXT)?;
        }
        rustix::fs::renameat(&self.0, NEXT, &self.0, CURRENT)
    }

    /// Renames within the folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::renameat(&self.0, from, &self.0, to)
    }

    /// Removes a file; links are removed, not followed.
    pub(crate) fn unlink(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn refused_folder(log_dir: &Path, module: &str, errno: Errno) -> LogFault {
    match rustix::fs::statat(CWD, log_dir.join(module), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_link(&stat) => LogFault::LinkRefused {
            name: module.to_owned(),
        },
        _ => LogFault::io("open the folder of", errno),
    }
}

fn create_log_dir(log_dir: &Path) -> Result<(), LogFault> {
    if log_dir.is_dir() {
        return Ok(());
    }
    let fault = |e: io::Error| LogFault::Io {
        operation: "create the folder of",
        errno: e.raw_os_error().unwrap_or(0),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(log_dir)
        .and_then(|()| {
            std::fs::set_permissions(log_dir, std::fs::Permissions::from_mode(FOLDER_MODE))
        })
        .map_err(fault)
}
