//! The seam to a container engine: what Podman, Docker and a docker-compatible command must be able to do.
//!
//! Owns: the trait and the plain data that cross it. Promises: nothing here knows an engine's words; every call is one
//! question with one answer, and the backend above puts a deadline on it. Never: decides, retries, or remembers.

use super::fault::EngineFault;
use super::feed::Feed;
use crate::backend::{BoxFuture, CommandOutcome, ImageCheck};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Says which module a container belongs to.
pub const LABEL_MODULE: &str = "lair.module";
/// Says which run (incarnation) of it.
pub const LABEL_RUN: &str = "lair.run";
/// Says which lair made it; others keep away.
pub const LABEL_INSTANCE: &str = "lair.instance";

/// An answer of an engine, some time.
pub type Answer<T> = BoxFuture<Result<T, EngineFault>>;

/// One line of progress (`Copying blob 3 of 7`), trimmed; called from any thread, must not block.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// A connection that hands a container's output on, until it ends.
pub type HandingOn = oneshot::Receiver<HandedOn>;

/// What is left of a connection that has ended, for whatever reason.
pub struct HandedOn {
    /// To go on with.
    pub feed: Feed,
    /// How it ended.
    pub end: ConnectionEnd,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Because there was no more to hand on, and whoever handed it on lives.
    Whole,
    /// As it should, but whoever handed it on can't be seen.
    Unsure,
    /// Early.
    Broken,
}

impl ConnectionEnd {
    /// Of one whose end tells all that there is to know.
    #[must_use]
    pub fn of(well: bool) -> Self {
        if well {
            ConnectionEnd::Whole
        } else {
            ConnectionEnd::Broken
        }
    }
}

/// One container engine. Dropping a future gives the question up; what the engine then does is its own business, so
/// the backend looks for it afterwards by name and label.
pub trait Engine: Send + Sync + 'static {
    /// `podman`, `docker` or `cli`.
    fn name(&self) -> &'static str;
    /// Who it is and what it can. Also the sign of life: it has to be cheap.
    fn info(&self) -> Answer<EngineInfo>;
    /// A sign of life and nothing else.
    fn ping(&self) -> Answer<()>;
    /// The image, if it is here. Never asks a registry.
    fn find_image(&self, image: &str) -> Answer<Option<ImageFacts>>;
    /// Fetches the image from where its name says.
    fn pull(&self, image: &str, progress: Progress) -> Answer<()>;
    /// Makes a container and answers with its full id. Nothing runs yet.
    fn create(&self, spec: Arc<CreateSpec>) -> Answer<String>;
    /// Connects to the output of a created container, before its start, so that no byte is missed. The answer comes
    /// when the engine has confirmed the connection.
    fn attach(&self, id: &str, feed: Feed) -> Answer<HandingOn>;
    /// Connects to the output of one that runs, from now on.
    fn attach_again(&self, id: &str, feed: Feed) -> Answer<HandingOn>;
    /// Whether a container's first process is there, waiting, once it is attached to: then it can be watched from before
    /// its first instruction.
    fn shows_process_early(&self) -> bool {
        false
    }
    /// Whether its log goes on while the engine itself is dead, because a monitor of each container writes it.
    fn logs_without_engine(&self) -> bool {
        false
    }
    /// What makes this machine's GPUs known to it: the next step where it knows none.
    fn how_to_have_gpus(&self) -> &'static str;
    /// Starts it. Started already is fine.
    fn start(&self, id: &str) -> Answer<()>;
    /// Sends a signal to its first process. Gone already is fine.
    fn signal(&self, id: &str, signal: i32) -> Answer<()>;
    /// What the engine knows of it; `None` if there is no such container. By id or by name.
    fn inspect(&self, id: &str) -> Answer<Option<ContainerFacts>>;
    /// Resolves when the engine has seen its end. Says nothing of how: that is [`Engine::inspect`]'s.
    fn wait(&self, id: &str) -> Answer<()>;
    /// Ends it at once, without a stop signal, and removes it with its anonymous volumes. Gone already is fine.
    fn remove(&self, id: &str) -> Answer<()>;
    /// All containers, running or not, that carry all these labels.
    fn list(&self, labels: BTreeMap<String, String>) -> Answer<Vec<Listed>>;
    /// Runs a command inside, with the container's own user and environment and `marker` (`NAME=value`) besides, and
    /// keeps the first 64 KiB of its output. After `timeout` the outcome says so; the backend then ends, by the marker,
    /// what is left of it.
    fn exec(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
        timeout: Duration,
    ) -> BoxFuture<CommandOutcome>;
    /// What it uses now: one sample, without waiting for a second.
    fn stats(&self, id: &str) -> Answer<Stats>;
    /// Freezes all its processes.
    fn pause(&self, id: &str) -> Answer<()>;
    /// Thaws them.
    fn unpause(&self, id: &str) -> Answer<()>;
    /// Hands on what the engine's own log has kept, so many of the newest lines of both streams together or all, then ends;
    /// for the time in which nobody was connected.
    fn logs(&self, id: &str, newest: Option<u32>, feed: Feed) -> Answer<HandingOn>;
}

/// Who an engine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// `4.3.1`.
    pub version: String,
    /// It runs as a plain user.
    pub rootless: bool,
    /// 1 or 2, where it says so.
    pub cgroup_version: Option<u8>,
    /// It takes CDI device names (`nvidia.com/gpu=0`).
    pub cdi: bool,
    /// It has an init to put before a container's program.
    pub init: bool,
    /// It runs image health checks on their schedule by itself.
    pub runs_health_checks: bool,
}

