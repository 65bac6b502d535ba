//! The runtime's own configuration, and where it and everything else lies.
//!
//! Owns: the key `runtime:` of the configuration file; the order in which files are looked for; the folders. Promises:
//! LocalAIStack's own configuration is accepted as it is. Never: reads the environment; it is handed in.

use crate::decode::{Sink, View};
use crate::launch::Mode;
use crate::numbers::Count;
use crate::nvml::Nvml;
use crate::problem::ProblemKind;
use crate::record::record;
use crate::resources::MemorySize;
use crate::runtime::OnExposure;
use crate::trust::Trust;
use crate::words::{AbsolutePath, Line, ModeWord, ModuleId, choice};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

record! {
    /// The configuration of the runtime, as written.
    pub struct RuntimeConfig {
        /// Whether containers of Docker may be used.
        docker_enabled: bool = true,
        /// Whether containers of Podman may be used; without it, as `docker_enabled`.
        podman_enabled: Option<bool> = None,
        /// Whether native processes may be used.
        native_enabled: bool = true,
        /// The mode that is taken when nobody prefers one.
        default_mode: DefaultMode = DefaultMode::Container,
        /// Folder of the log files.
        log_dir: Option<AbsolutePath> = None,
        /// Folder of what has to survive.
        state_dir: Option<AbsolutePath> = None,
        /// Folder of the socket.
        run_dir: Option<AbsolutePath> = None,
        /// The socket.
        socket: Option<AbsolutePath> = None,
        /// What becomes of modules when the runtime dies; without it: the daemon keeps them, others kill them.
        if_runtime_dies: Option<IfRuntimeDies> = None,
        /// What may run at all.
        policy: Policy = Policy::default(),
        /// Which native modules are trusted; replaces the rule by owner.
        trust: Option<Trust> = None,
        /// What modules may show to other machines.
        exposure: ExposureKeys = ExposureKeys { allow_lan: false, mode: OnExposure::Report },
        /// Memory of all modules together.
        memory: MemoryKeys = MemoryKeys { budget: None, reserve: None },
        /// GPUs.
        gpu: GpuKeys = GpuKeys { reserve: None, nvml: Nvml::System },
        /// Who else may speak on the socket.
        access: Access = Access { uids: Vec::new(), gids: Vec::new() },
        /// Whether faults may be injected.
        faults: bool = false,
        /// Metrics.
        metrics: Option<Metrics> = None,
    }
}

choice! {
    /// The modes of this runtime.
    pub enum DefaultMode {
        /// In a container.
        #[default]
        Container = "container",
        /// As a process.
        Native = "native",
    }
}

choice! {
    /// What becomes of modules when the runtime dies.
    pub enum IfRuntimeDies {
        /// They go on, and the next runtime takes them over.
        #[default]
        Keep = "keep",
        /// They are stopped.
        Kill = "kill",
    }
}

record! {
    /// What may run at all; an absent list allows everything.
    #[derive(Default)]
    pub struct Policy {
        /// Modes.
        allowed_modes: Option<Vec<ModeWord>> = None,
        /// Names of modules.
        allowed_runtimes: Option<Vec<ModuleId>> = None,
    }
}

record! {
    /// Memory of all modules together.
    pub struct MemoryKeys {
        /// What they may have.
        budget: Option<MemorySize> = None,
        /// What stays free for others.
        reserve: Option<MemorySize> = None,
    }
}

record! {
    /// What modules may show to other machines.
    pub struct ExposureKeys {
        /// Whether a port may be declared with `expose: lan`.
        allow_lan: bool = false,
        /// What if a module listens where it did not declare to; a manifest can ask for more, not for less.
        mode: OnExposure = OnExposure::Report,
    }
}

record! {
    /// GPUs.
    pub struct GpuKeys {
        /// Memory that stays free on each.
        reserve: Option<MemorySize> = None,
        /// Whether NVIDIA's library is asked: true, false, or the path of another one.
        nvml: Nvml = Nvml::System,
    }
}

record! {
    /// Who else may speak on the socket.
    pub struct Access {
        /// Users.
        uids: Vec<Count<0, 4_294_967_294>> = Vec::new(),
        /// Groups.
        gids: Vec<Count<0, 4_294_967_294>> = Vec::new(),
    }
}

record! {
    /// Metrics.
    pub struct Metrics checked by numeric {
        /// Address and port, as in 127.0.0.1:9464.
        listen: Line,
        /// Whether that may be an address that other machines reach: whoever can connect can read.
        allow_lan: bool = false,
    }
}

impl Metrics {
    /// Where to listen.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.as_str().parse().ok()
    }
}

fn numeric(metrics: &Metrics, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let (what, help) = match metrics.address() {
        Some(at) if at.ip().is_loopback() || metrics.allow_lan => return Some(()),
        Some(_) => (
            "other machines reach this address, and could read the metrics",
            "write 127.0.0.1:9464, or add `allow_lan: true`",
        ),
        None => (
            "a numeric address and a port are wanted here",
            "write 127.0.0.1:9464",
        ),
    };
    let help = Some(help.to_owned());
    view.fault(sink, ProblemKind::Invalid, &["listen"], what, help);
    None
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig {
            docker_enabled: true,
            podman_enabled: None,
            native_enabled: true,
            default_mode: DefaultMode::Container,
            log_dir: None,
            state_dir: None,
            run_dir: None,
            socket: None,
            if_runtime_dies: None,
            policy: Policy::default(),
            trust: None,
            exposure: ExposureKeys {
                allow_lan: false,
                mode: OnExposure::Report,
            },
            memory: MemoryKeys {
                budget: None,
                reserve: None,
            },
            gpu: GpuKeys {
                reserve: None,
                nvml: Nvml::System,
            },
            access: Access {
                uids: Vec::new(),
                gids: Vec::new(),
            },
            faults: false,
            metrics: None,
        }
    }
}

