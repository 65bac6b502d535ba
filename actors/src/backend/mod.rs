//! The seam to the world: what a backend must be able to do with one module.
//!
//! Owns: the two traits that every backend implements and the values that cross them. Promises: the same for a
//! process, a container and a scripted child (`tests/backend_conformance.rs` runs the same stories on all).
//! Never: decides anything; a backend starts, signals, watches and reports.

pub mod container;
mod last_word;
pub mod native;
mod secrets;
pub mod sim;

use crate::cgroup::{HeldLimits, Shortfall};
use crate::files::read::Recorded;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ChildId, ChildIdentity, ExitStatus, Scope, StartFault, Tri};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Everything needed to start one incarnation.
#[derive(Clone, Debug)]
pub struct StartOrder {
    /// The module.
    pub id: ChildId,
    /// The incarnation, which is also the run number of its log files.
    pub inc: u64,
    /// What to start.
    pub plan: Arc<LaunchPlan>,
}

/// A started incarnation.
pub struct Started {
    /// Who it is.
    pub identity: ChildIdentity,
    /// Its output.
    pub streams: Streams,
    /// Where the child says that it is ready, where the launch asked for that.
    pub ready: Option<ReadySource>,
    /// The grip on it. Dropping the last one without [`ChildHandle::release`] ends the child.
    pub handle: Arc<dyn ChildHandle>,
}

/// A child of an earlier life of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The module.
    pub id: ChildId,
    /// Its incarnation.
    pub inc: u64,
    /// Who it is.
    pub identity: ChildIdentity,
    /// It was to die with that life, and is to be stopped as soon as it is taken over.
    pub doomed: bool,
}

/// Where a child says for itself that it is ready.
pub enum ReadySource {
    /// Read end of a pipe: one newline means ready, end of file without it means it never will be (s6).
    Fd(OwnedFd),
    /// Bound datagram socket whose path the child has as `NOTIFY_SOCKET` (sd_notify(3)).
    Notify(OwnedFd),
}

impl ReadySource {
    /// A second descriptor of the same source.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(match self {
            ReadySource::Fd(fd) => ReadySource::Fd(fd.try_clone()?),
            ReadySource::Notify(fd) => ReadySource::Notify(fd.try_clone()?),
        })
    }
}

/// Read ends of a child's output, non-blocking. A backend without descriptors of its own feeds pipes.
#[derive(Default)]
pub struct Streams {
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildExit {
    /// The leader's status.
    pub status: ExitStatus,
    /// Did the OOM killer do it?
    pub oom: Tri,
    /// Did it dump core?
    pub core: Option<bool>,
    /// The last signal that lair sent to it.
    pub by_us: Option<i32>,
    /// What could not be ended (`pid 17 nginx`); empty means the whole tree is gone.
    pub leftover: Vec<String>,
}

/// Where the processes of a child are found, for the sampler and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// All members are listed in this cgroup-v2 folder's `cgroup.procs` (and below).
    Cgroup(PathBuf),
    /// The descendants and session of this process.
    Descendants(i32),
    /// It has none (simulated).
    None,
}

/// The result of a command that was run in a child's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// It ended by itself; `output` holds the first 64 KiB of both streams.
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        output: Vec<u8>,
    },
    /// It was ended after its time, tree and all.
    TimedOut,
    /// It could not be started: not the child's fault.
    CouldNotRun(String),
}

/// A health check that an image brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageCheck {
    /// What is run inside; exit code 0 is success.
    pub argv: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// Longest time of one.
    pub timeout: Duration,
    /// Failures within this time from the start do not count; asked of a running child: what is left of it.
    pub start_period: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

