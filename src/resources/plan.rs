//! What a file's modules would be given, and what that makes of the machine: before anything is loaded.

use crate::handle::{Inner, LoadOptions, ManifestSource, Refused, overcommitted};
use lair_actors::facts::{claim, port_holder};
use lair_actors::footprint::{Footprint, hint};
use lair_manifests::launch::{LaunchPlan, Limits, Port};
use lair_supervision::account::Sum;
use lair_supervision::{Account, Claim, Measured, Pool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What loading and starting a file would change.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// Would anything change?
    pub pending: bool,
    /// Could all of it be done now?
    pub fits: bool,
    /// In the file's order, which is the order of the starts.
    pub modules: Vec<ModulePlan>,
    /// What is shared out, before and after.
    pub sums: Vec<PoolPlan>,
}

/// What would become of one module.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModulePlan {
    /// Its name.
    pub name: String,
    /// `none` (it runs as the file says), `start`, `load` (and start), `replace` (and start), `update` (it runs, and takes
    /// all at once), `restart` (it runs, and a new run has to begin for what is named under `next_start`).
    pub change: String,
    /// Parts of its manifest that it would take while it runs.
    pub live: Vec<String>,
    /// Parts that would count from its next start on.
    pub next_start: Vec<String>,
    /// `native` or `container`.
    pub mode: String,
    /// Why that mode, one line a step.
    pub explanation: Vec<String>,
    /// The GPUs it would be given.
    pub devices: Vec<Device>,
    /// The ports it would serve on.
    pub ports: Vec<PortPlan>,
    /// The limits that would be set.
    pub limits: LimitPlan,
    /// What its runs took so far, run as the file says; null: none of them has ended yet.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub footprint: Option<Arc<Footprint>>,
    /// What that says of the limits.
    #[serde(default)]
    pub hints: Vec<String>,
    /// Why it could not be started, if so.
    pub refused: Option<Refusal>,
}

/// A GPU for a module.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Which.
    pub uuid: String,
    /// Bytes on it, shared; null: alone.
    pub vram: Option<u64>,
}

/// A port for a module.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PortPlan {
    /// Its name in the manifest.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// Address.
    pub address: String,
    /// Who listens on it now, if that is not this module.
    pub held_by: Option<String>,
}

/// Limits of a module; null: none.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LimitPlan {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open descriptors.
    pub nofile: Option<u64>,
}

/// Why not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do now.
    pub help: Option<String>,
}

/// One thing that is shared out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PoolPlan {
    /// `memory`, or `memory of GPU <uuid>`.
    pub what: String,
    /// As it is.
    pub before: SumPlan,
    /// As it would be.
    pub after: SumPlan,
}

/// A sum: as people read it, and as programs do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SumPlan {
    /// `capacity 16GiB - reserve 2GiB - a 8GiB = 6GiB`
    pub text: String,
    /// Bytes left; null: unknown.
    pub room: Option<i64>,
    /// Capacity, budget, reserve, strangers, and each module's charge.
    #[schemars(with = "serde_json::Value")]
    pub sum: Sum,
}

impl SumPlan {
    fn of(sum: Sum) -> Self {
        SumPlan {
            text: sum.to_string(),
            room: sum.room,
            sum,
        }
    }
}

impl Refusal {
    fn of(refused: Refused) -> Self {
        Refusal {
            code: refused.code.to_owned(),
            message: refused.message,
            help: refused.help,
        }
    }
}

/// Prepares a file and judges it; blocks as loading does.
pub(crate) fn plan(
    inner: &Inner,
    source: ManifestSource,
    options: &LoadOptions,
) -> Result<PlanReport, Refused> {
    let plans = crate::prepare::prepare(inner, source, options)?;
    let before = inner.board.account();
    let pools = pools(&plans);
    let measured = inner.meter.measure(pools.len() > 1);
    let mut after = before.clone();
    let modules: Vec<ModulePlan> = plans
        .iter()
        .map(|plan| one(inner, plan, &mut after, &measured))
        .collect();
    let sums = pools.into_iter().map(|pool| PoolPlan {
        what: pool.to_string(),
        before: SumPlan::of(before.now(&pool, &measured)),
        after: SumPlan::of(after.now(&pool, &measured)),
    });
    Ok(PlanReport {
        pending: modules.iter().any(|m| m.change != "none"),
        fits: modules.iter().all(|m| m.refused.is_none()),
        sums: sums.collect(),
        modules,
    })
}

