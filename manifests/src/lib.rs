//! What was asked for: manifests, the runtime's configuration, and the choice of a mode.
//!
//! Owns: the shapes that people write ([`launch`] is what becomes of them). Promises: every mistake is reported at
//! once, with its position and a next step; the same input gives the same choice. Never: touches a process.
#![forbid(unsafe_code)]

pub mod launch;
