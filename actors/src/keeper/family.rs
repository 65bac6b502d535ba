//! Which processes belong to a child's tree, and signalling them safely.
//!
//! Reads `/proc` only. Promises that nothing is signalled unless it was identified by its start through a pidfd,
//! and never a number of 1 or less. Never remembers anything between two calls.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::spec::{ProcessId, Scope};

/// The name of the environment entry that marks a child's descendants.
pub(super) const MARKER_NAME: &str = "LAIR_MARKER";

/// What one line of `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) process: ProcessId,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// Dead, though perhaps not reaped.
    pub(super) dead: bool,
}

/// Every process there is, at about one moment.
pub(super) type Census = HashMap<i32, Stat>;

/// Reads one process; nothing if it is gone.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let mut path = [0_u8; 32];
    let mut line = [0_u8; 1024];
    let text = read_small(proc_path(&mut path, pid)?, &mut line)?;
    parse_stat(pid, text)
}

/// When the process began, in clock ticks since boot.
pub(super) fn start_ticks(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.process.start_ticks)
}

/// The name in parentheses may hold anything, so fields are counted from the last parenthesis.
fn parse_stat(pid: i32, text: &[u8]) -> Option<Stat> {
    let after = text.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(text.get(after..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i64>().ok();
    let parent = i32::try_from(number()?).ok()?;
    let group = i32::try_from(number()?).ok()?;
    let session = i32::try_from(number()?).ok()?;
    let start = fields.nth(15)?.parse().ok()?;
    let process = ProcessId {
        pid,
        start_ticks: start,
    };
    Some(Stat {
        process,
        parent,
        group,
        session,
        dead: matches!(state, "Z" | "X" | "x"),
    })
}

/// Writes `/proc/PID/stat` with its NUL; no allocation, since this runs once per start.
fn proc_path(buffer: &mut [u8; 32], pid: i32) -> Option<&CStr> {
    use io::Write;
    let mut rest = buffer.as_mut_slice();
    write!(rest, "/proc/{pid}/stat\0").ok()?;
    CStr::from_bytes_until_nul(buffer).ok()
}

fn read_small<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let length = rustix::io::read(&file, &mut *buffer).ok()?;
    buffer.get(..length)
}

/// Reads every process.
pub(super) fn census() -> Census {
    census_where(|_| true)
}

/// Reads every process whose number is wanted.
pub(super) fn census_where(wanted: impl Fn(i32) -> bool) -> Census {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Census::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| wanted(*pid))
        .filter_map(|pid| stat(pid).map(|stat| (pid, stat)))
        .collect()
}

/// The children of this process; nothing where the kernel does not list them. Reliable although it is read
/// piece by piece: only the reader, their parent, takes entries away.
pub(super) fn own_children(pid: i32) -> Option<Vec<i32>> {
    let listed = std::fs::read_to_string(format!("/proc/self/task/{pid}/children")).ok()?;
    Some(
        listed
            .split_ascii_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect(),
    )
}

/// The marker in the environment the process was started with.
pub(super) fn marker_of(pid: i32) -> Option<Vec<u8>> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |entry: &[u8]| {
        Some(
            entry
                .strip_prefix(MARKER_NAME.as_bytes())?
                .strip_prefix(b"=")?
                .to_vec(),
        )
    };
    environment.split(|byte| *byte == 0).find_map(value)
}

/// All living processes that carry one of these markers.
pub(super) fn marked(markers: &BTreeSet<Vec<u8>>) -> Vec<ProcessId> {
    if markers.is_empty() {
        return Vec::new();
    }
    let is_ours = |stat: &&Stat| {
        let marker = marker_of(stat.process.pid);
        !stat.dead && marker.is_some_and(|marker| markers.contains(&marker))
    };
    let census = census();
    let found = census.values().filter(is_ours);
    found.map(|stat| stat.process).collect()
}

fn is_marked(pid: i32, marker: &CStr) -> bool {
    !marker.is_empty() && marker_of(pid).as_deref() == Some(marker.to_bytes())
}

/// Whether `pid` is `ancestor` or descends from it.
pub(super) fn descends(census: &Census, pid: i32, ancestor: i32) -> bool {
    lineage(census, pid).any(|member| member == ancestor)
}

/// The process, its parent, and so on; bounded, since two readings may contradict each other.
pub(super) fn lineage(census: &Census, pid: i32) -> impl Iterator<Item = i32> {
    let up = |at: &i32| {
        census
            .get(at)
            .map(|stat| stat.parent)
            .filter(|parent| *parent > 1)
    };
    std::iter::successors(Some(pid), up).take(4096)
}

/// The tree of a child whose keeper is gone: descendants and session while the child itself lives, else only
/// what carries its marker.
pub(super) fn orphan_members(leader: ProcessId, marker: &CStr, scope: Scope) -> Vec<ProcessId> {
    let census = census();
    let alive = census
        .get(&leader.pid)
        .is_some_and(|stat| stat.process == leader && !stat.dead);
    let belongs = |stat: &Stat| match scope {
        Scope::Leader => stat.process == leader,
        Scope::Group => alive && stat.group == leader.pid,
        Scope::All => {
            let pid = stat.process.pid;
            (alive && (stat.session == leader.pid || descends(&census, pid, leader.pid)))
                || is_marked(pid, marker)
        }
    };
    let own = rustix::process::getpid().as_raw_nonzero().get();
    census
        .values()
        .filter(|stat| !stat.dead && stat.process.pid != own && belongs(stat))
        .map(|stat| stat.process)
        .collect()
}

/// A pidfd of exactly this process.
pub(super) fn open_verified(process: ProcessId) -> io::Result<OwnedFd> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    if process.pid <= 1 {
        return Err(gone());
    }
    let pid = Pid::from_raw(process.pid).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // Read after opening: if it matches now, the pidfd is of the process that is meant.
    if start_ticks(process.pid) == Some(process.start_ticks) {
        Ok(pidfd)
    } else {
        Err(gone())
    }
}

/// Signals exactly this process, and lets it continue if asked to.
pub(super) fn signal_verified(process: ProcessId, signal: i32, follow: bool) -> io::Result<()> {
    let pidfd = open_verified(process)?;
    send(&pidfd, signal)?;
    if follow {
        send(&pidfd, libc::SIGCONT)
    } else {
        Ok(())
    }
}

/// Raw, since real-time signals have no name in rustix and are some programs' way to be stopped.
fn send(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null signal information is allowed.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            nothing,
            0,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether a stopped process must be continued to notice this signal as the request to end that it is.
pub(super) fn wants_continue(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT)
}
