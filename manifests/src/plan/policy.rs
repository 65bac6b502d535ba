//! The policy half of a plan: what the core decides by, and the bounds.
//!
//! Owns: the mapping from the manifest's words to the core's. Promises: no default of its own; those are the
//! manifest's. Never: fails.

use crate::health::{Delay, Health, InARow, Interval, OnFailure, Timeout};
use crate::launch::{GpuLimit, Limits, LogFormat, LogPolicy, Port};
use crate::module::ModuleManifest;
use crate::resources::Enforce;
use crate::restart::RestartPolicy;
use crate::runtime::{Expose, OnExposure, Runtime};
use lair_supervision::{
    Backoff, ChildId, ChildSpec, Intensity, OnLiveness, ProbeSpec, Probes, RestartType,
    SuccessCodes,
};
use std::time::Duration;

pub(super) fn spec(module: &ModuleManifest, seed: u64) -> ChildSpec {
    let runtime = &module.runtime;
    let restart = &runtime.restart.0;
    let health = &runtime.health;
    let codes = runtime
        .success
        .codes
        .iter()
        .filter_map(|c| i32::try_from(c.get()).ok());
    ChildSpec {
        restart: match restart.policy {
            RestartPolicy::Never => RestartType::Temporary,
            RestartPolicy::OnFailure => RestartType::Transient,
            RestartPolicy::Always => RestartType::Permanent,
        },
        intensity: Intensity {
            max: restart.max.small(),
            within: restart.within.get(),
        },
        backoff: Backoff {
            first: restart.backoff.first.get(),
            factor: restart.backoff.factor.float(),
            cap: restart.backoff.cap.get(),
            jitter: restart.backoff.jitter.float(),
            seed: seed ^ name_seed(module.name.as_str()),
        },
        settle: restart.settle.get(),
        stop_signal: runtime.stop.signal.number(),
        grace: runtime.stop.grace.get(),
        ready_deadline: health
            .startup
            .as_ref()
            .and_then(|p| p.deadline)
            .map(|d| d.get()),
        success: SuccessCodes(codes.collect()),
        awaits_ready: health.ready.is_some()
            || health.startup.is_some()
            || health.readiness.is_some(),
        probes: probes(health),
        on_liveness: match health.liveness.as_ref().map(|p| p.on_failure) {
            Some(OnFailure::Restart) => OnLiveness::Restart,
            Some(OnFailure::Report) | None => OnLiveness::Report,
        },
        ..ChildSpec::new(ChildId::new(module.name.as_str()))
    }
}

/// FNV-1a: modules of one runtime don't wait in step, and the same seed gives the same gaps.
fn name_seed(name: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

fn thresholds(
    interval: Interval,
    timeout: Timeout,
    failures: u32,
    successes: InARow,
    delay: Delay,
) -> ProbeSpec {
    ProbeSpec {
        interval: interval.get(),
        timeout: timeout.get(),
        failures,
        successes: successes.small(),
        initial_delay: delay.get(),
    }
}

fn probes(health: &Health) -> Probes {
    let startup = health.startup.as_ref().map(|p| {
        let failures = p.failures.map_or(u32::MAX, InARow::small);
        thresholds(
            p.interval,
            p.timeout,
            failures,
            p.successes,
            p.initial_delay,
        )
    });
    let told = ProbeSpec {
        interval: Duration::from_millis(500),
        failures: u32::MAX,
        ..ProbeSpec::default()
    };
    let liveness = health.liveness.as_ref().map(|p| {
        thresholds(
            p.interval,
            p.timeout,
            p.failures.small(),
            p.successes,
            p.initial_delay,
        )
    });
    Probes {
        startup: startup.or_else(|| health.ready.map(|_| told)),
        readiness: health.readiness.as_ref().map(|p| {
            thresholds(
                p.interval,
                p.timeout,
                p.failures.small(),
                p.successes,
                p.initial_delay,
            )
        }),
        liveness: liveness.or_else(|| health.command.as_ref().map(|_| ProbeSpec::default())),
    }
}

pub(super) fn ports(runtime: &Runtime) -> Vec<Port> {
    let address = |expose| match expose {
        Expose::Local => "127.0.0.1".to_owned(),
        Expose::Lan => "0.0.0.0".to_owned(),
    };
    let ports = runtime.ports.iter().map(|(name, port)| Port {
        name: name.to_string(),
        port: u16::try_from(port.port.get()).unwrap_or(u16::MAX),
        address: address(port.expose),
    });
    ports.collect()
}

pub(super) fn logs(runtime: &Runtime) -> LogPolicy {
    let logs = &runtime.logs;
    LogPolicy {
        max_size: logs.max_size.get(),
        max_files: logs.max_files.small(),
        max_age: Some(logs.max_age.get()),
        compress: logs.compress,
        format: match logs.format {
            crate::runtime::LogFormat::Cri => LogFormat::Cri,
            crate::runtime::LogFormat::Raw => LogFormat::Raw,
        },
    }
}

pub(super) fn limits(runtime: &Runtime, gpus: &[String]) -> Limits {
    let resources = &runtime.resources;
    let memory = resources.memory.as_ref();
    Limits {
        memory: memory.map(|m| m.limit.get()),
        memory_required: memory.is_some_and(|m| m.enforce == Enforce::Required),
        cpu_milli: resources.cpus.map(|c| c.get()),
        pids: resources.pids.map(|p| p.get()),
        nofile: resources.nofile.map(|n| n.get()),
        gpu: resources.gpu.as_ref().map(|gpu| GpuLimit {
            uuids: gpus.to_vec(),
            vram: gpu.vram.map(|v| v.get()),
            required: gpu.required,
        }),
        sandbox: None,
        capabilities: 0,
        exposure_enforced: runtime.exposure == OnExposure::Enforce,
    }
}
