//! One cgroup-v2 folder per child: the kernel's own list of who belongs to it.
//!
//! Owns: the instance's folder. Promises: where there is no right to it, that is a fact with a reason. Never: enables
//! controllers; limits are not its business.

use crate::keeper::CgroupDir;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where tracking groups are made, or why they are not.
pub(super) enum Tracking {
    /// In this folder.
    At(PathBuf),
    /// Nowhere.
    Off(String),
}

impl Tracking {
    /// Looks for a writable place in the v2 hierarchy: below the own group.
    pub fn find(instance: &str) -> Self {
        match try_find(instance) {
            Ok(dir) => Tracking::At(dir),
            Err(why) => Tracking::Off(why),
        }
    }

    pub fn describe(&self) -> Result<PathBuf, String> {
        match self {
            Tracking::At(dir) => Ok(dir.clone()),
            Tracking::Off(why) => Err(why.clone()),
        }
    }

    /// Makes a child's folder. `None` where tracking is off.
    pub fn make(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let Tracking::At(base) = self else {
            return Ok(None);
        };
        let dir = base.join(name);
        fs::create_dir_all(&dir)?;
        Ok(Some(dir))
    }

    /// Removes the folder of a child that never ran.
    pub fn unmake(&self, dir: Option<&Path>) {
        if let Some(dir) = dir {
            let _ = fs::remove_dir(dir);
        }
    }

    /// Removes the instance's folder, if nothing lives in it.
    pub fn remove(&self) {
        if let Tracking::At(base) = self {
            remove(base);
        }
    }
}

/// The folder as the keeper wants it.
pub(super) fn join(dir: &Path) -> Option<CgroupDir> {
    CgroupDir::new(dir, true, true).ok()
}

/// Removes a folder of groups. The kernel keeps what has members.
pub(in crate::backend) fn remove(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(base);
}

/// Removes what runtimes left that were killed: `lair-<pid>-<serial>` of a process that is gone.
fn sweep(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix("lair-")?.split_once('-'))
            .filter(|(_, serial)| serial.parse::<u32>().is_ok())
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

/// The folder of an instance's groups, whether it is there or not.
pub(super) fn base(instance: &str) -> Result<PathBuf, String> {
    Ok(own_group()?.join(format!("lair-{instance}")))
}

fn try_find(instance: &str) -> Result<PathBuf, String> {
    let own = own_group()?;
    sweep(&own);
    let dir = own.join(format!("lair-{instance}"));
    match fs::create_dir(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make {}: {e}", dir.display()))
        }
        _ => Ok(dir),
    }
}

/// This process's own group in the v2 hierarchy.
fn own_group() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|e| format!("cannot read /proc/self/mounts: {e}"))?;
    let mount = mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ');
            let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        })
        .ok_or("no cgroup-v2 hierarchy is mounted")?;
    let groups = fs::read_to_string("/proc/self/cgroup")
        .map_err(|e| format!("cannot read /proc/self/cgroup: {e}"))?;
    let own = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("no cgroup-v2 membership")?;
    Ok(mount.join(own.trim_start_matches('/')))
}
