//! A record as a reader sees it.

use super::policy::StreamName;
use super::stamp::{STAMP_LEN, Stamp};

/// One record, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When lair read the bytes.
    pub at: Stamp,
    /// Whose bytes they are.
    pub stream: StreamName,
    /// Whether the module had not ended the line here.
    pub partial: bool,
    /// The module's bytes, exactly, without the newline that ended them.
    pub bytes: &'a [u8],
}

/// Reads a line of a cri file, without its newline; `None` if it is not a record.
pub fn parse_record(line: &[u8]) -> Option<Record<'_>> {
    let at = Stamp::parse(line.get(..STAMP_LEN)?)?;
    let rest = line[STAMP_LEN..].strip_prefix(b" ")?;
    let space = rest.iter().take(7).position(|&c| c == b' ')?;
    let stream = StreamName::from_word(&rest[..space])?;
    let partial = match rest.get(space + 1)? {
        b'F' => false,
        b'P' => true,
        _ => return None,
    };
    let bytes = rest[space + 2..].strip_prefix(b" ")?;
    Some(Record {
        at,
        stream,
        partial,
        bytes,
    })
}
