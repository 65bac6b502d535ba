//! The machine's side of a runtime, and what an earlier life on the same folders left of it.
//!
//! Owns: the way from a ledger and a keeper's list to modules that are up again. Promises: a keeper that waits is found
//! and taken over, whatever the policy is now; what can't be gone on with is said; nothing that is found stops the start.
//! Never: starts a second copy of what lives.

use crate::folders::Folders;
use crate::handle::RuntimeHandle;
use lair_actors::backend::native::{NativeBackend, NativeOptions};
use lair_actors::backend::{Backend, StartOrder};
use lair_actors::files::last_run;
use lair_actors::keeper::{
    DeathPolicy, Inheritance, KeeperClient, KeeperOptions, ProcessId, Scope, orphan,
};
use lair_actors::ledger::{Ledger, Mark, Remembered, Standing};
use lair_actors::messages::RootMsg;
use lair_actors::pump::KeptDesk;
use lair_supervision::{ChildId, ChildIdentity, Origin};
use signal_hook::consts::SIGKILL;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Under which tag the pump's desk is stored.
const DESK: &CStr = c"desk";

/// Bytes of a Unix socket's path (unix(7)).
const LONGEST_SOCKET: usize = 108;

/// A keeper that does not answer within this is not waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long an orphan without a keeper may take to die of KILL.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// What an earlier life left on disk, and the ledger of this one.
#[derive(Default)]
pub(crate) struct Past {
    pub ledger: Option<Ledger>,
    pub remembered: Remembered,
}

/// A keeper with its backend, and what they hold of an earlier life.
pub(crate) struct Machine {
    pub native: Arc<NativeBackend>,
    pub desk: Option<KeptDesk>,
    pub past: Past,
}

impl Machine {
    /// Takes over the keeper that waits for this runtime's folders, or starts one. A `lasting` runtime may have a next
    /// life, and prepares for it.
    ///
    /// # Errors
    /// No keeper can be started.
    pub async fn open(
        program: &Path,
        folders: &Folders,
        policy: DeathPolicy,
        lasting: bool,
    ) -> io::Result<Machine> {
        let socket = folders.run.join("keeper.sock");
        // Where nobody shall find it, no path is no loss.
        let is_short = socket.as_os_str().len() < LONGEST_SOCKET;
        let options = KeeperOptions {
            program: program.to_owned(),
            socket_path: Some(socket).filter(|_| is_short || lasting),
            policy,
        };
        let (keeper, mut left) = find_or_launch(&options).await?;
        if let Err(error) = keeper.set_policy(policy) {
            tracing::warn!(%error, "the keeper was not told what to do when lair dies");
        }
        let desk = desk(&keeper, &mut left, lasting);
        let past = past(&folders.run);
        let native = NativeOptions {
            instance: folders.instance(),
            run_dir: folders.run.clone(),
        };
        let native = NativeBackend::inheriting(keeper, Some(options), left, native);
        if let Some(shared) = desk.as_ref().and_then(|desk| desk.share().ok()) {
            native.store(DESK.to_owned(), shared);
        }
        Ok(Machine {
            native: Arc::new(native),
            desk,
            past,
        })
    }
}

async fn find_or_launch(options: &KeeperOptions) -> io::Result<(KeeperClient, Inheritance)> {
    let found = match options.socket_path.as_deref().filter(|path| path.exists()) {
        Some(path) => tokio::time::timeout(ANSWER_WITHIN, KeeperClient::connect(path)).await,
        None => Ok(Err(io::ErrorKind::NotFound.into())),
    };
    match found {
        Ok(Ok((keeper, left))) => {
            tracing::info!(
                pid = keeper.keeper().pid,
                children = left.children.len(),
                "took over the keeper of an earlier life"
            );
            return Ok((keeper, left));
        }
        Ok(Err(error)) => tracing::debug!(%error, "no keeper waits"),
        Err(_) => tracing::error!("a keeper is there and does not answer; starting another"),
    }
    let keeper = KeeperClient::launch(options.clone()).await?;
    Ok((keeper, Inheritance::default()))
}

/// The desk that the earlier life left, or a new one where this life might leave it to another.
fn desk(keeper: &KeeperClient, left: &mut Inheritance, lasting: bool) -> Option<KeptDesk> {
    let tag: CString = DESK.to_owned();
    let at = left.stored.iter().position(|(of, _)| *of == tag);
    let old: Option<Vec<OwnedFd>> = at.map(|at| left.stored.swap_remove(at).1);
    let opened = old.map(KeptDesk::open);
    if let Some(Err(error)) = &opened {
        tracing::warn!(%error, "the desk of the earlier life can't be used: of each stream, a line at most is lost");
    }
    if let Some(Ok(desk)) = opened {
        return Some(desk);
    }
    let _ = keeper.unstore(tag);
    if !lasting {
        return None;
    }
    KeptDesk::new()
        .inspect_err(|error| tracing::warn!(%error, "a kill of lair can cost a line of output"))
        .ok()
}

