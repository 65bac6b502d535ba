//! What of a run's output is in its files: from where on a source that still has all of it is to be read.
//!
//! Promises: the bytes of a stream exactly as they came, the newest at the end. Never: more of them than the tail.

use std::io;
use std::path::Path;

use crate::files::StreamName;

use super::query::{LogReader, Query, Runs};

/// Newest bytes that are told.
const TAIL: usize = 64 << 10;
/// Segments that are counted through; of longer runs only the end is read.
const COUNTED: usize = 8;
/// Records that are read of a longer run.
const LAST: usize = 4096;

/// The output of one stream, as far as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its newest bytes.
    pub tail: Vec<u8>,
    /// All its bytes, where that is known.
    pub total: Option<u64>,
}

impl Recorded {
    /// Of a stream that has not begun.
    #[must_use]
    pub fn nothing() -> Self {
        Recorded {
            tail: Vec::new(),
            total: Some(0),
        }
    }

    /// More of it.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
        self.total = self.total.map(|total| total + bytes.len() as u64);
    }
}

/// What the files have of a run's stdout and stderr. Blocks on the disk.
///
/// # Errors
/// The module's folder or a file in it can't be read.
pub fn recorded(log_dir: &Path, module: &str, run: u64) -> io::Result<[Recorded; 2]> {
    let reader = match LogReader::open(log_dir, module) {
        Ok(reader) => reader,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok([Recorded::nothing(), Recorded::nothing()]);
        }
        Err(e) => return Err(e),
    };
    let side = |stream| {
        let names = reader.names(Runs::Number(run))?;
        let of = |name: &&crate::files::SegmentName| name.stream.is_none_or(|s| s == stream);
        let first = names.iter().filter(of).map(|name| name.segment).min();
        let whole = names.len() <= COUNTED && first.is_none_or(|first| first == 0);
        let query = Query {
            runs: Runs::Number(run),
            stream: Some(stream),
            tail: (!whole).then_some(LAST),
            ..Query::default()
        };
        let mut found = Recorded::nothing();
        found.total = found.total.filter(|_| whole);
        for entry in reader.entries(query)? {
            let entry = entry?;
            found.push(&entry.bytes);
            if !entry.partial {
                found.push(b"\n");
            }
        }
        Ok::<_, io::Error>(found)
    };
    Ok([side(StreamName::Stdout)?, side(StreamName::Stderr)?])
}
