//! The status object: one shape for `status`, `list`, events and the library (interface, section 4).

mod render;
mod words;

pub use render::Renderer;
pub(crate) use render::word;
pub use words::{cause_word, errno_name, exit_words, identity_words, policy_word, rfc3339};

use crate::confinement::Confinement;
use crate::footprint::Footprint;
use crate::view::{GroupView, HealthWord};
use lair_supervision::exposure::Socket;
use lair_supervision::{Desired, ProbeKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One module, as people and programs see it. Times are RFC 3339 UTC with milliseconds, sizes bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// Module name.
    pub name: String,
    /// Its manifest's version.
    pub version: String,
    /// Number of the current or last run; 0: never started.
    pub run: u64,
    /// `native` or `container`.
    pub mode: String,
    /// Name of the backend: `native`, `podman`, `docker`, `cli`, `sim`.
    pub backend: String,
    /// `starting running stopping stopped failed backoff`.
    pub state: String,
    /// Why it is in this state, where that needs saying.
    pub reason: Option<Reason>,
    /// `up` or `down`.
    pub desired: Desired,
    /// Does it serve?
    pub ready: bool,
    /// Is it held still, by request? Then it serves nobody, and its health is unknown.
    #[serde(default)]
    pub frozen: bool,
    /// Is it parked, by request, until it is woken?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// Health verdict.
    pub health: Health,
    /// Leader's process id, while it runs: a container's first process, as this machine numbers it, where it is seen.
    pub pid: Option<i32>,
    /// Container id, while it runs in one.
    pub container: Option<String>,
    /// When the current or last run came up.
    pub started_at: Option<String>,
    /// When the last run ended.
    pub finished_at: Option<String>,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Restarts.
    pub restarts: Restarts,
    /// What it uses and may use.
    pub resources: Resources,
    /// What its runs usually take, once one of them that served has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footprint: Option<Arc<Footprint>>,
    /// Declared ports.
    pub ports: Vec<Port>,
    /// Its listening TCP sockets against its declared ports: `as-declared violated unknown`.
    pub exposure: String,
    /// The sockets that it did not declare.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<Socket>,
    /// What its container engine says of it, while it runs: its image, and what is in force.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engine: BTreeMap<String, String>,
    /// What it is held to, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// Its log files.
    pub logs: Logs,
    /// Parts of its newest manifest that hold from its next start on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_start: Vec<String>,
    /// The group it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupView>,
    /// Why the last change happened: `observed`, `requested`, `injected`.
    pub origin: String,
}

/// Why, for people and programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Stable code: `crashed`, `start_failed`, ...
    pub code: String,
    /// One sentence.
    pub message: String,
    /// For `start_failed`: the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// For `start_failed`: the system's error name (`ENOENT`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What to do now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
}

/// Health verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// `healthy unhealthy unknown`.
    pub state: HealthWord,
    /// One sentence of evidence.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<String>,
    /// Which probe said so.
    pub probe: Option<ProbeKind>,
    /// When it was last looked at.
    pub checked: Option<String>,
}

/// How a run ended: exactly one of `code`, `signal`, `unknown` is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `true` where nobody could tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<bool>,
    /// Killed for memory? `null`: nobody could tell.
    pub oom: Option<bool>,
    /// The last signal that lair sent to it.
    pub by_us: Option<i32>,
    /// The grace period ran out and KILL was sent.
    pub killed_after_grace: bool,
    /// Which run.
    pub run: u64,
    /// When.
    pub at: Option<String>,
}

/// Restarts so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restarts {
    /// Automatic restarts since it was started by request.
    pub count: u32,
    /// `never on-failure always`.
    pub policy: String,
    /// When the next one is due.
    pub next_at: Option<String>,
}

/// What it uses and may use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Memory.
    pub memory: Memory,
    /// CPUs.
    #[serde(default)]
    pub cpus: Cpus,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Pids,
    /// CPU time used by the tree, milliseconds.
    pub cpu_ms: Option<u64>,
    /// Processes in the tree.
    pub processes: Option<u64>,
    /// Bytes its live processes have read from disks.
    #[serde(default)]
    pub read_bytes: Option<u64>,
    /// Bytes they have written to disks.
    #[serde(default)]
    pub written_bytes: Option<u64>,
    /// The GPUs it was given; empty: none, and none can be seen by it.
    pub gpu: Vec<Gpu>,
}

/// A GPU that a module was given, as the driver last told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Which.
    pub uuid: String,
    /// Bytes it declared, shared with others; `null`: no other module may be on it.
    pub vram: Option<u64>,
    /// Bytes its processes have; `null`: unknown, or none of them is there.
    pub memory: Option<u64>,
    /// Is one of its processes there? `null`: unknown.
    pub in_use: Option<bool>,
}

/// Memory of the tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Limit asked for.
    pub limit: Option<u64>,
    /// Is it enforced by the kernel, now and exactly?
    pub enforced: bool,
    /// By what, or why not.
    pub by: Option<String>,
    /// Now: what counts for the limit where it is enforced, else resident bytes summed over the tree.
    pub current: Option<u64>,
    /// Highest seen.
    pub peak: Option<u64>,
}

/// The share of the machine's processors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cpus {
    /// Limit asked for: 1.5 is one and a half CPUs.
    pub limit: Option<f64>,
    /// Is it enforced by the kernel, now and exactly?
    pub enforced: bool,
    /// By what, or why not.
    pub by: Option<String>,
}

/// The number of processes and threads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pids {
    /// Limit asked for.
    pub limit: Option<u64>,
    /// Is it enforced by the kernel, now and exactly?
    pub enforced: bool,
    /// By what, or why not.
    pub by: Option<String>,
    /// Now; `null` where nobody counts.
    pub current: Option<u64>,
    /// Highest seen.
    pub peak: Option<u64>,
}

/// One that has let go of memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parked {
    /// Since when.
    pub since: String,
}

/// A declared port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its name in the manifest.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// Address.
    pub address: String,
}

/// Log files of a module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logs {
    /// Folder.
    pub dir: String,
    /// Newest file.
    pub current: Option<String>,
    /// Bytes of output taken in this run.
    pub bytes: u64,
    /// Bytes of output that could not be kept in this run.
    pub dropped: u64,
}
