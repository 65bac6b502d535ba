//! Writing dossiers down, reading them back, and letting go of old ones.
//!
//! Owns: one thread of low priority, started for the first run that ends. Promises: the root only hands over; a queue
//! that is full costs a dossier and is counted, never a wait. Never: follows a link, or removes what is no dossier.

use super::{Composer, Dossier, LINES};
use crate::clock::Clock;
use crate::events::EventLog;
use crate::facts::{GpuDesk, Sampler};
use crate::files::{Folder, check_module_name};
use crate::footprint::Footprints;
use crate::view::View;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Runs that wait for their dossier.
const QUEUE: usize = 4096;
/// So long without another run's end, and dossiers are written.
const LET_PASS: Duration = Duration::from_millis(100);
/// However many end, they are held up for no longer.
const HELD_UP: Duration = Duration::from_secs(1);
/// A longer file is no dossier of ours.
const LONGEST: u64 = 4 << 20;

/// Where things are.
#[derive(Clone)]
pub struct ArchiveOptions {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What trees use.
    pub sampler: Arc<Sampler>,
    /// What is on the GPUs.
    pub gpus: Arc<GpuDesk>,
    /// The kept notices.
    pub events: Arc<EventLog>,
    /// What modules usually take.
    pub footprints: Arc<Footprints>,
    /// Folder of all log folders.
    pub log_dir: PathBuf,
    /// Folder of a user's packs of known causes.
    pub rules: PathBuf,
}

/// A run that has ended, or failed to start.
pub struct Ended {
    /// Its number.
    pub run: u64,
    /// The module when the end was reported.
    pub before: Arc<View>,
    /// The module after the decision on it.
    pub after: Option<Arc<View>>,
    /// From its start's begin until it first served; `None`: it did not, or nobody saw it.
    pub ready: Option<Duration>,
}

enum Task {
    Write(Box<Ended>),
    Finish(Sender<()>),
}

/// Writes dossiers.
pub struct Archive {
    options: ArchiveOptions,
    tasks: Mutex<Option<SyncSender<Task>>>,
    lost: Arc<AtomicU64>,
}

impl ArchiveOptions {
    /// What puts dossiers together.
    #[must_use]
    pub fn composer(&self) -> Composer<'_> {
        Composer {
            clock: &*self.clock,
            sampler: &self.sampler,
            gpus: &self.gpus,
            events: &self.events,
            footprints: &self.footprints,
            log_dir: &self.log_dir,
            rules: &self.rules,
            lines: LINES,
        }
    }
}

impl Archive {
    /// An archive; starts no thread yet.
    #[must_use]
    pub fn new(options: ArchiveOptions) -> Arc<Self> {
        Arc::new(Archive {
            options,
            tasks: Mutex::new(None),
            lost: Arc::default(),
        })
    }

    /// Where it finds things.
    #[must_use]
    pub fn options(&self) -> &ArchiveOptions {
        &self.options
    }

    /// Dossiers that were not written: the disk refused, or too many runs ended at once.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes a run's dossier, soon.
    pub fn keep(&self, ended: Ended) {
        if !self.hand(Task::Write(Box::new(ended))) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was handed over is written, or the time is up.
    pub fn finish(&self, within: Duration) {
        let (tell, told) = channel();
        let started = self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if started && self.hand(Task::Finish(tell)) {
            let _ = told.recv_timeout(within);
        }
    }

    fn hand(&self, task: Task) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_none() {
            *tasks = self.spawn().ok();
        }
        match tasks.as_ref().map(|t| t.try_send(task)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Disconnected(_))) => {
                *tasks = None;
                false
            }
            Some(Err(TrySendError::Full(_))) | None => false,
        }
    }

    fn spawn(&self) -> io::Result<SyncSender<Task>> {
        let (tasks, todo) = sync_channel(QUEUE);
        let (options, lost) = (self.options.clone(), self.lost.clone());
        std::thread::Builder::new()
            .name("lair-dossiers".into())
            .stack_size(512 << 10)
            .spawn(move || work(&options, &lost, &todo))?;
        Ok(tasks)
    }
}

