//! What one run used over time, in little room: a ring that halves its resolution when it is full. Pure.
//!
//! Owns: the form of a point and how two become one. Promises: never more points than asked for; a peak and a bad verdict
//! survive every merge, sums stay sums; what was not seen is unknown, not zero. Never: looks at a clock.

use crate::view::HealthWord;
use serde::{Deserialize, Serialize};

/// Points of one run, at most.
pub const POINTS: usize = 240;
/// Points of one run, at least, however many runs there are.
const FEWEST: usize = 24;
/// Points of all runs together: half a MiB.
const TOGETHER: usize = 24_000;
/// Time units of a point in one second.
const TENTHS: u64 = 10;
/// Sums over less time make no rate, ms.
const SHORT: u64 = 500;
/// Stands for what is not known.
const UNKNOWN: u32 = u32::MAX;

/// How many points a run may have where so many run.
#[must_use]
pub fn room(runs: usize) -> usize {
    (TOGETHER / runs.max(1)).clamp(FEWEST, POINTS)
}

/// What was seen of a run at one moment. Sums count from the run's begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Milliseconds since the run came up.
    pub at_ms: u64,
    /// Bytes.
    pub memory: Option<u64>,
    /// CPU time so far, ms.
    pub cpu_ms: Option<u64>,
    /// Bytes on GPUs.
    pub gpu_memory: Option<u64>,
    /// Bytes of output so far.
    pub log_bytes: Option<u64>,
    /// The verdict.
    pub health: HealthWord,
}

/// The time that ends at `at`, from the point before on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    at: u32,
    memory: u32,
    cpu_milli: u32,
    gpu_memory: u32,
    /// Bytes a second, and the verdict in the lowest two bits.
    log: u32,
}

/// A run's points, oldest first. An empty one allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    points: Vec<Point>,
    /// Less time than this between two points makes them one.
    step: u32,
    last: Option<Sums>,
}

/// The sums at the last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    at_ms: u64,
    cpu_ms: Option<u64>,
    log_bytes: Option<u64>,
}

/// The same for readers, a column each. A value is about the time between the point before and its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Milliseconds since the run came up.
    pub at_ms: Vec<u64>,
    /// Most memory, bytes.
    pub memory: Vec<Option<u64>>,
    /// Thousandths of a CPU, on average.
    pub cpu_milli: Vec<Option<u64>>,
    /// Most memory on its GPUs, bytes; empty: it has none, or they were never seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_memory: Vec<Option<u64>>,
    /// Bytes of output a second, on average.
    pub log_rate: Vec<Option<u64>>,
    /// The worst verdict.
    pub health: Vec<HealthWord>,
}

impl Ring {
    /// Takes a sample, with room for so many points; one that is no younger than the last is passed over.
    pub fn take(&mut self, sample: Sample, most: usize) {
        let before = self.last.unwrap_or_default();
        if self.last.is_some() && sample.at_ms <= before.at_ms {
            return;
        }
        let first = self.last.is_none();
        self.last = Some(Sums {
            at_ms: sample.at_ms,
            cpu_ms: sample.cpu_ms,
            log_bytes: sample.log_bytes,
        });
        let passed = sample.at_ms - before.at_ms;
        // From the run's begin on, sums are known to have begun with nothing.
        let rate = |now: Option<u64>, then: Option<u64>| {
            let then = if first { Some(0) } else { then };
            let grown = now?.checked_sub(then?)?;
            (passed >= SHORT).then(|| grown.saturating_mul(1000) / passed)
        };
        let rest = |n: Option<u64>| n.map_or(UNKNOWN, narrow);
        let log = rate(sample.log_bytes, before.log_bytes);
        let point = Point {
            at: narrow(sample.at_ms / (1000 / TENTHS)),
            memory: rest(sample.memory.map(|bytes| bytes >> 10)),
            cpu_milli: rest(rate(sample.cpu_ms, before.cpu_ms)),
            gpu_memory: rest(sample.gpu_memory.map(|bytes| bytes >> 10)),
            log: pack(log, sample.health),
        };
        self.put(point, most.max(2));
    }

