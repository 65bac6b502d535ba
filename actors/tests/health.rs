//! Health: thresholds, lateness, hostile modules, and what the machine says of them. Names are promises; `F1` and the
//! like are the families of faults they answer.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on shall stop, and one speaks to another"
)]

#[path = "health/support.rs"]
mod support;

#[path = "health/facts.rs"]
mod facts;
#[path = "health/gpu.rs"]
mod gpu;
#[path = "health/hostile.rs"]
mod hostile;
#[path = "health/lateness.rs"]
mod lateness;
#[path = "health/probes.rs"]
mod probes;
#[path = "health/progress.rs"]
mod progress;
#[path = "health/telling.rs"]
mod telling;
