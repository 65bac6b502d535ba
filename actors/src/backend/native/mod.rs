//! Processes of this machine, by way of the keeper.
//!
//! Owns: the keeper's connection, the folder of tracking cgroups, and the grip on each process tree. Promises: an end
//! is reported only when the whole tree is gone, or what is left is named; a failed start leaves nothing; what cannot
//! be known is `unknown`. Never: forks, waits for a pid, or signals a number that it has not verified.

mod account;
mod adopt;
mod command;
mod confine;
mod grip;
mod keepers;
mod notify;

use super::{
    Backend, BackendFault, BoxFuture, ReadySource, StartOrder, Started, Streams, Survivor,
    is_transient,
};
use crate::cgroup::{Cgroups, Limit, ModuleGroups};
use crate::files::read::Recorded;
use crate::keeper::{
    CgroupDir, DeathPolicy, Inheritance, KeeperClient, KeeperOptions, SpawnFault, SpawnSpec,
    SpawnedChild, Stage, orphan::Remains,
};
use adopt::Left;
pub use adopt::lives;
use grip::Grip;
use keepers::Keepers;
use lair_manifests::launch::{Launch, Limits, NativeLaunch};
use lair_supervision::{ChildId, ChildIdentity, StartFault, StartStage};
use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Starts under way at once; more wait their turn.
pub const STARTS_IN_FLIGHT: usize = 64;

/// How long what has lost its keeper may take to die of KILL.
const REMAINS: Duration = Duration::from_secs(5);

/// How often such are looked for.
const LOOK: Duration = Duration::from_millis(20);

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
    keepers: Arc<Keepers>,
    left: Left,
    options: NativeOptions,
    cgroups: Cgroups,
    starts: Semaphore,
}

impl NativeBackend {
    /// Uses a running keeper, and no other if it dies.
    #[must_use]
    pub fn new(keeper: KeeperClient, options: NativeOptions) -> Self {
        Self::inheriting(keeper, None, Inheritance::default(), options)
    }

    /// Uses a running keeper, another one of this kind when it dies, and has what an earlier life left with it to be
    /// claimed.
    #[must_use]
    pub fn inheriting(
        keeper: KeeperClient,
        again: Option<KeeperOptions>,
        left: Inheritance,
        options: NativeOptions,
    ) -> Self {
        let former = adopt::lives(&left.children);
        let cgroups = Cgroups::find(&options.instance, keeper.keeper().pid, &former);
        let left = Left::sort(&keeper, left.children, left.stored);
        let keepers = Keepers::new(keeper, again, options.instance.clone());
        let starts = Semaphore::new(STARTS_IN_FLIGHT);
        NativeBackend {
            shared: Arc::new(Shared {
                keepers,
                left,
                options,
                cgroups,
                starts,
            }),
        }
    }

    /// The keeper in service.
    #[must_use]
    pub fn keeper_pid(&self) -> i32 {
        self.shared.keepers.itself().pid
    }

    /// Has the keeper hold duplicates of these descriptors for the next life.
    pub fn store(&self, tag: CString, fds: Vec<OwnedFd>) {
        self.shared.keepers.store(tag, fds);
    }

    /// Changes what the keeper does when this process ends.
    pub fn set_policy(&self, policy: DeathPolicy) {
        if let Some(Err(error)) = self
            .shared
            .keepers
            .current()
            .map(|keeper| keeper.set_policy(policy))
        {
            tracing::warn!(%error, "the keeper was not told what to do when lair ends");
        }
    }

    /// Resolves when the keeper has been sent everything that was asked of it, or is gone.
    pub async fn flushed(&self) {
        if let Some(keeper) = self.shared.keepers.current() {
            keeper.flushed().await;
        }
    }

    /// Kills what is left and waits until the keeper has ended; no other is started.
    pub async fn shutdown(&self) {
        if let Some(keeper) = self.shared.keepers.end() {
            keeper.shutdown().await;
        }
    }

