//! lair, the Local AI Runtime: turns a manifest into a running module, keeps the truth about it, and never does more
//! than it was asked.
//!
//! Owns: the face for embedders ([`Runtime`], [`RuntimeHandle`]) and for everybody else (the bridge, the program).
//! Promises: what `docs/promises.md` says, each with the name of its test. Never: resolves dependencies, evaluates
//! policy, shows a UI, or installs a signal handler, subscriber or panic hook in its host.
#![forbid(unsafe_code)]

pub mod bridge;
#[doc(hidden)]
pub mod cli;
pub mod client;
pub mod codes;
mod containers;
mod doctor;
mod folders;
pub mod handle;
pub mod metrics;
mod ports;
mod prepare;
pub mod reload;
pub mod resources;
mod resume;
mod runtime;
pub mod signals;
pub mod tail;
pub mod testing;
mod vouch;

pub use folders::Folders;
pub use handle::{LoadOptions, ManifestSource, Refused, RuntimeHandle, WaitFor};
pub use lair_actors as actors;
pub use lair_actors::keeper::hijack;
pub use lair_manifests as manifests;
pub use lair_supervision as supervision;
pub use runtime::{Runtime, RuntimeError, RuntimeOptions};
