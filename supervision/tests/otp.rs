//! More of OTP's supervisor suite, on one child: defaults, what a start brings back, words for every end.

mod life;

use lair_supervision::admission::unload;
use lair_supervision::{
    Admission, Backoff, Child, ChildEvent, ChildId, ChildIdentity, ChildSpec, DeniedReason,
    DownReason, Effect, ExitEvidence, ExitStatus, Intensity, Lifecycle, OnLiveness, Phase,
    ProbeKind, RestartType, StartFault, StartStage, State, StopCause, SuccessCodes, Tri,
};
use life::{CRASH, Life};
use std::time::Duration;

/// O13
#[test]
fn a_spec_that_says_nothing_has_the_documented_defaults() {
    let spec = ChildSpec::new(ChildId::new("m"));
    let secs = Duration::from_secs;
    assert_eq!(spec.restart, RestartType::Temporary);
    assert_eq!((spec.stop_signal, spec.grace), (15, secs(10)));
    assert_eq!((spec.start_deadline, spec.ready_deadline), (secs(60), None));
    assert_eq!((spec.kill_confirm, spec.settle), (secs(5), secs(60)));
    let five_in_ten_minutes = Intensity {
        max: 5,
        within: secs(600),
    };
    assert_eq!(spec.intensity, five_in_ten_minutes);
    let Backoff {
        first, factor, cap, ..
    } = spec.backoff;
    assert_eq!((first, factor, cap), (secs(1), 2.0, secs(60)));
    assert_eq!(spec.success, SuccessCodes(vec![0]));
    assert_eq!(spec.on_liveness, OnLiveness::Report);
    assert!(!spec.awaits_ready && !spec.grouped);
}

/// O24: what the start found out is kept for as long as it is true, on start and on restart.
#[test]
fn what_a_start_brings_back_belongs_to_its_own_run() {
    let mut life = Life::of(RestartType::Permanent);
    let up = |life: &mut Life, pid| {
        let start_ticks = 7;
        let identity = ChildIdentity::Native { pid, start_ticks };
        life.tell(ChildEvent::Spawned { identity });
    };
    let pid = |life: &Life| match life.child.identity() {
        Some(ChildIdentity::Native { pid, .. }) => Some(*pid),
        _ => None,
    };
    life.ask(ChildEvent::StartRequested);
    assert_eq!(pid(&life), None);
    up(&mut life, 100);
    assert_eq!(pid(&life), Some(100));
    life.ask(ChildEvent::RestartRequested { grace: None });
    assert_eq!(pid(&life), Some(100), "it still runs");
    life.exits(ExitStatus::Signal(15));
    assert_eq!(pid(&life), None);
    up(&mut life, 200);
    assert_eq!(pid(&life), Some(200));
    life.spec.backoff.first = Duration::ZERO;
    life.exits(CRASH);
    up(&mut life, 300);
    assert_eq!((pid(&life), life.child.inc), (Some(300), 3));
}

/// O25: a report about a stranger's life changes nothing.
#[test]
fn what_is_said_of_another_life_changes_nothing_but_a_count() {
    let mut life = Life::running(RestartType::Permanent);
    life.crashes_and_returns();
    let before = life.child.clone();
    let exited = ChildEvent::Exited {
        status: CRASH,
        evidence: ExitEvidence::default(),
    };
    for inc in [0, 1, 3, u64::MAX] {
        life.effects.clear();
        life.take(Some(inc), exited.clone());
        assert_eq!(life.effects, []);
    }
    assert_eq!(life.child.stale, before.stale + 4);
    life.child.stale = before.stale;
    assert_eq!(life.child, before);
}

/// O62, for one: waiting is neither up nor down.
#[test]
fn a_child_that_waits_is_not_counted_as_up_and_not_as_down() {
    let mut life = Life::running(RestartType::Permanent);
    life.exits(CRASH);
    assert_eq!(life.state().0, State::Backoff);
    assert!(!life.child.is_down());
    assert_eq!(life.child.identity(), None);
    assert_eq!(unload(&life.child), Err(DeniedReason::StillUp));
    let again = life.ask(ChildEvent::StartRequested);
    assert_eq!(again, Admission::Accepted { inc: 2 });
}

/// O21
#[test]
fn a_child_that_ends_badly_when_told_to_stop_was_stopped() {
    for status in [CRASH, ExitStatus::Code(255), ExitStatus::Signal(6)] {
        let mut life = Life::running(RestartType::Permanent);
        life.ask(ChildEvent::ShutdownRequested { grace: None });
        life.exits(status);
        assert_eq!(life.state(), (State::Stopped, None), "{status:?}");
        let spawns = |e: &&Effect| matches!(e, Effect::Spawn { .. });
        assert_eq!(life.effects.iter().filter(spawns).count(), 1);
    }
}

