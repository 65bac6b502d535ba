//! Ending a run's streams: by their ends, or by a bound.

#![allow(
    clippy::disallowed_methods,
    reason = "the pump's thread has its own timers: bytes never wait for an actor"
)]

use std::time::Instant;

use super::command::Drained;
use super::run::{Run, SIDES};
use super::worker::State;

impl State {
    /// Answers a drain whose streams have ended.
    pub(super) fn check_drained(&mut self, slot: usize) {
        let ended = |run: &Run| run.drain.is_some() && run.pipes.iter().all(Option::is_none);
        if self.runs[slot].as_deref().is_some_and(ended) {
            self.finish_drain(slot);
        }
    }

    /// Ends a drain: by the streams' end or, with pipes left, by its bound.
    pub(super) fn finish_drain(&mut self, slot: usize) {
        let now = Instant::now();
        let open: Vec<usize> = match self.runs[slot].as_deref() {
            Some(run) => (0..2).filter(|&side| run.pipes[side].is_some()).collect(),
            None => return,
        };
        for &side in &open {
            self.end_pipe(slot, side, now);
        }
        self.retry(slot, now);
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        run.detached |= !open.is_empty();
        let drained = drained(run);
        if !open.is_empty() {
            let names: Vec<_> = open.iter().map(|&side| SIDES[side].as_str()).collect();
            let (bytes, lines) = (drained.bytes, drained.lines);
            let text = format!(
                "detached open={} bytes={bytes} lines={lines}",
                names.join(",")
            );
            self.write_remark(slot, &text);
        }
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let replies = run.drain.take().map(|d| d.replies).unwrap_or_default();
        for reply in replies {
            reply(drained.clone());
        }
    }
}

fn drained(run: &Run) -> Drained {
    Drained {
        key: run.key.clone(),
        bytes: run.stats.bytes(),
        lines: run.stats.lines(),
        dropped: run.stats.dropped(),
        eof: !run.detached && run.pipes.iter().all(Option::is_none),
    }
}