fn past(run: &Path) -> Past {
    match Ledger::open(run) {
        Ok((ledger, remembered)) => {
            if let Some(why) = &remembered.ignored {
                tracing::warn!("the ledger in {} is not used: {why}", run.display());
            }
            Past {
                ledger: Some(ledger),
                remembered,
            }
        }
        Err(error) => {
            tracing::error!(%error, "no ledger can be written in {}: a next life will know less", run.display());
            Past::default()
        }
    }
}

impl RuntimeHandle {
    /// Goes on with the modules of an earlier life.
    pub(crate) async fn go_on(&self, remembered: Remembered) {
        let Some(native) = self.native().cloned() else {
            return;
        };
        let mut marks = Vec::new();
        for (id, known) in remembered.modules {
            let base = last_run(self.log_dir(), id.as_str()).unwrap_or(0);
            let base = known
                .mark
                .as_ref()
                .map_or(base, |mark| base.max(mark.run.saturating_sub(1)));
            let (plan, origin) = (Arc::new(known.plan), Origin::Observed);
            let loaded = self
                .call(|reply| RootMsg::Load {
                    plan: plan.clone(),
                    base,
                    origin,
                    reply,
                })
                .await;
            match loaded {
                Ok(Ok(_)) => marks.push((id, known.mark)),
                Ok(Err(why)) => tracing::error!(module = %id, ?why, "not known any more"),
                Err(error) => {
                    tracing::error!(module = %id, "not known any more: {}", error.message)
                }
            }
        }
        let survivors = native.survivors().await;
        for (id, mark) in marks {
            if survivors.iter().any(|survivor| survivor.id == id) {
                self.claim(&id, mark).await;
            } else if let Some(mark) = mark {
                end_orphan(&id, &mark).await;
                let _ = self.call(|reply| RootMsg::GoOn { id, mark, reply }).await;
            }
        }
    }

    /// Takes over the survivors of a module that is known now. The newest is its run; older ones are ended.
    pub(crate) async fn claim(&self, id: &ChildId, mark: Option<Mark>) {
        let (Some(native), Ok(view)) = (self.native(), self.view(id.as_str())) else {
            return;
        };
        let ours = native.survivors().await.into_iter().filter(|s| s.id == *id);
        let Some(inc) = ours.map(|survivor| survivor.inc).max() else {
            return;
        };
        let order = StartOrder {
            id: id.clone(),
            inc,
            plan: view.plan.clone(),
        };
        let Some(started) = native.adopt(order).await else {
            return;
        };
        let adopted = self
            .call(|reply| RootMsg::Adopt {
                id: id.clone(),
                inc,
                started: Box::new(started),
                mark,
                reply,
            })
            .await;
        if !matches!(adopted, Ok(true)) {
            tracing::error!(module = %id, run = inc, "a survivor could not be taken over, and is ended");
        }
    }

    /// From now on the end of this process ends no module: another life will go on with them.
    pub(crate) async fn let_go(&self) {
        let Some(native) = self.native() else { return };
        native.set_policy(DeathPolicy::Keep);
        native.flushed().await;
    }

    /// There will be no other life yet: the keeper's orders are the usual ones again.
    pub(crate) fn hold_on(&self) {
        if let Some(native) = self.native() {
            native.set_policy(self.orders());
        }
    }

    /// Nobody will claim what is left of an earlier life: it is stopped, with grace.
    pub fn disown(&self) {
        for name in self
            .native()
            .map(|native| native.disown())
            .unwrap_or_default()
        {
            tracing::warn!(
                "{name} is left of an earlier life and no module of this one: stopping it"
            );
        }
        if let Some(pump) = self.pump() {
            pump.disown();
        }
    }
}

/// Its keeper died as well, so nobody has its streams and its exit: what lives of it is ended, before another is started.
async fn end_orphan(id: &ChildId, mark: &Mark) {
    let (Standing::Up | Standing::Stopping | Standing::Restarting, Some(identity)) =
        (mark.standing, &mark.identity)
    else {
        return;
    };
    let ChildIdentity::Native { pid, start_ticks } = *identity else {
        return;
    };
    let process = ProcessId { pid, start_ticks };
    let watch = orphan::Watch::open(process);
    let (marker, scope) = match marker_of(pid) {
        Some(marker) => (marker, Scope::All),
        None => (CString::default(), Scope::Leader),
    };
    if matches!(orphan::signal(process, &marker, SIGKILL, scope), Ok(1..)) {
        tracing::warn!(module = %id, pid, "it outlived its keeper: ended");
        let _ = tokio::time::timeout(DIES_WITHIN, watch.ended()).await;
    }
}

/// The marker in a process's environment: all of its tree have it.
fn marker_of(pid: i32) -> Option<CString> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environ.split(|byte| *byte == 0);
    let marker = variables.find_map(|variable| variable.strip_prefix(b"LAIR_MARKER="))?;
    CString::new(marker)
        .ok()
        .filter(|marker| !marker.is_empty())
}
