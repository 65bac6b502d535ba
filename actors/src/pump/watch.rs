//! The line matcher of a `log` probe.
//!
//! Costs nothing while nobody watches. Sees complete lines of either stream, at most
//! [`LINE_MAX`] bytes of each, with invalid UTF-8 replaced.

use std::ops::ControlFlow;

use memchr::memchr;
use regex_lite::Regex;

use crate::files::{LINE_MAX, StreamName};

use super::command::StreamKey;

/// A line that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// Whose line.
    pub key: StreamKey,
    /// From which stream.
    pub stream: StreamName,
    /// The line, without its newline, invalid UTF-8 replaced.
    pub line: String,
}

pub(super) type Notify = Box<dyn FnMut(Matched) -> ControlFlow<()> + Send>;

pub(super) struct Watch {
    pub pattern: Regex,
    pub notify: Notify,
    pub tails: [Vec<u8>; 2],
}

// -----------------------------------------------------------------------------

impl Watch {
    /// Looks at bytes as they come; `Break` when the watcher has seen enough.
    pub fn feed(&mut self, key: &StreamKey, side: usize, mut bytes: &[u8]) -> ControlFlow<()> {
        while let Some(end) = memchr(b'\n', bytes) {
            self.keep(side, &bytes[..end]);
            bytes = &bytes[end + 1..];
            let tail = std::mem::take(&mut self.tails[side]);
            let line = String::from_utf8_lossy(&tail);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if self.pattern.is_match(line) {
                let stream = [StreamName::Stdout, StreamName::Stderr][side];
                let matched = Matched {
                    key: key.clone(),
                    stream,
                    line: line.to_owned(),
                };
                (self.notify)(matched)?;
            }
        }
        self.keep(side, bytes);
        ControlFlow::Continue(())
    }

    fn keep(&mut self, side: usize, bytes: &[u8]) {
        let tail = &mut self.tails[side];
        let free = LINE_MAX.saturating_sub(tail.len()).min(bytes.len());
        tail.extend_from_slice(&bytes[..free]);
    }
}
