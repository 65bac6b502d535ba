//! Timeouts that count only the time in which we ourselves ran.

#![allow(
    clippy::disallowed_methods,
    reason = "real probes take real time; simulated ones never come here"
)]

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The outcome of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience<T> {
    /// What came, if it came in time.
    pub value: Option<T>,
    /// We were asleep, stopped or starved meanwhile.
    pub starved: bool,
}

/// How late something of ours may be before that counts as starvation: a quarter of the time it was given, at least
/// a quarter of a second, at most two seconds.
#[must_use]
pub fn slack(given: Duration) -> Duration {
    (given / 4).clamp(Duration::from_millis(250), Duration::from_secs(2))
}

/// Waits for `work` for `limit` of running time. The wait is cut into slices; a slice that took much longer than it
/// should (the process was stopped, the host slept, the machine was starved) uses up no more of the limit than a slice.
/// So an answer that lies in a socket buffer when we wake up is still read.
pub async fn within<F: Future>(limit: Duration, work: F) -> Patience<F::Output> {
    let mut work = pin!(work);
    let slice = (limit / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
    let mut left = limit;
    let mut starved = false;
    loop {
        let step = slice.min(left);
        let begun = Instant::now();
        let value = tokio::select! {
            biased;
            value = &mut work => Some(value),
            () = sleep(step) => None,
        };
        starved |= begun.elapsed() > step + slack(limit);
        left = left.saturating_sub(step);
        if value.is_some() || left.is_zero() {
            return Patience { value, starved };
        }
    }
}
