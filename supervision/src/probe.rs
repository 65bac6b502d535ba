//! Thresholds over probe outcomes, with the kubelet's semantics.
//!
//! Owns: what a row of outcomes means for readiness and health. Promises: changes only at thresholds; startup gates
//! the other two; readiness never ends a child; a prober's own error changes nothing; after a failure that ends the
//! child every probe of it is on hold. Never: runs a probe, or decides what a failure leads to.

use crate::spec::{OnLiveness, ProbeKind, ProbeSpec, Probes};
use crate::time::Uptime;
use serde::{Deserialize, Serialize};

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// The question was answered yes.
    Success,
    /// It was answered no.
    Failure,
    /// The question could not be put; says nothing about the child.
    CouldNotRun,
    /// No answer in time: a failure.
    TimedOut,
}

/// A threshold that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// Enough successes in a row.
    Passed,
    /// Enough failures in a row.
    Failed,
}

/// One probe's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeState {
    failures: u32,
    successes: u32,
    row: Option<(Reached, u32)>,
    /// The last threshold that was reached; `None` before the first.
    pub reached: Option<Reached>,
    /// How often in a row the question could not be put.
    pub could_not_run: u32,
}

impl ProbeState {
    /// Nothing observed yet. Thresholds of zero count as one.
    #[must_use]
    pub fn new(spec: &ProbeSpec) -> Self {
        ProbeState {
            failures: spec.failures.max(1),
            successes: spec.successes.max(1),
            row: None,
            reached: None,
            could_not_run: 0,
        }
    }

    /// Counts an outcome; `Some` if that changed the threshold last reached.
    pub fn observe(&mut self, outcome: ProbeOutcome) -> Option<Reached> {
        let side = match outcome {
            ProbeOutcome::CouldNotRun => {
                self.could_not_run = self.could_not_run.saturating_add(1);
                return None;
            }
            ProbeOutcome::Success => Reached::Passed,
            ProbeOutcome::Failure | ProbeOutcome::TimedOut => Reached::Failed,
        };
        self.could_not_run = 0;
        let row = match self.row {
            Some((same, row)) if same == side => row.saturating_add(1),
            Some(_) | None => 1,
        };
        self.row = Some((side, row));
        let threshold = match side {
            Reached::Passed => self.successes,
            Reached::Failed => self.failures,
        };
        if row < threshold || self.reached == Some(side) {
            return None;
        }
        self.reached = Some(side);
        Some(side)
    }

    fn passed(&self) -> bool {
        self.reached == Some(Reached::Passed)
    }

    fn failed(&self) -> bool {
        self.reached == Some(Reached::Failed)
    }
}

/// What the probes of a child say of it, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthVerdict {
    /// Every probe it has is good.
    Healthy,
    /// One failed.
    Unhealthy,
    /// It has no probes, or they have not answered yet.
    #[default]
    Unknown,
}

impl HealthVerdict {
    /// The word used in status and notices.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HealthVerdict::Healthy => "healthy",
            HealthVerdict::Unhealthy => "unhealthy",
            HealthVerdict::Unknown => "unknown",
        }
    }
}

/// The health part of status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub state: HealthVerdict,
    /// One sentence.
    pub reason: Option<String>,
    /// Which probe said so.
    pub probe: Option<ProbeKind>,
    /// When the verdict last changed.
    pub since: Option<Uptime>,
    /// When a probe last answered.
    pub checked: Option<Uptime>,
}

/// What changed through an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthChange {
    /// Report `ChildEvent::BecameReady`.
    BecameReady,
    /// Report `ChildEvent::LostReadiness`.
    LostReadiness,
    /// Report `ChildEvent::LivenessFailed`; the probes are on hold now.
    LivenessFailed(ProbeKind),
    /// Publish `NoticeKind::Health`.
    Verdict {
        /// The verdict.
        state: HealthVerdict,
        /// One sentence.
        reason: Option<String>,
        /// Which probe said so.
        probe: Option<ProbeKind>,
    },
}

