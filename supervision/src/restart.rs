//! Whether and when to try again.
//!
//! Owns: the verdict over an ended life, the sliding window of restarts and the growing, jittered delay. Promises:
//! pure; never more than `intensity.max` restarts within `intensity.within`; the same seed gives the same delays;
//! no delay above the cap. Never: restarts a child that was asked to stop, or a temporary one.

use crate::child::{RestartHistory, StopCause};
use crate::spec::{Backoff, ChildSpec, Intensity, RestartType};
use crate::time::Uptime;
use std::time::Duration;

/// Why a child is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Somebody asked for its end.
    Requested,
    /// The runtime is shutting down.
    ShutDown,
    /// It ended with success, and its restart type leaves it at that.
    Completed,
    /// It failed, and its restart type leaves it at that.
    Failed,
}

/// What to do after a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it.
    Rest(Rest),
    /// Start it again.
    Restart {
        /// After this time; zero means at once.
        after: Duration,
        /// The history with this restart in it.
        history: RestartHistory,
    },
    /// The restart budget is used up.
    GiveUp {
        /// Restarts within the window.
        restarts: u32,
        /// The window.
        within: Duration,
    },
}

/// Whether and when to start a child again. `cause` is why it was being stopped, if it was.
#[must_use]
pub fn verdict(
    spec: &ChildSpec,
    history: &RestartHistory,
    cause: Option<StopCause>,
    failed: bool,
    now: Uptime,
) -> Verdict {
    let failed = match cause {
        Some(StopCause::Requested | StopCause::Restart) => return Verdict::Rest(Rest::Requested),
        // Started again, it would listen there again.
        Some(StopCause::Exposed) => return Verdict::Rest(Rest::Failed),
        Some(StopCause::Shutdown | StopCause::Group | StopCause::GroupGaveUp) => {
            return Verdict::Rest(Rest::ShutDown);
        }
        Some(
            StopCause::Unhealthy(_)
            | StopCause::NotReadyInTime
            | StopCause::StartTimedOut
            | StopCause::OwnerDied,
        ) => true,
        None => failed,
    };
    match (spec.restart, failed) {
        (RestartType::Temporary, true) => Verdict::Rest(Rest::Failed),
        (RestartType::Temporary | RestartType::Transient, false) => Verdict::Rest(Rest::Completed),
        (RestartType::Transient, true) | (RestartType::Permanent, _) => {
            within_budget(spec, history, failed, now)
        }
    }
}

fn within_budget(spec: &ChildSpec, history: &RestartHistory, failed: bool, now: Uptime) -> Verdict {
    let mut next = history.clone();
    if spec.grouped {
        // The group counts.
        next.at.clear();
    } else {
        forget_old(&mut next, spec.intensity, now);
        let done = u32::try_from(next.at.len()).unwrap_or(u32::MAX);
        if done >= spec.intensity.max {
            return Verdict::GiveUp {
                restarts: done,
                within: spec.intensity.within,
            };
        }
        next.at.push_back(now);
    }
    next.streak = if failed {
        next.streak.saturating_add(1)
    } else {
        0
    };
    next.total = next.total.saturating_add(1);
    Verdict::Restart {
        after: delay(&spec.backoff, next.streak, next.total),
        history: next,
    }
}

fn forget_old(history: &mut RestartHistory, intensity: Intensity, now: Uptime) {
    history.at.retain(|at| now.since(*at) <= intensity.within);
    // A spec with a smaller budget may have replaced the one the history was kept under.
    while history.at.len() > intensity.max as usize {
        history.at.pop_front();
    }
}

/// The delay before the restart after `streak` failures in a row; `draw` picks the jitter from the seed's sequence.
#[must_use]
pub fn delay(backoff: &Backoff, streak: u32, draw: u32) -> Duration {
    if backoff.first.is_zero() {
        return Duration::ZERO;
    }
    let exponent = i32::try_from(streak.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = backoff.first.as_secs_f64() * at_least_one(backoff.factor).powi(exponent);
    let capped = grown.min(backoff.cap.as_secs_f64());
    let jittered = capped * (1.0 - fraction(backoff.jitter) * random(backoff.seed, draw));
    Duration::try_from_secs_f64(jittered)
        .unwrap_or(backoff.cap)
        .min(backoff.cap)
}

fn at_least_one(factor: f64) -> f64 {
    // `max` answers the other operand for NaN.
    factor.max(1.0)
}

fn fraction(jitter: f64) -> f64 {
    // No number is no jitter, so `clamp`, which would keep it, will not do.
    if jitter > 0.0 { jitter.min(1.0) } else { 0.0 }
}

/// The `draw`-th number of the seed's sequence, in `[0, 1)` (splitmix64, whose state is a plain counter).
fn random(seed: u64, draw: u32) -> f64 {
    const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = seed.wrapping_add(GAMMA.wrapping_mul(u64::from(draw).wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    // 53 bits are what an f64 holds exactly.
    (z >> 11) as f64 / (1u64 << 53) as f64
}
