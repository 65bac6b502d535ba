//! The pump as its users hold it.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use regex_lite::Regex;
use rustix::event::{EventfdFlags, eventfd};

use crate::files::{LogFault, LogFormat, LogPolicy, StreamName, UpkeepOptions, check_module_name};

use super::command::{AttachFault, Command, CrashPoint, Drained, PumpEvent, StreamKey, Streams};
use super::kept::KeptDesk;
use super::stats::StreamStats;
use super::watch::{Matched, Watch};
use super::worker::Worker;

/// Remarks wait in the queue up to this many; more are refused.
const REMARKS: usize = 65_536;

/// Where the pump writes and how much it holds.
#[derive(Debug, Clone)]
pub struct PumpOptions {
    /// The folder of the modules' log folders.
    pub log_dir: PathBuf,
    /// Segment files open at once, over all modules.
    pub open_files: usize,
    /// How long a piece of a line waits for its end before it becomes a record.
    pub piece_after: Duration,
    /// How long lines of a busy stream are gathered.
    pub gather: Duration,
    /// How long a failing disk is left alone.
    pub retry_after: Duration,
    /// How closed segments are treated.
    pub upkeep: UpkeepOptions,
}

/// A handle on the pump; the last one dropped ends it.
#[derive(Debug, Clone)]
pub struct Pump(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: Sender<Command>,
    bell: Arc<Bell>,
    asked: AtomicU64,
    log_dir: Arc<Path>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Wakes the pump, once per sleep.
#[derive(Debug)]
pub(super) struct Bell {
    pub fd: OwnedFd,
    pub rung: AtomicBool,
    pub queued: AtomicUsize,
}

// -----------------------------------------------------------------------------

impl PumpOptions {
    /// The usual figures, for logs below `log_dir`.
    pub fn new(log_dir: impl Into<PathBuf>) -> Self {
        Self {
            log_dir: log_dir.into(),
            open_files: 64,
            piece_after: Duration::from_secs(1),
            gather: Duration::from_micros(500),
            retry_after: Duration::from_secs(1),
            upkeep: UpkeepOptions::default(),
        }
    }
}

impl Pump {
    /// Starts the pump's thread. `sink` is called on it, and must not wait.
    pub fn start(
        options: PumpOptions,
        sink: impl Fn(PumpEvent) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_at(options, None, sink)
    }

    /// As [`Pump::start`], at a desk from which a kill takes nothing; what an earlier life left on it is finished first.
    pub fn start_at(
        options: PumpOptions,
        desk: Option<KeptDesk>,
        sink: impl Fn(PumpEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell {
            fd,
            rung: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
        });
        let (commands, inbox) = channel();
        let log_dir = options.log_dir.clone().into();
        let mut worker = Worker::new(options, desk, bell.clone(), inbox, Box::new(sink))?;
        let thread = std::thread::Builder::new()
            .name("lair-log-pump".into())
            .stack_size(256 << 10)
            .spawn(move || worker.run())?;
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Shared {
            commands,
            bell,
            asked: AtomicU64::new(0),
            log_dir,
            thread,
        })))
    }

    /// Makes a module's log folder if it is missing, and answers whether it can be written to, from the pump's thread.
    /// `false` if the pump is gone.
    pub fn check(
        &self,
        module: Arc<str>,
        reply: impl FnOnce(Result<(), LogFault>) + Send + 'static,
    ) -> bool {
        self.send(Command::Check {
            module,
            reply: Box::new(reply),
        })
    }

    /// Takes over a run's pipes. With `resume`, the newest segment that the run has on
    /// disk is continued. Attaching a key again replaces its pipes.
    pub fn attach(
        &self,
        key: StreamKey,
        policy: LogPolicy,
        streams: Streams,
        resume: bool,
    ) -> Result<Arc<StreamStats>, AttachFault> {
        check_module_name(&key.module).map_err(AttachFault::Name)?;
        let raw = policy.format == LogFormat::Raw;
        let stats = Arc::new(StreamStats::new(self.0.log_dir.clone(), key.clone(), raw));
        let attach = Command::Attach {
            key,
            policy,
            streams,
            resume,
            stats: stats.clone(),
        };
        if self.send(attach) {
            Ok(stats)
        } else {
            Err(AttachFault::Gone)
        }
    }

    /// Writes a record of lair's own. `false` if the pump is gone or too far behind.
    pub fn remark(&self, key: StreamKey, text: impl Into<String>) -> bool {
        self.backlog() < REMARKS
            && self.send(Command::Remark {
                key,
                text: text.into(),
            })
    }

    /// Reads both streams to their ends, or until `within` is over, then answers once,
    /// from the pump's thread. Remarks stay possible until [`Pump::close`].
    pub fn drain(
        &self,
        key: StreamKey,
        within: Duration,
        reply: impl FnOnce(Drained) + Send + 'static,
    ) -> bool {
        self.send(Command::Drain {
            key,
            within,
            reply: Box::new(reply),
        })
    }

    /// Ends the run's current segment.
    pub fn rotate(&self, key: StreamKey) -> bool {
        self.send(Command::Rotate { key })
    }

    /// Writes what has been read and waits for the end of a line, then answers.
    pub fn flush(&self, reply: impl FnOnce() + Send + 'static) -> bool {
        self.send(Command::Flush {
            reply: Box::new(reply),
        })
    }

    /// Forgets a run: its pipes and files are closed, nothing more is read.
    pub fn close(&self, key: StreamKey) -> bool {
        self.send(Command::Close { key, reply: None })
    }

    /// Like [`Pump::close`], and answers when it is done.
    pub fn close_then(&self, key: StreamKey, reply: impl FnOnce() + Send + 'static) -> bool {
        self.send(Command::Close {
            key,
            reply: Some(Box::new(reply)),
        })
    }

    /// Keeps the last segment of this run, which failed, as long as others can go.
    pub fn pin(&self, key: StreamKey) -> bool {
        self.send(Command::Pin { key })
    }

    /// Keeps a run's files by other bounds from now on; their format stays.
    pub fn revise(&self, key: StreamKey, policy: LogPolicy) -> bool {
        self.send(Command::Revise { key, policy })
    }

    /// Calls `notify` for each complete line that matches, until it breaks off.
    pub fn watch_pattern(
        &self,
        key: StreamKey,
        pattern: Regex,
        notify: impl FnMut(Matched) -> ControlFlow<()> + Send + 'static,
    ) -> bool {
        let watch = Watch {
            pattern,
            notify: Box::new(notify),
            tails: Default::default(),
        };
        self.send(Command::Watch {
            key,
            watch: Some(Box::new(watch)),
        })
    }

    /// Ends the watching of a run's lines.
    pub fn unwatch(&self, key: StreamKey) -> bool {
        self.send(Command::Watch { key, watch: None })
    }

    /// The begun lines, stdout's and stderr's, that an earlier life left of this run; when the answer comes, all else
    /// that it had read is in the files.
    pub fn begun(&self, key: StreamKey, reply: impl FnOnce([Vec<u8>; 2]) + Send + 'static) -> bool {
        self.send(Command::Begun {
            key,
            reply: Box::new(reply),
        })
    }

    /// Runs of an earlier life that were not attached by now will not be: their begun lines are let go of.
    pub fn disown(&self) -> bool {
        self.send(Command::Disown)
    }

    /// Test seam: panics in the pump's work at the point given.
    pub fn crash(&self, point: CrashPoint) -> bool {
        self.send(Command::Crash(point))
    }

    /// Fault injection: the next `count` writes of a module's log fail with this error.
    pub fn fail_writes(&self, module: Arc<str>, errno: i32, count: u64) -> bool {
        self.send(Command::FailWrites {
            module,
            errno,
            count,
        })
    }

    /// Fault injection: what this stream brings from now on is read, dropped and counted.
    pub fn discard(&self, key: StreamKey, stream: StreamName) -> bool {
        self.send(Command::Discard { key, stream })
    }

    /// Fault injection: the pump does nothing at all for a time.
    pub fn stall(&self, time: Duration) -> bool {
        self.send(Command::Stall(time))
    }

    /// Commands not yet taken up.
    pub fn backlog(&self) -> usize {
        self.0.bell.queued.load(Ordering::Relaxed)
    }

    /// Commands sent so far, to tell whether anything was asked since.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Writes what is left, ends the thread and waits for it.
    pub fn stop(&self) {
        self.send(Command::Stop);
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        if let Some(thread) = thread {
            // A panic that ends the thread has been reported by its hook already.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) -> bool {
        self.0.send(command)
    }
}

impl Shared {
    fn send(&self, command: Command) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.bell.queued.fetch_add(1, Ordering::Relaxed);
        if self.commands.send(command).is_err() {
            self.bell.queued.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        // Read and set in one step: a plain load could pass the send before it.
        if !self.bell.rung.swap(true, Ordering::SeqCst) {
            self.bell.ring();
        }
        true
    }
}

impl Bell {
    pub fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        // A full counter wakes as well as one more in it.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}
