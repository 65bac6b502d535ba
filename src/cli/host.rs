//! A runtime with its bridge and its signals, as `serve` and `up` have it.
//!
//! Owns: the process's signal handling. Promises: the bridge answers until everything is down; a second request to end
//! skips the rest of every grace. Never: outlives its root actor.

use super::error::CliError;
use super::exit::{self, Code};
use crate::bridge::{self, Bound, Counters, Ended, PeerPolicy, Stale};
use crate::metrics;
use crate::{Folders, Runtime, RuntimeError, RuntimeHandle, RuntimeOptions};
use futures_util::{FutureExt, StreamExt};
use lair_actors::keeper::{hold_back, pages};
use lair_actors::messages::{DrainOutcome, DrainReport};
use lair_manifests::RuntimeConfig;
use lair_supervision::{Origin, Seq};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_tokio::Signals;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// So long without an event, and the start counts as over.
const QUIET: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// TERM, INT: end.
    End,
    /// HUP.
    Hangup,
    /// USR2.
    HandOver,
    /// Something that is ignored on purpose.
    Nothing,
}

/// The signals that mean something.
const TAKEN: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];

/// Holds signals back from before this program becomes another one until that one listens, or lets them come.
///
/// # Errors
/// The system refuses.
pub fn hold_signals(held: bool) -> std::io::Result<()> {
    hold_back(&TAKEN, held)
}

/// The process's signals.
pub struct Asks(Signals);

impl Asks {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self, CliError> {
        let failed = |e| CliError::new("internal", format!("cannot listen to signals: {e}"));
        let signals = Signals::new(TAKEN).map_err(failed)?;
        hold_signals(false).map_err(failed)?;
        Ok(Asks(signals))
    }

    /// The next one.
    pub async fn next(&mut self) -> Asked {
        match self.0.next().await {
            Some(SIGTERM | SIGINT | SIGQUIT) => Asked::End,
            Some(SIGHUP) => Asked::Hangup,
            Some(SIGUSR2) => Asked::HandOver,
            Some(_) => Asked::Nothing,
            None => std::future::pending().await,
        }
    }

    /// Whether, of what has been heard and not yet taken, something asks for the end. All of it is taken.
    pub async fn end_is_asked(&mut self) -> bool {
        // What a handler has written is seen only after tokio has looked at its descriptors again.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        while let Some(asked) = self.next().now_or_never() {
            if asked == Asked::End {
                return true;
            }
        }
        false
    }

    /// Waits for the next request to end, or for the terminal to go.
    pub async fn end_or_hangup(&mut self) {
        while !matches!(self.next().await, Asked::End | Asked::Hangup) {}
    }

    /// Waits for the next request to end.
    pub async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}

/// A tokio runtime on this thread.
///
/// # Errors
/// The system refuses.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new("internal", format!("cannot start: {e}")))?;
    let result = tokio.block_on(work);
    // A reader that hangs in a blocking call must not keep the program.
    tokio.shutdown_timeout(Duration::from_millis(200));
    result
}

impl From<RuntimeError> for CliError {
    fn from(e: RuntimeError) -> Self {
        let error = CliError::new(e.code(), e.to_string());
        match e {
            RuntimeError::Running { .. } => {
                error.with_help("use the one that runs, or another `run_dir` in the configuration")
            }
            RuntimeError::Folder { .. } => {
                error.with_help("name folders of your own with `state_dir`, `log_dir` and `run_dir` in the configuration")
            }
            _ => error,
        }
    }
}

/// Who does what here asks for it.
#[must_use]
pub fn me(peer: &str) -> Origin {
    Origin::Requested {
        peer: peer.to_owned(),
    }
}

/// A runtime with its bridge.
pub struct Host {
    runtime: Runtime,
    bridge: JoinHandle<Ended>,
    open: Option<oneshot::Sender<()>>,
    close: oneshot::Sender<()>,
    /// The port for scrapers, if the configuration has one.
    scraped: Option<JoinHandle<()>>,
    /// The signals.
    pub asks: Asks,
}

/// Why [`Host::until_asked`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A signal.
    Signal(Asked),
    /// A peer has drained the runtime.
    Drained,
    /// The root actor is gone.
    RootDied,
}

/// Once the start is over, gives back the memory that only it needed.
async fn slim(mut newest: watch::Receiver<Seq>) {
    loop {
        match tokio::time::timeout(QUIET, newest.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => break,
        }
    }
    let _ = tokio::task::spawn_blocking(pages::give_back).await;
}

/// When memory runs out the kernel should take anything before what looks after it all. Modules are not spared: the
/// keeper, their parent, sees to that. It takes a right that most users don't have.
pub fn spare_lair() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(FILE).unwrap_or_default();
    if now.trim().parse::<i32>().is_ok_and(|score| score <= -900) {
        return;
    }
    if let Err(e) = std::fs::write(FILE, "-900") {
        tracing::debug!("lair is not spared when memory runs out: {e}");
    }
}

