//! One start: the image, then create, attach, start.
//!
//! Owns: the order of the steps. Promises: no byte of output is missed; the container's first process is known and
//! watched before it can end unseen where the engine allows; any failure removes what was made. Never: retries a step,
//! but for a name that a leftover of ours had, and an init that the engine has not.

use super::away::{self, Whose};
use super::engine::{ContainerState, CreateSpec, ImageFacts, Progress};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::Feed;
use super::grip::{Grip, Life};
use super::wanted::{differences, wanted};
use super::{News, QUICK, SLOW, Shared, pause, sweep, within};
use crate::backend::{StartOrder, Started, secrets};
use lair_manifests::launch::{ContainerLaunch, Launch};
use lair_supervision::{ChildIdentity, StartFault, StartStage};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

/// How often a name may be taken by what is on its way out.
const NAME_TRIES: u32 = 100;
/// Refusals to say how it is that are taken for a passing thing.
const REFUSALS: u32 = 5;
/// Between two looks at a container that is neither here nor there.
const LOOK: Duration = Duration::from_millis(20);

fn launch_of(order: &StartOrder) -> Option<&ContainerLaunch> {
    match &order.plan.launch {
        Launch::Container(launch) => Some(launch),
        Launch::Native(_) => None,
    }
}

/// Finds the image, or fetches it where the manifest allows that.
pub(super) async fn image(
    shared: &Arc<Shared>,
    order: &StartOrder,
) -> Result<Arc<ImageFacts>, StartFault> {
    let find = async {
        let missing = || EngineFault::new(EngineFaultKind::NoSuchImage, "the plan names no image");
        let launch = launch_of(order).ok_or_else(missing)?;
        let look = || {
            within(
                QUICK,
                "look for the image",
                shared.engine.find_image(&launch.image),
            )
        };
        if launch.pull != "always"
            && let Some(found) = look().await?
        {
            return Ok(found);
        }
        if launch.pull == "never" {
            let what = format!(
                "image {} is not here, and `pull: never` forbids to fetch it",
                launch.image
            );
            return Err(EngineFault::new(EngineFaultKind::NoSuchImage, &what));
        }
        pull(shared, order, &launch.image).await?;
        look().await?.ok_or_else(|| {
            let what = format!("image {} was fetched and is not here", launch.image);
            EngineFault::new(EngineFaultKind::NoSuchImage, &what)
        })
    };
    let found: Result<ImageFacts, EngineFault> = find.await;
    found
        .map(Arc::new)
        .map_err(|f| f.at(StartStage::ResolveImage))
}

async fn pull(shared: &Arc<Shared>, order: &StartOrder, image: &str) -> Result<(), EngineFault> {
    let (teller, id, inc) = (Arc::downgrade(shared), order.id.clone(), order.inc);
    let progress: Progress = Arc::new(move |line| {
        if let Some(shared) = teller.upgrade() {
            shared.tell(&id, inc, News::Pulling(line.to_owned()));
        }
    });
    shared.tell(
        &order.id,
        order.inc,
        News::Pulling(format!("fetching {image}")),
    );
    let limit = shared.options.pull_within;
    within(
        limit,
        "fetch the image",
        shared.engine.pull(image, progress),
    )
    .await
}

/// Makes what is missing of the module's own folder, where a volume lies in it. Who runs lair owns it.
fn own_folders(launch: &ContainerLaunch) -> Result<(), EngineFault> {
    for volume in launch.volumes.iter().filter(|v| v.own) {
        let mut folder = DirBuilder::new();
        let made = folder.mode(0o750).recursive(true).create(&volume.source);
        made.map_err(|e| {
            let what = format!("{} can't be made: {e}", volume.source.display());
            EngineFault::new(EngineFaultKind::NoSuchMount, &what)
        })?;
    }
    Ok(())
}

/// Makes and starts the container.
pub(super) async fn make(
    shared: Arc<Shared>,
    order: StartOrder,
    image: Arc<ImageFacts>,
) -> Result<Started, StartFault> {
    let missing = || EngineFault::new(EngineFaultKind::Refused, "the plan is not for a container");
    let launch = launch_of(&order).ok_or_else(|| missing().at(StartStage::Create))?;
    let mut spec = wanted(&order, launch, &shared.options.instance, &image.id);
    spec.env.extend(secrets::texts(&launch.secrets)?);
    own_folders(launch).map_err(|f| f.at(StartStage::PrepareDirs))?;
    for mount in &spec.mounts {
        // Docker would make the folder, as root.
        if !mount.source.exists() {
            let what = format!("{} is not there to be mounted", mount.source.display());
            let fault = EngineFault::new(EngineFaultKind::NoSuchMount, &what);
            return Err(fault.at(StartStage::PrepareDirs));
        }
    }
    let gpus = !spec.devices.is_empty();
    let (id, spec) = create(&shared, &order, spec).await.map_err(|fault| {
        if fault.kind.is_absence() {
            sweep::undo(&shared, &order);
        }
        advised(&shared, gpus, fault).at(StartStage::Create)
    })?;
    match run(&shared, &order, &id, &spec, image).await {
        Ok(started) => Ok(started),
        Err(fault) => {
            if fault.errno.is_none() {
                tracing::debug!(
                    container = id,
                    message = fault.message,
                    "removed: its start failed"
                );
            }
            let removal = within(SLOW, "remove it", shared.engine.remove(&id)).await;
            if removal.is_err() {
                sweep::remove(&shared, id);
            }
            Err(fault)
        }
    }
}

