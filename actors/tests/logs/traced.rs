//! A disk that fails or drags at chosen writes: the story runs in a child of strace.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lair_actors::files::{LogPolicy, StreamName};

use crate::desk::{Desk, Place, stream};

const PLACE: &str = "LAIR_TRACED_PLACE";

/// Runs [`traced_story`] with faults injected into writes to its log file.
fn under_strace(inject: &str) -> Option<(u64, u64)> {
    let place = Place::new();
    let path = place.0.join("logs/m/1.0.log");
    let done = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P"])
        .arg(&path)
        .args(["-e", "trace=write", "-e", &format!("inject=write:{inject}")])
        .arg(std::env::current_exe().expect("we run"))
        .args(["--ignored", "--exact", "traced::traced_story"])
        .env(PLACE, &place.0)
        .output();
    let Ok(done) = done else {
        #[expect(
            clippy::print_stderr,
            reason = "a skipped story names what was missing"
        )]
        {
            eprintln!("skipped: strace is not here");
        }
        return None;
    };
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{out}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let tally = std::fs::read_to_string(place.0.join("tally")).expect("the story ran");
    let mut numbers = tally.split(' ').map(|n| n.parse().expect("a number"));
    Some((numbers.next()?, numbers.next()?))
}

#[test]
#[ignore = "run by the others, under strace"]
fn traced_story() {
    let Some(place) = std::env::var_os(PLACE) else {
        return;
    };
    let place = Place(PathBuf::from(place));
    let kept = place.0.clone();
    let desk = Desk::at(place, |o| o.retry_after = Duration::from_millis(1));
    let mut module = desk.module("m", 1, LogPolicy::default());
    let mut wrote = 0;
    for n in 0..50 {
        let line = format!("line {n}\n");
        module
            .stdout
            .as_mut()
            .expect("open")
            .write_all(line.as_bytes())
            .expect("not blocked");
        wrote += line.len() as u64;
        desk.flush();
    }
    let drained = desk.drain(&mut module);
    let held = stream(&desk.dir.join("m"), StreamName::Stdout);
    assert_eq!(drained.bytes, wrote);
    assert_eq!(
        held.len() as u64 + drained.dropped.bytes,
        wrote,
        "held or tallied"
    );
    let mut last = None;
    for line in String::from_utf8(held).expect("text").lines() {
        let n: u32 = line
            .strip_prefix("line ")
            .and_then(|n| n.parse().ok())
            .expect("whole");
        assert!(last < Some(n), "in order and once");
        last = Some(n);
    }
    let tally = format!("{} {}", drained.dropped.bytes, desk.degraded());
    std::fs::write(kept.join("tally"), tally).expect("written");
    // The folder is the parent's: it reads the tally.
    std::mem::forget(desk.place);
}

#[test]
fn e7_a_transient_error_is_retried_and_costs_nothing() {
    let Some(tally) = under_strace("error=EIO:when=5") else {
        return;
    };
    assert_eq!(tally, (0, 0));
}

#[test]
fn e7_an_error_that_lasts_is_tallied_and_the_stream_goes_on() {
    let Some((bytes, degraded)) = under_strace("error=EIO:when=5..8") else {
        return;
    };
    assert!(bytes > 0 && degraded == 1, "{bytes} {degraded}");
}

#[test]
fn interrupted_writes_are_repeated() {
    let Some(tally) = under_strace("error=EINTR:when=2+2") else {
        return;
    };
    assert_eq!(tally, (0, 0));
}

#[test]
fn e14_a_dragging_disk_loses_nothing() {
    let Some(tally) = under_strace("delay_exit=20000") else {
        return;
    };
    assert_eq!(tally, (0, 0));
}
