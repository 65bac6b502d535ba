//! The alarm of a cgroup-v1 memory group: an eventfd that the kernel rings when the group is short of memory.

use rustix::event::{EventfdFlags, eventfd};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Sets the alarm. It also rings when the group is removed.
#[allow(
    deprecated,
    reason = "what replaces it is unsafe, for types that may close their descriptor; OwnedFd does not"
)]
pub(super) fn alarm(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = fs::File::open(dir.join("memory.oom_control"))?;
    let order = format!("{} {}", bell.as_raw_fd(), control.as_raw_fd());
    fs::write(dir.join("cgroup.event_control"), order)?;
    AsyncFd::new(bell)
}
