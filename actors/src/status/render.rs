//! From a published snapshot to the status object.

use super::words::{errno_name, policy_word, rfc3339};
use super::{Exit, Gpu, Health, Logs, ModuleStatus, Parked, Port, Reason, Resources, Restarts};
use crate::cgroup::HeldLimits;
use crate::clock::Clock;
use crate::facts::{GpuDesk, GpuFacts, Sampler};
use crate::footprint::Footprints;
use crate::view::View;
use lair_supervision::status::{self as core, Lifecycle, ReasonCode};
use lair_supervision::{ChildIdentity, Origin, StartStage, Uptime};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A usage younger than this is shown as it is.
const FRESH: Duration = Duration::from_secs(2);

/// What is needed besides the snapshot.
pub struct Renderer<'a> {
    /// For the wall clock of deadlines.
    pub clock: &'a dyn Clock,
    /// For what the tree uses.
    pub sampler: &'a Sampler,
    /// For what is on the GPUs.
    pub gpus: &'a Arc<GpuDesk>,
    /// What modules usually take.
    pub footprints: &'a Footprints,
    /// Folder of all log folders.
    pub log_dir: &'a Path,
}

impl Renderer<'_> {
    /// The status object of one module.
    #[must_use]
    pub fn status(&self, view: &View) -> ModuleStatus {
        let life = Lifecycle::of(&view.child);
        let identity = view.child.identity();
        ModuleStatus {
            name: view.plan.spec.id.to_string(),
            version: view.plan.version.clone(),
            run: life.run,
            mode: view.plan.mode.as_str().to_owned(),
            backend: view.backend.to_owned(),
            state: word(&life.state),
            reason: life.reason.as_ref().map(|r| reason(r, &life, view)),
            desired: life.desired,
            ready: life.ready,
            frozen: view.child.is_frozen(),
            parked: view.parked_ms.map(|ms| Parked { since: rfc3339(ms) }),
            health: health(view),
            pid: match identity {
                Some(ChildIdentity::Native { pid, .. }) => Some(*pid),
                Some(ChildIdentity::Container { init_pid, .. }) => *init_pid,
                _ => None,
            },
            container: match identity {
                Some(ChildIdentity::Container { engine_id, .. }) => Some(engine_id.clone()),
                _ => None,
            },
            started_at: view.started_ms.map(rfc3339),
            finished_at: view.finished_ms.map(rfc3339),
            exit: life.exit.as_ref().map(|e| self.exit(e, life.run)),
            restarts: Restarts {
                count: life.restarts,
                policy: policy_word(view.plan.spec.restart).to_owned(),
                next_at: life.next_at.map(|at| rfc3339(self.wall(at))),
            },
            resources: self.resources(view),
            footprint: self.footprints.usual(&view.plan),
            ports: view
                .plan
                .ports
                .iter()
                .map(|p| Port {
                    name: p.name.clone(),
                    port: p.port,
                    address: p.address.clone(),
                })
                .collect(),
            exposure: view.exposure.word().to_owned(),
            exposed: view.exposure.sockets().to_vec(),
            engine: particulars(view),
            confinement: view.handle.as_ref().and_then(|h| h.confinement()),
            logs: self.logs(view),
            next_start: view.next_start.iter().map(|p| (*p).to_owned()).collect(),
            group: view.group.clone(),
            origin: match &view.origin {
                Origin::Observed => "observed".to_owned(),
                Origin::Requested { peer } => format!("requested by {peer}"),
                Origin::Injected { label } => format!("injected: {label}"),
            },
        }
    }

    fn wall(&self, at: Uptime) -> u64 {
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        if at > now {
            wall.saturating_add(ms(at.since(now)))
        } else {
            wall.saturating_sub(ms(now.since(at)))
        }
    }

    fn exit(&self, exit: &core::Exit, run: u64) -> Exit {
        Exit {
            code: exit.code,
            signal: exit.signal,
            unknown: exit.unknown.then_some(true),
            oom: exit.oom,
            by_us: exit.by_us,
            killed_after_grace: exit.killed_after_grace,
            run,
            at: Some(rfc3339(self.wall(exit.at))),
        }
    }

    fn resources(&self, view: &View) -> Resources {
        let limits = &view.plan.limits;
        let mut resources = Resources::default();
        resources.memory.limit = limits.memory;
        resources.cpus.limit = limits.cpu_milli.map(cpus);
        resources.pids.limit = limits.pids;
        if let Some(handle) = &view.handle {
            let sampled =
                self.sampler
                    .fresh(&view.plan.spec.id, view.child.inc, &handle.tree(), FRESH);
            if !sampled.usage.pids.is_empty() {
                resources.memory.current = Some(sampled.usage.rss);
                resources.cpu_ms = Some(sampled.usage.cpu_ms);
                resources.processes = Some(sampled.usage.pids.len() as u64);
                resources.read_bytes = sampled.usage.read_bytes;
                resources.written_bytes = sampled.usage.write_bytes;
            }
            resources.gpu = self.on_gpus(view, Some(&sampled.usage.pids));
            hold(&mut resources, handle.limits());
        } else {
            resources.gpu = self.on_gpus(view, None);
        }
        resources
    }

    /// As the driver last told: a status waits for no driver.
    fn on_gpus(&self, view: &View, pids: Option<&Vec<i32>>) -> Vec<Gpu> {
        let Some(limit) = view
            .plan
            .limits
            .gpu
            .as_ref()
            .filter(|gpu| !gpu.uuids.is_empty())
        else {
            return Vec::new();
        };
        let facts = pids.and_then(|_| self.gpus.recent(FRESH));
        let known = match facts.as_deref() {
            Some(GpuFacts::Present(gpus)) => gpus.as_slice(),
            Some(GpuFacts::Unavailable(_)) | None => &[],
        };
        let one = |uuid: &String| {
            let card = known.iter().find(|gpu| gpu.uuid.as_ref() == Some(uuid));
            let mine: Option<Vec<_>> = card.zip(pids).map(|(card, pids)| {
                let clients = card.clients.iter();
                clients
                    .filter(|client| pids.contains(&client.pid))
                    .collect()
            });
            if let Some(mine) = &mine {
                let pids = mine.iter().map(|client| client.pid);
                self.gpus.remember(pids, &view.plan.spec.id, view.child.inc);
            }
            let memory = mine.as_ref().filter(|mine| !mine.is_empty());
            Gpu {
                uuid: uuid.clone(),
                vram: limit.vram,
                memory: memory.and_then(|mine| mine.iter().map(|client| client.memory).sum()),
                in_use: mine.map(|mine| !mine.is_empty()),
            }
        };
        limit.uuids.iter().map(one).collect()
    }

    fn logs(&self, view: &View) -> Logs {
        let current = view.log.as_ref().and_then(|l| l.current_path());
        Logs {
            dir: self
                .log_dir
                .join(view.plan.spec.id.as_str())
                .display()
                .to_string(),
            current: current.map(|p| p.display().to_string()),
            bytes: view.log.as_ref().map_or(0, |l| l.bytes()),
            dropped: view.log.as_ref().map_or(0, |l| l.dropped().bytes),
        }
    }
}

