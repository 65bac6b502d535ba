//! `module.*`: load, unload, start, stop, restart, kill, freeze, thaw, park, wake, status, list, explain, wait.

use super::results::{Done, List, LoadResult, LoadedModule, Outcome, Started, Status, Why};
use super::types::{
    KillParams, LoadParams, NoParams, OneModule, SignalWord, StartParams, StopParams, WaitParams,
    WhyParams,
};
use super::{Context, Registry, change, now, wait};
use crate::bridge::wire::RpcError;
use crate::handle::{ManifestSource, ParkReport};
use crate::resources::ProcessReport;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

pub(super) fn register(all: &mut Registry) {
    all.insert(
        "module.load",
        change(
            "Loads every module of a manifest or stack; all or nothing.",
            load,
        ),
    );
    all.insert(
        "module.unload",
        change("Forgets a module that is down.", unload),
    );
    all.insert(
        "module.start",
        change(
            "Starts a loaded module, or loads a manifest and starts it.",
            start,
        ),
    );
    all.insert(
        "module.stop",
        change("Stops a module: signal, grace, KILL.", stop),
    );
    all.insert(
        "module.restart",
        change("Stops a module and starts a new run.", restart),
    );
    all.insert(
        "module.kill",
        change(
            "Kills a module's whole tree at once, or sends its leader a signal.",
            kill,
        ),
    );
    all.insert(
        "module.freeze",
        change(
            "Holds all of a module's processes still; its probes rest meanwhile.",
            freeze,
        ),
    );
    all.insert(
        "module.thaw",
        change("Lets a module that is held still go on.", thaw),
    );
    all.insert(
        "module.park",
        change(
            "Sends the request by which a module lets go of memory, and answers when it lets go of no more.",
            park,
        ),
    );
    all.insert(
        "module.wake",
        change(
            "Sends the request by which a module takes its memory again, and answers when it serves.",
            wake,
        ),
    );
    all.insert("module.status", now("One module's status.", status));
    all.insert(
        "module.list",
        now("All modules' status, in name order.", list),
    );
    all.insert(
        "module.explain",
        now("Why a module runs in its mode, one line a step.", explain),
    );
    all.insert(
        "module.processes",
        wait("The processes of a module's tree, one by one.", processes),
    );
    all.insert(
        "module.why",
        wait(
            "A run's dossier: how it ended, the known cause, what to do now.",
            why,
        ),
    );
    all.insert(
        "module.wait",
        wait(
            "Answers when a module is in a state, or can no longer get there.",
            wait_for,
        ),
    );
}

async fn load(cx: Context, p: LoadParams) -> Result<LoadResult, RpcError> {
    let (source, options) = p.split()?;
    let file = match &source {
        ManifestSource::File(path) => vec![path.clone()],
        ManifestSource::Text { .. } => Vec::new(),
    };
    let loaded = cx.handle.load(source, options, cx.origin()).await?;
    let names: Vec<String> = loaded.iter().map(|(name, _)| name.clone()).collect();
    let modules = loaded
        .into_iter()
        .map(|(name, result)| LoadedModule { name, result })
        .collect();
    let orphans = cx.handle.orphans(&file, &names);
    Ok(LoadResult { modules, orphans })
}

async fn processes(cx: Context, p: OneModule) -> Result<ProcessReport, RpcError> {
    Ok(cx.handle.processes(p.name.as_str()).await?)
}

async fn unload(cx: Context, p: OneModule) -> Result<Done, RpcError> {
    cx.handle.unload(p.name.as_str(), cx.origin()).await?;
    Ok(Done { done: true })
}

