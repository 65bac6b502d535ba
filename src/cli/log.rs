//! lair's own log, to stderr or to the journal, written by a thread of its own.
//!
//! Promises: who does not read it never holds the runtime up; lines that find no room are counted and told. Never:
//! waits for a reader longer than [`GOODBYE`], at the program's end.

use super::out::say;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines on their way to the thread.
const QUEUE: usize = 1024;
/// How long the last lines may take.
const GOODBYE: Duration = Duration::from_millis(500);

enum Message {
    Line(Vec<u8>),
    /// Dropped when everything before it is written.
    End(#[allow(dead_code, reason = "its end is the message")] SyncSender<()>),
}

/// The way to the thread.
#[derive(Clone)]
pub struct Log {
    to: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// Where the lines go.
enum Sink {
    Stderr,
    /// Each is a datagram to this socket, which may come and go.
    Journal(UnixDatagram, &'static Path),
}

impl Sink {
    /// Falls back on stderr, which is the journal's too, where the system has no socket for us.
    fn to(journal: Option<&'static Path>) -> Self {
        let socket = journal.and_then(|at| Some((UnixDatagram::unbound().ok()?, at)));
        socket.map_or(Sink::Stderr, |(socket, at)| Sink::Journal(socket, at))
    }

    fn take(&self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stderr => io::stderr().lock().write_all(line),
            Sink::Journal(socket, at) => socket.send_to(line, at).map(|_| ()),
        }
    }
}

/// Waits for the last lines when dropped.
pub struct Flush(Log);

impl Log {
    /// Starts the thread, which writes to stderr or to the journal's socket; none if the system refuses.
    pub fn start(journal: Option<&'static Path>) -> Option<(Log, Flush)> {
        let (to, from) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Log {
            to,
            lost: lost.clone(),
        };
        std::thread::Builder::new()
            .name("lair-log".into())
            .spawn(move || write_all(&from, &lost, &Sink::to(journal)))
            .ok()?;
        Some((log.clone(), Flush(log)))
    }
}

fn write_all(from: &Receiver<Message>, lost: &AtomicU64, sink: &Sink) {
    while let Ok(message) = from.recv() {
        let Message::Line(line) = message else {
            continue;
        };
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            say(&format!(
                "warning: {missing} lines of this log found no reader\n"
            ));
        }
        let taken = sink.take(&line);
        // A journal that is being replaced takes nothing for a moment.
        if taken.is_err() && matches!(sink, Sink::Journal(..)) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One event comes as one write.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (end, ended) = sync_channel(0);
        if self.0.to.try_send(Message::End(end)).is_ok() {
            // Fails either way: with the end of the sender, or of our patience.
            let _ = ended.recv_timeout(GOODBYE);
        }
    }
}
