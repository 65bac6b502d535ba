//! Modules' output on our own stdout and stderr, written by a thread of its own.
//!
//! Promises: a reader that is slow or gone never holds the runtime up: what it has not taken stays in the log files.

use super::error::CliError;
use super::host::Asks;
use super::style::{Style, Tone};
use crate::tail::Tail;
use lair_actors::files::StreamName;
use lair_actors::files::read::Batch;
use std::io::{self, Write};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Batches on their way to the thread.
const QUEUE: usize = 4;

/// How long a reader may take for the last of the output, once somebody has asked lair to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes in the order of the log, each stretch with whether it goes to stderr.
type Chunk = Vec<(bool, Vec<u8>)>;

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
                for (is_err, bytes) in chunk {
                    if is_err {
                        err = err && put(&mut io::stderr().lock(), &bytes);
                    } else {
                        out = out && put(&mut io::stdout().lock(), &bytes);
                    }
                }
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
        let mut chunk = Chunk::new();
        for entry in &batch.entries {
            let is_err = match entry.stream {
                StreamName::Stdout => false,
                StreamName::Stderr => true,
                StreamName::Lair => continue,
            };
            if chunk.last().is_none_or(|(last, _)| *last != is_err) {
                chunk.push((is_err, Vec::new()));
            }
            let Some((_, to)) = chunk.last_mut() else {
                continue;
            };
            if let Some(prefix) = prefix {
                to.extend_from_slice(prefix.as_bytes());
            }
            to.extend_from_slice(&entry.bytes);
            if !entry.partial || prefix.is_some() {
                to.push(b'\n');
            }
        }
        if !chunk.is_empty() {
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
    to.write_all(bytes).and_then(|()| to.flush()).is_ok()
}

/// Modules' output on its way from their logs to our own stdout and stderr.
pub struct Screen {
    /// The logs.
    pub tails: Tails,
    /// Somebody has asked lair to end: a reader that takes nothing is not waited for.
    pub hurry: bool,
    printer: Printer,
}

impl Screen {
    /// An empty one.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start() -> Result<Self, CliError> {
        let printer =
            Printer::start().ok_or_else(|| CliError::new("internal", "cannot start a thread"))?;
        Ok(Screen {
            tails: Tails::default(),
            hurry: false,
            printer,
        })
    }

    /// Prints what there is; waits until there is something.
    pub async fn pass_on(&mut self) {
        self.tails.pass_on(&self.printer).await;
    }

    /// Prints while something else is awaited.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.pass_on() => {}
            }
        }
    }

    /// Prints all that is left, as long as somebody reads it; what is not taken stays in the log files.
    pub async fn finish(self, asks: &mut Asks) {
        let Screen {
            mut tails,
            hurry,
            printer,
        } = self;
        let rest = async {
            tails.finish(&printer).await;
            printer.finish().await;
        };
        tokio::pin!(rest);
        if !hurry {
            tokio::select! {
                () = &mut rest => return,
                () = asks.end_or_hangup() => {}
            }
        }
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    }
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
