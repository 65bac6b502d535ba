//! Children of an earlier life of the runtime: found with their keeper, taken over, or ended.
//!
//! Promises: each is given out once, under the run number that its marker tells; what nobody claims gets its stop
//! signal, its grace and KILL. Never: takes a process for one of ours by its number alone; who is ours, the keeper says,
//! which is its parent.

use super::Shared;
use super::grip::Grip;
use crate::backend::{ReadySource, StartOrder, Started, Streams, Survivor};
use crate::cgroup::ModuleGroups;
use crate::keeper::{self, AdoptedChild, KeeperClient};
use lair_supervision::{ChildId, ChildIdentity};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What becomes of a child that nobody claims after its stop signal, before KILL.
const GRACE: Duration = Duration::from_secs(10);

/// Under which tag a child's notify socket is stored.
pub(super) fn notify_tag(name: &str) -> CString {
    CString::new(format!("notify:{name}")).unwrap_or_default()
}

/// What an earlier life left, until somebody claims it.
#[derive(Default)]
pub(super) struct Left {
    children: Mutex<BTreeMap<(ChildId, u64), AdoptedChild>>,
    sockets: Mutex<BTreeMap<CString, OwnedFd>>,
}

impl Left {
    /// Sorts what the keeper told. What is no module's (a probe's command) is ended at once.
    pub fn sort(
        keeper: &KeeperClient,
        children: Vec<AdoptedChild>,
        stored: Vec<(CString, Vec<OwnedFd>)>,
    ) -> Self {
        let left = Left::default();
        for child in children {
            match named(&child).filter(|_| child.streams.is_some()) {
                Some(name) => {
                    lock(&left.children).insert(name, child);
                }
                None => {
                    tokio::spawn(end(keeper.clone(), child, Duration::ZERO));
                }
            }
        }
        let sockets = stored.into_iter().filter_map(|(tag, fds)| {
            let is_notify = tag.as_bytes().starts_with(b"notify:");
            Some((tag, fds.into_iter().next().filter(|_| is_notify)?))
        });
        lock(&left.sockets).extend(sockets);
        left
    }

    pub fn list(&self) -> Vec<Survivor> {
        let children = lock(&self.children);
        let list = children.iter().map(|((id, inc), child)| Survivor {
            id: id.clone(),
            inc: *inc,
            identity: identity(child),
            // Those that were to die with it were ended by the keeper.
            doomed: false,
        });
        list.collect()
    }

    /// Lets the keeper forget one whose end is known; should it live all the same, it is ended.
    pub fn forget(&self, keeper: &KeeperClient, id: &ChildId, inc: u64) {
        let over = lock(&self.children).remove(&(id.clone(), inc));
        if let Some(child) = over {
            tokio::spawn(end(keeper.clone(), child, Duration::ZERO));
        }
    }

    /// Ends everything that was not claimed; says what that was.
    pub fn disown(&self, keeper: &KeeperClient) -> Vec<String> {
        let unclaimed = std::mem::take(&mut *lock(&self.children));
        lock(&self.sockets).clear();
        let mut names = Vec::new();
        for ((id, inc), child) in unclaimed {
            names.push(format!("{id} run {inc} (pid {})", child.process.pid));
            tokio::spawn(end(keeper.clone(), child, GRACE));
        }
        names
    }
}

/// Which lives started these children.
#[must_use]
pub fn lives(children: &[AdoptedChild]) -> Vec<String> {
    let named = children.iter().filter_map(|child| {
        let (instance, _) = child.marker.to_str().ok()?.split_once(':')?;
        Some(instance.to_owned())
    });
    let named: BTreeSet<String> = named.collect();
    named.into_iter().collect()
}

/// `instance:ID.RUN`, as the marker of a module's process says.
fn named(child: &AdoptedChild) -> Option<(ChildId, u64)> {
    let (_, name) = child.marker.to_str().ok()?.split_once(':')?;
    let (id, run) = name.rsplit_once('.')?;
    Some((ChildId::new(id), run.parse().ok()?))
}

fn identity(child: &AdoptedChild) -> ChildIdentity {
    ChildIdentity::Native {
        pid: child.process.pid,
        start_ticks: child.process.start_ticks,
    }
}

/// Asks, waits, kills, and lets the keeper forget it.
async fn end(keeper: KeeperClient, child: AdoptedChild, grace: Duration) {
    let AdoptedChild { key, mut exit, .. } = child;
    if !grace.is_zero() {
        let _ = keeper.signal(key, libc::SIGTERM, keeper::Scope::All);
        let _ = tokio::time::timeout(grace, &mut exit).await;
    }
    let _ = keeper.kill(key);
    let _ = (&mut exit).await;
    let _ = keeper.ack(key);
}

/// Takes a child over, if it is still there to be claimed.
pub(super) fn adopt(shared: &Arc<Shared>, order: &StartOrder) -> Option<Started> {
    let child = lock(&shared.left.children).remove(&(order.id.clone(), order.inc))?;
    let keeper = shared.keepers.current()?;
    let name = format!("{}.{}", order.id, order.inc);
    let identity = identity(&child);
    let AdoptedChild {
        key,
        process,
        marker,
        streams,
        exit,
        empty,
    } = child;
    let streams = streams?;
    let tag = notify_tag(&name);
    let socket = lock(&shared.left.sockets).remove(&tag);
    if let Some(copy) = socket.as_ref().and_then(|socket| socket.try_clone().ok()) {
        shared.keepers.store(tag, vec![copy]);
    }
    let path = socket
        .is_some()
        .then(|| shared.options.run_dir.join("notify").join(&name));
    let ready = match (streams.ready, socket) {
        (Some(fd), _) => Some(ReadySource::Fd(fd)),
        (None, socket) => socket.map(ReadySource::Notify),
    };
    let groups = groups_of(shared, &marker, order, &name);
    let grip = Grip::new(
        keeper,
        key,
        process.pid,
        order.plan.clone(),
        groups,
        path,
        shared.clone(),
    );
    grip.guard();
    grip.follow(exit, empty);
    Some(Started {
        identity,
        streams: Streams {
            stdout: Some(streams.stdout),
            stderr: Some(streams.stderr),
        },
        ready,
        handle: grip,
    })
}

/// The child's groups: where the life that started it made them.
fn groups_of(shared: &Shared, marker: &CString, order: &StartOrder, name: &str) -> ModuleGroups {
    let instance = marker.to_str().ok().and_then(|text| text.split_once(':'));
    let Some((instance, _)) = instance else {
        return ModuleGroups::default();
    };
    shared.cgroups.of(instance).found(name, &order.plan.limits)
}

// Each critical section is whole operations on a map.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
