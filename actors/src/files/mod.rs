//! Log files: their names, how they are opened, rotated, kept, compressed and read.
//!
//! Owns everything below `<log_dir>/<module>/`. Promises that runs never overwrite
//! each other, that no link is followed, and that every record can be told from what
//! a module printed. Never blocks on anything but the disk, and never reads a pipe:
//! that is the [`pump`](crate::pump)'s work.

mod folder;
mod frame;
mod name;
mod opened;
mod policy;
pub mod read;
mod record;
mod retain;
mod shelf;
mod stamp;
mod upkeep;
mod writer;

pub use folder::Folder;
pub use frame::{Framed, LINE_MAX, Prefix, frame, tally_of};
pub(crate) use name::DOSSIER;
pub use name::{NameFault, SegmentName, check_module_name, last_run};
pub use policy::{LogFault, LogFormat, LogPolicy, StreamName, Tally};
pub use record::{Record, parse_record};
pub use shelf::Shelf;
pub use stamp::{Stamp, Stamper};
pub use upkeep::{Upkeep, UpkeepOptions};
pub use writer::{Lane, RunFiles};
