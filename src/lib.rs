//! lair, the Local AI Runtime, as a library.
pub mod handle;
