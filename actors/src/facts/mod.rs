//! What the machine says about itself and about the trees of modules: read when asked, never in the background.
//!
//! Owns: reading of procfs and NVML. Promises: absence is a fact and not an error; a process that vanishes while it is
//! read is skipped; zombies count for nothing. Never: signals, waits for, or keeps a descriptor of a process.
//!
//! The functions here block for as long as the kernel takes (about 10 µs a file, a GPU driver sometimes seconds): call
//! them from a blocking thread.

mod desk;
mod diag;
mod gpu;
mod host;
mod listeners;
mod measure;
mod own;
mod sampler;
mod sockets;
mod table;
mod tree;
mod usage;

pub use desk::GpuDesk;
pub use gpu::{Gpu, GpuClient, GpuFacts, GpuReader};
pub use host::{CgroupMode, HostFactsRaw, host};
pub use listeners::{Holder, Listener, listeners, port_holder};
pub(crate) use measure::is_alive;
pub use measure::{Meter, Owner, claim, process_name};
pub use own::{OwnUsage, own_usage};
pub use sampler::{Sampled, Sampler};
pub use sockets::{Listening, Taken, listed, listening, sockets_of, taken_port};
pub(crate) use table::stays;
pub use table::{ProcessTable, belongs, pids};
pub use tree::{TreeProcess, processes};
pub use usage::{Usage, usage};
