//! Family E: what must be survived, at the pump.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use lair_actors::files::{LogFault, LogPolicy, StreamName, last_run};
use lair_actors::pump::PumpEvent;

use crate::desk::{Desk, joined, segments, small, stream, until};

fn say(file: &mut Option<std::fs::File>, text: &str) {
    file.as_mut()
        .expect("open")
        .write_all(text.as_bytes())
        .expect("the pipe takes it");
}

#[test]
fn e1_a_flood_on_both_streams_is_retained_or_rotated_away() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, small(1 << 20, 4));
    let threads: Vec<_> = [module.stdout.take(), module.stderr.take()]
        .into_iter()
        .map(|file| {
            let mut file = file.expect("open");
            std::thread::spawn(move || {
                let block = "a line of the flood, long enough\n".repeat(2000);
                for _ in 0..500 {
                    file.write_all(block.as_bytes()).expect("not broken");
                }
                block.len() as u64 * 500
            })
        })
        .collect();
    let wrote: u64 = threads
        .into_iter()
        .map(|t| t.join().expect("unharmed"))
        .sum();
    let drained = desk.drain(&mut module);
    assert_eq!((drained.bytes, drained.dropped.bytes), (wrote, 0));
    let dir = desk.dir.join("m");
    assert_eq!(segments(&dir).len(), 4);
    for name in segments(&dir) {
        assert!(
            std::fs::metadata(dir.join(name.to_string()))
                .expect("there")
                .len()
                <= 1 << 20
        );
    }
}

#[test]
fn e2_an_endless_line_is_split_and_delays_nothing_else() {
    let desk = Desk::new();
    let mut endless = desk.module("endless", 1, LogPolicy::default());
    let mut other = desk.module("other", 1, LogPolicy::default());
    let mut out = endless.stdout.take().expect("open");
    let writer = std::thread::spawn(move || {
        let block = vec![b'z'; 1 << 20];
        (0..20).for_each(|_| out.write_all(&block).expect("not broken"));
    });
    say(&mut other.stdout, "hello\n");
    until("the other's line", || {
        stream(&desk.dir.join("other"), StreamName::Stdout) == b"hello\n"
    });
    writer.join().expect("unharmed");
    desk.drain(&mut endless);
    let got = stream(&desk.dir.join("endless"), StreamName::Stdout);
    assert!(got.len() == 20 << 20 && got.iter().all(|&c| c == b'z'));
}

/// A filesystem of its own, small. Needs privilege; says so where it is missing.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &std::path::Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("made");
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status();
        if done.is_ok_and(|s| s.success()) {
            return Some(Self(at.to_owned()));
        }
        #[expect(
            clippy::print_stderr,
            reason = "a skipped story names what was missing"
        )]
        {
            eprintln!("skipped: mounting a tmpfs needs privilege");
        }
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn e6_a_full_disk_blocks_nobody_and_its_tally_is_exact() {
    let desk = Desk::new();
    let Some(_disk) = Small::mount(&desk.dir, "64k") else {
        return;
    };
    let mut module = desk.module("m", 1, small(1 << 20, 8));
    let mut wrote = 0;
    let mut n = 0;
    let mut line = |module: &mut crate::desk::Module| {
        let line = format!("#{n:012}# {}\n", "x".repeat(80));
        n += 1;
        say(&mut module.stdout, &line);
        line.len() as u64
    };
    until("the disk is full", || {
        (0..50).for_each(|_| wrote += line(&mut module));
        desk.degraded() > 0
    });
    std::fs::write(desk.dir.join("filler"), vec![0; 1 << 16]).ok();
    for _ in 0..5000 {
        wrote += line(&mut module);
    }
    desk.flush();
    assert!(module.stats.dropped().bytes > 0);
    assert_eq!(desk.degraded(), 1, "said once");
    std::fs::remove_file(desk.dir.join("filler")).ok();
    let first = segments(&desk.dir.join("m"))[0];
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(desk.dir.join("m").join(first.to_string()));
    let kept = lossy(&desk.dir.join("m"));
    file.expect("there").set_len(0).expect("room again");
    until("recovered", || {
        wrote += line(&mut module);
        desk.count(|e| matches!(e, PumpEvent::Recovered { .. })) > 0
    });
    let drained = desk.drain(&mut module);
    let after = lossy(&desk.dir.join("m"));
    assert_eq!(drained.bytes, wrote);
    assert_eq!(
        kept + after + drained.dropped.bytes,
        wrote,
        "in the files or in the tally"
    );
    let remarks = String::from_utf8(stream(&desk.dir.join("m"), StreamName::Lair)).expect("text");
    assert!(
        remarks.contains(&format!("dropped bytes={}", drained.dropped.bytes)),
        "{remarks}"
    );
}

