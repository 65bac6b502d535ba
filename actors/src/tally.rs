//! What a module's events add up to: counters and times for whoever keeps statistics.
//!
//! Owns: the sums, one entry a loaded module. Promises: each notice is counted once, when it is told; reading waits for
//! nobody. Never: remembers a module that was unloaded, or what an earlier life of the runtime told.

use lair_supervision::{
    ChildId, ExitEvidence, ExitStatus, Notice, NoticeKind, Origin, StopCause, Tri, Uptime,
};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// Upper bounds of the times' buckets, in seconds; the last bucket has none.
pub const BOUNDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
];

/// Times, counted by size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: [u32; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(n) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[n] = self.buckets[n].saturating_add(1);
        }
        self.count += 1;
        self.sum += time;
    }

    /// How many took at most as long as each bound of [`BOUNDS`].
    #[must_use]
    pub fn cumulative(&self) -> [u64; BOUNDS.len()] {
        let mut all = self.buckets.map(u64::from);
        for n in 1..all.len() {
            all[n] += all[n - 1];
        }
        all
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long they took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

/// One module's sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Runs begun.
    pub starts: u64,
    /// Of these, the ones that nobody asked for.
    pub restarts: u64,
    /// Starts that came to nothing.
    pub start_failures: u64,
    /// Runs on which KILL was used.
    pub kills: u64,
    /// Ends by cause: `completed failed signal oom unknown`, and lair's own reasons to stop it.
    pub exits: BTreeMap<&'static str, u64>,
    /// From the start's begin until it ran.
    pub started: Histogram,
    /// From the start's begin until it served for the first time.
    pub ready: Histogram,
    /// From the stop's begin until it had ended.
    pub stopped: Histogram,
    /// The last run that served, and how long its start took until then.
    pub served: Option<(u64, Duration)>,
    starting: Option<Uptime>,
    awaiting: Option<Uptime>,
    stopping: Option<(Uptime, StopCause)>,
    wanted: bool,
}

impl Counts {
    fn take(&mut self, notice: &Notice) {
        let since = |then: Uptime| notice.at.since(then);
        match &notice.kind {
            NoticeKind::Starting => {
                self.starts += 1;
                let asked = matches!(notice.origin, Origin::Requested { .. });
                self.restarts += u64::from(!asked && !std::mem::take(&mut self.wanted));
                (self.starting, self.awaiting) = (Some(notice.at), Some(notice.at));
                self.stopping = None;
            }
            NoticeKind::Running => self
                .starting
                .take()
                .into_iter()
                .for_each(|then| self.started.add(since(then))),
            NoticeKind::Ready => self.awaiting.take().into_iter().for_each(|then| {
                self.ready.add(since(then));
                self.served = Some((notice.inc, since(then)));
            }),
            NoticeKind::Stopping { cause } => {
                self.stopping.get_or_insert((notice.at, *cause));
            }
            NoticeKind::Killing => self.kills += 1,
            NoticeKind::StartFailed { .. } => self.start_failures += 1,
            NoticeKind::Exited { status, evidence } => {
                let stop = self.stopping.take();
                if let Some((then, _)) = stop {
                    self.stopped.add(since(then));
                }
                let cause = cause(stop.map(|(_, cause)| cause), *status, evidence);
                *self.exits.entry(cause).or_default() += 1;
                (self.starting, self.awaiting) = (None, None);
                // A start that follows such a stop was asked for with it, or meanwhile.
                self.wanted = matches!(cause, "requested" | "restart");
            }
            _ => {}
        }
    }
}

fn cause(stop: Option<StopCause>, status: ExitStatus, evidence: &ExitEvidence) -> &'static str {
    if evidence.oom == Tri::Yes {
        return "oom";
    }
    match (stop, status) {
        (Some(StopCause::Requested), _) => "requested",
        (Some(StopCause::Restart), _) => "restart",
        (Some(StopCause::Shutdown), _) => "shutdown",
        (Some(StopCause::Unhealthy(_)), _) => "unhealthy",
        (Some(StopCause::NotReadyInTime), _) => "not_ready_in_time",
        (Some(StopCause::StartTimedOut), _) => "start_timed_out",
        (Some(StopCause::Exposed), _) => "exposed",
        (Some(StopCause::OwnerDied), _) => "internal",
        (Some(StopCause::Group | StopCause::GroupGaveUp), _) => "group",
        (None, ExitStatus::Code(0)) => "completed",
        (None, ExitStatus::Code(_)) => "failed",
        (None, ExitStatus::Signal(_)) => "signal",
        (None, ExitStatus::Unknown) => "unknown",
    }
}

/// The sums of all modules. One writer, the root; any number of readers.
#[derive(Debug, Default)]
pub struct Tally(RwLock<BTreeMap<ChildId, Box<Counts>>>);

impl Tally {
    pub(crate) fn take(&self, notice: &Notice) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match notice.kind {
            NoticeKind::Unloaded => drop(all.remove(&notice.id)),
            // The runtime's own.
            NoticeKind::Reloaded { .. } => {}
            _ => all.entry(notice.id.clone()).or_default().take(notice),
        }
    }

    /// How long this run took until it first served; `None`: it did not, or not in this life of the runtime.
    #[must_use]
    pub fn served(&self, id: &ChildId, inc: u64) -> Option<Duration> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (of, took) = all.get(id)?.served?;
        (of == inc).then_some(took)
    }

    /// All of it, as of now.
    #[must_use]
    pub fn read(&self) -> BTreeMap<ChildId, Counts> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter();
        each.map(|(id, counts)| (id.clone(), Counts::clone(counts)))
            .collect()
    }
}
