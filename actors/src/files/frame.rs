//! Framing: from a module's bytes to records, and from records to a count of them.
//!
//! `<stamp> <stream> <F|P> <bytes>\n`. `F` ends with a newline in the module's output,
//! `P` does not: so the bytes of `P` and the bytes of `F` plus a newline, joined per
//! stream, are what the module wrote. Holds no state: what is not framed stays input.

use memchr::{memchr, memchr_iter};

use super::policy::{StreamName, Tally};
use super::stamp::STAMP_LEN;

/// A longer piece of a line is cut into `P` records of this size.
pub const LINE_MAX: usize = 16 * 1024;

/// The head of every record of a chunk: one clock reading, one stream.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    text: [u8; STAMP_LEN + 10],
    len: usize,
}

/// How far framing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed {
    /// Input before this position is in the output.
    pub to: usize,
    /// Whether it stopped for want of room, with more to frame.
    pub full: bool,
}

// -----------------------------------------------------------------------------

impl Prefix {
    /// The head for records of `stream` at the moment `stamp` tells.
    pub fn new(stamp: &[u8; STAMP_LEN], stream: StreamName) -> Self {
        let mut text = [b' '; STAMP_LEN + 10];
        let word = stream.as_str().as_bytes();
        text[..STAMP_LEN].copy_from_slice(stamp);
        text[STAMP_LEN + 1..=STAMP_LEN + word.len()].copy_from_slice(word);
        text[STAMP_LEN + 2 + word.len()] = b'F';
        Self {
            text,
            len: STAMP_LEN + 4 + word.len(),
        }
    }

    fn put(&self, mark: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text[..self.len]);
        let at = out.len() - 2;
        out[at] = mark;
    }

    fn put_full(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text[..self.len]);
    }

    /// One record of lair's own; newlines in the text become spaces.
    pub fn remark(&self, text: &str, out: &mut Vec<u8>) {
        self.put_full(out);
        out.extend(
            text.bytes()
                .take(LINE_MAX)
                .map(|c| if c == b'\n' { b' ' } else { c }),
        );
        out.push(b'\n');
    }
}

/// Appends the records of `input[from..]` to `out` while `out` stays within `room`.
///
/// With `flush`, a last piece without newline becomes a `P` record; else it is left.
/// With `must`, the first record is taken whatever its size: a fresh segment would
/// not hold it better.
pub fn frame(
    input: &[u8],
    from: usize,
    flush: bool,
    (room, must): (usize, bool),
    prefix: &Prefix,
    out: &mut Vec<u8>,
) -> Framed {
    let mut at = from;
    let fits = |out: &Vec<u8>, len: usize| {
        out.len() + prefix.len + len <= room || (must && out.is_empty())
    };
    for newline in memchr_iter(b'\n', &input[from..]) {
        let end = from + newline;
        while end - at > LINE_MAX {
            if !fits(out, LINE_MAX + 1) {
                return Framed { to: at, full: true };
            }
            piece(&input[at..at + LINE_MAX], prefix, out);
            at += LINE_MAX;
        }
        if !fits(out, end - at + 1) {
            return Framed { to: at, full: true };
        }
        prefix.put_full(out);
        out.extend_from_slice(&input[at..=end]);
        at = end + 1;
    }
    let least = if flush { 0 } else { LINE_MAX };
    while input.len() - at > least {
        let len = LINE_MAX.min(input.len() - at);
        if !fits(out, len + 1) {
            return Framed { to: at, full: true };
        }
        piece(&input[at..at + len], prefix, out);
        at += len;
    }
    Framed {
        to: at,
        full: false,
    }
}

fn piece(bytes: &[u8], prefix: &Prefix, out: &mut Vec<u8>) {
    prefix.put(b'P', out);
    out.extend_from_slice(bytes);
    out.push(b'\n');
}

/// How much of a module's output whole records hold. lair's own count for nothing.
pub fn tally_of(mut records: &[u8]) -> Tally {
    let mut tally = Tally::default();
    while let Some(end) = memchr(b'\n', records) {
        if let Some(record) = super::record::parse_record(&records[..end])
            && record.stream != StreamName::Lair
        {
            tally.bytes += record.bytes.len() as u64 + u64::from(!record.partial);
            tally.lines += u64::from(!record.partial);
        }
        records = &records[end + 1..];
    }
    tally
}
