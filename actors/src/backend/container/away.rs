//! A container's output across the times in which nobody was connected to it, as lair was away or its engine: first from the
//! engine's log, then live.
//!
//! Owns: the order of the two. Promises: connected before the log is read, so that nothing falls between; a byte that
//! both have is handed on once; a connection that ended before the container is made again, and the log looked at once more at
//! the end; memory is bounded by what an engine's log may hold, and few logs are read at once; what is in neither is said.
//! Never: writes a file, or decides from where to go on ([`super::splice`] does).

use super::engine::{ConnectionEnd, ContainerState, HandedOn, HandingOn};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::{Feed, Stream};
use super::grip::Grip;
use super::splice::{Cut, Join, cut, has_line, join, join_at_a_guess, same_end};
use super::{News, QUICK, SLOW, Shared, pause, within};
use crate::backend::Streams;
use crate::files::read::Recorded;
use lair_supervision::ChildId;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// More of an engine's log is not held: older bytes of it go.
const MOST: usize = 24 << 20;
/// Live bytes read at once.
const CHUNK: usize = 64 << 10;
/// An engine may log a line a moment after it has handed it on.
const LATE: Duration = Duration::from_millis(50);
/// Readings of the log until the live output meets it.
const LOOKS: u32 = 20;
/// Live bytes that are read at once later.
const LITTLE: usize = 16 << 10;
/// How long after the end of its output a container may be seen to end that ended with it: so many moments.
const AT_ONCE: u32 = 20;
const MOMENT: Duration = Duration::from_millis(5);
/// A connection on which nothing comes for so long after the container's end has ended.
const SILENT: Duration = Duration::from_secs(1);
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

/// Connects to one that `runs`, then reads its log; of one that has ended there is only the log.
pub(super) async fn connect(whose: &Whose, runs: bool) -> Result<Connected, EngineFault> {
    let engine = &whose.shared.engine;
    let mut live = Streams::default();
    if runs {
        let (feed, streams) = Feed::new()?;
        let attach = engine.attach_again(&whose.container, feed);
        // At its end the two streams end: nobody waits for the feed.
        within(SLOW, "attach to it", attach).await?;
        // A connection to one that has ended meanwhile may never end.
        if whose.state().await? == Some(ContainerState::Running) {
            live = streams;
        }
    }
    let log = log(whose, None).await?;
    Ok(Connected { live, log })
}

impl Whose {
    fn missed(&self, what: &str) {
        let news = News::Missed(what.to_owned());
        self.shared.tell(&self.module, self.run, news);
    }

    async fn state(&self) -> Result<Option<ContainerState>, EngineFault> {
        let engine = &self.shared.engine;
        let asked = within(QUICK, "inspect it", engine.inspect(&self.container)).await?;
        Ok(asked.map(|facts| facts.state))
    }
}

/// Output of a container that was started just now, until its end. Each connection may end before.
pub(super) fn of_new(
    whose: Whose,
    live: HandingOn,
    grip: &Arc<Grip>,
) -> impl Future<Output = ()> + Send + use<> {
    let (over, grip) = (grip.over(), Arc::downgrade(grip));
    async move {
        let Ok(HandedOn { feed, end }) = live.await else {
            return;
        };
        let whole = match end {
            ConnectionEnd::Broken => false,
            ConnectionEnd::Whole => ended_with_it(&whose, &grip).await,
            ConnectionEnd::Unsure => {
                ended_with_it(&whose, &grip).await && logged_no_more(&whose, &feed).await
            }
        };
        if whole {
            return;
        }
        keep_up(whose, feed, grip, over).await;
    }
}

/// Output of a container of an earlier life, until its end, from its first connection on. It may have ended, and all be
/// read with that.
pub(super) fn of_found(
    whose: Whose,
    feed: Feed,
    (first, whole): (Connected, bool),
    grip: &Arc<Grip>,
) -> impl Future<Output = ()> + Send + use<> {
    let (mut over, grip) = (grip.over(), Arc::downgrade(grip));
    async move {
        let feed = go_on(&whose, feed, first, &mut over).await;
        if !whole {
            keep_up(whose, feed, grip, over).await;
        }
    }
}

/// Did the connection end because the container did?
async fn ended_with_it(whose: &Whose, grip: &Weak<Grip>) -> bool {
    for _ in 0..AT_ONCE {
        let Some(held) = grip.upgrade() else {
            return true;
        };
        let over = match held.is_seen() {
            true => held.is_over(),
            false => matches!(whose.state().await, Ok(Some(ContainerState::Exited))),
        };
        if over {
            return true;
        }
        drop(held);
        pause(MOMENT).await;
    }
    false
}

