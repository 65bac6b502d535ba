//! Containers of an earlier life of this lair: found by their labels, taken over, or ended with grace.
//!
//! Owns: which of them nobody has claimed yet, and the mark on disk that says whether there may be any. Promises: each is
//! given out once, under its run's number; a container counts as ours by its labels and its process as the container's by
//! its cgroup; nobody's are asked to end before they are killed. Never: starts one, or touches a stranger's.

use super::away::{self, Whose};
use super::engine::{
    ContainerFacts, ContainerState, ImageFacts, LABEL_INSTANCE, LABEL_MODULE, LABEL_RUN, Listed,
};
use super::fault::EngineFault;
use super::feed::Feed;
use super::grip::{Grip, Life};
use super::wanted::{differences, wanted};
use super::{News, QUICK, Shared, pause, sweep, within};
use crate::backend::{StartOrder, Started, Survivor};
use crate::files::read::Recorded;
use lair_manifests::launch::Launch;
use lair_supervision::{ChildId, ChildIdentity};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What becomes of a container that nobody claims after its stop signal, before it is removed by force.
const GRACE: Duration = Duration::from_secs(10);
/// Looks at one that runs and has no process, and the time between two.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(50);
/// Tries to take one over from an engine that fails to answer.
const TRIES: u32 = 10;
const AGAIN: Duration = Duration::from_millis(500);

/// What becomes of containers if lair dies without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// The next life takes them over.
    Keep,
    /// The next life ends them.
    End,
}

/// What an earlier life left with an engine, until somebody claims it.
#[derive(Default)]
pub(super) struct Left {
    unclaimed: Mutex<BTreeMap<(ChildId, u64), Listed>>,
    /// They were to die with that life.
    doomed: AtomicBool,
}

impl Left {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(ChildId, u64), Listed>> {
        self.unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Not claimed yet.
    pub fn has(&self, container: &str) -> bool {
        self.all().values().any(|listed| listed.id == container)
    }

    pub fn list(&self) -> Vec<Survivor> {
        let all = self.all();
        let survivor = |((id, inc), listed): (&(ChildId, u64), &Listed)| Survivor {
            id: id.clone(),
            inc: *inc,
            identity: ChildIdentity::Container {
                engine_id: listed.id.clone(),
                init_pid: None,
            },
            doomed: self.doomed.load(Ordering::Relaxed),
        };
        all.iter().map(survivor).collect()
    }
}

/// The mark of one engine: it is there as long as containers may be, and says what shall become of them.
pub(super) struct Mark {
    path: Option<PathBuf>,
    now: Mutex<Written>,
}

struct Written {
    orphans: Orphans,
    there: bool,
    /// What an earlier life left has not been looked for: the mark stays for the next.
    owed: bool,
}

impl Mark {
    pub fn new(path: Option<PathBuf>) -> Self {
        Mark {
            path,
            now: Mutex::new(Written {
                orphans: Orphans::End,
                there: false,
                owed: false,
            }),
        }
    }

    fn now(&self) -> MutexGuard<'_, Written> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier life has left; `None`: nothing.
    pub fn read(&self) -> Option<Orphans> {
        let text = std::fs::read_to_string(self.path.as_ref()?).ok()?;
        Some(match text.trim() {
            "keep" => Orphans::Keep,
            _ => Orphans::End,
        })
    }

    pub fn orders(&self, orphans: Orphans) {
        let mut now = self.now();
        now.orphans = orphans;
        if now.there {
            self.write(now.orphans);
        }
    }

    /// Before the first container is made.
    pub fn set(&self) {
        let mut now = self.now();
        if !std::mem::replace(&mut now.there, true) {
            self.write(now.orphans);
        }
    }

    fn write(&self, orphans: Orphans) {
        let Some(path) = &self.path else { return };
        let word = match orphans {
            Orphans::Keep => "keep\n",
            Orphans::End => "end\n",
        };
        if let Err(error) = std::fs::write(path, word) {
            tracing::warn!(path = %path.display(), %error, "a next life will not look for containers of this one");
        }
    }

