//! A scripted child on a given clock: product code, for embedders' tests and lair's own.
//!
//! Owns: nothing of the machine but a pipe per stream that a script writes to. Promises: the same script and clock give
//! the same history. Never: starts a process.

use super::{
    Backend, BoxFuture, ChildExit, ChildHandle, CommandOutcome, StartOrder, Started, Streams, Tree,
};
use crate::clock::Clock;
use lair_supervision::{ChildIdentity, ExitStatus, Scope, StartFault, Tri, Uptime};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// What a scripted child does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Time from the order to `up`.
    pub spawn_after: Duration,
    /// The first starts fail like this, one each.
    pub fail: VecDeque<StartFault>,
    /// It ends by itself this long after `up`.
    pub exit_after: Option<(Duration, ExitStatus)>,
    /// What it does when asked to stop.
    pub on_stop: OnStop,
    /// What it prints on standard output when it is up. Must fit a pipe (64 KiB).
    pub output: Vec<u8>,
    /// Exit codes of the commands that are run in it, one each, over again from the first; empty: it runs none.
    pub answers: Vec<i32>,
}

/// What a scripted child does when asked to stop.
#[derive(Clone, Copy, Debug)]
pub enum OnStop {
    /// Ends like this, after this time.
    Exit(Duration, ExitStatus),
    /// Nothing.
    Ignore,
}

impl Default for OnStop {
    fn default() -> Self {
        OnStop::Exit(Duration::ZERO, ExitStatus::Signal(libc::SIGTERM))
    }
}

/// Runs scripts.
pub struct SimBackend {
    clock: Arc<dyn Clock>,
    scripts: Mutex<BTreeMap<String, Script>>,
    serial: AtomicU64,
    starts: AtomicU64,
    tally: Arc<Tally>,
}

/// Children by how far they are.
#[derive(Default)]
struct Tally {
    alive: AtomicU64,
    unsettled: AtomicU64,
}

impl SimBackend {
    /// Children live by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(SimBackend {
            clock,
            scripts: Mutex::new(BTreeMap::new()),
            serial: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            tally: Arc::default(),
        })
    }

    /// Gives a module its script; without one it runs until it is stopped.
    pub fn script(&self, module: &str, script: Script) {
        self.lock().insert(module.to_owned(), script);
    }

    /// Starts that were ordered so far.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Children that have not ended.
    #[must_use]
    pub fn alive(&self) -> u64 {
        self.tally.alive.load(Ordering::Relaxed)
    }

    /// Children that have ended and whose owner has not let go of them yet: somebody is still at work on that.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.tally.unsettled.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Script>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, module: &str) -> (Script, Option<StartFault>) {
        let mut scripts = self.lock();
        match scripts.get_mut(module) {
            Some(script) => {
                let fault = script.fail.pop_front();
                (script.clone(), fault)
            }
            None => (Script::default(), None),
        }
    }
}

impl Backend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn simulated(&self) -> bool {
        true
    }

    fn start(&self, order: StartOrder) -> BoxFuture<Result<Started, StartFault>> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let (script, fault) = self.next(order.id.as_str());
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let (clock, tally) = (self.clock.clone(), self.tally.clone());
        Box::pin(async move {
            sleep(&*clock, script.spawn_after).await;
            match fault {
                Some(fault) => Err(fault),
                None => Ok(start(clock, tally, script, serial)),
            }
        })
    }
}

fn start(clock: Arc<dyn Clock>, tally: Arc<Tally>, script: Script, serial: u64) -> Started {
    tally.alive.fetch_add(1, Ordering::Relaxed);
    let child = Arc::new(SimChild {
        clock: clock.clone(),
        on_stop: script.on_stop,
        by_us: Arc::new(AtomicI32::new(0)),
        life: Arc::new(Life {
            exit: watch::Sender::new(None),
            tally,
            released: AtomicBool::new(false),
        }),
        answers: script.answers,
        asked: AtomicUsize::new(0),
    });
    if let Some((after, status)) = script.exit_after {
        child.end_after(after, status);
    }
    Started {
        identity: ChildIdentity::Sim { serial },
        streams: Streams {
            stdout: printed(&script.output),
            stderr: None,
        },
        ready: None,
        handle: child,
    }
}

