//! Looks at what running modules use, a few times after each start and then seldom.
//!
//! Owns: when it is looked. Promises: all looks together take 0.005 % of a CPU, and 0.1 % while something is young:
//! what takes longer is done less often; a value that somebody else has just read is taken; nothing runs, nothing is looked
//! at. Never: decides, or asks a module.

use super::{Footprints, Sample, Seen, ms, room};
use crate::backend::Tree;
use crate::clock::Clock;
use crate::events::EventLog;
use crate::facts::{Gpu, GpuDesk, GpuFacts, Sampler};
use crate::health::pause;
use crate::messages::RootMsg;
use crate::view::{Board, View};
use lair_supervision::{Phase, Readiness, Uptime};
use ractor::ActorRef;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at all runs, at least.
pub const EVERY: Duration = Duration::from_secs(10);
/// And at most.
const SELDOM: Duration = Duration::from_secs(600);
/// Time between two looks at young runs, at least.
const OFTEN: Duration = Duration::from_secs(2);
/// A run is young for so long.
const YOUNG: Duration = Duration::from_secs(30);
/// A look may take one part of the time until the next in so many.
const SHARE: u32 = 20_000;
const SHARE_YOUNG: u32 = 1000;
/// What happens shortly after one another is looked at once.
const SETTLE: Duration = Duration::from_secs(1);
/// A usage younger than this is taken as it is.
const FRESH: Duration = Duration::from_secs(1);

/// What the watch needs.
pub struct WatchArgs {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What says that something started.
    pub events: Arc<EventLog>,
    /// What runs.
    pub board: Arc<Board>,
    /// What trees use.
    pub sampler: Arc<Sampler>,
    /// What is on the GPUs.
    pub gpus: Arc<GpuDesk>,
    /// Where it is kept.
    pub footprints: Arc<Footprints>,
    /// Who is told of changes.
    pub root: ActorRef<RootMsg>,
}

/// Watches until the root is gone.
pub async fn watch(args: WatchArgs) {
    let root = args.root.clone();
    tokio::select! {
        () = keep_looking(Arc::new(args)) => {}
        _ = root.wait(None) => {}
    }
}

async fn keep_looking(args: Arc<WatchArgs>) {
    let mut newest = args.events.subscribe();
    let zero_ms = args.clock.wall_ms().saturating_sub(ms(args.clock.now().0));
    let mut pace = Pace::default();
    loop {
        let (up, young) = census(&args);
        let now = args.clock.now();
        let wait = pace.due(young).0.saturating_sub(now.0);
        tokio::select! {
            news = newest.changed() => {
                if news.is_err() {
                    return;
                }
                pause(&*args.clock, SETTLE).await;
                newest.mark_unchanged();
            }
            () = args.footprints.told.notified() => {}
            () = pause(&*args.clock, wait), if up > 0 => {}
        }
        for news in args.footprints.news() {
            let (id, inc, what) = (news.id, news.inc, news.what);
            let told = RootMsg::FootprintChanged { id, inc, what };
            if args.root.cast(told).is_err() {
                return;
            }
        }
        let Some(which) = pace.now(args.clock.now()) else {
            continue;
        };
        let its = args.clone();
        let look = tokio::task::spawn_blocking(move || look(&its, which, zero_ms));
        // A panic in there is a fault of one look.
        let _ = look.await;
        let (began, ended) = (pace.began, args.clock.now());
        pace.took(which, ended.since(began), ended);
    }
}

/// How many run, and whether one of them is young.
fn census(args: &WatchArgs) -> (usize, bool) {
    let now = args.clock.now();
    let views = args.board.all();
    let ages = views.iter().filter_map(|view| age(view, now));
    ages.fold((0, false), |(n, young), age| (n + 1, young || age < YOUNG))
}

fn age(view: &View, now: Uptime) -> Option<Duration> {
    match view.child.phase {
        Phase::Up { since, .. } => Some(now.since(since)),
        _ => None,
    }
}

/// At whom it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Young,
}

/// When it is looked.
#[derive(Debug, Default)]
struct Pace {
    all_at: Uptime,
    young_at: Uptime,
    began: Uptime,
}

impl Pace {
    fn due(&self, young: bool) -> Uptime {
        if young {
            self.all_at.min(self.young_at)
        } else {
            self.all_at
        }
    }

    fn now(&mut self, now: Uptime) -> Option<Which> {
        self.began = now;
        if now >= self.all_at {
            Some(Which::All)
        } else {
            (now >= self.young_at).then_some(Which::Young)
        }
    }

    /// A look has taken so long.
    fn took(&mut self, which: Which, time: Duration, now: Uptime) {
        if which == Which::All {
            self.all_at = now + (time * SHARE).clamp(EVERY, SELDOM);
        }
        self.young_at = now + (time * SHARE_YOUNG).clamp(OFTEN, SELDOM);
    }
}

/// `zero_ms`: the wall clock when this life's time began.
fn look(args: &WatchArgs, which: Which, zero_ms: u64) {
    let now = args.clock.now();
    let views = args.board.all();
    if which == Which::All {
        let there: BTreeSet<_> = views.iter().map(|v| v.plan.spec.id.clone()).collect();
        args.footprints.prune(&there);
    }
    let up = views
        .iter()
        .filter_map(|view| Some((view, age(view, now)?)));
    let up: Vec<_> = up.collect();
    let most = room(up.len());
    // The driver may think about it for a while; it is asked only for those who have a GPU, and once.
    let mut gpus = None;
    for (view, age) in up {
        if which == Which::All || age < YOUNG {
            let of_earlier_life = view.started_ms.filter(|at| *at < zero_ms);
            let before = of_earlier_life.map(|at| zero_ms - at);
            let wall = args.clock.wall_ms();
            let by_wall = view.started_ms.map_or(0, |at| wall.saturating_sub(at));
            let up_ms = lived(ms(age), ms(now.0), before, by_wall);
            look_at(args, view, (now, up_ms), most, &mut gpus);
        }
    }
}

