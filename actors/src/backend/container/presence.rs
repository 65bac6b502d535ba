//! Whether the engine answers, asked once for all its containers.
//!
//! Owns: one ping at a time while a container is held. Promises: an engine that is away says nothing about containers:
//! only sight is lost. Never: concludes that something has ended.

use super::{Shared, pause};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Between two signs of life.
const EVERY: Duration = Duration::from_secs(1);
/// Longest time for one; an engine that is busy is not away.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Presence {
    here: watch::Sender<bool>,
    users: AtomicUsize,
}

impl Presence {
    pub fn new() -> Self {
        Presence {
            here: watch::Sender::new(true),
            users: AtomicUsize::new(0),
        }
    }

    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.here.subscribe()
    }

    /// Something was asked, and the engine was there or not.
    pub fn note(&self, here: bool) {
        self.here
            .send_if_modified(|now| std::mem::replace(now, here) != here);
    }

    pub fn is_here(&self) -> bool {
        *self.here.borrow()
    }
}

/// As long as one of these is held, the engine is watched.
pub(super) struct Interest(Weak<Shared>);

impl Interest {
    pub fn of(shared: &Arc<Shared>) -> Self {
        if shared.presence.users.fetch_add(1, Ordering::AcqRel) == 0 {
            tokio::spawn(watch(Arc::downgrade(shared)));
        }
        Interest(Arc::downgrade(shared))
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.presence.users.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Ends when nobody cares any more. A second watcher that was started meanwhile does no harm but a ping.
async fn watch(shared: Weak<Shared>) {
    loop {
        pause(EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.presence.users.load(Ordering::Acquire) == 0 {
            return;
        }
        let ping = tokio::time::timeout(PATIENCE, shared.engine.ping()).await;
        shared.presence.note(matches!(ping, Ok(Ok(()))));
    }
}
