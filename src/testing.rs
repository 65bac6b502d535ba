//! Rehearsals: a whole runtime on a clock that stands still until told, with children that follow scripts.
//!
//! Owns: the simulated clock and backend, and a folder for what is logged. Promises: in a current-thread tokio runtime
//! the same seed, scripts and calls give the same notices; [`Simulation::advance`] returns when all that it caused is
//! done. Never: starts a process, or waits for the time that it simulates.

#![allow(
    clippy::disallowed_methods,
    reason = "the clock is simulated here, so settling is waited for in real time"
)]

use crate::folders::Folders;
use crate::handle::{LoadOptions, ManifestSource, Refused, RuntimeHandle};
use crate::runtime::{Runtime, RuntimeError, RuntimeOptions};
use lair_actors::backend::sim::SimBackend;
use lair_actors::clock::Clock;
use lair_actors::messages::{DrainReport, Loaded};
use lair_actors::pump::Pump;
use lair_actors::root::Backends;
use lair_supervision::{ChildId, Notice, NoticeKind, Origin, Seq};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub use lair_actors::backend::sim::{OnStop, Script};
pub use lair_actors::clock::SimClock;
pub use lair_actors::fault::{ActorKind, Fault, FaultStream, ScriptedEvent};

/// How often everybody else gets a turn before things count as quiet. A turn runs up to 61 tasks of a current-thread
/// runtime, those included that were woken in it: a chain of messages takes one or two.
const TURNS: usize = 8;
/// The log pump answers from a thread of its own; how long it may take, in steps of 100 microseconds.
const PATIENCE: usize = 100_000;

/// How a rehearsal shall be.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    seed: u64,
    faults: bool,
    folder: Option<PathBuf>,
    scripts: BTreeMap<String, Script>,
}

impl Builder {
    /// Seed of all jitter.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Opens the fault gate.
    #[must_use]
    pub fn faults(mut self) -> Self {
        self.faults = true;
        self
    }

    /// Keeps logs below this folder, and leaves them there; without it, in a temporary one that is removed at the end.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// What this module's children do; without a script they run until they are stopped.
    #[must_use]
    pub fn script(mut self, module: &str, script: Script) -> Self {
        self.scripts.insert(module.to_owned(), script);
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub async fn start(self) -> Result<Simulation, RuntimeError> {
        let clock = SimClock::new();
        let backend = SimBackend::new(clock.clone());
        for (module, script) in self.scripts {
            backend.script(&module, script);
        }
        let temporary = self.folder.is_none().then(temporary_folder);
        let folder = self.folder.or(temporary.clone()).unwrap_or_default();
        let mut options = RuntimeOptions::new(Default::default(), Folders::below(&folder));
        options.seed = self.seed;
        options.faults = self.faults;
        let backends = Backends {
            native: Some(backend.clone()),
            container: std::collections::BTreeMap::new(),
        };
        let time: Arc<dyn Clock> = clock.clone();
        options.simulated = Some((time, backends));
        Ok(Simulation {
            runtime: Runtime::start(options).await?,
            clock,
            backend,
            answered: AtomicU64::new(0),
            _folder: temporary.map(Temporary),
        })
    }
}

/// A runtime under rehearsal.
pub struct Simulation {
    runtime: Runtime,
    clock: Arc<SimClock>,
    backend: Arc<SimBackend>,
    /// What had been asked of the pump when it last said that it was done.
    answered: AtomicU64,
    _folder: Option<Temporary>,
}

impl Simulation {
    /// How it shall be.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The runtime's typed face.
    #[must_use]
    pub fn handle(&self) -> &RuntimeHandle {
        self.runtime.handle()
    }

    /// The simulated clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<SimClock> {
        &self.clock
    }

    /// The scripted children.
    #[must_use]
    pub fn backend(&self) -> &Arc<SimBackend> {
        &self.backend
    }

    /// Loads a manifest's text as trusted. Its native program must exist, and is not run.
    ///
    /// # Errors
    /// As [`RuntimeHandle::load`].
    pub async fn load(&self, manifest: &str) -> Result<Vec<(String, Loaded)>, Refused> {
        let source = ManifestSource::Text {
            text: manifest.to_owned(),
            dir: None,
            trusted: true,
        };
        self.handle()
            .load(source, LoadOptions::default(), Self::origin())
            .await
    }

    /// Starts a module and lets everything happen that takes no time.
    ///
    /// # Errors
    /// As [`RuntimeHandle::start`].
    pub async fn start(&self, module: &str) -> Result<(), Refused> {
        self.handle().start(module, Self::origin()).await?;
        self.settle().await;
        Ok(())
    }

    /// Who asks, here.
    #[must_use]
    pub fn origin() -> Origin {
        Origin::Requested {
            peer: "rehearsal".into(),
        }
    }

