//! Lives told from the outside: requests and reports in, notices and answers out.
//!
//! O numbers are those of OTP's supervisor suite, C and B numbers those of the fault list.

mod life;

use lair_supervision::admission::unload;
use lair_supervision::{
    Admission, ChildEvent, DeniedReason, Effect, ExitEvidence, ExitStatus, Intensity, NoticeKind,
    ReasonCode, RestartType, StartStage, State, TimerKind, decide,
};
use life::{CRASH, Life};
use std::time::Duration;

/// O1
#[test]
fn a_shutdown_before_anything_started_is_already_done() {
    let mut life = Life::of(RestartType::Permanent);
    let answer = life.ask(ChildEvent::ShutdownRequested { grace: None });
    assert_eq!(answer, Admission::AlreadySatisfied { inc: 0 });
    let answer = life.ask(ChildEvent::StartRequested);
    assert_eq!(answer, Admission::Denied(DeniedReason::Draining));
    assert_eq!(life.effects, []);
}

/// O4, O5: OTP forgets such a child; lair keeps it listed.
#[test]
fn a_temporary_child_that_ended_is_still_known_and_can_be_started() {
    let mut life = Life::running(RestartType::Temporary);
    life.exits(CRASH);
    assert_eq!(life.state(), (State::Failed, Some(ReasonCode::Crashed)));
    assert_eq!(
        life.ask(ChildEvent::StartRequested),
        Admission::Accepted { inc: 2 }
    );
}

/// O10, O11, O40
#[test]
fn a_start_that_fails_is_listed_with_its_own_reason() {
    let mut life = Life::running(RestartType::Temporary);
    life.stop();
    life.exits(ExitStatus::Code(0));
    life.ask(ChildEvent::RestartRequested { grace: None });
    life.spawn_failed(false);
    let status = life.status();
    let reason = status.reason.expect("it failed");
    assert_eq!(
        (status.state, reason.code),
        (State::Failed, ReasonCode::StartFailed)
    );
    assert_eq!(
        (reason.stage, reason.errno),
        (Some(StartStage::Exec), Some(2))
    );
    assert_eq!(status.exit, None);
}

/// O16, B1
#[test]
fn an_obedient_child_stops_and_a_deaf_one_is_killed_after_its_grace() {
    let mut life = Life::running(RestartType::Permanent);
    life.stop();
    life.exits(ExitStatus::Signal(15));
    assert_eq!(life.state(), (State::Stopped, None));

    let mut life = Life::running(RestartType::Permanent);
    life.stop();
    life.pass(10);
    life.tell(ChildEvent::Deadline(TimerKind::Grace));
    assert!(life.effects.contains(&Effect::Kill));
    life.exits(ExitStatus::Signal(9));
    assert_eq!(
        life.state(),
        (State::Stopped, Some(ReasonCode::KilledAfterGrace))
    );
}

/// O18
#[test]
fn a_stop_without_grace_kills_at_once() {
    let mut life = Life::running(RestartType::Permanent);
    life.spec.grace = Duration::ZERO;
    life.stop();
    assert!(life.effects.contains(&Effect::Kill));
    let signals = |e: &Effect| matches!(e, Effect::Signal { .. });
    assert!(!life.effects.iter().any(signals));
    life.exits(ExitStatus::Signal(9));
    assert_eq!(life.state(), (State::Stopped, None));
}

/// O20: every restart type × every way to end by itself while the shutdown is under way.
#[test]
fn a_child_that_ends_by_itself_during_shutdown_is_never_started_again() {
    for restart in [
        RestartType::Temporary,
        RestartType::Transient,
        RestartType::Permanent,
    ] {
        for status in [
            ExitStatus::Code(0),
            CRASH,
            ExitStatus::Signal(11),
            ExitStatus::Unknown,
        ] {
            let mut life = Life::running(restart);
            life.ask(ChildEvent::ShutdownRequested { grace: None });
            life.exits(status);
            assert_eq!(
                life.state(),
                (State::Stopped, None),
                "{restart:?} {status:?}"
            );
            let kept = life.child.last_exit.as_ref().map(|exit| exit.status);
            assert_eq!((kept, life.spawns()), (Some(status), 1));
        }
    }
}

