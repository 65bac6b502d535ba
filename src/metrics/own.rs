//! The machine's GPUs, and lair's own figures.

use super::modules::seconds;
use super::text::{Kind, Text};
use crate::bridge::server::Counters;
use crate::resources::{Card, GpuReport};
use lair_actors::facts::OwnUsage;
use std::time::Duration;

/// What was measured of lair itself.
pub(super) struct Own {
    pub uptime: Duration,
    pub newest: u64,
    pub modules: usize,
    /// How long the root took to answer; `None`: too long.
    pub answered: Option<Duration>,
    /// Commands that the log pump has not taken yet.
    pub log_backlog: Option<usize>,
    pub dossiers_lost: u64,
    /// Tasks that live, and those that wait to be run.
    pub tasks: (usize, usize),
    pub process: Option<OwnUsage>,
}

impl Own {
    pub fn write(&self, text: &mut Text) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        text.family(Kind::Info, "lair_build", "Which lair this is.")
            .sample(&version, 1);
        text.family(Kind::Gauge, "lair_uptime_seconds", "Since lair started.")
            .sample(&[], self.uptime.as_secs_f64());
        text.family(Kind::Gauge, "lair_modules", "Modules loaded.")
            .sample(&[], self.modules);
        text.family(Kind::Counter, "lair_events", "Events told.")
            .sample(&[], self.newest);
        let help =
            "How long a question to the root waited for its answer; absent: longer than a second.";
        text.family(Kind::Gauge, "lair_root_answer_seconds", help)
            .known(&[], self.answered.map(|time| time.as_secs_f64()));
        let help = "1 if the root answered within a second.";
        text.family(Kind::Gauge, "lair_root_responsive", help)
            .sample(&[], u8::from(self.answered.is_some()));
        let help = "Requests that wait for the log pump.";
        text.family(Kind::Gauge, "lair_log_backlog", help)
            .known(&[], self.log_backlog);
        let help = "Dossiers that were not written.";
        text.family(Kind::Counter, "lair_dossiers_lost", help)
            .sample(&[], self.dossiers_lost);
        text.family(Kind::Gauge, "lair_tasks", "Tasks that live.")
            .sample(&[], self.tasks.0);
        let help = "Tasks in the queue of those to be run.";
        text.family(Kind::Gauge, "lair_tasks_queued", help)
            .sample(&[], self.tasks.1);
        if let Some(process) = &self.process {
            usage(text, process);
        }
    }
}

fn usage(text: &mut Text, own: &OwnUsage) {
    text.family(Kind::Counter, "process_cpu_seconds", "CPU time of lair.")
        .sample(&[], seconds(own.cpu_ms));
    let name = "process_resident_memory_bytes";
    text.family(Kind::Gauge, name, "Resident memory of lair.")
        .sample(&[], own.resident);
    text.family(Kind::Gauge, "process_threads", "Threads of lair.")
        .sample(&[], own.threads);
    let help = "Descriptors that lair has open.";
    text.family(Kind::Gauge, "process_open_fds", help)
        .known(&[], own.open);
}

/// The bridge's counters.
pub(super) fn bridge(text: &mut Text, counters: &Counters) {
    let help = "Connections to the bridge that are open.";
    text.family(Kind::Gauge, "lair_bridge_connections_open", help)
        .sample(&[], counters.open());
    let helps = [
        "Connections to the bridge.",
        "Connections refused because the peer may not use the bridge.",
        "Connections refused because there were too many.",
        "Connections that could not be accepted.",
        "Requests to the bridge.",
        "Requests to the bridge that were none.",
    ];
    for (((_, value), name), help) in counters.all().into_iter().zip(BRIDGE).zip(helps) {
        text.family(Kind::Counter, name, help).sample(&[], value);
    }
}

/// In the order of [`Counters::all`].
const BRIDGE: [&str; 6] = [
    "lair_bridge_connections",
    "lair_bridge_strangers",
    "lair_bridge_crowded",
    "lair_bridge_accept_errors",
    "lair_bridge_requests",
    "lair_bridge_bad_requests",
];

/// The GPUs, as the driver tells; `None`: it did not answer in time.
pub(super) fn gpus(text: &mut Text, report: Option<&GpuReport>) {
    let available = report.is_some_and(|report| report.available);
    let help = "1 if a GPU driver answers.";
    text.family(Kind::Gauge, "lair_gpu_available", help)
        .sample(&[], u8::from(available));
    let cards = report.map_or(&[][..], |report| &report.gpus);
    let memory = |name, help, read: fn(&Card) -> Option<u64>, text: &mut Text| {
        let mut family = text.family(Kind::Gauge, name, help);
        for card in cards {
            family.known(&[("gpu", label(card))], read(card));
        }
    };
    let help = "Memory of the GPU.";
    memory("lair_gpu_memory_size_bytes", help, |c| c.memory.total, text);
    let help = "Memory of the GPU in use by anybody.";
    memory("lair_gpu_memory_used_bytes", help, |c| c.memory.used, text);
    let name = "lair_gpu_memory_strangers_bytes";
    let help = "Memory of the GPU in use by what is none of lair's modules.";
    memory(name, help, |c| c.memory.strangers, text);
    let help = "Share of the last moments in which the GPU worked.";
    let mut busy = text.family(Kind::Gauge, "lair_gpu_busy_ratio", help);
    for card in cards {
        let ratio = card.busy_percent.map(|percent| f64::from(percent) / 100.0);
        busy.known(&[("gpu", label(card))], ratio);
    }
    let name = "lair_gpu_temperature_celsius";
    let mut heat = text.family(Kind::Gauge, name, "Temperature of the GPU.");
    for card in cards {
        heat.known(&[("gpu", label(card))], card.temperature_c);
    }
}

fn label(card: &Card) -> &str {
    card.uuid.as_deref().unwrap_or("unknown")
}
