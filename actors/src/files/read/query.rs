//! Which records are wanted, and going through them.

use std::io;
use std::path::Path;

use regex_lite::Regex;

use crate::files::{Folder, SegmentName, Stamp, StreamName, check_module_name};

use super::segment::{Cursor, Entry, Segment};
use super::tail;

/// Which runs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runs {
    /// The newest run on disk.
    #[default]
    Latest,
    /// The one before the newest.
    Previous,
    /// This one.
    Number(u64),
    /// All that are kept.
    All,
}

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of these runs.
    pub runs: Runs,
    /// Only the last so many of those that fit the rest.
    pub tail: Option<usize>,
    /// Not before.
    pub since: Option<Stamp>,
    /// Not after.
    pub until: Option<Stamp>,
    /// Only of this stream.
    pub stream: Option<StreamName>,
    /// Only where the pattern is found; invalid UTF-8 is replaced before.
    pub grep: Option<Regex>,
    /// From this place on.
    pub from: Option<Cursor>,
}

/// The log of one module.
#[derive(Debug)]
pub struct LogReader {
    folder: Folder,
}

/// Records in the order of the files.
pub struct Entries<'a> {
    folder: &'a Folder,
    query: Query,
    todo: std::vec::IntoIter<(SegmentName, u64)>,
    open: Option<Segment>,
    /// Segments that went while they were waited for.
    pub missed: u64,
}

// -----------------------------------------------------------------------------

impl Query {
    /// Whether a record fits. Records of unknown time fit every time.
    pub fn fits(&self, entry: &Entry) -> bool {
        let at = entry.at;
        self.stream.is_none_or(|s| s == entry.stream)
            && self.since.is_none_or(|t| at.is_none_or(|at| at >= t))
            && self.until.is_none_or(|t| at.is_none_or(|at| at <= t))
            && self
                .grep
                .as_ref()
                .is_none_or(|p| p.is_match(&String::from_utf8_lossy(&entry.bytes)))
    }
}

impl LogReader {
    /// Opens a module's log folder. Links are not followed.
    pub fn open(log_dir: &Path, module: &str) -> io::Result<Self> {
        check_module_name(module).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Self {
            folder: Folder::open(log_dir, module)?,
        })
    }

    /// The runs on disk, oldest first.
    pub fn runs(&self) -> io::Result<Vec<u64>> {
        let mut runs: Vec<_> = self.folder.segments()?.iter().map(|s| s.run).collect();
        runs.sort_unstable();
        runs.dedup();
        Ok(runs)
    }

    /// The records that fit, oldest first.
    pub fn entries(&self, query: Query) -> io::Result<Entries<'_>> {
        let mut names = self.names(query.runs)?;
        let mut starts = vec![0; names.len()];
        if let Some(from) = query.from {
            names.retain(|n| Cursor::at(*n, u64::MAX) >= from);
            starts = names
                .iter()
                .map(|n| {
                    if Cursor::at(*n, from.offset) == from {
                        from.offset
                    } else {
                        0
                    }
                })
                .collect();
        }
        if let Some(count) = query.tail {
            let first = starts.first().copied().unwrap_or(0);
            (names, starts) = tail::find(&self.folder, &names, first, &query, count)?;
        }
        let todo: Vec<_> = names.into_iter().zip(starts).collect();
        Ok(Entries {
            folder: &self.folder,
            query,
            todo: todo.into_iter(),
            open: None,
            missed: 0,
        })
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The segments of the runs asked for, in order, each once.
    pub(super) fn names(&self, runs: Runs) -> io::Result<Vec<SegmentName>> {
        let mut names: Vec<_> = self
            .folder
            .segments()?
            .into_iter()
            .map(|s| s.with_zst(false))
            .collect();
        let wanted = match runs {
            Runs::All => None,
            Runs::Number(run) => Some(Some(run)),
            Runs::Latest => Some(self.runs()?.last().copied()),
            Runs::Previous => Some(self.runs()?.iter().rev().nth(1).copied()),
        };
        if let Some(run) = wanted {
            names.retain(|n| Some(n.run) == run);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

impl Iterator for Entries<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let segment = match &mut self.open {
                Some(segment) => segment,
                None => {
                    let (name, offset) = self.todo.next()?;
                    match Segment::open(self.folder, name, offset) {
                        Ok(segment) => self.open.insert(segment),
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {
                            self.missed += 1;
                            continue;
                        }
                        Err(e) => return Some(Err(e)),
                    }
                }
            };
            match segment.next(true) {
                Ok(Some(entry)) if self.query.fits(&entry) => return Some(Ok(entry)),
                Ok(Some(_)) => {}
                Ok(None) => self.open = None,
                Err(e) => {
                    self.open = None;
                    return Some(Err(e));
                }
            }
        }
    }
}
