//! What is different between two plans for the same module, and what of it a running one can take.
//!
//! Owns: the list of a plan's parts, and which of them are only looked at when a run begins. Promises: the same request
//! gives no difference, however its file is written; nothing that a running process was started with is ever claimed
//! to have changed under it. Never: applies anything.

use crate::launch::{LaunchPlan, Limits, LogPolicy};

/// The parts that differ, by the manifest's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Parts that a running module can take.
    pub live: Vec<&'static str>,
    /// Parts that count from its next start.
    pub next_start: Vec<&'static str>,
}

impl Difference {
    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.next_start.is_empty()
    }
}

impl LaunchPlan {
    /// What `next` asks for otherwise. Where it came from, how it was chosen and how it is written are no differences.
    #[must_use]
    pub fn difference(&self, next: &LaunchPlan) -> Difference {
        let (a, b) = (&self.spec, &next.spec);
        let restart = (&a.restart, &a.intensity, &a.backoff, &a.settle, &a.success)
            != (&b.restart, &b.intensity, &b.backoff, &b.settle, &b.success);
        let stop =
            (a.stop_signal, a.grace, a.kill_confirm) != (b.stop_signal, b.grace, b.kill_confirm);
        let health = !self.asks_the_same(next);
        let begun: Vec<&'static str> = [
            ("mode", self.mode != next.mode),
            ("launch", self.launch != next.launch),
            ("ports", self.ports != next.ports),
            ("resources", granted(&self.limits) != granted(&next.limits)),
            ("logs.format", self.logs.format != next.logs.format),
        ]
        .into_iter()
        .filter_map(|(part, differs)| differs.then_some(part))
        .collect();
        // A probe may ask at a port or for a word that only the next run has.
        let health_waits = health && !begun.is_empty();
        let park = self.park != next.park;
        let park_waits = park && !begun.is_empty();
        let live = [
            ("version", self.version != next.version),
            ("restart", restart),
            ("stop", stop),
            ("health", health && !health_waits),
            ("park", park && !park_waits),
            ("logs", bounds(&self.logs) != bounds(&next.logs)),
            ("groups", self.group != next.group),
        ];
        let live = live
            .into_iter()
            .filter_map(|(part, differs)| differs.then_some(part));
        let mut next_start = begun;
        next_start.extend(health_waits.then_some("health"));
        next_start.extend(park_waits.then_some("park"));
        Difference {
            live: live.collect(),
            next_start,
        }
    }

    /// Whether the other plan asks for the same in every respect.
    #[must_use]
    pub fn same_as(&self, other: &LaunchPlan) -> bool {
        self.difference(other).is_empty()
    }

    /// What holds for a run of this plan from now on, if `next` is asked for: all of it that needs no new run.
    #[must_use]
    pub fn revised(&self, next: &LaunchPlan) -> LaunchPlan {
        let change = self.difference(next);
        if change.next_start.is_empty() {
            return next.clone();
        }
        let mut plan = next.clone();
        plan.mode = self.mode;
        plan.launch = self.launch.clone();
        plan.ports = self.ports.clone();
        plan.limits = self.limits.clone();
        plan.logs.format = self.logs.format;
        plan.version.clone_from(&self.version);
        plan.explanation.clone_from(&self.explanation);
        plan.fallback.clone_from(&self.fallback);
        if change.next_start.contains(&"park") {
            plan.park.clone_from(&self.park);
        }
        if change.next_start.contains(&"health") {
            plan.probes = self.probes.clone();
            plan.spec.probes = self.spec.probes.clone();
            plan.spec.awaits_ready = self.spec.awaits_ready;
            plan.spec.ready_deadline = self.spec.ready_deadline;
            plan.spec.on_liveness = self.spec.on_liveness;
        }
        plan
    }

    /// Whether the same is asked of it for health, in the same way.
    #[must_use]
    pub fn asks_the_same(&self, other: &LaunchPlan) -> bool {
        let (a, b) = (&self.spec, &other.spec);
        self.probes == other.probes
            && a.probes == b.probes
            && a.on_liveness == b.on_liveness
            && (a.awaits_ready, a.ready_deadline, a.start_deadline)
                == (b.awaits_ready, b.ready_deadline, b.start_deadline)
    }
}

/// Which GPUs were free when it was planned is no part of the request.
fn granted(limits: &Limits) -> Limits {
    let mut limits = limits.clone();
    if let Some(gpu) = &mut limits.gpu {
        gpu.uuids = vec![String::new(); gpu.uuids.len()];
    }
    limits
}

fn bounds(logs: &LogPolicy) -> LogPolicy {
    LogPolicy {
        format: crate::launch::LogFormat::default(),
        ..logs.clone()
    }
}
