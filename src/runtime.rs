//! Starts and stops one lair.
//!
//! Owns: the folders' lock, the keeper's connection and the root actor, from `start` to `shutdown`. Promises: refuses
//! before anything is started; several runtimes live in one process; installs no signal handler, subscriber or panic
//! hook. Never: runs a module by itself; that is asked of the handle.

use crate::folders::{Folders, Lock};
use crate::handle::{Inner, RuntimeHandle};
use lair_actors::backend::native::{NativeBackend, NativeOptions};
use lair_actors::clock::{Clock, SystemClock};
use lair_actors::events::{EventLog, KEPT};
use lair_actors::facts::{self, GpuReader, Sampler};
use lair_actors::keeper::{DeathPolicy, KeeperClient, KeeperOptions};
use lair_actors::messages::{DrainReport, RootMsg};
use lair_actors::pump::PumpOptions;
use lair_actors::root::{Backends, RootActor, RootArgs};
use lair_actors::view::Board;
use lair_manifests::config::RuntimeConfig;
use lair_supervision::Origin;
use ractor::{Actor, ActorCell, ActorRef};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

/// How a runtime shall be.
pub struct RuntimeOptions {
    /// Its configuration.
    pub config: RuntimeConfig,
    /// Where it keeps things.
    pub folders: Folders,
    /// A program whose `main` begins with `lair::hijack()`; default: the running one.
    pub keeper: PathBuf,
    /// Time between the stop signal and KILL if the runtime dies without a word.
    pub orphan_grace: Duration,
    /// Seed of the probes' jitter; the restarts' is in each plan.
    pub seed: u64,
    /// The fault gate.
    pub faults: bool,
    /// Modules named by files of the invoking user are trusted (foreground), not only those in the configuration's folder.
    pub foreground: bool,
    /// Backends and a clock to use instead of the machine's: see `lair::testing`.
    pub simulated: Option<(Arc<dyn Clock>, Backends)>,
}

impl RuntimeOptions {
    /// The defaults for this configuration and these folders.
    #[must_use]
    pub fn new(config: RuntimeConfig, folders: Folders) -> Self {
        RuntimeOptions {
            config,
            folders,
            keeper: PathBuf::from("/proc/self/exe"),
            orphan_grace: Duration::from_secs(10),
            seed: u64::from(std::process::id()),
            faults: false,
            foreground: true,
            simulated: None,
        }
    }
}

/// Why a runtime did not start. Nothing is left of the attempt.
#[derive(Debug)]
pub enum RuntimeError {
    /// This program was built with `panic = "abort"`, which would make one actor's panic the end of everything.
    PanicAborts,
    /// A folder can't be used.
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another lair runs on the same folders.
    Running {
        /// Its lock file.
        lock: PathBuf,
        /// Its process id, where it says so.
        pid: Option<i32>,
    },
    /// The keeper did not start.
    Keeper(std::io::Error),
    /// The root actor did not start.
    Root(String),
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeError::PanicAborts => {
                f.write_str("lair can't supervise in a program built with panic = \"abort\"; build it with \"unwind\"")
            }
            RuntimeError::Folder { path, why } => write!(f, "cannot use {}: {why}", path.display()),
            RuntimeError::Running { lock, pid } => {
                let pid = pid.map(|p| format!(" (pid {p})")).unwrap_or_default();
                write!(f, "another lair{pid} holds {}", lock.display())
            }
            RuntimeError::Keeper(e) => write!(f, "the keeper did not start: {e}"),
            RuntimeError::Root(e) => write!(f, "the root actor did not start: {e}"),
        }
    }
}

impl std::error::Error for RuntimeError {}

impl RuntimeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            RuntimeError::PanicAborts => "panic_aborts",
            RuntimeError::Folder { .. } => "folder_unusable",
            RuntimeError::Running { .. } => "already_running",
            RuntimeError::Keeper(_) => "keeper_failed",
            RuntimeError::Root(_) => "internal",
        }
    }
}

/// How long the keeper may take to end when all modules should be gone.
const KEEPER_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// One running lair, owned. Dropping it with the last clone of its handle ends all its modules without grace, and lets
/// go of its folders: prefer [`Runtime::shutdown`].
pub struct Runtime {
    handle: RuntimeHandle,
    keeper: Option<KeeperClient>,
}

impl Runtime {
    /// Starts a runtime in the current tokio runtime.
    ///
    /// # Errors
    /// See [`RuntimeError`]; nothing is left of the attempt.
    pub async fn start(options: RuntimeOptions) -> Result<Runtime, RuntimeError> {
        Self::start_under(options, None).await
    }

