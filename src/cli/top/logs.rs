//! The log pane: what is kept of a module's output, and where in it one looks.

use super::state::LogWant;
use crate::bridge::logline::LogLine;
use std::collections::VecDeque;

/// Lines kept; older ones are in the files, for `lair logs`.
pub const LINES: usize = 2000;
/// Characters kept of a line.
const LONGEST: usize = 4000;

/// A part of a module's log.
#[derive(Debug, Default)]
pub struct LogView {
    /// Which part it is.
    pub of: LogWant,
    /// Its lines, oldest first.
    pub lines: VecDeque<LogLine>,
    /// Only this stream.
    pub stream: Option<&'static str>,
    /// The run before the newest.
    pub previous: bool,
    /// Line that is looked at instead of the newest: the last one seen.
    pub at: Option<usize>,
    /// What is searched.
    pub search: String,
}

impl LogView {
    /// Takes lines; those of a part that is no longer looked at are dropped.
    pub fn take(&mut self, want: &LogWant, first: bool, lines: Vec<LogLine>) {
        if first {
            self.lines.clear();
            self.at = None;
            self.of = want.clone();
        } else if *want != self.of {
            return;
        }
        self.lines.extend(lines.into_iter().map(short));
        let over = self.lines.len().saturating_sub(LINES);
        self.lines.drain(..over);
        self.at = self.at.map(|at| at.saturating_sub(over));
    }

    /// Goes on to the next choice of streams.
    pub fn next_stream(&mut self) {
        self.stream = match self.stream {
            None => Some("stdout"),
            Some("stdout") => Some("stderr"),
            Some("stderr") => Some("lair"),
            Some(_) => None,
        };
    }

    /// One past the last line that is seen.
    #[must_use]
    pub fn end(&self) -> usize {
        self.at
            .map_or(self.lines.len(), |at| (at + 1).min(self.lines.len()))
    }

    /// Moves by so many lines; at the end the newest line is followed again.
    pub fn scroll(&mut self, by: isize, page: usize) {
        let end = self.end();
        let to = end
            .saturating_add_signed(by)
            .max(page.min(self.lines.len()));
        self.at = (to < self.lines.len()).then(|| to.saturating_sub(1));
    }

    /// Follows the newest line, or stays where it is.
    pub fn toggle_follow(&mut self) {
        self.at = match self.at {
            Some(_) => None,
            None => self.lines.len().checked_sub(1),
        };
    }

    /// Is this in a line?
    #[must_use]
    pub fn hits(&self, line: &LogLine) -> bool {
        !self.search.is_empty() && contains(&line.text, &self.search)
    }

    /// Goes to the next line with what is searched, backwards or forwards; false if there is none.
    pub fn find(&mut self, back: bool) -> bool {
        let here = self.end().saturating_sub(1);
        let hit = |at: &usize| self.hits(&self.lines[*at]);
        let found = if back {
            (0..here.min(self.lines.len())).rev().find(hit)
        } else {
            (here + 1..self.lines.len()).find(hit)
        };
        if let Some(at) = found {
            self.at = Some(at);
        }
        found.is_some()
    }

    /// Goes to the newest line with what is searched; false if there is none.
    pub fn find_newest(&mut self) -> bool {
        let found = (0..self.lines.len())
            .rev()
            .find(|at| self.hits(&self.lines[*at]));
        if let Some(at) = found {
            self.at = Some(at);
        }
        found.is_some()
    }
}

fn short(mut line: LogLine) -> LogLine {
    if line.text.contains(['\u{1b}', '\t', '\r']) {
        line.text = plain(&line.text);
    }
    if let Some((cut, _)) = line.text.char_indices().nth(LONGEST) {
        line.text.truncate(cut);
    }
    line.base64 = None;
    line
}

/// Without colours and other sequences for terminals; of what was overwritten in place, the last state.
fn plain(text: &str) -> String {
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or(text);
    let (mut out, mut chars) = (String::with_capacity(text.len()), text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\u{1b}' => {}
            '\t' => out.push_str("    "),
            c => out.push(c),
        }
    }
    out
}

/// Without regard to case where the words have none.
fn contains(text: &str, words: &str) -> bool {
    if words.chars().any(char::is_uppercase) {
        text.contains(words)
    } else {
        text.to_lowercase().contains(words)
    }
}