fn work(options: &ArchiveOptions, lost: &AtomicU64, todo: &Receiver<Task>) {
    // Best effort: a refused priority only costs politeness.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut held = VecDeque::new();
    while let Some(task) = next(&*options.clock, todo, &mut held) {
        match task {
            Task::Finish(tell) => drop(tell.send(())),
            Task::Write(ended) => {
                let (run, name) = (ended.run, ended.before.plan.spec.id.clone());
                let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    write(options, &ended)
                }));
                // Its samples are in the dossier by now, and are let go of.
                let learned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    learn(options, &ended);
                }));
                if learned.is_err() {
                    tracing::error!(module = %name, run, "learning what it took panicked");
                }
                match written {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => {
                        lost.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(module = %name, run, "its dossier was not written: {e}");
                    }
                    Err(_) => {
                        lost.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(module = %name, run, "putting its dossier together panicked");
                    }
                }
            }
        }
    }
}

/// The next thing to do. After a rest, the first end is let alone for a moment: a restart, or the rest of a drain, needs
/// the processors more. Whoever waits ends that moment.
fn next(clock: &dyn Clock, todo: &Receiver<Task>, held: &mut VecDeque<Task>) -> Option<Task> {
    if let Some(task) = held.pop_front().or_else(|| todo.try_recv().ok()) {
        return Some(task);
    }
    held.push_back(todo.recv().ok()?);
    let until = clock.now() + HELD_UP;
    while !matches!(held.back(), Some(Task::Finish(_))) && held.len() < QUEUE {
        match todo.recv_timeout(until.since(clock.now()).min(LET_PASS)) {
            Ok(task) => held.push_back(task),
            Err(_) => break,
        }
    }
    held.pop_front()
}

fn write(options: &ArchiveOptions, ended: &Ended) -> io::Result<()> {
    let after = ended.after.as_deref().filter(|v| v.child.inc == ended.run);
    let footprints = &options.footprints;
    footprints.note(&ended.before, ended.run, ended.ready);
    let dossier = options.composer().compose(ended.run, &ended.before, after);
    let name = ended.before.plan.spec.id.as_str();
    let text = serde_json::to_vec(&dossier)?;
    let folder = Folder::open_or_create(&options.log_dir, name).map_err(io::Error::other)?;
    put(&folder, ended.run, &text)?;
    let kept = usize::try_from(ended.before.plan.logs.max_files).unwrap_or(usize::MAX);
    tidy(&folder, kept)
}

fn learn(options: &ArchiveOptions, ended: &Ended) {
    let (id, run) = (&ended.before.plan.spec.id, ended.run);
    if let Err(e) = options.footprints.learn(&ended.before, run) {
        tracing::warn!(module = %id, run, "what it took was not written down: {e}");
    }
}

fn put(folder: &Folder, run: u64, text: &[u8]) -> io::Result<()> {
    let name = file_name(run);
    let tmp = format!(".{name}.tmp");
    let _ = folder.unlink(&tmp);
    let mut file = std::fs::File::from(folder.create(&tmp)?);
    let done = file
        .write_all(text)
        .and_then(|()| Ok(folder.rename(&tmp, &name)?));
    if done.is_err() {
        let _ = folder.unlink(&tmp);
    }
    done
}

/// A dossier is kept as long as its run's log, or while it is one of the newest: a run that never came up has no log.
fn tidy(folder: &Folder, most: usize) -> io::Result<()> {
    let dossiers = folder.dossiers()?;
    if dossiers.len() <= most.max(1) {
        return Ok(());
    }
    let logged: BTreeSet<u64> = folder.segments()?.into_iter().map(|s| s.run).collect();
    let old = dossiers.iter().rev().skip(most.max(1));
    for run in old.filter(|run| !logged.contains(run)) {
        folder.unlink(&file_name(*run))?;
    }
    Ok(())
}

fn file_name(run: u64) -> String {
    format!("{run}{}", crate::files::DOSSIER)
}

/// The runs of a module that have a dossier, oldest first.
///
/// # Errors
/// The folder is there and can't be read.
pub fn kept_runs(log_dir: &Path, module: &str) -> io::Result<Vec<u64>> {
    check_module_name(module).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    match Folder::open(log_dir, module) {
        Ok(folder) => folder.dossiers(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// A run's dossier; `None` if there is none.
///
/// # Errors
/// It is there and can't be read, or is none.
pub fn read(log_dir: &Path, module: &str, run: u64) -> io::Result<Option<Dossier>> {
    check_module_name(module).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let folder = match Folder::open(log_dir, module) {
        Ok(folder) => folder,
        Err(e) if missing(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let file = match folder.read(&file_name(run)) {
        Ok(file) => file,
        Err(e) if missing(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}