/// O20, ordered: it is marked as draining, its own turn to stop has not come.
#[test]
fn a_child_that_crashes_before_its_turn_to_stop_keeps_its_own_reason() {
    let mut life = Life::running(RestartType::Permanent);
    life.child.draining = true;
    life.exits(CRASH);
    assert_eq!(life.state(), (State::Failed, Some(ReasonCode::Crashed)));
    assert_eq!(life.spawns(), 1);
}

/// O23, O86
#[test]
fn every_request_has_its_answer_in_every_state() {
    let mut life = Life::of(RestartType::Permanent);
    let already = |inc| Admission::AlreadySatisfied { inc };
    assert_eq!(life.stop(), already(0));
    assert_eq!(
        life.ask(ChildEvent::StartRequested),
        Admission::Accepted { inc: 1 }
    );
    assert_eq!(life.ask(ChildEvent::StartRequested), already(1));
    life.spawned();
    assert_eq!(life.ask(ChildEvent::StartRequested), already(1));
    assert_eq!(unload(&life.child), Err(DeniedReason::StillUp));
    assert_eq!(life.stop(), Admission::Accepted { inc: 1 });
    assert_eq!(life.stop(), already(1));
    assert_eq!(unload(&life.child), Err(DeniedReason::StillUp));
    life.exits(ExitStatus::Code(0));
    assert_eq!(life.stop(), already(1));
    assert_eq!(unload(&life.child), Ok(()));
}

/// O41
#[test]
fn running_is_told_only_of_what_really_runs() {
    let mut life = Life::of(RestartType::Temporary);
    life.ask(ChildEvent::StartRequested);
    life.spawn_failed(false);
    assert_eq!(life.notices(), ["Starting", "StartFailed", "Down"]);
}

/// O43, C4
#[test]
fn one_crash_per_window_never_exhausts_the_budget() {
    let mut life = Life::running(RestartType::Permanent);
    life.spec.intensity = Intensity {
        max: 1,
        within: Duration::from_secs(1),
    };
    for _ in 0..50 {
        life.pass(2);
        life.crashes_and_returns();
    }
    assert_eq!((life.state().0, life.spawns()), (State::Running, 51));
}

/// O58, C10
#[test]
fn a_start_that_hangs_and_fails_can_be_stopped_at_any_point() {
    let mut life = Life::of(RestartType::Permanent);
    life.ask(ChildEvent::StartRequested);
    life.pass(2);
    life.spawn_failed(true);
    assert_eq!(
        life.state(),
        (State::Backoff, Some(ReasonCode::StartFailed))
    );
    assert_eq!(unload(&life.child), Err(DeniedReason::StillUp));
    assert_eq!(life.stop(), Admission::Accepted { inc: 1 });
    assert_eq!(life.state(), (State::Stopped, None));

    life.ask(ChildEvent::StartRequested);
    assert_eq!(life.stop(), Admission::Accepted { inc: 2 });
    assert_eq!(life.state().0, State::Stopping);
    life.spawn_failed(true);
    assert_eq!(life.state(), (State::Stopped, None));

    life.ask(ChildEvent::StartRequested);
    life.ask(ChildEvent::ShutdownRequested { grace: None });
    life.spawned();
    life.exits(ExitStatus::Signal(15));
    assert_eq!((life.state(), life.spawns()), ((State::Stopped, None), 3));
}

/// O57, O85: what is kept does not grow with the number of lives.
#[test]
fn a_thousand_lives_leave_no_more_behind_than_one() {
    let mut life = Life::running(RestartType::Permanent);
    for _ in 0..1_000 {
        life.pass(700);
        life.crashes_and_returns();
    }
    assert!(life.child.history.at.len() <= 5);
    assert_eq!(life.status().restarts, 1_000);
}

