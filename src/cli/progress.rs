//! What is happening while a verb waits: each module's phase, the evidence that it gets on, how long nothing has moved.
//!
//! Owns: lines on stderr. Promises: on a terminal a few lines that are drawn anew each second and gone at the end; else
//! one plain line every few seconds at most, the first after three. Never: changes what the verb does; speaks when quiet.

mod phase;
mod source;

use super::out::say;
use super::top::terminal::{Bell, monotonic_ms};
use crate::client::CallError;
use phase::Tracked;
pub use source::Source;
use source::{Modules, Open};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Time between two looks, ms.
const TICK: i64 = 1000;
/// What takes less than this is not worth a word, ms.
const FIRST: i64 = 3000;
/// Time between two plain lines, ms.
const PLAIN: i64 = 5000;
/// Modules that are shown one by one.
const SHOWN: usize = 6;

/// Tells how waiting goes on until it is dropped.
pub struct Progress {
    stop: Arc<(AtomicBool, Bell)>,
    thread: Option<JoinHandle<()>>,
}

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Lines that are drawn anew, if stderr is a terminal.
    Drawn,
    /// Plain lines: something else is printed there as well.
    Plain,
}

impl Progress {
    /// Begins to tell until when modules wait for `word` (`ready healthy stopped exited`); `None`: there is no thread
    /// or descriptor to be had, and waiting goes on without a word.
    #[must_use]
    pub fn begin(source: Source, names: &[String], word: &str, how: How) -> Option<Progress> {
        let stop = Arc::new((AtomicBool::new(false), Bell::new().ok()?));
        let drawn = how == How::Drawn && io::stderr().is_terminal();
        let mut teller = Teller {
            source,
            word: word.to_owned(),
            began: monotonic_ms(),
            said: 0,
            drawn: drawn.then_some(0),
            modules: names
                .iter()
                .map(|name| (name.clone(), Tracked::default()))
                .collect(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("lair-progress".into())
            .spawn(move || {
                // A daemon that does not answer is what the verb itself reports.
                let _ = teller.tell();
                teller.erase();
            })
            .ok()?;
        Some(Progress {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::SeqCst);
        self.stop.1.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Teller {
    source: Source,
    word: String,
    began: i64,
    said: i64,
    /// On a terminal: lines that are drawn.
    drawn: Option<usize>,
    modules: Modules,
    stop: Arc<(AtomicBool, Bell)>,
}

impl Teller {
    fn over(&self) -> bool {
        self.stop.0.load(Ordering::SeqCst)
    }

    fn tell(&mut self) -> Result<(), CallError> {
        // Most waits are over before anything is worth a word, and should cost nothing.
        let first = if self.drawn.is_some() { TICK } else { FIRST };
        self.stop.1.wait(None, first);
        if self.over() {
            return Ok(());
        }
        let mut open = self.source.open()?;
        while !self.over() {
            self.look(&mut open)?;
            self.show();
            if self.modules.values().all(|tracked| tracked.done) {
                return Ok(());
            }
            self.stop.1.wait(None, TICK);
        }
        Ok(())
    }

    fn look(&mut self, open: &mut Open) -> Result<(), CallError> {
        let list = open.list(&mut self.modules)?;
        let now = monotonic_ms();
        let mut close = Vec::new();
        for status in list {
            let Some(tracked) = self.modules.get_mut(&status.name) else {
                continue;
            };
            tracked.done = phase::is_done(&status, &self.word);
            if !tracked.done && close.len() < SHOWN {
                close.push((tracked.knows(status.run), status));
            }
        }
        for (known, status) in close {
            let seen = open.closer(&status, known)?;
            if let Some(tracked) = self.modules.get_mut(&status.name) {
                tracked.take(status, seen, now);
            }
        }
        Ok(())
    }

    fn show(&mut self) {
        let now = monotonic_ms();
        let waiting: Vec<(&String, &Tracked)> =
            self.modules.iter().filter(|(_, t)| !t.done).collect();
        let shown: Vec<String> = waiting
            .iter()
            .filter_map(|(name, t)| Some(format!("{name}: {}", t.words(now)?)))
            .take(SHOWN)
            .collect();
        let (all, left) = (self.modules.len(), waiting.len());
        if shown.is_empty() {
            return self.erase();
        }
        let waited = super::time::age(now - self.began);
        if self.drawn.is_some() {
            self.draw(&waited, &shown, left);
            return;
        }
        if self.said > 0 && now - self.said < PLAIN {
            return;
        }
        self.said = now;
        let more = match left - 1 {
            0 => String::new(),
            n => format!(" (and {n} more of {all})"),
        };
        say(&format!("{waited} {}{more}\n", shown[0]));
    }

    fn draw(&mut self, waited: &str, shown: &[String], left: usize) {
        self.erase();
        let width = crossterm::terminal::size().map_or(80, |(w, _)| usize::from(w.max(20)));
        let mut lines: Vec<String> = shown.to_vec();
        if left > shown.len() {
            lines.push(format!("and {} more", left - shown.len()));
        }
        let mut text = String::new();
        for line in &lines {
            let line: String = format!("{waited:>6}  {line}")
                .chars()
                .take(width - 1)
                .collect();
            text += &line;
            text.push('\n');
        }
        self.drawn = Some(lines.len());
        say(&text);
    }

    fn erase(&mut self) {
        if let Some(lines @ 1..) = self.drawn {
            say(&format!("\u{1b}[{lines}A\u{1b}[J"));
            self.drawn = Some(0);
        }
    }
}
