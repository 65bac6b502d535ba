//! Is a starting module still getting anywhere?

use crate::facts::Usage;
use lair_supervision::Uptime;
use std::time::Duration;

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Less memory growth than this is noise.
const RSS_STEP: u64 = 256 << 10;
/// CPU time below one part of the elapsed time in so many is a heartbeat and no work.
const CPU_PART: u32 = 100;

/// What was seen at one moment. What can't be seen is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    pub log_bytes: Option<u64>,
    pub usage: Option<Work>,
    pub extended: Option<Uptime>,
    pub patience: Option<Uptime>,
}

/// The sums that grow while a tree works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub cpu_ms: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub rss: u64,
}

impl Work {
    /// `None` if nothing of the tree could be seen: then nothing may be concluded from it.
    pub fn of(usage: &Usage) -> Option<Self> {
        (!usage.pids.is_empty()).then(|| Work {
            cpu_ms: usage.cpu_ms,
            read_bytes: usage.read_bytes.unwrap_or(0),
            write_bytes: usage.write_bytes.unwrap_or(0),
            rss: usage.rss,
        })
    }
}

/// The stall clock of one starting module.
pub(super) struct Progress {
    stall: Duration,
    since: Uptime,
    log_bytes: u64,
    work: Option<Work>,
    extended: Option<Uptime>,
}

impl Progress {
    pub fn new(stall: Duration, now: Uptime) -> Self {
        Progress {
            stall,
            since: now,
            log_bytes: 0,
            work: None,
            extended: None,
        }
    }

    /// Starts anew: what happened until now can't be told.
    pub fn restart(&mut self, now: Uptime) {
        self.since = now;
    }

    /// Takes a look; `Some` says how long nothing has moved, once that is too long.
    pub fn look(&mut self, evidence: &Evidence, now: Uptime) -> Option<Duration> {
        let blind = evidence.log_bytes.is_none() && evidence.usage.is_none();
        if blind || self.moved(evidence, now) {
            self.since = now;
        }
        if evidence.patience.is_some_and(|until| until > now) {
            return None;
        }
        Some(now.since(self.since)).filter(|still| *still >= self.stall)
    }

    fn moved(&mut self, evidence: &Evidence, now: Uptime) -> bool {
        let mut moved = evidence.extended > self.extended;
        self.extended = self.extended.max(evidence.extended);
        let logged = evidence.log_bytes.unwrap_or(0);
        moved |= logged > self.log_bytes;
        self.log_bytes = self.log_bytes.max(logged);
        let Some(seen) = evidence.usage else {
            return moved;
        };
        let Some(best) = self.work else {
            self.work = Some(seen);
            return true;
        };
        let quiet = now.since(self.since).max(LOOK);
        let heartbeat = u64::try_from((quiet / CPU_PART).as_millis()).unwrap_or(u64::MAX);
        let worked = seen.cpu_ms > best.cpu_ms.saturating_add(heartbeat)
            || seen.read_bytes > best.read_bytes
            || seen.write_bytes > best.write_bytes
            || seen.rss > best.rss.saturating_add(RSS_STEP);
        // Memory must pass its peak, so that breathing is no growth. The other marks follow a sum that sank (a member
        // with a long account has ended): calling a working module stuck is worse than seeing a stuck one late.
        self.work = Some(Work {
            cpu_ms: mark(best.cpu_ms, seen.cpu_ms, worked),
            read_bytes: mark(best.read_bytes, seen.read_bytes, worked),
            write_bytes: mark(best.write_bytes, seen.write_bytes, worked),
            rss: if worked {
                best.rss.max(seen.rss)
            } else {
                best.rss
            },
        });
        moved || worked
    }
}

/// The mark stays where it is while growth is too small to count, so that slow growth adds up.
fn mark(best: u64, seen: u64, worked: bool) -> u64 {
    if worked { seen } else { best.min(seen) }
}

#[cfg(test)]
mod test;