/// C1
#[test]
fn a_crash_without_permission_is_never_followed_by_a_start() {
    let mut life = Life::running(RestartType::default());
    life.exits(CRASH);
    assert_eq!(
        life.notices(),
        ["Starting", "Running", "Ready", "Exited", "Down"]
    );
    assert_eq!((life.spawns(), life.status().next_at), (1, None));
}

/// C2, B5
#[test]
fn a_requested_stop_is_never_a_crash_and_never_a_restart() {
    for restart in [
        RestartType::Temporary,
        RestartType::Transient,
        RestartType::Permanent,
    ] {
        for status in [
            ExitStatus::Code(0),
            CRASH,
            ExitStatus::Signal(9),
            ExitStatus::Unknown,
        ] {
            let mut life = Life::running(restart);
            life.stop();
            life.exits(status);
            assert_eq!((life.state(), life.spawns()), ((State::Stopped, None), 1));
        }
    }
}

/// C3
#[test]
fn the_budget_gives_exactly_its_restarts_and_then_gives_up() {
    let mut life = Life::running(RestartType::Permanent);
    life.spec.intensity = Intensity {
        max: 3,
        within: Duration::from_secs(60),
    };
    for _ in 0..3 {
        life.crashes_and_returns();
    }
    life.exits(CRASH);
    assert_eq!(
        (life.state(), life.spawns()),
        ((State::Failed, Some(ReasonCode::GaveUp)), 4)
    );
}

/// C6
#[test]
fn a_settled_child_starts_over_with_the_first_delay() {
    let mut life = Life::running(RestartType::Permanent);
    life.crashes_and_returns();
    life.crashes_and_returns();
    life.pass(60);
    life.tell(ChildEvent::Deadline(TimerKind::Settle));
    life.exits(CRASH);
    assert_eq!(
        life.status().next_at,
        Some(life.now + Duration::from_secs(1))
    );
}

/// C7
#[test]
fn stop_during_backoff_cancels_the_restart() {
    for end in [
        ChildEvent::StopRequested { grace: None },
        ChildEvent::KillRequested,
        ChildEvent::ShutdownRequested { grace: None },
    ] {
        let mut life = Life::running(RestartType::Permanent);
        life.exits(CRASH);
        life.ask(end);
        life.tell(ChildEvent::Deadline(TimerKind::Backoff));
        assert_eq!((life.state(), life.spawns()), ((State::Stopped, None), 1));
    }
}

/// C8
#[test]
fn failing_starts_rest_if_hopeless_and_count_if_not() {
    let mut life = Life::of(RestartType::Permanent);
    life.ask(ChildEvent::StartRequested);
    life.spawn_failed(false);
    assert_eq!(
        (life.state(), life.spawns()),
        ((State::Failed, Some(ReasonCode::StartFailed)), 1)
    );

    life.ask(ChildEvent::StartRequested);
    for _ in 0..5 {
        life.spawn_failed(true);
        life.tell(ChildEvent::Deadline(TimerKind::Backoff));
    }
    life.spawn_failed(true);
    assert_eq!(
        (life.state(), life.spawns()),
        ((State::Failed, Some(ReasonCode::GaveUp)), 7)
    );
}

/// C9
#[test]
fn a_start_after_giving_up_has_the_whole_budget_again() {
    let mut life = Life::running(RestartType::Permanent);
    for _ in 0..5 {
        life.crashes_and_returns();
    }
    life.exits(CRASH);
    assert_eq!(life.state(), (State::Failed, Some(ReasonCode::GaveUp)));
    assert_eq!(
        life.ask(ChildEvent::StartRequested),
        Admission::Accepted { inc: 7 }
    );
    life.spawned();
    for _ in 0..5 {
        life.crashes_and_returns();
    }
    assert_eq!(life.state().0, State::Running);
}

/// B2
#[test]
fn a_hundred_stops_get_a_hundred_answers_and_never_more_grace() {
    let mut life = Life::running(RestartType::Permanent);
    life.stop();
    for n in 0..100 {
        life.pass(u64::from(n % 10 == 0));
        life.stop();
    }
    let graces = |e: &&Effect| {
        matches!(
            e,
            Effect::Arm {
                timer: TimerKind::Grace,
                ..
            }
        )
    };
    assert_eq!(life.effects.iter().filter(graces).count(), 1);
    life.exits(ExitStatus::Signal(15));
    let exits = life.notices().iter().filter(|n| *n == "Exited").count();
    assert_eq!(exits, 1);
}

