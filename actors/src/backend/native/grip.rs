//! The grip on one process tree, from its start to the proof that it is gone.

use super::adopt::notify_tag;
use super::{Shared, command, confine};
use crate::backend::last_word::LastWord;
use crate::backend::{BoxFuture, ChildExit, ChildHandle, CommandOutcome, Tree};
use crate::cgroup::{HeldLimits, ModuleGroups, Shortfall};
use crate::confinement::Confinement;
use crate::facts::pids;
use crate::keeper::{self, ChildKey, EmptyNote, Ending, ExitNote, KeeperClient, SendFault};
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ExitStatus, Scope, Tri};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// After KILL, how long a tree without its leader may take to vanish before it is named as left over.
const VANISH: Duration = Duration::from_secs(10);

/// Time between two looks at a tree that no keeper watches.
const LOOK: Duration = Duration::from_millis(100);

/// Time between two looks for a kill that the kernel is about to count, and how many.
const GLANCE: Duration = Duration::from_millis(5);
const COUNTED_WITHIN: u32 = 400;

pub(super) struct Grip {
    keeper: KeeperClient,
    key: ChildKey,
    pid: i32,
    plan: Arc<LaunchPlan>,
    groups: ModuleGroups,
    shortfalls: Vec<Shortfall>,
    notify: Option<PathBuf>,
    by_us: AtomicI32,
    released: AtomicBool,
    frozen: AtomicBool,
    exit: LastWord,
    confinement: OnceLock<Confinement>,
    // Keeps the tracking folder until the last tree is gone.
    shared: Arc<Shared>,
}

