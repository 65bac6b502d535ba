//! Bytes to lines, bounded in length and depth before anything is parsed.
//!
//! Owns: the bytes of one connection that are not yet a line. Promises: the same lines whatever the chunks; memory
//! stays under the limit plus one read. Never: looks at meaning.

use std::fmt;

/// Why a line is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than the limit; the connection can't go on.
    TooLarge,
    /// Nested deeper than the limit; the connection does not go on.
    TooDeep,
    /// Not UTF-8; the next line may be.
    NotUtf8,
}

impl FrameError {
    /// The stable code on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            FrameError::TooLarge => "frame_too_large",
            FrameError::TooDeep => "frame_too_deep",
            FrameError::NotUtf8 => "not_utf8",
        }
    }

    /// Is the connection closed after the error reply?
    #[must_use]
    pub fn is_fatal(self) -> bool {
        !matches!(self, FrameError::NotUtf8)
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLarge => write!(f, "a line is longer than the limit"),
            FrameError::TooDeep => write!(f, "a line is nested deeper than the limit"),
            FrameError::NotUtf8 => write!(f, "a line is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Cuts a byte stream into lines.
pub struct FrameReader {
    buf: Vec<u8>,
    /// First byte of the line under way.
    start: usize,
    /// No newline before this one.
    scanned: usize,
    max_len: usize,
    max_depth: usize,
}

/// How much one read may add.
const CHUNK: usize = 16 * 1024;

impl FrameReader {
    /// A reader for lines of at most `max_len` bytes and `max_depth` levels.
    #[must_use]
    pub fn new(max_len: usize, max_depth: usize) -> Self {
        FrameReader {
            buf: Vec::new(),
            start: 0,
            scanned: 0,
            max_len,
            max_depth,
        }
    }

    /// Where the next read goes: append to it, nothing else.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buf.is_empty() && self.buf.capacity() > 4 * CHUNK {
            self.buf = Vec::new();
        }
        if self.buf.capacity() - self.buf.len() < CHUNK / 4 {
            self.buf.reserve(CHUNK);
        }
        &mut self.buf
    }

    /// The next whole line without its end, if there is one.
    ///
    /// # Errors
    /// The line, or the beginning of one, breaks a bound or is not text.
    pub fn next_line(&mut self) -> Option<Result<&str, FrameError>> {
        let Some(at) = self.buf[self.scanned..].iter().position(|b| *b == b'\n') else {
            self.scanned = self.buf.len();
            let pending = self.scanned - self.start;
            return (pending > self.max_len).then_some(Err(FrameError::TooLarge));
        };
        let end = self.scanned + at;
        let line = self.start..end;
        self.start = end + 1;
        self.scanned = self.start;
        Some(self.check(line))
    }

    /// What is left when the peer has sent its last byte: a line whose end it forgot.
    pub fn last_line(&mut self) -> Option<Result<&str, FrameError>> {
        let line = self.start..self.buf.len();
        self.start = self.buf.len();
        self.scanned = self.start;
        (!line.is_empty()).then(|| self.check(line))
    }

    fn check(&self, line: std::ops::Range<usize>) -> Result<&str, FrameError> {
        let bytes = &self.buf[line];
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() > self.max_len {
            return Err(FrameError::TooLarge);
        }
        if depth(bytes) > self.max_depth {
            return Err(FrameError::TooDeep);
        }
        std::str::from_utf8(bytes).map_err(|_| FrameError::NotUtf8)
    }
}

/// Deepest nesting of brackets outside strings; right for every valid JSON text, harmless for others.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0usize, 0usize, false, false);
    for b in bytes {
        if quoted {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match b {
            b'"' => quoted = true,
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Result<String, FrameError>> {
        let mut reader = FrameReader::new(64, 4);
        let mut got = Vec::new();
        for chunk in chunks {
            reader.space().extend_from_slice(chunk);
            while let Some(line) = reader.next_line() {
                let line = line.map(str::to_owned);
                let stop = matches!(line, Err(e) if e.is_fatal());
                got.push(line);
                if stop {
                    return got;
                }
            }
        }
        got.extend(reader.last_line().map(|l| l.map(str::to_owned)));
        got
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_its_end_is_seen() {
        assert_eq!(lines(&[&[b'x'; 65]]), [Err(FrameError::TooLarge)]);
        assert_eq!(lines(&[&[b'x'; 64]]), [Ok("x".repeat(64))]);
    }

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        assert_eq!(
            lines(&[b"[[[[[]]]]]\n".as_slice()]),
            [Err(FrameError::TooDeep)]
        );
        assert_eq!(
            lines(&[br#"["[[[[[\"[[["]"#.as_slice()]),
            [Ok(r#"["[[[[[\"[[["]"#.into())]
        );
    }

    #[test]
    fn a_line_that_is_not_text_spoils_only_itself() {
        assert_eq!(
            lines(&[b"\xff\xfe\n{}\r\n".as_slice()]),
            [Err(FrameError::NotUtf8), Ok("{}".into())]
        );
    }

    proptest! {
        #[test]
        fn the_same_lines_come_out_whatever_the_chunks(
            body in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 1 => Just(b'\n'), 1 => Just(b'{'), 1 => Just(b'}'), 1 => Just(b'"'), 1 => any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0usize..300, 0..20),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &body[w[0]..w[1]]).collect();
            prop_assert_eq!(lines(&chunks), lines(&[&body]));
        }
    }
}
