//! Figures for whoever scrapes: modules, GPUs, the bridge, lair itself.
//!
//! Owns: the names of all metrics, and the port on which they can be had ([`http`]). Promises: a scrape reads published
//! state, and takes at most the time that a driver and the root are given to answer. Never: changes anything.

pub mod http;
mod modules;
mod own;
mod text;

pub use text::Format;

use crate::bridge::Counters;
use crate::handle::{Refused, RuntimeHandle};
use modules::Modules;
use own::Own;
use std::sync::Arc;
use std::time::Duration;
use text::Text;

/// How long the root, and the GPUs' driver, may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// All of it as text, with the bridge's counters if there is one.
///
/// # Errors
/// `internal` when the reading broke off.
pub async fn read(
    handle: &RuntimeHandle,
    counters: Option<&Arc<Counters>>,
    format: Format,
) -> Result<String, Refused> {
    let (gpus, answered) = tokio::join!(
        tokio::time::timeout(PATIENCE, handle.gpus()),
        ask_root(handle)
    );
    let gpus = gpus.ok().and_then(Result::ok);
    let (handle, counters) = (handle.clone(), counters.cloned());
    let tokio = tokio::runtime::Handle::current().metrics();
    let tasks = (tokio.num_alive_tasks(), tokio.global_queue_depth());
    let write = move || {
        let (seq, status) = handle.list();
        let own = Own {
            uptime: handle.uptime(),
            newest: seq.0,
            modules: status.len(),
            answered,
            log_backlog: handle.pump().map(|pump| pump.backlog()),
            dossiers_lost: handle.dossiers_lost(),
            tasks,
            process: lair_actors::facts::own_usage(),
        };
        let mut text = Text::new(format);
        let (status, counts) = (&status, &handle.counts());
        Modules { status, counts }.write(&mut text);
        own::gpus(&mut text, gpus.as_ref());
        own.write(&mut text);
        if let Some(counters) = &counters {
            own::bridge(&mut text, counters);
        }
        text.end()
    };
    tokio::task::spawn_blocking(write)
        .await
        .map_err(|e| Refused::new("internal", format!("the reading broke off: {e}")))
}

/// How long a question waited in the root's mailbox.
async fn ask_root(handle: &RuntimeHandle) -> Option<Duration> {
    let before = handle.uptime();
    let answer = tokio::time::timeout(PATIENCE, handle.ping()).await;
    matches!(answer, Ok(Ok(()))).then(|| handle.uptime().saturating_sub(before))
}
