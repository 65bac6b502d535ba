use super::{Evidence, Progress, Work};
use lair_supervision::Uptime;
use std::time::Duration;

fn at(secs: u64) -> Uptime {
    Uptime(Duration::from_secs(secs))
}

fn seen(cpu_ms: u64, read_bytes: u64, rss: u64, log: u64) -> Evidence {
    Evidence {
        log_bytes: Some(log),
        usage: Some(Work {
            cpu_ms,
            read_bytes,
            write_bytes: 0,
            rss,
        }),
        ..Evidence::default()
    }
}

/// The second at which it was called stuck, if it was within 100 s.
fn stuck_at(evidence: impl Fn(u64) -> Evidence) -> Option<u64> {
    let mut progress = Progress::new(Duration::from_secs(10), at(0));
    (1..=100).find(|now| progress.look(&evidence(*now), at(*now)).is_some())
}

#[test]
fn nothing_moving_is_stuck_after_the_stall_time() {
    assert_eq!(stuck_at(|_| seen(500, 1 << 30, 1 << 30, 99)), Some(11));
}

#[test]
fn any_one_kind_of_progress_is_enough() {
    assert_eq!(stuck_at(|t| seen(t * 200, 0, 0, 0)), None, "cpu");
    assert_eq!(stuck_at(|t| seen(0, t, 0, 0)), None, "disk");
    assert_eq!(stuck_at(|t| seen(0, 0, t << 20, 0)), None, "memory");
    assert_eq!(stuck_at(|t| seen(0, 0, 0, t)), None, "log");
}

#[test]
fn a_heartbeat_is_no_progress_and_neither_is_memory_that_breathes() {
    assert!(stuck_at(|t| seen(t, 0, 0, 0)).is_some());
    assert!(stuck_at(|t| seen(0, 0, (t % 2) << 30, 0)).is_some());
}

#[test]
fn slow_growth_adds_up_to_progress() {
    assert_eq!(stuck_at(|t| seen(0, 0, t * (64 << 10), 0)), None);
}

#[test]
fn what_can_not_be_seen_is_not_called_stuck() {
    assert_eq!(stuck_at(|_| Evidence::default()), None);
}

#[test]
fn asking_for_patience_counts_until_it_is_over() {
    let extended = |t: u64| Evidence {
        extended: Some(at(t.min(20))),
        patience: Some(at(50)),
        ..seen(0, 0, 0, 0)
    };
    assert_eq!(stuck_at(extended), Some(50));
}

#[test]
fn a_look_that_came_too_late_starts_the_clock_anew() {
    let mut progress = Progress::new(Duration::from_secs(10), at(0));
    assert!(progress.look(&seen(0, 0, 0, 0), at(1)).is_none());
    progress.restart(at(60));
    assert!(progress.look(&seen(0, 0, 0, 0), at(60)).is_none());
    assert!(progress.look(&seen(0, 0, 0, 0), at(70)).is_some());
}
