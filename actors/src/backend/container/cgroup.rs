//! A container's cgroup, as the kernel tells it for its first process.
//!
//! Owns: the counter of OOM kills, held open while the container lives (its folder goes with it, and Podman's own flag
//! is always false). Promises: a process counts as the container's only if its cgroup carries the container's id.
//! Never: writes there.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Where a container's processes are listed and its memory is counted.
#[derive(Default)]
pub(super) struct Group {
    /// A folder with a `cgroup.procs` of all its processes.
    pub dir: Option<PathBuf>,
    /// OOM kills so far.
    pub ooms: Option<Counter>,
    /// All its groups, in which its limits are.
    pub all: Vec<crate::cgroup::Group>,
}

/// The kernel's count of OOM kills in one cgroup.
pub(super) struct Counter {
    file: File,
    before: u64,
}

impl Counter {
    fn open(path: &Path) -> Option<Self> {
        let mut counter = Counter {
            file: File::open(path).ok()?,
            before: 0,
        };
        counter.before = counter.now()?;
        Some(counter)
    }

    fn now(&mut self) -> Option<u64> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).ok()?;
        self.file.read_to_string(&mut text).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "))?;
        line.trim().parse().ok()
    }

    /// Kills since it was opened; `None` when the cgroup is gone.
    pub fn kills(&mut self) -> Option<u64> {
        Some(self.now()?.saturating_sub(self.before))
    }
}

/// Does this process belong to the container with this id?
pub(super) fn belongs(pid: i32, id: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    !id.is_empty() && groups.lines().any(|line| line.contains(id))
}

impl Group {
    /// Of the container with this id, by its first process.
    pub fn find(pid: i32, id: &str) -> Group {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::read(&groups, &mounts, id)
    }

    fn read(groups: &str, mounts: &str, id: &str) -> Group {
        let mut found = Group::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let Some(path) = own_part(path, id) else {
                continue;
            };
            let Some(dir) = mount_of(mounts, controllers).map(|at| at.join(path)) else {
                continue;
            };
            let named = |name| controllers.split(',').any(|c| c == name);
            let v2 = controllers.is_empty();
            found.all.push(crate::cgroup::Group {
                dir: dir.clone(),
                v2,
            });
            if controllers.is_empty() {
                found.ooms = found
                    .ooms
                    .or_else(|| Counter::open(&dir.join("memory.events")));
            } else if named("memory") {
                found.ooms = Counter::open(&dir.join("memory.oom_control")).or(found.ooms);
            }
            if dir.join("cgroup.procs").exists() && (found.dir.is_none() || named("pids")) {
                found.dir = Some(dir);
            }
        }
        found
    }
}

/// The path up to the part that carries the id, relative.
fn own_part<'p>(path: &'p str, id: &str) -> Option<&'p str> {
    let at = path.find(id).filter(|_| !id.is_empty())?;
    let end = path[at..].find('/').map_or(path.len(), |n| at + n);
    Some(path[..end].trim_start_matches('/'))
}

/// Where a hierarchy is mounted: v2 for no controllers, v1 else.
fn mount_of(mounts: &str, controllers: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let fits = if controllers.is_empty() {
            kind == "cgroup2"
        } else {
            let first = controllers.split(',').next()?;
            kind == "cgroup" && options.split(',').any(|o| o == first)
        };
        fits.then(|| PathBuf::from(at))
    })
}

/// The members of a folder and of those below it.
pub(super) fn members(dir: &Path) -> Vec<i32> {
    crate::facts::pids(&crate::backend::Tree::Cgroup(dir.to_owned()))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_part_of_a_path_that_is_the_containers_ends_with_its_id() {
        let scope = "/machine.slice/libpod-abc123.scope/container";
        assert_eq!(
            own_part(scope, "abc123"),
            Some("machine.slice/libpod-abc123.scope")
        );
        assert_eq!(own_part("/docker/abc123", "abc123"), Some("docker/abc123"));
        assert_eq!(own_part("/user.slice", "abc123"), None);
        assert_eq!(own_part("/user.slice", ""), None);
    }

    #[test]
    fn a_hierarchy_is_found_by_its_controllers() {
        let mounts = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let at = |controllers| mount_of(mounts, controllers);
        assert_eq!(at(""), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(at("memory"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(at("cpu,cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(at("pids"), None);
    }
}
