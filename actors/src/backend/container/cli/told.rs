//! What the commands print, as lair's own values. They are Docker's words with a few of Podman's own; a field that is missing, or of
//! another type than known, is unknown.

use crate::backend::ImageCheck;
use crate::backend::container::engine::{
    Applied, ContainerFacts, ContainerState, EngineHealth, EngineInfo, ImageFacts, Listed, Publish,
    image_check,
};
use crate::backend::container::fault::{EngineFault, EngineFaultKind, one_line};
use serde_json::Value;
use std::collections::BTreeMap;

/// The JSON in an answer.
pub(super) fn json(bytes: &[u8]) -> Result<Value, EngineFault> {
    serde_json::from_slice(bytes).map_err(|e| {
        let what = format!("its answer is not what was asked for: {e}");
        EngineFault::new(EngineFaultKind::Nonsense, &what)
    })
}

/// The one thing in a list of what was looked for.
pub(super) fn only(bytes: &[u8]) -> Result<Value, EngineFault> {
    match json(bytes)? {
        Value::Array(list) => Ok(list.into_iter().next().unwrap_or(Value::Null)),
        one => Ok(one),
    }
}

fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    value.pointer(path).unwrap_or(&Value::Null)
}

fn word(value: &Value, path: &str) -> Option<String> {
    at(value, path).as_str().map(str::to_owned)
}

fn number(value: &Value, path: &str) -> Option<u64> {
    at(value, path).as_u64().filter(|n| *n > 0)
}

fn words(value: &Value, path: &str) -> Option<Vec<String>> {
    let list = at(value, path).as_array()?;
    Some(
        list.iter()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect(),
    )
}

