//! What a tree of processes uses.

use super::table::{ProcessTable, alive, pids_in};
use crate::backend::Tree;
use procfs::process::Process;
use serde::Serialize;

/// What a tree uses, summed over its live processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The live processes.
    pub pids: Vec<i32>,
    /// Resident bytes. Shared pages count once for each process that has them.
    pub rss: u64,
    /// CPU time, ms, with that of members that were waited for.
    pub cpu_ms: u64,
    /// Bytes read from storage; `None` where no process's account may be read.
    pub read_bytes: Option<u64>,
    /// Bytes written to storage; `None` as above.
    pub write_bytes: Option<u64>,
    /// Threads.
    pub threads: u64,
}

/// Reads it now.
#[must_use]
pub fn usage(tree: &Tree) -> Usage {
    match tree {
        Tree::Descendants(_) => usage_in(tree, &ProcessTable::read()),
        Tree::Cgroup(_) | Tree::None => usage_in(tree, &ProcessTable::default()),
    }
}

/// As [`usage`], with a table that was read already.
pub(super) fn usage_in(tree: &Tree, table: &ProcessTable) -> Usage {
    let mut sum = Usage::default();
    for pid in pids_in(tree, table) {
        // A failure here is a process that vanished between the list and the look.
        let _ = add(&mut sum, pid);
    }
    sum
}

fn add(sum: &mut Usage, pid: i32) -> procfs::ProcResult<()> {
    let process = Process::new(pid)?;
    let stat = process.stat()?;
    if !alive(&stat) {
        return Ok(());
    }
    let waited_for = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    let ticks = stat.utime + stat.stime + waited_for;
    sum.pids.push(pid);
    sum.rss += stat.rss * procfs::page_size();
    sum.cpu_ms += ticks * 1000 / procfs::ticks_per_second().max(1);
    sum.threads += u64::try_from(stat.num_threads).unwrap_or(0);
    if let Ok(io) = process.io() {
        *sum.read_bytes.get_or_insert(0) += io.read_bytes;
        *sum.write_bytes.get_or_insert(0) += io.write_bytes;
    }
    Ok(())
}
