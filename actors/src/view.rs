//! What outsiders see of a module: an immutable snapshot per change, published by the root, read by anybody.
//!
//! Owns: the board of snapshots. Promises: a reader never waits for an actor, and never sees half a change. Never:
//! holds lifecycle state of its own: everything here is derived from the root's [`Child`].

use crate::backend::ChildHandle;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{Account, Child, ChildId, Origin, ProbeKind};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

/// LocalAIStack's three words for health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthWord {
    /// Its probes say so.
    Healthy,
    /// Its probes say so.
    Unhealthy,
    /// Nobody asked, or nobody could tell.
    #[default]
    Unknown,
}

impl HealthWord {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HealthWord::Healthy => "healthy",
            HealthWord::Unhealthy => "unhealthy",
            HealthWord::Unknown => "unknown",
        }
    }
}

/// A health verdict with its evidence.
#[derive(Clone, Debug, Default)]
pub struct HealthView {
    /// The verdict.
    pub state: HealthWord,
    /// One sentence of evidence (`GET /health answered 503`).
    pub reason: Option<String>,
    /// Which probe said so.
    pub probe: Option<ProbeKind>,
    /// Wall clock, ms: since when.
    pub since_ms: u64,
    /// Wall clock, ms: when it was last looked at; moves without a new snapshot.
    pub checked_ms: Arc<AtomicU64>,
}

impl PartialEq for HealthView {
    fn eq(&self, other: &Self) -> bool {
        (self.state, &self.reason, self.probe) == (other.state, &other.reason, other.probe)
    }
}

/// A group, as its members' status shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// `one_for_one one_for_all rest_for_one`.
    pub strategy: String,
    /// `steady restarting failed`.
    pub state: String,
    /// Restarts since it was loaded or began anew.
    pub restarts: u32,
    /// Why it failed.
    pub reason: Option<String>,
}

/// One module, as published.
#[derive(Clone)]
pub struct View {
    /// Name of the backend that runs it.
    pub backend: &'static str,
    /// What was asked for.
    pub plan: Arc<LaunchPlan>,
    /// What the root knows.
    pub child: Child,
    /// The group it is a member of.
    pub group: Option<GroupView>,
    /// The last verdict.
    pub health: HealthView,
    /// Parts of its manifest that hold from its next start on.
    pub next_start: Vec<&'static str>,
    /// What it listens on, against what it declared.
    pub exposure: lair_supervision::exposure::Exposure,
    /// The grip on the running child: for its tree only.
    pub handle: Option<Arc<dyn ChildHandle>>,
    /// Wall clock, ms: since when it is parked, while it is.
    pub parked_ms: Option<u64>,
    /// Counters of the current or last run's log.
    pub log: Option<Arc<crate::pump::StreamStats>>,
    /// Why the last change happened.
    pub origin: Origin,
    /// Wall clock, ms: when the current or last run came up.
    pub started_ms: Option<u64>,
    /// Wall clock, ms: when the last run ended.
    pub finished_ms: Option<u64>,
}

/// All snapshots. One writer, the root.
#[derive(Default)]
pub struct Board {
    views: RwLock<BTreeMap<ChildId, Arc<View>>>,
    account: RwLock<Account>,
}

impl Board {
    /// One module's snapshot.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<View>> {
        self.views
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// All snapshots, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<View>> {
        self.views
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// What is granted, as of now.
    #[must_use]
    pub fn account(&self) -> Account {
        let account = self.account.read();
        account.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For the root alone, which decides by it and writes it. Nothing in here waits.
    pub(crate) fn with_account<T>(&self, what: impl FnOnce(&mut Account) -> T) -> T {
        let account = self.account.write();
        what(&mut account.unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn put(&self, view: Arc<View>) {
        let id = view.plan.spec.id.clone();
        self.views
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, view);
    }

    pub(crate) fn remove(&self, id: &ChildId) {
        self.views
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}
