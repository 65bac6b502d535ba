//! The typed face of a running lair: what embedders call and what the bridge is a wrapper of.
//!
//! Owns: nothing; it is a cheap clone of senders and published state. Promises: every call gets exactly one answer,
//! reads never wait for an actor. Never: changes lifecycle state by itself.

use lair_actors::events::Batch;
use lair_actors::fault::Fault;
use lair_actors::messages::{Answer, DrainReport, Loaded};
use lair_actors::status::ModuleStatus;
use lair_manifests::launch::Mode;
use lair_supervision::{Origin, Seq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// Why a call was refused or failed: a stable code, a sentence, and what to do now.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Stable: `unknown_module`, `still_up`, `draining`, `invalid_manifest`, `mode_unavailable`, `untrusted`, ...
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do now.
    pub help: Option<String>,
    /// Evidence (problems with positions, mismatches per mode).
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
}

/// Where a manifest comes from: trust depends on it.
#[derive(Clone, Debug)]
pub enum ManifestSource {
    /// A file that the runtime itself reads.
    File(PathBuf),
    /// Text handed over (bridge or host), with the folder that relative paths mean.
    Text {
        /// YAML or JSON.
        text: String,
        /// Folder of relative paths.
        dir: Option<PathBuf>,
        /// An embedding host vouches for it; the bridge never sets this.
        trusted: bool,
    },
}

/// How a module shall be loaded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadOptions {
    /// The user's preference of a mode.
    pub preference: Option<Mode>,
    /// Take another mode if the preference can't be met.
    pub fallback: bool,
    /// Modes allowed by the Control Layer for this request, if it says.
    pub allowed_modes: Option<Vec<Mode>>,
    /// Arguments appended to the command.
    pub args: Vec<String>,
    /// Environment added to the manifest's.
    pub env: BTreeMap<String, String>,
}

/// What [`RuntimeHandle::wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// Health says so.
    Healthy,
    /// It serves.
    Ready,
    /// It is down.
    Stopped,
    /// The run that is current at the call has ended.
    Exited,
}

/// A running lair. Cheap to clone.
#[derive(Clone)]
pub struct RuntimeHandle {
    inner: std::sync::Arc<Inner>,
}

struct Inner {}

#[allow(
    unused_variables,
    clippy::todo,
    missing_docs,
    clippy::missing_errors_doc,
    clippy::unused_async
)]
impl RuntimeHandle {
    /// Loads every module of a manifest or stack; all or nothing.
    pub async fn load(
        &self,
        source: ManifestSource,
        options: LoadOptions,
        origin: Origin,
    ) -> Result<Vec<(String, Loaded)>, Refused> {
        todo!()
    }
    pub async fn unload(&self, name: &str, origin: Origin) -> Result<(), Refused> {
        todo!()
    }
    pub async fn start(&self, name: &str, origin: Origin) -> Result<Answer, Refused> {
        todo!()
    }
    pub async fn stop(
        &self,
        name: &str,
        grace: Option<Duration>,
        origin: Origin,
    ) -> Result<Answer, Refused> {
        todo!()
    }
    pub async fn restart(
        &self,
        name: &str,
        grace: Option<Duration>,
        origin: Origin,
    ) -> Result<Answer, Refused> {
        todo!()
    }
    /// `signal: None` means KILL of the whole tree; else this signal is sent to the leader and nothing else changes.
    pub async fn kill(
        &self,
        name: &str,
        signal: Option<i32>,
        origin: Origin,
    ) -> Result<Answer, Refused> {
        todo!()
    }
    pub fn status(&self, name: &str) -> Result<ModuleStatus, Refused> {
        todo!()
    }
    /// All modules in name order, and the newest event number they reflect at least.
    pub fn list(&self) -> (Seq, Vec<ModuleStatus>) {
        todo!()
    }
    /// The mode's explanation, one line a step.
    pub fn explain(&self, name: &str) -> Result<Vec<String>, Refused> {
        todo!()
    }
    /// Level-triggered; `Err` with code `timeout` when the time is over, `failed` when it can no longer happen.
    pub async fn wait(
        &self,
        name: &str,
        what: WaitFor,
        timeout: Option<Duration>,
    ) -> Result<ModuleStatus, Refused> {
        todo!()
    }
    /// Kept events after number `after`.
    pub fn events(&self, after: Seq, max: usize) -> Batch {
        todo!()
    }
    /// Wakes when there are newer events.
    pub fn newest_event(&self) -> watch::Receiver<Seq> {
        todo!()
    }
    pub async fn inject(&self, fault: Fault, label: &str, origin: Origin) -> Result<Seq, Refused> {
        todo!()
    }
    pub async fn drain(&self, within: Duration, origin: Origin) -> Result<DrainReport, Refused> {
        todo!()
    }
    /// Skips the rest of the grace in a drain under way.
    pub fn drain_now(&self) {}
    /// Version, paths, limits, counters: what `runtime.info` shows.
    pub fn info(&self) -> serde_json::Value {
        todo!()
    }
    /// What the host offers and lacks: what `doctor` shows (blocking reads of /proc, call off the hot path).
    pub fn doctor(&self) -> serde_json::Value {
        todo!()
    }
    /// The folder of all log files; read them with `lair_actors::files::read`.
    pub fn log_dir(&self) -> &std::path::Path {
        todo!()
    }
    /// The wall clock of an event or status as RFC 3339 UTC with milliseconds.
    pub fn rfc3339(wall_ms: u64) -> String {
        todo!()
    }
}
