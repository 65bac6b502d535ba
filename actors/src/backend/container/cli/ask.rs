//! The arguments of a `create`.

use super::program::Flavour;
use crate::backend::container::engine::{CreateSpec, Device, Network};
use crate::backend::container::fault::{EngineFault, EngineFaultKind};
use crate::backend::container::processes;

/// The arguments, and the environment for its standard input: those of a command are seen by every user.
pub(super) fn create(
    spec: &CreateSpec,
    flavour: Flavour,
) -> Result<(Vec<String>, Vec<u8>), EngineFault> {
    let mut args: Vec<String> = [
        "create",
        "--pull=never",
        "--name",
        &spec.name,
        "--restart=no",
    ]
    .map(str::to_owned)
    .into();
    args.extend(
        [
            "--cap-drop=ALL",
            "--ipc=private",
            "--no-healthcheck",
            "--env-file=/dev/stdin",
        ]
        .map(str::to_owned),
    );
    if flavour != Flavour::Other {
        args.push("--cgroupns=private".into());
    }
    args.extend(spec.cap_add.iter().map(|c| format!("--cap-add={c}")));
    if spec.no_new_privileges {
        args.push("--security-opt=no-new-privileges".into());
    }
    if spec.read_only {
        args.push("--read-only".into());
        if flavour == Flavour::Podman {
            // It would add tmpfs of its own in places that nobody asked for.
            args.push("--read-only-tmpfs=false".into());
        }
    }
    if spec.init {
        args.push("--init".into());
    }
    args.extend(spec.user.iter().map(|u| format!("--user={u}")));
    args.extend(spec.labels.iter().map(|(k, v)| format!("--label={k}={v}")));
    args.extend(
        spec.tmpfs
            .iter()
            .map(|at| format!("--tmpfs={at}:rw,nosuid,nodev,mode=1777")),
    );
    limits(spec, flavour, &mut args);
    mounts(spec, &mut args)?;
    network(spec, &mut args);
    devices(spec, flavour, &mut args)?;
    log(spec, flavour, &mut args);
    args.push(spec.image.clone());
    args.extend(spec.command.iter().cloned());
    Ok((args, environment(spec)?))
}

fn limits(spec: &CreateSpec, flavour: Flavour, args: &mut Vec<String>) {
    args.extend(spec.pids.map(|n| format!("--pids-limit={n}")));
    if let Some(bytes) = spec.memory {
        args.extend([
            format!("--memory={bytes}b"),
            format!("--memory-swap={bytes}b"),
        ]);
    }
    args.extend(
        spec.cpu_milli
            .map(|milli| format!("--cpus={}.{:03}", milli / 1000, milli % 1000)),
    );
    if let Some(n) = spec.nofile {
        args.push(format!("--ulimit=nofile={n}:{n}"));
        if flavour == Flavour::Podman {
            let most = processes::most();
            args.push(format!("--ulimit=nproc={most}:{most}"));
        }
    }
}

fn mounts(spec: &CreateSpec, args: &mut Vec<String>) -> Result<(), EngineFault> {
    for mount in &spec.mounts {
        let source = mount.source.display().to_string();
        if source.contains([',', '"']) || mount.target.contains([',', '"']) {
            let what = format!(
                "a command can't be told of a folder with a comma or a quote in its name: {source}"
            );
            return Err(EngineFault::new(EngineFaultKind::Unsupported, &what));
        }
        // Not `--volume`: that makes a folder of root's on the host where the source is missing.
        let mode = if mount.read_only { ",readonly" } else { "" };
        args.push(format!(
            "--mount=type=bind,source={source},target={}{mode}",
            mount.target
        ));
    }
    Ok(())
}

fn network(spec: &CreateSpec, args: &mut Vec<String>) {
    match &spec.network {
        Network::None => args.push("--network=none".into()),
        Network::Private(ports) => {
            args.push("--network=bridge".into());
            for p in ports {
                let ip = match p.host_ip.contains(':') {
                    true => format!("[{}]", p.host_ip),
                    false => p.host_ip.clone(),
                };
                args.push(format!("--publish={ip}:{}:{}/tcp", p.host_port, p.port));
            }
        }
    }
}

fn devices(spec: &CreateSpec, flavour: Flavour, args: &mut Vec<String>) -> Result<(), EngineFault> {
    for device in &spec.devices {
        match (device, flavour) {
            (Device::Node(path), _) => args.push(format!("--device={}", path.display())),
            (Device::Cdi(name), Flavour::Docker) => match name.strip_prefix("nvidia.com/gpu=") {
                Some(gpu) => args.push(format!("--gpus=\"device={gpu}\"")),
                None => args.push(format!("--device={name}")),
            },
            (Device::Cdi(name), _) => args.push(format!("--device={name}")),
            (Device::NvidiaGpus(ids), Flavour::Docker | Flavour::Other) => {
                args.push(format!("--gpus=\"device={}\"", ids.join(",")));
            }
            (Device::NvidiaGpus(_), Flavour::Podman) => {
                let why = "Podman hands GPUs in by CDI only; it would ignore this request";
                return Err(EngineFault::new(EngineFaultKind::Unsupported, why));
            }
        }
    }
    Ok(())
}

fn log(spec: &CreateSpec, flavour: Flavour, args: &mut Vec<String>) {
    let (driver, options) = match flavour {
        Flavour::Podman => ("k8s-file", vec![format!("max-size={}", spec.log_bytes)]),
        Flavour::Docker => {
            let half = (spec.log_bytes / 2).max(4096);
            let each = ["max-file=2".to_owned(), "compress=false".to_owned()];
            (
                "local",
                [vec![format!("max-size={half}b")], each.into()].concat(),
            )
        }
        Flavour::Other => ("json-file", vec![format!("max-size={}", spec.log_bytes)]),
    };
    args.push(format!("--log-driver={driver}"));
    args.extend(options.iter().map(|o| format!("--log-opt={o}")));
}

/// One `NAME=value` a line: the form has no way to say a newline.
fn environment(spec: &CreateSpec) -> Result<Vec<u8>, EngineFault> {
    let mut text = Vec::new();
    for (name, value) in &spec.env {
        if value.contains(['\n', '\r']) || name.starts_with('#') {
            let what = format!(
                "a command can't be told of the variable {name}: its value has more than one line"
            );
            return Err(EngineFault::new(EngineFaultKind::Unsupported, &what));
        }
        text.extend_from_slice(format!("{name}={value}\n").as_bytes());
    }
    Ok(text)
}
