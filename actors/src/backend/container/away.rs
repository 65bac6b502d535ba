//! A container's output across the time in which lair was away: first from the engine's log, then live.
//!
//! Owns: the order of the two. Promises: connected before the log is read, so that nothing falls between; a byte that
//! both have is handed on once; memory is bounded by what an engine's log may hold; what is in neither is said.
//! Never: writes a file, or decides from where to go on ([`super::splice`] does).

use super::fault::EngineFault;
use super::feed::{Feed, Stream};
use super::splice::{Cut, Join, cut, join};
use super::{News, SLOW, Shared, pause, within};
use crate::backend::Streams;
use crate::files::read::Recorded;
use lair_supervision::ChildId;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// More of an engine's log is not held: older bytes of it go.
const MOST: usize = 24 << 20;
/// Live bytes read at once.
const CHUNK: usize = 64 << 10;
/// An engine may log a line a moment after it has handed it on.
const LATE: Duration = Duration::from_millis(50);
/// Readings of the log until the live output meets it.
const LOOKS: u32 = 20;

/// Whose output it is.
#[derive(Clone)]
pub(super) struct Whose {
    pub shared: Arc<Shared>,
    pub container: String,
    pub module: ChildId,
    pub run: u64,
}

/// Output from behind what is recorded on: of the log, and then, if it still `runs`, as it comes.
pub(super) async fn output(
    whose: Whose,
    known: [Recorded; 2],
    runs: bool,
) -> Result<Streams, EngineFault> {
    let engine = &whose.shared.engine;
    let live = match runs {
        true => within(SLOW, "attach to it", engine.attach_again(&whose.container)).await?,
        false => Streams::default(),
    };
    let [out, err] = log(&whose).await?;
    let (feed, streams) = Feed::new()?;
    let (to_out, to_err) = feed.split();
    let [known_out, known_err] = known;
    let sides = [
        (Stream::Out, to_out, live.stdout, out, known_out),
        (Stream::Err, to_err, live.stderr, err, known_err),
    ];
    for (stream, feed, live, log, known) in sides {
        let side = Side {
            whose: whose.clone(),
            stream,
            feed,
        };
        tokio::spawn(side.go_on(log, known, live));
    }
    Ok(streams)
}

/// All that the engine's log has now, of both streams.
async fn log(whose: &Whose) -> Result<[Vec<u8>; 2], EngineFault> {
    let read = async {
        let streams = whose.shared.engine.logs(&whose.container, None).await?;
        let (out, err) = tokio::join!(whole(streams.stdout), whole(streams.stderr));
        Ok([out?, err?])
    };
    within(SLOW, "give its log", read).await
}

fn receiver(fd: OwnedFd) -> Result<Receiver, EngineFault> {
    Receiver::from_owned_fd(fd).map_err(|e| EngineFault::of_io("read its log", &e))
}

/// The newest bytes of a stream that ends.
async fn whole(fd: Option<OwnedFd>) -> Result<Vec<u8>, EngineFault> {
    let mut bytes = Vec::new();
    let Some(fd) = fd else { return Ok(bytes) };
    let (mut source, mut buffer) = (receiver(fd)?, vec![0; CHUNK]);
    loop {
        let got = source.read(&mut buffer).await;
        match got.map_err(|e| EngineFault::of_io("read its log", &e))? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
        if bytes.len() > MOST + MOST / 4 {
            bytes.drain(..bytes.len() - MOST);
        }
    }
}

struct Side {
    whose: Whose,
    stream: Stream,
    feed: Feed,
}

impl Side {
    async fn go_on(mut self, log: Vec<u8>, known: Recorded, live: Option<OwnedFd>) {
        let Cut { at, gap } = cut(&log, &known);
        if gap {
            self.tell("what it wrote while lair was away did not all fit the engine's log: the oldest of it is lost");
        }
        let mut seen = Recorded {
            tail: Vec::new(),
            total: Some(0),
        };
        seen.push(&log);
        self.feed.write(self.stream, &log[at..]).await;
        drop(log);
        let Some(mut live) = live.and_then(|fd| receiver(fd).ok()) else {
            return;
        };
        let mut buffer = vec![0; CHUNK];
        let first = live.read(&mut buffer).await.unwrap_or(0);
        let (new, joined) = self.meet(&seen, &buffer[..first]).await;
        let of_log = if first == 0 { new.len() } else { joined.of_log };
        self.feed.write(self.stream, &new[..of_log]).await;
        drop(new);
        let mut from = joined.skip;
        let mut got = first;
        while got > 0 {
            self.feed.write(self.stream, &buffer[from..got]).await;
            if self.feed.is_unread() {
                return;
            }
            from = 0;
            got = live.read(&mut buffer).await.unwrap_or(0);
        }
    }

    /// What the log has by now behind what was seen of it, and how the first live bytes fit to it.
    async fn meet(&self, seen: &Recorded, live: &[u8]) -> (Vec<u8>, Join) {
        let apart = Join { of_log: 0, skip: 0 };
        let mut new = Vec::new();
        for _ in 0..LOOKS {
            pause(LATE).await;
            let [out, err] = match log(&self.whose).await {
                Ok(logs) => logs,
                Err(fault) => {
                    tracing::debug!(container = self.whose.container, %fault, "its log can't be read");
                    continue;
                }
            };
            let mut log = match self.stream {
                Stream::Out => out,
                Stream::Err => err,
            };
            new = log.split_off(cut(&log, seen).at);
            if live.is_empty() {
                return (new, apart);
            }
            if let Some(joined) = join(&seen.tail, &new, live) {
                return (new, joined);
            }
        }
        self.tell(
            "what it wrote in the moment in which lair came back may be missing or there twice",
        );
        (new, apart)
    }

    fn tell(&self, what: &str) {
        let stream = match self.stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        let news = News::Missed(format!("{stream}: {what}"));
        self.whose
            .shared
            .tell(&self.whose.module, self.whose.run, news);
    }
}
