//! A command in a child's context: its environment, folder and user, in a group of its own below the child's.

use super::{Shared, spec};
use crate::backend::{CommandOutcome, StartOrder};
use crate::cgroup::ModuleGroups;
use crate::keeper::{CgroupDir, EmptyNote, Ending, ExitNote, KeeperClient, SpawnedChild, Streams};
use lair_manifests::launch::{Launch, LaunchPlan};
use lair_supervision::{ExitStatus, StartFault};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Output of a command that is kept; the rest is read and dropped.
const KEPT: usize = 64 << 10;

/// After KILL, how long the proof of death may take.
const VANISH: Duration = Duration::from_secs(5);

static SERIAL: AtomicU64 = AtomicU64::new(0);

pub(super) async fn run(
    shared: Arc<Shared>,
    plan: Arc<LaunchPlan>,
    groups: ModuleGroups,
    argv: Vec<String>,
    timeout: Duration,
) -> CommandOutcome {
    let Some(keeper) = shared.keepers.living().await else {
        return CommandOutcome::CouldNotRun("the keeper has been ended".into());
    };
    match spawn(&shared, &keeper, plan, &groups, argv).await {
        // On a task of its own: a caller that stops waiting must not leave the command behind.
        Ok(child) => tokio::spawn(finish(keeper, child, timeout))
            .await
            .unwrap_or_else(|e| CommandOutcome::CouldNotRun(e.to_string())),
        Err(fault) => CommandOutcome::CouldNotRun(fault.message),
    }
}

async fn spawn(
    shared: &Shared,
    keeper: &KeeperClient,
    plan: Arc<LaunchPlan>,
    groups: &ModuleGroups,
    argv: Vec<String>,
) -> Result<SpawnedChild, StartFault> {
    let Launch::Native(launch) = &plan.launch else {
        return Err(super::fault(
            lair_supervision::StartStage::Create,
            None,
            "not a native module".into(),
        ));
    };
    let mut launch = launch.clone();
    launch.argv = argv;
    launch.ready_fd = false;
    let order = StartOrder {
        id: plan.spec.id.clone(),
        inc: 0,
        plan: plan.clone(),
    };
    let name = format!("probe-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    let mut spec = spec(shared, &launch, &order, &name)?;
    // What it uses is the module's.
    let (own, joined) = groups.nested(&name);
    let own_dir = own.as_deref();
    let mut join = |dir: &Path, v2, ours| spec.cgroups.extend(CgroupDir::new(dir, v2, ours).ok());
    own_dir.into_iter().for_each(|dir| join(dir, true, true));
    joined.iter().for_each(|dir| join(dir, false, false));
    keeper.spawn(spec).await.map_err(|refused| {
        // The keeper removes the group of what it started, and it started nothing.
        let _ = own_dir.map(std::fs::remove_dir);
        super::spawn_fault(refused, &launch)
    })
}

async fn finish(keeper: KeeperClient, child: SpawnedChild, timeout: Duration) -> CommandOutcome {
    let SpawnedChild {
        key,
        streams,
        exit,
        empty,
        ..
    } = child;
    // The leader's word counts; what it left in the background is ended with it, which also ends the output.
    let leader = async {
        let note = tokio::time::timeout(timeout, exit).await;
        let _ = keeper.kill(key);
        let _: Result<Result<EmptyNote, _>, _> = tokio::time::timeout(VANISH, empty).await;
        note
    };
    let output = tokio::time::timeout(timeout + VANISH, read(streams));
    let (note, output) = tokio::join!(leader, output);
    let _ = keeper.ack(key);
    match note {
        Ok(note) => {
            let ending = note
                .unwrap_or(ExitNote {
                    ending: Ending::Unknown,
                    tree_empty: true,
                })
                .ending;
            CommandOutcome::Ended {
                status: status(ending),
                output: output.unwrap_or_default(),
            }
        }
        Err(_) => CommandOutcome::TimedOut,
    }
}

fn status(ending: Ending) -> ExitStatus {
    match ending {
        Ending::Code(code) => ExitStatus::Code(code),
        Ending::Signal { signal, .. } => ExitStatus::Signal(signal),
        Ending::Unknown => ExitStatus::Unknown,
    }
}

async fn read(streams: Streams) -> Vec<u8> {
    let (mut out, err) = tokio::join!(read_one(streams.stdout), read_one(streams.stderr));
    out.extend(err);
    out.truncate(KEPT);
    out
}

async fn read_one(fd: OwnedFd) -> Vec<u8> {
    let mut kept = Vec::new();
    let Ok(mut pipe) = Receiver::from_owned_fd(fd) else {
        return kept;
    };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let room = KEPT.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&buffer[..room]);
    }
    kept
}
