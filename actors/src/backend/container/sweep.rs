//! Getting rid of containers: of an earlier life, of a start that failed, of a life that is over.
//!
//! Owns: removals, with patience for an engine that is away. Promises: nothing without this lair's label is touched; a
//! removal that was begun is tried until the engine has confirmed it or the runtime ends. Never: stops politely.

use super::engine::{ContainerFacts, LABEL_INSTANCE, LABEL_MODULE, LABEL_RUN};
use super::fault::{EngineFault, EngineFaultKind};
use super::{News, QUICK, SLOW, Shared, pause, within};
use crate::backend::StartOrder;
use lair_supervision::ChildId;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(500);
/// Tries of a removal that the engine refuses; an absent engine is waited for without counting.
const TRIES: u32 = 20;

/// Removes what an earlier life left. An engine that is away is asked again at the next start.
pub(super) async fn once(shared: &Arc<Shared>) {
    let sweep = || async {
        let listed = within(
            QUICK,
            "list containers",
            shared.engine.list(shared.own_label()),
        )
        .await?;
        for old in listed {
            let module = ChildId::new(old.labels.get(LABEL_MODULE).map_or("", String::as_str));
            let run = old.labels.get(LABEL_RUN).and_then(|r| r.parse().ok());
            let run: u64 = run.unwrap_or(0);
            // An engine that ignores filters lists strangers; what this life has ordered is in use.
            let ours = old.labels.get(LABEL_INSTANCE) == Some(&shared.options.instance);
            let in_use = shared.ordered().contains(&(module.clone(), run));
            let found = shared.left.has(&old.id) || shared.adopted().contains(&old.id);
            if !ours || in_use || found {
                continue;
            }
            within(SLOW, "remove a container", shared.engine.remove(&old.id)).await?;
            let what = format!("container {} of an earlier life was removed", old.name);
            shared.tell(&module, run, News::Reclaimed(what));
        }
        shared.ordered().clear();
        Ok::<(), EngineFault>(())
    };
    let swept = shared.swept.get_or_try_init(sweep).await;
    if let Err(fault) = swept {
        tracing::debug!(%fault, "what an earlier life left could not be looked for");
    }
}

/// Somebody has the name. What is ours is removed; a stranger is left alone.
pub(super) async fn reclaim(
    shared: &Arc<Shared>,
    order: &StartOrder,
    name: &str,
) -> Result<(), EngineFault> {
    let found = within(QUICK, "inspect a container", shared.engine.inspect(name)).await?;
    let Some(found) = found else { return Ok(()) };
    if !is_ours(shared, &found, &order.id) {
        let what =
            format!("a container that is not this lair's has the name {name}; rename or remove it");
        return Err(EngineFault::new(EngineFaultKind::NameTaken, &what));
    }
    if shared.removing().contains(&found.id) {
        // The last life's, on its way out.
        return Ok(());
    }
    within(SLOW, "remove a container", shared.engine.remove(&found.id)).await?;
    let what = format!("leftover container {name} was removed");
    shared.tell(&order.id, order.inc, News::Reclaimed(what));
    Ok(())
}

fn is_ours(shared: &Shared, found: &ContainerFacts, id: &ChildId) -> bool {
    let label = |key| found.labels.get(key).map(String::as_str);
    label(LABEL_INSTANCE) == Some(shared.options.instance.as_str())
        && label(LABEL_MODULE) == Some(id.as_str())
}

/// Removes a container in the background, as often as it takes.
pub(super) fn remove(shared: &Arc<Shared>, id: String) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        // The next life sweeps it.
        return;
    };
    shared.removing().insert(id.clone());
    let shared = shared.clone();
    runtime.spawn(async move {
        if let Err(fault) = remove_now(&shared, &id).await {
            tracing::error!(container = id, %fault, "could not be removed; the next start tries again");
        }
        shared.removing().remove(&id);
        shared.removed.notify_waiters();
    });
}

/// Removes a container and answers when the engine has confirmed it.
pub(super) async fn remove_now(shared: &Arc<Shared>, id: &str) -> Result<(), EngineFault> {
    let mut tries = 0;
    loop {
        match within(SLOW, "remove a container", shared.engine.remove(id)).await {
            Ok(()) => return Ok(()),
            Err(fault) if fault.kind.is_absence() => shared.presence.note(false),
            Err(fault) => {
                tries += 1;
                if tries >= TRIES {
                    return Err(fault);
                }
            }
        }
        pause(AGAIN).await;
    }
}

/// An engine went away in the middle of a create: looks for what it may have made until it answers.
pub(super) fn undo(shared: &Arc<Shared>, order: &StartOrder) {
    let (shared, id, inc) = (shared.clone(), order.id.clone(), order.inc);
    tokio::spawn(async move {
        let mut labels = shared.own_label();
        labels.insert(LABEL_MODULE.to_owned(), id.to_string());
        labels.insert(LABEL_RUN.to_owned(), inc.to_string());
        loop {
            pause(AGAIN).await;
            let listed = within(QUICK, "list containers", shared.engine.list(labels.clone())).await;
            if let Ok(listed) = listed {
                for made in listed {
                    remove(&shared, made.id);
                }
                return;
            }
        }
    });
}
