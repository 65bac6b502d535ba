//! What is asked of Docker, in its own words.

use crate::backend::container::engine::{CreateSpec, Device, Network};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType, PortBinding, PortMap,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::HashMap;

/// The body of a create request.
pub(super) fn create(spec: &CreateSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        env: Some(spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        user: spec.user.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        exposed_ports: exposed(&spec.network),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        // lair runs the image's check on its schedule, the same with every engine.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host(spec)),
        ..ContainerCreateBody::default()
    }
}

fn host(spec: &CreateSpec) -> HostConfig {
    let memory = spec.memory.map(number);
    HostConfig {
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(spec.cap_add.clone()),
        security_opt: spec
            .no_new_privileges
            .then(|| vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(spec.read_only),
        privileged: Some(false),
        init: Some(spec.init),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some("private".into()),
        pids_limit: spec.pids.map(number),
        memory,
        memory_swap: memory,
        nano_cpus: spec
            .cpu_milli
            .map(|milli| number(milli.saturating_mul(1_000_000))),
        ulimits: spec.nofile.map(|n| {
            vec![ResourcesUlimits {
                name: Some("nofile".into()),
                soft: Some(number(n)),
                hard: Some(number(n)),
            }]
        }),
        mounts: Some(mounts(spec)),
        tmpfs: Some(tmpfs(spec)),
        network_mode: Some(
            match spec.network {
                Network::None => "none",
                Network::Private(_) => "bridge",
            }
            .into(),
        ),
        port_bindings: bindings(&spec.network),
        log_config: Some(log(spec.log_bytes)),
        devices: Some(nodes(spec)),
        device_requests: Some(requests(spec)),
        ..HostConfig::default()
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// As mounts and not as binds: those make a folder of root's on the host where the source is missing.
fn mounts(spec: &CreateSpec) -> Vec<Mount> {
    let mount = |m: &crate::backend::container::engine::BindMount| Mount {
        typ: Some(MountType::BIND),
        source: Some(m.source.display().to_string()),
        target: Some(m.target.clone()),
        read_only: Some(m.read_only),
        ..Mount::default()
    };
    spec.mounts.iter().map(mount).collect()
}

fn tmpfs(spec: &CreateSpec) -> HashMap<String, String> {
    let options = "rw,nosuid,nodev,mode=1777";
    spec.tmpfs
        .iter()
        .map(|path| (path.clone(), options.to_owned()))
        .collect()
}

fn exposed(network: &Network) -> Option<Vec<String>> {
    let Network::Private(ports) = network else {
        return None;
    };
    Some(ports.iter().map(|p| format!("{}/tcp", p.port)).collect())
}

fn bindings(network: &Network) -> Option<PortMap> {
    let Network::Private(ports) = network else {
        return None;
    };
    let mut map = PortMap::new();
    for p in ports {
        let bound = map.entry(format!("{}/tcp", p.port)).or_default();
        bound.get_or_insert_default().push(PortBinding {
            host_ip: Some(p.host_ip.clone()),
            host_port: Some(p.host_port.to_string()),
        });
    }
    Some(map)
}

/// `local` keeps every byte, which `json-file` does not: it holds text, and what is none becomes U+FFFD.
fn log(bytes: u64) -> HostConfigLogConfig {
    let half = (bytes / 2).max(4096);
    let config = [
        ("max-size", format!("{half}b")),
        ("max-file", "2".to_owned()),
        ("compress", "false".to_owned()),
    ];
    HostConfigLogConfig {
        typ: Some("local".into()),
        config: Some(config.map(|(k, v)| (k.to_owned(), v)).into()),
    }
}

fn nodes(spec: &CreateSpec) -> Vec<DeviceMapping> {
    let node = |device: &Device| match device {
        Device::Node(path) => Some(DeviceMapping {
            path_on_host: Some(path.display().to_string()),
            path_in_container: Some(path.display().to_string()),
            cgroup_permissions: Some("rwm".into()),
        }),
        Device::Cdi(_) | Device::NvidiaGpus(_) => None,
    };
    spec.devices.iter().filter_map(node).collect()
}

fn requests(spec: &CreateSpec) -> Vec<DeviceRequest> {
    let request = |device: &Device| match device {
        Device::Node(_) => None,
        // NVIDIA's own hook takes the same names, and Docker before 25 has no other way.
        Device::Cdi(name) => match name.strip_prefix("nvidia.com/gpu=") {
            Some(gpu) => Some(nvidia(vec![gpu.to_owned()])),
            None => Some(DeviceRequest {
                driver: Some("cdi".into()),
                device_ids: Some(vec![name.clone()]),
                ..DeviceRequest::default()
            }),
        },
        Device::NvidiaGpus(ids) => Some(nvidia(ids.clone())),
    };
    spec.devices.iter().filter_map(request).collect()
}

fn nvidia(ids: Vec<String>) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".into()),
        device_ids: Some(ids),
        capabilities: Some(vec![vec!["gpu".into()]]),
        ..DeviceRequest::default()
    }
}
