//! What the keeper reads from and writes to control groups.
//!
//! Owns nothing. A group that is not there any more counts as empty; nothing is removed that has members.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::spec::CgroupDir;

fn path(group: &CgroupDir) -> &Path {
    Path::new(OsStr::from_bytes(CStr::to_bytes(&group.path)))
}

/// Whether nothing lives in a v2 group or below it; nothing when it cannot be told.
pub(super) fn is_empty(group: &CgroupDir) -> Option<bool> {
    match events(group) {
        Ok(events) => Some(events.starts_with("populated 0") || events.contains("\npopulated 0")),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            (!path(group).exists()).then_some(true)
        }
        Err(fault) if fault.raw_os_error() == Some(libc::ENODEV) => Some(true),
        Err(_) => None,
    }
}

/// One read: the file is shorter than the buffer, and an exit waits for it.
fn events(group: &CgroupDir) -> io::Result<String> {
    let mut text = [0; 256];
    let mut file = fs::File::open(path(group).join("cgroup.events"))?;
    let length = io::Read::read(&mut file, &mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Kills a v2 group and everything below it; fails before Linux 5.14.
pub(super) fn kill(group: &CgroupDir) -> io::Result<()> {
    fs::write(path(group).join("cgroup.kill"), "1")
}

/// The processes in a group and below it.
pub(super) fn members(group: &CgroupDir) -> Vec<i32> {
    let mut found = Vec::new();
    walk(path(group), &mut |dir| {
        let listed = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    });
    found
}

/// Removes a group with what is nested in it; what still has members, or is not there, stays as it is.
pub(super) fn remove(group: &CgroupDir) {
    // Nothing is nested in most of them.
    if fs::remove_dir(path(group)).is_ok() {
        return;
    }
    walk(path(group), &mut |dir| {
        // Fails for a group in use, which then is not ours to remove yet.
        let _ = fs::remove_dir(dir);
    });
}

/// Visits the deepest directories first.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(dir);
}
