//! The typed face of a running lair: what embedders call and what the bridge is a wrapper of.
//!
//! Owns: nothing; it is a cheap clone of senders and published state. Promises: every call gets exactly one answer,
//! reads never wait for an actor. Never: changes lifecycle state by itself.

mod account;
mod again;
mod figures;
mod park;
mod still;
mod why;
pub(crate) mod words;

pub use park::{Bytes, ParkReport};
pub(crate) use why::recorded;
pub(crate) use words::overcommitted;
pub use words::{LoadOptions, ManifestSource, Refused, WaitFor};

use crate::folders::{Folders, Lock};
use lair_actors::backend::container::find::Engines;
use lair_actors::backend::native::NativeBackend;
use lair_actors::cgroup::Cgroups;
use lair_actors::clock::Clock;
use lair_actors::dossier::Archive;
use lair_actors::events::{Batch, EventLog, KEPT};
use lair_actors::facts::{GpuDesk, Meter, Sampler};
use lair_actors::fault::Fault;
use lair_actors::files::last_run;
use lair_actors::footprint::Footprints;
use lair_actors::keeper::DeathPolicy;
use lair_actors::messages::{Answer, DrainReport, Loaded, RootMsg};
use lair_actors::pump::Pump;
use lair_actors::status::{ModuleStatus, Renderer};
use lair_actors::view::{Board, View};
use lair_manifests::config::RuntimeConfig;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::account::Rules;
use lair_supervision::{Admission, ChildEvent, ChildId, DeniedReason, Origin, Seq};
use ractor::{ActorRef, RpcReplyPort};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use words::{denied, root_gone};

/// A running lair. Cheap to clone. When the last clone and its [`Runtime`](crate::Runtime) are gone, the tree ends and
/// its modules with it.
#[derive(Clone)]
pub struct RuntimeHandle {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub root: OnceLock<ActorRef<RootMsg>>,
    pub board: Arc<Board>,
    pub events: Arc<EventLog>,
    pub sampler: Arc<Sampler>,
    pub archive: Arc<Archive>,
    pub footprints: Arc<Footprints>,
    pub pump: Arc<OnceLock<Pump>>,
    pub clock: Arc<dyn Clock>,
    pub config: RwLock<Arc<RuntimeConfig>>,
    pub folders: Folders,
    pub foreground: bool,
    /// Runs processes of this machine; `None`: simulated.
    pub native: Option<Arc<NativeBackend>>,
    /// Why the ledger of an earlier life was not used, if it wasn't.
    pub ignored: Option<String>,
    /// The keeper's orders for when this process ends without a word.
    pub orders: DeathPolicy,
    pub seed: u64,
    pub memory_total: Option<u64>,
    /// Where trees are tracked and limits held; `None`: simulated.
    pub cgroups: Option<Cgroups>,
    /// The container engines.
    pub engines: Arc<Engines>,
    /// How memory is shared out.
    pub rules: Rules,
    pub gpus: Arc<GpuDesk>,
    /// What the account is told of the machine.
    pub meter: Meter,
    /// Keeps a second runtime off the folders for as long as a module may live here.
    pub lock: Mutex<Option<Lock>>,
}

impl Inner {
    /// The configuration in force.
    pub fn config(&self) -> Arc<RuntimeConfig> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Owners die with the root, and with each of them its grip, which ends the child.
        if let Some(root) = self.root.get() {
            root.kill();
        }
    }
}

/// How long the root may take to answer. It never waits for anything, so this is a fault of lair or of the machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long the end of the runtime waits for the last dossiers.
const DOSSIERS_WITHIN: Duration = Duration::from_secs(3);

impl RuntimeHandle {
    pub(crate) fn new(inner: Inner) -> Self {
        RuntimeHandle {
            inner: Arc::new(inner),
        }
    }

    /// The root actor, for hosts that link or monitor it.
    #[must_use]
    pub fn root(&self) -> Option<&ActorRef<RootMsg>> {
        self.inner.root.get()
    }