fn lossy(dir: &std::path::Path) -> u64 {
    stream(dir, StreamName::Stdout).len() as u64
}

#[test]
fn e8_a_folder_that_vanishes_is_noticed_and_made_again() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, LogPolicy::default());
    say(&mut module.stdout, "before\n");
    desk.flush();
    std::fs::rename(desk.dir.join("m"), desk.place.0.join("elsewhere")).expect("renamed");
    until("noticed", || {
        say(&mut module.stdout, "after\n");
        desk.flush();
        desk.degraded() > 0
    });
    say(&mut module.stdout, "end\n");
    desk.drain(&mut module);
    let mut got = stream(&desk.place.0.join("elsewhere"), StreamName::Stdout);
    got.extend(stream(&desk.dir.join("m"), StreamName::Stdout));
    assert_eq!(got.len() as u64, module.stats.bytes());
    assert!(stream(&desk.dir.join("m"), StreamName::Stdout).ends_with(b"end\n"));
    assert!(
        desk.count(|e| {
            matches!(
                e,
                PumpEvent::Degraded {
                    fault: LogFault::Vanished { .. },
                    ..
                }
            )
        }) == 1
    );
}

#[test]
fn e9_a_folder_that_cannot_be_written_degrades_and_the_module_goes_on() {
    let desk = Desk::new();
    std::fs::create_dir_all(&desk.dir).expect("made");
    // A plain file in the folder's place: refused for root too, unlike a mode.
    std::fs::write(desk.dir.join("m"), b"in the way").expect("made");
    let mut module = desk.module("m", 1, LogPolicy::default());
    for _ in 0..10_000 {
        say(
            &mut module.stdout,
            "a line that has no place to go, and is long enough\n",
        );
    }
    until("degraded", || desk.degraded() == 1);
    std::fs::remove_file(desk.dir.join("m")).expect("out of the way");
    until("recovered", || {
        say(&mut module.stdout, "again\n");
        desk.count(|e| matches!(e, PumpEvent::Recovered { .. })) == 1
    });
    let drained = desk.drain(&mut module);
    assert_eq!(
        lossy(&desk.dir.join("m")) + drained.dropped.bytes,
        drained.bytes
    );
}

#[test]
fn e10_a_planted_link_is_refused_and_its_victim_unchanged() {
    let desk = Desk::new();
    let (dir, victim) = (desk.dir.join("m"), desk.place.0.join("victim"));
    std::fs::create_dir_all(&dir).expect("made");
    std::fs::write(&victim, b"precious").expect("made");
    symlink(&victim, dir.join("1.0.log")).expect("planted");
    let mut module = desk.module("m", 1, LogPolicy::default());
    say(&mut module.stdout, "mine\n");
    desk.drain(&mut module);
    let name = "m/1.0.log".to_owned();
    assert!(desk.count(|e| {
        matches!(e, PumpEvent::Degraded { fault, .. } if *fault == LogFault::LinkRefused { name: name.clone() })
    }) == 1);
    assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
    assert!(
        std::fs::read(dir.join("1.1.log"))
            .expect("the next name")
            .ends_with(b"mine\n")
    );
}

#[test]
fn e10_a_link_instead_of_the_folder_is_refused() {
    let desk = Desk::new();
    let victim = desk.place.0.join("victim");
    std::fs::create_dir_all(&victim).expect("made");
    std::fs::create_dir_all(&desk.dir).expect("made");
    symlink(&victim, desk.dir.join("m")).expect("planted");
    let mut module = desk.module("m", 1, LogPolicy::default());
    say(&mut module.stdout, "mine\n");
    let drained = desk.drain(&mut module);
    assert_eq!(drained.dropped.bytes, 5);
    assert_eq!(std::fs::read_dir(&victim).expect("there").count(), 0);
    let fault = LogFault::LinkRefused { name: "m".into() };
    assert!(desk.count(|e| matches!(e, PumpEvent::Degraded { fault: f, .. } if *f == fault)) == 1);
}

#[test]
fn e11_a_module_cannot_forge_lairs_records() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, LogPolicy::default());
    let forged = "2026-01-01T00:00:00.000000000Z lair F dropped bytes=0 lines=0\n";
    say(&mut module.stdout, forged);
    desk.flush();
    desk.pump
        .remark(module.key.clone(), "exited code=0\nstdout F x");
    desk.drain(&mut module);
    desk.flush();
    let streams = joined(&desk.dir.join("m"));
    assert_eq!(streams[&StreamName::Stdout], forged.as_bytes());
    assert_eq!(streams[&StreamName::Lair], b"exited code=0 stdout F x\n");
}

