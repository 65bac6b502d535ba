//! Reading back: the tail, the times, the streams, patterns, and following.

use std::io::Write;
use std::time::Duration;

use lair_actors::files::read::{Entry, Follower, LogReader, Query, Runs};
use lair_actors::files::{LogFormat, LogPolicy, StreamName};
use regex_lite::Regex;

use crate::desk::{Desk, Module, segments, small, until};

fn write(module: &mut Module, from: u32, to: u32) {
    let text: String = (from..to).map(|n| format!("line {n}\n")).collect();
    module
        .stdout
        .as_mut()
        .expect("open")
        .write_all(text.as_bytes())
        .expect("written");
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .map(|e| String::from_utf8_lossy(&e.bytes).into_owned())
        .collect()
}

fn ask(desk: &Desk, query: Query) -> Vec<Entry> {
    let reader = LogReader::open(&desk.dir, "m").expect("there");
    reader
        .entries(query)
        .expect("listed")
        .collect::<Result<_, _>>()
        .expect("readable")
}

fn lines(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("line {n}")).collect()
}

#[test]
fn the_last_lines_are_found_over_rotation_and_through_compression() {
    for compress in [false, true] {
        let desk = Desk::new();
        let mut module = desk.module(
            "m",
            1,
            LogPolicy {
                compress,
                ..small(3000, 1000)
            },
        );
        write(&mut module, 0, 1000);
        desk.drain(&mut module);
        if compress {
            until("compressed", || {
                segments(&desk.dir.join("m"))
                    .iter()
                    .filter(|s| !s.zst)
                    .count()
                    == 1
            });
        }
        assert_eq!(texts(&ask(&desk, Query::default())), lines(0, 1000));
        for count in [0, 1, 10, 333, 1000, 5000] {
            let got = ask(
                &desk,
                Query {
                    tail: Some(count as usize),
                    ..Query::default()
                },
            );
            assert_eq!(
                texts(&got),
                lines(1000u32.saturating_sub(count), 1000),
                "{count}"
            );
        }
        let grep = Some(Regex::new("7$").expect("a pattern"));
        let got = ask(
            &desk,
            Query {
                tail: Some(2),
                grep,
                ..Query::default()
            },
        );
        assert_eq!(texts(&got), ["line 987", "line 997"]);
        let whole = ask(&desk, Query::default());
        let from = Some(whole[499].next);
        assert_eq!(
            texts(&ask(
                &desk,
                Query {
                    from,
                    ..Query::default()
                }
            )),
            lines(500, 1000)
        );
        let from = Some(whole[500].here);
        let got = ask(
            &desk,
            Query {
                from,
                tail: Some(700),
                ..Query::default()
            },
        );
        assert_eq!(texts(&got), lines(500, 1000));
        let (since, until) = (whole[100].at, whole[100].at);
        let got = ask(
            &desk,
            Query {
                since,
                until,
                ..Query::default()
            },
        );
        assert!(got.contains(&whole[100]) && got.iter().all(|e| e.at == since));
    }
}

#[test]
fn streams_and_runs_are_told_apart() {
    let desk = Desk::new();
    for run in 1..=3 {
        let mut module = desk.module("m", run, LogPolicy::default());
        write(&mut module, run as u32, run as u32 + 1);
        module
            .stderr
            .as_mut()
            .expect("open")
            .write_all(b"oops\n")
            .expect("written");
        desk.drain(&mut module);
        desk.close(&module.key);
    }
    let stderr = Some(StreamName::Stderr);
    assert_eq!(
        ask(
            &desk,
            Query {
                stream: stderr,
                runs: Runs::All,
                ..Query::default()
            }
        )
        .len(),
        3
    );
    let stdout = Some(StreamName::Stdout);
    let of = |runs| {
        texts(&ask(
            &desk,
            Query {
                stream: stdout,
                runs,
                ..Query::default()
            },
        ))
    };
    assert_eq!(of(Runs::Latest), ["line 3"]);
    assert_eq!(of(Runs::Previous), ["line 2"]);
    assert_eq!(of(Runs::Number(1)), ["line 1"]);
    assert!(of(Runs::Number(9)).is_empty());
}

