//! The files behind one limit: what is written, and what is read back. cgroup v1 and v2 differ in nothing else.

use super::Limit;
use super::find::words;
use std::fs;
use std::io;
use std::path::Path;

/// The period in which a share of CPU time is counted, microseconds; the kernel's own default.
const PERIOD: u64 = 100_000;

/// Writes a limit into a new group.
///
/// # Errors
/// The file and what the kernel says.
pub(super) fn set(dir: &Path, v2: bool, limit: Limit, value: u64) -> Result<(), String> {
    let text = value.to_string();
    let quota = value.saturating_mul(PERIOD) / 1000;
    match (limit, v2) {
        (Limit::Memory, true) => {
            write(dir, "memory.max", &text)?;
            // What is swapped out counts too; without swap there is no such file.
            ignore_missing(write_raw(dir, "memory.swap.max", "0"), "memory.swap.max")?;
            write(dir, "memory.oom.group", "1")
        }
        (Limit::Memory, false) => {
            write(dir, "memory.limit_in_bytes", &text)?;
            let file = "memory.memsw.limit_in_bytes";
            ignore_missing(write_raw(dir, file, &text), file)
        }
        (Limit::Cpus, true) => write(dir, "cpu.max", &format!("{quota} {PERIOD}")),
        (Limit::Cpus, false) => {
            write(dir, "cpu.cfs_period_us", &PERIOD.to_string())?;
            write(dir, "cpu.cfs_quota_us", &quota.to_string())
        }
        (Limit::Pids, _) => write(dir, "pids.max", &text),
    }
}

/// What the kernel holds it to now; nothing where that is no limit at all, or could not be read.
pub(super) fn get(dir: &Path, v2: bool, limit: Limit) -> Option<u64> {
    match (limit, v2) {
        (Limit::Memory, true) => number(dir, "memory.max"),
        (Limit::Memory, false) => number(dir, "memory.limit_in_bytes"),
        (Limit::Cpus, true) => {
            let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            share(quota.parse().ok()?, period.parse().ok()?)
        }
        (Limit::Cpus, false) => share(
            number(dir, "cpu.cfs_quota_us")?,
            number(dir, "cpu.cfs_period_us")?,
        ),
        (Limit::Pids, _) => number(dir, "pids.max"),
    }
}

/// Whether what was found is what was asked for; memory is counted in pages.
pub(super) fn same(limit: Limit, asked: u64, found: u64) -> bool {
    match limit {
        Limit::Memory => found == asked - asked % procfs::page_size().max(1),
        Limit::Cpus | Limit::Pids => found == asked,
    }
}

/// Now, and the most so far.
pub(super) fn used(dir: &Path, v2: bool, limit: Limit) -> (Option<u64>, Option<u64>) {
    let (now, most) = match (limit, v2) {
        (Limit::Memory, true) => ("memory.current", "memory.peak"),
        (Limit::Memory, false) => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
        (Limit::Pids, _) => ("pids.current", "pids.peak"),
        (Limit::Cpus, _) => return (None, None),
    };
    (number(dir, now), number(dir, most))
}

/// How many of the group's processes the kernel has killed for lack of memory.
pub(super) fn oom_kills(dir: &Path, v2: bool) -> Option<u64> {
    let file = if v2 {
        "memory.events"
    } else {
        "memory.oom_control"
    };
    let text = fs::read_to_string(dir.join(file)).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

fn share(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn write_raw(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::write(dir.join(file), text)
}

fn write(dir: &Path, file: &str, text: &str) -> Result<(), String> {
    write_raw(dir, file, text).map_err(|e| refused(file, &e))
}

fn ignore_missing(written: io::Result<()>, file: &str) -> Result<(), String> {
    match written {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound) => Err(refused(file, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn refused(file: &str, e: &io::Error) -> String {
    format!("the kernel did not take {file}: {}", words(e))
}
