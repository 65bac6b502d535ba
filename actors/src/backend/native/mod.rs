//! Processes of this machine, by way of the keeper.
//!
//! Owns: the keeper's connection, the folder of tracking cgroups, and the grip on each process tree. Promises: an end
//! is reported only when the whole tree is gone, or what is left is named; a failed start leaves nothing; what cannot
//! be known is `unknown`. Never: forks, waits for a pid, or signals a number that it has not verified.

mod account;
mod command;
mod grip;
mod notify;

use super::{
    Backend, BackendFault, BoxFuture, ReadySource, StartOrder, Started, Streams, is_transient,
};
use crate::cgroup::{Cgroups, Limit, ModuleGroups};
use crate::keeper::{CgroupDir, KeeperClient, SpawnFault, SpawnSpec, SpawnedChild, Stage};
use grip::Grip;
use lair_manifests::launch::{Launch, Limits, NativeLaunch};
use lair_supervision::{ChildIdentity, StartFault, StartStage};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Starts under way at once; more wait their turn.
pub const STARTS_IN_FLIGHT: usize = 64;

/// What the native backend is started with.
#[derive(Clone, Debug)]
pub struct NativeOptions {
    /// Names this life of this runtime in cgroups and markers.
    pub instance: String,
    /// Folder for notify sockets; made when first needed.
    pub run_dir: PathBuf,
}

/// Runs modules as processes.
pub struct NativeBackend {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    keeper: KeeperClient,
    options: NativeOptions,
    cgroups: Cgroups,
    starts: Semaphore,
}

impl NativeBackend {
    /// Uses a running keeper.
    #[must_use]
    pub fn new(keeper: KeeperClient, options: NativeOptions) -> Self {
        let cgroups = Cgroups::find(&options.instance);
        let starts = Semaphore::new(STARTS_IN_FLIGHT);
        NativeBackend {
            shared: Arc::new(Shared {
                keeper,
                options,
                cgroups,
                starts,
            }),
        }
    }

    /// Where trees are told and limits held. Its folders are to be removed when the keeper is gone.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.shared.cgroups
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cgroups.remove();
    }
}

impl Backend for NativeBackend {
    fn name(&self) -> &'static str {
        "native"
    }

    fn start(&self, order: StartOrder) -> BoxFuture<Result<Started, StartFault>> {
        Box::pin(start(self.shared.clone(), order))
    }

    fn inject(&self, fault: BackendFault) -> bool {
        match fault {
            BackendFault::KillKeeper => self.shared.keeper.kill_keeper(),
            BackendFault::DropEngine(_) => false,
        }
    }

    // The keeper has the request already, and carries it out when it comes to it.
    fn undoes_at_once(&self) -> bool {
        false
    }
}

async fn start(shared: Arc<Shared>, order: StartOrder) -> Result<Started, StartFault> {
    let Launch::Native(launch) = &order.plan.launch else {
        return Err(fault(
            StartStage::Create,
            None,
            "the plan is not for a native process".into(),
        ));
    };
    // Never closed, so the permit always comes.
    let _permit = shared.starts.acquire().await;
    let name = format!("{}.{}", order.id, order.inc);
    let mut spec = spec(&shared, launch, &order, &name)?;
    if let Some(data) = &launch.data {
        own_folder(data, spec.uid, spec.gid).map_err(|e| {
            let doing = format!("make {}", data.display());
            io_fault(StartStage::PrepareDirs, &doing, &e)
        })?;
    }
    let notify = if launch.notify {
        Some(notify::bind(&shared.options.run_dir, &name)?)
    } else {
        None
    };
    if let Some(notify) = &notify {
        spec.env.push(notify.variable());
    }
    let groups = limit(&shared.cgroups, &name, &order.plan.limits)?;
    spec.cgroups.extend(join(&groups));
    let child = match shared.keeper.spawn(spec).await {
        Ok(child) => child,
        Err(refused) => {
            groups.unmake();
            return Err(spawn_fault(refused, launch));
        }
    };
    Ok(grip(shared.clone(), &order, child, groups, notify))
}

/// Makes the groups of a start. What has to hold and doesn't ends it.
fn limit(cgroups: &Cgroups, name: &str, limits: &Limits) -> Result<ModuleGroups, StartFault> {
    let groups = cgroups
        .make(name, limits)
        .map_err(|e| io_fault(StartStage::EnterLimits, "make the cgroup", &e))?;
    let short = groups.shortfalls();
    let memory = short.iter().find(|s| s.limit == Limit::Memory);
    if let Some(short) = memory.filter(|_| limits.memory_required) {
        groups.unmake();
        let message = format!(
            "its memory limit has to be enforced and isn't: {}",
            short.why
        );
        return Err(fault(StartStage::EnterLimits, None, message));
    }
    Ok(groups)
}