async fn start(cx: Context, p: StartParams) -> Result<Started, RpcError> {
    let names = match p.split()? {
        Ok(name) => vec![name.as_str().to_owned()],
        Err(manifest) => {
            let loaded = load(cx.clone(), manifest).await?;
            loaded.modules.into_iter().map(|m| m.name).collect()
        }
    };
    let mut modules = Vec::with_capacity(names.len());
    for name in names {
        let answer = cx.handle.start(&name, cx.origin()).await?;
        modules.push(Outcome::of(&name, answer)?);
    }
    let Some(first) = modules.first().cloned() else {
        return Err(RpcError::invalid_params("the manifest has no module"));
    };
    if modules.len() == 1 {
        modules.clear();
    }
    Ok(Started { first, modules })
}

async fn stop(cx: Context, p: StopParams) -> Result<Outcome, RpcError> {
    let grace = p.grace_ms.map(Duration::from_millis);
    let answer = cx.handle.stop(p.name.as_str(), grace, cx.origin()).await?;
    Outcome::of(p.name.as_str(), answer)
}

async fn restart(cx: Context, p: StopParams) -> Result<Outcome, RpcError> {
    let grace = p.grace_ms.map(Duration::from_millis);
    let answer = cx
        .handle
        .restart(p.name.as_str(), grace, cx.origin())
        .await?;
    Outcome::of(p.name.as_str(), answer)
}

async fn kill(cx: Context, p: KillParams) -> Result<Outcome, RpcError> {
    let signal = match &p.signal {
        None => None,
        Some(SignalWord::Number(n)) if (1..=64).contains(n) => Some(*n),
        Some(SignalWord::Name(word)) if crate::signals::number(word).is_some() => {
            crate::signals::number(word)
        }
        Some(other) => {
            return Err(RpcError::invalid_params(&format!(
                "there is no signal {other:?}"
            )));
        }
    };
    let answer = cx.handle.kill(p.name.as_str(), signal, cx.origin()).await?;
    Outcome::of(p.name.as_str(), answer)
}

async fn freeze(cx: Context, p: OneModule) -> Result<Outcome, RpcError> {
    let answer = cx.handle.freeze(p.name.as_str(), cx.origin()).await?;
    Outcome::of(p.name.as_str(), answer)
}

async fn thaw(cx: Context, p: OneModule) -> Result<Outcome, RpcError> {
    let answer = cx.handle.thaw(p.name.as_str(), cx.origin()).await?;
    Outcome::of(p.name.as_str(), answer)
}

async fn park(cx: Context, p: OneModule) -> Result<ParkReport, RpcError> {
    Ok(cx.handle.park(p.name.as_str(), cx.origin()).await?)
}

async fn wake(cx: Context, p: OneModule) -> Result<ParkReport, RpcError> {
    Ok(cx.handle.wake(p.name.as_str(), cx.origin()).await?)
}

fn status(cx: &Context, p: OneModule) -> Result<Status, RpcError> {
    Ok(Status(cx.handle.status(p.name.as_str())?))
}

fn list(cx: &Context, _: NoParams) -> Result<List, RpcError> {
    let (seq, modules) = cx.handle.list();
    Ok(List { seq, modules })
}

#[derive(Serialize, JsonSchema)]
struct Explained {
    /// One line a step.
    lines: Vec<String>,
}

fn explain(cx: &Context, p: OneModule) -> Result<Explained, RpcError> {
    let lines = cx.handle.explain(p.name.as_str())?;
    Ok(Explained { lines })
}

async fn why(cx: Context, p: WhyParams) -> Result<Why, RpcError> {
    let lines = p.lines.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let work = move || {
        let lines = lines.unwrap_or(lair_actors::dossier::LINES);
        cx.handle.why_with(p.name.as_str(), p.run, lines)
    };
    let dossier = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| RpcError::internal(&format!("the reading broke off: {e}")))??;
    Ok(Why(Box::new(dossier)))
}

async fn wait_for(cx: Context, p: WaitParams) -> Result<Status, RpcError> {
    let timeout = p.timeout_ms.map(Duration::from_millis);
    let status = cx.handle.wait(p.name.as_str(), p.what, timeout).await?;
    Ok(Status(status))
}