impl Grip {
    pub fn new(
        keeper: KeeperClient,
        key: ChildKey,
        pid: i32,
        plan: Arc<LaunchPlan>,
        groups: ModuleGroups,
        notify: Option<PathBuf>,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Grip {
            keeper,
            key,
            pid,
            plan,
            shortfalls: groups.shortfalls(),
            groups,
            notify,
            by_us: AtomicI32::new(0),
            released: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            exit: LastWord::default(),
            confinement: OnceLock::new(),
            shared,
        })
    }

    /// Watches for the end on a task that does not hold the grip itself: dropping the grip must be able to end the child.
    pub fn follow(
        self: &Arc<Self>,
        exit: oneshot::Receiver<ExitNote>,
        empty: oneshot::Receiver<EmptyNote>,
    ) {
        let (weak, keeper, key) = (Arc::downgrade(self), self.keeper.clone(), self.key);
        tokio::spawn(async move {
            let note = exit.await.unwrap_or(ExitNote {
                ending: Ending::Unknown,
                tree_empty: false,
            });
            let Some(grip) = weak.upgrade() else {
                // Dropped without release: nobody else will tell the keeper to forget it.
                let _ = keeper.ack(key);
                return;
            };
            let leftover = if note.tree_empty {
                Vec::new()
            } else {
                // Rare and large: not a part of what waits for each end.
                Box::pin(grip.clear(empty)).await
            };
            let leftover = grip.check_ports(leftover);
            grip.publish(note.ending, leftover);
        });
    }

    /// The leader is gone and others of its tree are not: ask them, then end them.
    async fn clear(&self, mut empty: oneshot::Receiver<EmptyNote>) -> Vec<String> {
        let _ = self
            .keeper
            .signal(self.key, self.plan.spec.stop_signal, keeper::Scope::All);
        match tokio::time::timeout(self.plan.spec.grace, &mut empty).await {
            Ok(Ok(EmptyNote)) => return Vec::new(),
            Ok(Err(_)) => return self.clear_alone().await,
            Err(_) => {}
        }
        let _ = self.keeper.kill(self.key);
        match tokio::time::timeout(VANISH, &mut empty).await {
            Ok(Ok(EmptyNote)) => Vec::new(),
            Ok(Err(_)) => self.clear_alone().await,
            Err(_) => self.names(),
        }
    }

    /// The keeper is gone, so nobody tells when the tree is: look for it, as long as it was given, then kill it.
    async fn clear_alone(&self) -> Vec<String> {
        if self.vanishes(0, self.plan.spec.grace).await {
            return Vec::new();
        }
        if let Some(group) = self.groups.tracked() {
            // Reaches what has thrown its marker away; before Linux 5.14 there is no such file.
            let _ = fs::write(group.join("cgroup.kill"), "1");
        }
        if self.vanishes(libc::SIGKILL, VANISH).await {
            Vec::new()
        } else {
            self.names()
        }
    }

    /// Sends this again and again until nothing is left that it reaches; signal 0 only looks.
    #[allow(
        clippy::disallowed_methods,
        reason = "the grip has no clock; it waits for the kernel, as its other bounds do"
    )]
    async fn vanishes(&self, signal: i32, within: Duration) -> bool {
        let gone = async {
            loop {
                let (keeper, key) = (self.keeper.clone(), self.key);
                let group = self
                    .groups
                    .tracked()
                    .map(|dir| Tree::Cgroup(dir.to_owned()));
                // It reads the whole of /proc.
                let look = move || {
                    let sent = keeper.signal(key, signal, keeper::Scope::All);
                    sent == Err(SendFault::UnknownChild)
                        && group.is_none_or(|group| pids(&group).is_empty())
                };
                if tokio::task::spawn_blocking(look).await.unwrap_or(false) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(within, gone).await.is_ok()
    }

    /// What is left. That nothing can be named is no proof, where no group lists the members.
    fn names(&self) -> Vec<String> {
        let left = pids(&self.tree());
        let named = left.iter().map(|pid| format!("pid {pid} {}", comm(*pid)));
        let named: Vec<String> = named.collect();
        if named.is_empty() && self.groups.tracked().is_none() {
            return vec!["a process that could not be named".to_owned()];
        }
        named
    }

    /// A stop that was asked for is proven only when the declared ports can be taken again.
    fn check_ports(&self, mut leftover: Vec<String>) -> Vec<String> {
        if self.by_us.load(Ordering::Relaxed) != 0 {
            for port in self
                .plan
                .ports
                .iter()
                .filter(|p| !is_free(&p.address, p.port))
            {
                leftover.push(format!(
                    "port {} ({}) is still in use",
                    port.port, port.name
                ));
            }
        }
        leftover
    }

    fn publish(&self, ending: Ending, leftover: Vec<String>) {
        let by_us = Some(self.by_us.load(Ordering::Relaxed)).filter(|s| *s != 0);
        let (status, core) = match ending {
            Ending::Code(code) => (ExitStatus::Code(code), Some(false)),
            Ending::Signal { signal, core } => (ExitStatus::Signal(signal), Some(core)),
            Ending::Unknown => (ExitStatus::Unknown, None),
        };
        let oom = self.oom(status, by_us);
        self.exit.tell(ChildExit {
            status,
            oom,
            core,
            by_us,
            leftover,
        });
    }
}

impl Grip {
    /// The kernel's word, where it counts for this module. Without a count: only KILL can be the OOM killer's, and ours
    /// isn't.
    fn oom(&self, status: ExitStatus, by_us: Option<i32>) -> Tri {
        let suspect = match status {
            ExitStatus::Signal(libc::SIGKILL) => by_us != Some(libc::SIGKILL),
            ExitStatus::Unknown => true,
            ExitStatus::Code(_) | ExitStatus::Signal(_) => false,
        };
        if !suspect && !self.groups.has_memory_limit() {
            return Tri::No;
        }
        match self.groups.oom_kills() {
            Some(0) => Tri::No,
            Some(_) => Tri::Yes,
            None if suspect => Tri::Unknown,
            None => Tri::No,
        }
    }

    /// Where the kernel ends single processes of a module that is over its limit, lair ends the rest.
    pub fn guard(self: &Arc<Self>) {
        let alarm = match self.groups.memory_alarm() {
            Ok(None) => return,
            Ok(Some(alarm)) => alarm,
            Err(e) => {
                tracing::warn!(pid = self.pid, error = %e, "the kernel can't tell when the module is over its limit");
                return;
            }
        };
        // One that was taken over may have lost a process before anybody listened.
        if self.end_if_short() {
            return;
        }
        let (weak, ended) = (Arc::downgrade(self), self.exit.wait());
        tokio::spawn(async move {
            let short = async {
                while let Ok(mut bell) = alarm.readable().await {
                    bell.clear_ready();
                    drop(bell);
                    if Self::is_settled(&weak).await {
                        return;
                    }
                }
            };
            tokio::select! { _ = ended => {}, () = short => {} }
        });
    }

    /// Ends the whole module if the kernel has killed any of it for lack of memory.
    fn end_if_short(&self) -> bool {
        let short = self.groups.oom_kills().is_some_and(|count| count > 0);
        if short {
            self.kill();
        }
        short
    }

    /// The alarm comes just before the kernel kills: looks until the kill is counted. Whether there is nothing more to
    /// listen for.
    #[allow(
        clippy::disallowed_methods,
        reason = "the grip has no clock; it waits for the kernel, as its other bounds do"
    )]
    async fn is_settled(weak: &Weak<Self>) -> bool {
        for _ in 0..COUNTED_WITHIN {
            let Some(grip) = weak.upgrade() else {
                return true;
            };
            if grip.end_if_short() {
                return true;
            }
            drop(grip);
            tokio::time::sleep(GLANCE).await;
        }
        false
    }
}

