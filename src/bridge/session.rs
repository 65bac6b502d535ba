//! One connection: lines in, replies and notifications out, all in one task.
//!
//! Promises: exactly one reply per id, in any order; what changes something is carried out even if the peer leaves;
//! a peer that does not read is not read from. Never: spawns a task or waits for an actor to answer a read.

use super::frame::{FrameError, FrameReader};
use super::methods::logs::FollowParams;
use super::methods::results::{Done, Subscribed};
use super::methods::types::{SubscribeParams, UnsubscribeParams};
use super::methods::{Call, Context, Later, OnConnection, params, registry};
use super::subscription::{EventSubscription, LogSubscription};
use super::wire::{Request, RpcError, write_error, write_result};
use super::{MAX_DEPTH, MAX_FRAME, MAX_IN_FLIGHT, MAX_QUEUED, MAX_SUBSCRIPTIONS};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lair_supervision::Seq;
use serde_json::value::RawValue;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// Output is written before more lines are looked at.
const BUSY: usize = 64 * 1024;
/// How often a connection that is not read from is looked at for its peer's end.
const LOOK: Duration = Duration::from_secs(1);

type Work = FuturesUnordered<Pin<Box<dyn Future<Output = Vec<u8>> + Send>>>;

/// Whether more bytes can come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// The peer has sent its last byte, or we look at no more.
    Ended,
}

struct Session {
    context: Context,
    frames: FrameReader,
    out: Vec<u8>,
    written: usize,
    input: Input,
    /// The peer is gone: only what changes something is still carried out.
    gone: bool,
    changes: Work,
    waits: Work,
    events: Vec<EventSubscription>,
    logs: Vec<LogSubscription>,
    next_subscription: u64,
    newest: watch::Receiver<Seq>,
    closing: watch::Receiver<bool>,
}

/// Serves one peer until it leaves or the server closes.
pub(super) async fn run(mut stream: UnixStream, context: Context, closing: watch::Receiver<bool>) {
    let mut session = Session {
        newest: context.handle.newest_event(),
        context,
        frames: FrameReader::new(MAX_FRAME, MAX_DEPTH),
        out: Vec::new(),
        written: 0,
        input: Input::Open,
        gone: false,
        changes: Work::new(),
        waits: Work::new(),
        events: Vec::new(),
        logs: Vec::new(),
        next_subscription: 1,
        closing,
    };
    while !session.step_is_last(&mut stream).await {}
}

impl Session {
    fn queued(&self) -> usize {
        self.out.len() - self.written
    }

    fn may_take(&self) -> bool {
        self.gone || (self.queued() < BUSY && self.changes.len() + self.waits.len() < MAX_IN_FLIGHT)
    }

    /// Handles what is there, then waits for one thing to happen.
    #[allow(clippy::disallowed_methods, reason = "real sockets live in real time")]
    async fn step_is_last(&mut self, stream: &mut UnixStream) -> bool {
        self.take_lines();
        self.pump_events();
        self.pump_logs();
        if self.gone {
            self.out.clear();
            self.written = 0;
            self.waits.clear();
            self.events.clear();
            self.logs.clear();
        }
        let idle = self.changes.is_empty()
            && self.waits.is_empty()
            && self.events.is_empty()
            && self.logs.is_empty();
        if self.input == Input::Ended && idle && self.queued() == 0 {
            return true;
        }
        let closing = *self.closing.borrow();
        let reads = self.input == Input::Open && self.may_take() && !closing;
        let pumps = !self.events.is_empty() && self.queued() < BUSY;
        let tails = !self.logs.is_empty() && self.queued() < BUSY;
        if closing && self.queued() == 0 && self.changes.is_empty() && self.waits.is_empty() {
            return true;
        }
        let (mut reader, mut writer) = stream.split();
        tokio::select! {
            biased;
            done = writer.write(&self.out[self.written..]), if self.written < self.out.len() => match done {
                Ok(n) if n > 0 => self.wrote(n),
                _ => self.leave(),
            },
            Some(reply) = self.changes.next(), if !self.changes.is_empty() => self.out.extend_from_slice(&reply),
            Some(reply) = self.waits.next(), if !self.waits.is_empty() => self.out.extend_from_slice(&reply),
            got = reader.read_buf(self.frames.space()), if reads => match got {
                Ok(0) => self.input_ended(stream).await,
                Ok(_) => {}
                Err(_) => self.leave(),
            },
            _ = self.newest.changed(), if pumps => {}
            () = fresh(&mut self.logs), if tails => {}
            _ = self.closing.changed(), if !closing => {}
            () = tokio::time::sleep(LOOK), if !reads && !self.gone => {
                if has_left(stream).await {
                    self.leave();
                }
            }
        }
        false
    }