/// The groups as the keeper wants them: joined before the first instruction, removed after the last.
fn join(groups: &ModuleGroups) -> impl Iterator<Item = CgroupDir> {
    groups
        .all()
        .filter_map(|group| CgroupDir::new(&group.dir, group.v2, true).ok())
}

fn grip(
    shared: Arc<Shared>,
    order: &StartOrder,
    child: SpawnedChild,
    groups: ModuleGroups,
    notify: Option<notify::NotifySocket>,
) -> Started {
    let SpawnedChild {
        key,
        process,
        streams,
        exit,
        empty,
    } = child;
    let identity = ChildIdentity::Native {
        pid: process.pid,
        start_ticks: process.start_ticks,
    };
    let (ready, path) = match (streams.ready, notify) {
        (Some(fd), _) => (Some(ReadySource::Fd(fd)), None),
        (None, notify) => match notify.and_then(notify::NotifySocket::hand_over) {
            Some((socket, path)) => (Some(ReadySource::Notify(socket)), Some(path)),
            None => (None, None),
        },
    };
    let grip = Grip::new(
        shared.keeper.clone(),
        key,
        process.pid,
        order.plan.clone(),
        groups,
        path,
        shared,
    );
    grip.guard();
    grip.follow(exit, empty);
    Started {
        identity,
        streams: Streams {
            stdout: Some(streams.stdout),
            stderr: Some(streams.stderr),
        },
        ready,
        handle: grip,
    }
}

/// Makes the folder for what a module keeps. One that is there already stays as it is.
fn own_folder(dir: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let builder = || {
        let mut builder = DirBuilder::new();
        builder.mode(0o750);
        builder
    };
    if let Some(above) = dir.parent() {
        builder().recursive(true).create(above)?;
    }
    match builder().create(dir) {
        Ok(()) if uid.is_none() && gid.is_none() => Ok(()),
        Ok(()) => chown(dir, uid, gid).inspect_err(|_| {
            let _ = fs::remove_dir(dir);
        }),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// The words of a launch as a request to the keeper.
fn spec(
    shared: &Shared,
    launch: &NativeLaunch,
    order: &StartOrder,
    name: &str,
) -> Result<SpawnSpec, StartFault> {
    let text = |e: crate::keeper::SpecFault| fault(StartStage::Create, None, e.to_string());
    let mut spec = SpawnSpec::new(&launch.argv, &launch.env)
        .and_then(|s| s.in_dir(&launch.workdir))
        .and_then(|s| s.marked(&format!("{}:{name}", shared.options.instance)))
        .map_err(text)?;
    spec.no_new_privs = true;
    spec.stop_signal = order.plan.spec.stop_signal;
    spec.ready = launch.ready_fd;
    if let Some(user) = &launch.user {
        let account = account::find(user)?;
        (spec.uid, spec.gid, spec.groups) =
            (Some(account.uid), Some(account.gid), Some(account.groups));
    }
    if let Some(nofile) = order.plan.limits.nofile {
        let resource = libc::RLIMIT_NOFILE;
        spec.rlimits.push(crate::keeper::Rlimit {
            resource,
            soft: nofile,
            hard: nofile,
        });
    }
    Ok(spec)
}

fn spawn_fault(refused: SpawnFault, launch: &NativeLaunch) -> StartFault {
    let (stage, doing) = match refused.stage {
        Stage::Request
        | Stage::Pipes
        | Stage::Clone
        | Stage::Session
        | Stage::Streams
        | Stage::Handover => (StartStage::Create, "create the process".to_owned()),
        Stage::EnterLimits | Stage::Rlimits => {
            (StartStage::EnterLimits, "set its limits".to_owned())
        }
        Stage::ChangeDir => (
            StartStage::ChangeDir,
            format!("change to {}", launch.workdir.display()),
        ),
        Stage::DropPrivileges => (StartStage::DropPrivileges, "become its user".to_owned()),
        Stage::Exec => (
            StartStage::Exec,
            format!("execute {}", launch.argv.first().map_or("", String::as_str)),
        ),
        Stage::KeeperGone => (
            StartStage::Identify,
            "learn what became of it: the keeper is gone".to_owned(),
        ),
    };
    io_fault(stage, &doing, &io::Error::from_raw_os_error(refused.errno))
}

fn io_fault(stage: StartStage, doing: &str, e: &io::Error) -> StartFault {
    let words = e.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    fault(stage, e.raw_os_error(), format!("cannot {doing}: {words}"))
}

fn fault(stage: StartStage, errno: Option<i32>, message: String) -> StartFault {
    StartFault {
        stage,
        errno,
        message,
        transient: errno.is_some_and(is_transient),
    }
}
