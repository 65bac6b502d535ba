//! The grip on one container, from its start to its removal.
//!
//! Owns: what is known of it and the kernel's hold on its first process. Promises: a signal goes by the kernel where
//! that is allowed, so that an engine that is frozen or gone stops nobody from ending a container. Never: removes it
//! before its owner has let go of it.

use super::cgroup::{self, Counter, Group};
use super::engine::{Applied, ContainerState, CreateSpec, ImageFacts};
use super::presence::Interest;
use super::wanted::{described, differences};
use super::{QUICK, Shared, command, end, sweep, within};
use crate::backend::last_word::LastWord;
use crate::backend::{BoxFuture, ChildExit, ChildHandle, CommandOutcome, ImageCheck, Tree};
use crate::cgroup::{Held, HeldLimits, Limit, held_by};
use crate::confinement::Confinement;
use crate::keeper::ProcessId;
use crate::keeper::orphan::Watch;
use lair_supervision::Scope;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long output that is read from the engine's log is waited for after a container's end.
const HANDED_ON: Duration = Duration::from_secs(10);
/// The same where the engine is away, and may be starting again.
const BACK_AGAIN: Duration = Duration::from_secs(4);

/// The kernel's hold on a container's first process.
pub(super) struct Life {
    pid: i32,
    pidfd: OwnedFd,
    watch: Watch,
    group: Group,
}

impl Life {
    /// Of this process, if it is alive and in the cgroup of the container with this id.
    pub fn of(pid: i32, id: &str) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
        let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
        let watch = Watch::open(ProcessId {
            pid,
            start_ticks: stat.starttime,
        });
        // Looked at after opening: what is a member now is what the descriptor holds.
        let group = Group::find(pid, id);
        cgroup::belongs(pid, id).then_some(Life {
            pid,
            pidfd,
            watch,
            group,
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the image's start period is real time, as its probes are"
)]
fn now() -> Instant {
    Instant::now()
}

pub(super) struct Grip {
    pub shared: Arc<Shared>,
    pub id: String,
    pub spec: Arc<CreateSpec>,
    image: Arc<ImageFacts>,
    began: Instant,
    init: Option<(i32, OwnedFd)>,
    pub group: Option<PathBuf>,
    groups: Vec<crate::cgroup::Group>,
    applied: Applied,
    pub by_us: AtomicI32,
    released: AtomicBool,
    pub exit: LastWord,
    /// It has ended, though not all of its output may have been handed on.
    over: watch::Sender<bool>,
    output: Mutex<Option<JoinHandle<()>>>,
    behind: AtomicBool,
    _interest: Interest,
}

impl Grip {
    pub fn begin(
        shared: &Arc<Shared>,
        id: &str,
        spec: &Arc<CreateSpec>,
        image: Arc<ImageFacts>,
        life: Option<Life>,
        applied: Applied,
    ) -> Arc<Self> {
        let (init, watch, group) = match life {
            Some(life) => (Some((life.pid, life.pidfd)), Some(life.watch), life.group),
            None => (None, None, Group::default()),
        };
        let Group { dir, ooms, all } = group;
        let grip = Arc::new(Grip {
            shared: shared.clone(),
            id: id.to_owned(),
            spec: spec.clone(),
            image,
            began: now(),
            init,
            group: dir,
            groups: all,
            applied,
            by_us: AtomicI32::new(0),
            released: AtomicBool::new(false),
            exit: LastWord::default(),
            over: watch::Sender::new(false),
            output: Mutex::new(None),
            behind: AtomicBool::new(false),
            _interest: Interest::of(shared),
        });
        grip.follow(watch, ooms);
        grip
    }

