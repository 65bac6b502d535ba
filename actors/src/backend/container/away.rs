//! A container's output across the times in which nobody was connected to it, as lair was away or its engine: first from the
//! engine's log, then live.
//!
//! Owns: the order of the two. Promises: connected before the log is read, so that nothing falls between; a byte that
//! both have is handed on once; the log is looked at once more when the live output ends, as that may end early; memory is
//! bounded by what an engine's log may hold; what is in neither is said.
//! Never: writes a file, or decides from where to go on ([`super::splice`] does).

use super::engine::{ContainerState, HandingOn};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::{Feed, Stream};
use super::grip::Grip;
use super::splice::{Cut, Join, cut, join, join_at_a_guess, same_end};
use super::{News, QUICK, SLOW, Shared, pause, within};
use crate::backend::Streams;
use crate::files::read::Recorded;
use lair_supervision::ChildId;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
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
/// Questions to the engine, after the live output's end, whether it has seen the container's.
const LAST_LOOKS: u32 = 40;
/// Between two connections, at first; longer while they bring nothing.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Between two questions to an engine that is away.
const AGAIN: Duration = Duration::from_millis(250);
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

/// A connection to a container's output that was made while it had printed some already.
pub(super) struct Connected {
    live: Streams,
    log: [Vec<u8>; 2],
}

/// Connects to one that `runs`, then reads its log; to one that has ended there is only the log.
pub(super) async fn connect(whose: &Whose, runs: bool) -> Result<Connected, EngineFault> {
    let engine = &whose.shared.engine;
    let live = if runs {
        let (feed, streams) = Feed::new()?;
        let attach = engine.attach_again(&whose.container, feed);
        // At its end the two streams end: nobody waits for the feed.
        within(SLOW, "attach to it", attach).await?;
        streams
    } else {
        Streams::default()
    };
    let log = log(whose).await?;
    Ok(Connected { live, log })
}

/// Output of a container that was started just now, until its end. Each connection may end before.
pub(super) async fn of_new(whose: Whose, live: HandingOn, grip: Weak<Grip>) {
    if let Ok(feed) = live.await {
        keep_up(whose, feed, grip, true).await;
    }
}

/// Output of a container of an earlier life, until its end.
pub(super) async fn of_found(whose: Whose, feed: Feed, first: Connected, grip: Weak<Grip>) {
    // One that has ended has said all that there is to read.
    let whole = first.live.stdout.is_none();
    let feed = go_on(&whose, feed, first).await;
    keep_up(whose, feed, grip, whole).await;
}

/// Connects again whenever a connection has ended before the container. `whole`: nothing can have been missed so far.
async fn keep_up(whose: Whose, mut feed: Feed, grip: Weak<Grip>, mut whole: bool) {
    let mut rest = REST;
    loop {
        let there = tokio::select! {
            there = whereabouts(&whose, &grip) => there,
            () = feed.given_up() => return,
        };
        let Some(held) = grip.upgrade() else { return };
        match there {
            Whereabouts::Gone => return,
            Whereabouts::Over if whole => return,
            Whereabouts::Over | Whereabouts::OverUnseen => {
                held.falls_behind();
                drop(held);
                return last(&whose, &mut feed).await;
            }
            Whereabouts::Runs => held.falls_behind(),
        }
        drop(held);
        whole = false;
        let had = feed.passed();
        match connect(&whose, true).await {
            Ok(connected) => feed = go_on(&whose, feed, connected).await,
            Err(fault) => {
                tracing::debug!(container = whose.container, %fault, "its output can't be read yet");
            }
        }
        if feed.is_unread() {
            return;
        }
        rest = match feed.passed() > had {
            true => REST,
            false => (rest * 2).min(LONGEST_REST),
        };
        pause(rest).await;
    }
}

enum Whereabouts {
    Runs,
    Over,
    /// It ended while its engine was away.
    OverUnseen,
    /// Nobody holds it any more, or its engine knows nothing of it.
    Gone,
}

