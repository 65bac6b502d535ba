//! What touches the world: lair's actors and what they drive.
//!
//! Owns: processes ([`backend`], [`keeper`], [`cgroup`]), log files ([`pump`], [`files`]), probes ([`health`], [`probe`]), time
//! ([`clock`]) and the actors that hold them. Promises: handlers never wait for long work. Never: decides about a
//! child's life; that is `lair_supervision::decide` alone.

pub mod backend;
pub mod cgroup;
pub mod clock;
pub mod confinement;
pub mod dossier;
pub mod events;
pub mod evidence;
pub mod exposure;
pub mod facts;
pub mod fault;
pub mod files;
pub mod footprint;
pub mod health;
pub mod keeper;
pub mod ledger;
pub mod log;
pub mod messages;
pub mod module;
pub mod park;
pub mod probe;
pub mod pump;
pub mod root;
pub mod status;
pub mod tally;
pub mod undertaker;
pub mod view;
mod vram;
