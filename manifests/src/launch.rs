//! Everything a backend needs to run a module, with no policy left in it.
//!
//! Owns: the mechanical half of a module after selection and substitution. Promises: plain data, complete: no
//! `${...}`, no relative path. Never: secrets in `Debug` or in serialised form (values of the environment are hidden).

use lair_supervision::{ChildSpec, GroupSpec};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a module runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In a container of an engine.
    Container,
    /// As a process of this machine.
    Native,
}

impl Mode {
    /// The word of the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Container => "container",
            Mode::Native => "native",
        }
    }
}

/// A module, ready to be loaded: policy for the core, mechanics for the backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// What the core decides by.
    pub spec: ChildSpec,
    /// The manifest's version.
    pub version: String,
    /// How it runs.
    pub mode: Mode,
    /// The mechanics.
    pub launch: Launch,
    /// Declared ports.
    pub ports: Vec<Port>,
    /// What is asked, of whom, for health.
    pub probes: ProbeActions,
    /// How it is parked and woken, where it can be.
    #[serde(default)]
    pub park: Option<Arc<Parking>>,
    /// Bounds of its log files.
    pub logs: LogPolicy,
    /// Limits asked for.
    pub limits: Limits,
    /// Words of the mode's explanation, in order (for `explain` and status).
    pub explanation: Vec<String>,
    /// The mode that was preferred but not taken, and why: worth an event.
    pub fallback: Option<String>,
    /// SHA-256 of the manifest file as read, lower-case hex.
    pub digest: String,
    /// The group it is a member of.
    pub group: Option<Arc<GroupSpec>>,
    /// The file it was read from, if from one.
    pub source: Option<PathBuf>,
}

impl LaunchPlan {
    /// Keeps the environment once for both where it is the same as another plan's.
    pub fn share_with(&mut self, other: &LaunchPlan) {
        if let (Launch::Native(ours), Launch::Native(theirs)) = (&mut self.launch, &other.launch)
            && ours.env == theirs.env
        {
            ours.env = theirs.env.clone();
        }
    }

    /// The whole plan with the values of the environment: for lair's own next life, in a file of this user's alone.
    ///
    /// # Errors
    /// A path in it is no text.
    pub fn to_kept(&self) -> serde_json::Result<serde_json::Value> {
        let mut value = serde_json::to_value(self)?;
        let (word, env) = match &self.launch {
            Launch::Native(native) => ("native", native.kept_env()),
            Launch::Container(container) => ("container", container.env.clone()),
        };
        if let Some(launch) = value.get_mut("launch").and_then(|l| l.get_mut(word)) {
            launch["env"] = serde_json::to_value(&env)?;
        }
        Ok(value)
    }

    /// The plan that [`LaunchPlan::to_kept`] wrote. What was passed from the runtime's environment comes from `own` again.
    ///
    /// # Errors
    /// It is none, or one of a version that is too different.
    pub fn from_kept(
        value: serde_json::Value,
        own: &BTreeMap<String, String>,
    ) -> serde_json::Result<Self> {
        let mut plan: LaunchPlan = serde_json::from_value(value)?;
        if let Launch::Native(native) = &mut plan.launch {
            let passed = native.passed.iter();
            let values = passed.filter_map(|name| own.get_key_value(name));
            Arc::make_mut(&mut native.env)
                .extend(values.map(|(name, value)| (name.clone(), value.clone())));
        }
        Ok(plan)
    }
}

/// The mechanics of one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// A process.
    Native(NativeLaunch),
    /// A container.
    Container(ContainerLaunch),
}

/// A process to start.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct NativeLaunch {
    /// Program (searched in PATH of `env` if it holds no slash) and arguments.
    pub argv: Vec<String>,
    /// The whole environment: nothing else is inherited.
    #[serde(serialize_with = "names_only")]
    pub env: Arc<BTreeMap<String, String>>,
    /// Names of those variables whose values are the runtime's own (`pass_env`): kept for no next life, which has them
    /// from its own environment.
    #[serde(default)]
    pub passed: BTreeSet<String>,
    /// Variables whose values are fetched at each start.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Absolute working directory.
    pub workdir: PathBuf,
    /// The module's own folder, where the manifest uses it: made before the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// User to become (name or number); only a privileged runtime can.
    pub user: Option<String>,
    /// The child says `ready` by a newline on descriptor `LAIR_READY_FD` (s6).
    pub ready_fd: bool,
    /// The child gets `NOTIFY_SOCKET` (sd_notify(3)).
    pub notify: bool,
}

impl NativeLaunch {
    fn kept_env(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::clone(&self.env);
        env.retain(|name, _| !self.passed.contains(name));
        env
    }
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// A file, absolute, that only its owner may read.
    File(PathBuf),
    /// A file of `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A variable of the runtime's own environment.
    Env(String),
}

/// A container to create.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerLaunch {
    /// Image reference.
    pub image: String,
    /// `never`, `missing`, `always`.
    pub pull: String,
    /// Arguments after the image's entrypoint.
    pub command: Vec<String>,
    /// Environment added to the image's.
    #[serde(serialize_with = "names_only")]
    pub env: BTreeMap<String, String>,
    /// Declared host folders.
    pub volumes: Vec<Volume>,
    /// User inside.
    pub user: Option<String>,
    /// Capabilities added to none.
    pub cap_add: Vec<String>,
    /// Read-only root.
    pub read_only: bool,
    /// Run an init as PID 1.
    pub init: bool,
    /// `auto`, `podman`, `docker`, `cli`.
    pub engine: String,
    /// Variables whose values are fetched at each start.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// UUIDs of the GPUs it gets, no others; empty: none. Podman: the CDI names `nvidia.com/gpu=UUID`; Docker: a device
    /// request of the driver `nvidia` with these ids.
    pub gpu_devices: Vec<String>,
}

