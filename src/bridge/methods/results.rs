//! Results, as documented by `rpc.discover`.

use crate::bridge::wire::RpcError;
use crate::handle::words::denied;
use lair_actors::dossier::Dossier;
use lair_actors::messages::{Answer, Loaded};
use lair_actors::status::ModuleStatus;
use lair_supervision::{Admission, Seq};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A subscription that began.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Subscribed {
    /// Its id: each of its notifications carries it.
    pub subscription: String,
    /// Number of the newest event when it began.
    pub seq: u64,
}

/// One module's status: `docs/bridge.md` shows the object.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Status(#[schemars(with = "Value")] pub ModuleStatus);

/// A run's dossier: `docs/why.md` shows the object.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Why(#[schemars(with = "Value")] pub Box<Dossier>);

/// All modules.
#[derive(Serialize, JsonSchema)]
pub struct List {
    /// Number of the newest event that the list reflects at least.
    #[schemars(with = "u64")]
    pub seq: Seq,
    /// In name order.
    #[schemars(with = "Vec<Value>")]
    pub modules: Vec<ModuleStatus>,
}

/// What became of a request.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Outcome {
    /// The module.
    pub name: String,
    /// `accepted`, `already` (nothing to do), `deferred` (done when the stop under way has ended).
    pub result: &'static str,
    /// The run it acts on or creates.
    pub run: u64,
    /// Number of the newest event when it was answered.
    pub seq: u64,
}

impl Outcome {
    /// The wire's form of an answer.
    ///
    /// # Errors
    /// It was denied.
    pub fn of(name: &str, answer: Answer) -> Result<Self, RpcError> {
        let (result, run) = match answer.admission {
            Admission::Accepted { inc } => ("accepted", inc),
            Admission::AlreadySatisfied { inc } => ("already", inc),
            Admission::Deferred { inc } => ("deferred", inc),
            Admission::Denied(reason) => return Err(denied(reason, name).into()),
        };
        Ok(Outcome {
            name: name.to_owned(),
            result,
            run,
            seq: answer.seq.0,
        })
    }
}

/// What was started.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Started {
    /// The first or only module.
    #[serde(flatten)]
    pub first: Outcome,
    /// All of them, if the manifest is a stack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Outcome>,
}

/// What was loaded.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LoadResult {
    /// In the manifest's order.
    pub modules: Vec<LoadedModule>,
    /// Modules that were loaded from the same file, which names them no more. They go on.
    pub orphans: Vec<String>,
}

/// One loaded module.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LoadedModule {
    /// Its name.
    pub name: String,
    /// `new`; `same`; `replaced` (nothing of it ran); `updated` (it runs, and all that changed holds at once);
    /// `restart_needed` (it runs, and a part of what changed holds from its next start on: `next_start` in its status).
    #[schemars(with = "String")]
    pub result: Loaded,
}

/// Done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Done {
    /// Always true.
    pub done: bool,
}
