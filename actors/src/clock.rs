//! The only source of time, and of timers.
//!
//! Owns: now, the wall clock for display, and all armed timers (one task for all). Promises: a timer fires once, in
//! order of its time and then of arming; a cancelled one never. Never: calls back from within `arm` or `cancel`.

use lair_supervision::Uptime;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What a timer does when it fires: a send, nothing that waits.
pub type Fire = Box<dyn FnOnce() + Send>;

/// Names an armed timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    at: Uptime,
    serial: u64,
}

/// Time, as the actors see it.
pub trait Clock: Send + Sync + 'static {
    /// Time since the runtime started.
    fn now(&self) -> Uptime;
    /// Milliseconds since 1970-01-01 UTC; for display only.
    fn wall_ms(&self) -> u64;
    /// Arms a timer.
    fn arm(&self, at: Uptime, fire: Fire) -> TimerId;
    /// Disarms it; gone already is fine.
    fn cancel(&self, timer: TimerId);
}

#[derive(Default)]
struct Timers {
    armed: BTreeMap<TimerId, Fire>,
    serial: u64,
}

impl Timers {
    fn arm(&mut self, at: Uptime, fire: Fire) -> TimerId {
        self.serial += 1;
        let id = TimerId {
            at,
            serial: self.serial,
        };
        self.armed.insert(id, fire);
        id
    }

    fn due(&mut self, now: Uptime) -> Option<Fire> {
        let id = *self.armed.first_key_value()?.0;
        (id.at <= now).then(|| self.armed.remove(&id)).flatten()
    }

    fn next(&self) -> Option<Uptime> {
        self.armed.first_key_value().map(|(id, _)| id.at)
    }
}

/// The timers' task looks again after this time at the latest.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

/// The machine's monotonic clock. Its timers run on one task of the runtime it was made in.
pub struct SystemClock {
    start: Instant,
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Shared {
    timers: Mutex<Timers>,
    changed: Notify,
}

impl SystemClock {
    /// Starts at zero. Must be called within a tokio runtime with time enabled.
    #[must_use]
    pub fn start() -> Arc<Self> {
        let start = Instant::now();
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(Self::run(start, shared.clone())).abort_handle();
        Arc::new(SystemClock {
            start,
            shared,
            task,
        })
    }

    async fn run(start: Instant, shared: Arc<Shared>) {
        loop {
            let (fire, next) = {
                let mut timers = lock(&shared.timers);
                (timers.due(Uptime(start.elapsed())), timers.next())
            };
            if let Some(fire) = fire {
                fire();
                continue;
            }
            match next {
                Some(at) => {
                    // A grace may be longer than an `Instant` can tell.
                    let left = at.since(Uptime(start.elapsed())).min(LONGEST_SLEEP);
                    let _ = tokio::time::timeout(left, shared.changed.notified()).await;
                }
                None => shared.changed.notified().await,
            }
        }
    }
}

impl Drop for SystemClock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Uptime {
        Uptime(self.start.elapsed())
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }

    fn arm(&self, at: Uptime, fire: Fire) -> TimerId {
        let mut timers = lock(&self.shared.timers);
        let sooner = timers.next().is_none_or(|next| at < next);
        let id = timers.arm(at, fire);
        drop(timers);
        if sooner {
            self.shared.changed.notify_one();
        }
        id
    }

    fn cancel(&self, timer: TimerId) {
        lock(&self.shared.timers).armed.remove(&timer);
    }
}

/// A clock that stands still until it is told to advance. For tests and embedders' rehearsals.
#[derive(Default)]
pub struct SimClock {
    now: Mutex<Uptime>,
    timers: Mutex<Timers>,
}

impl SimClock {
    /// Starts at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(SimClock::default())
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Uptime> {
        lock(&self.timers).next()
    }

    /// Moves on by `by`, firing what falls due in order. Between two timers `settle` is awaited, so that what the
    /// first one caused is handled before the second fires.
    pub async fn advance<F, S>(&self, by: Duration, settle: F)
    where
        F: Fn() -> S,
        S: Future<Output = ()>,
    {
        let end = *lock(&self.now) + by;
        settle().await;
        while let Some(at) = self.next_due().filter(|at| *at <= end) {
            {
                let mut now = lock(&self.now);
                *now = (*now).max(at);
            }
            let fire = lock(&self.timers).due(at);
            if let Some(fire) = fire {
                fire();
            }
            settle().await;
        }
        *lock(&self.now) = end;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Uptime {
        *lock(&self.now)
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(self.now().0.as_millis()).unwrap_or(u64::MAX)
    }

    fn arm(&self, at: Uptime, fire: Fire) -> TimerId {
        lock(&self.timers).arm(at, fire)
    }

    fn cancel(&self, timer: TimerId) {
        lock(&self.timers).armed.remove(&timer);
    }
}

fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

// A panic while one of these is held leaves whole values behind: each critical section is a single map operation.
fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
