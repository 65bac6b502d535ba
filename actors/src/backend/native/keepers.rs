//! The keeper in service: the first one, or the one that took a dead one's place.
//!
//! Promises: when a keeper dies, another is started for what is started from then on, and is given what the dead one
//! stored; what the dead one had started stays with its connection, which sees and signals it by pidfd. Never: starts
//! one after [`Keepers::end`].

use crate::cgroup::Cgroups;
use crate::keeper::{KeeperClient, KeeperOptions, ProcessId};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How soon a start that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a module's start waits for a keeper to be there again.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Keepers {
    current: watch::Sender<Option<KeeperClient>>,
    itself: Mutex<ProcessId>,
    stored: Mutex<BTreeMap<CString, Vec<OwnedFd>>>,
}

impl Keepers {
    /// Serves with this keeper; with `again`, replaces it when it dies, in the places of this life of the runtime.
    pub fn new(first: KeeperClient, again: Option<KeeperOptions>, instance: String) -> Arc<Self> {
        let closing = first.closing();
        let keepers = Arc::new(Keepers {
            itself: Mutex::new(first.keeper()),
            current: watch::Sender::new(Some(first)),
            stored: Mutex::default(),
        });
        if let Some(again) = again {
            tokio::spawn(replace(Arc::downgrade(&keepers), closing, again, instance));
        }
        keepers
    }

    /// The one in service, dead or alive; `None` after the end.
    pub fn current(&self) -> Option<KeeperClient> {
        self.current.borrow().clone()
    }

    /// The process of the one in service.
    pub fn itself(&self) -> ProcessId {
        *lock(&self.itself)
    }

    /// One that lives, if there is one within a bound; else the dead one, whose answer is a fault.
    pub async fn living(&self) -> Option<KeeperClient> {
        let mut current = self.current.subscribe();
        let lives = current.wait_for(|keeper| keeper.as_ref().is_none_or(|k| !k.is_gone()));
        let found = match tokio::time::timeout(PATIENCE, lives).await {
            Ok(Ok(keeper)) => (*keeper).clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        found.or_else(|| self.current())
    }

    /// Has this and every later keeper hold duplicates of these descriptors for the next life.
    pub fn store(&self, tag: CString, fds: Vec<OwnedFd>) {
        if let Some(keeper) = self.current() {
            put(&keeper, &tag, &fds);
        }
        lock(&self.stored).insert(tag, fds);
    }

    pub fn unstore(&self, tag: &CString) {
        if lock(&self.stored).remove(tag).is_some()
            && let Some(keeper) = self.current()
        {
            let _ = keeper.unstore(tag.clone());
        }
    }

    /// No other will be started. The last one, to be ended.
    pub fn end(&self) -> Option<KeeperClient> {
        self.current.send_replace(None)
    }

    fn take(&self, keeper: KeeperClient) -> bool {
        *lock(&self.itself) = keeper.keeper();
        for (tag, fds) in &*lock(&self.stored) {
            put(&keeper, tag, fds);
        }
        let mut keeper = Some(keeper);
        self.current.send_if_modified(|current| {
            let wanted = current.is_some();
            if wanted {
                *current = keeper.take();
            }
            wanted
        });
        keeper.is_none()
    }
}

fn put(keeper: &KeeperClient, tag: &CString, fds: &[OwnedFd]) {
    let copies: std::io::Result<Vec<OwnedFd>> = fds.iter().map(OwnedFd::try_clone).collect();
    let stored = copies
        .map_err(|e| e.to_string())
        .and_then(|fds| keeper.store(tag.clone(), fds).map_err(|e| e.to_string()));
    if let Err(error) = stored {
        tracing::warn!(?tag, %error, "the keeper does not store it: a next life will miss it");
    }
}

/// Waits for the death of each keeper and starts the next. Holds neither the keepers nor a connection meanwhile.
async fn replace(
    keepers: std::sync::Weak<Keepers>,
    first: impl Future<Output = ()> + Send + 'static,
    options: KeeperOptions,
    instance: String,
) {
    first.await;
    loop {
        let closing = loop {
            let Some(keepers) = keepers.upgrade().filter(|k| k.current().is_some()) else {
                return;
            };
            tracing::error!(
                pid = keepers.itself().pid,
                "the keeper died; starting another for new modules"
            );
            match KeeperClient::launch(options.clone()).await {
                Ok(keeper) => {
                    let (name, pid) = (instance.clone(), keeper.keeper().pid);
                    // A scope goes with its last process: what was found at the start is made again.
                    let places = move || Cgroups::find(&name, pid, &[]);
                    let _ = tokio::task::spawn_blocking(places).await;
                    let closing = keeper.closing();
                    if !keepers.take(keeper) {
                        return;
                    }
                    break closing;
                }
                Err(error) => tracing::error!(%error, "no other keeper could be started"),
            }
            drop(keepers);
            pause().await;
        };
        closing.await;
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the backend has no clock; this only spaces attempts"
)]
async fn pause() {
    tokio::time::sleep(AGAIN).await;
}

// Each critical section is whole operations on a map or a value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
