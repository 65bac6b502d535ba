//! Declared ports before a start: allowed by the configuration, and not somebody else's already.
//!
//! Owns: the refusals `lan_not_allowed` and `port_taken`. Promises: the holder is named as far as it can be seen: process,
//! program, and the module if it is one of ours. Never: ends anybody.

use crate::handle::{Inner, Refused};
use lair_actors::facts::{self, Taken, belongs};
use lair_actors::view::{Board, View};
use lair_manifests::launch::LaunchPlan;
use lair_manifests::runtime::OnExposure;
use lair_supervision::Phase;
use std::sync::Arc;

/// What the configuration says of a plan's exposure.
///
/// # Errors
/// `lan_not_allowed`.
pub(crate) fn allow(inner: &Inner, mut plan: LaunchPlan) -> Result<LaunchPlan, Refused> {
    let config = inner.config();
    let keys = &config.exposure;
    plan.limits.exposure_enforced |= keys.mode == OnExposure::Enforce;
    let open = plan.ports.iter().find(|port| port.is_for_others());
    let Some(open) = open.filter(|_| !keys.allow_lan) else {
        return Ok(plan);
    };
    let (module, port, name) = (&plan.spec.id, open.port, &open.name);
    let message = format!(
        "`{module}` declares port {port} ({name}) with `expose: lan`, which the configuration does not allow"
    );
    Err(Refused::new("lan_not_allowed", message).help(
        "set `runtime.exposure.allow_lan: true` in lair's configuration, or leave `expose: lan` out",
    ))
}

/// Before a module that is down is started: whether its ports are somebody else's.
///
/// # Errors
/// `port_taken`.
pub(crate) async fn check(inner: &Inner, name: &str) -> Result<(), Refused> {
    let down = |view: &Arc<View>| view.child.is_down() && !view.plan.ports.is_empty();
    let view = inner.board.get(name).filter(down);
    let Some(view) = view.filter(|_| inner.cgroups.is_some()) else {
        return Ok(());
    };
    let look = || {
        let (board, view) = (inner.board.clone(), view.clone());
        tokio::task::spawn_blocking(move || are_free(&board, &view))
    };
    let found = look().await.unwrap_or(Ok(()));
    // An engine holds a container's ports until it has removed it, which is under way when the module is down.
    if found.is_err() && crate::containers::removed(&inner.engines).await {
        return look().await.unwrap_or(Ok(()));
    }
    found
}

/// Whether a module's ports are free. Blocks for as long as /proc takes.
///
/// # Errors
/// `port_taken`.
fn are_free(board: &Board, view: &View) -> Result<(), Refused> {
    let Some((port, taken)) = facts::taken_port(&view.plan.ports) else {
        return Ok(());
    };
    let module = &view.plan.spec.id;
    let (name, number) = (&port.name, port.port);
    let whose = owner(board, &taken);
    let by = match &whose {
        Some(other) => format!("{taken}, of the module `{other}`"),
        None => taken.to_string(),
    };
    let message = format!("port {number} ({name}) of `{module}` is taken by {by}");
    let help = match &whose {
        Some(other) => format!("`lair stop {other}`, or give one of the two another port"),
        None => "end that program, or give the module another port".to_owned(),
    };
    let data = serde_json::json!({
        "port": number,
        "address": taken.address,
        "pid": taken.holder.as_ref().map(|h| h.pid),
        "program": taken.holder.as_ref().map(|h| h.command.as_str()),
        "module": whose,
    });
    Err(Refused::new("port_taken", message).help(&help).with(data))
}

fn owner(board: &Board, taken: &Taken) -> Option<String> {
    let pid = taken.holder.as_ref()?.pid;
    let views = board.all();
    let running = views.iter().filter(|v| {
        matches!(
            v.child.phase,
            Phase::Up { .. } | Phase::Stopping { .. } | Phase::Spawning { .. }
        )
    });
    running
        .filter_map(|view| Some((view, view.handle.as_ref()?.tree())))
        .find(|(_, tree)| belongs(pid, tree) == Some(true))
        .map(|(view, _)| view.plan.spec.id.to_string())
}
