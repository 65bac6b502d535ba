//! What the stories share: a folder, a pump, pipes, and a way to read everything back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lair_actors::files::{LogPolicy, SegmentName, StreamName, parse_record};
use lair_actors::pump::{Drained, Pump, PumpEvent, PumpOptions, StreamKey, StreamStats, Streams};
use rustix::pipe::{PipeFlags, pipe_with};

/// A folder below /dev/shm that goes with its owner.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/lair-logs-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a fresh folder can be made");
        Self(path)
    }

    /// Where measurements write: `LAIR_BENCH_DIR`, or the usual place.
    pub fn at_bench() -> Self {
        let Some(dir) = std::env::var_os("LAIR_BENCH_DIR") else {
            return Self::new();
        };
        let path = PathBuf::from(dir).join(format!("lair-logs-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a fresh folder can be made");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Desk {
    pub pump: Pump,
    pub dir: PathBuf,
    pub events: Arc<Mutex<Vec<PumpEvent>>>,
    pub place: Place,
    /// The pump's thread, known once it has told something.
    pub thread: Arc<AtomicU64>,
}

pub struct Module {
    pub key: StreamKey,
    pub stdout: Option<File>,
    pub stderr: Option<File>,
    pub stats: Arc<StreamStats>,
}

impl Desk {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(set: impl FnOnce(&mut PumpOptions)) -> Self {
        let place = Place::new();
        Self::at(place, set)
    }

    pub fn at(place: Place, set: impl FnOnce(&mut PumpOptions)) -> Self {
        let dir = place.0.join("logs");
        let mut options = PumpOptions::new(&dir);
        options.retry_after = Duration::from_millis(20);
        options.upkeep.compress_after = Duration::from_millis(1);
        set(&mut options);
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let thread = Arc::new(AtomicU64::new(0));
        let own = thread.clone();
        let sink = move |event| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            own.store(u64::from(tid.unsigned_abs()), Ordering::Relaxed);
            seen.lock().expect("no test panics in the sink").push(event);
        };
        let pump = Pump::start(options, sink).expect("a pump starts");
        Self {
            pump,
            dir,
            events,
            place,
            thread,
        }
    }

    pub fn module(&self, name: &str, run: u64, policy: LogPolicy) -> Module {
        self.join(name, run, policy, false)
    }

    pub fn join(&self, name: &str, run: u64, policy: LogPolicy, resume: bool) -> Module {
        let key = StreamKey {
            module: name.into(),
            run,
        };
        let (out_r, out_w) = pipe();
        let (err_r, err_w) = pipe();
        let streams = Streams {
            stdout: Some(out_r),
            stderr: Some(err_r),
        };
        let stats = self
            .pump
            .attach(key.clone(), policy, streams, resume)
            .expect("attached");
        Module {
            key,
            stdout: Some(out_w.into()),
            stderr: Some(err_w.into()),
            stats,
        }
    }

    /// A module whose read ends another holder keeps open as well.
    pub fn module_held(&self, name: &str, run: u64) -> (Module, Vec<OwnedFd>) {
        let key = StreamKey {
            module: name.into(),
            run,
        };
        let ((out_r, out_w), (err_r, err_w)) = (pipe(), pipe());
        let held = [&out_r, &err_r].map(|fd| fd.try_clone().expect("a descriptor more"));
        let streams = Streams {
            stdout: Some(out_r),
            stderr: Some(err_r),
        };
        let policy = LogPolicy::default();
        let stats = self
            .pump
            .attach(key.clone(), policy, streams, false)
            .expect("attached");
        let module = Module {
            key,
            stdout: Some(out_w.into()),
            stderr: Some(err_w.into()),
            stats,
        };
        (module, held.into())
    }

    pub fn drain(&self, module: &mut Module) -> Drained {
        module.stdout = None;
        module.stderr = None;
        self.drain_within(&module.key, Duration::from_secs(20))
    }

    pub fn drain_within(&self, key: &StreamKey, within: Duration) -> Drained {
        let (tell, told) = channel();
        assert!(self.pump.drain(key.clone(), within, move |d| {
            let _ = tell.send(d);
        }));
        answer(&told)
    }

    pub fn flush(&self) {
        let (tell, told) = channel();
        self.pump.flush(move || {
            let _ = tell.send(());
        });
        answer(&told);
    }

    pub fn close(&self, key: &StreamKey) {
        let (tell, told) = channel();
        self.pump.close_then(key.clone(), move || {
            let _ = tell.send(());
        });
        answer(&told);
    }

    pub fn degraded(&self) -> usize {
        self.count(|e| matches!(e, PumpEvent::Degraded { .. }))
    }

    pub fn count(&self, which: impl Fn(&PumpEvent) -> bool) -> usize {
        self.events
            .lock()
            .expect("unpoisoned")
            .iter()
            .filter(|e| which(e))
            .count()
    }
}

pub fn answer<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(Duration::from_secs(60))
        .expect("the pump answers")
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
}

/// Level-triggered: true before the deadline, or the test fails.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn small(max_size: u64, max_files: usize) -> LogPolicy {
    LogPolicy {
        max_size,
        max_files,
        compress: false,
        ..LogPolicy::default()
    }
}

pub fn segments(dir: &Path) -> Vec<SegmentName> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .map(|d| {
            d.flatten()
                .filter_map(|e| SegmentName::parse(e.file_name().as_encoded_bytes()))
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

pub fn contents(dir: &Path, name: SegmentName) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(dir.join(name.to_string())).expect("a listed segment opens");
    if name.zst {
        let mut plain = zstd::stream::Decoder::new(file).expect("zstd");
        plain.read_to_end(&mut bytes).expect("whole");
    } else {
        let mut file = file;
        file.read_to_end(&mut bytes).expect("readable");
    }
    bytes
}

/// All bytes per stream, joined as the format promises; every line must be a record.
pub fn joined(dir: &Path) -> BTreeMap<StreamName, Vec<u8>> {
    let mut streams = BTreeMap::<_, Vec<u8>>::new();
    for name in segments(dir) {
        let bytes = contents(dir, name);
        assert!(
            bytes.is_empty() || bytes.ends_with(b"\n"),
            "{name} ends in a whole record"
        );
        for line in bytes.split_inclusive(|&c| c == b'\n') {
            let line = &line[..line.len() - 1];
            let record = parse_record(line)
                .unwrap_or_else(|| panic!("{name}: not a record: {}", line.escape_ascii()));
            let to = streams.entry(record.stream).or_default();
            to.extend_from_slice(record.bytes);
            if !record.partial {
                to.push(b'\n');
            }
        }
    }
    streams
}

pub fn stream(dir: &Path, name: StreamName) -> Vec<u8> {
    joined(dir).remove(&name).unwrap_or_default()
}