fn every_end() -> Vec<DownReason> {
    let fault = StartFault {
        stage: StartStage::Exec,
        errno: Some(2),
        message: "the program `x` does not exist".to_owned(),
        transient: false,
    };
    let gave_up = |restarts, last| DownReason::GaveUp {
        restarts,
        within: Duration::from_secs(60),
        last,
    };
    let mut all = vec![
        DownReason::NeverStarted,
        DownReason::Requested,
        DownReason::ShutDown,
        DownReason::StartFailed(fault),
        DownReason::StartTimedOut,
        DownReason::NotReadyInTime,
        DownReason::Internal,
        DownReason::Group,
        DownReason::GroupGaveUp,
    ];
    for kind in [
        ProbeKind::Startup,
        ProbeKind::Readiness,
        ProbeKind::Liveness,
    ] {
        all.push(DownReason::Unhealthy(kind));
    }
    for status in [
        ExitStatus::Code(0),
        ExitStatus::Code(255),
        ExitStatus::Signal(9),
        ExitStatus::Signal(64),
        ExitStatus::Unknown,
    ] {
        all.push(DownReason::Completed(status));
        all.push(DownReason::Crashed(status));
        all.extend([
            gave_up(0, status),
            gave_up(1, status),
            gave_up(10_000, status),
        ]);
    }
    all
}

/// O89, O90: one line, bounded, without a trailing period, the same each time.
#[test]
fn every_end_is_one_short_sentence() {
    for reason in every_end() {
        for oom in [Tri::Yes, Tri::No, Tri::Unknown] {
            let mut child = Child::loaded(1);
            child.last_exit = Some(lair_supervision::child::LastExit {
                inc: 1,
                status: ExitStatus::Signal(9),
                evidence: ExitEvidence {
                    oom,
                    ..ExitEvidence::default()
                },
                at: lair_supervision::Uptime::ZERO,
                killed_after_grace: false,
            });
            child.phase = Phase::Down(reason.clone());
            let status = Lifecycle::of(&child);
            let Some(said) = status.reason else {
                assert_eq!(status.state, State::Stopped, "{reason:?}");
                continue;
            };
            let text = &said.message;
            assert!(!text.is_empty() && text.len() <= 120, "{text:?}");
            assert!(!text.contains('\n') && !text.ends_with('.'), "{text:?}");
            assert_eq!(
                Lifecycle::of(&child).reason.map(|r| r.message),
                Some(text.clone())
            );
        }
    }
}

/// O89: the exact words.
#[test]
fn the_words_for_giving_up_are_these() {
    let mut life = Life::running(RestartType::Permanent);
    life.spec.intensity.max = 1;
    life.crashes_and_returns();
    life.exits(ExitStatus::Signal(11));
    let said = life.status().reason.expect("a reason").message;
    assert_eq!(
        said,
        "given up after 1 restart within 600s: it was ended by signal 11 (SEGV)"
    );
}

/// O27: the whole product of restart type, end, and cause of a stop has one answer each, and only these restart.
#[test]
fn of_all_combinations_only_those_that_were_allowed_lead_to_a_new_run() {
    use lair_supervision::{Verdict, restart};
    let (mut all, mut again) = (0, 0);
    let causes = [
        None,
        Some(StopCause::Requested),
        Some(StopCause::Restart),
        Some(StopCause::Shutdown),
        Some(StopCause::Unhealthy(ProbeKind::Liveness)),
        Some(StopCause::NotReadyInTime),
        Some(StopCause::StartTimedOut),
        Some(StopCause::OwnerDied),
    ];
    for restart in [
        RestartType::Temporary,
        RestartType::Transient,
        RestartType::Permanent,
    ] {
        for cause in causes {
            for failed in [false, true] {
                for max in [0, 1, 5] {
                    for grouped in [false, true] {
                        let mut spec = ChildSpec::new(ChildId::new("m"));
                        (spec.restart, spec.intensity.max, spec.grouped) = (restart, max, grouped);
                        let history = Default::default();
                        let now = lair_supervision::Uptime::ZERO;
                        let verdict = restart::verdict(&spec, &history, cause, failed, now);
                        let asked = matches!(
                            cause,
                            Some(StopCause::Requested | StopCause::Restart | StopCause::Shutdown)
                        );
                        let ill = failed || cause.is_some();
                        let wanted = match restart {
                            RestartType::Temporary => false,
                            RestartType::Transient => ill && !asked,
                            RestartType::Permanent => !asked,
                        };
                        let got = matches!(verdict, Verdict::Restart { .. });
                        assert_eq!(
                            got,
                            wanted && (max > 0 || grouped),
                            "{restart:?} {cause:?} {failed} {max} {grouped}: {verdict:?}"
                        );
                        all += 1;
                        again += usize::from(got);
                    }
                }
            }
        }
    }
    assert_eq!((all, again), (288, 95));
}
