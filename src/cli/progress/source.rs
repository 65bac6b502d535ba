//! Where looks come from: a daemon's bridge, or the runtime in this very process.

use super::phase::{Seen, Tracked};
use crate::RuntimeHandle;
use crate::client::{CallError, Client, Pipeline};
use lair_actors::status::ModuleStatus;
use lair_supervision::{NoticeKind, Seq};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A daemon that needs longer than this for an answer is not asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines read to find the last that is the module's own.
const LAST: u64 = 8;
/// Events looked at, at first.
const PAST: u64 = 200;

/// Modules that are waited for, by name.
pub type Modules = BTreeMap<String, Tracked>;

/// Where looks come from.
pub enum Source {
    /// A daemon, by its socket.
    Bridge(PathBuf),
    /// A runtime in this process, whose modules' output is on the terminal already.
    Host(Box<RuntimeHandle>),
}

/// A source that was opened.
pub enum Open {
    /// A daemon; `true`: its events are followed.
    Bridge(Box<Client>, bool),
    /// A runtime, and the last of its events that was seen.
    Host(Box<RuntimeHandle>, Seq),
}

#[derive(Deserialize)]
struct List {
    seq: u64,
    modules: Vec<ModuleStatus>,
}

#[derive(Deserialize)]
struct Note {
    event: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    progress: Option<String>,
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(&self) -> Result<Open, CallError> {
        match self {
            Source::Bridge(socket) => {
                let client = Client::connect(socket)?;
                client.set_timeout(Some(PATIENCE));
                Ok(Open::Bridge(Box::new(client), false))
            }
            Source::Host(handle) => {
                let newest = handle.newest_event().borrow().0;
                Ok(Open::Host(handle.clone(), Seq(newest.saturating_sub(PAST))))
            }
        }
    }
}

impl Open {
    /// All modules; takes note of how far images are.
    ///
    /// # Errors
    /// The connection broke.
    pub fn list(&mut self, modules: &mut Modules) -> Result<Vec<ModuleStatus>, CallError> {
        match self {
            Open::Bridge(client, followed) => {
                let list: List = client.get("module.list", &json!({}))?;
                if !*followed {
                    let from = list.seq.saturating_sub(PAST) + 1;
                    let types = ["module.pulling", "module.running", "module.start_failed"];
                    client.call(
                        "events.subscribe",
                        &json!({ "from_seq": from, "types": types }),
                    )?;
                    *followed = true;
                }
                while client.has_more() {
                    note(modules, &client.next_note()?);
                }
                Ok(list.modules)
            }
            Open::Host(handle, seen) => {
                for notice in handle.events(*seen, usize::MAX).notices {
                    *seen = notice.seq;
                    let pulling = match &notice.kind {
                        NoticeKind::Pulling { progress } => Some(progress.clone()),
                        NoticeKind::Running | NoticeKind::StartFailed { .. } => None,
                        _ => continue,
                    };
                    if let Some(tracked) = modules.get_mut(notice.id.as_str()) {
                        tracked.pulling = pulling;
                    }
                }
                Ok(handle.list().1)
            }
        }
    }

    /// What the status does not have; the plan only if it is not `known`.
    ///
    /// # Errors
    /// The connection broke.
    pub fn closer(&mut self, status: &ModuleStatus, known: bool) -> Result<Seen, CallError> {
        match self {
            Open::Bridge(client, _) => ask(client, status, known),
            Open::Host(handle, _) => {
                let view = handle.view(&status.name).ok().filter(|_| !known);
                let plan = view.map(|view| {
                    let (spec, startup) = (&view.plan.spec, view.plan.probes.startup.as_ref());
                    json!({ "probes": { "startup": { "stall": startup.and_then(|s| s.stall) } },
                            "spec": { "ready_deadline": spec.ready_deadline, "grace": spec.grace } })
                });
                Ok(Seen {
                    plan,
                    ..Seen::default()
                })
            }
        }
    }
}

/// What an image's way here is at; nothing more once it is here.
fn note(modules: &mut Modules, text: &str) {
    let event = serde_json::from_str::<Note>(text)
        .ok()
        .and_then(|n| n.event);
    let event = event.and_then(|raw| serde_json::from_str::<Event>(raw.get()).ok());
    let Some(event) = event else { return };
    if let Some(tracked) = modules.get_mut(&event.name) {
        tracked.pulling = event.progress.filter(|_| event.kind == "module.pulling");
    }
}

fn ask(client: &mut Client, status: &ModuleStatus, known: bool) -> Result<Seen, CallError> {
    let mut pipe = Pipeline::default();
    pipe.add("module.processes", &json!({ "name": status.name }))?;
    pipe.add(
        "logs.read",
        &json!({ "name": status.name, "lines": LAST, "run": status.run }),
    )?;
    if !known {
        pipe.add("module.why", &json!({ "name": status.name, "lines": 1 }))?;
    }
    let value = |reply: Result<Box<str>, CallError>| -> Value {
        let text = reply.ok();
        text.and_then(|t| serde_json::from_str(&t).ok())
            .unwrap_or_default()
    };
    let mut replies = client.send(pipe)?.into_iter().map(value);
    let (tree, log) = (
        replies.next().unwrap_or_default(),
        replies.next().unwrap_or_default(),
    );
    let lines = log["lines"].as_array();
    let own = |line: &&Value| line["stream"] != "lair";
    let line = lines.and_then(|all| all.iter().rev().find(own));
    Ok(Seen {
        read: tree["read_bytes"].as_u64(),
        line: line.and_then(|l| l["text"].as_str()).map(str::to_owned),
        plan: replies.next().map(|mut why| why["plan"].take()),
    })
}
