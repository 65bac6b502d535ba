//! What a run's log has come to, readable by anybody at any time without a lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::files::{SegmentName, StreamName, Tally};

use super::command::StreamKey;

/// Tallies of one run, written by the pump only.
#[derive(Debug)]
pub struct StreamStats {
    log_dir: Arc<Path>,
    key: StreamKey,
    raw: bool,
    bytes: AtomicU64,
    lines: AtomicU64,
    dropped_bytes: AtomicU64,
    dropped_lines: AtomicU64,
    segments: AtomicU64,
    segment: AtomicU64,
    activity: AtomicU64,
    degraded: AtomicBool,
    ended: AtomicBool,
}

// -----------------------------------------------------------------------------

impl StreamStats {
    pub(super) fn new(log_dir: Arc<Path>, key: StreamKey, raw: bool) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            log_dir,
            key,
            raw,
            bytes: zero(),
            lines: zero(),
            dropped_bytes: zero(),
            dropped_lines: zero(),
            segments: zero(),
            segment: zero(),
            activity: zero(),
            degraded: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Bytes read from the module.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Line ends among them.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// What of it is in no file.
    pub fn dropped(&self) -> Tally {
        Tally {
            bytes: self.dropped_bytes.load(Ordering::Relaxed),
            lines: self.dropped_lines.load(Ordering::Relaxed),
        }
    }

    /// Segments opened by this life of the runtime.
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Whether the log cannot be written at the moment.
    pub fn degraded(&self) -> bool {
        self.degraded.load(Ordering::Relaxed)
    }

    /// Whether both streams were read to their ends, and what came of them is in the file or counted: a drain would
    /// have nothing to do.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The module's log folder.
    pub fn dir(&self) -> PathBuf {
        self.log_dir.join(&*self.key.module)
    }

    /// The file that was opened last; `None` before the first byte.
    pub fn current_path(&self) -> Option<PathBuf> {
        if self.segments() == 0 {
            return None;
        }
        let segment = self.segment.load(Ordering::Relaxed);
        let stream = match (self.raw, segment & 3) {
            (false, _) => None,
            (true, 0) => Some(StreamName::Stdout),
            (true, 1) => Some(StreamName::Stderr),
            (true, _) => Some(StreamName::Lair),
        };
        let name = SegmentName {
            run: self.key.run,
            segment: segment >> 2,
            stream,
            zst: false,
        };
        Some(self.dir().join(name.to_string()))
    }

    /// When the module last wrote, on the monotonic clock since boot.
    pub fn last_activity(&self) -> Option<Duration> {
        match self.activity.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// How long the module has written nothing; `None` if it never wrote.
    pub fn idle_for(&self) -> Option<Duration> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            now.tv_sec.unsigned_abs(),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        );
        self.last_activity().map(|then| now.saturating_sub(then))
    }

    // The pump is the only writer, so a load and a store do for an addition.
    pub(super) fn add_read(&self, bytes: u64, lines: u64, now: Duration) {
        self.bytes.store(self.bytes() + bytes, Ordering::Relaxed);
        self.lines.store(self.lines() + lines, Ordering::Relaxed);
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.activity.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, tally: Tally) {
        let before = self.dropped();
        self.dropped_bytes
            .store(before.bytes + tally.bytes, Ordering::Relaxed);
        self.dropped_lines
            .store(before.lines + tally.lines, Ordering::Relaxed);
    }

    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn set_degraded(&self, degraded: bool) {
        self.degraded.store(degraded, Ordering::Relaxed);
    }

    pub(super) fn opened(&self, name: SegmentName) {
        let lane = name.stream.map_or(0, |s| s as u64);
        self.segment
            .store(name.segment << 2 | lane, Ordering::Relaxed);
        self.segments.store(self.segments() + 1, Ordering::Relaxed);
    }

    pub(super) fn continue_from(&self, old: &StreamStats) {
        for (to, from) in [
            (&self.bytes, &old.bytes),
            (&self.lines, &old.lines),
            (&self.dropped_bytes, &old.dropped_bytes),
            (&self.dropped_lines, &old.dropped_lines),
            (&self.segments, &old.segments),
            (&self.segment, &old.segment),
            (&self.activity, &old.activity),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.set_degraded(old.degraded());
    }
}
