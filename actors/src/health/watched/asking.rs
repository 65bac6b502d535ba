//! Questions that lair puts: when, and what their answers do.

use super::{KINDS, Watched};
use crate::health::actor::Context;
use crate::health::contain::contain;
use crate::health::progress::{self, Evidence, Progress, Work};
use crate::health::worker::{Armed, Flight, Running, is_told};
use crate::health::{Done, ProbeDone, What, schedule};
use crate::messages::HealthMsg;
use crate::probe::{self, Look, slack};
use lair_supervision::{ChildId, ProbeKind, ProbeOutcome, Uptime};
use std::future::Future;
use std::time::Duration;

/// How old a usage may be that is looked at for progress.
const FRESH: Duration = Duration::from_millis(500);

impl Watched {
    /// Arms what is due and not yet under way; ends what is not due any more.
    pub(super) fn arm(&mut self, context: &Context) {
        for kind in KINDS {
            let due = self.doomed.is_none() && self.state.due(kind);
            let Some(worker) = self.workers.get_mut(&kind) else {
                continue;
            };
            if !due {
                worker.rest();
            } else if worker.idle() {
                let first = self.since + worker.spec.initial_delay;
                if is_told(&worker.action) {
                    self.arm_watchdog(kind, None, context);
                } else {
                    self.ask_at(kind, first, context);
                }
            }
        }
        self.arm_progress(context);
        self.arm_last_breath(context);
    }

    /// A probe's time has come, or the watchdog's.
    pub(super) fn due(&mut self, kind: ProbeKind, serial: u64, due: Uptime, context: &Context) {
        let Some(worker) = self.workers.get_mut(&kind) else {
            return;
        };
        if worker.serial != serial || worker.flight.is_some() {
            return;
        }
        worker.timer = None;
        if is_told(&worker.action) {
            self.watchdog(kind, due, context);
        } else {
            self.ask(kind, due, context);
        }
    }

    fn ask_at(&mut self, kind: ProbeKind, at: Uptime, context: &Context) {
        if at <= context.now() {
            self.ask(kind, context.now(), context);
        } else {
            self.wake_at(kind, at, context);
        }
    }

    pub(super) fn wake_at(&mut self, kind: ProbeKind, at: Uptime, context: &Context) {
        let Some(worker) = self.workers.get_mut(&kind) else {
            return;
        };
        worker.serial += 1;
        let what = What::Due {
            kind,
            serial: worker.serial,
            due: at,
        };
        let fire = context.tick(&self.id, self.inc, what);
        worker.timer = Some(Armed::at(&context.args.clock, at, fire));
    }

    fn ask(&mut self, kind: ProbeKind, due: Uptime, context: &Context) {
        let Some(worker) = self.workers.get_mut(&kind) else {
            return;
        };
        worker.serial += 1;
        let serial = worker.serial;
        let action = worker.action.clone();
        let handle = self.handle.clone();
        let timeout = worker.spec.timeout;
        let work = async move {
            // A panic may also lie in making the future: that is inside as well.
            let look = contain(async move { probe::look(&action, handle, timeout).await }).await;
            let look = look.unwrap_or_else(|panic| {
                let said = format!("the prober panicked: {panic}");
                Look::told(ProbeOutcome::CouldNotRun, said)
            });
            Some(Done::Look { kind, serial, look })
        };
        let began = context.now();
        worker.flight = Some(Flight {
            began,
            late: began.since(due) > slack(worker.spec.interval),
            _task: mail(&self.id, self.inc, work, context),
        });
    }

