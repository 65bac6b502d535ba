//! Measurements, run by hand, in release:
//! `cargo test --release -p lair-actors --test logs -- --ignored --nocapture bench`.
//!
//! Each compares the pump with a plain read+write loop over the same writer, in turns.

#![expect(clippy::print_stderr, reason = "a measurement prints what it measured")]

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lair_actors::files::{LogFormat, LogPolicy};
use lair_actors::pump::{StreamKey, Streams};
use rustix::time::{ClockId, clock_gettime};

use crate::desk::{Desk, Place, answer, pipe};

const SEGMENT: u64 = 64 << 20;
const LINE: usize = 100;

#[derive(Clone, Copy)]
struct Measured {
    mb_s: f64,
    cpu_s_gb: f64,
}

/// Writes numbered lines of 100 bytes, 640 a write or one; answers with its CPU time.
fn writer(per_write: usize, bytes: u64, stdout: OwnedFd) -> JoinHandle<f64> {
    std::thread::spawn(move || {
        let mut out = File::from(stdout);
        let mut block = Vec::new();
        let mut n = 0;
        while n < bytes / LINE as u64 {
            block.clear();
            for _ in 0..per_write {
                let from = block.len();
                block.resize(from + LINE, b'.');
                block[from + LINE - 1] = b'\n';
                let (mut at, mut v) = (from + 13, n);
                while at > from + 1 {
                    at -= 1;
                    block[at] = b'0' + u8::try_from(v % 10).unwrap_or(0);
                    v /= 10;
                }
                n += 1;
            }
            out.write_all(&block).expect("not broken");
        }
        cpu(ClockId::ThreadCPUTime)
    })
}

/// The plain loop: 1 MiB pipe, reads of 1 MiB, a nap when little came.
fn plain(per_write: usize, bytes: u64) -> Measured {
    let place = Place::at_bench();
    let (r, w) = pipe();
    rustix::pipe::fcntl_setpipe_size(&r, 1 << 20).expect("privileged");
    let mut buffer = vec![1u8; 1 << 20];
    let (mut seen, mut size, mut n) = (0, 0, 0);
    let open = |n: u32| {
        let path = place.0.join(format!("{n}.log"));
        File::options()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(path)
            .expect("opened")
    };
    let mut out = open(0);
    let (began, before) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let writer = writer(per_write, bytes, w);
    loop {
        let count = rustix::io::read(&r, &mut buffer[..]).expect("read");
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count]).expect("written");
        seen += count as u64;
        size += count as u64;
        if size >= SEGMENT {
            n += 1;
            out = open(n);
            if n >= 8 {
                let _ = std::fs::remove_file(place.0.join(format!("{}.log", n - 8)));
            }
            size = 0;
        }
        if count < 512 << 10 {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    measured(seen, began, before, writer)
}

fn pumped(per_write: usize, bytes: u64, format: LogFormat) -> Measured {
    let place = Place::at_bench();
    let desk = Desk::at(place, |o| o.upkeep.compress_after = Duration::from_secs(1));
    let (r, w) = pipe();
    let key = StreamKey {
        module: "m".into(),
        run: 1,
    };
    let policy = LogPolicy {
        format,
        max_size: SEGMENT,
        ..LogPolicy::default()
    };
    let streams = Streams {
        stdout: Some(r),
        stderr: None,
    };
    desk.pump
        .attach(key.clone(), policy, streams, false)
        .expect("attached");
    let (began, before) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let writer = writer(per_write, bytes, w);
    let drained = desk.drain_within(&key, Duration::from_secs(60));
    assert!(drained.eof && drained.dropped.is_zero());
    measured(drained.bytes, began, before, writer)
}

fn measured(bytes: u64, began: Instant, before: f64, writer: JoinHandle<f64>) -> Measured {
    let seconds = began.elapsed().as_secs_f64();
    let used = cpu(ClockId::ProcessCPUTime) - before;
    let writers = writer.join().expect("the writer ends");
    let gb = bytes as f64 / 1e9;
    Measured {
        mb_s: gb * 1000.0 / seconds,
        cpu_s_gb: (used - writers) / gb,
    }
}

fn cpu(clock: ClockId) -> f64 {
    let t = clock_gettime(clock);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn median(mut of: Vec<Measured>) -> Measured {
    of.sort_by(|a, b| a.mb_s.total_cmp(&b.mb_s));
    of[of.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn bench_throughput() {
    for (mode, per_write, bytes) in [("line", 1, 1u64 << 27), ("bulk", 640, 1 << 30)] {
        let mut runs: [Vec<Measured>; 3] = Default::default();
        for _ in 0..3 {
            runs[0].push(plain(per_write, bytes));
            runs[1].push(pumped(per_write, bytes, LogFormat::Cri));
            runs[2].push(pumped(per_write, bytes, LogFormat::Raw));
        }
        let [plain, cri, raw] = runs.map(median);
        for (name, m) in [("plain", plain), ("cri", cri), ("raw", raw)] {
            eprintln!(
                "{mode:5} {name:5} {:6.0} MB/s  x{:.2}  {:.2} CPU s/GB",
                m.mb_s,
                m.mb_s / plain.mb_s,
                m.cpu_s_gb
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn bench_drain_latency() {
    let desk = Desk::new();
    let mut waits: Vec<_> = (1..=2000)
        .map(|run| {
            let mut module = desk.module("m", run, LogPolicy::default());
            (module.stdout, module.stderr) = (None, None);
            let (tell, told) = channel();
            let began = Instant::now();
            desk.pump
                .drain(module.key.clone(), Duration::from_secs(2), move |d| {
                    let _ = tell.send(d);
                });
            assert!(answer(&told).eof);
            let wait = began.elapsed();
            desk.close(&module.key);
            wait
        })
        .collect();
    waits.sort();
    eprintln!(
        "drain of an ended run: p50 {:?} p99 {:?}",
        waits[1000], waits[1980]
    );
}