    /// As [`Runtime::start`], with the whole tree linked under a supervisor of the host's.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub async fn spawn_linked(
        options: RuntimeOptions,
        supervisor: ActorCell,
    ) -> Result<Runtime, RuntimeError> {
        Self::start_under(options, Some(supervisor)).await
    }

    async fn start_under(
        options: RuntimeOptions,
        supervisor: Option<ActorCell>,
    ) -> Result<Runtime, RuntimeError> {
        if cfg!(panic = "abort") {
            return Err(RuntimeError::PanicAborts);
        }
        options.folders.make()?;
        let lock = match &options.simulated {
            Some(_) => None,
            None => Some(Lock::take(&options.folders.run)?),
        };
        let instance = options.folders.instance();
        let (clock, backends, keeper, cgroups) = match options.simulated {
            Some((clock, backends)) => (clock, backends, None, None),
            None => {
                let keeper = launch_keeper(options.keeper, options.orphan_grace).await?;
                let native = NativeOptions {
                    instance,
                    run_dir: options.folders.run.clone(),
                };
                let native = Arc::new(NativeBackend::new(keeper.clone(), native));
                let cgroups = native.cgroups().clone();
                let clock: Arc<dyn Clock> = SystemClock::start();
                (
                    clock,
                    Backends {
                        native: Some(native),
                        container: None,
                    },
                    Some(keeper),
                    Some(cgroups),
                )
            }
        };
        let inner = Inner {
            root: OnceLock::new(),
            board: Arc::new(Board::default()),
            events: Arc::new(EventLog::new(KEPT)),
            sampler: Sampler::new(clock.clone()),
            pump: Arc::new(OnceLock::new()),
            clock,
            config: RwLock::new(Arc::new(options.config)),
            folders: options.folders,
            foreground: options.foreground,
            keeper_pid: keeper.as_ref().map(|k| k.keeper().pid),
            seed: options.seed,
            memory_total: facts::host().memory_total,
            cgroups,
            gpus: GpuReader::new(None),
            lock: Mutex::new(lock),
        };
        let args = RootArgs {
            clock: inner.clock.clone(),
            events: inner.events.clone(),
            board: inner.board.clone(),
            logs: PumpOptions::new(inner.folders.logs.clone()),
            pump: inner.pump.clone(),
            backends,
            sampler: inner.sampler.clone(),
            memory: Arc::default(),
            seed: options.seed,
            faults: options.faults,
        };
        let root = spawn_root(args, supervisor).await?;
        let _ = inner.root.set(root);
        Ok(Runtime {
            handle: RuntimeHandle::new(inner),
            keeper,
        })
    }

    /// The typed face; clone it freely.
    #[must_use]
    pub fn handle(&self) -> &RuntimeHandle {
        &self.handle
    }

    /// Stops every module within `within`, then lair itself. The report names what could not be stopped; the keeper
    /// ends that later, if it ever can.
    pub async fn shutdown(self, within: Duration) -> DrainReport {
        let origin = Origin::Requested {
            peer: "shutdown".into(),
        };
        let report = self.handle.drain(within, origin).await.unwrap_or_default();
        self.handle.stop_root().await;
        if let Some(keeper) = &self.keeper {
            // One that can't end yet (a module that even KILL does not reach) goes on alone, and ends after the last.
            if tokio::time::timeout(KEEPER_ENDS_WITHIN, keeper.shutdown())
                .await
                .is_err()
            {
                tracing::error!(
                    pid = keeper.keeper().pid,
                    "the keeper has not ended yet; it ends when nothing is left of the modules"
                );
            }
        }
        self.handle.clean_up();
        report
    }
}

async fn launch_keeper(program: PathBuf, grace: Duration) -> Result<KeeperClient, RuntimeError> {
    let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
    let mut options = KeeperOptions::new();
    options.program = program;
    options.policy = DeathPolicy::Kill { grace_ms };
    KeeperClient::launch(options)
        .await
        .map_err(RuntimeError::Keeper)
}

async fn spawn_root(
    args: RootArgs,
    supervisor: Option<ActorCell>,
) -> Result<ActorRef<RootMsg>, RuntimeError> {
    let spawned = match supervisor {
        Some(above) => Actor::spawn_linked(None, RootActor, args, above).await,
        None => Actor::spawn(None, RootActor, args).await,
    };
    spawned
        .map(|(root, _)| root)
        .map_err(|e| RuntimeError::Root(e.to_string()))
}
