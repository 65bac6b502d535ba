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

/// Raised with every incompatible change; both ends must agree.
pub const PROTOCOL_VERSION: u32 = 2;

/// The largest datagram; a longer spawn request travels in a memfd.
pub const MAX_DATAGRAM: usize = 64 * 1024;

/// The largest spawn request in a memfd. Above it nothing could be executed anyway (`execve` takes 6 MiB at most).
pub const MAX_MEMFD: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod test;