fn map(value: &Value, path: &str) -> BTreeMap<String, String> {
    let pairs = at(value, path).as_object().into_iter().flatten();
    pairs
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

/// Whether that is how Podman tells of itself.
pub(super) fn is_podman(answer: &[u8]) -> bool {
    json(answer).is_ok_and(|told| told.get("host").is_some())
}

pub(super) fn info(answer: &[u8]) -> Result<EngineInfo, EngineFault> {
    let told = json(answer)?;
    if let Some(errors) = words(&told, "/ServerErrors")
        && let Some(error) = errors.first()
    {
        return Err(super::program::fault(error, EngineFaultKind::Unreachable));
    }
    let options = words(&told, "/SecurityOptions").unwrap_or_default();
    let version = word(&told, "/ServerVersion").or_else(|| word(&told, "/version/Version"));
    let cgroup = word(&told, "/CgroupVersion").or_else(|| word(&told, "/host/cgroupVersion"));
    let init = word(&told, "/InitCommit/ID").unwrap_or_default();
    let podman = told.get("host").is_some();
    let Some(version) = version else {
        let what = "it does not say which version it is";
        return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
    };
    Ok(EngineInfo {
        version,
        rootless: at(&told, "/host/security/rootless")
            .as_bool()
            .unwrap_or(false)
            || options.iter().any(|o| o.contains("rootless")),
        cgroup_version: cgroup.and_then(|v| v.trim_start_matches('v').parse().ok()),
        cdi: podman || words(&told, "/CDISpecDirs").is_some_and(|dirs| !dirs.is_empty()),
        init: podman || (!init.is_empty() && init != "N/A"),
        runs_health_checks: !podman,
    })
}

pub(super) fn image(answer: &[u8]) -> Result<ImageFacts, EngineFault> {
    let told = only(answer)?;
    let Some(id) = word(&told, "/Id") else {
        let what = "it told of an image without an id";
        return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
    };
    let digests = words(&told, "/RepoDigests").unwrap_or_default();
    let digest = digests.first().and_then(|d| d.split_once('@'));
    let exposed = at(&told, "/Config/ExposedPorts").as_object();
    let port = |name: &String| name.strip_suffix("/tcp").unwrap_or(name).parse().ok();
    Ok(ImageFacts {
        id,
        digest: digest.map(|(_, digest)| digest.to_owned()),
        user: word(&told, "/Config/User").unwrap_or_default(),
        healthcheck: check(at(&told, "/Healthcheck"))
            .or_else(|| check(at(&told, "/Config/Healthcheck"))),
        stop_signal: word(&told, "/Config/StopSignal").filter(|s| !s.is_empty()),
        exposed: exposed
            .into_iter()
            .flat_map(|map| map.keys())
            .filter_map(port)
            .collect(),
    })
}

fn check(told: &Value) -> Option<ImageCheck> {
    let nanos = |path| number(told, path).unwrap_or(0);
    let retries = u32::try_from(nanos("/Retries")).unwrap_or(0);
    let times = [nanos("/Interval"), nanos("/Timeout"), nanos("/StartPeriod")];
    image_check(&words(told, "/Test")?, times, retries)
}

fn state(told: &Value) -> ContainerState {
    match at(told, "/State/Status").as_str().unwrap_or_default() {
        "created" | "configured" | "initialized" => ContainerState::Created,
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "exited" | "dead" => ContainerState::Exited,
        _ => ContainerState::Between,
    }
}

pub(super) fn container(told: &Value) -> Result<ContainerFacts, EngineFault> {
    let (Some(id), Some(_)) = (word(told, "/Id"), told.get("State")) else {
        let what = "it told of a container without id or state";
        return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
    };
    let state = state(told);
    let error = word(told, "/State/Error").unwrap_or_default();
    let ended = state == ContainerState::Exited;
    let pid = number(told, "/State/Pid");
    Ok(ContainerFacts {
        id,
        name: name(told),
        state,
        exit_code: at(told, "/State/ExitCode").as_i64().filter(|_| ended),
        pid: pid.and_then(|pid| i32::try_from(pid).ok()),
        oom_killed: at(told, "/State/OOMKilled").as_bool().unwrap_or(false),
        error: (!error.trim().is_empty()).then(|| one_line(&error)),
        health: match at(told, "/State/Health/Status").as_str() {
            Some("healthy") => Some(EngineHealth::Healthy),
            Some("unhealthy") => Some(EngineHealth::Unhealthy),
            Some("starting") => Some(EngineHealth::Starting),
            _ => None,
        },
        labels: map(told, "/Config/Labels"),
        image_id: word(told, "/Image").unwrap_or_default(),
        applied: applied(told),
    })
}

fn name(told: &Value) -> String {
    let name = word(told, "/Name").unwrap_or_default();
    name.trim_start_matches('/').to_owned()
}

fn applied(told: &Value) -> Applied {
    let options = words(told, "/HostConfig/SecurityOpt").unwrap_or_default();
    let period = number(told, "/HostConfig/CpuPeriod").unwrap_or(100_000);
    let quota = number(told, "/HostConfig/CpuQuota").map(|quota| quota * 1000 / period);
    Applied {
        user: Some(word(told, "/Config/User").unwrap_or_default()),
        capabilities: capabilities(told),
        no_new_privileges: Some(
            options
                .iter()
                .any(|o| o.starts_with("no-new-privileges") && !o.ends_with("false")),
        ),
        read_only: at(told, "/HostConfig/ReadonlyRootfs").as_bool(),
        privileged: at(told, "/HostConfig/Privileged").as_bool(),
        pids: number(told, "/HostConfig/PidsLimit"),
        memory: number(told, "/HostConfig/Memory"),
        cpu_milli: number(told, "/HostConfig/NanoCpus")
            .map(|n| n / 1_000_000)
            .or(quota),
        network: word(told, "/HostConfig/NetworkMode"),
        ports: Some(ports(at(told, "/HostConfig/PortBindings"))),
        restart: word(told, "/HostConfig/RestartPolicy/Name"),
        cgroup: word(told, "/State/CgroupPath").filter(|c| !c.is_empty()),
    }
}

/// Podman tells what is in force; for the others it is known where all were dropped first.
fn capabilities(told: &Value) -> Option<Vec<String>> {
    let mut left = match told.get("EffectiveCaps") {
        Some(_) => words(told, "/EffectiveCaps").unwrap_or_default(),
        None => {
            let all = |c: &String| c.eq_ignore_ascii_case("all");
            let dropped = words(told, "/HostConfig/CapDrop")?;
            let added = words(told, "/HostConfig/CapAdd").unwrap_or_default();
            if !dropped.iter().any(all) || added.iter().any(all) {
                return None;
            }
            let named =
                |c: &String| format!("CAP_{}", c.to_ascii_uppercase().trim_start_matches("CAP_"));
            added.iter().map(named).collect()
        }
    };
    left.sort();
    Some(left)
}

fn ports(bindings: &Value) -> Vec<Publish> {
    let mut ports = Vec::new();
    for (inside, bound) in bindings.as_object().into_iter().flatten() {
        let port = inside.strip_suffix("/tcp").and_then(|p| p.parse().ok());
        for binding in bound.as_array().into_iter().flatten() {
            let host_port = word(binding, "/HostPort").and_then(|p| p.parse().ok());
            if let (Some(port), Some(host_port)) = (port, host_port) {
                let host_ip = word(binding, "/HostIp").unwrap_or_default();
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

/// A list of containers, from what each looks like.
pub(super) fn listed(answer: &[u8]) -> Result<Vec<Listed>, EngineFault> {
    let told = json(answer)?;
    let line = |one: &Value| {
        Some(Listed {
            id: word(one, "/Id")?,
            name: name(one),
            labels: map(one, "/Config/Labels"),
            state: state(one),
        })
    };
    Ok(told
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(line)
        .collect())
}
