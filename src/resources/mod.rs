//! What modules are given of the machine: which GPUs, who is on them, and what a start would change.
//!
//! Owns: the reports of `gpus`, `plan` and `processes`. Promises: they say what the account itself decides by. Never: decides.

mod cards;
mod gpus;
mod plan;
mod processes;

pub(crate) use cards::Cards;
pub(crate) use gpus::report as gpu_report;
pub use gpus::{Card, CardMemory, GpuReport, OnGpu, Share};
pub(crate) use plan::plan;
pub use plan::{Device, LimitPlan, ModulePlan, PlanReport, PoolPlan, PortPlan, Refusal, SumPlan};
pub(crate) use processes::report as process_report;
pub use processes::{ModuleProcess, ProcessReport};
