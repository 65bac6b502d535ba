//! From a plan to the container that is wanted, and what of it is not in force.
//!
//! Owns: the defaults of least privilege. Promises: nothing is opened that the plan does not name. Never: asks.

use super::engine::{
    Applied, BindMount, CreateSpec, Device, LABEL_INSTANCE, LABEL_MODULE, LABEL_RUN, Network,
    Publish,
};
use crate::backend::StartOrder;
use lair_manifests::launch::{ContainerLaunch, LaunchPlan};
use std::collections::BTreeMap;

/// Processes and threads, where the manifest names no limit.
const PIDS: u64 = 4096;
/// Bytes that the engine's own log may grow to.
const LOG_BYTES: u64 = 16 << 20;

/// The name of a module's container: one a module and lair, so that people find it and two lairs never meet.
#[must_use]
pub fn container_name(instance: &str, module: &str) -> String {
    format!("lair-{instance}-{module}")
}

/// What is wanted for one start.
pub(super) fn wanted(
    order: &StartOrder,
    launch: &ContainerLaunch,
    instance: &str,
    image: &str,
) -> CreateSpec {
    let plan = &order.plan;
    CreateSpec {
        name: container_name(instance, order.id.as_str()),
        image: image.to_owned(),
        command: launch.command.clone(),
        env: launch.env.clone(),
        mounts: launch
            .volumes
            .iter()
            .map(|v| BindMount {
                source: v.source.clone(),
                target: v.target.clone(),
                read_only: v.read_only,
            })
            .collect(),
        tmpfs: tmpfs(launch),
        user: launch.user.clone(),
        cap_add: launch.cap_add.iter().map(|c| capability(c)).collect(),
        read_only: launch.read_only,
        no_new_privileges: true,
        init: launch.init,
        pids: Some(plan.limits.pids.unwrap_or(PIDS)),
        memory: plan.limits.memory,
        cpu_milli: plan.limits.cpu_milli,
        nofile: plan.limits.nofile,
        network: network(plan),
        devices: devices(plan),
        labels: labels(order, instance),
        log_bytes: LOG_BYTES,
    }
}

fn labels(order: &StartOrder, instance: &str) -> BTreeMap<String, String> {
    [
        (LABEL_MODULE, order.id.to_string()),
        (LABEL_RUN, order.inc.to_string()),
        (LABEL_INSTANCE, instance.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// A root that can't be written leaves `/tmp`, unless a volume lies there.
fn tmpfs(launch: &ContainerLaunch) -> Vec<String> {
    let taken = launch.volumes.iter().any(|v| v.target == "/tmp");
    if launch.read_only && !taken {
        vec!["/tmp".to_owned()]
    } else {
        Vec::new()
    }
}

fn capability(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    }
}

/// Without a declared port there is nothing to reach it by, and it reaches nothing.
fn network(plan: &LaunchPlan) -> Network {
    if plan.ports.is_empty() {
        return Network::None;
    }
    let publish = |p: &lair_manifests::launch::Port| Publish {
        host_ip: p.address.clone(),
        host_port: p.port,
        port: p.port,
    };
    let mut ports: Vec<Publish> = plan.ports.iter().map(publish).collect();
    ports.sort();
    Network::Private(ports)
}

/// GPUs by their CDI names; an engine that has another way translates them.
fn devices(plan: &LaunchPlan) -> Vec<Device> {
    let gpus = plan.limits.gpu.iter().flat_map(|gpu| &gpu.uuids);
    gpus.map(|uuid| Device::Cdi(format!("nvidia.com/gpu={uuid}")))
        .collect()
}

/// What is in force and should not be, or the other way round, one sentence each; empty: all as wanted. What the engine
/// does not tell is named as well: unknown is not in force.
pub(super) fn differences(wanted: &CreateSpec, applied: &Applied) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, want: String, have: Option<String>| match have {
        Some(have) if have == want => {}
        Some(have) => found.push(format!("{what} is {have}, and {want} was asked for")),
        None => found.push(format!("{what} is not told, and {want} was asked for")),
    };
    let mut caps = wanted.cap_add.clone();
    caps.sort();
    let list = |caps: &[String]| match caps {
        [] => "none".to_owned(),
        some => some.join(" "),
    };
    check(
        "capabilities",
        list(&caps),
        applied.capabilities.as_deref().map(list),
    );
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    check(
        "no_new_privileges",
        yes(wanted.no_new_privileges),
        applied.no_new_privileges.map(yes),
    );
    check(
        "read-only root",
        yes(wanted.read_only),
        applied.read_only.map(yes),
    );
    check("privileged", yes(false), applied.privileged.map(yes));
    check("engine's restart policy", "no".into(), restart(applied));
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    if let Some(pids) = wanted.pids {
        check("pids limit", pids.to_string(), number(applied.pids));
    }
    if let Some(memory) = wanted.memory {
        check("memory limit", memory.to_string(), number(applied.memory));
    }
    if let Some(milli) = wanted.cpu_milli {
        let rounded = |n: u64| n.to_string();
        check(
            "CPU limit (1/1000)",
            rounded(milli),
            applied.cpu_milli.map(rounded),
        );
    }
    network_differs(wanted, applied, &mut found);
    found
}

/// What is in force, by the engine's own word, as words; what it does not tell is left out.
pub(super) fn described(applied: &Applied) -> Vec<(&'static str, String)> {
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let user = applied.user.clone();
    let caps = applied.capabilities.as_deref().map(|caps| match caps {
        [] => "none".to_owned(),
        some => some.join(" "),
    });
    let all = [
        (
            "user",
            user.map(|u| if u.is_empty() { "root".into() } else { u }),
        ),
        ("capabilities", caps),
        ("no_new_privileges", applied.no_new_privileges.map(yes)),
        ("read_only", applied.read_only.map(yes)),
        ("privileged", applied.privileged.map(yes)),
        ("network", applied.network.clone()),
        ("published", applied.ports.as_deref().map(shown)),
        ("restarts", restart(applied)),
    ];
    let told = all.into_iter();
    told.filter_map(|(what, told)| Some((what, told.filter(|t| !t.is_empty())?)))
        .collect()
}

fn shown(ports: &[Publish]) -> String {
    let each = |p: &Publish| format!("{}:{}->{}", p.host_ip, p.host_port, p.port);
    ports.iter().map(each).collect::<Vec<_>>().join(" ")
}

/// Docker's word for "never" may also be empty.
fn restart(applied: &Applied) -> Option<String> {
    let told = applied.restart.as_deref()?;
    Some(if told.is_empty() { "no" } else { told }.to_owned())
}

fn network_differs(wanted: &CreateSpec, applied: &Applied, found: &mut Vec<String>) {
    let told = applied.network.as_deref();
    match (&wanted.network, told) {
        (Network::None, Some("none")) => {}
        (Network::None, other) => found.push(format!(
            "network is {}, and none was asked for",
            other.unwrap_or("not told")
        )),
        (Network::Private(_), Some("host") | None) => found.push(format!(
            "network is {}, and a private one was asked for",
            told.unwrap_or("not told")
        )),
        (Network::Private(ports), Some(_)) => {
            if applied.ports.as_ref() != Some(ports) {
                let have = applied.ports.as_deref().map_or("not told".into(), shown);
                let want = shown(ports);
                found.push(format!(
                    "published ports are {have}, and {want} were asked for"
                ));
            }
        }
    }
}
