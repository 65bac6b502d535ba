//! What `top` keeps of a module: the part of its status that a row shows, and its last minutes.

use lair_actors::view::HealthWord;
use serde::Deserialize;
use std::collections::VecDeque;

/// Samples kept of each curve: two minutes at one a second.
pub const SAMPLES: usize = 120;
/// A sum of CPU time that has not moved for this long means that nothing runs; the daemon itself looks every 2 s.
const IDLE_MS: i64 = 3500;

/// A module's status, as far as a row shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Module name.
    pub name: String,
    /// `starting running ...`.
    pub state: String,
    /// Why.
    pub reason: Option<Why>,
    /// Does it serve?
    pub ready: bool,
    /// Is it held still?
    pub frozen: bool,
    /// Has it let go of memory?
    pub parked: Option<serde::de::IgnoredAny>,
    /// Verdict.
    pub health: Health,
    /// Number of the run.
    pub run: u64,
    /// Restarts and the next one.
    pub restarts: Restarts,
    /// What it uses.
    pub resources: Resources,
    /// Declared ports.
    pub ports: Vec<Port>,
    /// When the run came up.
    pub started_at: Option<String>,
    /// When the last run ended.
    pub finished_at: Option<String>,
}

/// Why a module is in its state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Why {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// A verdict with its evidence.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Health {
    /// The word.
    pub state: HealthWord,
    /// The evidence.
    pub reason: Option<String>,
}

/// Restarts so far.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// How many.
    pub count: u32,
    /// When the next is due.
    pub next_at: Option<String>,
}

/// What it uses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory.
    pub memory: Memory,
    /// CPU time so far, ms.
    pub cpu_ms: Option<u64>,
    /// Its GPUs.
    pub gpu: Vec<Gpu>,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Asked for.
    pub limit: Option<u64>,
    /// Does the kernel hold it?
    pub enforced: bool,
    /// Now.
    pub current: Option<u64>,
}

/// Its part of a GPU, bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Now.
    pub memory: Option<u64>,
}

/// A declared port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number.
    pub port: u16,
}

impl Row {
    /// Bytes on all its GPUs; `None`: it has none, or nobody knows.
    #[must_use]
    pub fn gpu_memory(&self) -> Option<u64> {
        let known: Vec<u64> = self.resources.gpu.iter().filter_map(|g| g.memory).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    }

    /// Its state, or what it is held in meanwhile.
    #[must_use]
    pub fn condition(&self) -> &str {
        if self.frozen {
            "frozen"
        } else if self.parked.is_some() {
            "parked"
        } else {
            &self.state
        }
    }

    /// Is there a process?
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.state.as_str(), "starting" | "running" | "stopping")
    }
}

/// The last samples of a quantity.
#[derive(Clone, Debug, Default)]
pub struct Curve(VecDeque<u64>);

impl Curve {
    /// Appends a sample.
    pub fn push(&mut self, value: u64) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last `n`, oldest first.
    pub fn last(&self, n: usize) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().skip(self.0.len().saturating_sub(n)).copied()
    }

    /// The newest.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.back().copied().unwrap_or(0)
    }
}

/// A module's last minutes.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    /// Thousandths of one processor.
    pub cpu: Curve,
    /// Bytes.
    pub memory: Curve,
    /// Bytes.
    pub gpu: Curve,
    mark: Option<Mark>,
}

/// The last moment at which a run's CPU time was seen to move.
#[derive(Clone, Copy, Debug)]
struct Mark {
    run: u64,
    cpu_ms: u64,
    at: i64,
    rate: u64,
}

impl Trend {
    /// Takes a look at monotonic time `at`, ms.
    pub fn take(&mut self, row: &Row, at: i64) {
        let rate = row.resources.cpu_ms.map(|ms| self.rate(row.run, ms, at));
        if rate.is_none() {
            self.mark = None;
        }
        self.cpu.push(rate.unwrap_or(0));
        self.memory.push(row.resources.memory.current.unwrap_or(0));
        self.gpu.push(row.gpu_memory().unwrap_or(0));
    }

    /// The daemon reads usage less often than it is asked: between two readings the last rate goes on.
    fn rate(&mut self, run: u64, cpu_ms: u64, at: i64) -> u64 {
        let fresh = Mark {
            run,
            cpu_ms,
            at,
            rate: 0,
        };
        let Some(mark) = self.mark.filter(|m| m.run == run && m.cpu_ms <= cpu_ms) else {
            self.mark = Some(fresh);
            return 0;
        };
        if mark.cpu_ms == cpu_ms {
            return if at - mark.at > IDLE_MS { 0 } else { mark.rate };
        }
        let elapsed = u64::try_from(at - mark.at).unwrap_or(0).max(1);
        let rate = (cpu_ms - mark.cpu_ms) * 1000 / elapsed;
        self.mark = Some(Mark { rate, ..fresh });
        rate
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn row(run: u64, cpu_ms: u64) -> Row {
        let mut row = Row {
            run,
            ..Row::default()
        };
        row.resources.cpu_ms = Some(cpu_ms);
        row
    }

    #[test]
    fn cpu_time_becomes_a_rate_and_a_new_run_begins_at_nothing() {
        let mut trend = Trend::default();
        trend.take(&row(1, 100), 0);
        trend.take(&row(1, 600), 1000);
        assert_eq!(trend.cpu.now(), 500);
        trend.take(&row(1, 600), 2000);
        assert_eq!(trend.cpu.now(), 500, "the daemon has not looked again");
        trend.take(&row(1, 600), 9000);
        assert_eq!(trend.cpu.now(), 0);
        trend.take(&row(2, 10), 10_000);
        assert_eq!(trend.cpu.now(), 0);
    }

    #[test]
    fn a_curve_keeps_its_last_samples_and_no_more() {
        let mut curve = Curve::default();
        for n in 0..1000 {
            curve.push(n);
        }
        assert_eq!(curve.last(3).collect::<Vec<_>>(), [997, 998, 999]);
        assert_eq!(curve.last(usize::MAX).count(), SAMPLES);
    }
}
