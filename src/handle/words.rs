//! What is asked of the handle, and how it refuses.

use super::RuntimeHandle;
use lair_actors::view::{HealthWord, View};
use lair_manifests::launch::Mode;
use lair_supervision::status::Lifecycle;
use lair_supervision::{DeniedReason, Shortage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Why a call was refused or failed: a stable code, a sentence, and what to do now.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Stable: `unknown_module`, `still_up`, `draining`, `invalid_manifest`, `mode_unavailable`, `untrusted`, `overcommitted`, ...
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

/// What [`RuntimeHandle::wait`](super::RuntimeHandle::wait) waits for.
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

impl WaitFor {
    /// The word of the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            WaitFor::Healthy => "healthy",
            WaitFor::Ready => "ready",
            WaitFor::Stopped => "stopped",
            WaitFor::Exited => "exited",
        }
    }

    /// Is it so? `Some(false)`: it can't become so by itself.
    pub(super) fn verdict(self, view: &View, run: u64) -> Option<bool> {
        let down = view.child.is_down();
        let up_and = |yes: bool| {
            if yes {
                Some(true)
            } else {
                down.then_some(false)
            }
        };
        match self {
            WaitFor::Healthy => up_and(!down && view.health.state == HealthWord::Healthy),
            WaitFor::Ready => up_and(Lifecycle::of(&view.child).ready),
            WaitFor::Stopped => down.then_some(true),
            WaitFor::Exited => {
                let ended = view.child.inc > run
                    || view.child.last_exit.as_ref().is_some_and(|e| e.inc >= run);
                (ended || down).then_some(true)
            }
        }
    }
}

impl Refused {
    /// A refusal without help or evidence.
    #[must_use]
    pub fn new(code: &'static str, message: String) -> Self {
        Refused {
            code,
            message,
            help: None,
            data: serde_json::Value::Null,
        }
    }

    /// With what to do now.
    #[must_use]
    pub fn help(mut self, help: &str) -> Self {
        self.help = Some(help.to_owned());
        self
    }

    /// With evidence.
    #[must_use]
    pub fn with(mut self, data: serde_json::Value) -> Self {
        self.data = data;
        self
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for Refused {}

pub(super) fn root_gone() -> Refused {
    Refused::new("internal", "the root actor is gone".into())
        .help("the runtime has ended; start it again")
}

/// The account's refusal, with its sum.
pub(crate) fn overcommitted(short: &Shortage) -> Refused {
    let data = serde_json::to_value(short).unwrap_or_default();
    Refused::new("overcommitted", short.to_string())
        .help(&short.help())
        .with(serde_json::json!({ "shortage": data }))
}

impl RuntimeHandle {
    /// As [`denied`]; for a name that nobody has, with the nearest that somebody has.
    pub(super) fn refusal(&self, why: DeniedReason, name: &str) -> Refused {
        let refused = denied(why, name);
        if why != DeniedReason::UnknownModule {
            return refused;
        }
        let views = self.inner.board.all();
        let known: Vec<&str> = views.iter().map(|v| v.plan.spec.id.as_str()).collect();
        match lair_manifests::nearest(name, &known) {
            Some(near) => refused.help(&format!(
                "did you mean `{near}`? `lair ps -a` lists what is loaded"
            )),
            None => refused,
        }
    }
}

pub(crate) fn denied(why: DeniedReason, name: &str) -> Refused {
    match why {
        DeniedReason::UnknownModule => {
            Refused::new("unknown_module", format!("no module `{name}` is loaded"))
                .help("`lair ps -a` lists what is loaded, `lair load FILE` loads it; a file of the modules folder that the daemon refused is named in its log, and `lair plan FILE` says why")
        }
        DeniedReason::StillUp => Refused::new("still_up", format!("`{name}` is not down"))
            .help("stop it first: `lair stop NAME --wait`"),
        DeniedReason::NotRunning => {
            Refused::new("not_running", format!("`{name}` does not run"))
                .help("`lair start` it first; `lair status` shows its state")
        }
        DeniedReason::Draining => Refused::new("draining", "the runtime is shutting down".into())
            .help("start lair again, then repeat the request"),
        DeniedReason::Busy => {
            Refused::new("busy", "the runtime has as many modules as it takes".into())
                .help("unload modules that are not needed")
        }
        DeniedReason::Overcommitted => {
            Refused::new("overcommitted", format!("`{name}` doesn't fit"))
                .help("`lair plan FILE` shows the sums")
        }
        DeniedReason::InjectionDisabled => Refused::new(
            "injection_disabled",
            "the fault gate is closed".into(),
        )
        .help(
            "start lair with --allow-faults, or set `runtime.faults: true`, on a machine for tests",
        ),
        DeniedReason::Unsupported => Refused::new("unsupported", "nothing here can do that".into())
            .help("faults of an engine need one, and scripted events the simulated backend: see docs/injection.md"),
        DeniedReason::NotPermitted => Refused::new(
            "mode_unavailable",
            format!("no backend here can run `{name}`"),
        )
        .help("`lair explain NAME` shows why each mode is not available"),
    }
}
