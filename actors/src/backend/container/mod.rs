//! Containers: what all engines share.
//!
//! Owns: the way from a plan to a running container and to its removal, and the watch over the engine itself. Promises:
//! the same life for every engine; only containers with this lair's label are touched; a failed start leaves nothing,
//! also where the engine is away when it fails. Never: speaks an engine's own language ([`engine::Engine`] does), and
//! never lets the engine restart or remove a container.

mod adopt;
mod away;
mod cgroup;
pub mod cli;
mod command;
pub mod docker;
mod end;
pub mod engine;
pub mod fault;
pub mod feed;
pub mod find;
mod gate;
mod grip;
mod http;
mod make;
pub mod podman;
mod presence;
mod processes;
pub mod service;
mod splice;
mod streams;
mod sweep;
mod wanted;

use super::{Backend, BackendFault, BoxFuture, StartOrder, Started, Survivor};
use crate::files::read::Recorded;
use adopt::{Left, Mark};
use engine::{Engine, LABEL_INSTANCE};
use fault::{EngineFault, EngineFaultKind};
use gate::{Gate, Gated};
use lair_manifests::launch::Launch;
use lair_supervision::{ChildId, StartFault, StartStage};
use presence::Presence;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell, Semaphore};

pub use adopt::Orphans;
pub use wanted::container_name;

/// Starts under way at once; more wait their turn.
pub const STARTS_IN_FLIGHT: usize = 8;

/// A question that the engine answers from memory.
const QUICK: Duration = Duration::from_secs(10);
/// A question for which it has to work: start, remove.
const SLOW: Duration = Duration::from_secs(60);
/// Logs of engines that are read at once.
const LOG_READERS: usize = 4;
/// How long a start that was given up is waited for, before it is left to be undone in the background.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// What a container backend is started with.
#[derive(Clone, Debug)]
pub struct ContainerOptions {
    /// Names this lair in labels, the same for all its lives: what carries it may be reclaimed.
    pub instance: String,
    /// Longest time to fetch an image.
    pub pull_within: Duration,
    /// Where it is noted that containers may outlive this life: this path with `.` and the engine's name. `None`: nowhere.
    pub mark: Option<PathBuf>,
}

/// Something that happened beside the life of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The image is being fetched; one line of the engine's.
    Pulling(String),
    /// Something of an earlier life was in the way and was removed.
    Reclaimed(String),
    /// What was asked for and what is in force differ.
    Differs(Vec<String>),
    /// Output that is lost, or may be.
    Missed(String),
}

/// Hears news of a module's incarnation. Called from any thread, must not block.
pub type NewsSink = Arc<dyn Fn(&ChildId, u64, News) + Send + Sync>;

/// Runs modules as containers of one engine.
pub struct ContainerBackend {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    engine: Arc<dyn Engine>,
    gate: Gate,
    options: ContainerOptions,
    starts: Semaphore,
    log_readers: Semaphore,
    under_way: Mutex<HashMap<(ChildId, u64), Arc<Notify>>>,
    presence: Presence,
    news: OnceLock<NewsSink>,
    swept: OnceCell<()>,
    /// Starts of this life, until the sweep is done.
    ordered: Mutex<HashSet<(ChildId, u64)>>,
    /// Containers that are being removed.
    removing: Mutex<HashSet<String>>,
    removed: Notify,
    /// What an earlier life left and nobody has claimed.
    left: Left,
    /// Containers of an earlier life that somebody has claimed, or that are being ended.
    adopted: Mutex<HashSet<String>>,
    /// Containers of an earlier life that have been asked to end.
    ending: Mutex<HashSet<String>>,
    mark: Mark,
}

impl Shared {
    fn adopted(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ending(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, id: &ChildId, inc: u64, news: News) {
        match self.news.get() {
            Some(sink) => sink(id, inc, news),
            None => tracing::info!(module = %id, run = inc, ?news, "container"),
        }
    }

    fn own_label(&self) -> BTreeMap<String, String> {
        [(LABEL_INSTANCE.to_owned(), self.options.instance.clone())].into()
    }

    fn removing(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.removing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ordered(&self) -> std::sync::MutexGuard<'_, HashSet<(ChildId, u64)>> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashMap<(ChildId, u64), Arc<Notify>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An engine's answer within a time.
async fn within<T>(
    limit: Duration,
    doing: &str,
    answer: impl Future<Output = Result<T, EngineFault>>,
) -> Result<T, EngineFault> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| {
            let what = format!("the engine did not {doing} within {} s", limit.as_secs());
            Err(EngineFault::new(EngineFaultKind::TimedOut, &what))
        })
}

/// Waits; the engine gives no other sign.
#[allow(
    clippy::disallowed_methods,
    reason = "the backend has no clock; it waits for an engine, as its other bounds do"
)]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