    /// A probe has come back.
    pub(super) fn landed(&mut self, kind: ProbeKind, serial: u64, look: Look, context: &Context) {
        let Some(worker) = self.workers.get_mut(&kind) else {
            return;
        };
        if worker.serial != serial {
            return;
        }
        let Some(flight) = worker.flight.take() else {
            return;
        };
        let args = &context.args;
        let period = schedule::period(worker.spec.interval, args.seed, &self.id, kind, serial);
        let next = (flight.began + period).max(context.now() + Duration::from_millis(1));
        let failed = matches!(look.outcome, ProbeOutcome::Failure | ProbeOutcome::TimedOut);
        if failed && (flight.late || look.starved) {
            tracing::debug!(module = %self.id, ?kind, said = look.said, "discarded: lair was late");
        } else {
            self.count(kind, look, context);
        }
        if self.state.due(kind) {
            self.wake_at(kind, next, context);
        }
        self.settle(context);
    }

    fn arm_progress(&mut self, context: &Context) {
        let starting = self.doomed.is_none() && self.state.due(ProbeKind::Startup);
        let Some(stall) = self.stall.filter(|_| starting) else {
            self.progress = None;
            self.progress_timer = None;
            return;
        };
        if self.progress.is_none() {
            self.progress = Some(Progress::new(stall, context.now()));
            self.arm_progress_look(context);
        }
    }

    fn arm_progress_look(&mut self, context: &Context) {
        let due = context.now() + progress::LOOK;
        let fire = context.tick(&self.id, self.inc, What::Progress { due });
        self.progress_timer = Some(Armed::at(&context.args.clock, due, fire));
    }

    pub(super) fn look_at_progress(&mut self, due: Uptime, context: &Context) {
        if self.progress.is_none() {
            return;
        }
        let sampler = context.args.sampler.clone();
        let tree = self.handle.tree();
        let (id, inc) = (self.id.clone(), self.inc);
        let said = self.source.as_ref().map(|source| source.said());
        let log_bytes = context.args.logs.bytes(&self.id, self.inc);
        let work = async move {
            let read = move || Work::of(&sampler.fresh(&id, inc, &tree, FRESH).usage);
            let usage = tokio::task::spawn_blocking(read).await.ok().flatten();
            let evidence = Evidence {
                log_bytes,
                usage,
                extended: said.as_ref().and_then(|said| said.extended),
                patience: said.and_then(|said| said.patience),
            };
            Some(Done::Progress { due, evidence })
        };
        self.tasks.retain(|task| !task.0.is_finished());
        let task = mail(&self.id, self.inc, work, context);
        self.tasks.push(task);
    }

    pub(super) fn progressed(&mut self, due: Uptime, evidence: &Evidence, context: &Context) {
        let now = context.now();
        let Some(progress) = &mut self.progress else {
            return;
        };
        if now.since(due) > slack(progress::LOOK) {
            progress.restart(now);
        }
        match progress.look(evidence, now) {
            None => {
                self.arm_progress_look(context);
                self.publish(context);
            }
            Some(still) => {
                let still = still.as_secs();
                let why = format!(
                    "no progress for {still} s: no log output, CPU time, I/O or memory growth"
                );
                self.doom(why, context);
            }
        }
    }

    /// The ready descriptor was closed a moment ago. If the module ended with it, its exit is the news.
    pub(super) fn ask_if_gone(&mut self, context: &Context) {
        let exit = self.handle.exit();
        let work = async move {
            let gone = tokio::time::timeout(Duration::ZERO, exit).await.is_ok();
            (!gone).then_some(Done::Never)
        };
        let task = mail(&self.id, self.inc, work, context);
        self.tasks.push(task);
    }
}

/// Runs `work` on the side and mails what it found.
fn mail<F>(id: &ChildId, inc: u64, work: F, context: &Context) -> Running
where
    F: Future<Output = Option<Done>> + Send + 'static,
{
    let me = context.me.clone();
    let id = id.clone();
    let task = tokio::spawn(async move {
        if let Some(done) = work.await {
            let done = Box::new(ProbeDone { id, inc, done });
            // The actor may be gone: its next life asks again.
            let _ = me.cast(HealthMsg::ProbeDone(done));
        }
    });
    Running(task.abort_handle())
}