/// The probes of one incarnation together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    startup: Option<ProbeState>,
    readiness: Option<ProbeState>,
    liveness: Option<ProbeState>,
    on_liveness: OnLiveness,
    ready: bool,
    was_ready: bool,
    on_hold: bool,
    health: Health,
}

impl HealthState {
    /// The same life under other probes: what has passed has passed, and no start is asked about twice. Says whether it
    /// serves now and did not before, which fewer probes can make so.
    #[must_use]
    pub fn revised(&self, probes: &Probes, on_liveness: OnLiveness) -> (Self, bool) {
        let carried = |old: &Option<ProbeState>, new: &Option<ProbeSpec>| {
            let mut probe = ProbeState::new(new.as_ref()?);
            probe.reached = old.as_ref().and_then(|old| old.reached);
            Some(probe)
        };
        let started = self.startup.as_ref().is_none_or(ProbeState::passed);
        let mut startup = carried(&self.startup, &probes.startup);
        if let Some(startup) = startup.as_mut().filter(|_| started) {
            startup.reached = Some(Reached::Passed);
        }
        let mut liveness = carried(&self.liveness, &probes.liveness);
        if let Some(liveness) = liveness
            .as_mut()
            .filter(|_| on_liveness != self.on_liveness)
        {
            // What failed under the old consequence has yet to meet the new one.
            liveness.reached = liveness.reached.filter(|r| *r == Reached::Passed);
        }
        let unasked = self.startup.is_none() && self.readiness.is_none();
        let served = self.ready || unasked;
        let serves = match (&probes.startup, &probes.readiness) {
            (_, Some(_)) => served,
            (Some(_), None) => started,
            (None, None) => true,
        };
        let revised = HealthState {
            startup,
            readiness: carried(&self.readiness, &probes.readiness),
            liveness,
            on_liveness,
            ready: serves,
            was_ready: self.was_ready || served,
            on_hold: self.on_hold,
            health: self.health.clone(),
        };
        (revised, serves && !served)
    }

    /// A fresh incarnation: not ready, health unknown.
    #[must_use]
    pub fn new(probes: &Probes, on_liveness: OnLiveness) -> Self {
        HealthState {
            startup: probes.startup.as_ref().map(ProbeState::new),
            readiness: probes.readiness.as_ref().map(ProbeState::new),
            liveness: probes.liveness.as_ref().map(ProbeState::new),
            on_liveness,
            ready: false,
            was_ready: false,
            on_hold: false,
            health: Health::default(),
        }
    }

    /// An incarnation that was ready before anybody counted here: it has come up and served, and is asked from now on
    /// whether it still does.
    #[must_use]
    pub fn served(mut self) -> Self {
        for probe in [&mut self.startup, &mut self.readiness]
            .into_iter()
            .flatten()
        {
            probe.reached = Some(Reached::Passed);
        }
        self.ready = true;
        self.was_ready = true;
        self
    }

    /// Should this probe run now? No while on hold, while startup has not passed, and once startup has.
    #[must_use]
    pub fn due(&self, kind: ProbeKind) -> bool {
        let started = self.startup.as_ref().is_none_or(ProbeState::passed);
        !self.on_hold
            && match kind {
                ProbeKind::Startup => !started,
                ProbeKind::Readiness => started && self.readiness.is_some(),
                ProbeKind::Liveness => started && self.liveness.is_some(),
            }
    }

