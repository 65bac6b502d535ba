//! The machine's side of a runtime, and what an earlier life on the same folders left of it.
//!
//! Owns: the way from a ledger and a keeper's list to modules that are up again. Promises: a keeper that waits is found
//! and taken over, whatever the policy is now; what can't be gone on with is said; nothing that is found stops the start.
//! Never: starts a second copy of what lives.

use crate::containers;
use crate::folders::Folders;
use crate::handle::RuntimeHandle;
use lair_actors::backend::native::{self, NativeBackend, NativeOptions};
use lair_actors::backend::{Backend, StartOrder, Survivor};
use lair_actors::files::last_run;
use lair_actors::files::read::{Recorded, recorded};
use lair_actors::keeper::{
    DeathPolicy, Inheritance, KeeperClient, KeeperOptions, ProcessId, Scope, orphan,
};
use lair_actors::ledger::{Ledger, Mark, Remembered, Standing};
use lair_actors::messages::RootMsg;
use lair_actors::pump::{KeptDesk, StreamKey};
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
        let instance = folders.instance();
        let mut lives = vec![instance.clone()];
        lives.extend(native::lives(&left.children));
        let past = past(&folders.run, lives, lasting);
        let native = NativeOptions {
            instance,
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

/// What was written last time; and the ledger of this life, if there may be a next: plans hold values of the
/// environment, which are not written without need.
fn past(run: &Path, lives: Vec<String>, lasting: bool) -> Past {
    match Ledger::open(run, lives) {
        Ok((mut ledger, remembered)) => {
            if let Some(why) = &remembered.ignored {
                tracing::warn!("the ledger in {} is not used: {why}", run.display());
            }
            if !lasting {
                ledger.erase();
            }
            Past {
                ledger: lasting.then_some(ledger),
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
        if self.native().is_none() {
            return;
        }
        containers::look_back(self.engines(), self.orders()).await;
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
                    mark: known.mark.clone(),
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
        let mut survivors = self.survivors().await;
        // Lair was killed between the note of an end and the word to who ran it.
        survivors.retain(|(backend, found)| {
            let over = marks.iter().any(|(id, mark)| {
                *id == found.id && mark.as_ref().is_some_and(|m| m.is_past(found.inc))
            });
            if over {
                backend.forget(&found.id, found.inc);
            }
            !over
        });
        let is_there = |(id, mark): &(ChildId, Option<Mark>)| {
            let is_it =
                |(_, found): &(_, Survivor)| found.id == *id && is_same(found, mark.as_ref());
            survivors.iter().any(is_it)
        };
        let (there, gone): (Vec<_>, Vec<_>) = marks.into_iter().partition(is_there);
        for (id, mark) in there {
            self.claim(&id, mark).await;
        }
        let gone = gone.into_iter().filter_map(|(id, mark)| Some((id, mark?)));
        let gone: Vec<(ChildId, Mark)> = gone.collect();
        self.end_orphans(&remembered.lives, &gone).await;
        for (id, mark) in gone {
            let _ = self.call(|reply| RootMsg::GoOn { id, mark, reply }).await;
        }
    }

    /// Their keeper died as well, so nobody has their streams and exits: what lives of them, led by anybody or not, is
    /// ended before another is started.
    async fn end_orphans(&self, lives: &[String], gone: &[(ChildId, Mark)]) {
        let ran = |mark: &Mark| !matches!(mark.standing, Standing::Down | Standing::Waiting);
        let contained =
            |mark: &Mark| matches!(mark.identity, Some(ChildIdentity::Container { .. }));
        let mut runs = Vec::new();
        for (id, mark) in gone {
            if ran(mark) && !contained(mark) {
                end_orphan(id, mark).await;
                runs.push(format!("{id}.{}", mark.run));
            }
        }
        let Some(native) = self.native() else { return };
        if !native.end_remains(lives, &runs).await {
            tracing::error!("what outlived its keeper could not be ended");
        }
    }

    /// Takes over the survivors of a module that is known now. The newest is its run; older ones are ended.
    pub(crate) async fn claim(&self, id: &ChildId, mark: Option<Mark>) {
        let Ok(view) = self.view(id.as_str()) else {
            return;
        };
        let survivors = self.survivors().await.into_iter();
        let ours = survivors.filter(|(_, found)| found.id == *id);
        let Some((backend, found)) = ours.max_by_key(|(_, found)| found.inc) else {
            return;
        };
        let (inc, doomed) = (found.inc, found.doomed);
        let mark = match doomed {
            true => Some(stopping(mark, &found)),
            false => mark,
        };
        let order = StartOrder {
            id: id.clone(),
            inc,
            plan: view.plan.clone(),
        };
        let known = match found.identity {
            ChildIdentity::Container { .. } => self.recorded(id, inc).await,
            _ => Default::default(),
        };
        let Some(started) = backend.adopt(order, known).await else {
            if let Some(mark) = mark {
                let id = id.clone();
                let _ = self.call(|reply| RootMsg::GoOn { id, mark, reply }).await;
            }
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
        if doomed {
            tracing::warn!(module = %id, run = inc, "it outlived the lair that it was to die with: stopping it");
        }
        if !matches!(adopted, Ok(true)) {
            tracing::error!(module = %id, run = inc, "a survivor could not be taken over, and is ended");
        }
    }

    /// What earlier lives left and nobody has claimed, with whom it is.
    async fn survivors(&self) -> Vec<(Arc<dyn Backend>, Survivor)> {
        let native = self
            .native()
            .map(|native| native.clone() as Arc<dyn Backend>);
        let engines = containers::backends(self.engines()).into_values();
        let mut all = Vec::new();
        for backend in native.into_iter().chain(engines) {
            let found = backend.survivors().await;
            all.extend(found.into_iter().map(|found| (backend.clone(), found)));
        }
        all
    }

    /// What the files and the desk have of a run's output.
    async fn recorded(&self, id: &ChildId, run: u64) -> [Recorded; 2] {
        let module = id.shared();
        let key = StreamKey {
            module: module.clone(),
            run,
        };
        let (tell, begun) = tokio::sync::oneshot::channel();
        let asked = self.pump().is_some_and(|pump| {
            pump.begun(key, move |begun| {
                let _ = tell.send(begun);
            })
        });
        let begun = match asked {
            true => begun.await.unwrap_or_default(),
            false => Default::default(),
        };
        let log_dir = self.log_dir().to_owned();
        let read = move || recorded(&log_dir, &module, run);
        let read = tokio::task::spawn_blocking(read).await;
        let mut known = match read.map_err(io::Error::other).flatten() {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(module = %id, %error, "its log can't be read: what it wrote before may be there twice");
                Default::default()
            }
        };
        for (side, line) in known.iter_mut().zip(begun) {
            side.push(&line);
        }
        known
    }

    /// From now on the end of this process ends no module: another life will go on with them.
    pub(crate) async fn let_go(&self) {
        containers::set_orphans(self.engines(), DeathPolicy::Keep);
        let Some(native) = self.native() else { return };
        native.set_policy(DeathPolicy::Keep);
        native.flushed().await;
    }

    /// There will be no other life yet: the keeper's orders are the usual ones again.
    pub(crate) fn hold_on(&self) {
        containers::set_orphans(self.engines(), self.orders());
        if let Some(native) = self.native() {
            native.set_policy(self.orders());
        }
    }

    /// Nobody will claim what is left of an earlier life: it is stopped, with grace.
    pub fn disown(&self) {
        let native = self.native().map(|native| native.disown());
        let engines = containers::backends(self.engines()).into_values();
        let engines = engines.flat_map(|engine| engine.disown());
        for name in native.unwrap_or_default().into_iter().chain(engines) {
            tracing::warn!(
                "{name} is left of an earlier life and no module of this one: stopping it"
            );
        }
        if let Some(pump) = self.pump() {
            pump.disown();
        }
    }
}

/// What is known of it, but that it is not wanted any more.
fn stopping(mark: Option<Mark>, found: &Survivor) -> Mark {
    let known = mark.filter(|mark| mark.run == found.inc);
    Mark {
        run: found.inc,
        standing: Standing::Stopping,
        ready: known.as_ref().is_some_and(|mark| mark.ready),
        identity: Some(found.identity.clone()),
        since_ms: known.map_or(0, |mark| mark.since_ms),
        parked_ms: None,
    }
}

/// A container is the one that the ledger means, not another under its labels.
fn is_same(found: &Survivor, mark: Option<&Mark>) -> bool {
    let noted = mark.filter(|mark| mark.run == found.inc);
    match (
        &found.identity,
        noted.and_then(|mark| mark.identity.as_ref()),
    ) {
        (
            ChildIdentity::Container { engine_id: a, .. },
            Some(ChildIdentity::Container { engine_id: b, .. }),
        ) => a == b,
        _ => true,
    }
}

/// One that lives, and all that descends from it.
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
