//! Modules' output on our own stdout and stderr, written by a thread of its own.
//!
//! Promises: a reader that is slow or gone never holds the runtime up: what it has not taken stays in the log files.

use super::style::{Style, Tone};
use crate::tail::Tail;
use lair_actors::files::StreamName;
use lair_actors::files::read::Batch;
use std::io::{self, Write};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Batches on their way to the thread.
const QUEUE: usize = 4;

struct Chunk {
    out: Vec<u8>,
    err: Vec<u8>,
}

/// The thread, and the way to it.
pub struct Printer {
    to: mpsc::Sender<Chunk>,
    thread: JoinHandle<()>,
}

impl Printer {
    /// Starts the thread.
    #[must_use]
    pub fn start() -> Option<Self> {
        let (to, mut from) = mpsc::channel::<Chunk>(QUEUE);
        let work = move || {
            let (mut out, mut err) = (true, true);
            while let Some(chunk) = from.blocking_recv() {
                out = out && put(&mut io::stdout().lock(), &chunk.out);
                err = err && put(&mut io::stderr().lock(), &chunk.err);
            }
        };
        let thread = std::thread::Builder::new()
            .name("lair-print".into())
            .spawn(work)
            .ok()?;
        Some(Printer { to, thread })
    }

    /// Is ready when another batch can be taken.
    pub async fn room(&self) {
        let _ = self.to.reserve().await;
    }

    /// Hands a batch over; call after [`Printer::room`]. lair's own remarks are left out.
    pub fn print(&self, batch: &Batch, prefix: Option<&str>) {
        let mut chunk = Chunk {
            out: Vec::new(),
            err: Vec::new(),
        };
        for entry in &batch.entries {
            let to = match entry.stream {
                StreamName::Stdout => &mut chunk.out,
                StreamName::Stderr => &mut chunk.err,
                StreamName::Lair => continue,
            };
            if let Some(prefix) = prefix {
                to.extend_from_slice(prefix.as_bytes());
            }
            to.extend_from_slice(&entry.bytes);
            if !entry.partial || prefix.is_some() {
                to.push(b'\n');
            }
        }
        if !(chunk.out.is_empty() && chunk.err.is_empty()) {
            // There is room: nobody else sends.
            let _ = self.to.try_send(chunk);
        }
    }

    /// Waits until all is written.
    pub async fn finish(self) {
        drop(self.to);
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

fn put(to: &mut impl Write, bytes: &[u8]) -> bool {
    bytes.is_empty() || to.write_all(bytes).and_then(|()| to.flush()).is_ok()
}

/// The logs of several modules, and how each is marked.
#[derive(Default)]
pub struct Tails {
    all: Vec<(Option<String>, Tail)>,
    next: usize,
}

impl Tails {
    /// Adds one; `width` is the widest name's.
    pub fn add(&mut self, name: Option<(&str, usize, Style)>, tail: Tail) {
        let prefix = name
            .map(|(name, width, style)| style.paint(Tone::Strong, &format!("{name:width$} | ")));
        self.all.push((prefix, tail));
    }

    /// Prints what there is, as far as the printer takes it; waits until there is something.
    pub async fn pass_on(&mut self, printer: &Printer) {
        std::future::poll_fn(|cx| {
            let ready = self
                .all
                .iter_mut()
                .filter_map(|(_, t)| t.poll_fresh(cx).is_ready().then_some(()))
                .count();
            if ready > 0 {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        printer.room().await;
        // One after the other, so that none starves.
        for _ in 0..self.all.len() {
            self.next = (self.next + 1) % self.all.len();
            let (prefix, tail) = &mut self.all[self.next];
            match tail.look() {
                Ok(batch) if batch.entries.is_empty() => {}
                Ok(batch) => return printer.print(&batch, prefix.as_deref()),
                Err(e) => tracing::warn!("a log can't be read: {e}"),
            }
        }
    }

    /// Prints all that is left.
    pub async fn finish(&mut self, printer: &Printer) {
        for (prefix, tail) in &mut self.all {
            while let Ok(batch) = tail.look_now() {
                printer.room().await;
                printer.print(&batch, prefix.as_deref());
                if !batch.more {
                    break;
                }
            }
        }
    }
}
