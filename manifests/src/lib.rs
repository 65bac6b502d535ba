//! What was asked for: manifests, the runtime's configuration, and the choice of a mode.
//!
//! Owns: the shapes that people write ([`launch`] is what becomes of them). Promises: every mistake is reported at
//! once, with its position and a next step; the same input gives the same choice. Never: touches a process.
//!
//! ```text
//! file ─source→ Source ─parse→ Stack{ModuleManifest} ─selection(facts, policy, config, preference, trust)→ Selected ─plan→ LaunchPlan
//! ```
#![forbid(unsafe_code)]

pub mod capability;
pub mod change;
mod check;
pub mod config;
pub mod data;
mod decode;
pub mod facts;
pub mod health;
pub mod integrity;
pub mod launch;
pub mod module;
pub mod numbers;
pub mod nvml;
pub mod park;
pub mod parse;
pub mod plan;
pub mod problem;
mod record;
pub mod resources;
pub mod restart;
pub mod runtime;
pub mod schema;
pub mod selection;
pub mod source;
mod spec_digest;
pub mod stack;
pub mod text;
mod texts;
mod tree;
pub mod trust;
pub mod units;
mod walk;
pub mod words;

pub use config::{Dirs, Policy, RuntimeConfig};
pub use decode::nearest;
pub use facts::{EngineFacts, GpuFacts, HostFacts, ProgramFacts};
pub use launch::{Launch, LaunchPlan, Mode};
pub use module::ModuleManifest;
pub use parse::{parse_config, parse_module, parse_stack};
pub use plan::{PlanContext, plan};
pub use problem::{Problem, ProblemKind};
pub use selection::{Mismatch, Refusal, Selected, Step, select};
pub use source::{Source, read_manifest, read_signature};
pub use stack::Stack;
pub use tree::Pos;
pub use trust::{Distrust, TrustDecision, TrustScope};
pub use words::ModuleId;