    /// The health as it stands.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// One probe's counters, if the child has it.
    #[must_use]
    pub fn probe(&self, kind: ProbeKind) -> Option<&ProbeState> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
        }
    }

    /// Counts an outcome. One that was under way when its probe stopped being due says nothing any more.
    pub fn observe(
        &mut self,
        kind: ProbeKind,
        outcome: ProbeOutcome,
        now: Uptime,
    ) -> Vec<HealthChange> {
        if !self.due(kind) {
            return Vec::new();
        }
        if outcome != ProbeOutcome::CouldNotRun {
            self.health.checked = Some(now);
        }
        let probe = match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Readiness => &mut self.readiness,
            ProbeKind::Liveness => &mut self.liveness,
        };
        let Some(reached) = probe.as_mut().and_then(|probe| probe.observe(outcome)) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        changes.extend(self.readiness_after(kind, reached));
        changes.extend(self.verdict_after(kind, now));
        changes.extend(self.end_after(kind, reached));
        changes
    }

    fn readiness_after(&mut self, kind: ProbeKind, reached: Reached) -> Option<HealthChange> {
        let ready = match (kind, reached) {
            (ProbeKind::Startup, Reached::Passed) => self.readiness.is_none(),
            (ProbeKind::Readiness, Reached::Passed) => true,
            (ProbeKind::Readiness, Reached::Failed) => false,
            (ProbeKind::Startup, Reached::Failed) | (ProbeKind::Liveness, _) => self.ready,
        };
        let before = std::mem::replace(&mut self.ready, ready);
        self.was_ready |= ready;
        match (before, ready) {
            (false, true) => Some(HealthChange::BecameReady),
            (true, false) => Some(HealthChange::LostReadiness),
            (true, true) | (false, false) => None,
        }
    }

    fn verdict_after(&mut self, kind: ProbeKind, now: Uptime) -> Option<HealthChange> {
        let (state, probe) = self.judge(kind);
        if state == self.health.state && probe == self.health.probe {
            return None;
        }
        // Which of several good probes spoke last is no news.
        if state == self.health.state && state == HealthVerdict::Healthy {
            return None;
        }
        let reason = match (state, probe) {
            (HealthVerdict::Unhealthy, Some(probe)) => Some(self.complaint(probe)),
            (HealthVerdict::Unhealthy, None)
            | (HealthVerdict::Healthy | HealthVerdict::Unknown, _) => None,
        };
        self.health = Health {
            state,
            reason: reason.clone(),
            probe,
            since: Some(now),
            checked: self.health.checked,
        };
        Some(HealthChange::Verdict {
            state,
            reason,
            probe,
        })
    }

    fn judge(&self, kind: ProbeKind) -> (HealthVerdict, Option<ProbeKind>) {
        let failed = |probe: &Option<ProbeState>| probe.as_ref().is_some_and(ProbeState::failed);
        let good = |probe: &Option<ProbeState>| probe.as_ref().is_none_or(ProbeState::passed);
        if failed(&self.startup) {
            (HealthVerdict::Unhealthy, Some(ProbeKind::Startup))
        } else if failed(&self.liveness) {
            (HealthVerdict::Unhealthy, Some(ProbeKind::Liveness))
        } else if failed(&self.readiness) && self.was_ready {
            // Before it was ever ready it is starting, which is no illness.
            (HealthVerdict::Unhealthy, Some(ProbeKind::Readiness))
        } else if good(&self.startup) && good(&self.liveness) && good(&self.readiness) {
            (HealthVerdict::Healthy, Some(kind))
        } else {
            (HealthVerdict::Unknown, None)
        }
    }

    fn end_after(&mut self, kind: ProbeKind, reached: Reached) -> Option<HealthChange> {
        match (kind, reached, self.on_liveness) {
            (ProbeKind::Startup | ProbeKind::Liveness, Reached::Failed, OnLiveness::Restart) => {
                self.on_hold = true;
                Some(HealthChange::LivenessFailed(kind))
            }
            (ProbeKind::Startup | ProbeKind::Liveness, Reached::Failed, OnLiveness::Report)
            | (ProbeKind::Readiness, Reached::Failed, _)
            | (_, Reached::Passed, _) => None,
        }
    }

    fn complaint(&self, kind: ProbeKind) -> String {
        let times = self.probe(kind).map_or(1, |probe| probe.failures);
        let name = match kind {
            ProbeKind::Startup => "startup",
            ProbeKind::Readiness => "readiness",
            ProbeKind::Liveness => "liveness",
        };
        match times {
            1 => format!("its {name} probe failed"),
            times => format!("its {name} probe failed {times} times in a row"),
        }
    }
}

#[cfg(test)]
mod test;
