//! Proof that a module which ended is off the GPUs.
//!
//! Owns: what was on a run's GPUs before it began. Promises: memory of a GPU that is not back is named as left over, by
//! process; a stranger's is not. Never: waits for longer than [`BACK_WITHIN`].

use crate::clock::Clock;
use crate::facts::{Gpu, GpuDesk, GpuFacts, is_alive};
use crate::health::pause;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::ChildId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A driver needs a moment to take back what a killed process had.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// One run's GPUs.
#[derive(Clone)]
pub struct Vram {
    desk: Arc<GpuDesk>,
    clock: Arc<dyn Clock>,
    id: ChildId,
    inc: u64,
    uuids: Vec<String>,
    before: BTreeSet<i32>,
}

impl Vram {
    /// Of a run that is on its GPUs already; `None`: it has none.
    #[must_use]
    pub fn of(
        plan: &LaunchPlan,
        inc: u64,
        desk: &Arc<GpuDesk>,
        clock: &Arc<dyn Clock>,
    ) -> Option<Self> {
        let gpu = plan.limits.gpu.as_ref();
        let gpu = gpu.filter(|gpu| !gpu.uuids.is_empty())?;
        Some(Vram {
            desk: desk.clone(),
            clock: clock.clone(),
            id: plan.spec.id.clone(),
            inc,
            uuids: gpu.uuids.clone(),
            before: BTreeSet::new(),
        })
    }

    /// As [`Vram::of`], and notes who is on them before the run begins.
    #[must_use]
    pub fn before(
        plan: &LaunchPlan,
        inc: u64,
        desk: &Arc<GpuDesk>,
        clock: &Arc<dyn Clock>,
    ) -> Option<Self> {
        let mut vram = Vram::of(plan, inc, desk, clock)?;
        // The driver was asked a moment ago, for the admission.
        if let Some(GpuFacts::Present(gpus)) = desk.last().as_deref() {
            let clients = vram.given(gpus).flat_map(|gpu| &gpu.clients);
            vram.before = clients.map(|client| client.pid).collect();
        }
        Some(vram)
    }

    /// What of it is still on its GPUs, in words; empty: nothing is. To be asked when its tree is gone.
    pub async fn left(self) -> Vec<String> {
        let until = self.clock.now() + BACK_WITHIN;
        let vram = Arc::new(self);
        loop {
            let mine = vram.clone();
            let left = tokio::task::spawn_blocking(move || mine.look()).await;
            let left = left.unwrap_or_default();
            if left.is_empty() {
                vram.desk.forget(&vram.id, vram.inc);
                return left;
            }
            if vram.clock.now() >= until {
                return left;
            }
            pause(&*vram.clock, LOOK).await;
        }
    }

    fn look(&self) -> Vec<String> {
        match &*self.desk.read() {
            GpuFacts::Present(gpus) => self.given(gpus).flat_map(|gpu| self.on(gpu)).collect(),
            GpuFacts::Unavailable(why) if self.desk.knows(&self.id, self.inc) => vec![format!(
                "GPU {}: unknown whether its memory is back: {why}",
                self.uuids.join(", ")
            )],
            GpuFacts::Unavailable(_) => Vec::new(),
        }
    }

    fn given<'g>(&self, gpus: &'g [Gpu]) -> impl Iterator<Item = &'g Gpu> {
        let ours = |gpu: &&Gpu| gpu.uuid.as_ref().is_some_and(|u| self.uuids.contains(u));
        gpus.iter().filter(ours)
    }

    fn on(&self, gpu: &Gpu) -> Vec<String> {
        let uuid = gpu.uuid.as_deref().unwrap_or_default();
        let mine = gpu.clients.iter().filter(|client| self.is_mine(client.pid));
        mine.map(|client| {
            self.desk.remember([client.pid], &self.id, self.inc);
            let has = client.memory.map_or(
                "an unknown amount".to_owned(),
                lair_supervision::account::size,
            );
            format!("GPU {uuid}: pid {} still has {has}", client.pid)
        })
        .collect()
    }

    /// It was seen to be, or it is a process that is gone, came after the start, and was nobody else's.
    fn is_mine(&self, pid: i32) -> bool {
        match self.desk.owner(pid) {
            Some((id, inc)) => id == self.id && inc == self.inc,
            None => !self.before.contains(&pid) && !is_alive(pid),
        }
    }
}
