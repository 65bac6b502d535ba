//! The groups of one module.

use super::{Cgroups, Limit, Seat, bound, oom, remove};
use lair_manifests::launch::Limits;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// A limit that was asked for, and where it is held, or why it isn't.
#[derive(Clone, Debug)]
struct Bound {
    limit: Limit,
    asked: u64,
    at: Result<Group, String>,
}

/// One control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its folder.
    pub dir: PathBuf,
    /// In the v2 hierarchy.
    pub v2: bool,
}

/// A limit as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What was asked for: bytes, thousandths of a CPU, processes and threads.
    pub asked: u64,
    /// Does the kernel, or the engine, hold it to exactly that?
    pub enforced: bool,
    /// By what, or why not.
    pub by: String,
    /// In use now.
    pub current: Option<u64>,
    /// The most that was in use.
    pub peak: Option<u64>,
}

/// All limits of a module as they are now. `None`: not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldLimits {
    /// Bytes of memory.
    pub memory: Option<Held>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<Held>,
    /// Processes and threads.
    pub pids: Option<Held>,
}

/// A limit that was asked for and isn't held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which.
    pub limit: Limit,
    /// What was asked for.
    pub asked: u64,
    /// Why it isn't held, in words.
    pub why: String,
}

/// The groups that a module is started in, with the limits that were asked for.
#[derive(Clone, Debug, Default)]
pub struct ModuleGroups {
    tracked: Option<PathBuf>,
    joined: Vec<PathBuf>,
    bounds: Vec<Bound>,
}

fn asked(limits: &Limits, limit: Limit) -> Option<u64> {
    match limit {
        Limit::Memory => limits.memory,
        Limit::Cpus => limits.cpu_milli,
        Limit::Pids => limits.pids,
    }
}

impl Cgroups {
    /// Makes a module's groups and writes its limits into them. A limit that can't be held is no error.
    ///
    /// # Errors
    /// The group that tells who belongs to the module can't be made, where it should be possible.
    pub fn make(&self, name: &str, limits: &Limits) -> io::Result<ModuleGroups> {
        let mut groups = ModuleGroups::default();
        if let Ok(base) = &self.unified {
            let dir = base.join(name);
            fs::create_dir_all(&dir)?;
            groups.tracked = Some(dir);
        }
        for limit in Limit::ALL {
            if let Some(asked) = asked(limits, limit) {
                let at = self.hold(name, limit, asked, &mut groups);
                groups.bounds.push(Bound { limit, asked, at });
            }
        }
        Ok(groups)
    }

    /// A module's groups as an earlier life made them, as far as they are there.
    #[must_use]
    pub fn found(&self, name: &str, limits: &Limits) -> ModuleGroups {
        let there = |base: &PathBuf| Some(base.join(name)).filter(|dir| dir.is_dir());
        let mut groups = ModuleGroups {
            tracked: self.unified.as_ref().ok().and_then(there),
            ..ModuleGroups::default()
        };
        for limit in Limit::ALL {
            let Some(asked) = asked(limits, limit) else {
                continue;
            };
            let gone = || "its group is gone".to_owned();
            let at = match &self.seats[limit as usize] {
                Ok(Seat::V1(base)) => {
                    let dir = there(base);
                    groups.joined.extend(dir.clone());
                    dir.map(|dir| Group { dir, v2: false }).ok_or_else(gone)
                }
                Ok(Seat::Unified) => groups
                    .tracked
                    .clone()
                    .map(|dir| Group { dir, v2: true })
                    .ok_or_else(gone),
                Err(why) => Err(why.clone()),
            };
            groups.bounds.push(Bound { limit, asked, at });
        }
        groups
    }

    /// Makes one limit hold; what was made for it is the module's, held or not.
    fn hold(
        &self,
        name: &str,
        limit: Limit,
        asked: u64,
        groups: &mut ModuleGroups,
    ) -> Result<Group, String> {
        let seat = self.seats[limit as usize].as_ref().map_err(String::clone)?;
        let group = match (seat, &groups.tracked) {
            (Seat::V1(base), _) => {
                let dir = base.join(name);
                fs::create_dir_all(&dir)
                    .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
                groups.joined.push(dir.clone());
                Group { dir, v2: false }
            }
            (Seat::Unified, Some(dir)) => Group {
                dir: dir.clone(),
                v2: true,
            },
            (Seat::Unified, None) => return Err("there is no cgroup-v2 group".to_owned()),
        };
        bound::set(&group.dir, group.v2, limit, asked)?;
        Ok(group)
    }
}

impl ModuleGroups {
    /// The v2 group that lists the tree.
    #[must_use]
    pub fn tracked(&self) -> Option<&Path> {
        self.tracked.as_deref()
    }

    /// All groups to be joined, the v2 one first.
    pub fn all(&self) -> impl Iterator<Item = Group> {
        let v2 = |v2: bool| {
            move |dir: &PathBuf| Group {
                dir: dir.clone(),
                v2,
            }
        };
        let tracked = self.tracked.iter().map(v2(true));
        tracked.chain(self.joined.iter().map(v2(false)))
    }