/// An engine that was killed and is back again says nothing of the connections it had; its log's last line does.
async fn logged_no_more(whose: &Whose, feed: &Feed) -> bool {
    let last = log(whose, Some(1)).await;
    last.is_ok_and(|[out, err]| {
        let has = |stream, line: &[u8]| has_line(&feed.seen(stream).tail, line);
        has(Stream::Out, &out) && has(Stream::Err, &err)
    })
}

/// Connects again whenever a connection has ended before the container, and looks into the log once more at its end.
async fn keep_up(whose: Whose, mut feed: Feed, grip: Weak<Grip>, mut over: watch::Receiver<bool>) {
    let Some(held) = grip.upgrade() else { return };
    held.falls_behind();
    drop(held);
    let (mut rest, mut is_heard_of_late) = (REST, true);
    loop {
        let there = tokio::select! {
            there = whereabouts(&whose, &grip) => there,
            () = feed.given_up() => return,
        };
        let runs = match there {
            Whereabouts::Gone => return,
            Whereabouts::Over => false,
            Whereabouts::Runs => {
                is_heard_of_late = false;
                true
            }
        };
        let had = feed.passed();
        match connect(&whose, runs).await {
            Ok(connected) => {
                feed = go_on(&whose, feed, connected, &mut over).await;
                if !runs {
                    if is_heard_of_late && !whose.shared.engine.logs_without_engine() {
                        whose.missed("what it wrote after its engine had gone away may be missing: it ended before that was back");
                    }
                    return;
                }
            }
            Err(fault) => {
                tracing::debug!(container = whose.container, %fault, "its output can't be read yet");
            }
        }
        if feed.is_unread() || grip.strong_count() == 0 {
            return;
        }
        rest = match feed.passed() > had {
            true => REST,
            false => (rest * 2).min(LONGEST_REST),
        };
        tokio::select! {
            () = pause(rest) => {}
            () = ended(&mut over) => pause(LATE).await,
        }
    }
}

/// It has ended, or nobody holds it any more.
async fn ended(over: &mut watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
}

enum Whereabouts {
    Runs,
    Over,
    /// Its engine knows nothing of it.
    Gone,
}

/// Waits for an engine that is away, and while it is paused: it says nothing then, and engines connect nobody to it. One that
/// has ended by the kernel's word is not connected to: Podman would make it anew, and forget how it ended.
async fn whereabouts(whose: &Whose, grip: &Weak<Grip>) -> Whereabouts {
    loop {
        let state = whose.state().await;
        let over = grip.upgrade().is_none_or(|held| held.is_over());
        match state {
            Ok(None) => return Whereabouts::Gone,
            Ok(Some(ContainerState::Exited)) => return Whereabouts::Over,
            Ok(Some(ContainerState::Running)) if !over => return Whereabouts::Runs,
            Ok(Some(ContainerState::Paused)) | Err(_) => pause(AGAIN).await,
            Ok(Some(_)) => pause(LATE).await,
        }
    }
}

/// Hands on what the log has behind what was handed on before, and then what comes, to the connection's end.
async fn go_on(
    whose: &Whose,
    feed: Feed,
    connected: Connected,
    over: &mut watch::Receiver<bool>,
) -> Feed {
    let Connected { live, log } = connected;
    let [out, err] = log;
    let (to_out, to_err) = feed.split();
    let side = |stream, feed| Side {
        whose,
        stream,
        feed,
        over: over.clone(),
    };
    let (out, err) = tokio::join!(
        side(Stream::Out, to_out).go_on(out, live.stdout),
        side(Stream::Err, to_err).go_on(err, live.stderr),
    );
    Feed::joined(out, err)
}

/// What the engine's log has now of both streams: all, or so many of the newest lines.
async fn log(whose: &Whose, newest: Option<u32>) -> Result<[Vec<u8>; 2], EngineFault> {
    // Each may be large, and all containers of an engine that is back are read at once.
    let _turn = match newest {
        None => whose.shared.log_readers.acquire().await.ok(),
        Some(_) => None,
    };
    let read = async {
        let (feed, streams) = Feed::new()?;
        let handing_on = whose
            .shared
            .engine
            .logs(&whose.container, newest, feed)
            .await?;
        let read = async { tokio::join!(whole(streams.stdout), whole(streams.stderr)) };
        let ((out, err), ended) = tokio::join!(read, ended_well(handing_on));
        match ended {
            true => Ok([out?, err?]),
            false => {
                let what = "its log broke off";
                Err(EngineFault::new(EngineFaultKind::Unreachable, what))
            }
        }
    };
    within(SLOW, "give its log", read).await
}

