//! What is asked of libpod, in its own words.

use crate::backend::container::engine::{CreateSpec, Device, Network};
use crate::backend::container::fault::{EngineFault, EngineFaultKind};
use crate::backend::container::processes;
use serde_json::{Map, Value, json};

/// Length of a CPU period, µs.
const PERIOD: u64 = 100_000;

/// The body of a create request. The names are those of libpod's `SpecGenerator`; it ignores others in silence.
pub(super) fn create(spec: &CreateSpec) -> Result<Value, EngineFault> {
    let mut body = json!({
        "name": spec.name,
        "image": spec.image,
        "env": spec.env,
        "labels": spec.labels,
        "cap_drop": ["ALL"],
        "cap_add": spec.cap_add,
        "no_new_privileges": spec.no_new_privileges,
        "read_only_filesystem": spec.read_only,
        "privileged": false,
        "init": spec.init,
        "httpproxy": false,
        "restart_policy": "no",
        "remove": false,
        "cgroupns": { "nsmode": "private" },
        "ipcns": { "nsmode": "private" },
        "pidns": { "nsmode": "private" },
        "utsns": { "nsmode": "private" },
        "mounts": mounts(spec),
        "resource_limits": limits(spec),
        "log_configuration": { "driver": "k8s-file", "size": spec.log_bytes },
        "image_volume_mode": "anonymous",
        // lair runs the image's check on its schedule; libpod would need systemd for it.
        "healthconfig": { "Test": ["NONE"] },
    });
    let Some(more) = body.as_object_mut() else {
        return Err(EngineFault::new(
            EngineFaultKind::Refused,
            "no request could be made",
        ));
    };
    if !spec.command.is_empty() {
        more.insert("command".into(), json!(spec.command));
    }
    if let Some(user) = &spec.user {
        more.insert("user".into(), json!(user));
    }
    if let Some(nofile) = spec.nofile {
        let most = processes::most();
        let limits = json!([
            { "type": "nofile", "soft": nofile, "hard": nofile },
            { "type": "nproc", "soft": most, "hard": most },
        ]);
        more.insert("r_limits".into(), limits);
    }
    network(spec, more);
    devices(spec, more)?;
    Ok(body)
}

fn mounts(spec: &CreateSpec) -> Vec<Value> {
    let binds = spec.mounts.iter().map(|m| {
        let mode = if m.read_only { "ro" } else { "rw" };
        json!({
            "type": "bind",
            "source": m.source,
            "destination": m.target,
            "options": ["rbind", "rprivate", "nosuid", "nodev", mode],
        })
    });
    let tmpfs = spec.tmpfs.iter().map(|path| {
        json!({
            "type": "tmpfs",
            "source": "tmpfs",
            "destination": path,
            "options": ["rw", "nosuid", "nodev", "mode=1777"],
        })
    });
    binds.chain(tmpfs).collect()
}

fn limits(spec: &CreateSpec) -> Value {
    let mut limits = Map::new();
    if let Some(pids) = spec.pids {
        limits.insert("pids".into(), json!({ "limit": pids }));
    }
    if let Some(memory) = spec.memory {
        limits.insert("memory".into(), json!({ "limit": memory, "swap": memory }));
    }
    if let Some(milli) = spec.cpu_milli {
        let quota = milli.saturating_mul(PERIOD) / 1000;
        limits.insert(
            "cpu".into(),
            json!({ "quota": quota.max(1000), "period": PERIOD }),
        );
    }
    Value::Object(limits)
}

fn network(spec: &CreateSpec, more: &mut Map<String, Value>) {
    match &spec.network {
        Network::None => {
            more.insert("netns".into(), json!({ "nsmode": "none" }));
        }
        Network::Private(ports) => {
            let ports: Vec<Value> = ports
                .iter()
                .map(|p| {
                    json!({
                        "host_ip": p.host_ip,
                        "host_port": p.host_port,
                        "container_port": p.port,
                        "protocol": "tcp",
                    })
                })
                .collect();
            more.insert("netns".into(), json!({ "nsmode": "private" }));
            more.insert("portmappings".into(), json!(ports));
        }
    }
}

fn devices(spec: &CreateSpec, more: &mut Map<String, Value>) -> Result<(), EngineFault> {
    let mut devices = Vec::with_capacity(spec.devices.len());
    for device in &spec.devices {
        devices.push(match device {
            Device::Cdi(name) => json!({ "path": name }),
            Device::Node(path) => json!({ "path": path }),
            Device::NvidiaGpus(_) => {
                let why = "Podman hands GPUs in by CDI only; it would ignore this request";
                return Err(EngineFault::new(EngineFaultKind::Unsupported, why));
            }
        });
    }
    if !devices.is_empty() {
        more.insert("devices".into(), json!(devices));
    }
    Ok(())
}