/// The grip on one incarnation. None of the calls blocks.
pub trait ChildHandle: Send + Sync + 'static {
    /// Sends `signal`, then CONT. A child that is gone already is no error.
    fn signal(&self, signal: i32, scope: Scope);
    /// Sends KILL to everything that belongs to the child.
    fn kill(&self);
    /// Resolves when the leader has ended and its tree is gone (or what is left is named). May be asked repeatedly.
    fn exit(&self) -> BoxFuture<ChildExit>;
    /// Runs a command with the child's environment, folder and user; bounded by `timeout`.
    fn run(&self, argv: Vec<String>, timeout: Duration) -> BoxFuture<CommandOutcome>;
    /// Where its processes are.
    fn tree(&self) -> Tree;
    /// Whether it can be observed, where that can change: false while the engine that runs it does not answer.
    fn sight(&self) -> Option<watch::Receiver<bool>> {
        None
    }
    /// The health check of its image, with its own schedule; `None` where there is none.
    fn image_check(&self) -> Option<ImageCheck> {
        None
    }
    /// What is told of it besides, for status: the image's digest, the engine's settings.
    fn particulars(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// What it is really held to, as the kernel tells it; `None` where nobody can tell. Reads a few files of /proc.
    fn confinement(&self) -> Option<crate::confinement::Confinement> {
        None
    }
    /// The limits that were asked for, as they are now. Reads a few files of the kernel's.
    fn limits(&self) -> HeldLimits {
        HeldLimits::default()
    }
    /// The limits that did not hold when it was started. Reads nothing.
    fn shortfalls(&self) -> Vec<Shortfall> {
        Vec::new()
    }
    /// Scripted children only: it ends like this, now. `false`: it is a real one.
    fn end(&self, _status: ExitStatus) -> bool {
        false
    }
    /// Holds the whole tree still, or lets it go on. A child that is told to end is let go first.
    ///
    /// # Errors
    /// `Unsupported` where there is nothing that could; else what the kernel or the engine says.
    fn freeze(&self, still: bool) -> BoxFuture<std::io::Result<()>> {
        let _ = still;
        Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
    }
    /// Was it held still when it was taken over from an earlier life?
    fn is_frozen(&self) -> bool {
        false
    }
    /// The owner has all it wants: statuses may be forgotten, dropping does nothing more.
    fn release(&self);
}

/// Something bad that only a backend can do to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendFault {
    /// KILL the keeper of native children.
    KillKeeper,
    /// Lose the engine for a time.
    DropEngine(Duration),
}

/// One way to run modules.
pub trait Backend: Send + Sync + 'static {
    /// `native`, `sim`, `podman`, ...
    fn name(&self) -> &'static str;
    /// Starts one incarnation. Dropping the future before it resolves leaves nothing behind.
    ///
    /// # Errors
    /// The stage and the system's error; nothing is left of the attempt.
    fn start(&self, order: StartOrder) -> BoxFuture<Result<Started, StartFault>>;
    /// Children that an earlier life of the runtime left and nobody has claimed yet. A backend whose children end with
    /// their runtime has none.
    fn survivors(&self) -> BoxFuture<Vec<Survivor>> {
        Box::pin(async { Vec::new() })
    }
    /// Lets go of a survivor whose end was noted in its life: there is nothing more to learn of it.
    fn forget(&self, _id: &ChildId, _inc: u64) {}
    /// Takes over a survivor of this module and incarnation, with its output from where the earlier life stopped
    /// reading, and its exit if it has ended meanwhile. `None`: there is none (any more).
    /// `known`: what the files have of its stdout and stderr, for a backend that has to find the place by itself.
    fn adopt(&self, _order: StartOrder, _known: [Recorded; 2]) -> BoxFuture<Option<Started>> {
        Box::pin(async { None })
    }
    /// Ends, with grace, the survivors that nobody has claimed; says which they are.
    fn disown(&self) -> Vec<String> {
        Vec::new()
    }
    /// Whether a dropped start is undone by then. If not, what was ordered may still come to life for a moment, so a
    /// start that is given up is waited for, and what it made is ended like any other.
    fn undoes_at_once(&self) -> bool {
        true
    }
    /// Nobody wants this start any more: it should resolve as soon as it can, with nothing left of it or as a child
    /// that is then ended. For backends that do not undo at once; may be called for a start that is over.
    fn give_up(&self, id: &ChildId, inc: u64) {
        let _ = (id, inc);
    }
    /// Does something bad on purpose. `false`: this backend has no such thing.
    fn inject(&self, _fault: BackendFault) -> bool {
        false
    }
    /// Are its children scripted? Then events of theirs may be made up.
    fn simulated(&self) -> bool {
        false
    }
}

/// Whether a failed system call may succeed when it is tried again later: the machine was busy or out of something.
#[must_use]
pub fn is_transient(errno: i32) -> bool {
    matches!(
        errno,
        libc::EADDRINUSE
            | libc::EAGAIN
            | libc::EBUSY
            | libc::EINTR
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOSPC
            | libc::ETXTBSY
    )
}