/// What an image says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its id (`sha256:...`), which names its content.
    pub id: String,
    /// Digest under which a registry knows it, if it came from one.
    pub digest: Option<String>,
    /// User it runs as; empty means root.
    pub user: String,
    /// Its health check.
    pub healthcheck: Option<ImageCheck>,
    /// Its stop signal, as written (`SIGQUIT`, `3`).
    pub stop_signal: Option<String>,
    /// TCP ports that it says it listens on.
    pub exposed: Vec<u16>,
}

/// An image's health check, from the form that all engines share: `["CMD", ...]` or `["CMD-SHELL", "..."]`, times in
/// nanoseconds (interval, timeout, start period) where 0 means the usual. `None` where it is switched off.
#[must_use]
pub fn image_check(test: &[String], nanos: [u64; 3], retries: u32) -> Option<ImageCheck> {
    let argv = match test.split_first() {
        Some((word, rest)) if word == "CMD" && !rest.is_empty() => rest.to_vec(),
        Some((word, rest)) if word == "CMD-SHELL" && !rest.is_empty() => {
            vec!["/bin/sh".into(), "-c".into(), rest.join(" ")]
        }
        _ => return None,
    };
    let or = |nanos: u64, usual: u64| match nanos {
        0 => Duration::from_secs(usual),
        some => Duration::from_nanos(some),
    };
    Some(ImageCheck {
        argv,
        interval: or(nanos[0], 30),
        timeout: or(nanos[1], 30),
        start_period: Duration::from_nanos(nanos[2]),
        retries: if retries == 0 { 3 } else { retries },
    })
}

/// A container to make. All capabilities but `cap_add` are dropped, nothing of the host's namespaces is shared, it is
/// never restarted nor removed by the engine, and the engine does not run the image's health check (lair does, on its
/// schedule, the same with every engine): those are no choices.
#[derive(Clone, Default)]
pub struct CreateSpec {
    /// Its name.
    pub name: String,
    /// What it is made of: an id, so that nobody can swap it between the look and the start.
    pub image: String,
    /// Arguments after the image's entrypoint; empty: the image's own.
    pub command: Vec<String>,
    /// Variables added to the image's. Never shown to other users.
    pub env: BTreeMap<String, String>,
    /// Host folders and files; a missing source is refused, never made.
    pub mounts: Vec<BindMount>,
    /// Paths inside with a tmpfs each.
    pub tmpfs: Vec<String>,
    /// User (name or number, with or without `:group`); `None`: the image's.
    pub user: Option<String>,
    /// Capabilities that it keeps, as `CAP_NET_RAW` or `NET_RAW`.
    pub cap_add: Vec<String>,
    /// Its root can't be written.
    pub read_only: bool,
    /// setuid programs gain nothing.
    pub no_new_privileges: bool,
    /// An init is its first process.
    pub init: bool,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of memory; as much again of swap is not given.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Open descriptors.
    pub nofile: Option<u64>,
    /// What it sees of the network.
    pub network: Network,
    /// Devices.
    pub devices: Vec<Device>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes that the engine's own log of it may grow to: the buffer for the time lair is away.
    pub log_bytes: u64,
}

impl std::fmt::Debug for CreateSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A path of the host, seen inside (`type=bind`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// Absolute, on the host.
    pub source: PathBuf,
    /// Absolute, inside.
    pub target: String,
    /// Can't be written.
    pub read_only: bool,
}

/// What a container sees of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A loopback of its own.
    #[default]
    None,
    /// The engine's private network, with these ports published.
    Private(Vec<Publish>),
}

/// A TCP port of a container on an address of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publish {
    /// Numeric address on the host.
    pub host_ip: String,
    /// Port on the host.
    pub host_port: u16,
    /// Port inside.
    pub port: u16,
}

/// A device to hand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A CDI name: `nvidia.com/gpu=GPU-...`.
    Cdi(String),
    /// A device node of the host, under the same name inside.
    Node(PathBuf),
    /// GPUs by UUID, for an engine with NVIDIA's own hook in place of CDI (Docker's device requests).
    NvidiaGpus(Vec<String>),
}

/// What an engine knows of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    /// Full id.
    pub id: String,
    /// Name, without a slash before it.
    pub name: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its exit code, once it has ended.
    pub exit_code: Option<i64>,
    /// Its first process as this machine numbers it, while it runs.
    pub pid: Option<i32>,
    /// The engine says that the OOM killer was at work. (Podman never says so.)
    pub oom_killed: bool,
    /// The engine's word on a start that failed.
    pub error: Option<String>,
    /// The engine's own verdict by the image's health check.
    pub health: Option<EngineHealth>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Id of the image that it was made of.
    pub image_id: String,
    /// What is in force.
    pub applied: Applied,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never run.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended.
    Exited,
    /// On the way from one to another, or a word that lair does not know: ask again.
    #[default]
    Between,
}

/// The engine's verdict by an image's health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineHealth {
    /// No verdict yet.
    Starting,
    /// It answered well.
    Healthy,
    /// It failed too often.
    Unhealthy,
}

/// What is in force for a container, by the engine's own word; `None`: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// User; empty means root.
    pub user: Option<String>,
    /// Capabilities that it has, sorted, as `CAP_...`.
    pub capabilities: Option<Vec<String>>,
    /// setuid programs gain nothing.
    pub no_new_privileges: Option<bool>,
    /// Its root can't be written.
    pub read_only: Option<bool>,
    /// All protections are off.
    pub privileged: Option<bool>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// `none`, `bridge`, `host`, ...
    pub network: Option<String>,
    /// Published TCP ports, sorted.
    pub ports: Option<Vec<Publish>>,
    /// What the engine does at its end; `no` is wanted.
    pub restart: Option<String>,
    /// Its cgroup, as the engine names it.
    pub cgroup: Option<String>,
}

/// One line of a list of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Full id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}