impl ContainerBackend {
    /// Runs containers with this engine. Nothing is asked of it yet: it may be away.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, options: ContainerOptions) -> Self {
        let mark = options.mark.as_ref().map(|path| {
            let mut path = path.clone().into_os_string();
            path.push(format!(".{}", engine.name()));
            PathBuf::from(path)
        });
        let gate = Gate::default();
        ContainerBackend {
            shared: Arc::new(Shared {
                left: Left::default(),
                adopted: Mutex::default(),
                ending: Mutex::default(),
                mark: Mark::new(mark),
                presence: Presence::new(),
                starts: Semaphore::new(STARTS_IN_FLIGHT),
                log_readers: Semaphore::new(LOG_READERS),
                under_way: Mutex::default(),
                news: OnceLock::new(),
                swept: OnceCell::new(),
                ordered: Mutex::default(),
                removing: Mutex::default(),
                removed: Notify::new(),
                engine: Arc::new(Gated {
                    engine,
                    gate: gate.clone(),
                }),
                gate,
                options,
            }),
        }
    }

    /// Where news go; the first who asks gets them.
    pub fn on_news(&self, sink: NewsSink) {
        let _ = self.shared.news.set(sink);
    }

    /// Who the engine is, and what it can.
    #[must_use]
    pub fn info(&self) -> engine::Answer<engine::EngineInfo> {
        self.shared.engine.info()
    }

    /// Removes what an earlier life of this lair left, once; later calls do nothing.
    pub async fn sweep(&self) {
        sweep::once(&self.shared).await;
    }

    /// Waits until everything that was released is removed, at most this long; says how many are not.
    pub async fn settle(&self, limit: Duration) -> usize {
        let done = async {
            loop {
                let changed = self.shared.removed.notified();
                if self.shared.removing().is_empty() && self.shared.ending().is_empty() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(limit, done).await;
        let left = self.shared.removing().len() + self.shared.ending().len();
        if left == 0 && self.shared.left.list().is_empty() {
            self.shared.mark.remove();
        }
        left
    }

    /// Looks for containers that an earlier life left, if it may have left any. An engine that is away is asked for a
    /// few seconds.
    pub async fn look_back(&self) {
        adopt::look_back(&self.shared).await;
    }

    /// What shall become of containers if this life ends without a word.
    pub fn set_orphans(&self, orphans: Orphans) {
        self.shared.mark.orders(orphans);
    }
}

impl Backend for ContainerBackend {
    fn name(&self) -> &'static str {
        self.shared.engine.name()
    }

    fn start(&self, order: StartOrder) -> BoxFuture<Result<Started, StartFault>> {
        let shared = self.shared.clone();
        let given_up = Arc::new(Notify::new());
        let key = (order.id.clone(), order.inc);
        shared.under_way().insert(key.clone(), given_up.clone());
        if !shared.swept.initialized() {
            shared.ordered().insert(key.clone());
        }
        let entry = UnderWay { shared, key };
        Box::pin(async move {
            let started = start(entry.shared.clone(), order, given_up).await;
            drop(entry);
            started
        })
    }

    fn survivors(&self) -> BoxFuture<Vec<Survivor>> {
        let survivors = self.shared.left.list();
        Box::pin(async move { survivors })
    }

    fn adopt(&self, order: StartOrder, known: [Recorded; 2]) -> BoxFuture<Option<Started>> {
        Box::pin(adopt::adopt(self.shared.clone(), order, known))
    }

    fn forget(&self, id: &ChildId, inc: u64) {
        adopt::forget(&self.shared, id, inc);
    }

    fn disown(&self) -> Vec<String> {
        adopt::disown(&self.shared)
    }

    // The engine carries out what it was asked, whether or not somebody still waits for the answer.
    fn undoes_at_once(&self) -> bool {
        false
    }

    fn inject(&self, fault: BackendFault) -> bool {
        match fault {
            BackendFault::DropEngine(time) => self.shared.gate.shut(time),
            BackendFault::KillKeeper => return false,
        }
        true
    }

    fn give_up(&self, id: &ChildId, inc: u64) {
        if let Some(start) = self.shared.under_way().get(&(id.clone(), inc)) {
            start.notify_one();
        }
    }
}

struct UnderWay {
    shared: Arc<Shared>,
    key: (ChildId, u64),
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.under_way().remove(&self.key);
    }
}

async fn start(
    shared: Arc<Shared>,
    order: StartOrder,
    given_up: Arc<Notify>,
) -> Result<Started, StartFault> {
    let Launch::Container(_) = &order.plan.launch else {
        let what = "the plan is not for a container";
        return Err(EngineFault::new(EngineFaultKind::Refused, what).at(StartStage::Create));
    };
    shared.mark.set();
    let prepared = async {
        sweep::once(&shared).await;
        // Never closed, so the permit always comes.
        let permit = shared.starts.acquire().await;
        let image = make::image(&shared, &order).await?;
        Ok::<_, StartFault>((permit, image))
    };
    let (_permit, image) = tokio::select! {
        prepared = prepared => prepared?,
        () = given_up.notified() => return Err(abandoned()),
    };
    // On a task of its own: what the engine has begun is seen to its end, and undone if nobody wants it any more.
    let mut task = tokio::spawn(make::make(shared.clone(), order, image));
    let made = tokio::select! {
        made = &mut task => made,
        () = given_up.notified() => match tokio::time::timeout(GIVEN_UP, task).await {
            Ok(made) => made,
            Err(_) => return Err(abandoned()),
        },
    };
    made.unwrap_or_else(|e| {
        let what = format!("the start panicked: {e}");
        Err(EngineFault::new(EngineFaultKind::Refused, &what).at(StartStage::Create))
    })
}

fn abandoned() -> StartFault {
    let what = "the start was given up before the engine had finished it";
    EngineFault::new(EngineFaultKind::TimedOut, what).at(StartStage::Create)
}