fn particulars(view: &View) -> BTreeMap<String, String> {
    let told = view.handle.iter().flat_map(|h| h.particulars());
    told.map(|(what, told)| (what.to_owned(), told)).collect()
}

/// Puts in what the kernel or the engine says of each limit.
fn hold(resources: &mut Resources, limits: HeldLimits) {
    if let Some(held) = limits.memory {
        let memory = &mut resources.memory;
        (memory.enforced, memory.by) = (held.enforced, Some(held.by));
        memory.current = held.current.or(memory.current);
        memory.peak = held.peak;
    }
    if let Some(held) = limits.cpu_milli {
        (resources.cpus.enforced, resources.cpus.by) = (held.enforced, Some(held.by));
    }
    if let Some(held) = limits.pids {
        let pids = &mut resources.pids;
        // Of a container there is one without being asked for.
        pids.limit = pids.limit.or(Some(held.asked));
        (pids.enforced, pids.by) = (held.enforced, Some(held.by));
        (pids.current, pids.peak) = (held.current, held.peak);
    }
}

/// Thousandths as people write them.
fn cpus(milli: u64) -> f64 {
    u32::try_from(milli).map_or(f64::INFINITY, f64::from) / 1000.0
}

fn health(view: &View) -> Health {
    let when = |ms: u64| (ms > 0).then(|| rfc3339(ms));
    Health {
        state: view.health.state,
        reason: view.health.reason.clone(),
        since: when(view.health.since_ms),
        probe: view.health.probe,
        checked: when(view.health.checked_ms.load(Ordering::Relaxed)),
    }
}

