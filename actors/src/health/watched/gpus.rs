//! Whether a module that requires GPUs is really on them.
//!
//! A module that was to compute on a GPU and silently computes elsewhere is the slow kind of broken. So the driver's list
//! of processes is looked at from the start on. When the start is over (its startup and readiness questions are answered,
//! or, without any, after [`ALONE`]) and none of its processes is on a GPU of its own, that counts like a failed
//! liveness probe: health is unhealthy, and with `on_failure: restart` it is restarted. Showing up later mends it.

use super::Watched;
use crate::clock::Clock;
use crate::facts::{GpuDesk, GpuFacts, Sampler};
use crate::health::actor::Context;
use crate::health::verdict::Draft;
use crate::health::worker::Running;
use crate::health::{Done, ProbeDone};
use crate::messages::{HealthMsg, HealthReport};
use crate::view::HealthWord;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ChildEvent, ChildId, OnLiveness, ProbeKind};
use std::sync::Arc;
use std::time::Duration;

/// Without a startup or readiness question, the start is over after this time.
const ALONE: Duration = Duration::from_secs(30);
/// Time between two looks, until it is found.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in vain after the start that are enough: one may have begun before its end.
const IN_VAIN: u32 = 2;

/// The stable beginning of the complaint.
const NOT_IN_USE: &str = "gpu-not-in-use";

/// What is known of its GPUs.
pub(super) struct Gpus {
    restart: bool,
    vain: u32,
    missing: Option<String>,
    _task: Running,
}

/// One look at the driver's list.
pub(in crate::health) enum Look {
    Found,
    /// None of its processes is there.
    Vain,
    /// The driver does not answer.
    Unknown,
}

impl Watched {
    /// Looks for it on its GPUs, if it requires them.
    pub(super) fn look_for_gpus(&mut self, plan: &LaunchPlan, context: &Context) {
        let gpu = plan.limits.gpu.as_ref().filter(|gpu| gpu.required);
        let (Some(gpu), Some(desk)) = (gpu, &context.args.gpus) else {
            return;
        };
        if gpu.uuids.is_empty() {
            return;
        }
        let looker = Looker {
            desk: desk.clone(),
            sampler: context.args.sampler.clone(),
            id: self.id.clone(),
            inc: self.inc,
            tree: self.handle.tree(),
            uuids: gpu.uuids.clone(),
        };
        let (clock, me) = (context.args.clock.clone(), context.me.clone());
        let (id, inc) = (self.id.clone(), self.inc);
        let looking = async move {
            let looker = Arc::new(looker);
            loop {
                let mine = looker.clone();
                let look = tokio::task::spawn_blocking(move || mine.look()).await;
                let look = look.unwrap_or(Look::Unknown);
                let found = matches!(look, Look::Found);
                let (id, done) = (id.clone(), Done::Gpus(look));
                let done = Box::new(ProbeDone { id, inc, done });
                if me.cast(HealthMsg::ProbeDone(done)).is_err() || found {
                    return;
                }
                pause(&*clock, LOOK).await;
            }
        };
        self.gpus = Some(Gpus {
            restart: plan.spec.on_liveness == OnLiveness::Restart,
            vain: 0,
            missing: None,
            _task: Running(tokio::spawn(looking).abort_handle()),
        });
    }

    pub(super) fn gpus_looked_at(&mut self, look: &Look, context: &Context) {
        let over = self.start_is_over(context);
        let Some(gpus) = &mut self.gpus else { return };
        match look {
            Look::Found => gpus.missing = None,
            Look::Vain if over => gpus.vain += 1,
            Look::Vain | Look::Unknown => return,
        }
        let news = gpus.vain == IN_VAIN && gpus.missing.is_none();
        if news && !matches!(look, Look::Found) {
            let why = "it requires a GPU, and none of its processes is on one that it was given";
            gpus.missing = Some(format!("{NOT_IN_USE}: {why}"));
        }
        let restart = gpus.restart && news;
        self.publish(context);
        if restart {
            let kind = ProbeKind::Liveness;
            let event = ChildEvent::LivenessFailed { kind };
            self.report(HealthReport::Event(event), context);
        }
    }

    /// The verdict, unless its probes say worse.
    pub(super) fn complain_of_gpus(&self, draft: &mut Draft) {
        let missing = self.gpus.as_ref().and_then(|gpus| gpus.missing.as_ref());
        if let Some(why) = missing.filter(|_| draft.word != HealthWord::Unhealthy) {
            *draft = Draft {
                word: HealthWord::Unhealthy,
                probe: None,
                reason: Some(why.clone()),
                topic: why.clone(),
            };
        }
    }

    fn start_is_over(&self, context: &Context) -> bool {
        let asks = [ProbeKind::Startup, ProbeKind::Readiness];
        if asks.iter().any(|kind| self.state.probe(*kind).is_some()) {
            return !self.is_starting();
        }
        context.now().since(self.since) >= ALONE
    }
}

struct Looker {
    desk: Arc<GpuDesk>,
    sampler: Arc<Sampler>,
    id: ChildId,
    inc: u64,
    tree: crate::backend::Tree,
    uuids: Vec<String>,
}

impl Looker {
    fn look(&self) -> Look {
        let facts = self.desk.read();
        let GpuFacts::Present(gpus) = &*facts else {
            return Look::Unknown;
        };
        let usage = self
            .sampler
            .fresh(&self.id, self.inc, &self.tree, Duration::ZERO)
            .usage;
        let given = gpus
            .iter()
            .filter(|gpu| gpu.uuid.as_ref().is_some_and(|u| self.uuids.contains(u)));
        let pids: Vec<i32> = given
            .flat_map(|gpu| &gpu.clients)
            .map(|client| client.pid)
            .filter(|pid| usage.pids.contains(pid))
            .collect();
        if pids.is_empty() {
            return Look::Vain;
        }
        self.desk.remember(pids, &self.id, self.inc);
        Look::Found
    }
}

/// Waits by the runtime's clock.
pub(crate) async fn pause(clock: &dyn Clock, time: Duration) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let at = clock.now() + time;
    clock.arm(
        at,
        Box::new(move || {
            let _ = tell.send(());
        }),
    );
    let _ = told.await;
}