    fn put(&mut self, point: Point, most: usize) {
        let begin = self.begin_of(self.points.len().saturating_sub(1));
        if let Some(last) = self.points.last_mut()
            && point.at.saturating_sub(begin) < self.step
        {
            *last = merged(begin, last, &point);
            return;
        }
        if self.points.len() >= most {
            self.halve(most);
        }
        if self.points.len() == self.points.capacity() {
            let more = (self.points.len() / 2).clamp(4, POINTS);
            self.points
                .reserve_exact(more.min(most - self.points.len()));
        }
        self.points.push(point);
    }

    /// When the time of a point begins.
    fn begin_of(&self, n: usize) -> u32 {
        n.checked_sub(1).map_or(0, |n| self.points[n].at)
    }

    /// Makes one of as many neighbours as fit into a step, which becomes long enough for half the points.
    fn halve(&mut self, most: usize) {
        let span = self.points.last().map_or(0, |last| last.at);
        let half = u32::try_from(most / 2).unwrap_or(1).max(1);
        self.step = span.div_ceil(half).max(1);
        let (mut kept, mut begin): (Vec<Point>, u32) = (Vec::with_capacity(most / 2 + 4), 0);
        for point in &self.points {
            match kept.last_mut() {
                Some(last) if point.at.saturating_sub(begin) <= self.step => {
                    *last = merged(begin, last, point);
                }
                last => {
                    begin = last.map_or(0, |last| last.at);
                    kept.push(*point);
                }
            }
        }
        // Points that are far apart leave no pair that fits: then the oldest goes.
        kept.drain(..(kept.len() + 1).saturating_sub(most));
        self.points = kept;
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// For readers.
    #[must_use]
    pub fn series(&self) -> Series {
        let mut all = Series::default();
        let known = |n: u32| (n != UNKNOWN).then_some(u64::from(n));
        for point in &self.points {
            let (log, health) = unpack(point.log);
            all.at_ms.push(u64::from(point.at) * (1000 / TENTHS));
            all.memory.push(known(point.memory).map(|kib| kib << 10));
            all.cpu_milli.push(known(point.cpu_milli));
            all.gpu_memory
                .push(known(point.gpu_memory).map(|kib| kib << 10));
            all.log_rate.push(log);
            all.health.push(health);
        }
        if all.gpu_memory.iter().all(Option::is_none) {
            all.gpu_memory = Vec::new();
        }
        all
    }
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(UNKNOWN).min(UNKNOWN - 1)
}

fn pack(rate: Option<u64>, health: HealthWord) -> u32 {
    let word = match health {
        HealthWord::Healthy => 1,
        HealthWord::Unhealthy => 2,
        HealthWord::Unknown => 0,
    };
    let most = UNKNOWN >> 2;
    let rate = rate.map_or(most, |n| narrow(n).min(most - 1));
    rate << 2 | word
}

fn unpack(log: u32) -> (Option<u64>, HealthWord) {
    let rate = log >> 2;
    let health = match log & 3 {
        1 => HealthWord::Healthy,
        2 => HealthWord::Unhealthy,
        _ => HealthWord::Unknown,
    };
    ((rate != UNKNOWN >> 2).then_some(u64::from(rate)), health)
}

/// Two neighbours as one; the first began at `begin`.
fn merged(begin: u32, a: &Point, b: &Point) -> Point {
    let most = |a: u32, b: u32| match (a, b) {
        (UNKNOWN, known) | (known, UNKNOWN) => known,
        (a, b) => a.max(b),
    };
    let weights = (
        u64::from(a.at.saturating_sub(begin).max(1)),
        u64::from(b.at.saturating_sub(a.at).max(1)),
    );
    let mean = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (None, known) | (known, None) => known,
        (Some(a), Some(b)) => Some((a * weights.0 + b * weights.1) / (weights.0 + weights.1)),
    };
    let known = |n: u32| (n != UNKNOWN).then_some(u64::from(n));
    let ((log_a, health_a), (log_b, health_b)) = (unpack(a.log), unpack(b.log));
    let health = match (health_a, health_b) {
        (HealthWord::Unhealthy, _) | (_, HealthWord::Unhealthy) => HealthWord::Unhealthy,
        (HealthWord::Unknown, _) | (_, HealthWord::Unknown) => HealthWord::Unknown,
        (HealthWord::Healthy, HealthWord::Healthy) => HealthWord::Healthy,
    };
    Point {
        at: b.at,
        memory: most(a.memory, b.memory),
        cpu_milli: mean(known(a.cpu_milli), known(b.cpu_milli)).map_or(UNKNOWN, narrow),
        gpu_memory: most(a.gpu_memory, b.gpu_memory),
        log: pack(mean(log_a, log_b), health),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn sample(second: u64, memory: u64, cpu_ms: u64) -> Sample {
        Sample {
            at_ms: second * 1000,
            memory: Some(memory << 20),
            cpu_ms: Some(cpu_ms),
            gpu_memory: None,
            log_bytes: Some(second * 100),
            health: HealthWord::Healthy,
        }
    }

    #[test]
    fn an_empty_ring_has_no_room_of_its_own() {
        assert_eq!(Ring::default().points.capacity(), 0);
        assert!(std::mem::size_of::<Point>() <= 20);
    }

    #[test]
    fn a_ring_never_outgrows_its_room_and_keeps_span_peak_and_sums() {
        for every in [1, 2, 7, 10, 60] {
            let mut ring = Ring::default();
            for n in 1..=20_000_u64 {
                let second = n * every;
                let memory = if n == 7_777 { 900 } else { 100 };
                // Half a CPU, always.
                ring.take(sample(second, memory, second * 500), POINTS);
                assert!(ring.points.len() <= POINTS, "{every} {n}");
            }
            let series = ring.series();
            assert!(series.at_ms.len() > POINTS / 3, "{}", series.at_ms.len());
            assert_eq!(series.at_ms.last(), Some(&(20_000 * every * 1000)));
            assert!(series.at_ms.is_sorted_by(|a, b| a < b));
            assert_eq!(series.memory.iter().flatten().max(), Some(&(900 << 20)));
            assert!(series.cpu_milli.iter().all(|c| *c == Some(500)), "{every}");
            assert!(series.log_rate.iter().all(|c| *c == Some(100)));
            assert!(series.gpu_memory.is_empty());
        }
    }

    #[test]
    fn an_unhealthy_moment_survives_every_merge() {
        let mut ring = Ring::default();
        for second in 1..5000 {
            let mut one = sample(second, 1, 0);
            if second == 300 {
                one.health = HealthWord::Unhealthy;
            }
            ring.take(one, FEWEST);
        }
        let bad = ring.series().health;
        let count = bad.iter().filter(|h| **h == HealthWord::Unhealthy).count();
        assert_eq!((bad.len() <= FEWEST, count), (true, 1), "{bad:?}");
    }

    #[test]
    fn what_was_not_seen_is_unknown_and_a_sum_that_sank_is_no_rate() {
        let mut ring = Ring::default();
        ring.take(
            Sample {
                memory: None,
                ..sample(1, 0, 400)
            },
            POINTS,
        );
        ring.take(sample(2, 3, 100), POINTS);
        ring.take(sample(2, 9, 100), POINTS);
        let series = ring.series();
        assert_eq!(series.memory, [None, Some(3 << 20)]);
        assert_eq!(series.cpu_milli, [Some(400), None]);
    }

    #[test]
    fn room_is_shared_by_all_runs() {
        assert_eq!(room(0), POINTS);
        assert_eq!(room(100), POINTS);
        assert_eq!(room(500), 48);
        assert_eq!(room(1000), FEWEST);
        assert_eq!(room(4096), FEWEST);
        assert!(room(4096) * 4096 * std::mem::size_of::<Point>() < 2 << 20);
    }
}
