//! A run in the pump's registry: everything that must survive a panic of its work.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::files::{LogFault, RunFiles, Stamp, StreamName, Tally};

use super::command::{DrainReply, StreamKey};
use super::kept::Line;
use super::stats::StreamStats;
use super::timers::RunId;
use super::watch::Watch;

/// The two sides of a run, as its pipes are counted.
pub(super) const SIDES: [StreamName; 2] = [StreamName::Stdout, StreamName::Stderr];

pub(super) struct Run {
    pub id: RunId,
    pub key: StreamKey,
    pub stats: Arc<StreamStats>,
    pub files: RunFiles,
    pub pipes: [Option<Pipe>; 2],
    pub watch: Option<Box<Watch>>,
    pub drain: Option<Box<Drain>>,
    pub outage: Option<Box<Outage>>,
    pub detached: bool,
    /// lair's own records that are still to be written.
    pub remarks: Vec<(Stamp, String)>,
}

pub(super) struct Pipe {
    pub fd: OwnedFd,
    /// The begun line, at most [`crate::files::LINE_MAX`] bytes of it.
    pub piece: Vec<u8>,
    pub piece_since: Instant,
    pub piece_alarm: bool,
    /// When data was last read.
    pub served: Option<Instant>,
    /// Read by the clock rather than by readiness.
    pub gathering: bool,
    pub gather_alarm: bool,
    pub sized: bool,
    /// A fault was injected: what it brings is dropped and counted.
    pub discard: bool,
}

pub(super) struct Drain {
    pub until: Instant,
    pub replies: Vec<DrainReply>,
}

/// A log that cannot be written.
pub(super) struct Outage {
    pub since: Stamp,
    pub fault: LogFault,
    pub tally: Tally,
    pub retry_at: Instant,
}

// -----------------------------------------------------------------------------

impl Run {
    /// What the desk calls one of its streams; 2 is lair's own.
    pub fn line(&self, lane: usize) -> Line {
        Line {
            slot: self.id.slot as usize,
            lane,
            format: self.files.policy().format,
        }
    }
}

impl Pipe {
    pub fn new(fd: OwnedFd, now: Instant) -> Self {
        Self {
            fd,
            piece: Vec::new(),
            piece_since: now,
            piece_alarm: false,
            served: None,
            gathering: false,
            gather_alarm: false,
            sized: false,
            discard: false,
        }
    }
}
