//! What this process itself uses.

use procfs::process::Process;

/// What the kernel says of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnUsage {
    /// CPU time, ms.
    pub cpu_ms: u64,
    /// Resident bytes.
    pub resident: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors; `None` where that can't be read.
    pub open: Option<usize>,
}

/// Reads it now; `None` where `/proc` does not tell.
#[must_use]
pub fn own_usage() -> Option<OwnUsage> {
    let me = Process::myself().ok()?;
    let stat = me.stat().ok()?;
    let ticks = (stat.utime + stat.stime).saturating_mul(1000);
    Some(OwnUsage {
        cpu_ms: ticks / procfs::ticks_per_second().max(1),
        resident: stat.rss.saturating_mul(procfs::page_size()),
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        open: me.fd_count().ok(),
    })
}
