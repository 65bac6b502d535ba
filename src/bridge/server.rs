//! Accepts peers, within limits, and ends them with the runtime.
//!
//! Promises: a full table, a stranger or an empty descriptor table costs one line or a pause, never a spin. Never:
//! lets a connection outlive [`serve`].

use super::listen::{Bound, Watch};
use super::methods::Context;
use super::peer::{Peer, PeerPolicy};
use super::wire::{self, RpcError};
use super::{MAX_CONNECTIONS, session};
use crate::handle::RuntimeHandle;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why [`serve`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its shutdown condition came true.
    Shutdown,
    /// A peer drained the runtime.
    Drained,
}

/// What happened at the bridge since it began.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    open: AtomicU64,
    strangers: AtomicU64,
    crowded: AtomicU64,
    accept_errors: AtomicU64,
    requests: AtomicU64,
    bad_requests: AtomicU64,
    drained: watch::Sender<bool>,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn request(&self) {
        bump(&self.requests);
    }

    pub(super) fn bad_request(&self) {
        bump(&self.bad_requests);
    }

    pub(super) fn drained(&self) {
        self.drained.send_replace(true);
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Name and value of each.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 6] {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        [
            ("connections", read(&self.accepted)),
            ("strangers", read(&self.strangers)),
            ("crowded", read(&self.crowded)),
            ("accept_errors", read(&self.accept_errors)),
            ("requests", read(&self.requests)),
            ("bad_requests", read(&self.bad_requests)),
        ]
    }

    /// The same for `runtime.info`, with the limits.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let mut map: serde_json::Map<String, Value> = self
            .all()
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.into()))
            .collect();
        map.insert("open".into(), self.open().into());
        map.insert(
            "limits".into(),
            json!({
                "frame_bytes": super::MAX_FRAME,
                "depth": super::MAX_DEPTH,
                "connections": MAX_CONNECTIONS,
                "in_flight": super::MAX_IN_FLIGHT,
                "queued_bytes": super::MAX_QUEUED,
                "subscriptions": super::MAX_SUBSCRIPTIONS,
            }),
        );
        Value::Object(map)
    }
}

/// How long connections may take to end after the last request.
const GOODBYE: Duration = Duration::from_millis(500);
/// First and longest pause after a failed accept.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

struct Server {
    handle: RuntimeHandle,
    policy: PeerPolicy,
    counters: Arc<Counters>,
    closing: watch::Sender<bool>,
    sessions: JoinSet<()>,
}

/// Serves peers until `shutdown` is ready or a peer has drained the runtime. The socket file is removed at the end.
pub async fn serve(
    handle: RuntimeHandle,
    bound: Bound,
    policy: PeerPolicy,
    shutdown: impl Future<Output = ()>,
) -> Ended {
    serve_counted(handle, bound, policy, Arc::default(), shutdown).await
}

/// As [`serve`], with counters that others read too.
#[allow(clippy::disallowed_methods, reason = "real sockets live in real time")]
pub async fn serve_counted(
    handle: RuntimeHandle,
    mut bound: Bound,
    policy: PeerPolicy,
    counters: Arc<Counters>,
    shutdown: impl Future<Output = ()>,
) -> Ended {
    let mut server = Server {
        handle,
        policy,
        counters,
        closing: watch::Sender::new(false),
        sessions: JoinSet::new(),
    };
    let mut drained = server.counters.drained.subscribe();
    let mut watch = watch_folder(&bound);
    let mut pause = PAUSES.0;
    tokio::pin!(shutdown);
    let ended = loop {
        tokio::select! {
            () = &mut shutdown => break Ended::Shutdown,
            () = is_true(&mut drained) => break Ended::Drained,
            Some(_) = server.sessions.join_next() => {}
            changed = changed(watch.as_ref()) => match changed {
                Ok(()) => put_back(&mut bound, &mut watch),
                Err(e) => {
                    tracing::warn!("the socket's folder can't be watched any more: {e}");
                    watch = None;
                }
            },
            got = bound.listener.accept() => match got {
                Ok((stream, _)) => {
                    pause = PAUSES.0;
                    server.admit(stream);
                }
                Err(e) => {
                    bump(&server.counters.accept_errors);
                    tracing::warn!("can't accept a connection, pausing {pause:?}: {e}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            },
        }
    };
    bound.remove();
    server.close().await;
    ended
}

impl Server {
    fn admit(&mut self, stream: UnixStream) {
        bump(&self.counters.accepted);
        let peer = Peer::of(&stream);
        let Some(peer) = peer.filter(|_| self.policy.admits(peer)) else {
            bump(&self.counters.strangers);
            tracing::warn!("refused a stranger at the bridge: {peer:?}");
            let error = RpcError::refused("not_permitted", "this peer may not use the bridge");
            return refuse(
                &stream,
                &error.with_help("add its uid to `access.uids` in the configuration"),
            );
        };
        if self.sessions.len() >= MAX_CONNECTIONS {
            bump(&self.counters.crowded);
            let error = RpcError::refused(
                "too_many_connections",
                "the bridge has as many connections as it takes",
            );
            return refuse(&stream, &error);
        }
        let context = Context {
            handle: self.handle.clone(),
            peer,
            counters: self.counters.clone(),
        };
        let (counters, closing) = (self.counters.clone(), self.closing.subscribe());
        self.sessions.spawn(async move {
            bump(&counters.open);
            session::run(stream, context, closing).await;
            counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn close(mut self) {
        self.closing.send_replace(true);
        let all = async { while self.sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            self.sessions.abort_all();
        }
    }
}

/// One line, best effort: the peer is not waited for.
fn refuse(stream: &UnixStream, error: &RpcError) {
    let mut line = Vec::new();
    wire::write_error(&mut line, "null", error);
    let _ = stream.try_write(&line);
}

fn watch_folder(bound: &Bound) -> Option<Watch> {
    let dir = bound.path().parent()?;
    Watch::folder(dir, Watch::names())
        .inspect_err(|e| tracing::warn!("the socket's folder can't be watched: {e}"))
        .ok()
}

async fn is_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn changed(watch: Option<&Watch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn put_back(bound: &mut Bound, watch: &mut Option<Watch>) {
    if bound.is_there() {
        return;
    }
    match bound.again() {
        Ok(new) => {
            tracing::warn!(
                "the socket {} was removed; it is back",
                bound.path().display()
            );
            *bound = new;
            // The folder itself may have been replaced.
            *watch = watch_folder(bound);
        }
        Err(e) => tracing::error!("the socket was removed and can't be put back: {e}"),
    }
}
