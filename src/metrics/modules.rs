//! Each module's figures.

use super::text::{Kind, Text};
use lair_actors::status::ModuleStatus;
use lair_actors::tally::{BOUNDS, Counts, Histogram};
use lair_actors::view::HealthWord;
use lair_supervision::ChildId;
use std::collections::BTreeMap;
use std::fmt::Display;

const STATES: [&str; 6] = [
    "starting", "running", "stopping", "stopped", "failed", "backoff",
];

/// The modules as they are, and what their events add up to.
pub(super) struct Modules<'a> {
    pub status: &'a [ModuleStatus],
    pub counts: &'a BTreeMap<ChildId, Counts>,
}

impl Modules<'_> {
    pub fn write(&self, text: &mut Text) {
        self.lives(text);
        self.ends(text);
        self.memory(text);
        self.shares(text);
        self.gpus(text);
        self.logs(text);
    }

    /// One sample a module, where there is a value.
    fn each<V: Display>(
        &self,
        text: &mut Text,
        kind: Kind,
        name: &'static str,
        help: &str,
        read: impl Fn(&ModuleStatus) -> Option<V>,
    ) {
        let mut family = text.family(kind, name, help);
        for m in self.status {
            family.known(&[("module", &m.name)], read(m));
        }
    }

    /// One count a module.
    fn sum(&self, text: &mut Text, name: &'static str, help: &str, read: impl Fn(&Counts) -> u64) {
        let mut family = text.family(Kind::Counter, name, help);
        for (id, counts) in self.counts {
            family.sample(&[("module", id.as_str())], read(counts));
        }
    }

    fn lives(&self, text: &mut Text) {
        let mut info = text.family(Kind::Info, "lair_module", "What each module is.");
        for m in self.status {
            info.sample(
                &[
                    ("module", &m.name),
                    ("version", &m.version),
                    ("mode", &m.mode),
                    ("backend", &m.backend),
                ],
                1,
            );
        }
        let help = "1 for the state in which the module is.";
        let mut states = text.family(Kind::Gauge, "lair_module_state", help);
        for m in self.status {
            for state in STATES {
                let labels = [("module", m.name.as_str()), ("state", state)];
                states.sample(&labels, u8::from(m.state == state));
            }
        }
        let help = "1 for the verdict on the module's health.";
        let mut verdicts = text.family(Kind::Gauge, "lair_module_health", help);
        for m in self.status {
            for word in [
                HealthWord::Healthy,
                HealthWord::Unhealthy,
                HealthWord::Unknown,
            ] {
                let labels = [("module", m.name.as_str()), ("health", word.as_str())];
                verdicts.sample(&labels, u8::from(m.health.state == word));
            }
        }
        let help = "1 while the module serves.";
        self.each(text, Kind::Gauge, "lair_module_ready", help, |m| {
            Some(u8::from(m.ready))
        });
        let help = "1 while the module is held still.";
        self.each(text, Kind::Gauge, "lair_module_frozen", help, |m| {
            Some(u8::from(m.frozen))
        });
        let help = "1 while the module is parked.";
        self.each(text, Kind::Gauge, "lair_module_parked", help, |m| {
            Some(u8::from(m.parked.is_some()))
        });
        let help = "Number of the module's current or last run.";
        self.each(text, Kind::Gauge, "lair_module_run", help, |m| Some(m.run));
    }

    fn ends(&self, text: &mut Text) {
        let help = "Runs begun.";
        self.sum(text, "lair_module_starts", help, |c| c.starts);
        let help = "Runs begun that nobody asked for.";
        self.sum(text, "lair_module_restarts", help, |c| c.restarts);
        let help = "Starts that came to nothing.";
        self.sum(text, "lair_module_start_failures", help, |c| {
            c.start_failures
        });
        let help = "Runs on which KILL was used.";
        self.sum(text, "lair_module_kills", help, |c| c.kills);
        let help = "Ends of runs by cause: what ended it, or what lair ended it for.";
        let mut exits = text.family(Kind::Counter, "lair_module_exits", help);
        for (id, counts) in self.counts {
            for (cause, n) in &counts.exits {
                exits.sample(&[("module", id.as_str()), ("cause", cause)], n);
            }
        }
        let help = "From the begin of a start until it ran.";
        self.times(text, "lair_module_start_seconds", help, |c| &c.started);
        let help = "From the begin of a start until it first served.";
        self.times(text, "lair_module_ready_seconds", help, |c| &c.ready);
        let help = "From the begin of a stop until it had ended.";
        self.times(text, "lair_module_stop_seconds", help, |c| &c.stopped);
    }

    /// A histogram a module that has any such time.
    fn times(
        &self,
        text: &mut Text,
        name: &'static str,
        help: &str,
        read: fn(&Counts) -> &Histogram,
    ) {
        let mut family = text.family(Kind::Histogram, name, help);
        for (id, counts) in self.counts {
            let times = read(counts);
            if times.count() == 0 {
                continue;
            }
            let labels = [("module", id.as_str())];
            let buckets = BOUNDS.into_iter().zip(times.cumulative());
            family.histogram(&labels, buckets, times.count(), times.sum().as_secs_f64());
        }
    }

    fn memory(&self, text: &mut Text) {
        let help = "Memory of the module's processes.";
        self.each(text, Kind::Gauge, "lair_module_memory_bytes", help, |m| {
            m.resources.memory.current
        });
        let name = "lair_module_memory_peak_bytes";
        let help = "The most memory that was seen in the module's run.";
        self.each(text, Kind::Gauge, name, help, |m| m.resources.memory.peak);
        let name = "lair_module_memory_limit_bytes";
        let help = "The memory limit that was asked for.";
        self.each(text, Kind::Gauge, name, help, |m| m.resources.memory.limit);
        let help = "1 if the kernel holds the module to this limit, 0 if nobody does.";
        let mut held = text.family(Kind::Gauge, "lair_module_limit_enforced", help);
        for m in self.status.iter().filter(|m| m.pid.is_some()) {
            let r = &m.resources;
            for (limit, asked, enforced) in [
                ("memory", r.memory.limit.is_some(), r.memory.enforced),
                ("cpus", r.cpus.limit.is_some(), r.cpus.enforced),
                ("pids", r.pids.limit.is_some(), r.pids.enforced),
            ] {
                if asked {
                    let labels = [("module", m.name.as_str()), ("limit", limit)];
                    held.sample(&labels, u8::from(enforced));
                }
            }
        }
    }

    fn shares(&self, text: &mut Text) {
        let help = "CPU time of the module's current run.";
        self.each(text, Kind::Counter, "lair_module_cpu_seconds", help, |m| {
            Some(seconds(m.resources.cpu_ms?))
        });
        let help = "The share of the machine's processors that was asked for as a limit.";
        self.each(text, Kind::Gauge, "lair_module_cpus_limit", help, |m| {
            m.resources.cpus.limit
        });
        let help = "Processes of the module.";
        self.each(text, Kind::Gauge, "lair_module_processes", help, |m| {
            m.resources.processes
        });
        let help = "Processes and threads of the module, where they are counted.";
        self.each(text, Kind::Gauge, "lair_module_pids", help, |m| {
            m.resources.pids.current
        });
        let help = "The limit of processes and threads that was asked for.";
        self.each(text, Kind::Gauge, "lair_module_pids_limit", help, |m| {
            m.resources.pids.limit
        });
    }

    fn gpus(&self, text: &mut Text) {
        let help = "GPU memory of the module's processes.";
        let mut used = text.family(Kind::Gauge, "lair_module_gpu_memory_bytes", help);
        for m in self.status {
            for gpu in &m.resources.gpu {
                used.known(&[("module", &m.name), ("gpu", &gpu.uuid)], gpu.memory);
            }
        }
        let help = "GPU memory that the module declared.";
        let mut declared = text.family(Kind::Gauge, "lair_module_gpu_declared_bytes", help);
        for m in self.status {
            for gpu in &m.resources.gpu {
                declared.known(&[("module", &m.name), ("gpu", &gpu.uuid)], gpu.vram);
            }
        }
    }

    fn logs(&self, text: &mut Text) {
        let help = "Output taken in the module's current run.";
        self.each(text, Kind::Counter, "lair_module_log_bytes", help, |m| {
            Some(m.logs.bytes)
        });
        let name = "lair_module_log_dropped_bytes";
        let help = "Output that could not be kept in the module's current run.";
        self.each(text, Kind::Counter, name, help, |m| Some(m.logs.dropped));
    }
}

/// Milliseconds, which are far below 2^53, as seconds.
#[allow(clippy::cast_precision_loss)]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