    /// Watches for the end on a task that does not hold the grip itself: dropping the grip must be able to end it.
    fn follow(self: &Arc<Self>, watch: Option<Watch>, ooms: Option<Counter>) {
        let (weak, shared) = (Arc::downgrade(self), self.shared.clone());
        let (id, init) = (self.id.clone(), self.spec.init);
        tokio::spawn(async move {
            let end = end::await_end(&shared, &id, watch, ooms).await;
            let output = weak.upgrade().and_then(|grip| {
                grip.over.send_replace(true);
                grip.late_output()
            });
            if let Some(output) = output {
                let patience = match shared.presence.is_here() {
                    true => HANDED_ON,
                    false => BACK_AGAIN,
                };
                if tokio::time::timeout(patience, output).await.is_err() {
                    tracing::warn!(container = id, "it has ended, and its output has not");
                }
            }
            if let Some(grip) = weak.upgrade() {
                let by_us = Some(grip.by_us.load(Ordering::Relaxed)).filter(|s| *s != 0);
                grip.exit.tell(end.as_exit(by_us, init));
            }
        });
    }

    /// Tells of its end at once, before the rest of its output is handed on.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Can its end be seen without the engine?
    pub fn is_seen(&self) -> bool {
        self.init.is_some()
    }

    /// This hands its output on, until the end of that.
    pub fn hands_on(&self, task: JoinHandle<()>) {
        *self.output() = Some(task);
    }

    /// Some of its output has to be read again from the engine's log: its end is told only after that.
    pub fn falls_behind(&self) {
        self.behind.store(true, Ordering::Relaxed);
    }

    fn late_output(&self) -> Option<JoinHandle<()>> {
        let behind = self.behind.load(Ordering::Relaxed);
        behind.then(|| self.output().take())?
    }

    // Whole operations on an option.
    fn output(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has ended, by the kernel's word: an engine may take a while to notice, and nothing more is sent meanwhile.
    pub fn is_over(&self) -> bool {
        let dead = self.init.as_ref().is_some_and(|(_, pidfd)| {
            let mut look = [PollFd::new(pidfd, PollFlags::IN)];
            matches!(poll(&mut look, Some(&Timespec::default())), Ok(1..))
        });
        dead || self.exit.is_told()
    }

    /// To the first process, by the kernel; false where that can't be done.
    fn signal_init(&self, signal: i32) -> bool {
        let (Some((_, pidfd)), Some(named)) = (&self.init, Signal::from_named_raw(signal)) else {
            return false;
        };
        matches!(
            pidfd_send_signal(pidfd, named),
            Ok(()) | Err(rustix::io::Errno::SRCH)
        )
    }

    /// To every member of its cgroup; false where they can't be seen or reached.
    fn signal_all(&self, signal: i32) -> bool {
        let (Some(dir), Some(named)) = (&self.group, Signal::from_named_raw(signal)) else {
            return false;
        };
        cgroup::members(dir).into_iter().all(|pid| {
            let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|p| pidfd_open(p, PidfdFlags::empty()))
            else {
                return true;
            };
            !cgroup::belongs(pid, &self.id)
                || !matches!(
                    pidfd_send_signal(&pidfd, named),
                    Err(rustix::io::Errno::PERM)
                )
        })
    }

    /// By the engine, in the background: what the kernel would not do, and the thaw that a paused container needs.
    fn ask_engine(&self, signal: Option<i32>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (shared, id) = (self.shared.clone(), self.id.clone());
        runtime.spawn(async move {
            let engine = &shared.engine;
            if let Some(signal) = signal
                && let Err(fault) = within(QUICK, "signal it", engine.signal(&id, signal)).await
            {
                tracing::warn!(container = id, signal, %fault, "signal not sent");
            }
            let facts = within(QUICK, "inspect it", engine.inspect(&id)).await;
            if let Ok(Some(facts)) = facts
                && facts.state == ContainerState::Paused
                && let Err(fault) = within(QUICK, "unpause it", engine.unpause(&id)).await
            {
                tracing::warn!(container = id, %fault, "not unpaused");
            }
        });
    }