/// A host folder seen by a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Path inside.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// It lies in the module's own folder: made before the start where it is missing.
    #[serde(default)]
    pub own: bool,
}

/// A declared port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name in the manifest.
    pub name: String,
    /// TCP port number.
    pub port: u16,
    /// Address it is served on: 127.0.0.1 unless `expose: lan`.
    pub address: String,
}

impl Port {
    /// Meant for other machines, too.
    #[must_use]
    pub fn is_for_others(&self) -> bool {
        let local = |address: std::net::IpAddr| address.is_loopback();
        !self.address.parse().is_ok_and(local)
    }
}

/// How each probe is carried out; thresholds are in the spec's `probes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeActions {
    /// Has it come up?
    pub startup: Option<StartupAction>,
    /// Does it serve?
    pub readiness: Option<ProbeAction>,
    /// Does it live?
    pub liveness: Option<ProbeAction>,
}

/// A startup probe: an action, and how long without progress is too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartupAction {
    /// What is asked.
    pub action: ProbeAction,
    /// No log output, CPU time, I/O or memory growth of the tree for this long: stuck.
    pub stall: Option<Duration>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeAction {
    /// Run in the module's context; exit code 0 is success.
    Command(Vec<String>),
    /// GET; success is `expect`, or any 2xx or 3xx status.
    Http {
        /// Numeric address.
        address: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// The one status that counts.
        expect: Option<u16>,
    },
    /// Connect; an accepted connection is success.
    Tcp {
        /// Numeric address.
        address: String,
        /// Port.
        port: u16,
    },
    /// A line of output that matches the pattern.
    Log {
        /// Regular expression, searched in each complete line.
        pattern: String,
    },
    /// READY=1 on `$NOTIFY_SOCKET`, or a newline on the ready descriptor.
    Notify,
    /// The image's own health check.
    Image,
}

/// How a module lets go of memory that it can do without for a while, and takes it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parking {
    /// Lets go.
    pub park: Errand,
    /// Takes it again; `None`: its next use does, of which nobody is told.
    pub wake: Option<Errand>,
    /// Its probes rest meanwhile.
    pub rests: bool,
}

/// One HTTP request on behalf of somebody. Success is `expect`, or any 2xx status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// `POST`, ...
    pub method: String,
    /// Numeric address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// JSON, or nothing.
    pub body: String,
    /// The one status that counts.
    pub expect: Option<u16>,
    /// Time for all of it.
    pub within: Duration,
}

/// Bounds of a module's log files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPolicy {
    /// A segment is closed at this many bytes.
    pub max_size: u64,
    /// Segments kept, of all runs.
    pub max_files: u32,
    /// Closed segments older than this are deleted.
    pub max_age: Option<Duration>,
    /// Closed segments become `.zst`.
    pub compress: bool,
    /// Record format.
    pub format: LogFormat,
}

impl Default for LogPolicy {
    fn default() -> Self {
        LogPolicy {
            max_size: 16 << 20,
            max_files: 8,
            max_age: Some(Duration::from_secs(30 * 86_400)),
            compress: true,
            format: LogFormat::Cri,
        }
    }
}

/// How output is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One record a line: time, stream, `P` or `F`, bytes.
    #[default]
    Cri,
    /// The bytes alone, one file a stream.
    Raw,
}

/// Limits asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Refuse to start where the memory limit can't be enforced.
    pub memory_required: bool,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open descriptors (RLIMIT_NOFILE).
    pub nofile: Option<u64>,
    /// GPUs that were chosen for it.
    pub gpu: Option<GpuLimit>,
    /// What a native module may reach; `None`: all that its user may.
    pub sandbox: Option<Sandbox>,
    /// Capabilities that a native module keeps, a bit each.
    pub capabilities: u64,
    /// It is stopped if it listens where it did not declare to.
    pub exposure_enforced: bool,
}

/// GPUs that were chosen for a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuLimit {
    /// Their UUIDs; empty if it only wished for some and there are none.
    pub uuids: Vec<String>,
    /// Bytes of memory it asks for on each.
    pub vram: Option<u64>,
    /// Refuse to start without them.
    pub required: bool,
}

/// What a native module may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// It sees no network.
    pub no_network: bool,
    /// Absolute paths it may read and execute; `None`: no rule for files.
    pub read: Option<Vec<PathBuf>>,
    /// Absolute paths it may also write; `None`: no rule for files.
    pub write: Option<Vec<PathBuf>>,
    /// TCP ports it may bind; `None`: any.
    pub bind: Option<Vec<u16>>,
    /// TCP ports it may connect to; `None`: any.
    pub connect: Option<Vec<u16>>,
    /// Start it with what of this can be had.
    pub best_effort: bool,
}

fn names_only<S: serde::Serializer>(
    env: &impl Borrow<BTreeMap<String, String>>,
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_seq(env.borrow().keys())
}

impl fmt::Debug for NativeLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeLaunch")
            .field("argv", &self.argv)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("workdir", &self.workdir)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ContainerLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerLaunch")
            .field("image", &self.image)
            .field("command", &self.command)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
