//! A container's output across the time in which lair was away: first from the engine's log, then live.
//!
//! Owns: the order of the two. Promises: connected before the log is read, so that nothing falls between; a byte that
//! both have is handed on once; memory is bounded by what an engine's log may hold; what is in neither is said.
//! Never: writes a file, or decides from where to go on ([`super::splice`] does).

use super::fault::EngineFault;
use super::feed::{Feed, Stream};
use super::splice::{Cut, Join, cut, join, join_at_a_guess, same_end};
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
/// Live bytes that are gathered until then.
const AHEAD: usize = 512 << 10;
/// A connection that takes its time may begin behind the log's end: what lies between is looked for after this long, so
/// often, if nothing comes live.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_LOOKS: u32 = 3;

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

/// Adds what has come; says how much.
fn gather(head: &mut Vec<u8>, live: &mut Receiver) -> usize {
    let had = head.len();
    head.resize(AHEAD.max(had), 0);
    let more = live.try_read(&mut head[had..]).unwrap_or(0);
    head.truncate(had + more);
    more
}

struct Side {
    whose: Whose,
    stream: Stream,
    feed: Feed,
}

impl Side {
    async fn go_on(mut self, log: Vec<u8>, known: Recorded, live: Option<OwnedFd>) {
        let Cut { at, gap, ahead } = cut(&log, &known);
        if gap {
            self.tell("what it wrote while lair was away did not all fit the engine's log: the oldest of it is lost");
        }
        let mut seen = Recorded {
            tail: Vec::new(),
            total: Some(0),
        };
        seen.push(&log);
        seen.push(&known.tail[known.tail.len() - ahead..]);
        self.feed.write(self.stream, &log[at..]).await;
        drop((log, known));
        let Some(mut live) = live.and_then(|fd| receiver(fd).ok()) else {
            return;
        };
        let mut head = self.first(&mut seen, &mut live).await;
        let (new, joined) = self.meet(&seen, &mut head, &mut live).await;
        let of_log = if head.is_empty() {
            new.len()
        } else {
            joined.of_log
        };
        self.feed.write(self.stream, &new[..of_log]).await;
        drop(new);
        let mut skip = joined.skip;
        let mut buffer = head;
        let mut got = buffer.len();
        while got > 0 {
            let known = skip.min(got);
            skip -= known;
            self.feed.write(self.stream, &buffer[known..got]).await;
            if self.feed.is_unread() {
                return;
            }
            buffer.resize(CHUNK, 0);
            got = live.read(&mut buffer).await.unwrap_or(0);
        }
    }

    /// The first live bytes; none at the end. What the log has and nobody hands on meanwhile is not held up by them.
    async fn first(&mut self, seen: &mut Recorded, live: &mut Receiver) -> Vec<u8> {
        let mut head = vec![0; CHUNK];
        for _ in 0..QUIET_LOOKS {
            if let Ok(got) = tokio::time::timeout(QUIET, live.read(&mut head)).await {
                head.truncate(got.unwrap_or(0));
                return head;
            }
            if let Ok(new) = self.unseen(seen).await {
                seen.push(&new);
                self.feed.write(self.stream, &new).await;
            }
        }
        let got = live.read(&mut head).await;
        head.truncate(got.unwrap_or(0));
        head
    }

    /// What the log has by now behind what was seen of it.
    async fn unseen(&self, seen: &Recorded) -> Result<Vec<u8>, EngineFault> {
        let [out, err] = log(&self.whose).await?;
        let mut log = match self.stream {
            Stream::Out => out,
            Stream::Err => err,
        };
        Ok(log.split_off(cut(&log, seen).at))
    }

    /// What the log has by now behind what was seen of it, and how the first live bytes fit to it.
    async fn meet(
        &self,
        seen: &Recorded,
        head: &mut Vec<u8>,
        live: &mut Receiver,
    ) -> (Vec<u8>, Join) {
        let apart = Join { of_log: 0, skip: 0 };
        let mut new = Vec::new();
        for _ in 0..LOOKS {
            pause(LATE).await;
            gather(head, live);
            new = match self.unseen(seen).await {
                Ok(new) => new,
                Err(fault) => {
                    tracing::debug!(container = self.whose.container, %fault, "its log can't be read");
                    continue;
                }
            };
            if head.is_empty() {
                return (new, apart);
            }
            if let Some(joined) = join(&seen.tail, &new, head) {
                return (new, joined);
            }
            let rests = gather(head, live) == 0;
            if let Some(joined) = same_end(seen, &new, head).filter(|_| rests) {
                return (new, joined);
            }
        }
        let joined = join_at_a_guess(&seen.tail, &new, head);
        if joined.is_none() {
            self.tell(
                "what it wrote in the moment in which lair came back may be missing or there twice",
            );
        }
        (new, joined.unwrap_or(apart))
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
