//! Children whose keeper is gone: seen by pidfd, signalled only when identified.
//!
//! Promises never to invent an ending: where the kernel cannot say (before Linux 6.15, or when nobody reaps the
//! orphan) it is [`Ending::Unknown`]. Never signals a process whose start does not match.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::family;
use super::spec::{Ending, ProcessId, Scope};

/// How long a dead orphan may stay unreaped before its ending is given up.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// A process watched without being its parent.
#[derive(Debug)]
pub struct Watch {
    pidfd: Option<OwnedFd>,
}

/// `struct pidfd_info` of Linux 6.15, which libc lacks.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
const PIDFD_GET_INFO: u32 = 0xC040_FF0B;

impl Watch {
    /// Opens a pidfd, if the process is still the one meant.
    #[must_use]
    pub fn open(process: ProcessId) -> Self {
        Self {
            pidfd: family::open_verified(process).ok(),
        }
    }

    /// Waits until the process has ended.
    pub async fn ended(self) -> Ending {
        let Some(pidfd) = self.pidfd else {
            return Ending::Unknown;
        };
        // SAFETY: an OwnedFd names one open description until it is dropped, and it lives inside the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let Ok(watch) = registered else {
            return Ending::Unknown;
        };
        if watch.readable().await.is_err() {
            return Ending::Unknown;
        }
        // Dead; its status is told only after its new parent has reaped it, which is the hang-up.
        let reaped = async {
            loop {
                let Ok(mut ready) = watch.readable().await else {
                    return;
                };
                if ready.ready().is_read_closed() {
                    return;
                }
                ready.clear_ready();
            }
        };
        match tokio::time::timeout(REAP_LIMIT, reaped).await {
            Ok(()) => exit_status(watch.get_ref()).map_or(Ending::Unknown, Ending::from_status),
            Err(_) => Ending::Unknown,
        }
    }
}

/// Waits for the end of a process that is not ours.
pub async fn watch(process: ProcessId) -> Ending {
    Watch::open(process).ended().await
}

/// Signals an orphan, or its tree as far as it can be recognised; says how many processes were reached.
/// A stop signal is followed by CONT.
///
/// # Errors
/// When a process could be identified but not be signalled.
pub fn signal(process: ProcessId, marker: &CStr, signal: i32, scope: Scope) -> io::Result<usize> {
    let members = match scope {
        Scope::Leader => vec![process],
        Scope::Group | Scope::All => family::orphan_members(process, marker, scope),
    };
    let mut reached = 0;
    for member in members {
        match family::signal_verified(member, signal, family::wants_continue(signal)) {
            Ok(()) => reached += 1,
            Err(fault) if fault.raw_os_error() == Some(libc::ESRCH) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(reached)
}

/// What is left of trees whose keeper and leader may both be gone.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// What their processes carry in their environment.
    pub markers: BTreeSet<Vec<u8>>,
    /// Groups of version 2 that nobody else is in.
    pub groups: Vec<PathBuf>,
}

impl Remains {
    /// Sends KILL to all that is found of them now; says how many processes that were. Reads the whole of `/proc`.
    pub fn kill(&self) -> usize {
        let mut found = family::marked(&self.markers);
        for group in &self.groups {
            let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids = listed.lines().filter_map(|pid| pid.parse::<i32>().ok());
            found.extend(pids.filter_map(|pid| family::stat(pid).map(|stat| stat.process)));
        }
        found.sort_unstable_by_key(|process| process.pid);
        found.dedup();
        for process in &found {
            let _ = family::signal_verified(*process, libc::SIGKILL, false);
        }
        found.len()
    }
}

/// The raw wait status, where the kernel tells it to a non-parent.
fn exit_status(pidfd: &OwnedFd) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request number says 64 bytes, which is the size of the structure it is given.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO.into(), &raw mut info) };
    (rc == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}
