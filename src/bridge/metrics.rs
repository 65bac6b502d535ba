//! Counters as OpenMetrics text: for whoever scrapes through `runtime.metrics`.

use super::server::Counters;
use lair_actors::status::ModuleStatus;
use lair_actors::view::HealthWord;
use lair_supervision::Seq;
use std::fmt::Write;

/// The text's media type.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric of every module.
type Read = fn(&ModuleStatus) -> Option<f64>;

/// Counts are far below 2^53, where a double is exact.
#[allow(clippy::cast_precision_loss)]
fn exact(n: u64) -> f64 {
    n as f64
}

const MODULE: &[(&str, &str, &str, Read)] = &[
    (
        "lair_module_running",
        "gauge",
        "1 while the module runs.",
        |m| Some(f64::from(u8::from(m.state == "running"))),
    ),
    (
        "lair_module_ready",
        "gauge",
        "1 while the module serves.",
        |m| Some(f64::from(u8::from(m.ready))),
    ),
    (
        "lair_module_healthy",
        "gauge",
        "1 healthy, 0 unhealthy, absent when unknown.",
        |m| match m.health.state {
            HealthWord::Healthy => Some(1.0),
            HealthWord::Unhealthy => Some(0.0),
            HealthWord::Unknown => None,
        },
    ),
    (
        "lair_module_restarts",
        "gauge",
        "Automatic restarts since the last requested start.",
        |m| Some(f64::from(m.restarts.count)),
    ),
    (
        "lair_module_memory_bytes",
        "gauge",
        "Memory of the module's tree.",
        |m| m.resources.memory.current.map(exact),
    ),
    (
        "lair_module_cpu_seconds",
        "gauge",
        "CPU time of the current run.",
        |m| m.resources.cpu_ms.map(|ms| exact(ms) / 1000.0),
    ),
    (
        "lair_module_log_bytes",
        "gauge",
        "Output taken in the current run.",
        |m| Some(exact(m.logs.bytes)),
    ),
    (
        "lair_module_log_dropped_bytes",
        "gauge",
        "Output lost in the current run.",
        |m| Some(exact(m.logs.dropped)),
    ),
];

/// The text.
#[must_use]
pub fn render(seq: Seq, modules: &[ModuleStatus], counters: &Counters) -> String {
    let mut text = String::new();
    for (name, kind, help, read) in MODULE {
        let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {help}");
        for module in modules {
            if let Some(value) = read(module) {
                // A name needs no escaping: its alphabet has no quote.
                let _ = writeln!(text, "{name}{{module=\"{}\"}} {value}", module.name);
            }
        }
    }
    let _ = writeln!(
        text,
        "# TYPE lair_events counter\nlair_events_total {}",
        seq.0
    );
    for (name, value) in counters.all() {
        let _ = writeln!(
            text,
            "# TYPE lair_bridge_{name} counter\nlair_bridge_{name}_total {value}"
        );
    }
    text.push_str("# EOF\n");
    text
}
