//! What libpod tells, as lair's own values. A field of a wrong type is a fault; one that is missing is unknown.
//!
//! The parts that lair takes whole are `podman-api`'s models. Around them, and for a container, stand structs of its own that know
//! what is used and no more: a field that nobody needs must not break a module.

use crate::backend::ImageCheck;
use crate::backend::container::engine::{
    Applied, ContainerFacts, ContainerState, EngineHealth, EngineInfo, ImageFacts, Listed,
    Progress, Publish, Stats, image_check,
};
use crate::backend::container::fault::{EngineFault, EngineFaultKind, one_line};
use crate::backend::container::http::Reply;
use podman_api::models::{
    ContainerStats, IdResponse, ImageConfig, LibpodImagesPullReport, PortMap, Schema2HealthConfig,
    SecurityInfo, Version,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The id of what was made.
pub(super) fn created(reply: &Reply) -> Result<String, EngineFault> {
    let made: IdResponse = reply.json()?;
    if made.id.is_empty() {
        let what = "it made something without an id";
        return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
    }
    Ok(made.id)
}

#[derive(Deserialize)]
struct Info {
    host: Host,
    version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    #[serde(default)]
    cgroup_version: String,
    #[serde(default)]
    cgroup_manager: String,
    #[serde(default)]
    security: Option<SecurityInfo>,
}

pub(super) fn info(reply: &Reply) -> Result<EngineInfo, EngineFault> {
    let Info { host, version } = reply.json()?;
    let Some(version) = version.version else {
        let what = "it does not say which version it is";
        return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
    };
    Ok(EngineInfo {
        version,
        rootless: host.security.and_then(|s| s.rootless).unwrap_or(false),
        cgroup_version: host.cgroup_version.trim_start_matches('v').parse().ok(),
        cdi: true,
        init: true,
        runs_health_checks: host.cgroup_manager == "systemd",
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    config: Option<ImageConfig>,
    #[serde(default)]
    healthcheck: Option<Schema2HealthConfig>,
}

pub(super) fn image(reply: &Reply) -> Result<ImageFacts, EngineFault> {
    let image: Image = reply.json()?;
    let config = image.config;
    let stop_signal = config.as_ref().and_then(|c| c.stop_signal.clone());
    let ports = config.and_then(|c| c.exposed_ports).unwrap_or_default();
    Ok(ImageFacts {
        id: image.id,
        digest: Some(image.digest).filter(|d| !d.is_empty()),
        user: image.user,
        healthcheck: image.healthcheck.and_then(check),
        stop_signal: stop_signal.filter(|s| !s.is_empty()),
        exposed: ports
            .keys()
            .filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
            .collect(),
    })
}

fn check(told: Schema2HealthConfig) -> Option<ImageCheck> {
    let nanos = |time: Option<i64>| u64::try_from(time.unwrap_or(0)).unwrap_or(0);
    let times = [told.interval, told.timeout, told.start_period].map(nanos);
    let retries = u32::try_from(told.retries.unwrap_or(0)).unwrap_or(0);
    image_check(&told.test?, times, retries)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspect {
    id: String,
    name: String,
    state: State,
    #[serde(default)]
    image: String,
    #[serde(default)]
    effective_caps: Option<Vec<String>>,
    config: Config,
    host_config: HostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    exit_code: i64,
    #[serde(default, rename = "OOMKilled")]
    oom_killed: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    health: Option<Health>,
    #[serde(default)]
    cgroup_path: String,
}

#[derive(Deserialize)]
struct Health {
    #[serde(default, rename = "Status")]
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    user: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
    #[serde(default)]
    port_bindings: Option<PortMap>,
    #[serde(default)]
    restart_policy: Option<Restart>,
    #[serde(default)]
    privileged: bool,
    #[serde(default)]
    readonly_rootfs: bool,
    #[serde(default)]
    security_opt: Option<Vec<String>>,
    #[serde(default)]
    memory: u64,
    #[serde(default)]
    cpu_period: u64,
    #[serde(default)]
    cpu_quota: i64,
    #[serde(default)]
    pids_limit: i64,
}

#[derive(Deserialize)]
struct Restart {
    #[serde(default, rename = "Name")]
    name: String,
}

pub(super) fn container(reply: &Reply) -> Result<ContainerFacts, EngineFault> {
    let all: Inspect = reply.json()?;
    let state = match all.state.status.as_str() {
        "created" | "configured" | "initialized" => ContainerState::Created,
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "exited" => ContainerState::Exited,
        // `stopped` has ended, but is not tidied up yet, and its code not always written.
        _ => ContainerState::Between,
    };
    Ok(ContainerFacts {
        id: all.id,
        name: all.name.trim_start_matches('/').to_owned(),
        state,
        exit_code: (state == ContainerState::Exited).then_some(all.state.exit_code),
        pid: Some(all.state.pid).filter(|pid| *pid > 0),
        oom_killed: all.state.oom_killed,
        error: Some(one_line(&all.state.error)).filter(|_| !all.state.error.trim().is_empty()),
        health: match all.state.health.as_ref().map_or("", |h| h.status.as_str()) {
            "healthy" => Some(EngineHealth::Healthy),
            "unhealthy" => Some(EngineHealth::Unhealthy),
            "starting" => Some(EngineHealth::Starting),
            _ => None,
        },
        labels: all.config.labels.unwrap_or_default(),
        image_id: all.image,
        applied: applied(
            all.host_config,
            all.config.user,
            all.effective_caps,
            all.state.cgroup_path,
        ),
    })
}

fn applied(host: HostConfig, user: String, caps: Option<Vec<String>>, cgroup: String) -> Applied {
    let mut capabilities = caps.unwrap_or_default();
    capabilities.sort();
    let options = host.security_opt.unwrap_or_default();
    let period = host.cpu_period.max(1);
    Applied {
        user: Some(user),
        capabilities: Some(capabilities),
        no_new_privileges: Some(options.iter().any(|o| o.starts_with("no-new-privileges"))),
        read_only: Some(host.readonly_rootfs),
        privileged: Some(host.privileged),
        pids: u64::try_from(host.pids_limit).ok().filter(|n| *n > 0),
        memory: Some(host.memory).filter(|n| *n > 0),
        cpu_milli: u64::try_from(host.cpu_quota)
            .ok()
            .filter(|q| *q > 0)
            .map(|quota| quota * 1000 / period),
        network: Some(host.network_mode),
        ports: Some(ports(host.port_bindings.unwrap_or_default())),
        restart: host.restart_policy.map(|r| r.name),
        cgroup: Some(cgroup).filter(|c| !c.is_empty()),
    }
}

fn ports(bindings: PortMap) -> Vec<Publish> {
    let mut ports = Vec::new();
    for (inside, bound) in bindings {
        let port = inside.split('/').next().and_then(|p| p.parse().ok());
        for binding in bound.unwrap_or_default() {
            let host_port = binding.host_port.and_then(|p| p.parse().ok());
            if let (Some(port), Some(host_port)) = (port, host_port) {
                let host_ip = binding.host_ip.unwrap_or_default();
                ports.push(Publish {
                    host_ip,
                    host_port,
                    port,
                });
            }
        }
    }
    ports.sort();
    ports
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
}

pub(super) fn list(reply: &Reply) -> Result<Vec<Listed>, EngineFault> {
    let lines: Option<Vec<Line>> = reply.json()?;
    let listed = |line: Line| Listed {
        id: line.id,
        name: line
            .names
            .and_then(|n| n.into_iter().next())
            .unwrap_or_default(),
        labels: line.labels.unwrap_or_default(),
        state: match line.state.as_str() {
            "created" | "configured" | "initialized" => ContainerState::Created,
            "running" => ContainerState::Running,
            "paused" => ContainerState::Paused,
            "exited" => ContainerState::Exited,
            _ => ContainerState::Between,
        },
    };
    Ok(lines.unwrap_or_default().into_iter().map(listed).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exec {
    exit_code: i64,
}

/// How a command inside has ended.
pub(super) fn exec_code(reply: &Reply) -> Result<i64, EngineFault> {
    reply.json::<Exec>().map(|e| e.exit_code)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AllStats {
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    stats: Option<Vec<ContainerStats>>,
}

pub(super) fn stats(reply: &Reply) -> Result<Stats, EngineFault> {
    let all: AllStats = reply.json()?;
    match all.stats.and_then(|s| s.into_iter().next()) {
        Some(one) => Ok(Stats {
            cpu: Duration::from_nanos(one.cpu_nano.unwrap_or(0)),
            memory: one.mem_usage.unwrap_or(0),
            pids: one.pi_ds.unwrap_or(0),
            read: one.block_input.unwrap_or(0),
            written: one.block_output.unwrap_or(0),
        }),
        None => {
            let why = all.error.map_or(String::new(), |e| e.to_string());
            Err(EngineFault::of_words(&why, EngineFaultKind::Refused))
        }
    }
}

/// One line of a pull.
pub(super) fn pulled(line: &[u8], progress: &Progress) -> Result<(), EngineFault> {
    let said: LibpodImagesPullReport = serde_json::from_slice(line).map_err(|e| {
        let what = format!("its progress can't be read: {e}");
        EngineFault::new(EngineFaultKind::Nonsense, &what)
    })?;
    if let Some(error) = said.error.filter(|e| !e.is_empty()) {
        return Err(EngineFault::new(EngineFaultKind::PullFailed, &error));
    }
    if let Some(stream) = said.stream.filter(|s| !s.trim().is_empty()) {
        progress(&one_line(&stream));
    }
    Ok(())
}
