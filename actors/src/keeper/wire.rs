//! The keeper's protocol: one message per SEQPACKET datagram, descriptors beside it.
//!
//! Owns the encoding of [`Request`] and [`Event`]: a tag byte, then fixed-width little-endian fields; texts and
//! lists carry a `u32` count. Promises that decoding never panics and never allocates more than the datagram's
//! own size; anything left over after the last field is an error. Never touches a descriptor itself.

mod confine;
mod event;
mod fields;
mod request;

pub use event::Event;
pub use fields::WireFault;
pub use request::Request;

/// Raised with every change of the messages. The runtime speaks every version from [`OLDEST_VERSION`] on: a keeper
/// outlives the program that started it, so it can be older than its runtime, or newer after a step back.
/// Version 2 added [`Request::Store`], [`Request::Unstore`] and [`Event::Stored`]; version 3 what a child may still do to
/// [`Request::Spawn`]: an older keeper refuses to read such a request, rather than start a child without its bounds.
pub const PROTOCOL_VERSION: u32 = 3;

/// The oldest version that is still spoken.
pub const OLDEST_VERSION: u32 = 1;

/// From this version on a keeper stores descriptors for its runtime.
pub const STORES_SINCE: u32 = 2;

/// The largest datagram; a longer spawn request travels in a memfd.
pub const MAX_DATAGRAM: usize = 64 * 1024;

/// The largest spawn request in a memfd. Above it nothing could be executed anyway (`execve` takes 6 MiB at most).
pub const MAX_MEMFD: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod test;
