//! What the account is told of the machine: who uses how much, ours by module, strangers together.
//!
//! Owns: the four ledgers' join: processes, trees, memory, GPUs. Promises: one moment's numbers of one measure, so that
//! they add up; what can't be read is left out. Never: grants.

use super::desk::GpuDesk;
use super::gpu::{Gpu, GpuFacts};
use super::host::host;
use super::sampler::Sampler;
use crate::backend::Tree;
use crate::view::{Board, View};
use lair_manifests::launch::Limits;
use lair_supervision::account::Seen;
use lair_supervision::{ChildId, Claim, GpuClaim, Measured, Pool};
use procfs::process::Process;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Members of a tree as of this long ago are good enough.
const FRESH: Duration = Duration::from_millis(500);

/// What a module's limits claim of the account.
#[must_use]
pub fn claim(limits: &Limits) -> Claim {
    let gpus = limits.gpu.iter().flat_map(|gpu| {
        gpu.uuids.iter().map(|uuid| GpuClaim {
            uuid: uuid.clone(),
            vram: gpu.vram,
        })
    });
    Claim {
        memory: limits.memory,
        gpus: gpus.collect(),
    }
}

/// Reads what the account wants to know. Its functions block: call them from a blocking thread.
#[derive(Clone)]
pub struct Meter {
    /// Which modules there are.
    pub board: Arc<Board>,
    /// Which processes they have.
    pub sampler: Arc<Sampler>,
    /// What the driver says.
    pub gpus: Arc<GpuDesk>,
    /// There is no machine behind the modules: nothing is read of it.
    pub simulated: bool,
}

/// Who a process on a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This module's run.
    Module(ChildId, u64),
    /// This module's run, which is over.
    Left(ChildId, u64),
    /// Nobody of ours.
    Stranger,
}

impl Meter {
    /// What there is, and who uses it.
    #[must_use]
    pub fn measure(&self, gpus: bool) -> Measured {
        let trees = self.trees();
        let mut measured = Measured::new();
        if !self.simulated {
            measured.insert(Pool::Memory, memory(&trees));
        }
        if gpus {
            measured.extend(cards(&self.gpus.read(), &owners(&trees)));
        }
        measured
    }

    /// What this answer of the driver's says of each GPU, and who uses it.
    #[must_use]
    pub fn measure_cards(&self, facts: &GpuFacts) -> Measured {
        cards(facts, &owners(&self.trees()))
    }

    /// The driver's answer, and whose each process on a GPU is.
    #[must_use]
    pub fn cards(&self) -> (Arc<GpuFacts>, BTreeMap<i32, Owner>) {
        let facts = self.gpus.read();
        let owners = self.owned(&facts);
        (facts, owners)
    }

    /// Whose each process of this answer is.
    #[must_use]
    pub fn owned(&self, facts: &GpuFacts) -> BTreeMap<i32, Owner> {
        let GpuFacts::Present(gpus) = facts else {
            return BTreeMap::new();
        };
        let live = owners(&self.trees());
        let pids = gpus.iter().flat_map(|gpu| &gpu.clients).map(|c| c.pid);
        pids.map(|pid| {
            let owner = match (live.get(&pid), self.gpus.owner(pid)) {
                (Some((id, inc)), _) => {
                    self.gpus.remember([pid], id, *inc);
                    Owner::Module(id.clone(), *inc)
                }
                (None, Some((id, inc))) if !is_alive(pid) => Owner::Left(id, inc),
                (None, _) => Owner::Stranger,
            };
            (pid, owner)
        })
        .collect()
    }

    fn trees(&self) -> Vec<(ChildId, u64, Vec<i32>)> {
        let views = self.board.all();
        let live = views.iter().filter_map(|view| self.tree(view));
        live.collect()
    }

    fn tree(&self, view: &View) -> Option<(ChildId, u64, Vec<i32>)> {
        let tree = view.handle.as_ref()?.tree();
        if tree == Tree::None {
            return None;
        }
        let (id, inc) = (view.plan.spec.id.clone(), view.child.inc);
        let sampled = self.sampler.fresh(&id, inc, &tree, FRESH);
        Some((id, inc, sampled.usage.pids.clone()))
    }
}

fn owners(trees: &[(ChildId, u64, Vec<i32>)]) -> BTreeMap<i32, (ChildId, u64)> {
    let all = trees
        .iter()
        .flat_map(|(id, inc, pids)| pids.iter().map(|pid| (*pid, (id.clone(), *inc))));
    all.collect()
}

fn cards(facts: &GpuFacts, owners: &BTreeMap<i32, (ChildId, u64)>) -> Measured {
    let GpuFacts::Present(gpus) = facts else {
        return Measured::new();
    };
    gpus.iter()
        .filter_map(|gpu| Some((Pool::Gpu(gpu.uuid.clone()?), card(gpu, owners))))
        .collect()
}

/// Strangers have what is used and not ours. Ours is what no file backs: the pages of a model that was mapped from its
/// file count as available to the kernel, so counting them as used by a module would hide as much of the strangers'.
fn memory(trees: &[(ChildId, u64, Vec<i32>)]) -> Seen {
    let host = host();
    let ours: BTreeMap<ChildId, u64> = trees
        .iter()
        .map(|(id, _, pids)| (id.clone(), pids.iter().filter_map(|pid| own(*pid)).sum()))
        .collect();
    let used = match (host.memory_total, host.memory_available) {
        (Some(total), Some(available)) => Some(total.saturating_sub(available)),
        _ => None,
    };
    Seen {
        capacity: host.memory_total,
        strangers: used.map(|used| used.saturating_sub(ours.values().sum())),
        ours,
    }
}

/// Resident bytes of a process that belong to no file.
fn own(pid: i32) -> Option<u64> {
    let statm = Process::new(pid).ok()?.statm().ok()?;
    Some(statm.resident.saturating_sub(statm.shared) * procfs::page_size())
}

fn card(gpu: &Gpu, owners: &BTreeMap<i32, (ChildId, u64)>) -> Seen {
    let (mut ours, mut told) = (BTreeMap::new(), true);
    for client in &gpu.clients {
        if let Some((id, _)) = owners.get(&client.pid) {
            told &= client.memory.is_some();
            *ours.entry(id.clone()).or_insert(0) += client.memory.unwrap_or(0);
        }
    }
    let strangers = gpu.memory_used.filter(|_| told);
    Seen {
        capacity: gpu.memory_total.filter(|_| gpu.fault.is_none()),
        strangers: strangers.map(|used| used.saturating_sub(ours.values().sum())),
        ours,
    }
}

/// A process's name as the kernel has it; `None`: there is no such process.
#[must_use]
pub fn process_name(pid: i32) -> Option<String> {
    let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
    Some(stat.comm)
}

/// Is there such a process, and no zombie?
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| super::table::alive(&stat))
}
