//! What modules usually take, learned from their runs; and what each run took over time.
//!
//! Owns: the files `<state>/footprints/<module>.json`, and a ring of samples for each run. Promises: nobody who decides waits
//! for it: files are written by the thread that writes dossiers; a module of which nothing is known costs nothing; what was
//! not seen is unknown. Never: limits, stops or starts anything.

mod learn;
mod series;
mod store;
mod watch;

pub use learn::{
    FORM, Figures, Footprint, Key, Learned, RUNS, Spread, VERSIONS, Version, change_words, changes,
    hint, runs_word,
};
pub use series::{POINTS, Ring, Sample, Series, room};
pub use store::Store;
pub use watch::{WatchArgs, watch};

use crate::view::View;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::ChildId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Runs of one module that are remembered at once: the current one, and one whose end is still being written down.
const LIVES: usize = 2;

/// What one run took, beside what is usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFootprint {
    /// The run, so far or as it ended.
    #[serde(flatten)]
    pub taken: Figures,
    /// Its version's runs that ended.
    pub usual: Option<Footprint>,
    /// The difference to the version before, in words.
    pub change: Option<String>,
}

/// A run that takes more, or less, than the version before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whose.
    pub id: ChildId,
    /// Which run.
    pub inc: u64,
    /// In words.
    pub what: String,
}

/// What is remembered of a module's versions, the one that ran last at the end.
#[derive(Default)]
struct Known {
    versions: Vec<(Key, Arc<Footprint>)>,
    /// The answer to the last question, and to which plan.
    asked: Option<(Weak<LaunchPlan>, Option<Arc<Footprint>>)>,
}

impl Known {
    fn of(learned: &Learned) -> Self {
        let versions = learned.versions.iter();
        Known {
            versions: versions
                .map(|v| (v.key.clone(), Arc::new(v.footprint())))
                .collect(),
            asked: None,
        }
    }

    fn of_spec(&self, spec: &str) -> Option<Arc<Footprint>> {
        let mut newest = self.versions.iter().rev();
        let (_, footprint) = newest.find(|(key, _)| key.spec == spec)?;
        Some(footprint.clone())
    }

    fn of_key(&self, key: &Key) -> Option<Arc<Footprint>> {
        let found = self.versions.iter().find(|(of, _)| of == key);
        found.map(|(_, footprint)| footprint.clone())
    }

    /// The version that ran last before this one.
    fn before(&self, key: &Key) -> Option<Arc<Footprint>> {
        let mut newest = self.versions.iter().rev();
        let (_, footprint) = newest.find(|(of, _)| of != key)?;
        Some(footprint.clone())
    }
}

/// What was seen of one run.
struct Live {
    key: Key,
    /// The first sample's time, on the clock and since the run came up.
    begun: Option<(Duration, u64)>,
    taken: Figures,
    served: bool,
    ring: Ring,
    told: Option<Box<str>>,
    /// Its module was not there at the last look.
    orphan: bool,
}

/// All that is known. Shared by those who sample, those who write dossiers, and those who ask.
pub struct Footprints {
    store: Store,
    /// Modules that have a file which nobody has asked for yet.
    unread: Mutex<BTreeSet<String>>,
    known: Mutex<BTreeMap<ChildId, Known>>,
    live: Mutex<BTreeMap<(ChildId, u64), Box<Live>>>,
    news: Mutex<Vec<Changed>>,
    told: Notify,
}

impl Footprints {
    /// Of what is kept in this state folder.
    #[must_use]
    pub fn new(state: &Path) -> Arc<Self> {
        let store = Store::new(state);
        Arc::new(Footprints {
            unread: Mutex::new(store.names()),
            store,
            known: Mutex::default(),
            live: Mutex::default(),
            news: Mutex::default(),
            told: Notify::new(),
        })
    }

    /// What this plan's module usually takes, run as this plan says. Reads a file at the first question.
    #[must_use]
    pub fn usual(&self, plan: &Arc<LaunchPlan>) -> Option<Arc<Footprint>> {
        self.with_known(&plan.spec.id, |known| {
            if let Some((of, answer)) = &known.asked
                && std::ptr::eq(of.as_ptr(), Arc::as_ptr(plan))
            {
                return answer.clone();
            }
            let answer = known.of_spec(&plan.spec_digest());
            known.asked = Some((Arc::downgrade(plan), answer.clone()));
            answer
        })?
    }

    /// The same for a plan that is not loaded.
    #[must_use]
    pub fn planned(&self, plan: &LaunchPlan) -> Option<Arc<Footprint>> {
        self.with_known(&plan.spec.id, |known| known.of_spec(&plan.spec_digest()))?
    }

