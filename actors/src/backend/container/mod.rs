//! Containers: what all engines share.
//!
//! Owns: the way from a plan to a running container and to its removal. Promises: the same life for every engine.
//! Never: speaks an engine's own language; that is behind [`engine::Engine`].

pub mod docker;
pub mod engine;
pub mod fault;
pub mod feed;
mod http;
mod streams;