    /// Nothing is left.
    pub fn remove(&self) {
        let mut now = self.now();
        if now.owed {
            return;
        }
        now.there = false;
        let gone = self.path.as_ref().map(std::fs::remove_file);
        if let Some(Err(error)) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the mark of containers that may be left stays");
        }
    }
}

/// Looks for what an earlier life left, if it left anything.
pub(super) async fn look_back(shared: &Shared) {
    let Some(orphans) = shared.mark.read() else {
        return;
    };
    let doomed = orphans == Orphans::End;
    shared.left.doomed.store(doomed, Ordering::Relaxed);
    // Not forgotten until nothing is left.
    shared.mark.set();
    let labels = shared.own_label();
    let mut listed = Err(());
    for _ in 0..TRIES {
        match within(QUICK, "list containers", shared.engine.list(labels.clone())).await {
            Ok(found) => {
                listed = Ok(found);
                break;
            }
            Err(fault) => {
                tracing::warn!(engine = shared.engine.name(), %fault, "what an earlier life left can't be looked for");
                pause(AGAIN).await;
            }
        }
    }
    shared.mark.now().owed = listed.is_err();
    for found in listed.unwrap_or_default() {
        let ours = found.labels.get(LABEL_INSTANCE) == Some(&shared.options.instance);
        let run = found.labels.get(LABEL_RUN).and_then(|r| r.parse().ok());
        let module = found.labels.get(LABEL_MODULE);
        // One that was never started has nothing to tell; the sweep takes it.
        if let (true, Some(module), Some(run)) = (ours, module, run)
            && found.state != ContainerState::Created
        {
            let key = (ChildId::new(module), run);
            shared.left.all().insert(key, found);
        }
    }
}

/// Takes a container over, with its output from behind what is recorded.
pub(super) async fn adopt(
    shared: Arc<Shared>,
    order: StartOrder,
    known: [Recorded; 2],
) -> Option<Started> {
    let key = (order.id.clone(), order.inc);
    // In use from here on: neither claimed again nor swept.
    let listed = shared.left.all().remove(&key)?;
    shared.adopted().insert(listed.id.clone());
    for _ in 0..TRIES {
        match take(&shared, &order, &listed, &known).await {
            Ok(started) => return started,
            Err(fault) => {
                tracing::warn!(module = %order.id, %fault, "a container of an earlier life is not taken over yet");
                pause(AGAIN).await;
            }
        }
    }
    // Nobody can say any more what it does: it must not run on unseen.
    sweep::remove(&shared, listed.id);
    None
}

async fn take(
    shared: &Arc<Shared>,
    order: &StartOrder,
    listed: &Listed,
    known: &[Recorded; 2],
) -> Result<Option<Started>, EngineFault> {
    let Some((facts, life)) = seen(shared, &listed.id).await? else {
        return Ok(None);
    };
    if !is_it(shared, order, &facts) {
        return Ok(None);
    }
    let Launch::Container(launch) = &order.plan.launch else {
        return Ok(None);
    };
    let image = image(shared, &facts).await;
    let spec = wanted(order, launch, &shared.options.instance, &image.id);
    let runs = matches!(
        facts.state,
        ContainerState::Running | ContainerState::Paused
    );
    let whose = Whose {
        shared: shared.clone(),
        container: facts.id.clone(),
        module: order.id.clone(),
        run: order.inc,
    };
    // Engines connect nobody to one that is paused.
    let connected = away::connect(&whose, facts.state == ContainerState::Running).await?;
    let (feed, streams) = Feed::behind(known.clone())?;
    if runs {
        let differs = differences(&spec, &facts.applied);
        if !differs.is_empty() {
            shared.tell(&order.id, order.inc, News::Differs(differs));
        }
    }
    let init_pid = life.as_ref().map(Life::pid);
    let grip = Grip::begin(
        shared,
        &facts.id,
        &Arc::new(spec),
        image,
        life,
        facts.applied,
    );
    grip.falls_behind();
    // One that has ended has said all that there is to read.
    let whole = facts.state == ContainerState::Exited;
    let output = away::of_found(whose, feed, (connected, whole), &grip);
    grip.hands_on(tokio::spawn(output));
    Ok(Some(Started {
        identity: ChildIdentity::Container {
            engine_id: facts.id,
            init_pid,
        },
        streams,
        ready: None,
        handle: grip,
    }))
}

