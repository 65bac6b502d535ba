//! A log that cannot be written: what is lost is counted, told once, and recorded in the
//! file as soon as it can be written again. The module never waits for any of it.

#![allow(
    clippy::disallowed_methods,
    reason = "the pump's thread has its own timers: bytes never wait for an actor"
)]

use std::time::{Duration, Instant};

use crate::files::{LogFault, Stamp, Tally};

use super::command::PumpEvent;
use super::run::{Outage, Run};
use super::timers::Alarm;
use super::worker::State;

/// How long lair's own records may wait for company.
const REMARKS_AFTER: Duration = Duration::from_millis(100);

impl State {
    /// Counts a loss; the first one begins the outage and is told.
    pub(super) fn count_lost(&mut self, slot: usize, fault: LogFault, tally: Tally, now: Instant) {
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        run.stats.add_dropped(tally);
        run.stats.set_degraded(true);
        let retry_at = now + self.options.retry_after;
        if let Some(outage) = &mut run.outage {
            outage.tally.add(tally);
            if now >= outage.retry_at {
                outage.retry_at = retry_at;
            }
            return;
        }
        let outage = Outage {
            since: Stamp::now(),
            fault: fault.clone(),
            tally,
            retry_at,
        };
        run.outage = Some(Box::new(outage));
        let key = run.key.clone();
        (self.sink)(PumpEvent::Degraded { key, fault });
    }

    /// Faults that lost nothing are over as soon as they are told.
    pub(super) fn tell_notices(&mut self, slot: usize) {
        for fault in self.shelf.take_notices() {
            let Some(run) = self.runs[slot].as_deref() else {
                return;
            };
            if run.outage.is_some() {
                continue;
            }
            let key = run.key.clone();
            (self.sink)(PumpEvent::Degraded {
                key: key.clone(),
                fault,
            });
            (self.sink)(PumpEvent::Recovered {
                key,
                tally: Tally::default(),
            });
        }
    }

    /// In an outage whose pause is over: tries to write its tally, which ends it.
    pub(super) fn retry_if_due(&mut self, slot: usize, now: Instant) {
        let due = |run: &Run| run.outage.as_ref().is_some_and(|o| now >= o.retry_at);
        if self.runs[slot].as_deref().is_some_and(due) {
            self.retry(slot, now);
        }
    }

    /// Tries to write the tally; if that works, the outage is over.
    pub(super) fn retry(&mut self, slot: usize, now: Instant) {
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        let Some(outage) = run.outage.as_mut() else {
            return;
        };
        outage.retry_at = now;
        let (tally, since) = (outage.tally, outage.since);
        let text = format!(
            "dropped bytes={} lines={} since={since}",
            tally.bytes, tally.lines
        );
        self.desk.remark(run, slot, Stamp::now(), &text);
        self.finish_job(now);
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        // A failed attempt has moved the next one.
        if run.outage.as_ref().is_some_and(|o| o.retry_at == now) {
            run.outage = None;
            run.stats.set_degraded(false);
            let key = run.key.clone();
            (self.sink)(PumpEvent::Recovered { key, tally });
        }
    }

    /// Keeps one of lair's own records until the run's file is open anyway, but not for long: a thousand modules that
    /// start or stop at once need the machine for that first.
    pub(super) fn keep_remark(&mut self, slot: usize, text: String) {
        let Some(run) = self.runs[slot].as_deref_mut() else {
            return;
        };
        if run.remarks.is_empty() {
            let alarm = Alarm::Remarks { run: run.id };
            self.timers.set(Instant::now() + REMARKS_AFTER, alarm);
        }
        run.remarks.push((Stamp::now(), text));
    }

    /// Writes what was kept. Before a run's own bytes, so that its records stay in order.
    pub(super) fn write_remarks(&mut self, slot: usize) {
        // Taken one by one: what a panic leaves is the job's, and no record is written twice.
        while let Some(run) = self.runs[slot].as_deref_mut()
            && !run.remarks.is_empty()
        {
            let (at, text) = run.remarks.remove(0);
            self.write_record(slot, at, &text);
        }
    }

    /// One of lair's own records, at once.
    pub(super) fn write_remark(&mut self, slot: usize, text: &str) {
        self.write_remarks(slot);
        self.write_record(slot, Stamp::now(), text);
    }

    fn write_record(&mut self, slot: usize, at: Stamp, text: &str) {
        let now = Instant::now();
        self.retry_if_due(slot, now);
        let healthy = self.runs[slot].as_deref().filter(|r| r.outage.is_none());
        if let Some(run) = healthy {
            self.desk.remark(run, slot, at, text);
            self.finish_job(now);
            self.keep_awake(now);
        }
    }
}