impl Host {
    /// Starts a runtime and binds its bridge, which answers from [`Host::open`] on: who connects before that waits,
    /// instead of being told that nothing is loaded.
    ///
    /// # Errors
    /// One of them can't be.
    pub async fn start(options: RuntimeOptions) -> Result<Host, CliError> {
        let asks = Asks::listen()?;
        let policy = peers(&options.config);
        let socket = options.folders.socket.clone();
        let metrics = options.config.metrics.as_ref().and_then(|m| m.address());
        let runtime = Runtime::start(options).await?;
        spare_lair();
        let bound = match listen(&socket) {
            Ok(bound) => bound,
            Err(e) => {
                runtime.shutdown(Duration::ZERO).await;
                return Err(e);
            }
        };
        let (open, opened) = oneshot::channel::<()>();
        let (close, closed) = oneshot::channel();
        let handle = runtime.handle().clone();
        let counters: Arc<Counters> = Arc::default();
        let scraped = match metrics {
            Some(at) => scraped(&handle, at, &counters).await,
            None => None,
        };
        let bridge = tokio::spawn(async move {
            let _ = opened.await;
            let closing = async {
                let _ = closed.await;
            };
            bridge::serve_counted(handle, bound, policy, counters, closing).await
        });
        Ok(Host {
            runtime,
            bridge,
            open: Some(open),
            close,
            scraped,
            asks,
        })
    }

    /// Lets the bridge answer.
    pub fn open(&mut self) {
        // What was to be loaded is loaded: whoever of an earlier life belongs to none of it, nobody will claim.
        self.runtime.handle().disown();
        // Taking it is all: the bridge waits for the sender to go.
        if self.open.take().is_some() {
            tokio::spawn(slim(self.runtime.handle().newest_event()));
        }
    }

    /// The runtime's face.
    #[must_use]
    pub fn handle(&self) -> &RuntimeHandle {
        self.runtime.handle()
    }

    /// Waits until something asks for a decision.
    pub async fn until_asked(&mut self) -> Event {
        let handle = self.runtime.handle().clone();
        tokio::select! {
            asked = self.asks.next() => Event::Signal(asked),
            _ = &mut self.bridge => Event::Drained,
            () = root_died(&handle) => Event::RootDied,
        }
    }

    /// Stops everything, then lair. A second request to end skips the rest of the grace.
    pub async fn end(mut self, within: Duration) -> Code {
        let handle = self.runtime.handle().clone();
        let drain = handle.drain(within, me("signal"));
        tokio::pin!(drain);
        let report = loop {
            tokio::select! {
                report = &mut drain => break report.ok(),
                () = self.asks.end() => {
                    tracing::warn!("asked to end again: killing what is left");
                    handle.drain_now();
                }
            }
        };
        self.open();
        if let Some(scraped) = &self.scraped {
            scraped.abort();
        }
        let _ = self.close.send(());
        if !self.bridge.is_finished() {
            let _ = (&mut self.bridge).await;
        }
        self.runtime.shutdown(Duration::ZERO).await;
        code_of(report.as_ref())
    }
}

/// Tells how it went, and says the same as an exit code.
fn code_of(report: Option<&DrainReport>) -> Code {
    let Some(report) = report else {
        return exit::FAILED;
    };
    for module in &report.modules {
        let (run, exit, took_ms) = (module.run, &module.exit, module.took_ms);
        match module.outcome {
            DrainOutcome::Stopped => {
                tracing::debug!(module = %module.name, run, exit, took_ms, "stopped");
            }
            DrainOutcome::Killed => {
                tracing::warn!(module = %module.name, run, exit, took_ms, "killed after its grace");
            }
            DrainOutcome::Remaining => {
                tracing::error!(module = %module.name, run, exit, took_ms, "still there");
            }
        }
    }
    match report.remaining.is_empty() {
        true => exit::DONE,
        false => exit::FAILED,
    }
}

async fn root_died(handle: &RuntimeHandle) {
    match handle.root() {
        Some(root) => {
            let _ = root.wait(None).await;
        }
        None => std::future::pending().await,
    }
}

fn peers(config: &RuntimeConfig) -> PeerPolicy {
    PeerPolicy {
        uids: config.access.uids.iter().map(|n| n.small()).collect(),
        gids: config.access.gids.iter().map(|n| n.small()).collect(),
    }
}

/// The port for scrapers. Modules don't wait for it: one that can't be had is told in lair's log.
async fn scraped(
    handle: &RuntimeHandle,
    at: SocketAddr,
    counters: &Arc<Counters>,
) -> Option<JoinHandle<()>> {
    let listener = match metrics::http::listen(at).await {
        Ok(listener) => listener,
        Err(e) => {
            tracing::error!(address = %at, "metrics can't be scraped, name another port with `metrics: {{ listen: … }}`: {e}");
            return None;
        }
    };
    tracing::info!(address = %at, "metrics can be scraped");
    let (handle, counters) = (handle.clone(), Some(counters.clone()));
    Some(tokio::spawn(async move {
        match metrics::http::serve(handle, listener, counters).await {}
    }))
}

fn listen(socket: &Path) -> Result<Bound, CliError> {
    bridge::bind(socket, Stale::Replace).map_err(|e| {
        CliError::new(
            "bridge",
            format!("cannot listen at {}: {e}", socket.display()),
        )
        .with_help("name another socket with --socket, or `socket:` in the configuration")
    })
}

/// The folders, with the socket that the command line names.
#[must_use]
pub fn folders(dirs: lair_manifests::Dirs, socket: Option<&Path>) -> Folders {
    let mut folders = Folders::from(dirs);
    if let Some(socket) = socket {
        folders.socket = super::find::absolute(socket);
    }
    folders
}

/// The same, in a run folder of this process alone.
#[must_use]
pub fn private(mut folders: Folders, word: &str) -> Folders {
    folders.run = folders.run.join(format!("{word}-{}", std::process::id()));
    folders.socket = folders.run.join("lair.sock");
    folders
}
