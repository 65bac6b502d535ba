//! The processes of one module.

use crate::handle::Inner;
use lair_actors::facts::{TreeProcess, processes};
use lair_actors::view::View;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Processes named at most: beyond that a list is of use to nobody.
const MOST: usize = 1000;
/// Sums younger than this are shown as they are.
const FRESH: Duration = Duration::from_secs(2);

/// The tree of a module's current run, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProcessReport {
    /// The module.
    pub name: String,
    /// Its current or last run.
    pub run: u64,
    /// Bytes that the tree has read from storage; null: nobody may know.
    pub read_bytes: Option<u64>,
    /// Bytes that it has written to storage; null: nobody may know.
    pub write_bytes: Option<u64>,
    /// Its live processes in order of their numbers, the first 1000; empty: it is down.
    pub processes: Vec<ModuleProcess>,
}

/// A process of a module.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModuleProcess {
    /// Its pid, as this machine numbers it.
    pub pid: i32,
    /// Its parent's pid, in the tree or not.
    pub parent: i32,
    /// Its name as the kernel has it.
    pub name: String,
    /// Resident bytes.
    pub memory: u64,
    /// CPU time of its own, milliseconds.
    pub cpu_ms: u64,
    /// Its threads.
    pub threads: u64,
}

/// Looks at them; blocks for as long as the kernel takes.
pub(crate) fn report(inner: &Inner, view: &View) -> ProcessReport {
    let mut report = ProcessReport {
        name: view.plan.spec.id.to_string(),
        run: view.child.inc,
        read_bytes: None,
        write_bytes: None,
        processes: Vec::new(),
    };
    let Some(handle) = &view.handle else {
        return report;
    };
    let tree = handle.tree();
    let sums = inner
        .sampler
        .fresh(&view.plan.spec.id, view.child.inc, &tree, FRESH);
    report.read_bytes = sums.usage.read_bytes;
    report.write_bytes = sums.usage.write_bytes;
    report.processes = processes(&tree, MOST)
        .into_iter()
        .map(ModuleProcess::from)
        .collect();
    report
}

impl From<TreeProcess> for ModuleProcess {
    fn from(p: TreeProcess) -> Self {
        ModuleProcess {
            pid: p.pid,
            parent: p.parent,
            name: p.name,
            memory: p.rss,
            cpu_ms: p.cpu_ms,
            threads: p.threads,
        }
    }
}
