//! lair, the Local AI Runtime, as a library.
pub mod bridge;
pub mod handle;
pub mod signals;
