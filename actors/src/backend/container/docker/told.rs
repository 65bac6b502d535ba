//! What Docker tells, as lair's own values. A field that is missing is unknown.

use crate::backend::container::engine::{
    Applied, ContainerFacts, ContainerState, EngineHealth, EngineInfo, ImageFacts, Listed,
    Progress, Publish, Stats, image_check,
};
use crate::backend::container::fault::{EngineFault, EngineFaultKind, one_line};
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerState as State, ContainerStateStatusEnum as Status,
    ContainerStatsResponse, ContainerSummary, ContainerSummaryStateEnum, HealthStatusEnum,
    HostConfig, ImageInspect, PortMap, SystemInfo, SystemInfoCgroupVersionEnum,
};
use serde::Deserialize;
use std::error::Error as _;
use std::io;
use std::time::Duration;

/// A failed question. `otherwise` is what a refusal is whose words nobody knows.
pub(super) fn fault(e: &Error, otherwise: EngineFaultKind) -> EngineFault {
    match e {
        Error::DockerResponseServerError {
            status_code,
            message,
        } if message.trim().is_empty() => EngineFault::new(
            otherwise,
            &format!("it answered {status_code} without a word"),
        ),
        Error::DockerResponseServerError { message, .. } => {
            EngineFault::of_words(message, otherwise)
        }
        Error::IOError { err } => {
            let inner = err.get_ref().and_then(|e| e.downcast_ref::<EngineFault>());
            inner
                .cloned()
                .unwrap_or_else(|| EngineFault::of_io("reach the engine", err))
        }
        Error::HyperResponseError { err } => broken(err),
        Error::RequestTimeoutError => {
            EngineFault::new(EngineFaultKind::TimedOut, "it did not answer")
        }
        other => {
            let what = format!("its answer is not what was asked for: {other}");
            EngineFault::new(EngineFaultKind::Nonsense, &what)
        }
    }
}

/// What hyper says of a connection: cut, no HTTP, or without end.
fn broken(e: &hyper::Error) -> EngineFault {
    let mut cause = e.source();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<io::Error>().map(io::Error::kind);
        if io == Some(io::ErrorKind::FileTooLarge) {
            let most = super::transport::MAX_ANSWER;
            let what = format!("its answer is longer than {most} bytes");
            return EngineFault::new(EngineFaultKind::Nonsense, &what);
        }
        cause = inner.source();
    }
    if e.is_parse() {
        let what = format!("it does not speak HTTP: {e}");
        return EngineFault::new(EngineFaultKind::Nonsense, &what);
    }
    let what = format!("the connection to it broke: {e}");
    EngineFault::new(EngineFaultKind::Unreachable, &what)
}

pub(super) fn info(info: SystemInfo) -> EngineInfo {
    let options = info.security_options.unwrap_or_default();
    let init = info.init_commit.and_then(|c| c.id).unwrap_or_default();
    EngineInfo {
        version: info.server_version.unwrap_or_default(),
        rootless: options.iter().any(|o| o.contains("rootless")),
        cgroup_version: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_1) => Some(1),
            Some(SystemInfoCgroupVersionEnum::_2) => Some(2),
            _ => None,
        },
        cdi: info.cdi_spec_dirs.is_some_and(|dirs| !dirs.is_empty()),
        init: !init.is_empty() && init != "N/A",
        runs_health_checks: true,
    }
}

pub(super) fn image(image: ImageInspect) -> ImageFacts {
    let config = image.config.unwrap_or_default();
    let nanos = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let check = config.healthcheck.and_then(|c| {
        let times = [nanos(c.interval), nanos(c.timeout), nanos(c.start_period)];
        let retries = c.retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        image_check(&c.test.unwrap_or_default(), times, retries)
    });
    let digest = image.repo_digests.and_then(|all| all.into_iter().next());
    let port = |port: &String| port.strip_suffix("/tcp").unwrap_or(port).parse().ok();
    ImageFacts {
        id: image.id.unwrap_or_default(),
        digest: digest.and_then(|d| d.split_once('@').map(|(_, digest)| digest.to_owned())),
        user: config.user.unwrap_or_default(),
        healthcheck: check,
        stop_signal: config.stop_signal.filter(|s| !s.is_empty()),
        exposed: config
            .exposed_ports
            .unwrap_or_default()
            .iter()
            .filter_map(port)
            .collect(),
    }
}

pub(super) fn container(all: ContainerInspectResponse) -> Result<ContainerFacts, EngineFault> {
    let (Some(id), Some(told)) = (all.id, all.state) else {
        let what = "it told of a container without id or state";
        return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
    };
    let state = match told.status {
        Some(Status::CREATED) => ContainerState::Created,
        Some(Status::RUNNING) => ContainerState::Running,
        Some(Status::PAUSED) => ContainerState::Paused,
        Some(Status::EXITED | Status::DEAD) => ContainerState::Exited,
        _ => ContainerState::Between,
    };
    let config = all.config.unwrap_or_default();
    let live = all.network_settings.and_then(|n| n.ports);
    Ok(ContainerFacts {
        id,
        name: bare(&all.name.unwrap_or_default()),
        state,
        exit_code: told.exit_code.filter(|_| state == ContainerState::Exited),
        pid: told
            .pid
            .and_then(|pid| i32::try_from(pid).ok())
            .filter(|pid| *pid > 0),
        oom_killed: told.oom_killed.unwrap_or(false),
        error: error(&told),
        health: health(&told),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        image_id: all.image.unwrap_or_default(),
        applied: applied(all.host_config.unwrap_or_default(), config.user, live),
    })
}