#[test]
fn raw_files_are_read_too() {
    let desk = Desk::new();
    let policy = LogPolicy {
        format: LogFormat::Raw,
        ..small(3000, 1000)
    };
    let mut module = desk.module("m", 1, policy);
    write(&mut module, 0, 1000);
    desk.flush();
    desk.pump.remark(module.key.clone(), "exited code=0");
    desk.drain(&mut module);
    let stdout = Some(StreamName::Stdout);
    let got = ask(
        &desk,
        Query {
            stream: stdout,
            ..Query::default()
        },
    );
    assert_eq!(texts(&got), lines(0, 1000));
    let got = ask(
        &desk,
        Query {
            stream: stdout,
            tail: Some(7),
            ..Query::default()
        },
    );
    assert_eq!(texts(&got), lines(993, 1000));
    desk.flush();
    let lair = Some(StreamName::Lair);
    let got = ask(
        &desk,
        Query {
            stream: lair,
            ..Query::default()
        },
    );
    assert!(got[0].at.is_some() && got[0].bytes == b"exited code=0");
}

#[test]
fn a_follower_sees_every_line_once_over_rotation_compression_and_runs() {
    for format in [LogFormat::Cri, LogFormat::Raw] {
        let desk = Desk::new();
        let policy = LogPolicy {
            compress: true,
            format,
            ..small(2000, 100_000)
        };
        let mut module = desk.module("m", 1, policy.clone());
        write(&mut module, 0, 5);
        desk.flush();
        let reader = LogReader::open(&desk.dir, "m").expect("there");
        let mut follower = Follower::new(reader, Query::default(), None).expect("followed");
        let (mut got, mut missed) = (Vec::new(), 0);
        let mut next = 5;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while got.len() < 2000 && std::time::Instant::now() < deadline {
            if next < 2005 {
                write(&mut module, next, next + 50);
                next += 50;
            }
            if next == 1005 {
                desk.drain(&mut module);
                module = desk.module("m", 2, policy.clone());
            }
            follower.wait(Duration::from_millis(500)).expect("waited");
            let batch = follower.look().expect("readable");
            missed += batch.missed;
            got.extend(batch.entries);
        }
        assert_eq!(missed, 0);
        assert_eq!(texts(&got), lines(5, 2005), "{format:?}");
    }
}

#[test]
fn a_follower_goes_on_from_where_a_reading_ended() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, small(2000, 100_000));
    write(&mut module, 0, 100);
    desk.flush();
    let seen = ask(
        &desk,
        Query {
            tail: Some(50),
            ..Query::default()
        },
    );
    let from = seen.last().map(|e| e.next);
    write(&mut module, 100, 200);
    desk.flush();
    let reader = LogReader::open(&desk.dir, "m").expect("there");
    let mut follower = Follower::new(reader, Query::default(), from).expect("followed");
    assert_eq!(
        texts(&follower.look().expect("readable").entries),
        lines(100, 200)
    );
    assert!(
        follower.look().expect("readable").entries.is_empty(),
        "once"
    );
}

#[test]
fn damage_in_a_file_is_shown_and_never_a_panic() {
    let desk = Desk::new();
    let dir = desk.dir.join("m");
    std::fs::create_dir_all(&dir).expect("made");
    let good = "2026-01-01T00:00:00.000000000Z stdout F fine\n";
    let bad = [
        "",
        "x",
        "2026-13-01T00:00:00.000000000Z stdout F x",
        "2026-01-01T00:00:00.000000000Z stdout",
    ];
    std::fs::write(
        dir.join("1.0.log"),
        format!("{good}{}\n{good}torn", bad.join("\n")),
    )
    .expect("made");
    std::fs::write(dir.join("1.1.log.zst"), b"not zstd").expect("made");
    let reader = LogReader::open(&desk.dir, "m").expect("there");
    let got: Vec<_> = reader.entries(Query::default()).expect("listed").collect();
    let fine = got.iter().flatten().filter(|e| e.bytes == b"fine").count();
    assert_eq!((fine, got.iter().filter(|e| e.is_err()).count()), (2, 1));
    let lair = Some(StreamName::Lair);
    let query = Query {
        stream: lair,
        ..Query::default()
    };
    assert!(
        reader
            .entries(query)
            .expect("listed")
            .flatten()
            .all(|e| e.at.is_none())
    );
}
