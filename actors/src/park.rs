//! Parking and waking a module: the request is sent, and what came of it is measured.
//!
//! Owns: the two procedures, as plain tasks beside the actors. Promises: bounded time; what can't be measured is unknown.
//! Never: changes lifecycle state; the root is told what came of it by who asked.

use crate::clock::Clock;
use crate::facts::{GpuDesk, GpuFacts, Sampler};
use crate::health::pause;
use crate::probe::{errand, look};
use crate::view::View;
use lair_manifests::launch::{Errand, LaunchPlan, ProbeAction};
use lair_supervision::{ProbeOutcome, ProbeSpec, Uptime};
use std::sync::Arc;
use std::time::Duration;

/// Between two measurements, and two looks.
const PACE: Duration = Duration::from_millis(250);
/// Memory that has fallen and falls no more for this long has settled.
const STEADY: Duration = Duration::from_secs(1);
/// Some answer first and let go later: so long is waited for the first fall.
const FIRST: Duration = Duration::from_secs(3);
/// It is not measured for longer than this.
const MOST: Duration = Duration::from_secs(15);
/// Less than this is no fall: a page more or less is always.
const NOISE: u64 = 1 << 20;

/// What a module holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Bytes of memory; `None`: unknown.
    pub memory: Option<u64>,
    /// Bytes on all GPUs; `None`: unknown, or it has none.
    pub gpu_memory: Option<u64>,
}

impl Holds {
    /// Bytes of memory, and of GPU memory, that are held less than before; below zero: more.
    #[must_use]
    pub fn less_than(self, before: Holds) -> (Option<i64>, Option<i64>) {
        let less = |before: Option<u64>, after: Option<u64>| {
            i64::try_from(before?)
                .ok()?
                .checked_sub(i64::try_from(after?).ok()?)
        };
        (
            less(before.memory, self.memory),
            less(before.gpu_memory, self.gpu_memory),
        )
    }

    /// Has one of both fallen below what was least so far?
    fn falls_below(self, least: Holds) -> bool {
        let falls = |now: Option<u64>, least: Option<u64>| match (now, least) {
            (Some(now), Some(least)) => now.saturating_add(NOISE) <= least,
            _ => false,
        };
        falls(self.memory, least.memory) || falls(self.gpu_memory, least.gpu_memory)
    }

    fn least(self, other: Holds) -> Holds {
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (known, None) | (None, known) => known,
        };
        Holds {
            memory: least(self.memory, other.memory),
            gpu_memory: least(self.gpu_memory, other.gpu_memory),
        }
    }
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// What was held before.
    pub before: Holds,
    /// What is held now.
    pub after: Holds,
    /// From the request until nothing more came of it.
    pub took: Duration,
    /// Of a wake: does it serve, as it says when asked? `None`: it can't be asked.
    pub ready: Option<bool>,
}

/// Who measures.
#[derive(Clone)]
pub struct Scales {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What trees use.
    pub sampler: Arc<Sampler>,
    /// What is on the GPUs.
    pub gpus: Arc<GpuDesk>,
}

impl Scales {
    /// Sends the request that parks the module, and measures until it lets go of no more.
    ///
    /// # Errors
    /// One sentence: what the request came to.
    pub async fn park(&self, view: Arc<View>, request: &Errand) -> Result<Came, String> {
        let before = self.weigh(view.clone()).await;
        let begun = self.clock.now();
        errand(request).await?;
        let answered = self.clock.now();
        let (mut after, mut least, mut last) = (before, before, None::<Uptime>);
        loop {
            let now = self.clock.now();
            let quiet = match last {
                Some(fell) => now.since(fell) >= STEADY,
                None => now.since(answered) >= FIRST,
            };
            if quiet || now.since(answered) >= MOST {
                break;
            }
            after = self.weigh(view.clone()).await;
            if after.falls_below(least) {
                last = Some(self.clock.now());
            }
            least = least.least(after);
            pause(&*self.clock, PACE).await;
        }
        Ok(Came {
            before,
            after,
            took: last.unwrap_or(answered).since(begun),
            ready: None,
        })
    }