async fn create(
    shared: &Arc<Shared>,
    order: &StartOrder,
    spec: CreateSpec,
) -> Result<(String, Arc<CreateSpec>), EngineFault> {
    let mut spec = Arc::new(spec);
    let mut tries = 0;
    loop {
        match shared.engine.create(spec.clone()).await {
            Ok(id) => return Ok((id, spec)),
            Err(fault) if fault.kind == EngineFaultKind::NameTaken && tries < NAME_TRIES => {
                tries += 1;
                sweep::reclaim(shared, order, &spec.name).await?;
                pause(LOOK).await;
            }
            Err(fault) if fault.kind == EngineFaultKind::NoInit && spec.init => {
                let what = format!("no init is its first process: {}", fault.reason);
                shared.tell(&order.id, order.inc, News::Differs(vec![what]));
                Arc::make_mut(&mut spec).init = false;
            }
            Err(fault) => return Err(fault),
        }
    }
}

async fn run(
    shared: &Arc<Shared>,
    order: &StartOrder,
    id: &str,
    spec: &Arc<CreateSpec>,
    image: Arc<ImageFacts>,
) -> Result<Started, StartFault> {
    let advised = |f| advised(shared, !spec.devices.is_empty(), f);
    let create = |f: EngineFault| advised(f).at(StartStage::Create);
    let (feed, streams) = Feed::new().map_err(create)?;
    let attach = shared.engine.attach(id, feed);
    let output = within(SLOW, "attach to it", attach).await.map_err(create)?;
    let early = match shared.engine.shows_process_early() {
        true => look(shared, id).await.map_err(create)?,
        false => None,
    };
    let mut life = early.and_then(|facts| Life::of(facts.pid?, id));
    let start = within(SLOW, "start it", shared.engine.start(id)).await;
    start.map_err(|f| advised(f).at(StartStage::Start))?;
    let facts = settled(shared, id)
        .await
        .map_err(|f| f.at(StartStage::Identify))?;
    if let (ContainerState::Exited, Some(error)) = (facts.state, facts.error.as_deref()) {
        let fault = EngineFault::of_words(error, EngineFaultKind::Refused);
        return Err(advised(fault).at(StartStage::Start));
    }
    if life.is_none() {
        life = facts.pid.and_then(|pid| Life::of(pid, id));
    }
    let differs = differences(spec, &facts.applied);
    if !differs.is_empty() {
        shared.tell(&order.id, order.inc, News::Differs(differs));
    }
    let pid = life.as_ref().map(Life::pid);
    let grip = Grip::begin(shared, id, spec, image, life, facts.applied);
    let whose = Whose {
        shared: shared.clone(),
        container: id.to_owned(),
        module: order.id.clone(),
        run: order.inc,
    };
    let output = away::of_new(whose, output, &grip);
    grip.hands_on(tokio::spawn(output));
    Ok(Started {
        identity: ChildIdentity::Container {
            engine_id: id.to_owned(),
            init_pid: pid,
        },
        streams,
        ready: None,
        handle: grip,
    })
}

/// With the next step, where the engine knows no such GPU.
fn advised(shared: &Arc<Shared>, gpus: bool, mut fault: EngineFault) -> EngineFault {
    if gpus && fault.kind == EngineFaultKind::NoSuchDevice {
        let how = shared.engine.how_to_have_gpus();
        fault.reason = format!("{}; {how}", fault.reason);
    }
    fault
}

/// The container, where it is.
async fn look(
    shared: &Arc<Shared>,
    id: &str,
) -> Result<Option<super::engine::ContainerFacts>, EngineFault> {
    within(QUICK, "inspect it", shared.engine.inspect(id)).await
}

/// The container once the engine has made up its mind that it runs, or has run.
async fn settled(
    shared: &Arc<Shared>,
    id: &str,
) -> Result<super::engine::ContainerFacts, EngineFault> {
    let wait = async {
        let mut refusals = 0;
        loop {
            let there = match look(shared, id).await {
                // Podman reads files of its process, and fails over one that ends meanwhile.
                Err(fault) if fault.kind == EngineFaultKind::Refused && refusals < REFUSALS => {
                    refusals += 1;
                    pause(LOOK).await;
                    continue;
                }
                there => there?,
            };
            match there {
                Some(facts)
                    if !matches!(
                        facts.state,
                        ContainerState::Created | ContainerState::Between
                    ) =>
                {
                    return Ok(facts);
                }
                Some(_) => pause(LOOK).await,
                None => {
                    let what = "it is gone right after its start";
                    return Err(EngineFault::new(EngineFaultKind::NoSuchContainer, what));
                }
            }
        }
    };
    within(QUICK, "say that it runs", wait).await
}