    fn remove(&self) {
        sweep::remove(&self.shared, self.id.clone());
    }
}

impl ChildHandle for Grip {
    fn signal(&self, signal: i32, scope: Scope) {
        if self.is_over() {
            return;
        }
        self.by_us.store(signal, Ordering::Relaxed);
        let sent = match scope {
            Scope::Leader | Scope::Group => self.signal_init(signal),
            Scope::All => self.signal_all(signal),
        };
        self.ask_engine((!sent).then_some(signal));
    }

    fn kill(&self) {
        if self.is_over() {
            return;
        }
        self.by_us.store(libc::SIGKILL, Ordering::Relaxed);
        // The first process takes all others of its namespace along.
        let sent = self.signal_init(libc::SIGKILL);
        self.ask_engine((!sent).then_some(libc::SIGKILL));
    }

    fn exit(&self) -> BoxFuture<ChildExit> {
        self.exit.wait()
    }

    fn run(&self, argv: Vec<String>, timeout: Duration) -> BoxFuture<CommandOutcome> {
        let run = command::run(
            self.shared.clone(),
            self.id.clone(),
            self.group.clone(),
            argv,
            timeout,
        );
        Box::pin(run)
    }

    fn tree(&self) -> Tree {
        match (&self.group, &self.init) {
            (Some(dir), _) => Tree::Cgroup(dir.clone()),
            (None, Some((pid, _))) => Tree::Descendants(*pid),
            (None, None) => Tree::None,
        }
    }

    fn sight(&self) -> Option<watch::Receiver<bool>> {
        Some(self.shared.presence.subscribe())
    }

    fn image_check(&self) -> Option<ImageCheck> {
        let mut check = self.image.healthcheck.clone()?;
        check.start_period = check.start_period.saturating_sub(self.began.elapsed());
        Some(check)
    }

    fn particulars(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("container_name", self.spec.name.clone())];
        all.push(("image_id", self.image.id.clone()));
        let digest = self.image.digest.clone();
        all.extend(digest.map(|digest| ("image_digest", digest)));
        all.extend(described(&self.applied));
        let differs = differences(&self.spec, &self.applied);
        if !differs.is_empty() {
            all.push(("differs", differs.join("; ")));
        }
        all
    }

    fn confinement(&self) -> Option<Confinement> {
        let (pid, _) = self.init.as_ref()?;
        cgroup::belongs(*pid, &self.id).then(|| Confinement::of(*pid))?
    }

    fn limits(&self) -> HeldLimits {
        let engine = self.shared.engine.name();
        let of = |limit, asked: Option<u64>, told: Option<u64>| {
            let asked = asked?;
            // The kernel's word, or the engine's where its groups can't be seen.
            held_by(engine, limit, asked, &self.groups).or_else(|| {
                let enforced = told == Some(asked);
                let by = match (enforced, told) {
                    (true, _) => engine.to_owned(),
                    (false, Some(told)) => format!("{engine} holds it to {told} instead"),
                    (false, None) => format!("{engine} does not say that it holds it"),
                };
                Some(Held {
                    asked,
                    enforced,
                    by,
                    ..Held::default()
                })
            })
        };
        HeldLimits {
            memory: of(Limit::Memory, self.spec.memory, self.applied.memory),
            cpu_milli: of(Limit::Cpus, self.spec.cpu_milli, self.applied.cpu_milli),
            pids: of(Limit::Pids, self.spec.pids, self.applied.pids),
        }
    }

    fn freeze(&self, still: bool) -> BoxFuture<std::io::Result<()>> {
        let (shared, id) = (self.shared.clone(), self.id.clone());
        Box::pin(async move {
            let engine = &shared.engine;
            let done = if still {
                within(QUICK, "pause it", engine.pause(&id)).await
            } else {
                within(QUICK, "unpause it", engine.unpause(&id)).await
            };
            done.map_err(|fault| std::io::Error::other(fault.to_string()))
        })
    }

    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.remove();
        }
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.signal_init(libc::SIGKILL);
            self.remove();
        }
    }
}