/// B4
#[test]
fn starts_and_restarts_while_stopping_make_one_new_incarnation() {
    let mut life = Life::running(RestartType::Temporary);
    life.stop();
    for _ in 0..3 {
        assert_eq!(
            life.ask(ChildEvent::StartRequested),
            Admission::Deferred { inc: 2 }
        );
        let answer = life.ask(ChildEvent::RestartRequested { grace: None });
        assert_eq!(answer, Admission::Deferred { inc: 2 });
    }
    life.exits(ExitStatus::Code(0));
    assert_eq!((life.child.inc, life.spawns()), (2, 2));
}

/// Stopped and started again while the backend is busy: the abort is ours, the start is still owed.
#[test]
fn a_start_wanted_again_survives_its_own_abort() {
    let mut life = Life::of(RestartType::Temporary);
    life.ask(ChildEvent::StartRequested);
    life.stop();
    life.ask(ChildEvent::StartRequested);
    life.spawn_failed(false);
    assert_eq!((life.state(), life.spawns()), ((State::Starting, None), 2));

    life.stop();
    life.ask(ChildEvent::StartRequested);
    life.spawned();
    assert_eq!((life.state(), life.spawns()), ((State::Running, None), 2));
}

/// B8
#[test]
fn a_child_that_outlives_kill_is_reported_stuck_once_and_never_called_down() {
    let mut life = Life::running(RestartType::Temporary);
    life.ask(ChildEvent::KillRequested);
    for _ in 0..20 {
        life.pass(5);
        life.tell(ChildEvent::Deadline(TimerKind::Kill));
    }
    let stuck = life.notices().iter().filter(|n| *n == "Stuck").count();
    assert_eq!(
        (stuck, life.state()),
        (1, (State::Stopping, Some(ReasonCode::StopIncomplete)))
    );
    life.exits(ExitStatus::Signal(9));
    assert_eq!(life.state(), (State::Stopped, None));
}

/// The end of a life and the start of the next in one decision.
#[test]
fn what_ends_a_life_is_addressed_to_it_and_not_to_the_next() {
    let mut life = Life::running(RestartType::Permanent);
    life.spec.backoff.first = Duration::ZERO;
    let event = ChildEvent::Exited {
        status: CRASH,
        evidence: ExitEvidence::default(),
    };
    let decision = decide(&life.spec, &life.child, Some(1), event, life.now);
    let about = |wanted: &dyn Fn(&Effect) -> bool| {
        decision
            .addressed()
            .find(|(_, e)| wanted(e))
            .map(|(inc, _)| inc)
    };
    let exited = |e: &Effect| matches!(e, Effect::Publish(NoticeKind::Exited { .. }));
    assert_eq!(about(&exited), Some(1));
    assert_eq!(about(&|e| *e == Effect::EraseLedger), Some(1));
    assert_eq!(about(&|e| *e == Effect::Spawn { inc: 2 }), Some(2));
    assert_eq!(
        about(&|e| matches!(
            e,
            Effect::Arm {
                timer: TimerKind::Start,
                ..
            }
        )),
        Some(2)
    );
}

/// A module that must say ready and ends before it did has failed, whatever its code.
#[test]
fn a_clean_exit_before_ready_is_a_failure() {
    let mut life = Life::of(RestartType::Transient);
    life.spec.awaits_ready = true;
    life.ask(ChildEvent::StartRequested);
    life.spawned();
    life.exits(ExitStatus::Code(0));
    assert_eq!(life.state(), (State::Backoff, Some(ReasonCode::Crashed)));
    life.tell(ChildEvent::Deadline(TimerKind::Backoff));
    life.spawned();
    life.tell(ChildEvent::BecameReady);
    life.exits(ExitStatus::Code(0));
    assert_eq!(life.state(), (State::Stopped, None));
}
