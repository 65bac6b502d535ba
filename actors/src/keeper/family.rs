//! Which processes belong to a child's tree, and signalling them safely.
//!
//! Reads `/proc` only. Promises that nothing is signalled unless it was identified by its start through a pidfd,
//! and never a number of 1 or less. Never remembers anything between two calls.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

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

/// Whether the process carries this marker in the environment it was started with.
pub(super) fn is_marked(pid: i32, marker: &CStr) -> bool {
    if marker.is_empty() {
        return false;
    }
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment.split(|byte| *byte == 0).any(|entry| {
        entry
            .strip_prefix(MARKER_NAME.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            == Some(marker.to_bytes())
    })
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

/// Signals exactly this process; one that means "stop" is followed by CONT.
pub(super) fn signal_verified(process: ProcessId, signal: i32) -> io::Result<()> {
    let pidfd = open_verified(process)?;
    let named =
        Signal::from_named_raw(signal).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    pidfd_send_signal(&pidfd, named)?;
    if wants_continue(signal) {
        pidfd_send_signal(&pidfd, Signal::CONT)?;
    }
    Ok(())
}

/// Whether a stopped process must be continued to notice this signal as the request to end that it is.
pub(super) fn wants_continue(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT)
}