/// What the engine knows of it, and the kernel's hold on it. An engine may take a moment to notice an end; to connect to one
/// that has ended makes Podman forget how.
async fn seen(
    shared: &Arc<Shared>,
    id: &str,
) -> Result<Option<(ContainerFacts, Option<Life>)>, EngineFault> {
    let mut looks = LOOKS;
    loop {
        let inspected = within(QUICK, "inspect it", shared.engine.inspect(id)).await?;
        let Some(facts) = inspected else {
            return Ok(None);
        };
        let life = facts.pid.and_then(|pid| Life::of(pid, &facts.id));
        looks -= 1;
        // After that it is taken for one that can't be seen from here.
        if facts.state != ContainerState::Running || life.is_some() || looks == 0 {
            return Ok(Some((facts, life)));
        }
        pause(LOOK).await;
    }
}

fn is_it(shared: &Shared, order: &StartOrder, facts: &ContainerFacts) -> bool {
    let label = |key: &str| facts.labels.get(key).map(String::as_str);
    label(LABEL_INSTANCE) == Some(shared.options.instance.as_str())
        && label(LABEL_MODULE) == Some(order.id.as_str())
        && label(LABEL_RUN) == Some(order.inc.to_string().as_str())
}

/// The image that it was made of; it may be gone since.
async fn image(shared: &Shared, facts: &ContainerFacts) -> Arc<ImageFacts> {
    let found = within(
        QUICK,
        "look for the image",
        shared.engine.find_image(&facts.image_id),
    );
    let gone = || ImageFacts {
        id: facts.image_id.clone(),
        ..ImageFacts::default()
    };
    Arc::new(found.await.ok().flatten().unwrap_or_else(gone))
}

/// Ends everything that was not claimed; says what that is.
pub(super) fn disown(shared: &Arc<Shared>) -> Vec<String> {
    let unclaimed = std::mem::take(&mut *shared.left.all());
    let mut names = Vec::new();
    for ((id, inc), listed) in unclaimed {
        names.push(format!("{id} run {inc} (container {})", listed.name));
        let_end(shared, listed);
    }
    names
}

/// Removes one whose end is known; should it run all the same, it is stopped.
pub(super) fn forget(shared: &Arc<Shared>, id: &ChildId, inc: u64) {
    let over = shared.left.all().remove(&(id.clone(), inc));
    if let Some(listed) = over {
        let_end(shared, listed);
    }
}

fn let_end(shared: &Arc<Shared>, listed: Listed) {
    shared.adopted().insert(listed.id.clone());
    shared.ending().insert(listed.id.clone());
    tokio::spawn(end(shared.clone(), listed));
}

/// Asks, waits, removes.
async fn end(shared: Arc<Shared>, listed: Listed) {
    let engine = &shared.engine;
    if listed.state != ContainerState::Exited {
        let facts = within(QUICK, "inspect it", engine.inspect(&listed.id)).await;
        let image = match facts {
            Ok(Some(facts)) => image(&shared, &facts).await,
            _ => Arc::default(),
        };
        let signal = image.stop_signal.as_deref().and_then(signal_of);
        let _ = engine
            .signal(&listed.id, signal.unwrap_or(libc::SIGTERM))
            .await;
        let _ = tokio::time::timeout(GRACE, engine.wait(&listed.id)).await;
    }
    sweep::remove(&shared, listed.id.clone());
    shared.ending().remove(&listed.id);
}

/// As images write it: `SIGQUIT`, `QUIT`, `3`.
fn signal_of(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse() {
        return Some(number);
    }
    Some(match word.strip_prefix("SIG").unwrap_or(word) {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "WINCH" => libc::SIGWINCH,
        "KILL" => libc::SIGKILL,
        _ => return None,
    })
}
