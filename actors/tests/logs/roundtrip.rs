//! Whatever a module writes, however it is cut, is in the files byte for byte.

use std::io::Write;

use lair_actors::files::{LINE_MAX, LogFormat, LogPolicy, StreamName};
use lair_actors::pump::CrashPoint;
use proptest::prelude::*;

use crate::desk::{Desk, segments, small, stream};

fn bytes() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![3 => Just(b'a'), 2 => Just(b'\n'), 1 => any::<u8>()];
    let short = prop::collection::vec(byte, 0..200);
    let long = (LINE_MAX - 3..2 * LINE_MAX + 3).prop_map(|n| vec![b'x'; n]);
    prop::collection::vec(prop_oneof![8 => short, 1 => long], 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_in_random_chunks_come_back_exactly(
        out in bytes(),
        err in bytes(),
        max_size in 100u64..100_000,
        raw in any::<bool>(),
    ) {
        let desk = Desk::new();
        let format = if raw { LogFormat::Raw } else { LogFormat::Cri };
        let policy = LogPolicy { format, ..small(max_size, 1_000_000) };
        let mut module = desk.module("m", 1, policy);
        for chunk in 0..out.len().max(err.len()) {
            for (chunks, to) in [(&out, &mut module.stdout), (&err, &mut module.stderr)] {
                let (Some(bytes), Some(to)) = (chunks.get(chunk), to) else { continue };
                to.write_all(bytes).expect("the pipe takes it");
            }
            if chunk % 7 == 3 {
                desk.flush();
            }
        }
        let drained = desk.drain(&mut module);
        let dir = desk.dir.join("m");
        let both = [(StreamName::Stdout, out.concat()), (StreamName::Stderr, err.concat())];
        for (name, wrote) in &both {
            let got = if raw { raw_stream(&dir, *name) } else { stream(&dir, *name) };
            prop_assert_eq!(&got, wrote);
        }
        let total: usize = both.iter().map(|b| b.1.len()).sum();
        prop_assert_eq!(drained.bytes, total as u64);
        prop_assert!(drained.eof && drained.dropped.is_zero());
    }
}

fn raw_stream(dir: &std::path::Path, name: StreamName) -> Vec<u8> {
    let ours = segments(dir).into_iter().filter(|s| s.stream == Some(name));
    ours.flat_map(|s| crate::desk::contents(dir, s)).collect()
}

#[test]
fn e3_bytes_that_are_not_text_are_kept_exactly() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, LogPolicy::default());
    let odd = b"\0nul\r\n\xff\xfe\x1b[31mred\x1b[0m\r\r\n\n\n \xc3\n";
    module
        .stdout
        .as_mut()
        .expect("open")
        .write_all(odd)
        .expect("written");
    desk.drain(&mut module);
    assert_eq!(stream(&desk.dir.join("m"), StreamName::Stdout), odd);
}

#[test]
fn e4_the_last_line_without_newline_is_in_the_file_when_the_drain_answers() {
    let desk = Desk::new();
    let mut module = desk.module("m", 1, LogPolicy::default());
    module
        .stdout
        .as_mut()
        .expect("open")
        .write_all(b"x")
        .expect("written");
    assert!(desk.drain(&mut module).eof);
    let file = std::fs::read(desk.dir.join("m/1.0.log")).expect("there");
    assert!(file.ends_with(b" stdout P x\n"), "{}", file.escape_ascii());
}

#[test]
fn a_line_that_does_not_end_becomes_visible_as_a_piece() {
    let desk = Desk::with(|o| o.piece_after = std::time::Duration::from_millis(5));
    let mut module = desk.module("m", 1, LogPolicy::default());
    let dir = desk.dir.join("m");
    module
        .stdout
        .as_mut()
        .expect("open")
        .write_all(b"50 %")
        .expect("written");
    crate::desk::until("the piece", || stream(&dir, StreamName::Stdout) == b"50 %");
    module
        .stdout
        .as_mut()
        .expect("open")
        .write_all(b" done\n")
        .expect("written");
    desk.drain(&mut module);
    assert_eq!(stream(&dir, StreamName::Stdout), b"50 % done\n");
}

#[test]
fn e12_a_panic_under_flood_loses_and_doubles_nothing() {
    for point in [
        CrashPoint::Wake,
        CrashPoint::Read,
        CrashPoint::Framed,
        CrashPoint::Written,
    ] {
        for format in [LogFormat::Cri, LogFormat::Raw] {
            let desk = Desk::new();
            let policy = LogPolicy {
                format,
                ..small(1 << 20, 1000)
            };
            let mut module = desk.module("m", 1, policy);
            let mut out = module.stdout.take().expect("open");
            let writer = std::thread::spawn(move || {
                let mut wrote = Vec::new();
                for n in 0..60_000 {
                    let line = format!("#{n:012}# some words that fill a line\n");
                    out.write_all(line.as_bytes()).expect("no broken pipe");
                    wrote.extend_from_slice(line.as_bytes());
                }
                wrote
            });
            for _ in 0..5 {
                let before = module.stats.bytes();
                crate::desk::until("more bytes", || {
                    module.stats.bytes() > before || writer.is_finished()
                });
                desk.pump.crash(point);
            }
            let wrote = writer.join().expect("the module is not harmed");
            let drained = desk.drain(&mut module);
            let dir = desk.dir.join("m");
            let got = match format {
                LogFormat::Cri => stream(&dir, StreamName::Stdout),
                LogFormat::Raw => raw_stream(&dir, StreamName::Stdout),
            };
            assert!(
                got == wrote,
                "{point:?} {format:?}: {} of {}",
                got.len(),
                wrote.len()
            );
            assert_eq!(drained.bytes, wrote.len() as u64);
            assert!(drained.dropped.is_zero());
        }
    }
}
