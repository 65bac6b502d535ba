//! Which GPUs a module is offered, and in which order.
//!
//! Owns: the preference among GPUs that would do. Promises: a module that is loaded again keeps those it was given; else
//! the ones that the fewest other modules were given come first. What other modules use at the moment is no reason
//! against a GPU: whether it is free counts when the module is started. Never: gives one out.

use crate::handle::Inner;
use lair_actors::facts::{Gpu, GpuFacts as Raw};
use lair_manifests::facts;
use lair_manifests::launch::LaunchPlan;
use lair_manifests::{GpuFacts, Stack};
use lair_supervision::{Measured, Pool};
use std::collections::BTreeMap;

/// The GPUs of the machine, and which modules were given them.
pub(crate) struct Cards {
    facts: GpuFacts,
    given: BTreeMap<String, Vec<String>>,
}

impl Cards {
    /// Asks the driver, if a module of the stack asks for a GPU.
    pub fn of(inner: &Inner, stack: &Stack) -> Option<Self> {
        let mut modules = stack.modules.iter();
        modules.find(|m| m.runtime.resources.gpu.is_some())?;
        let measured = inner.meter.measure(true);
        let facts = match inner.gpus.last().as_deref() {
            Some(Raw::Present(gpus)) => {
                let usable = gpus.iter().filter_map(|gpu| usable(gpu, &measured));
                GpuFacts::Present(usable.collect())
            }
            Some(Raw::Unavailable(why)) => GpuFacts::Unavailable(why.clone()),
            None => GpuFacts::default(),
        };
        let mut cards = Cards {
            facts,
            given: BTreeMap::new(),
        };
        for view in inner.board.all() {
            cards.give(&view.plan);
        }
        Some(cards)
    }

    /// As this module is offered them.
    pub fn offered(&self, name: &str) -> GpuFacts {
        let GpuFacts::Present(gpus) = &self.facts else {
            return self.facts.clone();
        };
        let mut gpus = gpus.clone();
        gpus.sort_by_key(|gpu| {
            let given = self.given.get(&gpu.uuid).map_or(&[][..], Vec::as_slice);
            let own = given.iter().any(|of| of == name);
            (
                !own,
                given.iter().filter(|of| *of != name).count(),
                gpu.index,
            )
        });
        GpuFacts::Present(gpus)
    }

    /// A module was given these.
    pub fn give(&mut self, plan: &LaunchPlan) {
        let name = plan.spec.id.as_str();
        for uuid in plan.limits.gpu.iter().flat_map(|gpu| &gpu.uuids) {
            let given = self.given.entry(uuid.clone()).or_default();
            if !given.iter().any(|of| of == name) {
                given.push(name.to_owned());
            }
        }
    }
}

/// One that has no fault, with the memory that strangers leave of it.
fn usable(gpu: &Gpu, measured: &Measured) -> Option<facts::Gpu> {
    if gpu.fault.is_some() {
        return None;
    }
    let (uuid, total) = (gpu.uuid.clone()?, gpu.memory_total?);
    let strangers = measured
        .get(&Pool::Gpu(uuid.clone()))
        .and_then(|seen| seen.strangers);
    Some(facts::Gpu {
        uuid,
        pci: gpu.pci.clone().unwrap_or_default(),
        index: gpu.index,
        name: gpu.name.clone().unwrap_or_default(),
        memory_total: total,
        memory_free: strangers.map(|used| total.saturating_sub(used)),
    })
}
