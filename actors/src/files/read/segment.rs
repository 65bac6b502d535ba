//! One segment, plain or compressed, record by record.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use crate::files::{Folder, LINE_MAX, SegmentName, Stamp, StreamName, parse_record};

/// A longer line of a raw file is given in parts of this size.
const LONGEST: usize = 2 * LINE_MAX;
const BLOCK: usize = 64 << 10;

/// A place in a module's log, before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor {
    /// The run.
    pub run: u64,
    /// The segment.
    pub segment: u64,
    /// The stream, for raw files only.
    pub stream: Option<StreamName>,
    /// The offset in the segment's bytes, uncompressed.
    pub offset: u64,
}

/// A record as it is given to readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When lair read the bytes; unknown for raw files.
    pub at: Option<Stamp>,
    /// Whose bytes they are. A line of a cri file that is no record counts as `Lair`.
    pub stream: StreamName,
    /// Whether the module had not ended the line here.
    pub partial: bool,
    /// The bytes, exactly, without the newline that ended them.
    pub bytes: Vec<u8>,
    /// Where the record is.
    pub here: Cursor,
    /// Where the next one is.
    pub next: Cursor,
}

/// An open segment, read forward.
pub(super) struct Segment {
    pub name: SegmentName,
    source: Source,
    offset: u64,
    line: Vec<u8>,
}

enum Source {
    Plain(BufReader<File>),
    Zst(Box<BufReader<zstd::stream::Decoder<'static, BufReader<File>>>>),
}

// -----------------------------------------------------------------------------

impl Cursor {
    pub(super) fn at(name: SegmentName, offset: u64) -> Self {
        Self {
            run: name.run,
            segment: name.segment,
            stream: name.stream,
            offset,
        }
    }
}

impl Segment {
    /// Opens a segment at an offset of its uncompressed bytes, whichever form it has.
    pub fn open(folder: &Folder, name: SegmentName, offset: u64) -> io::Result<Self> {
        for zst in [false, true] {
            let name = name.with_zst(zst);
            let mut file = match folder.read(&name.to_string()) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let source = if zst {
                let mut plain = BufReader::with_capacity(BLOCK, zstd::stream::Decoder::new(file)?);
                io::copy(&mut plain.by_ref().take(offset), &mut io::sink())?;
                Source::Zst(Box::new(plain))
            } else {
                file.seek(SeekFrom::Start(offset))?;
                Source::Plain(BufReader::with_capacity(BLOCK, file))
            };
            return Ok(Self {
                name,
                source,
                offset,
                line: Vec::new(),
            });
        }
        Err(io::Error::from(io::ErrorKind::NotFound))
    }

    /// The offset of the next record.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; `None` at the end. With `last`, the segment grows no more, and
    /// what stands there without newline is given too; else it is left for later.
    pub fn next(&mut self, last: bool) -> io::Result<Option<Entry>> {
        let limit = LONGEST - self.line.len().min(LONGEST);
        let source: &mut dyn BufRead = match &mut self.source {
            Source::Plain(file) => file,
            Source::Zst(plain) => plain.as_mut(),
        };
        if limit > 0 {
            source
                .take(limit as u64)
                .read_until(b'\n', &mut self.line)?;
        }
        let whole = self.line.ends_with(b"\n");
        if self.line.is_empty() || !(whole || last || self.line.len() >= LONGEST) {
            return Ok(None);
        }
        let here = Cursor::at(self.name, self.offset);
        self.offset += self.line.len() as u64;
        let next = Cursor::at(self.name, self.offset);
        if whole {
            self.line.pop();
        }
        let entry = entry(&self.line, whole, here, next);
        self.line.clear();
        Ok(Some(entry))
    }
}

/// What a line of a segment says.
pub(super) fn entry(line: &[u8], whole: bool, here: Cursor, next: Cursor) -> Entry {
    let framed = matches!(here.stream, None | Some(StreamName::Lair));
    let record = if framed { parse_record(line) } else { None };
    let stream = here.stream.unwrap_or(StreamName::Lair);
    let (at, stream, partial, bytes) = match record {
        Some(r) => (Some(r.at), r.stream, r.partial, r.bytes),
        None => (None, stream, !whole, line),
    };
    Entry {
        at,
        stream,
        partial,
        bytes: bytes.to_vec(),
        here,
        next,
    }
}
