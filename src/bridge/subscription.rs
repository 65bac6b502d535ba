//! What a connection follows: events, and modules' output.
//!
//! Promises: a subscriber gets every event it is not too late for, in order; else a gap and a snapshot. Never: queues
//! for a subscriber more than one batch: what it has not taken stays in the ring or in the log files.

use super::logline::LogLine;
use super::methods::logs::{FollowParams, unreadable};
use super::methods::types::{Name, SubscribeParams};
use super::notice::{WireEvent, kind_word};
use super::wire::{RpcError, write_notification};
use crate::handle::RuntimeHandle;
use crate::tail::Tail;
use lair_actors::status::ModuleStatus;
use lair_supervision::{Notice, Seq};
use serde::Serialize;

/// Events taken from the ring at a time.
const BATCH: usize = 64;

/// One subscription to events.
pub(super) struct EventSubscription {
    id: String,
    after: Seq,
    names: Vec<Name>,
    types: Vec<String>,
}

#[derive(Serialize)]
struct EventParams<'a> {
    subscription: &'a str,
    event: WireEvent<'a>,
}

#[derive(Serialize)]
struct GapParams<'a> {
    subscription: &'a str,
    gap: Gap,
}

#[derive(Serialize)]
struct Gap {
    from: Seq,
    to: Seq,
}

#[derive(Serialize)]
struct SnapshotParams<'a> {
    subscription: &'a str,
    snapshot: Snapshot,
}

#[derive(Serialize)]
struct Snapshot {
    seq: Seq,
    modules: Vec<ModuleStatus>,
}

impl EventSubscription {
    /// A subscription as asked for.
    ///
    /// # Errors
    /// It begins after the newest event's successor: that number is from another life of the runtime.
    pub(super) fn new(id: String, asked: SubscribeParams, newest: Seq) -> Result<Self, RpcError> {
        let after = match asked.from_seq {
            None => newest,
            Some(from) if from > newest.0 + 1 => {
                let error = RpcError::refused(
                    "unknown_seq",
                    &format!("the newest event is number {}", newest.0),
                );
                return Err(error
                    .with_help("numbers begin at 1 again when the runtime was stopped meanwhile"));
            }
            Some(from) => Seq(from.saturating_sub(1)),
        };
        Ok(EventSubscription {
            id,
            after,
            names: asked.names,
            types: asked.types,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Appends the next events; false if there are none.
    pub(super) fn pump(&mut self, handle: &RuntimeHandle, out: &mut Vec<u8>) -> bool {
        let batch = handle.events(self.after, BATCH);
        if let Some((from, to)) = batch.gap {
            self.after = to;
            let gap = Gap { from, to };
            let subscription = &self.id;
            write_notification(out, "event", &GapParams { subscription, gap });
            let (seq, modules) = handle.list();
            let modules = modules
                .into_iter()
                .filter(|m| self.wants_name(&m.name))
                .collect();
            let snapshot = Snapshot { seq, modules };
            write_notification(
                out,
                "event",
                &SnapshotParams {
                    subscription,
                    snapshot,
                },
            );
        }
        for notice in &batch.notices {
            self.after = notice.seq;
            if self.wants(notice) {
                let params = EventParams {
                    subscription: &self.id,
                    event: WireEvent(notice),
                };
                write_notification(out, "event", &params);
            }
        }
        batch.gap.is_some() || !batch.notices.is_empty()
    }

    fn wants_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n.as_str() == name)
    }

    fn wants(&self, notice: &Notice) -> bool {
        let word = kind_word(&notice.kind);
        self.wants_name(notice.id.as_str())
            && (self.types.is_empty() || self.types.iter().any(|t| word.starts_with(t.as_str())))
    }
}

/// One subscription to a module's output.
pub(super) struct LogSubscription {
    id: String,
    name: String,
    tail: Tail,
}

#[derive(Serialize)]
struct LogParams<'a> {
    subscription: &'a str,
    line: LogLine,
}

#[derive(Serialize)]
struct MissedParams<'a> {
    subscription: &'a str,
    /// Files that were deleted before they could be read.
    missed: u64,
}

#[derive(Serialize)]
struct EndParams<'a> {
    subscription: &'a str,
    end: &'a str,
}

impl LogSubscription {
    /// A subscription as asked for.
    ///
    /// # Errors
    /// No such module, or its log can't be followed.
    pub(super) fn new(
        id: String,
        asked: &FollowParams,
        handle: &RuntimeHandle,
    ) -> Result<Self, RpcError> {
        let name = asked.name.as_str().to_owned();
        handle.status(&name)?;
        let (query, from) = asked.query()?;
        let tail = Tail::open(handle.log_dir(), &name, query, from).map_err(|e| unreadable(&e))?;
        Ok(LogSubscription { id, name, tail })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Is ready when there may be output.
    pub(super) fn poll_fresh(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.tail.poll_fresh(cx)
    }

    /// Appends what has come; false when the subscription is over.
    pub(super) fn pump(&mut self, out: &mut Vec<u8>) -> bool {
        let subscription = self.id.as_str();
        match self.tail.look() {
            Ok(batch) => {
                if batch.missed > 0 {
                    let missed = batch.missed;
                    write_notification(
                        out,
                        "log",
                        &MissedParams {
                            subscription,
                            missed,
                        },
                    );
                }
                for entry in &batch.entries {
                    let line = LogLine::of(&self.name, entry);
                    write_notification(out, "log", &LogParams { subscription, line });
                }
                true
            }
            Err(e) => {
                let end = e.to_string();
                write_notification(
                    out,
                    "log",
                    &EndParams {
                        subscription,
                        end: &end,
                    },
                );
                false
            }
        }
    }
}