impl ChildHandle for Grip {
    fn signal(&self, signal: i32, scope: Scope) {
        // What is held still would take notice of nothing but KILL.
        if self.frozen.swap(false, Ordering::Relaxed) {
            let _ = self.groups.freeze(false);
        }
        self.by_us.store(signal, Ordering::Relaxed);
        let scope = match scope {
            Scope::Leader => keeper::Scope::Leader,
            Scope::Group => keeper::Scope::Group,
            Scope::All => keeper::Scope::All,
        };
        if let Err(e) = self.keeper.signal(self.key, signal, scope) {
            tracing::debug!(pid = self.pid, signal, error = %e, "signal not sent");
        }
    }

    fn kill(&self) {
        self.by_us.store(libc::SIGKILL, Ordering::Relaxed);
        if let Err(e) = self.keeper.kill(self.key) {
            tracing::debug!(pid = self.pid, error = %e, "kill not sent");
        }
    }

    fn exit(&self) -> BoxFuture<ChildExit> {
        self.exit.wait()
    }

    fn run(&self, argv: Vec<String>, timeout: Duration) -> BoxFuture<CommandOutcome> {
        Box::pin(command::run(
            self.shared.clone(),
            self.plan.clone(),
            self.groups.clone(),
            argv,
            timeout,
        ))
    }

    fn tree(&self) -> Tree {
        match self.groups.tracked() {
            Some(group) => Tree::Cgroup(group.to_owned()),
            None => Tree::Descendants(self.pid),
        }
    }

    fn confinement(&self) -> Option<Confinement> {
        if let Some(known) = self.confinement.get() {
            return Some(known.clone());
        }
        // Of the leader, once: what it takes from itself later is its own business.
        let seen = confine::observed(self.pid, &self.plan.limits)?;
        Some(self.confinement.get_or_init(|| seen).clone())
    }

    fn limits(&self) -> HeldLimits {
        self.groups.held()
    }

    fn shortfalls(&self) -> Vec<Shortfall> {
        self.shortfalls.clone()
    }

    fn freeze(&self, still: bool) -> BoxFuture<io::Result<()>> {
        self.frozen.store(still, Ordering::Relaxed);
        let done = self.groups.freeze(still);
        if done.is_err() {
            self.frozen.store(!still, Ordering::Relaxed);
        }
        Box::pin(async { done })
    }

    fn is_frozen(&self) -> bool {
        let frozen = self.groups.is_frozen();
        self.frozen.store(frozen, Ordering::Relaxed);
        frozen
    }

    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            let _ = self.keeper.ack(self.key);
            self.unlink();
        }
    }
}

impl Grip {
    fn unlink(&self) {
        if let Some(path) = &self.notify {
            let _ = fs::remove_file(path);
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                self.shared.keepers.unstore(&notify_tag(name));
            }
        }
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        if !self.released.load(Ordering::Relaxed) {
            let _ = self.keeper.kill(self.key);
            // Before its end the keeper refuses to forget a child; after it, nobody follows any more.
            if self.exit.is_told() {
                let _ = self.keeper.ack(self.key);
            }
            self.unlink();
        }
    }
}

fn comm(pid: i32) -> String {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"))
        .map_or_else(|_| "?".into(), |s| s.trim().to_owned())
}

/// Can the address be listened on? Closed connections in TIME_WAIT don't count, as they would not for the next run.
fn is_free(address: &str, port: u16) -> bool {
    let Ok(ip) = address.parse::<std::net::IpAddr>() else {
        return true;
    };
    // std sets SO_REUSEADDR on Unix listeners.
    match std::net::TcpListener::bind((ip, port)) {
        Ok(_) => true,
        Err(e) => e.kind() != std::io::ErrorKind::AddrInUse,
    }
}