impl RuntimeConfig {
    /// The mode that is taken when nobody prefers one.
    #[must_use]
    pub fn mode_by_default(&self) -> Mode {
        match self.default_mode {
            DefaultMode::Container => Mode::Container,
            DefaultMode::Native => Mode::Native,
        }
    }

    /// Whether Podman may be used.
    #[must_use]
    pub fn podman(&self) -> bool {
        self.podman_enabled.unwrap_or(self.docker_enabled)
    }

    /// Whether the engine of this name (`podman`, `docker`, `cli`) may be used; a docker-compatible command counts as
    /// Docker.
    #[must_use]
    pub fn engine_enabled(&self, name: &str) -> bool {
        match name {
            "podman" => self.podman(),
            _ => self.docker_enabled,
        }
    }

    /// The folders of this configuration for a user.
    #[must_use]
    pub fn dirs(&self, env: &BTreeMap<String, String>, uid: u32) -> Dirs {
        let usual = Dirs::of(env, uid);
        let or = |key: &Option<AbsolutePath>, usual: PathBuf| {
            key.as_ref()
                .map_or(usual, |path| PathBuf::from(path.as_str()))
        };
        let run = or(&self.run_dir, usual.run);
        Dirs {
            state: or(&self.state_dir, usual.state),
            logs: or(&self.log_dir, usual.logs),
            socket: or(&self.socket, run.join("lair.sock")),
            config: usual.config,
            run,
        }
    }
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dirs {
    /// What has to survive.
    pub state: PathBuf,
    /// Log files.
    pub logs: PathBuf,
    /// What is gone after a boot.
    pub run: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// The configuration and the daemon's `modules`.
    pub config: PathBuf,
}

impl Dirs {
    /// The usual ones: `/var/lib`, `/var/log`, `/run` and `/etc` for root, the XDG folders else. Never `/tmp`.
    #[must_use]
    pub fn of(env: &BTreeMap<String, String>, uid: u32) -> Dirs {
        if uid == 0 {
            let run = PathBuf::from("/run/lair");
            return Dirs {
                state: "/var/lib/lair".into(),
                logs: "/var/log/lair".into(),
                socket: run.join("lair.sock"),
                config: "/etc/lair".into(),
                run,
            };
        }
        let home = PathBuf::from(env.get("HOME").map_or("/", String::as_str));
        let state = xdg(env, "XDG_STATE_HOME", home.join(".local/state")).join("lair");
        let run = xdg(env, "XDG_RUNTIME_DIR", state.join("run")).join("lair");
        Dirs {
            logs: state.join("logs"),
            socket: run.join("lair.sock"),
            config: xdg(env, "XDG_CONFIG_HOME", home.join(".config")).join("lair"),
            state,
            run,
        }
    }
}

impl Dirs {
    /// The folder where a module keeps its own things: `${module.data}`.
    #[must_use]
    pub fn module_data(&self, name: &str) -> PathBuf {
        self.state.join("modules").join(name)
    }

    /// The folder of a module's log files: `${module.logs}`.
    #[must_use]
    pub fn module_logs(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }
}

/// XDG: an absolute path counts, anything else is as if unset.
fn xdg(env: &BTreeMap<String, String>, name: &str, usual: PathBuf) -> PathBuf {
    let set = env.get(name).map(PathBuf::from);
    set.filter(|path| path.is_absolute()).unwrap_or(usual)
}

/// Where the configuration is looked for, in order. The first that exists counts; one that was named has to exist.
#[must_use]
pub fn lookup(flag: Option<&Path>, env: &BTreeMap<String, String>, uid: u32) -> Vec<Place> {
    if let Some(path) = flag {
        return vec![Place {
            path: path.to_owned(),
            named: true,
        }];
    }
    if let Some(path) = env.get("LAIR_CONFIG").filter(|path| !path.is_empty()) {
        return vec![Place {
            path: path.into(),
            named: true,
        }];
    }
    let home = env.get("HOME").map(|home| Path::new(home).join(".config"));
    let own = home.map(|usual| xdg(env, "XDG_CONFIG_HOME", usual));
    let own = own.or_else(|| env.get("XDG_CONFIG_HOME").map(PathBuf::from));
    let own = own.filter(|_| uid != 0 || env.contains_key("XDG_CONFIG_HOME"));
    let places = own
        .map(|dir| dir.join("lair"))
        .into_iter()
        .chain([PathBuf::from("/etc/lair")]);
    places
        .map(|dir| Place {
            path: dir.join("config.yaml"),
            named: false,
        })
        .collect()
}

/// A place where the configuration may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Whether somebody named it: then it has to exist.
    pub named: bool,
}