    /// Sends the request that wakes the module, and asks it until it serves.
    ///
    /// # Errors
    /// One sentence: what the request came to.
    pub async fn wake(&self, view: Arc<View>, request: &Errand) -> Result<Came, String> {
        let before = self.weigh(view.clone()).await;
        let begun = self.clock.now();
        errand(request).await?;
        let ready = self.serves(&view, begun + request.within).await;
        let took = self.clock.now().since(begun);
        Ok(Came {
            before,
            after: self.weigh(view).await,
            took,
            ready,
        })
    }

    /// Asks the module whether it serves until it says yes, or the time is over. `None`: it has no such question.
    async fn serves(&self, view: &View, until: Uptime) -> Option<bool> {
        let (action, probe) = question(&view.plan)?;
        let handle = view.handle.clone()?;
        loop {
            let found = look(action, handle.clone(), probe.timeout).await;
            if found.outcome == ProbeOutcome::Success {
                return Some(true);
            }
            if self.clock.now() >= until {
                return Some(false);
            }
            pause(&*self.clock, PACE).await;
        }
    }

    async fn weigh(&self, view: Arc<View>) -> Holds {
        let scales = self.clone();
        let work = move || scales.measure(&view);
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }

    /// As status shows it, and now. Blocks.
    fn measure(&self, view: &View) -> Holds {
        let Some(handle) = &view.handle else {
            return Holds::default();
        };
        let id = &view.plan.spec.id;
        let sampled = self
            .sampler
            .fresh(id, view.child.inc, &handle.tree(), Duration::ZERO);
        let pids = &sampled.usage.pids;
        let resident = (!pids.is_empty()).then_some(sampled.usage.rss);
        let held = handle.limits().memory.and_then(|held| held.current);
        Holds {
            memory: held.or(resident),
            gpu_memory: self.on_gpus(&view.plan, pids),
        }
    }

    /// Who asked for no GPU is not worth a driver's time.
    fn on_gpus(&self, plan: &LaunchPlan, pids: &[i32]) -> Option<u64> {
        plan.limits.gpu.as_ref()?;
        let facts = self.gpus.read();
        let GpuFacts::Present(cards) = &*facts else {
            return None;
        };
        let clients = cards.iter().flat_map(|card| &card.clients);
        let mine = clients.filter(|client| pids.contains(&client.pid));
        mine.map(|client| client.memory).sum()
    }
}

/// By what a module says that it serves, where it can be asked: its readiness probe, else its startup probe.
fn question(plan: &LaunchPlan) -> Option<(&ProbeAction, &ProbeSpec)> {
    let (actions, specs) = (&plan.probes, &plan.spec.probes);
    let readiness = actions.readiness.as_ref().zip(specs.readiness.as_ref());
    let startup = actions.startup.as_ref().map(|startup| &startup.action);
    let (action, spec) = readiness.or(startup.zip(specs.startup.as_ref()))?;
    let told = matches!(action, ProbeAction::Log { .. } | ProbeAction::Notify);
    (!told).then_some((action, spec))
}

#[cfg(test)]
mod test {
    use super::{Holds, NOISE};

    fn holds(memory: Option<u64>, gpu_memory: Option<u64>) -> Holds {
        Holds { memory, gpu_memory }
    }

    #[test]
    fn what_is_unknown_on_one_side_is_unknown_and_more_is_below_zero() {
        let before = holds(Some(100), Some(50));
        assert_eq!(holds(Some(30), None).less_than(before), (Some(70), None));
        assert_eq!(
            holds(Some(130), Some(0)).less_than(before),
            (Some(-30), Some(50))
        );
    }

    #[test]
    fn a_page_less_is_no_fall_and_either_kind_of_memory_counts() {
        let before = holds(Some(10 * NOISE), Some(10 * NOISE));
        assert!(!holds(Some(10 * NOISE - 4096), Some(10 * NOISE)).falls_below(before));
        // Weights that move from a GPU to the machine's memory.
        assert!(holds(Some(19 * NOISE), Some(NOISE)).falls_below(before));
        assert!(!holds(None, None).falls_below(before));
    }
}
