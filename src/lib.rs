//! lair, the Local AI Runtime, as a library.
pub mod bridge;
pub mod client;
pub mod handle;
pub mod signals;
pub mod tail;
