//! One module on its way: what was seen of it, and that in words. Pure.

use crate::cli::time::{age, bytes, parse_rfc3339};
use lair_actors::status::ModuleStatus;
use serde_json::Value;

/// Less growth of memory than this is noise.
const NOISE: u64 = 256 << 10;
/// Characters of a module's own line that are repeated.
const LINE: usize = 60;

/// A module that is waited for.
#[derive(Debug, Default)]
pub struct Tracked {
    /// It is where it should be, or can't get there.
    pub done: bool,
    /// How far its image is.
    pub pulling: Option<String>,
    status: Option<ModuleStatus>,
    line: Option<String>,
    read: Option<u64>,
    began: i64,
    first_memory: Option<u64>,
    phase: String,
    phase_since: i64,
    marks: Marks,
    moved: i64,
    bounds: Option<Bounds>,
}

/// What was seen besides the status.
#[derive(Debug, Default)]
pub struct Seen {
    /// Bytes its tree has read.
    pub read: Option<u64>,
    /// Its last line.
    pub line: Option<String>,
    /// The plan it was started by, if it was asked for.
    pub plan: Option<Value>,
}

/// The sums that grow while something gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    log: u64,
    cpu_ms: u64,
    memory: u64,
    read: u64,
}

/// What bounds a run's start and end, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    run: u64,
    stall: Option<i64>,
    deadline: Option<i64>,
    grace: Option<i64>,
}

impl Bounds {
    fn of(run: u64, plan: &Value) -> Bounds {
        let ms = |path: &str| {
            let secs = plan.pointer(path)?.get("secs")?.as_i64()?;
            let nanos = plan.pointer(path)?.get("nanos")?.as_i64()?;
            Some(secs * 1000 + nanos / 1_000_000)
        };
        Bounds {
            run,
            stall: ms("/probes/startup/stall"),
            deadline: ms("/spec/ready_deadline"),
            grace: ms("/spec/grace"),
        }
    }
}

/// Is it in the state that is waited for, or can it no longer get there by itself?
#[must_use]
pub fn is_done(status: &ModuleStatus, word: &str) -> bool {
    let down = matches!(status.state.as_str(), "stopped" | "failed");
    match word {
        "ready" => status.ready || down,
        "healthy" => status.health.state.as_str() == "healthy" || down,
        _ => down,
    }
}

impl Tracked {
    /// Are this run's bounds known?
    #[must_use]
    pub fn knows(&self, run: u64) -> bool {
        self.bounds.is_some_and(|b| b.run == run)
    }

    /// Takes a look at monotonic time `now`, ms.
    pub fn take(&mut self, status: ModuleStatus, seen: Seen, now: i64) {
        let new_run = self.status.as_ref().is_none_or(|s| s.run != status.run);
        if new_run {
            (self.began, self.moved) = (now, now);
            (self.first_memory, self.marks) = (status.resources.memory.current, Marks::default());
            self.bounds = None;
        }
        if let Some(plan) = &seen.plan {
            self.bounds = Some(Bounds::of(status.run, plan));
        }
        if self.phase != status.state {
            self.phase.clone_from(&status.state);
            self.phase_since = now;
        }
        self.first_memory = self.first_memory.or(status.resources.memory.current);
        let marks = Marks {
            log: status.logs.bytes,
            cpu_ms: status.resources.cpu_ms.unwrap_or(0),
            memory: status.resources.memory.current.unwrap_or(0),
            read: seen.read.unwrap_or(0),
        };
        if self.marks.moved_to(marks, now - self.moved) {
            (self.marks, self.moved) = (marks, now);
        }
        (self.read, self.line) = (seen.read, seen.line);
        self.status = Some(status);
    }

    /// Phase, evidence, clocks.
    #[must_use]
    pub fn words(&self, now: i64) -> Option<String> {
        let status = self.status.as_ref()?;
        let mut words = vec![self.phase_words(status, now)];
        let up = matches!(status.state.as_str(), "starting" | "running");
        if up {
            self.evidence(status, &mut words);
            self.clocks(now, &mut words);
        }
        Some(words.join("; "))
    }

    fn phase_words(&self, status: &ModuleStatus, now: i64) -> String {
        let since = age(now - self.phase_since);
        let bounds = self.bounds.unwrap_or_default();
        match status.state.as_str() {
            "starting" => match &self.pulling {
                Some(progress) => format!("starting, image: {progress}"),
                None => format!("starting since {since}"),
            },
            "running" => {
                let verdict = status.health.reason.as_deref();
                verdict.unwrap_or("up, not ready yet").to_owned()
            }
            "stopping" => match bounds.grace {
                Some(grace) => format!("stopping since {since}, killed after {}", age(grace)),
                None => format!("stopping since {since}"),
            },
            "backoff" => {
                let next = status.restarts.next_at.as_ref();
                let wait = next.and_then(|t| parse_rfc3339(t)).map(|at| {
                    let wall = crate::cli::time::now_ms();
                    format!(", next try in {}", age(at - wall))
                });
                let why = status.reason.as_ref().map_or("", |r| r.message.as_str());
                format!("{why}{}", wait.unwrap_or_default())
            }
            other => other.to_owned(),
        }
    }

    fn evidence(&self, status: &ModuleStatus, words: &mut Vec<String>) {
        if let Some(memory) = status.resources.memory.current {
            let grown = memory.saturating_sub(self.first_memory.unwrap_or(memory));
            words.push(if grown > NOISE {
                format!("memory {} (+{})", bytes(memory), bytes(grown))
            } else {
                format!("memory {}", bytes(memory))
            });
        }
        if let Some(read) = self.read.filter(|n| *n > 0) {
            words.push(format!("read {}", bytes(read)));
        }
        if let Some(line) = &self.line {
            let text: String = line
                .chars()
                .filter(|c| !c.is_control())
                .take(LINE)
                .collect();
            words.push(format!("says {text:?}"));
        }
    }

    fn clocks(&self, now: i64, words: &mut Vec<String>) {
        let bounds = self.bounds.unwrap_or_default();
        let still = now - self.moved;
        match bounds.stall {
            Some(stall) if still >= 2000 => words.push(format!(
                "nothing moved for {}, stuck after {}",
                age(still),
                age(stall)
            )),
            None if still >= 10_000 => words.push(format!("nothing moved for {}", age(still))),
            _ => {}
        }
        let footprint = self.status.as_ref().and_then(|s| s.footprint.as_ref());
        let usual = footprint.and_then(|footprint| footprint.ready_ms);
        if let Some(usual) = usual.filter(|usual| usual.usual >= 1000) {
            let ms = |n: u64| age(i64::try_from(n).unwrap_or(i64::MAX));
            words.push(format!("usually {}", ms(usual.usual)));
        } else if let Some(deadline) = bounds.deadline {
            words.push(format!("given {} in all", age(deadline)));
        }
    }
}

impl Marks {
    /// Has one of them grown by more than noise? CPU time below a hundredth of the time that passed is a heartbeat.
    fn moved_to(self, new: Marks, still: i64) -> bool {
        let heartbeat = u64::try_from(still / 100).unwrap_or(0).max(10);
        new.log > self.log
            || new.read > self.read
            || new.memory > self.memory + NOISE
            || new.cpu_ms > self.cpu_ms + heartbeat
    }
}

#[cfg(test)]
mod test;
