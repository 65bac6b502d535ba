//! Opening a file with a look at its whole way: each folder and link that leads to it.
//!
//! Owns: the walk from `/`, one name at a time. Promises: what is told of the way is of the folders that were really
//! gone through, and the file is opened in the last of them, so nobody can exchange a part between look and use; links
//! are followed by hand and told of; never waits for the other end of a FIFO. Never: judges; see [`crate::trust`].

use crate::trust::{Step, StepKind};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, getxattr, open, openat, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Links on one way, as the kernel bounds them.
const MAX_LINKS: usize = 40;

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A file, and how it was reached.
pub(crate) struct Walked {
    /// Open for reading.
    pub file: File,
    /// Every folder and link from `/` on; the file is not among them.
    pub way: Vec<Step>,
}

/// Opens `path`, which is absolute.
pub(crate) fn walk(path: &Path) -> io::Result<Walked> {
    let mut way = Vec::new();
    let mut todo: VecDeque<OsString> = names(path).collect();
    let (mut here, mut shown) = (root()?, PathBuf::from("/"));
    note(&mut way, &here, &shown, StepKind::Folder)?;
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        let entry = openat(&here, &name, LOOK, Mode::empty())?;
        match kind(&fstat(&entry)?) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                note(&mut way, &entry, &shown.join(&name), StepKind::Link)?;
                let target = readlinkat(&entry, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    (here, shown) = (root()?, PathBuf::from("/"));
                }
                for name in names(target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(name);
                }
            }
            FileType::Directory => {
                if name == ".." {
                    shown.pop();
                } else {
                    shown.push(&name);
                }
                note(&mut way, &entry, &shown, StepKind::Folder)?;
                here = entry;
            }
            _ if todo.is_empty() => {
                let file = openat(&here, &name, READ, Mode::empty())?.into();
                return Ok(Walked { file, way });
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    let file = openat(&here, ".", READ, Mode::empty())?.into();
    Ok(Walked { file, way })
}

/// Whether an access list, beside the mode, says who may write. Where that can't be told, it does.
pub(crate) fn has_acl(entry: &impl AsRawFd, mode: u32) -> bool {
    // Without the group's bit, which bounds the list, nobody on it can write.
    if mode & 0o020 == 0 {
        return false;
    }
    let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
    let mut nothing = [0_u8; 0];
    !matches!(
        getxattr(path, "system.posix_acl_access", &mut nothing[..]),
        Err(Errno::NODATA | Errno::OPNOTSUPP)
    )
}

fn root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open("/", flags, Mode::empty())?)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + use<'_> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn note(way: &mut Vec<Step>, entry: &OwnedFd, path: &Path, kind: StepKind) -> io::Result<()> {
    let stat = fstat(entry)?;
    way.push(Step {
        path: path.to_owned(),
        kind,
        owner: stat.st_uid,
        group: stat.st_gid,
        mode: stat.st_mode,
        acl: kind == StepKind::Folder && has_acl(entry, stat.st_mode),
    });
    Ok(())
}
