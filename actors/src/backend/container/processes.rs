//! How many processes a container of Podman's may be allowed.

use rustix::process::{Resource, getrlimit};

/// The most that a child of this process may be allowed. Where one limit is asked for, Podman forgets its own list of usual ones
/// and asks the kernel for a million processes, which takes CAP_SYS_RESOURCE; its own limit is never above the highest pid.
pub(super) fn most() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    let highest = text.trim().parse().unwrap_or(32_768);
    getrlimit(Resource::Nproc)
        .maximum
        .map_or(highest, |most| most.min(highest))
}