#[test]
fn e13_a_closed_stream_costs_nothing_while_the_other_goes_on() {
    let desk = Desk::new();
    // Somebody else, as the keeper does, holds the read ends open too.
    let (mut module, held) = desk.module_held("m", 1);
    say(&mut module.stdout, "bye\n");
    module.stdout = None;
    until("the end is told", || {
        desk.count(|e| matches!(e, PumpEvent::Ended { .. })) == 1
    });
    // It wakes once more to give its buffers back; then never.
    until("the pump is asleep for good", || {
        let before = wakes(&desk);
        std::thread::sleep(Duration::from_millis(1200));
        wakes(&desk) == before
    });
    say(&mut module.stderr, "still here\n");
    assert!(desk.drain(&mut module).eof);
    assert_eq!(
        stream(&desk.dir.join("m"), StreamName::Stderr),
        b"still here\n"
    );
    drop(held);
}

/// How often the pump's thread has gone to sleep.
fn wakes(desk: &Desk) -> u64 {
    let tid = desk.thread.load(std::sync::atomic::Ordering::Relaxed);
    let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status"));
    let status = status.expect("the thread lives");
    let line = status.lines().find(|l| l.contains("ctxt_switches"));
    let count = line.and_then(|l| l.split_whitespace().last());
    count.and_then(|n| n.parse().ok()).expect("a count")
}

#[test]
fn a_grandchild_that_keeps_the_pipe_is_left_with_a_tally() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, LogPolicy::default());
    say(&mut module.stdout, "line\n");
    let began = Instant::now();
    let drained = desk.drain_within(&module.key, Duration::from_millis(50));
    assert!(!drained.eof && began.elapsed() >= Duration::from_millis(50));
    assert_eq!(drained.bytes, 5);
    let remarks = stream(&desk.dir.join("m"), StreamName::Lair);
    assert!(
        remarks.starts_with(b"detached open=stdout,stderr"),
        "{}",
        remarks.escape_ascii()
    );
}

#[test]
fn a_resumed_run_continues_its_segment_and_others_never_share_one() {
    let desk = Desk::new();
    let mut module = desk.module("m", 7, LogPolicy::default());
    say(&mut module.stdout, "one\n");
    desk.drain(&mut module);
    desk.close(&module.key);
    let mut again = desk.join("m", 7, LogPolicy::default(), true);
    say(&mut again.stdout, "two\n");
    desk.drain(&mut again);
    desk.close(&again.key);
    assert_eq!(segments(&desk.dir.join("m")).len(), 1);
    let mut twin = desk.module("m", 7, LogPolicy::default());
    say(&mut twin.stdout, "three\n");
    desk.drain(&mut twin);
    assert_eq!(
        segments(&desk.dir.join("m")).len(),
        2,
        "not resumed: a file of its own"
    );
    assert_eq!(
        stream(&desk.dir.join("m"), StreamName::Stdout),
        b"one\ntwo\nthree\n"
    );
    assert_eq!(last_run(&desk.dir, "m").expect("read"), 7);
    assert_eq!(last_run(&desk.dir, "never").expect("none"), 0);
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    // The umask is the process's: both ends of it in one test, and no other test looks.
    for mask in [0o000, 0o077] {
        let desk = Desk::new();
        let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        let mut module = desk.module("m", 1, LogPolicy::default());
        say(&mut module.stdout, "x\n");
        desk.drain(&mut module);
        rustix::process::umask(old);
        let mode = |p: &std::path::Path| {
            std::fs::metadata(p).expect("there").permissions().mode() & 0o7777
        };
        assert_eq!(mode(&desk.dir.join("m")), 0o750);
        assert_eq!(mode(&desk.dir.join("m/1.0.log")), 0o640);
    }
}

#[test]
fn a_pattern_is_matched_on_whole_lines_until_the_watcher_has_enough() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, LogPolicy::default());
    let (tell, told) = std::sync::mpsc::channel();
    let pattern = regex_lite::Regex::new("^ready on \\d+$").expect("a pattern");
    desk.pump
        .watch_pattern(module.key.clone(), pattern, move |hit| {
            let _ = tell.send(hit);
            std::ops::ControlFlow::Break(())
        });
    say(&mut module.stderr, "not ready on 1\nready ");
    desk.flush();
    say(&mut module.stderr, "on 80\r\nready on 81\n");
    let hit = crate::desk::answer(&told);
    assert_eq!(
        (hit.stream, hit.line.as_str()),
        (StreamName::Stderr, "ready on 80")
    );
    desk.drain(&mut module);
    assert!(told.try_recv().is_err(), "once");
}