    /// Lets `by` pass, and all that falls due in it happen in its order.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by, || self.settle()).await;
        self.settle().await;
    }

    /// Lets everything happen that takes no time.
    pub async fn settle(&self) {
        let asked = || self.handle().pump().map_or(0, Pump::asked);
        for _ in 0..PATIENCE {
            let before = asked();
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            if self.backend.unsettled() > 0 {
                tokio::time::sleep(Duration::from_micros(100)).await;
            } else if asked() == before && before == self.answered.load(Ordering::Relaxed) {
                return;
            }
            self.hear_pump().await;
            self.answered.store(asked(), Ordering::Relaxed);
        }
    }

    /// Waits until the log pump has done all that was asked of it.
    async fn hear_pump(&self) {
        let (tell, told) = tokio::sync::oneshot::channel();
        let pump = self.handle().pump();
        if pump.is_some_and(|p| p.flush(move || tell.send(()).unwrap_or_default())) {
            let _ = told.await;
        }
    }

    /// All kept notices so far.
    #[must_use]
    pub fn notices(&self) -> Vec<Arc<Notice>> {
        self.handle().events(Seq(0), usize::MAX).notices
    }

    /// Checks what must never be lost (see [`check`]), and that no child lives that its module's status denies.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<(), String> {
        check(&self.notices())?;
        let up = |m: &lair_actors::status::ModuleStatus| {
            matches!(m.state.as_str(), "starting" | "running" | "stopping")
        };
        let listed = self.handle().list().1.iter().filter(|m| up(m)).count() as u64;
        if self.backend.alive() > listed {
            let alive = self.backend.alive();
            return Err(format!("{alive} children live, and {listed} are listed"));
        }
        Ok(())
    }

    /// Stops everything within `within` of simulated time, and the runtime.
    pub async fn shutdown(self, within: Duration) -> DrainReport {
        let handle = self.handle().clone();
        let drain = tokio::spawn(async move { handle.drain(within, Self::origin()).await });
        let end = within + Duration::from_secs(60);
        let mut passed = Duration::ZERO;
        self.settle().await;
        while !drain.is_finished() && passed < end {
            let step = Duration::from_millis(500);
            self.advance(step).await;
            passed += step;
        }
        drop(drain);
        self.runtime.shutdown(Duration::ZERO).await
    }
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn temporary_folder() -> PathBuf {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let name = format!("lair-rehearsal-{}-{serial}", std::process::id());
    std::env::temp_dir().join(name)
}

/// Checks a history from its first notice: numbers without holes; within a life the order of things; one end for each
/// life, and exactly one `exited` for each `running`; no life begins before the last one has ended.
///
/// # Errors
/// The first notice that breaks a promise, and which.
pub fn check(notices: &[Arc<Notice>]) -> Result<(), String> {
    let mut lives: BTreeMap<ChildId, Life> = BTreeMap::new();
    for (at, notice) in notices.iter().enumerate() {
        let life = lives.entry(notice.id.clone()).or_default();
        let broken = if notice.seq.0 == at as u64 + 1 {
            life.hear(notice)
        } else {
            Err("the numbers have a hole")
        };
        broken.map_err(|why| format!("{why}, at {notice:?}"))?;
    }
    Ok(())
}

#[derive(Default)]
struct Life {
    inc: u64,
    stage: u8,
    ran: bool,
    ended: bool,
}

impl Life {
    fn hear(&mut self, notice: &Notice) -> Result<(), &'static str> {
        let Some(stage) = stage(&notice.kind) else {
            return Ok(());
        };
        if notice.kind == NoticeKind::Starting {
            if self.inc > 0 && !self.ended {
                return Err("a life begins before the last one has ended");
            }
            if notice.inc <= self.inc {
                return Err("a life has an older one's number");
            }
            *self = Life {
                inc: notice.inc,
                ..Life::default()
            };
        }
        if notice.inc != self.inc {
            return Err("a notice is about another life");
        }
        if stage < self.stage {
            return Err("a notice comes too late");
        }
        self.stage = stage;
        match notice.kind {
            NoticeKind::Running if std::mem::replace(&mut self.ran, true) => {
                Err("it came up twice")
            }
            NoticeKind::StartFailed { .. } if self.ran => Err("it had come up"),
            NoticeKind::Exited { .. } | NoticeKind::StartFailed { .. }
                if std::mem::replace(&mut self.ended, true) =>
            {
                Err("it ended twice")
            }
            NoticeKind::Down { .. } if self.inc > 0 && !self.ended => {
                Err("it is down without an end")
            }
            _ => Ok(()),
        }
    }
}

/// Where in a life a notice belongs; `None`: anywhere.
fn stage(kind: &NoticeKind) -> Option<u8> {
    Some(match kind {
        NoticeKind::Starting => 0,
        NoticeKind::Running => 1,
        NoticeKind::Ready | NoticeKind::NotReady | NoticeKind::Settled => 2,
        NoticeKind::Stopping { .. } => 3,
        NoticeKind::Killing => 4,
        NoticeKind::Stuck => 5,
        NoticeKind::Exited { .. } | NoticeKind::StartFailed { .. } => 6,
        NoticeKind::Down { .. } | NoticeKind::Backoff { .. } | NoticeKind::Held => 7,
        _ => return None,
    })
}