    /// `None`: nothing was ever learned of it.
    fn with_known<T>(&self, id: &ChildId, ask: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let unread = lock(&self.unread).remove(id.as_str());
        if unread {
            let learned = self.store.read(id.as_str());
            lock(&self.known).insert(id.clone(), Known::of(&learned));
        }
        lock(&self.known).get_mut(id).map(ask)
    }

    /// What a run has taken, and how that went. `ready`: from its start's begin until it served. `over`: it has ended.
    #[must_use]
    pub fn of_run(
        &self,
        view: &View,
        run: u64,
        ready: Option<Duration>,
        over: bool,
    ) -> (Option<RunFootprint>, Option<Series>) {
        let id = &view.plan.spec.id;
        let (mut taken, mut key, mut series) = (Figures::default(), None, None);
        if let Some(live) = lock(&self.live).get(&(id.clone(), run)) {
            (taken, key) = (live.taken.clone(), Some(live.key.clone()));
            series = (!live.ring.is_empty()).then(|| live.ring.series());
        }
        taken.run = run;
        taken.ready_ms = ready.map(ms).or(taken.ready_ms);
        let key = key.unwrap_or_else(|| key_of(view));
        let (usual, before) = self
            .with_known(id, |known| (known.of_key(&key), known.before(&key)))
            .unwrap_or_default();
        let change = before.and_then(|before| change_words(&before, &taken, over));
        let usual = usual.map(|usual| Footprint::clone(&usual));
        let nothing = Figures {
            run,
            ..Figures::default()
        };
        let any = taken != nothing || usual.is_some();
        let footprint = any.then_some(RunFootprint {
            taken,
            usual,
            change,
        });
        (footprint, series)
    }

    /// Takes a sample of a run at `now`, which came up at `up_ms` before; with room for so many points.
    fn take(&self, view: &View, now: Duration, up_ms: u64, seen: Seen, most: usize) {
        let (id, inc) = (&view.plan.spec.id, view.child.inc);
        let mut all = lock(&self.live);
        if !all.contains_key(&(id.clone(), inc)) {
            let of = |run| (id.clone(), run);
            let mut others = all.range(of(0)..=of(u64::MAX)).map(|(key, _)| key);
            // Those that are not written down yet, because too many ended at once.
            let oldest = others.next().cloned();
            if others.count() + 1 >= LIVES
                && let Some(oldest) = oldest
            {
                all.remove(&oldest);
            }
        }
        let live = live_of(&mut all, view, inc);
        let begun = *live.begun.get_or_insert((now, up_ms));
        let at_ms = begun.1 + ms(now.saturating_sub(begun.0));
        live.served |= seen.served;
        live.taken.ready_ms = seen.ready_ms.or(live.taken.ready_ms);
        live.taken.memory = live.taken.memory.max(seen.peak);
        live.taken.gpu_memory = live.taken.gpu_memory.max(seen.sample.gpu_memory);
        let cpu = seen.sample.cpu_ms;
        let cpu = cpu.map(|cpu| cpu.saturating_mul(1000) / at_ms.max(1));
        live.taken.cpu_milli = cpu.or(live.taken.cpu_milli);
        let sample = Sample {
            at_ms,
            ..seen.sample
        };
        live.ring.take(sample, most);
    }

    /// Notes that a run that has ended had served, so long after its start's begin.
    pub(crate) fn note(&self, view: &View, run: u64, ready: Option<Duration>) {
        let Some(ready) = ready else { return };
        let mut all = lock(&self.live);
        let live = live_of(&mut all, view, run);
        live.served = true;
        live.taken.ready_ms = Some(ms(ready));
    }

    /// Tells, once, of a run that serves and takes more than its version before did.
    fn compare(&self, id: &ChildId, inc: u64) {
        let seen = {
            let all = lock(&self.live);
            let live = all.get(&(id.clone(), inc));
            let live = live.filter(|live| live.served && live.told.is_none());
            live.map(|live| (live.key.clone(), live.taken.clone()))
        };
        let Some((key, taken)) = seen else {
            return;
        };
        let Some(what) = self.news_of(id, &key, &taken, false) else {
            return;
        };
        if let Some(live) = lock(&self.live).get_mut(&(id.clone(), inc)) {
            live.told = Some(what.as_str().into());
        }
        self.tell(id, inc, what);
    }