    /// For a command in the module's context: a v2 group of its own below the module's, and the v1 groups that hold the
    /// module, to be joined and left as they are.
    pub(crate) fn nested(&self, name: &str) -> (Option<PathBuf>, &[PathBuf]) {
        let own = self.tracked.as_ref().map(|dir| dir.join(name));
        let own = own.filter(|dir| fs::create_dir(dir).is_ok());
        (own, &self.joined)
    }

    /// Removes what was made for a module that never ran.
    pub fn unmake(&self) {
        self.all().for_each(|group| remove(&group.dir));
    }

    /// The limits that are not held. Reads the kernel's files.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<Shortfall> {
        let short = self.bounds.iter().filter_map(|bound| {
            let why = bound.found().err()?;
            Some(Shortfall {
                limit: bound.limit,
                asked: bound.asked,
                why,
            })
        });
        short.collect()
    }

    /// All limits as they are now. Reads the kernel's files.
    #[must_use]
    pub fn held(&self) -> HeldLimits {
        let of = |limit| {
            let bound = self.bounds.iter().find(|b| b.limit == limit);
            bound.map(Bound::held)
        };
        HeldLimits {
            memory: of(Limit::Memory),
            cpu_milli: of(Limit::Cpus),
            pids: of(Limit::Pids),
        }
    }

    /// Holds everything in the v2 group still, or lets it go on; KILL reaches it all the same.
    ///
    /// # Errors
    /// `Unsupported` without a v2 group; else what the kernel says (before Linux 5.2 there is no such file).
    pub fn freeze(&self, still: bool) -> io::Result<()> {
        let dir = self.tracked.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        fs::write(dir.join("cgroup.freeze"), if still { "1" } else { "0" })
    }

    /// Is the v2 group told to hold still?
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let told = |dir: &PathBuf| fs::read_to_string(dir.join("cgroup.freeze")).ok();
        self.tracked
            .as_ref()
            .and_then(told)
            .is_some_and(|word| word.trim() == "1")
    }

    /// The group whose memory is limited.
    fn memory(&self) -> Option<&Group> {
        let bound = self.bounds.iter().find(|b| b.limit == Limit::Memory);
        bound?.at.as_ref().ok()
    }

    /// How many processes of the module the kernel has killed for lack of memory; `None`: nobody counts them.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        match (self.memory(), &self.tracked) {
            (Some(group), _) => bound::oom_kills(&group.dir, group.v2),
            (None, Some(dir)) => bound::oom_kills(dir, true),
            (None, None) => None,
        }
    }

    /// Whether its memory is limited, so that [`ModuleGroups::oom_kills`] is always worth a look.
    #[must_use]
    pub fn has_memory_limit(&self) -> bool {
        self.memory().is_some()
    }

    /// What wakes when memory is short in a group that the kernel does not kill as a whole; `None`: it does, or there
    /// is none.
    ///
    /// # Errors
    /// The kernel can't tell.
    pub(crate) fn memory_alarm(&self) -> io::Result<Option<AsyncFd<OwnedFd>>> {
        match self.memory() {
            Some(group) if !group.v2 => oom::alarm(&group.dir).map(Some),
            Some(_) | None => Ok(None),
        }
    }
}

/// A limit that an engine was asked to hold, as the kernel has it in one of these groups.
#[must_use]
pub(crate) fn held_by(engine: &str, limit: Limit, asked: u64, groups: &[Group]) -> Option<Held> {
    let mut seen = groups.iter().filter_map(|group| {
        let found = bound::get(&group.dir, group.v2, limit)?;
        Some((group, found))
    });
    let (mut group, mut found) = seen.next()?;
    if !bound::same(limit, asked, found)
        && let Some(better) = seen.find(|(_, found)| bound::same(limit, asked, *found))
    {
        (group, found) = better;
    }
    let enforced = bound::same(limit, asked, found);
    let (current, peak) = bound::used(&group.dir, group.v2, limit);
    Some(Held {
        asked,
        enforced,
        by: match enforced {
            true => engine.to_owned(),
            false => format!("{engine} holds it to {found} instead"),
        },
        current,
        peak,
    })
}

impl Bound {
    /// Reads it back.
    fn found(&self) -> Result<&Group, String> {
        let group = self.at.as_ref().map_err(String::clone)?;
        match bound::get(&group.dir, group.v2, self.limit) {
            Some(found) if bound::same(self.limit, self.asked, found) => Ok(group),
            Some(found) => Err(format!("the kernel holds it to {found} instead")),
            None => Err("it could not be read back, or the kernel has none".to_owned()),
        }
    }

    fn held(&self) -> Held {
        let (enforced, by) = match self.found() {
            Ok(group) if group.v2 => (true, "cgroup-v2".to_owned()),
            Ok(_) => (true, "cgroup-v1".to_owned()),
            Err(why) => (false, why),
        };
        let (current, peak) = match &self.at {
            Ok(group) => bound::used(&group.dir, group.v2, self.limit),
            Err(_) => (None, None),
        };
        Held {
            asked: self.asked,
            enforced,
            by,
            current,
            peak,
        }
    }
}
