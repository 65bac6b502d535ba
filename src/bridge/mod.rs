//! The bridge: JSON-RPC 2.0 over a Unix stream socket, one object per line (`docs/bridge.md`).
//!
//! Owns: the socket file, its connections, and every bound on what they may cost. Promises: exactly one reply per id;
//! reads are answered from published state without waiting for an actor; a peer that is slow, silent or hostile costs
//! itself only. Never: changes lifecycle state but through [`crate::handle::RuntimeHandle`]; trusts what it is told
//! about a peer instead of asking the kernel.

pub mod frame;
pub mod listen;
pub mod logline;
pub mod methods;
pub mod notice;
pub mod openrpc;
pub mod peer;
pub mod server;
mod session;
mod subscription;
pub mod wire;

pub use listen::{Bound, Stale, bind};
pub use peer::PeerPolicy;
pub use server::{Counters, Ended, serve, serve_counted};

/// Longest line a peer may send, in bytes: a stack of a thousand modules fits.
pub const MAX_FRAME: usize = 1 << 20;
/// Deepest nesting of arrays and objects in a line.
pub const MAX_DEPTH: usize = 64;
/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// Requests of one connection that wait for something at a time; more are not read until one is answered.
pub const MAX_IN_FLIGHT: usize = 32;
/// Bytes queued for one connection before its requests are no longer read.
pub const MAX_QUEUED: usize = 1 << 20;
/// Subscriptions of one connection.
pub const MAX_SUBSCRIPTIONS: usize = 16;