/// How long a run had been up `at` that time, if it has been up for `up_ms` `now`.
fn up_then(up_ms: u64, now: Uptime, at: Uptime) -> u64 {
    (up_ms + ms(at.since(now))).saturating_sub(ms(now.since(at)))
}

/// How long a run has been up, whatever became of the wall clock meanwhile. `age`: seen by this life, which is `now` old
/// itself; `before`: of a run that began so long before that.
fn lived(age: u64, now: u64, before: Option<u64>, by_wall: u64) -> u64 {
    match before {
        None => age,
        // Began in this life all the same, if the clock was set back.
        Some(before) => before.saturating_add(now).min(by_wall).max(age),
    }
}

fn look_at(
    args: &WatchArgs,
    view: &View,
    (now, up_ms): (Uptime, u64),
    most: usize,
    gpus: &mut Option<Arc<GpuFacts>>,
) {
    let Some(handle) = &view.handle else {
        return;
    };
    let (id, inc, tree) = (&view.plan.spec.id, view.child.inc, handle.tree());
    if tree == Tree::None {
        return;
    }
    let sampled = args.sampler.glance(id, inc, &tree, FRESH);
    let usage = &sampled.usage;
    if usage.pids.is_empty() {
        return;
    }
    let held = handle.limits().memory;
    let current = held.as_ref().and_then(|held| held.current);
    let exact = held.as_ref().and_then(|held| held.peak);
    let given = view.plan.limits.gpu.as_ref().map(|gpu| &gpu.uuids);
    let given = given.filter(|uuids| !uuids.is_empty());
    let gpu_memory = given.and_then(|uuids| {
        let facts = gpus.get_or_insert_with(|| args.gpus.read());
        match &**facts {
            GpuFacts::Present(all) => on_gpus(all, uuids, &usage.pids),
            GpuFacts::Unavailable(_) => None,
        }
    });
    let served = matches!(
        view.child.phase,
        Phase::Up {
            readiness: Readiness::Ready { .. },
            ..
        }
    );
    let ready = args.events.tally().served(id, inc);
    let seen = Seen {
        sample: Sample {
            at_ms: 0,
            memory: current.or(Some(usage.rss)),
            cpu_ms: Some(usage.cpu_ms),
            gpu_memory,
            log_bytes: view.log.as_ref().map(|log| log.bytes()),
            health: view.health.state,
        },
        peak: exact.or_else(|| args.sampler.peak(id, inc).max(Some(usage.rss))),
        ready_ms: ready.map(ms),
        served: served || ready.is_some(),
    };
    let up_ms = up_then(up_ms, now, sampled.at);
    args.footprints.take(view, sampled.at.0, up_ms, seen, most);
    args.footprints.compare(id, inc);
}

/// Bytes that these processes have on these GPUs; `None`: unknown, or none of them is there.
fn on_gpus(gpus: &[Gpu], given: &[String], pids: &[i32]) -> Option<u64> {
    let given = |gpu: &&Gpu| gpu.uuid.as_ref().is_some_and(|uuid| given.contains(uuid));
    let clients = gpus.iter().filter(given).flat_map(|gpu| &gpu.clients);
    let mut mine = clients
        .filter(|client| pids.contains(&client.pid))
        .peekable();
    mine.peek()?;
    mine.map(|client| client.memory).sum()
}

#[cfg(test)]
mod test {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Uptime {
        Uptime(SEC * seconds)
    }

    #[test]
    fn a_wall_clock_that_jumps_makes_no_run_older() {
        // A run of this life: by a clock that was right, set forward by years, set back.
        assert_eq!(lived(2000, 9000, None, 2000), 2000);
        assert_eq!(lived(2000, 9000, None, 1_700_000_000_000), 2000);
        assert_eq!(lived(2000, 9000, Some(3_600_000), 1990), 2000);
        // One of an earlier life, and the same.
        assert_eq!(lived(900, 1000, Some(60_000), 61_000), 61_000);
        assert_eq!(lived(900, 1000, Some(60_000), 1_700_000_000_000), 61_000);
        assert_eq!(lived(900, 1000, Some(60_000), 0), 900);
    }

    #[test]
    fn a_value_that_somebody_read_before_is_as_old_as_it_is() {
        let look = at(10);
        assert_eq!(up_then(5000, look, look), 5000);
        assert_eq!(up_then(5000, look, Uptime(SEC * 9)), 4000);
        assert_eq!(up_then(5000, look, Uptime(SEC * 11)), 6000);
        assert_eq!(up_then(500, look, Uptime(SEC * 9)), 0);
    }

    #[test]
    fn looks_take_their_share_and_no_more() {
        let mut pace = Pace::default();
        assert_eq!(pace.now(at(0)), Some(Which::All));
        pace.took(Which::All, Duration::from_micros(500), at(0));
        assert_eq!((pace.due(false), pace.due(true)), (at(10), at(2)));
        assert_eq!(pace.now(at(1)), None);
        assert_eq!(pace.now(at(2)), Some(Which::Young));
        // Twenty modules: 3 ms a look.
        pace.took(Which::All, Duration::from_millis(3), at(10));
        assert_eq!((pace.due(false), pace.due(true)), (at(70), at(13)));
        // A driver that hangs.
        pace.took(Which::All, SEC * 5, at(60));
        assert_eq!(pace.due(false), at(660));
    }
}
