//! Starts and stops one lair.
//!
//! Owns: the folders' lock, the keeper's connection and the root actor, from `start` to `shutdown`. Promises: refuses
//! before anything is started; several runtimes live in one process; installs no signal handler, subscriber or panic
//! hook. Never: runs a module by itself; that is asked of the handle.

use crate::containers;
use crate::folders::{Folders, Lock};
use crate::handle::{Inner, RuntimeHandle};
use crate::resume::{Machine, Past};
use lair_actors::backend::Backend;
use lair_actors::backend::container::find::{EnginePlaces, Engines};
use lair_actors::clock::{Clock, SystemClock};
use lair_actors::dossier::{Archive, ArchiveOptions};
use lair_actors::events::{EventLog, KEPT};
use lair_actors::exposure::{self, ExposureArgs};
use lair_actors::facts::{self, GpuDesk, Meter, Sampler};
use lair_actors::footprint::{self, Footprints, WatchArgs};
use lair_actors::keeper::DeathPolicy;
use lair_actors::messages::{DrainReport, RootMsg};
use lair_actors::pump::PumpOptions;
use lair_actors::root::{Backends, RootActor, RootArgs};
use lair_actors::view::Board;
use lair_manifests::config::{IfRuntimeDies, RuntimeConfig};
use lair_manifests::resources::MemorySize;
use lair_supervision::Origin;
use lair_supervision::account::Rules;
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
    /// What becomes of modules when the runtime dies without a word: they are kept for the next one on the same folders,
    /// or stopped. Default: stopped; the daemon's default is to keep them.
    pub if_runtime_dies: IfRuntimeDies,
    /// Time between the stop signal and KILL if the runtime dies without a word.
    pub orphan_grace: Duration,
    /// Seed of the probes' jitter; the restarts' is in each plan.
    pub seed: u64,
    /// The fault gate.
    pub faults: bool,
    /// Modules named by files of the invoking user are trusted (foreground), not only those in the configuration's folder.
    pub foreground: bool,
    /// Where container engines are looked for; default: the usual places, by this process's environment.
    pub engines: Option<EnginePlaces>,
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
            if_runtime_dies: IfRuntimeDies::Kill,
            orphan_grace: Duration::from_secs(10),
            seed: u64::from(std::process::id()),
            faults: false,
            foreground: true,
            engines: None,
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

/// A host whose panics end its process would end with the first actor that panics, and not be there to restart it.
fn panics_are_caught(abort: bool) -> Result<(), RuntimeError> {
    if abort {
        return Err(RuntimeError::PanicAborts);
    }
    Ok(())
}