    /// Only the first run of a version is compared: what holds for it is told once.
    fn news_of(&self, id: &ChildId, key: &Key, taken: &Figures, over: bool) -> Option<String> {
        let before = self.with_known(id, |known| match known.of_key(key) {
            Some(_) => None,
            None => known.before(key),
        });
        change_words(&*before??, taken, over)
    }

    fn tell(&self, id: &ChildId, inc: u64, what: String) {
        let id = id.clone();
        lock(&self.news).push(Changed { id, inc, what });
        self.told.notify_one();
    }

    /// Learns from a run that has ended, and forgets its samples. Reads and writes a file.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn learn(&self, view: &View, run: u64) -> std::io::Result<()> {
        let id = &view.plan.spec.id;
        let live = lock(&self.live).remove(&(id.clone(), run));
        let Some(live) = live.filter(|live| live.served) else {
            return Ok(());
        };
        let Live {
            key, taken, told, ..
        } = *live;
        let news = self.news_of(id, &key, &taken, true);
        let mut learned = self.store.read(id.as_str());
        learned.take(&key, &view.plan.version, taken);
        let written = self.store.write(&learned);
        lock(&self.unread).remove(id.as_str());
        lock(&self.known).insert(id.clone(), Known::of(&learned));
        if let Some(what) = news.filter(|what| told.as_deref() != Some(what)) {
            self.tell(id, run, what);
        }
        written
    }

    /// Forgets the samples of modules that were unloaded a while ago, and lets the oldest files go where there are too many.
    fn prune(&self, there: &BTreeSet<ChildId>) {
        let known = lock(&self.known);
        let gone: Vec<ChildId> = known
            .keys()
            .filter(|id| !there.contains(*id))
            .cloned()
            .collect();
        drop(known);
        gone.iter().for_each(|id| self.forget(id));
        if lock(&self.unread).len() > store::MOST {
            let kept = self.store.names();
            lock(&self.unread).retain(|name| kept.contains(name));
        }
        lock(&self.live).retain(|(id, _), live| {
            let gone = !there.contains(id);
            !(std::mem::replace(&mut live.orphan, gone) && gone)
        });
    }

    /// Forgets a module that was unloaded; its file stays.
    pub fn forget(&self, id: &ChildId) {
        if lock(&self.known).remove(id).is_some() {
            lock(&self.unread).insert(id.to_string());
        }
    }

    fn news(&self) -> Vec<Changed> {
        std::mem::take(&mut *lock(&self.news))
    }
}

/// What was seen of a run at one moment.
struct Seen {
    sample: Sample,
    peak: Option<u64>,
    ready_ms: Option<u64>,
    served: bool,
}

fn live_of<'l>(
    all: &'l mut BTreeMap<(ChildId, u64), Box<Live>>,
    view: &View,
    run: u64,
) -> &'l mut Live {
    all.entry((view.plan.spec.id.clone(), run))
        .or_insert_with(|| {
            Box::new(Live {
                key: key_of(view),
                begun: None,
                taken: Figures {
                    run,
                    ..Figures::default()
                },
                served: false,
                ring: Ring::default(),
                told: None,
                orphan: false,
            })
        })
}

fn key_of(view: &View) -> Key {
    let told = view.handle.iter().flat_map(|handle| handle.particulars());
    let image = told.into_iter().find(|(what, _)| *what == "image_id");
    Key {
        spec: view.plan.spec_digest(),
        image: image.map(|(_, id)| id.chars().take(80).collect()),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn modules_that_come_and_go_leave_no_more_than_is_remembered() {
        let state = format!("lair-footprints-many-{}", std::process::id());
        let state = std::env::temp_dir().join(state);
        let _ = std::fs::remove_dir_all(&state);
        let footprints = Footprints::new(&state);
        for n in 0..store::MOST + 2 {
            let mut learned = Learned {
                format: FORM.to_owned(),
                name: format!("m{n}"),
                versions: Vec::new(),
            };
            learned.take(&Key::default(), "1.0.0", Figures::default());
            footprints.store.write(&learned).expect("written");
            let id = ChildId::new(&learned.name);
            lock(&footprints.known).insert(id, Known::of(&learned));
        }
        let there = BTreeSet::from([ChildId::new("m1")]);
        footprints.prune(&there);
        let known: Vec<ChildId> = lock(&footprints.known).keys().cloned().collect();
        assert_eq!(known, [ChildId::new("m1")]);
        assert!(lock(&footprints.unread).len() <= store::MOST);
        assert_eq!(footprints.store.names().len(), store::MOST);
        std::fs::remove_dir_all(&state).expect("removed");
    }
}
