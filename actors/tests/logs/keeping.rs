//! Rotation, retention and compression.

use std::io::Write;
use std::time::Duration;

use lair_actors::files::{LogPolicy, StreamName};

use crate::desk::{Desk, segments, small, stream, until};

fn numbered(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("#{n:06}#\n")).collect()
}

#[test]
fn e5_over_fifty_rotations_every_number_is_there_once_and_in_order() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, small(1000, 1000));
    let text = numbered(0, 1200);
    for part in text.as_bytes().chunks(333) {
        module
            .stdout
            .as_mut()
            .expect("open")
            .write_all(part)
            .expect("written");
    }
    desk.drain(&mut module);
    let dir = desk.dir.join("m");
    assert!(segments(&dir).len() > 50);
    assert_eq!(
        String::from_utf8(stream(&dir, StreamName::Stdout)).expect("text"),
        text
    );
    let newest = segments(&dir).last().expect("one").to_string();
    assert_eq!(
        std::fs::read_link(dir.join("current.log"))
            .expect("a link")
            .to_str(),
        Some(&*newest)
    );
    assert_eq!(module.stats.current_path(), Some(dir.join(newest)));
}

#[test]
fn e5_the_count_of_files_is_bounded_over_all_runs() {
    let desk = Desk::new();
    for run in 1..=6 {
        let mut module = desk.module("m", run, small(1000, 5));
        module
            .stdout
            .as_mut()
            .expect("open")
            .write_all(numbered(0, 60).as_bytes())
            .expect("written");
        desk.drain(&mut module);
        desk.close(&module.key);
        assert!(segments(&desk.dir.join("m")).len() <= 5);
    }
    assert_eq!(segments(&desk.dir.join("m")).last().map(|s| s.run), Some(6));
}

#[test]
fn closed_segments_are_compressed_and_nothing_is_lost() {
    let desk = Desk::new();
    let policy = LogPolicy {
        compress: true,
        ..small(2000, 1000)
    };
    std::fs::create_dir_all(desk.dir.join("m")).expect("made");
    std::fs::write(desk.dir.join("m/1.0.log.zst.tmp"), b"left by a crash").expect("made");
    let mut module = desk.module("m", 2, policy);
    let text = numbered(0, 1000);
    module
        .stdout
        .as_mut()
        .expect("open")
        .write_all(text.as_bytes())
        .expect("written");
    desk.drain(&mut module);
    let dir = desk.dir.join("m");
    until("all but the newest compressed", || {
        segments(&dir).iter().filter(|s| !s.zst).count() == 1
            && !dir.join("1.0.log.zst.tmp").exists()
    });
    assert_eq!(
        String::from_utf8(stream(&dir, StreamName::Stdout)).expect("text"),
        text
    );
}

#[test]
fn closed_segments_that_are_too_old_are_deleted() {
    let desk = Desk::new();
    let policy = LogPolicy {
        max_age: Some(Duration::from_secs(60)),
        ..small(1 << 20, 100)
    };
    for run in 1..=2 {
        let mut module = desk.module("m", run, policy.clone());
        module
            .stdout
            .as_mut()
            .expect("open")
            .write_all(b"x\n")
            .expect("written");
        desk.drain(&mut module);
        desk.close(&module.key);
        let old = std::time::SystemTime::now() - Duration::from_secs(120);
        let file = std::fs::File::options()
            .write(true)
            .open(desk.dir.join(format!("m/{run}.0.log")));
        file.expect("there").set_modified(old).expect("aged");
    }
    let runs: Vec<_> = segments(&desk.dir.join("m"))
        .iter()
        .map(|s| s.run)
        .collect();
    assert_eq!(runs, [2], "run 1 went when run 2 began");
}

#[test]
fn more_modules_than_open_files_lose_nothing() {
    let desk = Desk::with(|o| o.open_files = 2);
    let mut modules: Vec<_> = (0..7)
        .map(|n| desk.module(&format!("m{n}"), 1, LogPolicy::default()))
        .collect();
    for round in 0..5 {
        for module in &mut modules {
            writeln!(module.stdout.as_mut().expect("open"), "round {round}").expect("written");
        }
        desk.flush();
    }
    for module in &mut modules {
        assert!(desk.drain(module).dropped.is_zero());
        let got = stream(&desk.dir.join(&*module.key.module), StreamName::Stdout);
        assert_eq!(got, b"round 0\nround 1\nround 2\nround 3\nround 4\n");
    }
}