    /// Ends what is left of runs (`ID.RUN`) of these lives whose keeper is gone, their leaders or not. `false`: not all of
    /// it died in time.
    #[allow(
        clippy::disallowed_methods,
        reason = "the backend has no clock; it waits for the kernel, as its other bounds do"
    )]
    pub async fn end_remains(&self, lives: &[String], runs: &[String]) -> bool {
        let each = lives
            .iter()
            .flat_map(|life| runs.iter().map(move |run| (life, run)));
        let mut remains = Remains::default();
        for (life, run) in each {
            remains.markers.insert(format!("{life}:{run}").into_bytes());
            let groups = self.shared.cgroups.of(life).found(run, &Limits::default());
            remains.groups.extend(groups.tracked().map(Path::to_owned));
        }
        if remains.markers.is_empty() {
            return true;
        }
        let gone = async {
            loop {
                let looked = remains.clone();
                let found = tokio::task::spawn_blocking(move || looked.kill()).await;
                match found {
                    Ok(0) => return,
                    Ok(found) => tracing::warn!(found, "they outlived their keeper: killed"),
                    Err(_) => {}
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let gone = tokio::time::timeout(REMAINS, gone).await.is_ok();
        for group in &remains.groups {
            let _ = fs::remove_dir(group);
        }
        gone
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
            BackendFault::KillKeeper => self
                .shared
                .keepers
                .current()
                .is_some_and(|k| k.kill_keeper()),
            BackendFault::DropEngine(_) => false,
        }
    }

    fn survivors(&self) -> BoxFuture<Vec<Survivor>> {
        let survivors = self.shared.left.list();
        Box::pin(async move { survivors })
    }

    fn adopt(&self, order: StartOrder, _known: [Recorded; 2]) -> BoxFuture<Option<Started>> {
        let shared = self.shared.clone();
        Box::pin(async move { adopt::adopt(&shared, &order) })
    }

    fn forget(&self, id: &ChildId, inc: u64) {
        if let Some(keeper) = self.shared.keepers.current() {
            self.shared.left.forget(&keeper, id, inc);
        }
    }

    fn disown(&self) -> Vec<String> {
        let keeper = self.shared.keepers.current();
        keeper.map_or_else(Vec::new, |keeper| self.shared.left.disown(&keeper))
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
    free_ports(&order).await?;
    if let Some(data) = &launch.data {
        own_folder(data, spec.uid, spec.gid).map_err(|e| {
            let doing = format!("make {}", data.display());
            io_fault(StartStage::PrepareDirs, &doing, &e)
        })?;
    }
    let notify = if launch.notify {
        Some(notify::bind(
            &shared.options.run_dir,
            &name,
            spec.uid.is_some(),
        )?)
    } else {
        None
    };
    if let Some(notify) = &notify {
        spec.env.push(notify.variable());
    }
    let groups = limit(&shared.cgroups, &name, &order.plan.limits)?;
    spec.cgroups.extend(join(&groups));
    let keeper = shared.keepers.living().await.ok_or_else(|| {
        let gone = "cannot create the process: the keeper has been ended".into();
        fault(StartStage::Create, None, gone)
    })?;
    let child = match keeper.spawn(spec).await {
        Ok(child) => child,
        Err(refused) => {
            groups.unmake();
            return Err(spawn_fault(refused, launch));
        }
    };
    Ok(grip(shared.clone(), keeper, &order, child, groups, notify))
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

/// Who starts a module by hand is told before; this is for restarts, whose port somebody else may have taken meanwhile.
async fn free_ports(order: &StartOrder) -> Result<(), StartFault> {
    if order.plan.ports.is_empty() {
        return Ok(());
    }
    let plan = order.plan.clone();
    let look = move || {
        let (port, taken) = crate::facts::taken_port(&plan.ports)?;
        Some(format!(
            "port {} ({}) is taken by {taken}",
            port.port, port.name
        ))
    };
    // What can't be looked at is left to the module itself.
    match tokio::task::spawn_blocking(look).await {
        Ok(Some(message)) => Err(fault(
            StartStage::PrepareDirs,
            Some(libc::EADDRINUSE),
            message,
        )),
        Ok(None) | Err(_) => Ok(()),
    }
}

fn grip(
    shared: Arc<Shared>,
    keeper: KeeperClient,
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
            Some((socket, path)) => {
                let tag = adopt::notify_tag(&format!("{}.{}", order.id, order.inc));
                if let Ok(copy) = socket.try_clone() {
                    shared.keepers.store(tag, vec![copy]);
                }
                (Some(ReadySource::Notify(socket)), Some(path))
            }
            None => (None, None),
        },
    };
    let grip = Grip::new(
        keeper,
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
        if uid.is_some() {
            pass_through(above)?;
            above.parent().map_or(Ok(()), pass_through)?;
        }
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

/// Lets other users through a folder of lair's, to what in it is theirs; they still can't list it.
fn pass_through(dir: &Path) -> io::Result<()> {
    let meta = fs::metadata(dir)?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    if ours && meta.mode() & 0o001 == 0 {
        let mode = (meta.mode() | 0o001) & 0o7777;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The words of a launch as a request to the keeper.
fn spec(
    shared: &Shared,
    launch: &NativeLaunch,
    order: &StartOrder,
    name: &str,
) -> Result<SpawnSpec, StartFault> {
    let text = |e: crate::keeper::SpecFault| fault(StartStage::Create, None, e.to_string());
    let mut spec = SpawnSpec::new(&launch.argv, launch.env.as_ref())
        .and_then(|s| s.in_dir(&launch.workdir))
        .and_then(|s| s.marked(&format!("{}:{name}", shared.options.instance)))
        .map_err(text)?;
    spec.no_new_privs = true;
    spec.stop_signal = order.plan.spec.stop_signal;
    spec.ready = launch.ready_fd;
    if let Some(user) = &launch.user {
        let account = account::find(user)?;
        spec.env.extend(account.environment(&launch.env));
        (spec.uid, spec.gid, spec.groups) =
            (Some(account.uid), Some(account.gid), Some(account.groups));
    }
    if !launch.secrets.is_empty() {
        let ours = |entry: &CString| {
            let name = entry.as_bytes().split(|b| *b == b'=').next();
            !name.is_some_and(|n| launch.secrets.keys().any(|key| key.as_bytes() == n))
        };
        spec.env.retain(ours);
        spec.env.extend(super::secrets::fetch(&launch.secrets)?);
    }
    spec.confine = confine::confine(&order.plan.limits)?;
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
        Stage::Confine => (
            StartStage::DropPrivileges,
            confine_words(refused.errno).to_owned(),
        ),
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

/// What could not be taken from it, by what the kernel said.
fn confine_words(errno: i32) -> &'static str {
    match errno {
        libc::EOPNOTSUPP | libc::ENOSYS => {
            "confine it: this kernel's Landlock can't hold the rules of its sandbox"
        }
        libc::EPERM => {
            "confine it: lair has not the right to give it what it keeps (`cap_add`), or a network of its own"
        }
        _ => "confine it",
    }
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