    fn wrote(&mut self, n: usize) {
        self.written += n;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > 4 * BUSY {
                self.out = Vec::new();
            }
        }
    }

    async fn input_ended(&mut self, stream: &UnixStream) {
        self.input = Input::Ended;
        if has_left(stream).await {
            self.leave();
        }
    }

    /// Lines that have arrived are still carried out: their effect must not depend on when the peer left.
    fn leave(&mut self) {
        self.gone = true;
        self.input = Input::Ended;
    }

    fn take_lines(&mut self) {
        let mut frames = std::mem::replace(&mut self.frames, FrameReader::new(0, 0));
        while self.may_take() {
            let line = match frames.next_line() {
                None if self.input == Input::Ended => frames.last_line(),
                line => line,
            };
            match line {
                None => break,
                Some(Ok(line)) => self.take(line),
                Some(Err(e)) => self.refuse_frame(e, &mut frames),
            }
        }
        self.frames = frames;
    }

    fn refuse_frame(&mut self, error: FrameError, frames: &mut FrameReader) {
        self.context.counters.bad_request();
        write_error(&mut self.out, "null", &error.into());
        if error.is_fatal() {
            self.input = Input::Ended;
            *frames = FrameReader::new(MAX_FRAME, MAX_DEPTH);
        }
    }

    fn take(&mut self, line: &str) {
        self.context.counters.request();
        match Request::parse(line) {
            Ok(request) => self.dispatch(&request),
            Err(bad) => {
                self.context.counters.bad_request();
                write_error(&mut self.out, bad.id, &bad.error);
            }
        }
    }

    fn dispatch(&mut self, request: &Request<'_>) {
        let Some(method) = registry().get(&*request.method) else {
            return self.fail(request.id, &RpcError::unknown_method(&request.method));
        };
        match &method.call {
            Call::Now(f) => {
                let Some(id) = request.id else { return };
                let start = self.out.len();
                self.out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
                self.out.extend_from_slice(id.as_bytes());
                self.out.extend_from_slice(br#","result":"#);
                match f(&self.context, request.params, &mut self.out) {
                    Ok(()) => self.out.extend_from_slice(b"}\n"),
                    Err(e) => {
                        self.out.truncate(start);
                        self.fail(Some(id), &e);
                    }
                }
            }
            Call::Change(f) => match f(self.context.clone(), request.params) {
                Ok(work) => self.changes.push(Box::pin(finish(work, owned(request.id)))),
                Err(e) => self.fail(request.id, &e),
            },
            Call::Wait(f) => match f(self.context.clone(), request.params) {
                Ok(work) => {
                    let closing = self.closing.clone();
                    self.waits.push(Box::pin(finish(
                        or_closing(work, closing),
                        owned(request.id),
                    )));
                }
                Err(e) => self.fail(request.id, &e),
            },
            Call::Connection(what) => {
                if let Err(e) = self.on_connection(*what, request.id, request.params) {
                    self.fail(request.id, &e);
                }
            }
        }
    }

    fn fail(&mut self, id: Option<&str>, error: &RpcError) {
        if let Some(id) = id {
            write_error(&mut self.out, id, error);
        }
    }

    fn on_connection(
        &mut self,
        what: OnConnection,
        id: Option<&str>,
        raw: Option<&RawValue>,
    ) -> Result<(), RpcError> {
        let id = id.ok_or_else(|| RpcError::invalid_request("this method needs an id"))?;
        match what {
            OnConnection::Events => {
                let asked: SubscribeParams = params(raw)?;
                let subscription = self.new_subscription()?;
                let seq = *self.newest.borrow_and_update();
                let events = EventSubscription::new(subscription.clone(), asked, seq)?;
                write_result(
                    &mut self.out,
                    id,
                    &Subscribed {
                        subscription,
                        seq: seq.0,
                    },
                );
                self.events.push(events);
            }
            OnConnection::Logs => {
                let asked: FollowParams = params(raw)?;
                let subscription = self.new_subscription()?;
                let log = LogSubscription::new(subscription.clone(), &asked, &self.context.handle)?;
                let seq = self.newest.borrow().0;
                write_result(&mut self.out, id, &Subscribed { subscription, seq });
                self.logs.push(log);
            }
            OnConnection::Unsubscribe => {
                let asked: UnsubscribeParams = params(raw)?;
                let before = self.subscriptions();
                self.events.retain(|e| e.id() != asked.subscription);
                self.logs.retain(|l| l.id() != asked.subscription);
                if self.subscriptions() == before {
                    return Err(RpcError::refused(
                        "unknown_subscription",
                        "this connection has no such subscription",
                    ));
                }
                write_result(&mut self.out, id, &Done { done: true });
            }
        }
        Ok(())
    }

    fn subscriptions(&self) -> usize {
        self.events.len() + self.logs.len()
    }

    fn new_subscription(&mut self) -> Result<String, RpcError> {
        if self.subscriptions() >= MAX_SUBSCRIPTIONS {
            return Err(RpcError::refused(
                "too_many_subscriptions",
                "this connection follows as much as it may",
            ));
        }
        let id = self.next_subscription.to_string();
        self.next_subscription += 1;
        Ok(id)
    }

    fn pump_logs(&mut self) {
        let (out, written) = (&mut self.out, self.written);
        self.logs
            .retain_mut(|log| out.len() - written >= BUSY || log.pump(out));
    }

    fn pump_events(&mut self) {
        self.newest.borrow_and_update();
        let mut any = true;
        while any && self.out.len() - self.written < BUSY {
            any = false;
            for events in &mut self.events {
                any |= events.pump(&self.context.handle, &mut self.out);
            }
        }
    }
}