    /// Loads every module of a manifest or stack; nothing is loaded if one of them can't be. One that is loaded already
    /// takes of the new manifest what a running module can, at once; the rest counts from its next start on.
    ///
    /// # Errors
    /// `invalid_manifest` with every problem, `mode_unavailable` or `untrusted` with every mismatch, `group_exists`,
    /// `draining`, `busy`.
    pub async fn load(
        &self,
        source: ManifestSource,
        options: LoadOptions,
        origin: Origin,
    ) -> Result<Vec<(String, Loaded)>, Refused> {
        // A file on a slow disk, or a driver that wakes its devices first, must not hold everybody else up.
        let inner = self.inner.clone();
        let prepare = move || crate::prepare::prepare(&inner, source, &options);
        let plans = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|e| Refused::new("internal", format!("the preparation broke off: {e}")))??;
        self.load_plans(plans, origin).await
    }

    /// Loads plans that were made elsewhere: for hosts without manifests, and for tests.
    ///
    /// # Errors
    /// As [`RuntimeHandle::load`], from `group_exists` on.
    pub async fn load_plans(
        &self,
        plans: Vec<LaunchPlan>,
        origin: Origin,
    ) -> Result<Vec<(String, Loaded)>, Refused> {
        self.check_groups(&plans)?;
        let mut loaded = Vec::with_capacity(plans.len());
        for plan in plans {
            let name = plan.spec.id.to_string();
            let base = last_run(&self.inner.folders.logs, &name).map_err(|e| {
                Refused::new(
                    "log_folder",
                    format!("cannot read the log folder of `{name}`: {e}"),
                )
            })?;
            let plan = Arc::new(plan);
            let id = plan.spec.id.clone();
            let origin = origin.clone();
            let answer = self
                .call(|reply| RootMsg::Load {
                    mark: None,
                    plan,
                    base,
                    origin,
                    reply,
                })
                .await?;
            loaded.push((name.clone(), answer.map_err(|why| denied(why, &name))?));
            self.claim(&id, None).await;
        }
        Ok(loaded)
    }

    /// Forgets a module that is down.
    ///
    /// # Errors
    /// `unknown_module`, `still_up`.
    pub async fn unload(&self, name: &str, origin: Origin) -> Result<(), Refused> {
        let id = ChildId::new(name);
        self.inner.sampler.forget(&id);
        self.inner.footprints.forget(&id);
        self.call(|reply| RootMsg::Unload { id, origin, reply })
            .await?
            .map_err(|why| denied(why, name))
    }

    /// Makes it run. Running already is fine.
    ///
    /// # Errors
    /// `unknown_module`, `draining`, `port_taken`.
    pub async fn start(&self, name: &str, origin: Origin) -> Result<Answer, Refused> {
        crate::ports::check(&self.inner, name).await?;
        self.ask(name, ChildEvent::StartRequested, origin).await
    }

    /// Makes it stop, within `grace` if given. Stopped already is fine.
    ///
    /// # Errors
    /// `unknown_module`.
    pub async fn stop(
        &self,
        name: &str,
        grace: Option<Duration>,
        origin: Origin,
    ) -> Result<Answer, Refused> {
        self.ask(name, ChildEvent::StopRequested { grace }, origin)
            .await
    }

    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// `unknown_module`, `draining`, `port_taken`.
    pub async fn restart(
        &self,
        name: &str,
        grace: Option<Duration>,
        origin: Origin,
    ) -> Result<Answer, Refused> {
        crate::ports::check(&self.inner, name).await?;
        self.ask(name, ChildEvent::RestartRequested { grace }, origin)
            .await
    }

    /// `signal: None` means KILL of the whole tree; else this signal is sent to the leader and nothing else changes.
    ///
    /// # Errors
    /// `unknown_module`, `not_running`.
    pub async fn kill(
        &self,
        name: &str,
        signal: Option<i32>,
        origin: Origin,
    ) -> Result<Answer, Refused> {
        let Some(signal) = signal else {
            return self.ask(name, ChildEvent::KillRequested, origin).await;
        };
        let view = self.view(name)?;
        let Some(handle) = &view.handle else {
            return Err(denied(DeniedReason::NotRunning, name));
        };
        handle.signal(signal, lair_supervision::Scope::Leader);
        let admission = Admission::Accepted {
            inc: view.child.inc,
        };
        Ok(Answer {
            admission,
            seq: self.inner.events.newest(),
            shortage: None,
        })
    }

    /// One module's status.
    ///
    /// # Errors
    /// `unknown_module`.
    pub fn status(&self, name: &str) -> Result<ModuleStatus, Refused> {
        Ok(self.render(&*self.view(name)?))
    }

    /// The names of all modules, without a look at what they use.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let views = self.inner.board.all();
        views.iter().map(|v| v.plan.spec.id.to_string()).collect()
    }

    /// All modules in name order, and the newest event number they reflect at least.
    #[must_use]
    pub fn list(&self) -> (Seq, Vec<ModuleStatus>) {
        let seq = self.inner.events.newest();
        (
            seq,
            self.inner
                .board
                .all()
                .iter()
                .map(|v| self.render(v))
                .collect(),
        )
    }

    /// The mode's explanation, one line a step.
    ///
    /// # Errors
    /// `unknown_module`.
    pub fn explain(&self, name: &str) -> Result<Vec<String>, Refused> {
        Ok(self.view(name)?.plan.explanation.clone())
    }

    /// What a file would run as, and why, without loading it.
    ///
    /// # Errors
    /// As [`RuntimeHandle::load`], up to `untrusted`.
    pub fn explain_file(
        &self,
        file: &Path,
        options: &LoadOptions,
    ) -> Result<Vec<(String, Vec<String>)>, Refused> {
        crate::prepare::explain(&self.inner, file, options)
    }

    /// Waits until it is so; at once if it is.
    ///
    /// # Errors
    /// `timeout` when the time is over, `failed` when it can no longer happen by itself, `unknown_module`.
    pub async fn wait(
        &self,
        name: &str,
        what: WaitFor,
        timeout: Option<Duration>,
    ) -> Result<ModuleStatus, Refused> {
        let run = self.view(name)?.child.inc;
        let waiting = self.wait_for(name, what, run);
        match timeout {
            None => waiting.await,
            Some(limit) => tokio::time::timeout(limit, waiting)
                .await
                .unwrap_or_else(|_| {
                    let state = self.status(name).map(|s| s.state).unwrap_or_default();
                    Err(Refused::new(
                        "timeout",
                        format!(
                            "`{name}` is {state} after {limit:?}, not yet {}",
                            what.word()
                        ),
                    )
                    .help("`lair status NAME` shows what it is doing; wait longer with --timeout"))
                }),
        }
    }

    async fn wait_for(&self, name: &str, what: WaitFor, run: u64) -> Result<ModuleStatus, Refused> {
        let mut newest = self.inner.events.subscribe();
        loop {
            newest.mark_unchanged();
            let view = self.view(name)?;
            match what.verdict(&view, run) {
                Some(true) => return Ok(self.render(&view)),
                Some(false) => {
                    let status = self.render(&view);
                    let why = status
                        .reason
                        .as_ref()
                        .map(|r| format!(": {}", r.message))
                        .unwrap_or_default();
                    let message = format!(
                        "`{name}` is {}{why}; it will not become {} by itself",
                        status.state,
                        what.word()
                    );
                    return Err(Refused::new("failed", message)
                        .help("see `lair logs NAME` and `lair status NAME`"));
                }
                None => {}
            }
            tokio::select! {
                biased;
                news = newest.changed() => news.map_err(|_| root_gone())?,
                // Nobody tells anything any more.
                _ = self.root_ref()?.wait(None) => return Err(root_gone()),
            }
        }
    }

    /// Kept events after number `after`.
    #[must_use]
    pub fn events(&self, after: Seq, max: usize) -> Batch {
        self.inner.events.read(after, max)
    }

    /// Wakes when there are newer events.
    #[must_use]
    pub fn newest_event(&self) -> watch::Receiver<Seq> {
        self.inner.events.subscribe()
    }

    /// Does something bad on purpose, if the gate is open. What comes of it is marked with `label`.
    ///
    /// # Errors
    /// `injection_disabled`, `unknown_module`.
    pub async fn inject(&self, fault: Fault, label: &str, _origin: Origin) -> Result<Seq, Refused> {
        let label = label.to_owned();
        self.call(|reply| RootMsg::Inject {
            fault,
            label,
            reply,
        })
        .await?
        .map_err(|why| denied(why, "the module"))
    }

    /// Stops everything; new starts are refused from now on.
    ///
    /// # Errors
    /// `internal` when the root is gone.
    pub async fn drain(&self, within: Duration, origin: Origin) -> Result<DrainReport, Refused> {
        let root = self.root_ref()?;
        let answer = root
            .call(
                |reply| RootMsg::Drain {
                    within,
                    origin,
                    reply,
                },
                None,
            )
            .await;
        match answer {
            Ok(ractor::rpc::CallResult::Success(report)) => Ok(report),
            _ => Err(root_gone()),
        }
    }

    /// Skips the rest of the grace in a drain under way.
    pub fn drain_now(&self) {
        if let Ok(root) = self.root_ref() {
            let _ = root.cast(RootMsg::DrainNow);
        }
    }

    /// Version, paths and counters: what `runtime.info` shows.
    #[must_use]
    pub fn info(&self) -> serde_json::Value {
        let i = &self.inner;
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "keeper_pid": i.native.as_ref().map(|native| native.keeper_pid()),
            "ledger_ignored": i.ignored,
            "uptime_ms": u64::try_from(i.clock.now().0.as_millis()).unwrap_or(u64::MAX),
            "modules": i.board.all().len(),
            "newest_event": i.events.newest().0,
            "state_dir": i.folders.state,
            "log_dir": i.folders.logs,
            "run_dir": i.folders.run,
            "limits": { "modules": lair_actors::root::MAX_MODULES, "events_kept": KEPT,
                        "starts_in_flight": lair_actors::backend::native::STARTS_IN_FLIGHT },
        })
    }

    /// What the host offers and lacks (blocking reads of /proc; call it off the hot path).
    #[must_use]
    pub fn doctor(&self) -> serde_json::Value {
        crate::doctor::examine(&self.inner)
    }

    /// The folder of all log files; read them with `lair_actors::files::read`.
    #[must_use]
    pub fn log_dir(&self) -> &Path {
        &self.inner.folders.logs
    }

    /// Whether the root takes messages, which is all that lair does.
    ///
    /// # Errors
    /// `internal` when it is gone, `busy` when it does not answer.
    pub async fn ping(&self) -> Result<(), Refused> {
        self.call(|reply| RootMsg::Ping { reply }).await
    }

    /// The folder of locks and sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.inner.folders.run.clone()
    }

    /// A wall clock in milliseconds as RFC 3339 UTC with milliseconds.
    #[must_use]
    pub fn rfc3339(wall_ms: u64) -> String {
        lair_actors::status::rfc3339(wall_ms)
    }

    /// One module's published snapshot.
    ///
    /// # Errors
    /// `unknown_module`.
    pub fn view(&self, name: &str) -> Result<Arc<View>, Refused> {
        self.inner
            .board
            .get(name)
            .ok_or_else(|| self.refusal(DeniedReason::UnknownModule, name))
    }

    /// Ends the root and the pump; everything is down already.
    pub(crate) async fn stop_root(&self) {
        if let Some(root) = self.inner.root.get() {
            let _ = root.stop_and_wait(None, Some(ANSWER_WITHIN)).await;
        }
        if let Some(pump) = self.inner.pump.get().cloned() {
            let _ = tokio::task::spawn_blocking(move || pump.stop()).await;
        }
        let archive = self.inner.archive.clone();
        let _ = tokio::task::spawn_blocking(move || archive.finish(DOSSIERS_WITHIN)).await;
    }

    /// The keeper is gone: nobody else removes the folders of its control groups any more. The folders are free again.
    pub(crate) fn clean_up(&self) {
        let lock = &self.inner.lock;
        drop(lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(cgroups) = &self.inner.cgroups {
            cgroups.remove();
        }
    }

    /// The container engines.
    pub(crate) fn engines(&self) -> &Arc<Engines> {
        &self.inner.engines
    }

    pub(crate) fn orders(&self) -> DeathPolicy {
        self.inner.orders
    }

    pub(crate) fn native(&self) -> Option<&Arc<NativeBackend>> {
        self.inner.native.as_ref()
    }

    /// Sees to it that no module outlives a root that died of a fault of lair's own: in a host, the published views
    /// would hold them.
    pub(crate) fn bury_with_root(&self) {
        let (Some(root), board) = (self.inner.root.get().cloned(), self.inner.board.clone()) else {
            return;
        };
        tokio::spawn(async move {
            let _ = root.wait(None).await;
            for view in board.all() {
                if let Some(handle) = &view.handle {
                    handle.kill();
                }
            }
        });
    }

    /// The log pump, for those who must know that it is quiet.
    pub(crate) fn pump(&self) -> Option<&Pump> {
        self.inner.pump.get()
    }

    fn render(&self, view: &View) -> ModuleStatus {
        let i = &self.inner;
        Renderer {
            clock: &*i.clock,
            sampler: &i.sampler,
            gpus: &i.gpus,
            footprints: &i.footprints,
            log_dir: &i.folders.logs,
        }
        .status(view)
    }

    async fn ask(&self, name: &str, event: ChildEvent, origin: Origin) -> Result<Answer, Refused> {
        let id = ChildId::new(name);
        let measured = self.measured_for(&id, &event).await;
        let answer = self
            .call(|reply| RootMsg::Ask {
                id,
                event,
                origin,
                measured,
                reply,
            })
            .await?;
        match answer.admission {
            Admission::Denied(why) => Err(match &answer.shortage {
                Some(short) => overcommitted(short),
                None => self.refusal(why, name),
            }),
            Admission::Accepted { .. }
            | Admission::AlreadySatisfied { .. }
            | Admission::Deferred { .. } => Ok(answer),
        }
    }

    fn root_ref(&self) -> Result<&ActorRef<RootMsg>, Refused> {
        self.inner.root.get().ok_or_else(root_gone)
    }

    pub(crate) async fn call<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> RootMsg,
    ) -> Result<T, Refused> {
        match self.root_ref()?.call(message, Some(ANSWER_WITHIN)).await {
            Ok(ractor::rpc::CallResult::Success(answer)) => Ok(answer),
            Ok(ractor::rpc::CallResult::Timeout) => Err(Refused::new(
                "busy",
                format!("the root did not answer within {ANSWER_WITHIN:?}"),
            )),
            Ok(ractor::rpc::CallResult::SenderError) | Err(_) => Err(root_gone()),
        }
    }
}
