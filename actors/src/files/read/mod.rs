//! Reading logs back: by query, from the end, and as they grow.
//!
//! Opens files for each reading and holds no state of the writer; a segment deleted or
//! compressed meanwhile is read to its end or passed over with a count. Memory is
//! bounded by one block and one record.

mod follow;
mod query;
mod recorded;
mod segment;
mod tail;

pub use follow::{Batch, Follower};
pub use query::{Entries, LogReader, Query, Runs};
pub use recorded::{Recorded, recorded};
pub use segment::{Cursor, Entry};
