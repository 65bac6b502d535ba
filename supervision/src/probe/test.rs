use super::*;
use ProbeOutcome::{CouldNotRun, Failure, Success, TimedOut};

fn probe(failures: u32, successes: u32) -> ProbeSpec {
    ProbeSpec {
        failures,
        successes,
        ..ProbeSpec::default()
    }
}

fn feed(state: &mut HealthState, kind: ProbeKind, outcomes: &[ProbeOutcome]) -> Vec<HealthChange> {
    let now = Uptime::ZERO;
    outcomes
        .iter()
        .flat_map(|outcome| state.observe(kind, *outcome, now))
        .collect()
}

fn healthy(probe: ProbeKind) -> HealthChange {
    HealthChange::Verdict {
        state: HealthVerdict::Healthy,
        reason: None,
        probe: Some(probe),
    }
}

fn unhealthy(probe: ProbeKind, reason: &str) -> HealthChange {
    HealthChange::Verdict {
        state: HealthVerdict::Unhealthy,
        reason: Some(reason.to_owned()),
        probe: Some(probe),
    }
}

/// F1
#[test]
fn flapping_below_the_thresholds_changes_nothing() {
    let mut state = ProbeState::new(&probe(3, 3));
    for outcome in [
        Success, Failure, Failure, Success, Success, TimedOut, Failure,
    ] {
        assert_eq!(state.observe(outcome), None);
    }
    assert_eq!(state.observe(Failure), Some(Reached::Failed));
    assert_eq!(state.observe(Failure), None);
    for outcome in [Success, Success] {
        assert_eq!(state.observe(outcome), None);
    }
    assert_eq!(state.observe(Success), Some(Reached::Passed));
}

/// F4
#[test]
fn a_probe_that_could_not_run_changes_nothing_and_is_counted() {
    let mut state = ProbeState::new(&probe(2, 1));
    assert_eq!(state.observe(Failure), None);
    assert_eq!(state.observe(CouldNotRun), None);
    assert_eq!(state.could_not_run, 1);
    assert_eq!(state.observe(Failure), Some(Reached::Failed));
    assert_eq!(state.could_not_run, 0);
}

/// F7
#[test]
fn nothing_else_is_asked_before_startup_has_passed() {
    let probes = Probes {
        startup: Some(probe(30, 1)),
        readiness: Some(probe(1, 1)),
        liveness: Some(probe(1, 1)),
    };
    let mut state = HealthState::new(&probes, OnLiveness::Restart);
    assert!(state.due(ProbeKind::Startup));
    assert!(!state.due(ProbeKind::Liveness) && !state.due(ProbeKind::Readiness));
    assert_eq!(feed(&mut state, ProbeKind::Liveness, &[Failure]), []);
    assert_eq!(
        feed(&mut state, ProbeKind::Startup, &[Failure, Success]),
        []
    );
    assert!(!state.due(ProbeKind::Startup));
    assert_eq!(feed(&mut state, ProbeKind::Liveness, &[Success]), []);
    assert_eq!(
        feed(&mut state, ProbeKind::Readiness, &[Success]),
        [HealthChange::BecameReady, healthy(ProbeKind::Readiness)]
    );
}

#[test]
fn startup_alone_makes_it_ready() {
    let probes = Probes {
        startup: Some(probe(1, 1)),
        ..Probes::default()
    };
    let mut state = HealthState::new(&probes, OnLiveness::Report);
    assert_eq!(
        feed(&mut state, ProbeKind::Startup, &[Success]),
        [HealthChange::BecameReady, healthy(ProbeKind::Startup)]
    );
}

#[test]
fn failed_liveness_puts_every_probe_on_hold() {
    let probes = Probes {
        readiness: Some(probe(3, 1)),
        liveness: Some(probe(2, 1)),
        ..Probes::default()
    };
    let mut state = HealthState::new(&probes, OnLiveness::Restart);
    assert_eq!(
        feed(&mut state, ProbeKind::Liveness, &[TimedOut, Failure]),
        [
            unhealthy(
                ProbeKind::Liveness,
                "its liveness probe failed 2 times in a row"
            ),
            HealthChange::LivenessFailed(ProbeKind::Liveness),
        ]
    );
    assert!(!state.due(ProbeKind::Liveness) && !state.due(ProbeKind::Readiness));
    assert_eq!(feed(&mut state, ProbeKind::Readiness, &[Success]), []);
}

#[test]
fn reported_liveness_goes_on_asking_and_can_recover() {
    let probes = Probes {
        liveness: Some(probe(1, 1)),
        ..Probes::default()
    };
    let mut state = HealthState::new(&probes, OnLiveness::Report);
    assert_eq!(
        feed(
            &mut state,
            ProbeKind::Liveness,
            &[Failure, Failure, Success, Success]
        ),
        [
            unhealthy(ProbeKind::Liveness, "its liveness probe failed"),
            healthy(ProbeKind::Liveness),
        ]
    );
}

#[test]
fn readiness_that_never_was_is_not_an_illness() {
    let probes = Probes {
        readiness: Some(probe(1, 1)),
        ..Probes::default()
    };
    let mut state = HealthState::new(&probes, OnLiveness::Restart);
    assert_eq!(
        feed(&mut state, ProbeKind::Readiness, &[Failure, Failure]),
        []
    );
    assert_eq!(state.health().state, HealthVerdict::Unknown);
    assert_eq!(
        feed(&mut state, ProbeKind::Readiness, &[Success, Failure]),
        [
            HealthChange::BecameReady,
            healthy(ProbeKind::Readiness),
            HealthChange::LostReadiness,
            unhealthy(ProbeKind::Readiness, "its readiness probe failed"),
        ]
    );
}