/// Waits for the end and lets the pipes go; says whether it was a good one.
async fn ended_well(handing_on: HandingOn) -> bool {
    handing_on
        .await
        .is_ok_and(|ended| ended.end == ConnectionEnd::Whole)
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
    over: watch::Receiver<bool>,
}

impl Side<'_> {
    async fn go_on(mut self, log: Vec<u8>, live: Option<OwnedFd>) -> Feed {
        let known = self.feed.seen(self.stream).clone();
        let Cut { at, gap, ahead } = cut(&log, &known);
        if gap {
            self.tell("what it wrote while lair was away did not all fit the engine's log: the oldest of it is lost");
        }
        let mut seen = Recorded::nothing();
        seen.push(&log);
        seen.push(&known.tail[known.tail.len() - ahead..]);
        self.feed.write(self.stream, &log[at..]).await;
        drop((log, known));
        let Some(mut live) = live.and_then(|fd| receiver(fd).ok()) else {
            return self.feed;
        };
        let mut head = self.first(&mut seen, &mut live).await;
        let Some((new, joined)) = self.meet(&seen, &mut head, &mut live).await else {
            // What is new stays to be read from the log.
            return self.feed;
        };
        let of_log = if head.is_empty() {
            new.len()
        } else {
            joined.of_log
        };
        self.feed.write(self.stream, &new[..of_log]).await;
        drop((new, seen));
        let known = joined.skip.min(head.len());
        let mut skip = joined.skip - known;
        self.feed.write(self.stream, &head[known..]).await;
        let mut got = head.len();
        drop(head);
        let mut buffer = vec![0; LITTLE];
        while got > 0 && !self.feed.is_unread() {
            got = self.next(&mut live, &mut buffer).await;
            let known = skip.min(got);
            skip -= known;
            self.feed.write(self.stream, &buffer[known..got]).await;
        }
        self.feed
    }

    /// The next live bytes; none at the end, which is also that nothing comes for a while after the container's.
    async fn next(&mut self, live: &mut Receiver, buffer: &mut [u8]) -> usize {
        let over = &mut self.over;
        let late = async {
            ended(over).await;
            pause(SILENT).await;
        };
        tokio::select! {
            biased;
            got = live.read(buffer) => got.unwrap_or(0),
            () = late => 0,
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
        let got = self.next(live, &mut head).await;
        head.truncate(got);
        head
    }

    /// What the log has by now behind what was seen of it.
    async fn unseen(&self, seen: &Recorded) -> Result<Vec<u8>, EngineFault> {
        let [out, err] = log(self.whose, None).await?;
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

    /// What the log has by now behind what was seen of it, and how the first live bytes fit to it; `None`: it can't be read.
    async fn meet(
        &self,
        seen: &Recorded,
        head: &mut Vec<u8>,
        live: &mut Receiver,
    ) -> Option<(Vec<u8>, Join)> {
        let apart = Join { of_log: 0, skip: 0 };
        let (mut new, mut is_read) = (Vec::new(), false);
        for _ in 0..LOOKS {
            pause(LATE).await;
            gather(head, live);
            new = match self.unseen(seen).await {
                Ok(new) => {
                    is_read = true;
                    new
                }
                Err(fault) => {
                    tracing::debug!(container = self.whose.container, %fault, "its log can't be read");
                    continue;
                }
            };
            if head.is_empty() {
                return Some((new, apart));
            }
            if let Some(joined) = join(&seen.tail, &new, head) {
                return Some((new, joined));
            }
            let rests = gather(head, live) == 0;
            if let Some(joined) = same_end(seen, &new, head).filter(|_| rests) {
                return Some((new, joined));
            }
        }
        if !is_read {
            return None;
        }
        let joined = join_at_a_guess(&seen.tail, &new, head);
        if joined.is_none() {
            self.tell(
                "what it wrote in the moment in which lair came back may be missing or there twice",
            );
        }
        Some((new, joined.unwrap_or(apart)))
    }

    fn tell(&self, what: &str) {
        let stream = match self.stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        self.whose.missed(&format!("{stream}: {what}"));
    }
}
