//! What is asked of the pump and what it tells.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::files::{LogFault, LogPolicy, NameFault, StreamName, Tally};

use super::stats::StreamStats;
use super::watch::Watch;

/// One run of one module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamKey {
    /// The module, which is also the name of its log folder.
    pub module: Arc<str>,
    /// The run.
    pub run: u64,
}

/// The read ends of a run's pipes.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// The last word on a run's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Whose streams.
    pub key: StreamKey,
    /// Bytes read from the module, over the run.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
    /// What of it is in no file.
    pub dropped: Tally,
    /// Whether both streams were read to their end. `false`: somebody else still holds
    /// one open, or the run is unknown.
    pub eof: bool,
}

/// What the pump reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PumpEvent {
    /// A run's log could not be written as it should; said once until it recovers.
    Degraded {
        /// Whose log.
        key: StreamKey,
        /// Why.
        fault: LogFault,
    },
    /// A run's log is written again.
    Recovered {
        /// Whose log.
        key: StreamKey,
        /// What was lost in between.
        tally: Tally,
    },
    /// A stream reached its end.
    Ended {
        /// Whose stream.
        key: StreamKey,
        /// Which one.
        stream: StreamName,
    },
    /// The pump's work panicked and went on where it had been.
    Restarted {
        /// How often that happened so far.
        count: u64,
    },
}

/// Why a run's streams were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachFault {
    /// The module's name cannot be the name of a folder.
    Name(NameFault),
    /// The pump has ended.
    Gone,
}

/// Where the crash seam strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// As soon as the pump wakes.
    Wake,
    /// With the next chunk read and nothing of it framed.
    Read,
    /// With the next chunk framed and nothing of it written.
    Framed,
    /// With a part of the next chunk written.
    Written,
}

pub(super) type DrainReply = Box<dyn FnOnce(Drained) + Send>;
pub(super) type BegunReply = Box<dyn FnOnce([Vec<u8>; 2]) + Send>;
pub(super) type Reply = Box<dyn FnOnce() + Send>;

pub(super) type CheckReply = Box<dyn FnOnce(Result<(), LogFault>) + Send>;

pub(super) enum Command {
    Check {
        module: Arc<str>,
        reply: CheckReply,
    },
    Attach {
        key: StreamKey,
        policy: LogPolicy,
        streams: Streams,
        resume: bool,
        stats: Arc<StreamStats>,
    },
    Remark {
        key: StreamKey,
        text: String,
    },
    Drain {
        key: StreamKey,
        within: Duration,
        reply: DrainReply,
    },
    Rotate {
        key: StreamKey,
    },
    Flush {
        reply: Reply,
    },
    Close {
        key: StreamKey,
        reply: Option<Reply>,
    },
    Pin {
        key: StreamKey,
    },
    Revise {
        key: StreamKey,
        policy: LogPolicy,
    },
    Watch {
        key: StreamKey,
        watch: Option<Box<Watch>>,
    },
    Begun {
        key: StreamKey,
        reply: BegunReply,
    },
    Disown,
    Crash(CrashPoint),
    FailWrites {
        module: Arc<str>,
        errno: i32,
        count: u64,
    },
    Discard {
        key: StreamKey,
        stream: StreamName,
    },
    Stall(Duration),
    Stop,
}

impl fmt::Display for AttachFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(fault) => fault.fmt(f),
            Self::Gone => f.write_str("the log pump has ended"),
        }
    }
}

impl std::error::Error for AttachFault {}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.module, self.run)
    }
}