/// Memory, and the GPUs that these plans are about.
fn pools(plans: &[LaunchPlan]) -> Vec<Pool> {
    let gpus: BTreeSet<String> = plans
        .iter()
        .flat_map(|plan| claim(&plan.limits).gpus)
        .map(|gpu| gpu.uuid)
        .collect();
    let gpus = gpus.into_iter().map(Pool::Gpu);
    std::iter::once(Pool::Memory).chain(gpus).collect()
}

fn one(inner: &Inner, plan: &LaunchPlan, account: &mut Account, measured: &Measured) -> ModulePlan {
    let (id, wants) = (&plan.spec.id, claim(&plan.limits));
    let known = inner.board.get(id.as_str());
    let differs = known
        .as_ref()
        .map(|view| view.plan.difference(plan))
        .unwrap_or_default();
    let same = known.is_some() && differs.is_empty();
    let up = known.as_ref().is_some_and(|view| !view.child.is_down());
    let (change, refused) = match (same, up) {
        (true, true) => ("none", None),
        (false, true) if differs.next_start.is_empty() => ("update", None),
        (false, true) => ("restart", admit(account, plan, &wants, measured)),
        (true, false) => ("start", admit(account, plan, &wants, measured)),
        (false, false) if known.is_some() => ("replace", admit(account, plan, &wants, measured)),
        (false, false) => ("load", admit(account, plan, &wants, measured)),
    };
    let footprint = inner.footprints.planned(plan);
    ModulePlan {
        name: id.to_string(),
        change: change.to_owned(),
        live: words(&differs.live),
        next_start: words(&differs.next_start),
        mode: plan.mode.as_str().to_owned(),
        explanation: plan.explanation.clone(),
        devices: wants
            .gpus
            .into_iter()
            .map(|gpu| Device {
                uuid: gpu.uuid,
                vram: gpu.vram,
            })
            .collect(),
        ports: plan.ports.iter().map(|p| port(p, up)).collect(),
        limits: limits(&plan.limits),
        hints: footprint
            .as_deref()
            .map_or_else(Vec::new, |footprint| hints(footprint, &plan.limits)),
        footprint,
        refused,
    }
}

fn hints(footprint: &Footprint, limits: &Limits) -> Vec<String> {
    let gpu = limits.gpu.as_ref();
    let vram = gpu.and_then(|gpu| Some(gpu.vram?.saturating_mul(gpu.uuids.len() as u64)));
    let memory = footprint
        .memory
        .map(|peaks| hint("memory", &peaks, footprint.runs, limits.memory));
    let on_gpu = footprint
        .gpu_memory
        .map(|peaks| hint("GPU memory", &peaks, footprint.runs, vram));
    memory.into_iter().chain(on_gpu).collect()
}

fn admit(
    account: &mut Account,
    plan: &LaunchPlan,
    wants: &Claim,
    measured: &Measured,
) -> Option<Refusal> {
    let short = account.admit(&plan.spec.id, wants, measured).err()?;
    Some(Refusal::of(overcommitted(&short)))
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

fn port(port: &Port, up: bool) -> PortPlan {
    let holder = (!up).then(|| port_holder(port.port)).flatten();
    PortPlan {
        name: port.name.clone(),
        port: port.port,
        address: port.address.clone(),
        held_by: holder.map(|holder| format!("pid {} {}", holder.pid, holder.command)),
    }
}

fn limits(limits: &Limits) -> LimitPlan {
    LimitPlan {
        memory: limits.memory,
        cpu_milli: limits.cpu_milli,
        pids: limits.pids,
        nofile: limits.nofile,
    }
}
