//! Container engines in a runtime: which there are, by the configuration, and what they are for selection and doctor.
//!
//! Owns: this lair's name on engines (the file `instance` in the state folder). Promises: an engine that is switched off
//! is not even asked; asking is bounded and its answers are kept for a while. Never: starts a container.

use crate::folders::Folders;
use crate::runtime::RuntimeError;
use lair_actors::backend::Backend;
use lair_actors::backend::container::engine::EngineInfo;
use lair_actors::backend::container::find::{EnginePlaces, Engines, Finding};
use lair_actors::backend::container::{ContainerOptions, Orphans};
use lair_actors::clock::Clock;
use lair_actors::keeper::DeathPolicy;
use lair_actors::messages::RootMsg;
use lair_manifests::config::RuntimeConfig;
use lair_manifests::facts::EngineFacts;
use lair_manifests::launch::{Launch, LaunchPlan};
use ractor::ActorRef;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How old the engines' answers may be when a module is loaded.
const FRESH: Duration = Duration::from_secs(30);
/// Longest time to fetch an image.
const PULL_WITHIN: Duration = Duration::from_secs(30 * 60);
/// How long containers may take to be removed when everything is down.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);
/// How long a start waits for a port that a container had which is being removed.
const PORTS_WITHIN: Duration = Duration::from_secs(5);

/// The engines that the configuration allows.
pub(crate) fn engines(
    mut places: EnginePlaces,
    config: &RuntimeConfig,
    folders: &Folders,
    clock: &Arc<dyn Clock>,
) -> Result<Engines, RuntimeError> {
    places.switch_off(!config.podman(), !config.docker_enabled);
    let unusable = |e: io::Error| RuntimeError::Folder {
        path: folders.state.clone(),
        why: e.to_string(),
    };
    let options = ContainerOptions {
        instance: instance(&folders.state).map_err(unusable)?,
        pull_within: PULL_WITHIN,
        mark: Some(folders.state.join("containers")),
    };
    Ok(Engines::new(places, &options, clock.clone()))
}

/// Names this lair on engines, the same for all its lives: kept with its state, since its containers may outlive it.
fn instance(state: &Path) -> io::Result<String> {
    let path = state.join("instance");
    let is_name = |name: &str| name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit());
    match std::fs::read_to_string(&path) {
        Ok(name) if is_name(name.trim()) => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // Random, and no secret.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let name = format!("{:012x}", random & 0xffff_ffff_ffff);
    std::fs::write(&path, format!("{name}\n"))?;
    Ok(name)
}

/// As the root wants them.
pub(crate) fn backends(engines: &Engines) -> BTreeMap<String, Arc<dyn Backend>> {
    let all = engines.backends().iter();
    all.map(|(name, backend)| ((*name).to_owned(), backend.clone() as Arc<dyn Backend>))
        .collect()
}

/// The root publishes what the backends have to tell.
pub(crate) fn hear_news(engines: &Engines, root: &ActorRef<RootMsg>) {
    for backend in engines.backends().values() {
        let root = root.clone();
        backend.on_news(Arc::new(move |id, inc, news| {
            let id = id.clone();
            let _ = root.cast(RootMsg::News { id, inc, news });
        }));
    }
}

/// What shall become of containers if this process dies without a word.
pub(crate) fn set_orphans(engines: &Engines, policy: DeathPolicy) {
    let orphans = match policy {
        DeathPolicy::Keep => Orphans::Keep,
        DeathPolicy::Kill { .. } => Orphans::End,
    };
    for backend in engines.backends().values() {
        backend.set_orphans(orphans);
    }
}

/// Looks for containers that an earlier life left.
pub(crate) async fn look_back(engines: &Engines, policy: DeathPolicy) {
    set_orphans(engines, policy);
    let looks = engines.backends().values().cloned().map(|backend| {
        tokio::spawn(async move {
            backend.look_back().await;
        })
    });
    for look in looks.collect::<Vec<_>>() {
        let _ = look.await;
    }
}

/// Waits until no container is left of what has ended.
pub(crate) async fn settle(engines: &Engines) {
    for (name, backend) in engines.backends() {
        let left = backend.settle(REMOVED_WITHIN).await;
        if left > 0 {
            tracing::error!(
                engine = name,
                left,
                "containers are not removed yet; the next start of this lair does it"
            );
        }
    }
}

/// Waits for removals that are under way, and says whether there were any.
pub(crate) async fn removed(engines: &Engines) -> bool {
    let mut any = false;
    for backend in engines.backends().values() {
        if backend.settle(Duration::ZERO).await > 0 {
            any = true;
            backend.settle(PORTS_WITHIN).await;
        }
    }
    any
}

/// What selection decides by. Blocks for at most 10 s: call it from a blocking thread.
pub(crate) fn facts(engines: &Engines) -> Vec<EngineFacts> {
    look(engines, FRESH).into_iter().map(fact).collect()
}

/// What each engine says now. Blocks as [`facts`].
pub(crate) fn look_again(engines: &Engines) -> Vec<Finding> {
    look(engines, Duration::ZERO)
}

/// On a thread and a small runtime of its own: the caller may be inside the host's runtime, or in none.
fn look(engines: &Engines, age: Duration) -> Vec<Finding> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .map(|r| r.block_on(engines.look(age)))
            .unwrap_or_default()
    };
    std::thread::scope(|scope| scope.spawn(ask).join().unwrap_or_default())
}

fn fact(found: Finding) -> EngineFacts {
    EngineFacts {
        name: found.name.to_owned(),
        version: found.info.as_ref().ok().map(|i| i.version.clone()),
        usable: found.info.map(|_| ()).map_err(|fault| fault.to_string()),
    }
}

/// Which engine `auto` is: the first that answers and may be used.
pub(crate) fn with_engine(
    mut plan: LaunchPlan,
    engines: &[EngineFacts],
    config: &RuntimeConfig,
) -> LaunchPlan {
    let Launch::Container(launch) = &mut plan.launch else {
        return plan;
    };
    let named = launch.engine.clone();
    let mut usable = engines
        .iter()
        .filter(|e| e.usable.is_ok() && config.engine_enabled(&e.name));
    let found = usable.find(|e| named == "auto" || named == e.name);
    if let Some(engine) = found {
        launch.engine.clone_from(&engine.name);
        let version = engine.version.as_deref().unwrap_or("of unknown version");
        let why = match named.as_str() {
            "auto" => "the first that answers",
            _ => "as the manifest says",
        };
        let line = format!("engine: {} {version}, {why}", engine.name);
        plan.explanation.push(line);
    }
    plan
}

/// One line on an engine for people.
pub(crate) fn describe(info: &EngineInfo) -> String {
    let rootless = if info.rootless { "rootless" } else { "rootful" };
    let cgroup = info
        .cgroup_version
        .map_or_else(|| "cgroup unknown".into(), |v| format!("cgroup v{v}"));
    let cdi = if info.cdi { ", CDI" } else { "" };
    format!("{}, {rootless}, {cgroup}{cdi}", info.version)
}
