use super::*;
use crate::event::ExitEvidence;
use std::time::Duration;

fn down(why: DownReason) -> Child {
    Child {
        inc: 3,
        phase: Phase::Down(why),
        ..Child::loaded(0)
    }
}

fn ended_with(mut child: Child, status: ExitStatus, evidence: ExitEvidence) -> Child {
    child.last_exit = Some(LastExit {
        inc: child.inc,
        status,
        evidence,
        at: Uptime(Duration::from_secs(9)),
        killed_after_grace: false,
    });
    child
}

fn said(child: &Child) -> (State, Option<(ReasonCode, String)>) {
    let status = Lifecycle::of(child);
    (status.state, status.reason.map(|r| (r.code, r.message)))
}

#[test]
fn a_child_that_never_started_is_stopped_without_a_reason() {
    let status = Lifecycle::of(&Child::loaded(0));
    assert_eq!(
        (status.state, status.reason, status.run),
        (State::Stopped, None, 0)
    );
}

/// A2
#[test]
fn a_code_and_a_signal_are_told_apart() {
    let code = down(DownReason::Crashed(ExitStatus::Code(137)));
    let signal = down(DownReason::Crashed(ExitStatus::Signal(9)));
    let crashed = |text: &str| (State::Failed, Some((ReasonCode::Crashed, text.to_owned())));
    assert_eq!(said(&code), crashed("it exited with code 137"));
    assert_eq!(said(&signal), crashed("it was ended by signal 9 (KILL)"));
    let code = Lifecycle::of(&ended_with(
        code,
        ExitStatus::Code(137),
        ExitEvidence::default(),
    ));
    let exit = code.exit.expect("it ended");
    assert_eq!(
        (exit.code, exit.signal, exit.unknown, exit.oom),
        (Some(137), None, false, None)
    );
}

#[test]
fn the_oom_killer_is_named_only_where_it_was_seen() {
    let child = down(DownReason::Crashed(ExitStatus::Signal(9)));
    let evidence = ExitEvidence {
        oom: Tri::Yes,
        ..ExitEvidence::default()
    };
    let child = ended_with(child, ExitStatus::Signal(9), evidence);
    let text = "it was killed for lack of memory".to_owned();
    assert_eq!(
        said(&child),
        (State::Failed, Some((ReasonCode::Crashed, text)))
    );
}

/// B1
#[test]
fn a_requested_stop_that_needed_kill_is_stopped_with_a_note() {
    let mut child = ended_with(
        down(DownReason::Requested),
        ExitStatus::Signal(9),
        ExitEvidence::default(),
    );
    assert_eq!(said(&child), (State::Stopped, None));
    if let Some(exit) = &mut child.last_exit {
        exit.killed_after_grace = true;
    }
    let (state, reason) = said(&child);
    assert_eq!(state, State::Stopped);
    assert_eq!(reason.map(|r| r.0), Some(ReasonCode::KilledAfterGrace));
}

#[test]
fn a_stop_that_left_something_behind_is_incomplete() {
    let evidence = ExitEvidence {
        leftover: vec!["pid 17 nginx".to_owned(), "port 8080".to_owned()],
        ..ExitEvidence::default()
    };
    let child = ended_with(down(DownReason::Requested), ExitStatus::Code(0), evidence);
    let text = "it ended, but left behind pid 17 nginx, port 8080".to_owned();
    assert_eq!(
        said(&child),
        (State::Failed, Some((ReasonCode::StopIncomplete, text)))
    );
}

#[test]
fn a_failed_start_keeps_its_stage_and_error_number() {
    let fault = StartFault {
        stage: StartStage::Exec,
        errno: Some(2),
        message: "no such file: /bin/nope".to_owned(),
        transient: false,
    };
    let reason = Lifecycle::of(&down(DownReason::StartFailed(fault)))
        .reason
        .expect("failed");
    assert_eq!(
        (reason.code, reason.stage, reason.errno),
        (ReasonCode::StartFailed, Some(StartStage::Exec), Some(2))
    );
}

#[test]
fn a_child_that_waits_says_until_when_and_why() {
    let child = Child {
        phase: Phase::Waiting {
            until: Some(Uptime(Duration::from_secs(12))),
            attempt: 2,
            after: Box::new(DownReason::Crashed(ExitStatus::Code(1))),
        },
        ..Child::loaded(0)
    };
    assert_eq!(
        Lifecycle::of(&child).next_at,
        Some(Uptime(Duration::from_secs(12)))
    );
    let text = "it exited with code 1".to_owned();
    assert_eq!(
        said(&child),
        (State::Backoff, Some((ReasonCode::Crashed, text)))
    );
}

/// C3
#[test]
fn giving_up_says_how_often_and_how_it_last_ended() {
    let child = down(DownReason::GaveUp {
        restarts: 3,
        within: Duration::from_secs(10),
        last: ExitStatus::Code(1),
    });
    let text = "given up after 3 restarts within 10s: it exited with code 1".to_owned();
    assert_eq!(
        said(&child),
        (State::Failed, Some((ReasonCode::GaveUp, text)))
    );
}

/// I6
#[test]
fn a_run_is_never_shown_with_the_end_of_another() {
    let mut child = ended_with(
        down(DownReason::NeverStarted),
        ExitStatus::Code(1),
        ExitEvidence::default(),
    );
    child.inc += 1;
    assert_eq!(Lifecycle::of(&child).exit, None);
}
