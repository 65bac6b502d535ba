//! Control groups: where lair may make them, and those of one module.
//!
//! Owns: the runtime's folder in each hierarchy, and what is written into a module's groups. Promises: the same limits
//! with cgroup v1, v2 and both side by side; every limit is read back; what can't be held has a reason. Never: moves a
//! process of somebody else's, or fails for want of a right: that is a fact to be told.

mod bound;
mod find;
mod oom;
mod place;
mod scope;

pub(crate) use place::held_by;
pub use place::{Group, Held, HeldLimits, ModuleGroups, Shortfall};

use std::fs;
use std::path::{Path, PathBuf};

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of memory, with what the kernel caches for it.
    Memory,
    /// Thousandths of a CPU.
    Cpus,
    /// Processes and threads.
    Pids,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 3] = [Limit::Memory, Limit::Cpus, Limit::Pids];

    /// The word of the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Cpus => "cpus",
            Limit::Pids => "pids",
        }
    }

    /// The kernel's name of the controller.
    fn controller(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Cpus => "cpu",
            Limit::Pids => "pids",
        }
    }
}

/// Where a controller's groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seat {
    /// In the folder of the v2 hierarchy.
    Unified,
    /// Below this folder, made when it is first needed.
    V1(PathBuf),
}

/// The runtime's places in the machine's hierarchies.
#[derive(Clone, Debug)]
pub struct Cgroups {
    unified: Result<PathBuf, String>,
    seats: [Result<Seat, String>; 3],
    /// Earlier lives of this runtime whose modules were there at its start.
    former: Vec<String>,
}

impl Cgroups {
    /// The v2 folder in which trees are tracked.
    ///
    /// # Errors
    /// Why there is none, as words.
    pub fn tracking(&self) -> Result<&Path, &str> {
        self.unified.as_deref().map_err(|why: &String| why.as_str())
    }

    /// What enforces a limit here: `cgroup-v2` or `cgroup-v1`, and where.
    ///
    /// # Errors
    /// Why nothing does, as words.
    pub fn enforcer(&self, limit: Limit) -> Result<(&'static str, &Path), &str> {
        match (&self.seats[limit as usize], &self.unified) {
            (Ok(Seat::V1(dir)), _) => Ok(("cgroup-v1", dir)),
            (Ok(Seat::Unified), Ok(dir)) => Ok(("cgroup-v2", dir)),
            (Err(why), _) | (Ok(Seat::Unified), Err(why)) => Err(why),
        }
    }

    /// The places of another runtime beside this one, there or not: of an earlier life of it.
    #[must_use]
    pub fn of(&self, instance: &str) -> Cgroups {
        let beside = |dir: &Path| dir.with_file_name(format!("lair-{instance}"));
        let seat = |seat: &Result<Seat, String>| match seat {
            Ok(Seat::V1(dir)) => Ok(Seat::V1(beside(dir))),
            other => other.clone(),
        };
        Cgroups {
            unified: self.unified.as_deref().map(beside).map_err(Clone::clone),
            seats: self.seats.each_ref().map(seat),
            former: Vec::new(),
        }
    }

    /// Removes the runtime's folders and those of its earlier lives, if nothing lives in them. The kernel keeps what has
    /// members.
    pub fn remove(&self) {
        for instance in &self.former {
            self.of(instance).remove();
        }
        let v1 = self.seats.iter().filter_map(|seat| match seat {
            Ok(Seat::V1(dir)) => Some(dir),
            Ok(Seat::Unified) | Err(_) => None,
        });
        v1.chain(self.unified.as_ref().ok())
            .for_each(|dir| remove(dir));
    }
}

/// Removes a folder of groups, as far as nothing lives in them.
fn remove(dir: &Path) {
    // Nothing is nested in most of them.
    if fs::remove_dir(dir).is_ok() {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
