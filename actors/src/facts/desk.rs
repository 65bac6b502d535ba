//! The last known state of the GPUs, for those who may not wait for a driver.
//!
//! Owns: the driver's library, its last answer, and whose each process on a GPU was seen to be. Promises: one question at
//! a time; [`GpuDesk::recent`] never waits, and nobody waits long for a driver that hangs; a process that was seen to be a
//! module's is still known as that module's when it is gone. Never: has a tick of its own.

use super::gpu::{GpuFacts, GpuReader};
use crate::clock::Clock;
use lair_manifests::nvml::Nvml;
use lair_supervision::{ChildId, Uptime};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Processes that are remembered; the oldest pids are forgotten first.
const REMEMBERED: usize = 4096;

/// A driver that takes longer is said not to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where GPUs are asked about.
pub struct GpuDesk {
    clock: Arc<dyn Clock>,
    reader: Option<GpuReader>,
    known: Mutex<Known>,
    answered: Condvar,
}

#[derive(Default)]
struct Known {
    last: Option<(Uptime, Arc<GpuFacts>)>,
    asking: bool,
    answers: u64,
    owners: BTreeMap<i32, (ChildId, u64)>,
}

impl GpuDesk {
    /// Asks the library that the configuration names, if any.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, nvml: &Nvml) -> Arc<Self> {
        let reader = match nvml {
            Nvml::Off => None,
            Nvml::System => Some(GpuReader::new(None)),
            Nvml::At(path) => Some(GpuReader::new(Some(PathBuf::from(path.as_str())))),
        };
        Arc::new(GpuDesk {
            clock,
            reader,
            known: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    /// What the driver says now: it is asked after this call, and may think about it for a while.
    #[must_use]
    pub fn read(self: &Arc<Self>) -> Arc<GpuFacts> {
        let mut known = self.known();
        // A question under way may have been put before what the caller wants to see.
        let enough = known.answers + 1 + u64::from(known.asking);
        while known.answers < enough {
            self.ask(&mut known);
            let waited = self.answered.wait_timeout(known, PATIENCE);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            known = next;
            if timeout.timed_out() && known.answers < enough {
                let why = format!("the driver does not answer within {PATIENCE:?}");
                return Arc::new(GpuFacts::Unavailable(why));
            }
        }
        let last = known.last.as_ref().map(|(_, facts)| facts.clone());
        last.unwrap_or_else(|| Arc::new(GpuFacts::Unavailable("nobody looked".into())))
    }

    /// Begins a question, unless one is under way.
    fn ask(self: &Arc<Self>, known: &mut Known) {
        if known.asking {
            return;
        }
        known.asking = true;
        let desk = self.clone();
        std::thread::spawn(move || {
            let facts = match &desk.reader {
                Some(reader) => reader.gpus(),
                None => GpuFacts::Unavailable("`runtime.gpu.nvml` is off".into()),
            };
            let mut known = desk.known();
            known.last = Some((desk.clock.now(), Arc::new(facts)));
            known.asking = false;
            known.answers += 1;
            desk.answered.notify_all();
        });
    }

    /// What the driver said last, at once. If that is older than `max_age`, it is asked again behind the caller's back.
    #[must_use]
    pub fn recent(self: &Arc<Self>, max_age: Duration) -> Option<Arc<GpuFacts>> {
        let mut known = self.known();
        let last = known.last.clone();
        let now = self.clock.now();
        if last
            .as_ref()
            .is_none_or(|(at, _)| now.since(*at) >= max_age)
        {
            self.ask(&mut known);
        }
        last.map(|(_, facts)| facts)
    }

    /// What the driver said last, if it was ever asked.
    #[must_use]
    pub fn last(&self) -> Option<Arc<GpuFacts>> {
        self.known().last.as_ref().map(|(_, facts)| facts.clone())
    }

    /// Notes that these processes are of this run.
    pub fn remember(&self, pids: impl IntoIterator<Item = i32>, id: &ChildId, inc: u64) {
        let mut known = self.known();
        for pid in pids {
            known.owners.insert(pid, (id.clone(), inc));
        }
        while known.owners.len() > REMEMBERED {
            known.owners.pop_first();
        }
    }

    /// Whose a process was last seen to be.
    #[must_use]
    pub fn owner(&self, pid: i32) -> Option<(ChildId, u64)> {
        self.known().owners.get(&pid).cloned()
    }

    /// Was a process of this run seen on a GPU?
    #[must_use]
    pub fn knows(&self, id: &ChildId, inc: u64) -> bool {
        let known = self.known();
        known
            .owners
            .values()
            .any(|(of, run)| of == id && *run == inc)
    }

    /// The run is over, and nothing of it is on a GPU: its pids may be others' from now on.
    pub fn forget(&self, id: &ChildId, inc: u64) {
        self.known()
            .owners
            .retain(|_, (of, run)| of != id || *run != inc);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