/// Is ready when one of the logs may have grown.
async fn fresh(logs: &mut [LogSubscription]) {
    std::future::poll_fn(|cx| {
        // All are polled, so that each wakes this task.
        let ready = logs
            .iter_mut()
            .filter_map(|l| l.poll_fresh(cx).is_ready().then_some(()))
            .count();
        if ready > 0 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

const _: () = assert!(
    BUSY * 2 < MAX_QUEUED,
    "what one step may add fits the bound"
);

fn owned(id: Option<&str>) -> Option<String> {
    id.map(str::to_owned)
}

/// The reply's line; nothing for a notification.
async fn finish(
    work: impl Future<Output = Result<Vec<u8>, RpcError>>,
    id: Option<String>,
) -> Vec<u8> {
    let reply = work.await;
    let mut out = Vec::new();
    let Some(id) = id else { return out };
    match reply {
        Ok(text) => {
            out.reserve(text.len() + id.len() + 40);
            out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(br#","result":"#);
            out.extend_from_slice(&text);
            out.extend_from_slice(b"}\n");
        }
        Err(e) => write_error(&mut out, &id, &e),
    }
    out
}

async fn or_closing(work: Later, mut closing: watch::Receiver<bool>) -> Result<Vec<u8>, RpcError> {
    tokio::select! {
        biased;
        reply = work => reply,
        _ = closing.wait_for(|c| *c) => Err(RpcError::refused("draining", "the runtime is shutting down")),
    }
}

/// Has the peer closed both directions?
async fn has_left(stream: &UnixStream) -> bool {
    let looked = tokio::time::timeout(Duration::ZERO, stream.ready(Interest::WRITABLE)).await;
    matches!(looked, Ok(Ok(ready)) if ready.is_write_closed()) || matches!(looked, Ok(Err(_)))
}
