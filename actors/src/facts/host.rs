//! What the machine is.

use procfs::{Current, Meminfo};
use serde::Serialize;

/// Which generation of cgroups is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    /// Only the first.
    V1,
    /// Only the second.
    V2,
    /// Both.
    Hybrid,
    /// None.
    Absent,
}

/// The machine, as read; what follows from it is the selection's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostFactsRaw {
    /// CPUs that we may use.
    pub cpus: usize,
    /// Bytes of memory; `None` if it can't be read.
    pub memory_total: Option<u64>,
    /// Bytes that could be had without swapping.
    pub memory_available: Option<u64>,
    /// Cgroups.
    pub cgroup: CgroupMode,
    /// The kernel's name for this boot.
    pub boot_id: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
}

/// Reads it now.
#[must_use]
pub fn host() -> HostFactsRaw {
    let memory = Meminfo::current().ok();
    HostFactsRaw {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_total: memory.as_ref().map(|m| m.mem_total),
        memory_available: memory
            .as_ref()
            .map(|m| m.mem_available.unwrap_or(m.mem_free)),
        cgroup: cgroup_mode(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        kernel: line("/proc/sys/kernel/osrelease"),
    }
}

fn line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn cgroup_mode(mounts: &str) -> CgroupMode {
    let mounted = |wanted: &str| {
        mounts
            .lines()
            .any(|line| line.split(' ').nth(2) == Some(wanted))
    };
    match (mounted("cgroup"), mounted("cgroup2")) {
        (true, true) => CgroupMode::Hybrid,
        (true, false) => CgroupMode::V1,
        (false, true) => CgroupMode::V2,
        (false, false) => CgroupMode::Absent,
    }
}

#[cfg(test)]
mod test {
    use super::{CgroupMode, cgroup_mode, host};

    #[test]
    fn the_mounts_tell_the_generation_of_cgroups() {
        let v1 = "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(cgroup_mode(v1), CgroupMode::V1);
        assert_eq!(cgroup_mode(v2), CgroupMode::V2);
        assert_eq!(cgroup_mode(&format!("{v1}{v2}")), CgroupMode::Hybrid);
        assert_eq!(cgroup_mode("proc /proc proc rw 0 0\n"), CgroupMode::Absent);
    }

    #[test]
    fn this_machine_has_a_boot_id_and_more_memory_than_none() {
        let host = host();
        assert!(host.cpus >= 1);
        assert!(host.memory_total > Some(0) && host.memory_available <= host.memory_total);
        assert_eq!(host.boot_id.map(|id| id.len()), Some(36));
        assert!(host.kernel.is_some());
    }
}