/// How long the keeper may take to end when all modules should be gone.
const KEEPER_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// One running lair, owned. Dropping it with the last clone of its handle ends all its modules without grace, and lets
/// go of its folders: prefer [`Runtime::shutdown`].
pub struct Runtime {
    handle: RuntimeHandle,
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
        panics_are_caught(cfg!(panic = "abort"))?;
        options.folders.make()?;
        let orders = policy(&options);
        let lasting = orders == DeathPolicy::Keep || !options.foreground;
        let lock = match &options.simulated {
            Some(_) => None,
            None => Some(Lock::take(&options.folders.run)?),
        };
        let simulated = options.simulated.is_some();
        let (clock, backends, machine, engines) = match options.simulated {
            Some((clock, backends)) => {
                let engines = Engines::none(clock.clone());
                (clock, backends, None, engines)
            }
            None => {
                let machine = Machine::open(&options.keeper, &options.folders, orders, lasting)
                    .await
                    .map_err(RuntimeError::Keeper)?;
                let clock: Arc<dyn Clock> = SystemClock::start();
                let native: Option<Arc<dyn Backend>> = Some(machine.native.clone());
                let places = options.engines.unwrap_or_else(|| usual(&options.folders));
                let engines =
                    containers::engines(places, &options.config, &options.folders, &clock)?;
                let container = containers::backends(&engines);
                (
                    clock,
                    Backends { native, container },
                    Some(machine),
                    engines,
                )
            }
        };
        let (native, desk, past) = match machine {
            Some(machine) => (Some(machine.native), machine.desk, machine.past),
            None => (None, None, Past::default()),
        };
        let events = Arc::new(EventLog::after(past.remembered.newest, KEPT));
        let meter = Meter {
            board: Arc::new(Board::default()),
            sampler: Sampler::new(clock.clone()),
            gpus: GpuDesk::new(clock.clone(), &options.config.gpu.nvml),
            simulated,
        };
        let footprints = Footprints::new(&options.folders.state);
        let archive = Archive::new(ArchiveOptions {
            clock: clock.clone(),
            sampler: meter.sampler.clone(),
            gpus: meter.gpus.clone(),
            events: events.clone(),
            footprints: footprints.clone(),
            log_dir: options.folders.logs.clone(),
            rules: options.folders.config.join("rules"),
        });
        let inner = Inner {
            root: OnceLock::new(),
            board: meter.board.clone(),
            events,
            sampler: meter.sampler.clone(),
            archive,
            footprints,
            pump: Arc::new(OnceLock::new()),
            clock,
            folders: options.folders,
            foreground: options.foreground,
            ignored: past.remembered.ignored.clone(),
            orders,
            seed: options.seed,
            memory_total: facts::host().memory_total,
            engines: Arc::new(engines),
            cgroups: native.as_ref().map(|native| native.cgroups().clone()),
            native,
            rules: rules(&options.config),
            gpus: meter.gpus.clone(),
            meter,
            config: RwLock::new(Arc::new(options.config)),
            lock: Mutex::new(lock),
        };
        let real = inner.native.is_some();
        let args = RootArgs {
            clock: inner.clock.clone(),
            events: inner.events.clone(),
            board: inner.board.clone(),
            logs: PumpOptions::new(inner.folders.logs.clone()),
            pump: inner.pump.clone(),
            backends,
            sampler: inner.sampler.clone(),
            // Scripted children leave nothing that anybody would look for later.
            archive: real.then(|| inner.archive.clone()),
            memory: Arc::default(),
            rules: inner.rules.clone(),
            gpus: inner.gpus.clone(),
            seed: options.seed,
            faults: options.faults,
            desk,
            ledger: past.ledger,
        };
        let root = spawn_root(args, supervisor).await?;
        containers::hear_news(&inner.engines, &root);
        if inner.cgroups.is_some() {
            tokio::spawn(exposure::watch(ExposureArgs {
                clock: inner.clock.clone(),
                events: inner.events.clone(),
                board: inner.board.clone(),
                root: root.clone(),
            }));
            tokio::spawn(footprint::watch(WatchArgs {
                clock: inner.clock.clone(),
                events: inner.events.clone(),
                board: inner.board.clone(),
                sampler: inner.sampler.clone(),
                gpus: inner.gpus.clone(),
                footprints: inner.footprints.clone(),
                root: root.clone(),
            }));
        }
        let _ = inner.root.set(root);
        let handle = RuntimeHandle::new(inner);
        handle.bury_with_root();
        handle.go_on(past.remembered).await;
        Ok(Runtime { handle })
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
        containers::settle(self.handle.engines()).await;
        if let Some(native) = self.handle.native() {
            // One that can't end yet (a module that even KILL does not reach) goes on alone, and ends after the last.
            if tokio::time::timeout(KEEPER_ENDS_WITHIN, native.shutdown())
                .await
                .is_err()
            {
                tracing::error!(
                    pid = native.keeper_pid(),
                    "the keeper has not ended yet; it ends when nothing is left of the modules"
                );
            }
        }
        self.handle.clean_up();
        report
    }
}

fn usual(folders: &Folders) -> EnginePlaces {
    let uid = rustix::process::geteuid().as_raw();
    EnginePlaces::of(&crate::prepare::environment(), uid, &folders.run)
}

fn policy(options: &RuntimeOptions) -> DeathPolicy {
    match options.if_runtime_dies {
        IfRuntimeDies::Keep => DeathPolicy::Keep,
        IfRuntimeDies::Kill => DeathPolicy::Kill {
            grace_ms: u32::try_from(options.orphan_grace.as_millis()).unwrap_or(u32::MAX),
        },
    }
}

/// The configuration's rules for the account.
fn rules(config: &RuntimeConfig) -> Rules {
    let bytes = |key: &Option<MemorySize>| key.as_ref().map(|size| size.get());
    Rules {
        budget: bytes(&config.memory.budget),
        reserve: bytes(&config.memory.reserve).unwrap_or(0),
        gpu_reserve: bytes(&config.gpu.reserve).unwrap_or(0),
    }
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

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_a_host_that_unwinds_is_served() {
        assert!(panics_are_caught(false).is_ok());
        let refused = panics_are_caught(true).expect_err("it would abort");
        assert_eq!(refused.code(), "panic_aborts");
    }
}
