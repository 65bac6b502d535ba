//! Per GPU: its memory, which modules were given it, and every process on it with its owner.

use crate::handle::Inner;
use lair_actors::facts::{Gpu, GpuClient, GpuFacts, Owner};
use lair_supervision::account::Charge;
use lair_supervision::{Account, ChildId, Measured, Pool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The GPUs of the machine, as the driver tells.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GpuReport {
    /// Does a driver answer?
    pub available: bool,
    /// If not: why.
    pub reason: Option<String>,
    /// In the driver's order.
    pub gpus: Vec<Card>,
}

/// One GPU. What the driver would not say is null.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    /// The driver's number, which may change between boots.
    pub index: u32,
    /// Its identity.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci: Option<String>,
    /// Product name.
    pub name: Option<String>,
    /// Its memory.
    pub memory: CardMemory,
    /// Percent of the last sample period in which it worked.
    pub busy_percent: Option<u32>,
    /// Degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Why it can't be used, if it can't.
    pub fault: Option<String>,
    /// Modules that hold a part of it.
    pub modules: Vec<Share>,
    /// Processes on it.
    pub processes: Vec<OnGpu>,
}

/// Bytes of a GPU's memory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CardMemory {
    /// All of it.
    pub total: Option<u64>,
    /// In use by anybody.
    pub used: Option<u64>,
    /// In use by what is none of ours.
    pub strangers: Option<u64>,
    /// Kept free by the configuration.
    pub reserve: u64,
    /// Left for another module; negative where more is used than there should be.
    pub room: Option<i64>,
}

/// A module's part of a GPU.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The module.
    pub module: String,
    /// Bytes that it declared; null: no other module may be on it.
    pub vram: Option<u64>,
    /// It has ended, and something of it is left.
    pub left_behind: bool,
}

/// A process on a GPU.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OnGpu {
    /// Its pid.
    pub pid: i32,
    /// Its name as the kernel has it; null: there is no such process.
    pub name: Option<String>,
    /// Bytes of the GPU's memory.
    pub memory: Option<u64>,
    /// `module`, `left_behind` (of a module's run that is over) or `stranger`.
    pub owner: String,
    /// The module, if it is one's.
    pub module: Option<String>,
    /// The module's run.
    pub run: Option<u64>,
}

/// Asks the driver; blocks while it thinks.
pub(crate) fn report(inner: &Inner) -> GpuReport {
    let (facts, owners) = inner.meter.cards();
    let measured = inner.meter.measure_cards(&facts);
    let account = inner.board.account();
    match &*facts {
        GpuFacts::Unavailable(why) => GpuReport {
            available: false,
            reason: Some(why.clone()),
            gpus: Vec::new(),
        },
        GpuFacts::Present(gpus) => GpuReport {
            available: true,
            reason: None,
            gpus: gpus
                .iter()
                .map(|gpu| card(gpu, &owners, &account, &measured))
                .collect(),
        },
    }
}

fn card(gpu: &Gpu, owners: &BTreeMap<i32, Owner>, account: &Account, measured: &Measured) -> Card {
    let pool = Pool::Gpu(gpu.uuid.clone().unwrap_or_default());
    let sum = account.now(&pool, measured);
    let holds = |charge: &&Charge| account.has(&charge.id, &pool);
    Card {
        index: gpu.index,
        uuid: gpu.uuid.clone(),
        pci: gpu.pci.clone(),
        name: gpu.name.clone(),
        memory: CardMemory {
            total: gpu.memory_total,
            used: gpu.memory_used,
            strangers: sum.strangers,
            reserve: sum.reserve,
            room: sum.room,
        },
        busy_percent: gpu.busy_percent,
        temperature_c: gpu.temperature,
        fault: gpu.fault.clone(),
        modules: sum
            .charges
            .iter()
            .filter(holds)
            .map(|charge| Share {
                module: charge.id.to_string(),
                vram: charge.declared,
                left_behind: charge.left,
            })
            .collect(),
        processes: gpu
            .clients
            .iter()
            .map(|client| process(client, owners.get(&client.pid)))
            .collect(),
    }
}

fn process(client: &GpuClient, owner: Option<&Owner>) -> OnGpu {
    let of = |word: &str, of: Option<(&ChildId, u64)>| OnGpu {
        pid: client.pid,
        name: lair_actors::facts::process_name(client.pid),
        memory: client.memory,
        owner: word.to_owned(),
        module: of.map(|(id, _)| id.to_string()),
        run: of.map(|(_, run)| run),
    };
    match owner {
        Some(Owner::Module(id, run)) => of("module", Some((id, *run))),
        Some(Owner::Left(id, run)) => of("left_behind", Some((id, *run))),
        Some(Owner::Stranger) | None => of("stranger", None),
    }
}