fn reason(reason: &core::Reason, life: &Lifecycle, view: &View) -> Reason {
    let exit = life.exit.as_ref();
    let mut evidence = exit.map(|e| e.leftover.clone()).unwrap_or_default();
    if reason.code == ReasonCode::ExposureViolated {
        let sockets = view.exposure.sockets();
        evidence.extend(sockets.iter().map(|s| format!("listened on {s}")));
    }
    let short = exit.is_some_and(|e| e.oom == Some(true));
    let mut message = reason.message.clone();
    if short && matches!(reason.code, ReasonCode::Crashed | ReasonCode::GaveUp) {
        message.push_str(&match view.plan.limits.memory {
            Some(limit) => format!(" (its limit is {})", bytes(limit)),
            None => " (the machine had none left)".to_owned(),
        });
    }
    Reason {
        code: word(&reason.code),
        message,
        stage: reason.stage.as_ref().map(word),
        errno: reason.errno.map(errno_name),
        evidence,
        next_step: Some(next_step(reason, short).to_owned()),
    }
}

/// Bytes in the largest unit that divides them: the words of the manifest.
fn bytes(n: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units
        .iter()
        .find(|(shift, _)| n > 0 && n.is_multiple_of(1 << shift));
    match fits {
        Some((shift, unit)) => format!("{}{unit}", n >> shift),
        None => format!("{n} bytes"),
    }
}

/// What a person would do now.
fn next_step(reason: &core::Reason, short_of_memory: bool) -> &'static str {
    match (reason.code, reason.stage) {
        (ReasonCode::Crashed | ReasonCode::GaveUp, _) if short_of_memory => {
            "give it a higher `runtime.resources.memory`, or less to hold: a smaller model, a shorter context"
        }
        (ReasonCode::StartFailed, Some(StartStage::Exec)) => {
            "check that the program named first in `runtime.native.command` exists and may be executed"
        }
        (ReasonCode::StartFailed, Some(StartStage::ChangeDir)) => "check `runtime.native.workdir`",
        (ReasonCode::StartFailed, Some(StartStage::DropPrivileges)) => {
            "check `runtime.native.user`, or run lair as root"
        }
        (ReasonCode::StartFailed, _) => {
            "see the message; `lair doctor` shows what the machine lacks"
        }
        (ReasonCode::StartTimedOut, _) => "look at the machine's load, then start it again",
        (ReasonCode::Crashed, _) => {
            "read its last words: `lair logs NAME --previous` or `lair logs NAME -n 50`"
        }
        (ReasonCode::Unhealthy, _) => "see the probe's evidence under health, and its log",
        (ReasonCode::NotReadyInTime, _) => {
            "see its log; give it more time with `runtime.health.startup.deadline`"
        }
        (ReasonCode::ExposureViolated, _) => {
            "bind it to 127.0.0.1, or declare the port in `runtime.ports` (`expose: lan` for other machines)"
        }
        (ReasonCode::GaveUp, _) => {
            "mend the cause of the last end, then `lair start NAME`: the budget is then fresh"
        }
        (ReasonCode::StopIncomplete, _) => {
            "end what is named in the evidence, or ask why it can't be ended"
        }
        (ReasonCode::GroupRestart, _) => "nothing: see the module that failed, under `group`",
        (ReasonCode::GroupGaveUp, _) => {
            "mend what `group` names, then `lair start` the modules of the group"
        }
        (ReasonCode::Internal, _) => {
            "this is a fault of lair: please report it with lair's own log"
        }
        (ReasonCode::KilledAfterGrace, _) => {
            "nothing is wrong; a longer `runtime.stop.grace` gives it more time"
        }
        (ReasonCode::OutOfSight, _) => "nothing: it is looked for again by itself",
    }
}

/// The snake_case word under which a value is serialised.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