/// A pipe that holds what the script prints, its write end closed.
fn printed(output: &[u8]) -> Option<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
    rustix::io::ioctl_fionbio(&reader, true).ok()?;
    std::fs::File::from(writer).write_all(output).ok()?;
    Some(reader)
}

async fn sleep(clock: &dyn Clock, time: Duration) {
    if time.is_zero() {
        return;
    }
    let (fire, fired) = oneshot::channel();
    clock.arm(
        clock.now() + time,
        Box::new(move || {
            let _ = fire.send(());
        }),
    );
    // A clock that is gone never fires; then nobody waits either.
    let _ = fired.await;
}

struct SimChild {
    clock: Arc<dyn Clock>,
    on_stop: OnStop,
    by_us: Arc<AtomicI32>,
    life: Arc<Life>,
    answers: Vec<i32>,
    asked: AtomicUsize,
}

struct Life {
    exit: watch::Sender<Option<(ExitStatus, Uptime)>>,
    tally: Arc<Tally>,
    released: AtomicBool,
}

impl Life {
    fn end(&self, status: ExitStatus, at: Uptime) {
        let first = self.exit.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert((status, at));
            first
        });
        if first {
            self.tally.alive.fetch_sub(1, Ordering::Relaxed);
            if !self.released.load(Ordering::Relaxed) {
                self.tally.unsettled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn release(&self) {
        let ended = self.exit.borrow().is_some();
        if !self.released.swap(true, Ordering::Relaxed) && ended {
            self.tally.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl SimChild {
    fn end_after(&self, after: Duration, status: ExitStatus) {
        let (life, at) = (self.life.clone(), self.clock.now() + after);
        let end = move || life.end(status, at);
        if after.is_zero() {
            end();
        } else {
            self.clock.arm(at, Box::new(end));
        }
    }
}

impl ChildHandle for SimChild {
    fn signal(&self, signal: i32, _scope: Scope) {
        // What comes after the end is no part of its story.
        if self.life.exit.borrow().is_some() {
            return;
        }
        self.by_us.store(signal, Ordering::Relaxed);
        match (signal, self.on_stop) {
            (libc::SIGKILL | libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS | libc::SIGILL, _) => {
                self.end_after(Duration::ZERO, ExitStatus::Signal(signal));
            }
            (_, OnStop::Exit(after, status)) => self.end_after(after, status),
            (_, OnStop::Ignore) => {}
        }
    }

    fn kill(&self) {
        self.signal(libc::SIGKILL, Scope::All);
    }

    fn exit(&self) -> BoxFuture<ChildExit> {
        let mut exit = self.life.exit.subscribe();
        let by_us = self.by_us.clone();
        Box::pin(async move {
            let ended = exit.wait_for(Option::is_some).await.ok().and_then(|e| *e);
            let status = ended.map_or(ExitStatus::Unknown, |(status, _)| status);
            let by_us = Some(by_us.load(Ordering::Relaxed)).filter(|s| *s != 0);
            ChildExit {
                status,
                oom: Tri::No,
                core: Some(false),
                by_us,
                leftover: Vec::new(),
            }
        })
    }

    fn run(&self, _argv: Vec<String>, _timeout: Duration) -> BoxFuture<CommandOutcome> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers.get(turn % self.answers.len().max(1)).copied();
        Box::pin(async move {
            match answer {
                Some(code) => CommandOutcome::Ended {
                    status: ExitStatus::Code(code),
                    output: Vec::new(),
                },
                None => CommandOutcome::CouldNotRun("its script has no answers".into()),
            }
        })
    }

    fn tree(&self) -> Tree {
        Tree::None
    }

    fn end(&self, status: ExitStatus) -> bool {
        self.end_after(Duration::ZERO, status);
        true
    }

    fn release(&self) {
        self.life.release();
    }
}

impl Drop for SimChild {
    fn drop(&mut self) {
        // Nobody has a grip on it any more: it ends, as a process would.
        self.life
            .end(ExitStatus::Signal(libc::SIGKILL), self.clock.now());
        self.life.release();
    }
}