fn bare(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn error(state: &State) -> Option<String> {
    let words = state.error.as_deref().unwrap_or_default();
    (!words.trim().is_empty()).then(|| one_line(words))
}

fn health(state: &State) -> Option<EngineHealth> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::STARTING => Some(EngineHealth::Starting),
        HealthStatusEnum::HEALTHY => Some(EngineHealth::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(EngineHealth::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

/// Docker tells the wish for most of it, for it has no other word; the ports of a running container are the real ones.
fn applied(host: HostConfig, user: Option<String>, live: Option<PortMap>) -> Applied {
    let positive = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let options = host.security_opt.unwrap_or_default();
    let secure = options
        .iter()
        .any(|o| o.starts_with("no-new-privileges") && !o.ends_with("false"));
    let wished = host.port_bindings.unwrap_or_default();
    let live = live.filter(|ports| ports.values().any(Option::is_some));
    Applied {
        user: Some(user.unwrap_or_default()),
        capabilities: capabilities(host.cap_drop, host.cap_add),
        no_new_privileges: Some(secure),
        read_only: Some(host.readonly_rootfs.unwrap_or(false)),
        privileged: Some(host.privileged.unwrap_or(false)),
        pids: positive(host.pids_limit),
        memory: positive(host.memory),
        cpu_milli: positive(host.nano_cpus).map(|n| n / 1_000_000),
        network: host.network_mode,
        ports: Some(ports(live.unwrap_or(wished))),
        restart: host
            .restart_policy
            .and_then(|p| p.name)
            .map(|name| name.to_string()),
        cgroup: None,
    }
}

/// What is left of them is known where all were dropped first.
fn capabilities(drop: Option<Vec<String>>, add: Option<Vec<String>>) -> Option<Vec<String>> {
    let all = |c: &String| c.eq_ignore_ascii_case("all");
    if !drop.unwrap_or_default().iter().any(all) {
        return None;
    }
    let add = add.unwrap_or_default();
    if add.iter().any(all) {
        return None;
    }
    let named = |c: String| match c.to_ascii_uppercase() {
        c if c.starts_with("CAP_") => c,
        c => format!("CAP_{c}"),
    };
    let mut left: Vec<String> = add.into_iter().map(named).collect();
    left.sort();
    Some(left)
}

fn ports(map: PortMap) -> Vec<Publish> {
    let mut ports = Vec::new();
    for (inside, bound) in map {
        let port = inside.strip_suffix("/tcp").and_then(|p| p.parse().ok());
        for binding in bound.unwrap_or_default() {
            let host_port = binding.host_port.and_then(|p| p.parse().ok());
            if let (Some(port), Some(host_port)) = (port, host_port) {
                ports.push(Publish {
                    host_ip: binding.host_ip.unwrap_or_default(),
                    host_port,
                    port,
                });
            }
        }
    }
    ports.sort();
    ports
}

pub(super) fn listed(line: ContainerSummary) -> Option<Listed> {
    use ContainerSummaryStateEnum as S;
    let names = line.names.unwrap_or_default();
    Some(Listed {
        id: line.id?,
        name: names.first().map(|n| bare(n)).unwrap_or_default(),
        labels: line.labels.unwrap_or_default().into_iter().collect(),
        state: match line.state {
            Some(S::CREATED) => ContainerState::Created,
            Some(S::RUNNING) => ContainerState::Running,
            Some(S::PAUSED) => ContainerState::Paused,
            Some(S::EXITED | S::DEAD) => ContainerState::Exited,
            _ => ContainerState::Between,
        },
    })
}

/// One sample. Memory is without the page cache that the kernel takes back when it needs it.
pub(super) fn stats(s: ContainerStatsResponse) -> Stats {
    let cpu = s.cpu_stats.and_then(|c| c.cpu_usage);
    let memory = s.memory_stats.unwrap_or_default();
    let kinds = memory.stats.unwrap_or_default();
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .find_map(|kind| kinds.get(*kind))
        .copied()
        .unwrap_or(0);
    let disks = s.blkio_stats.and_then(|b| b.io_service_bytes_recursive);
    let moved = |what: &str| {
        let entries = disks.iter().flatten();
        let of = entries.filter(|e| {
            e.op.as_deref()
                .is_some_and(|op| op.eq_ignore_ascii_case(what))
        });
        of.filter_map(|e| e.value).sum()
    };
    Stats {
        cpu: Duration::from_nanos(cpu.and_then(|c| c.total_usage).unwrap_or(0)),
        memory: memory.usage.unwrap_or(0).saturating_sub(cache),
        pids: s.pids_stats.and_then(|p| p.current).unwrap_or(0),
        read: moved("read"),
        written: moved("write"),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pulled {
    id: String,
    status: String,
    error: String,
}

/// One line of a pull.
pub(super) fn pulled(line: &[u8], progress: &Progress) -> Result<(), EngineFault> {
    let said: Pulled = serde_json::from_slice(line).map_err(|e| {
        let what = format!("its progress can't be read: {e}");
        EngineFault::new(EngineFaultKind::Nonsense, &what)
    })?;
    if !said.error.is_empty() {
        return Err(EngineFault::new(EngineFaultKind::PullFailed, &said.error));
    }
    let words = format!("{} {}", said.status, said.id);
    if !words.trim().is_empty() {
        progress(&one_line(words.trim()));
    }
    Ok(())
}