/// Waits for an engine that is away. Where it is not, the kernel's word on the end is enough.
async fn whereabouts(whose: &Whose, grip: &Weak<Grip>) -> Whereabouts {
    let engine = &whose.shared.engine;
    let is_over = || grip.upgrade().is_none_or(|held| held.is_over());
    if is_over() && within(QUICK, "answer", engine.ping()).await.is_ok() {
        return Whereabouts::Over;
    }
    let mut seen = true;
    loop {
        let over = is_over();
        let asked = within(QUICK, "inspect it", engine.inspect(&whose.container)).await;
        match asked.map(|facts| facts.map(|facts| facts.state)) {
            Ok(None) => return Whereabouts::Gone,
            Ok(Some(ContainerState::Exited)) if seen => return Whereabouts::Over,
            Ok(Some(ContainerState::Exited)) => return Whereabouts::OverUnseen,
            Ok(Some(ContainerState::Running | ContainerState::Paused)) if !over => {
                return Whereabouts::Runs;
            }
            Ok(Some(_)) => pause(LATE).await,
            Err(_) => {
                seen = false;
                pause(AGAIN).await;
            }
        }
    }
}

/// What the log has behind the end of the live output: a connection can end before the last lines have come through it. The
/// log is whole once the engine has seen the end.
async fn last(whose: &Whose, feed: &mut Feed) {
    for _ in 0..LAST_LOOKS {
        let engine = &whose.shared.engine;
        match within(QUICK, "inspect it", engine.inspect(&whose.container)).await {
            Ok(None) => return,
            Ok(Some(facts)) if facts.state == ContainerState::Exited => break,
            Ok(Some(_)) | Err(_) => pause(LATE).await,
        }
    }
    let [out, err] = match log(whose).await {
        Ok(log) => log,
        Err(fault) => {
            tracing::warn!(container = whose.container, %fault, "its last words can't be read");
            return;
        }
    };
    for (stream, log) in [(Stream::Out, out), (Stream::Err, err)] {
        let Cut { at, gap, .. } = cut(&log, feed.seen(stream));
        if !gap {
            feed.write(stream, &log[at..]).await;
        }
    }
}

/// Hands on what the log has behind what was handed on before, and then what comes, to the connection's end.
async fn go_on(whose: &Whose, feed: Feed, connected: Connected) -> Feed {
    let Connected { live, log } = connected;
    let [out, err] = log;
    let (to_out, to_err) = feed.split();
    let side = |stream, feed| Side {
        whose,
        stream,
        feed,
    };
    let (out, err) = tokio::join!(
        side(Stream::Out, to_out).go_on(out, live.stdout),
        side(Stream::Err, to_err).go_on(err, live.stderr),
    );
    Feed::joined(out, err)
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

struct Side<'a> {
    whose: &'a Whose,
    stream: Stream,
    feed: Feed,
}

impl Side<'_> {
    async fn go_on(mut self, log: Vec<u8>, live: Option<OwnedFd>) -> Feed {
        let known = self.feed.seen(self.stream).clone();
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
            return self.feed;
        };
        let mut head = self.first(&mut seen, &mut live).await;
        let (new, joined) = self.meet(&seen, &mut head, &mut live).await;
        let of_log = if head.is_empty() {
            new.len()
        } else {
            joined.of_log
        };
        self.feed.write(self.stream, &new[..of_log]).await;
        drop((new, seen));
        let mut skip = joined.skip;
        let mut buffer = head;
        let mut got = buffer.len();
        while got > 0 {
            let known = skip.min(got);
            skip -= known;
            self.feed.write(self.stream, &buffer[known..got]).await;
            if self.feed.is_unread() {
                break;
            }
            buffer.resize(CHUNK, 0);
            got = live.read(&mut buffer).await.unwrap_or(0);
        }
        self.feed
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
        let [out, err] = log(self.whose).await?;
        let mut log = match self.stream {
            Stream::Out => out,
            Stream::Err => err,
        };
        let Cut { at, gap, .. } = cut(&log, seen);
        if gap {
            let what = "its log has nothing of what it had";
            return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
        }
        Ok(log.split_off(at))
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
