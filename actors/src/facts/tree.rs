//! The processes of a tree one by one, for people who look at one module.

use super::table::{alive, pids};
use crate::backend::Tree;
use procfs::process::Process;

/// A live process of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeProcess {
    /// Its pid.
    pub pid: i32,
    /// Its parent, in the tree or not.
    pub parent: i32,
    /// Its name as the kernel has it.
    pub name: String,
    /// Resident bytes.
    pub rss: u64,
    /// Its own CPU time, ms.
    pub cpu_ms: u64,
    /// Its threads.
    pub threads: u64,
}

/// The live processes of a tree, in order of their numbers; at most `most`.
#[must_use]
pub fn processes(tree: &Tree, most: usize) -> Vec<TreeProcess> {
    pids(tree)
        .into_iter()
        // A failure here is a process that vanished between the list and the look.
        .filter_map(|pid| Process::new(pid).ok()?.stat().ok())
        .filter(alive)
        .take(most)
        .map(|stat| TreeProcess {
            pid: stat.pid,
            parent: stat.ppid,
            rss: stat.rss * procfs::page_size(),
            cpu_ms: (stat.utime + stat.stime) * 1000 / procfs::ticks_per_second().max(1),
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            name: stat.comm,
        })
        .collect()
}
