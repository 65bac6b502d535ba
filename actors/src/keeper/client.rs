//! The runtime's end of the keeper's socket.
//!
//! Owns the connection, the table of children known through it, and the one task that reads it. Promises that
//! every accepted spawn is answered, that every child's exit is told exactly once, even if the keeper dies
//! (then from pidfds, [`Ending::Unknown`] where the kernel cannot say), and that no call waits for the keeper
//! unless it is awaited. Never restarts, never times out, never signals what it cannot identify.

mod handle;
mod launch;
mod link;

use std::ffi::CString;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::spec::{ChildKey, DeathPolicy, Ending, ProcessId, Scope, SpawnFault, SpawnSpec, Stage};
use super::wire::Request;
use handle::Handle;

/// How to start a keeper.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// A program that calls [`hijack`](super::hijack) first thing in `main`.
    pub program: PathBuf,
    /// Where the keeper listens for the next life of the runtime; needed for [`DeathPolicy::Keep`].
    pub socket_path: Option<PathBuf>,
    /// What it does when its runtime's connection closes.
    pub policy: DeathPolicy,
}

impl KeeperOptions {
    /// This very program as the keeper, ending with its runtime after a grace of ten seconds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            socket_path: None,
            policy: DeathPolicy::Kill { grace_ms: 10_000 },
        }
    }
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A child's streams, read ends, non-blocking. The keeper holds duplicates until the child is acknowledged.
#[derive(Debug)]
pub struct Streams {
    /// What it writes to descriptor 1.
    pub stdout: OwnedFd,
    /// What it writes to descriptor 2.
    pub stderr: OwnedFd,
    /// What it writes to its readiness descriptor, if it was given one.
    pub ready: Option<OwnedFd>,
}

/// The child itself has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitNote {
    /// How.
    pub ending: Ending,
    /// Whether it is already proven that nothing is left of its tree.
    pub tree_empty: bool,
}

/// Nothing is left of the child's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyNote;

/// A child that runs.
#[derive(Debug)]
pub struct SpawnedChild {
    /// Its name towards the keeper.
    pub key: ChildKey,
    /// The process.
    pub process: ProcessId,
    /// Its output.
    pub streams: Streams,
    /// Resolves when the child itself has ended. Fails only when the client is dropped.
    pub exit: oneshot::Receiver<ExitNote>,
    /// Resolves when nothing is left of its tree. Fails when nobody can say any more: the keeper is gone.
    pub empty: oneshot::Receiver<EmptyNote>,
}

/// A child that was started in an earlier life of the runtime.
#[derive(Debug)]
pub struct AdoptedChild {
    /// Its name towards the keeper.
    pub key: ChildKey,
    /// The process.
    pub process: ProcessId,
    /// The marker it was started with.
    pub marker: CString,
    /// Its output, from where the former runtime stopped reading; absent once it was acknowledged.
    pub streams: Option<Streams>,
    /// As in [`SpawnedChild`]; resolved at once if it ended meanwhile.
    pub exit: oneshot::Receiver<ExitNote>,
    /// As in [`SpawnedChild`].
    pub empty: oneshot::Receiver<EmptyNote>,
}

/// What an earlier life of the runtime left with its keeper.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Every child that it had not acknowledged.
    pub children: Vec<AdoptedChild>,
    /// Descriptors that it stored, under their tags.
    pub stored: Vec<(CString, Vec<OwnedFd>)>,
}

/// Why a request did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// The keeper is gone.
    KeeperGone,
    /// The keeper does not keep up: the queue of unsent requests is full.
    Overloaded,
    /// No such child is known, or it is no longer there.
    UnknownChild,
    /// The socket refused the message.
    Os(i32),
}

impl fmt::Display for SendFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeeperGone => out.write_str("the keeper is gone"),
            Self::Overloaded => out.write_str("the keeper does not keep up"),
            Self::UnknownChild => out.write_str("no such child"),
            Self::Os(errno) => write!(
                out,
                "request refused: {}",
                io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

impl std::error::Error for SendFault {}

/// The connection to a keeper. Clones share it; when the last one is dropped it closes, which the keeper
/// takes as the death of its runtime.
#[derive(Clone)]
pub struct KeeperClient {
    handle: Arc<Handle>,
}

impl fmt::Debug for KeeperClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("KeeperClient")
            .field("keeper", &self.keeper())
            .finish_non_exhaustive()
    }
}

