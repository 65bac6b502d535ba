//! What a child is promised and allowed: the policy half of a manifest, as plain values.

use crate::event::ExitStatus;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A module's name, as the supervisor's key. Cheap to clone. Validity is the manifest crate's business.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// Wraps an already validated name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        ChildId(Arc::from(name))
    }

    /// The name, shared instead of copied.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for ChildId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// When a child is started again after it ended without being asked to (OTP's words; the manifest also takes
/// `never`, `on-failure`, `always`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartType {
    /// Never. The default: nothing restarts unless the manifest says so.
    #[default]
    Temporary,
    /// Only after a failure.
    Transient,
    /// After every end that was not requested.
    Permanent,
}

/// More than `max` restarts within `within` means: give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intensity {
    /// Restarts allowed within the window.
    pub max: u32,
    /// Length of the sliding window.
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Intensity {
            max: 5,
            within: Duration::from_secs(600),
        }
    }
}

/// Growing delay between restarts: `first`, then times `factor` for each failure in a row, at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Delay before the first restart in a row; zero means at once.
    pub first: Duration,
    /// Growth per failure in a row, at least 1.
    pub factor: f64,
    /// Upper bound of the delay, jitter included.
    pub cap: Duration,
    /// Fraction of the delay that is random, 0.0 to 1.0: the delay lies in `[(1 - jitter) * d, d]`.
    pub jitter: f64,
    /// Seed of the jitter; the same seed gives the same gaps.
    pub seed: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_secs(60),
            jitter: 0.1,
            seed: 0,
        }
    }
}

/// The exit codes that count as success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SuccessCodes(pub Vec<i32>);

impl SuccessCodes {
    /// Is this an end with success? A signal and an unknown end never are.
    #[must_use]
    pub fn holds(&self, status: ExitStatus) -> bool {
        match status {
            ExitStatus::Code(code) => self.0.contains(&code),
            ExitStatus::Signal(_) | ExitStatus::Unknown => false,
        }
    }
}

impl Default for SuccessCodes {
    fn default() -> Self {
        SuccessCodes(vec![0])
    }
}

/// Which question a probe answers (kubelet's three).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Has it come up? Gates the other two.
    Startup,
    /// Does it serve?
    Readiness,
    /// Does it live?
    Liveness,
}

/// Thresholds and times of one probe. How it is carried out is the launch's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Time between the start of two probes.
    pub interval: Duration,
    /// A probe that takes longer has failed and is ended.
    pub timeout: Duration,
    /// Failures in a row that make it failed.
    pub failures: u32,
    /// Successes in a row that make it good.
    pub successes: u32,
    /// Time after `up` before the first probe.
    pub initial_delay: Duration,
}

impl Default for ProbeSpec {
    fn default() -> Self {
        ProbeSpec {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            failures: 3,
            successes: 1,
            initial_delay: Duration::ZERO,
        }
    }
}

/// The probes of a child, as policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Gates the other two; a child is not ready before it succeeded.
    pub startup: Option<ProbeSpec>,
    /// Moves between ready and not ready; never restarts.
    pub readiness: Option<ProbeSpec>,
    /// Failing it is reported, or ends the child: see [`OnLiveness`].
    pub liveness: Option<ProbeSpec>,
}

/// What a failed liveness probe does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLiveness {
    /// Health says `unhealthy`; the child is left alone.
    #[default]
    Report,
    /// The child is stopped and the restart policy decides (it counts as a failure).
    Restart,
}

/// The policy half of a module: everything `decide` needs to know about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildSpec {
    /// The module's name.
    pub id: ChildId,
    /// When it is started again.
    pub restart: RestartType,
    /// How often at most; without effect where `grouped`.
    pub intensity: Intensity,
    /// Its group decides when it is started again, and how often.
    pub grouped: bool,
    /// After which delay.
    pub backoff: Backoff,
    /// Ready (or up, without a readiness question) for this long: the restart history is forgotten.
    pub settle: Duration,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
    /// Time between the stop signal and KILL.
    pub grace: Duration,
    /// Time from `Spawn` to `Spawned`.
    pub start_deadline: Duration,
    /// Time from `up` to ready, if it has a startup or readiness question; `None`: no hard limit.
    pub ready_deadline: Option<Duration>,
    /// Time from KILL to proof of death, before the child is reported stuck.
    pub kill_confirm: Duration,
    /// Exit codes that are no failure.
    pub success: SuccessCodes,
    /// Whether something must say `ready` (a startup or readiness probe, `notify`, or a ready descriptor).
    pub awaits_ready: bool,
    /// Probe policy.
    pub probes: Probes,
    /// What a failed liveness probe does.
    pub on_liveness: OnLiveness,
}

impl ChildSpec {
    /// A spec with the documented defaults: temporary, 10 s grace, 60 s start deadline, no probes.
    #[must_use]
    pub fn new(id: ChildId) -> Self {
        ChildSpec {
            id,
            restart: RestartType::default(),
            intensity: Intensity::default(),
            grouped: false,
            backoff: Backoff::default(),
            settle: Duration::from_secs(60),
            stop_signal: 15,
            grace: Duration::from_secs(10),
            start_deadline: Duration::from_secs(60),
            ready_deadline: None,
            kill_confirm: Duration::from_secs(5),
            success: SuccessCodes::default(),
            awaits_ready: false,
            probes: Probes::default(),
            on_liveness: OnLiveness::default(),
        }
    }
}
