//! The verdict's properties: budget, backoff, determinism.

use lair_supervision::child::RestartHistory;
use lair_supervision::restart::delay;
use lair_supervision::{
    Backoff, ChildId, ChildSpec, Intensity, ProbeKind, Rest, RestartType, StopCause, Uptime,
    Verdict, verdict,
};
use proptest::prelude::*;
use std::time::Duration;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn spec(max: u32, within: u64, backoff: Backoff) -> ChildSpec {
    ChildSpec {
        restart: RestartType::Permanent,
        intensity: Intensity {
            max,
            within: millis(within),
        },
        backoff,
        ..ChildSpec::new(ChildId::new("m"))
    }
}

prop_compose! {
    fn backoffs()(
        first in 0..5_000_u64,
        factor in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1.0..1e9_f64, 1.0..4.0_f64],
        cap in 0..60_000_u64,
        jitter in prop_oneof![Just(f64::NAN), -1.0..2.0_f64],
        seed: u64,
    ) -> Backoff {
        Backoff { first: millis(first), factor, cap: millis(cap), jitter, seed }
    }
}

/// When restarts were granted, over ends after these gaps.
fn granted(spec: &ChildSpec, gaps: &[u64]) -> Vec<Uptime> {
    let mut history = RestartHistory::default();
    let mut now = Uptime::ZERO;
    let mut all = Vec::new();
    for gap in gaps {
        now = now + millis(*gap);
        if let Verdict::Restart { history: next, .. } = verdict(spec, &history, None, true, now) {
            history = next;
            all.push(now);
        }
        assert!(history.at.len() <= spec.intensity.max as usize);
    }
    all
}

proptest! {
    /// C3, C4
    #[test]
    fn never_more_than_max_restarts_in_any_window(
        max in 0..6_u32,
        within in 1..2_000_u64,
        gaps in prop::collection::vec(0..1_000_u64, 0..60),
    ) {
        let spec = spec(max, within, Backoff::default());
        let all = granted(&spec, &gaps);
        for (i, at) in all.iter().enumerate() {
            let inside = all[i..].iter().take_while(|t| t.since(*at) <= millis(within));
            prop_assert!(inside.count() <= max as usize);
        }
    }

    /// C5
    #[test]
    fn no_delay_exceeds_the_cap_and_none_is_invented(
        backoff in backoffs(),
        streak: u32,
        draw: u32,
    ) {
        let delay = delay(&backoff, streak, draw);
        prop_assert!(delay <= backoff.cap);
        prop_assert!(!backoff.first.is_zero() || delay.is_zero());
    }

    /// C5
    #[test]
    fn jitter_stays_in_its_band_and_gaps_grow_without_it(
        first in 1..2_000_u64,
        factor in 1.0..4.0_f64,
        jitter in 0.0..1.0_f64,
        seed: u64,
        streak in 1..40_u32,
        draw: u32,
    ) {
        let cap = millis(60_000);
        let noisy = Backoff { first: millis(first), factor, cap, jitter, seed };
        let plain = Backoff { jitter: 0.0, ..noisy };
        let full = delay(&plain, streak, draw);
        let near = Duration::from_micros(1);
        prop_assert!(delay(&noisy, streak, draw) <= full + near);
        prop_assert!(delay(&noisy, streak, draw) + near >= full.mul_f64(1.0 - jitter));
        prop_assert!(delay(&plain, streak + 1, draw) >= full);
    }

    #[test]
    fn the_same_question_gets_the_same_answer(
        backoff in backoffs(),
        failed: bool,
        now in 0..10_000_u64,
    ) {
        let spec = spec(3, 1_000, backoff);
        let ask = || verdict(&spec, &RestartHistory::default(), None, failed, Uptime(millis(now)));
        prop_assert_eq!(ask(), ask());
    }
}

/// C5
#[test]
fn another_seed_gives_other_gaps_and_the_same_seed_the_same() {
    let gaps = |seed| {
        let backoff = Backoff {
            seed,
            ..Backoff::default()
        };
        (1..6).map(|n| delay(&backoff, n, n)).collect::<Vec<_>>()
    };
    assert_eq!(gaps(1), gaps(1));
    assert_ne!(gaps(1), gaps(2));
}

/// C5
#[test]
fn delays_double_up_to_the_cap() {
    let backoff = Backoff {
        first: millis(200),
        cap: millis(1_000),
        jitter: 0.0,
        ..Backoff::default()
    };
    let delays: Vec<_> = (1..6).map(|n| delay(&backoff, n, n)).collect();
    assert_eq!(delays, [200, 400, 800, 1_000, 1_000].map(millis));
}

/// C2, O31 to O39
#[test]
fn the_three_restart_types_meet_the_four_ends() {
    use RestartType::{Permanent, Temporary, Transient};
    let asked = Some(StopCause::Requested);
    let rest = Verdict::Rest;
    for restart in [Temporary, Transient, Permanent] {
        let spec = ChildSpec {
            restart,
            ..spec(5, 1_000, Backoff::default())
        };
        let ask = |cause, failed| {
            verdict(
                &spec,
                &RestartHistory::default(),
                cause,
                failed,
                Uptime::ZERO,
            )
        };
        let restarts = |verdict| matches!(verdict, Verdict::Restart { .. });
        match restart {
            Temporary => assert_eq!(ask(None, false), rest(Rest::Completed)),
            Transient => assert_eq!(ask(None, false), rest(Rest::Completed)),
            Permanent => assert!(restarts(ask(None, false))),
        }
        match restart {
            Temporary => assert_eq!(ask(None, true), rest(Rest::Failed)),
            Transient | Permanent => assert!(restarts(ask(None, true))),
        }
        assert_eq!(ask(asked, true), rest(Rest::Requested));
        assert_eq!(ask(Some(StopCause::Shutdown), true), rest(Rest::ShutDown));
    }
}

#[test]
fn an_end_brought_about_for_a_failure_is_a_failure_whatever_its_code() {
    let spec = ChildSpec {
        restart: RestartType::Transient,
        ..spec(5, 1_000, Backoff::default())
    };
    for cause in [
        StopCause::Unhealthy(ProbeKind::Liveness),
        StopCause::NotReadyInTime,
        StopCause::StartTimedOut,
        StopCause::OwnerDied,
    ] {
        let history = RestartHistory::default();
        let verdict = verdict(&spec, &history, Some(cause), false, Uptime::ZERO);
        assert!(matches!(verdict, Verdict::Restart { .. }), "{cause:?}");
    }
}

#[test]
fn a_successful_end_breaks_the_row_of_failures() {
    let spec = spec(9, 1_000, Backoff::default());
    let mut history = RestartHistory::default();
    for (failed, streak) in [(true, 1), (true, 2), (false, 0), (true, 1)] {
        match verdict(&spec, &history, None, failed, Uptime::ZERO) {
            Verdict::Restart { history: next, .. } => history = next,
            other => panic!("{other:?}"),
        }
        assert_eq!(history.streak, streak);
    }
    assert_eq!(history.total, 4);
}

/// C5: modules that fail together for long must not come back together.
#[test]
fn jitter_still_spreads_the_delays_at_the_cap() {
    let backoff = Backoff::default();
    let delays: Vec<_> = (40..60).map(|n| delay(&backoff, n, n)).collect();
    let in_band = |d: &Duration| *d <= backoff.cap && *d >= backoff.cap.mul_f64(0.9);
    assert!(delays.iter().all(in_band), "{delays:?}");
    assert!(
        delays.windows(2).all(|pair| pair[0] != pair[1]),
        "{delays:?}"
    );
}