impl KeeperClient {
    /// Starts a keeper and greets it.
    ///
    /// # Errors
    /// When it cannot be started, cannot listen at its path, or speaks another version.
    pub async fn launch(options: KeeperOptions) -> io::Result<Self> {
        let handle = launch::launch(&options).await?;
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Connects to a keeper that an earlier life of the runtime left, and takes over its children.
    /// Waits while the earlier life is still connected. A keeper of an older version is spoken to in its own.
    ///
    /// # Errors
    /// When nobody listens there, it speaks none of our versions, or dies before its list is complete.
    pub async fn connect(path: &Path) -> io::Result<(Self, Inheritance)> {
        let (handle, left) = launch::connect(path).await?;
        Ok((
            Self {
                handle: Arc::new(handle),
            },
            left,
        ))
    }

    /// Has the keeper hold duplicates of these descriptors, three at most, for the next life of the runtime. What was
    /// stored under this tag is let go of.
    ///
    /// # Errors
    /// When the request cannot go out; a keeper of version 1 stores nothing (`EOPNOTSUPP`).
    pub fn store(&self, tag: CString, fds: Vec<OwnedFd>) -> Result<(), SendFault> {
        self.handle.store(tag, fds)
    }

    /// Has the keeper let go of what it stores under this tag.
    ///
    /// # Errors
    /// When the request cannot go out.
    pub fn unstore(&self, tag: CString) -> Result<(), SendFault> {
        self.handle.unstore(tag)
    }

    /// Resolves when every request has gone out, or the keeper is gone.
    pub async fn flushed(&self) {
        while !self.handle.is_flushed() {
            tokio::task::yield_now().await;
        }
    }

    /// Is the keeper known to be gone?
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.handle.is_gone()
    }

    /// Asks for a child. The request goes out at once, also when the future is not polled; if the future is
    /// dropped before its answer, the child is killed and forgotten.
    pub fn spawn(
        &self,
        spec: SpawnSpec,
    ) -> impl Future<Output = Result<SpawnedChild, SpawnFault>> + Send + 'static {
        let answer = self.handle.spawn(spec);
        async move {
            let gone = SpawnFault {
                stage: Stage::KeeperGone,
                errno: libc::ECONNRESET,
            };
            answer?.await.unwrap_or(Err(gone))
        }
    }

    /// Sends a signal; one that means "stop" (the spec's stop signal, TERM, INT, QUIT) is followed by CONT.
    ///
    /// # Errors
    /// When the request cannot go out. Without a keeper the process is identified and signalled from here.
    pub fn signal(&self, key: ChildKey, signal: i32, scope: Scope) -> Result<(), SendFault> {
        match self.handle.send(&Request::Signal { key, signal, scope }) {
            Err(SendFault::KeeperGone) => self.handle.signal_orphan(key, signal, scope),
            other => other,
        }
    }

    /// Kills the child's whole tree.
    ///
    /// # Errors
    /// As with [`signal`](Self::signal).
    pub fn kill(&self, key: ChildKey) -> Result<(), SendFault> {
        match self.handle.send(&Request::Kill { key }) {
            Err(SendFault::KeeperGone) => self.handle.signal_orphan(key, libc::SIGKILL, Scope::All),
            other => other,
        }
    }

    /// Tells the keeper that the exit has been taken: it gives up the status and its ends of the streams, and
    /// removes the child's own control groups once its tree is empty. Only after the exit was told.
    ///
    /// # Errors
    /// When the request cannot go out.
    pub fn ack(&self, key: ChildKey) -> Result<(), SendFault> {
        self.handle.send(&Request::Ack { key })
    }

    /// Changes what the keeper does when this connection closes.
    ///
    /// # Errors
    /// When the request cannot go out.
    pub fn set_policy(&self, policy: DeathPolicy) -> Result<(), SendFault> {
        self.handle.send(&Request::Policy(policy))
    }

    /// Kills everything that is left and waits until the keeper has ended.
    pub async fn shutdown(&self) {
        // A keeper that cannot be told is gone, or has its queue drained by the task; both end in `closed`.
        if self.handle.send(&Request::Shutdown).is_ok() {
            self.closed().await;
        }
    }

    /// Resolves once the keeper is gone.
    pub async fn closed(&self) {
        self.handle.closed().await;
    }

    /// As [`closed`](Self::closed), without keeping the connection open for it.
    pub fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        self.handle.closing()
    }

    /// The keeper itself.
    #[must_use]
    pub fn keeper(&self) -> ProcessId {
        self.handle.keeper()
    }

    /// Fault injection: KILLs the keeper. `false`: it is gone already.
    #[must_use]
    pub fn kill_keeper(&self) -> bool {
        super::family::signal_verified(self.handle.keeper(), libc::SIGKILL, false).is_ok()
    }

    /// How many requests the keeper reported as failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.handle.failures()
    }
}
