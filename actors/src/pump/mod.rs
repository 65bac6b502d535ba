//! The pump: one thread that moves bytes from modules' pipes into their log files.
//!
//! Owns the read ends and every open log file of a runtime. Promises that a healthy
//! disk loses nothing, that a failing one never blocks a module and every lost byte is
//! counted, and that a panic in its work loses and doubles nothing. Sleeps when nothing
//! is written. Never puts a log byte in a mailbox and never decides that a module has
//! ended: the end of a stream is only that.

mod command;
mod drain;
mod handle;
mod job;
mod kept;
mod outage;
mod registry;
mod run;
mod service;
mod stats;
mod timers;
mod watch;
mod worker;

pub use command::{AttachFault, CrashPoint, Drained, PumpEvent, StreamKey, Streams};
pub use handle::{Pump, PumpOptions};
pub use kept::KeptDesk;
pub use stats::StreamStats;
pub use watch::Matched;
