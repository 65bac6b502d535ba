//! The last known usage of each module, read again only when somebody asks and it is too old.

use super::table::ProcessTable;
use super::usage::{Usage, usage_in};
use crate::backend::Tree;
use crate::clock::Clock;
use lair_supervision::{ChildId, Uptime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A usage, and when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// When.
    pub at: Uptime,
    /// What.
    pub usage: Arc<Usage>,
}

#[derive(Default)]
struct Cache {
    table: Option<(Uptime, Arc<ProcessTable>)>,
    /// Of each module: the run, its last usage, and the most resident bytes that anybody saw.
    last: BTreeMap<ChildId, (u64, Sampled, u64)>,
}

/// Caches usages and the process table behind them. It has no tick of its own: nobody asks, nothing is read.
pub struct Sampler {
    clock: Arc<dyn Clock>,
    cache: Mutex<Cache>,
}

impl Sampler {
    /// An empty one.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Sampler {
            clock,
            cache: Mutex::default(),
        })
    }

    /// The usage of this run's tree, at most `max_age` old. Blocks while it reads.
    #[must_use]
    pub fn fresh(&self, id: &ChildId, inc: u64, tree: &Tree, max_age: Duration) -> Sampled {
        if let Some(sampled) = self.last(id, inc).filter(|s| self.young(s.at, max_age)) {
            return sampled;
        }
        let sampled = self.read(tree, max_age);
        let mut cache = self.lock();
        let before = cache.last.get(id).filter(|(of, ..)| *of == inc);
        let peak = before.map_or(0, |(.., peak)| *peak).max(sampled.usage.rss);
        cache.last.insert(id.clone(), (inc, sampled.clone(), peak));
        drop(cache);
        sampled
    }

    /// The same for who looks at all of them, now and then: what is read is not kept for the next.
    #[must_use]
    pub fn glance(&self, id: &ChildId, inc: u64, tree: &Tree, max_age: Duration) -> Sampled {
        let last = self.last(id, inc).filter(|s| self.young(s.at, max_age));
        last.unwrap_or_else(|| self.read(tree, max_age))
    }

    fn read(&self, tree: &Tree, max_age: Duration) -> Sampled {
        let table = match tree {
            Tree::Descendants(_) => self.table(max_age),
            Tree::Cgroup(_) | Tree::None => Arc::default(),
        };
        Sampled {
            at: self.clock.now(),
            usage: Arc::new(usage_in(tree, &table)),
        }
    }

    /// The last one read for this run, however old.
    #[must_use]
    pub fn last(&self, id: &ChildId, inc: u64) -> Option<Sampled> {
        let cache = self.lock();
        let (of, sampled, _) = cache.last.get(id)?;
        (*of == inc).then(|| sampled.clone())
    }

    /// The most resident bytes that anybody saw of this run.
    #[must_use]
    pub fn peak(&self, id: &ChildId, inc: u64) -> Option<u64> {
        let cache = self.lock();
        let (of, _, peak) = cache.last.get(id)?;
        (*of == inc).then_some(*peak)
    }

    /// Forgets a module that was unloaded.
    pub fn forget(&self, id: &ChildId) {
        self.lock().last.remove(id);
    }

    // The table is read outside the lock: two askers at once read twice, and nobody waits for the other.
    fn table(&self, max_age: Duration) -> Arc<ProcessTable> {
        if let Some((at, table)) = self.lock().table.clone()
            && self.young(at, max_age)
        {
            return table;
        }
        let table = Arc::new(ProcessTable::read());
        self.lock().table = Some((self.clock.now(), table.clone()));
        table
    }

    fn young(&self, at: Uptime, max_age: Duration) -> bool {
        self.clock.now().since(at) < max_age
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
