//! `lair serve`: the daemon.
//!
//! Promises: nothing is started that was not asked for; TERM and INT drain and end with 0, a second one kills; HUP
//! reads configuration and manifests again and ends nothing; all other signals change nothing.

use super::args::{Global, Serve};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::hand_over::{HandOver, Program, hand_over, leave, take_over};
use super::host::{self, Asked, Event, Host, me};
use super::notify::{feed_watchdog, notify};
use crate::bridge::notice::kind_word;
use crate::{LoadOptions, ManifestSource, RuntimeHandle, RuntimeOptions, reload};
use lair_supervision::Seq;
use std::path::{Path, PathBuf};

/// Events taken at a time for the daemon's own log.
const BATCH: usize = 256;

/// `lair serve`
///
/// # Errors
/// It could not be started.
pub fn serve(global: &Global, args: &Serve) -> Result<Code, CliError> {
    let (config, dirs, file) = find::config(global.config.as_deref())?;
    let modules = dirs.config.join("modules");
    let program = Program::this()
        .map_err(|e| CliError::new("internal", format!("cannot find this program: {e}")))?;
    host::block_on(async {
        let mut options =
            RuntimeOptions::new(config, host::folders(dirs, global.socket.as_deref()));
        options.foreground = false;
        options.if_runtime_dies = options.config.if_runtime_dies.unwrap_or_default();
        options.faults = args.allow_faults || options.config.faults;
        let socket = options.folders.socket.clone();
        if args.takeover {
            take_over(&options.folders.run).await?;
        }
        let mut host = Host::start(options).await?;
        let handle = host.handle().clone();
        let loaded = load_all(&handle, &modules, &args.manifest).await;
        host.open();
        if args.start {
            start_all(&handle, &loaded).await;
        }
        tracing::info!(socket = %socket.display(), config = ?file, modules = loaded.len(), "lair serves");
        notify("READY=1");
        let log = tokio::spawn(log_events(handle.clone()));
        let fed = tokio::spawn(feed_watchdog(handle.clone()));
        let code = attend(&mut host, &program, &modules, global, args).await;
        notify("STOPPING=1");
        tracing::info!("lair ends");
        let drained = host.end(args.drain).await;
        log.abort();
        fed.abort();
        Ok(if code == exit::DONE { drained } else { code })
    })
}

async fn attend(
    host: &mut Host,
    program: &Program,
    modules: &Path,
    global: &Global,
    args: &Serve,
) -> Code {
    let handle = &host.handle().clone();
    loop {
        match host.until_asked().await {
            Event::Signal(Asked::End) | Event::Drained => return exit::DONE,
            Event::Signal(Asked::Hangup) => {
                read_again(handle, modules, global, &args.manifest).await;
            }
            Event::Signal(Asked::HandOver) => {
                notify("RELOADING=1");
                match hand_over(handle, program, &handle.run_dir(), &mut host.asks).await {
                    HandOver::Leave => leave(),
                    HandOver::End => return exit::DONE,
                    HandOver::Refused(why) => {
                        tracing::error!("not handed over, nothing is changed: {why}")
                    }
                }
                notify("READY=1");
            }
            Event::Signal(Asked::Nothing) => {}
            Event::RootDied => {
                tracing::error!("the root actor is gone; its modules were ended");
                return exit::ROOT_DIED;
            }
        }
    }
}

/// Reads configuration and manifests again; what is wrong is refused, and the old stays.
async fn read_again(handle: &RuntimeHandle, modules: &Path, global: &Global, named: &[PathBuf]) {
    let config = find::config(global.config.as_deref());
    let config = config.map(|(config, _, _)| config).map_err(|e| e.message);
    let named = named.iter().map(|f| find::absolute(f));
    let files: Vec<PathBuf> = manifests_in(modules).into_iter().chain(named).collect();
    let report = reload::reload(handle, config, modules, &files, me("signal")).await;
    match &report.config.refused {
        Some(why) => tracing::error!("the new configuration is refused, the old one holds: {why}"),
        None if !report.config.next_start.is_empty() => tracing::warn!(
            keys = report.config.next_start.join(" "),
            "these keys of the configuration count from lair's next start on"
        ),
        None => {}
    }
    for file in &report.modules.refused {
        tracing::error!(code = file.code, file = %file.file.display(), "not loaded: {}", file.message);
    }
    let m = &report.modules;
    let sets = [
        ("new", &m.new),
        ("replaced", &m.replaced),
        ("updated", &m.updated),
        ("changed from the next start on", &m.restart_needed),
        ("no longer in a manifest; stop and unload them", &m.orphans),
    ];
    for (what, names) in sets.iter().filter(|(_, names)| !names.is_empty()) {
        tracing::info!(modules = names.join(" "), "{what}");
    }
    tracing::info!(
        config = report.config.live.join(" "),
        "configuration and manifests were read again"
    );
}

/// Manifests of a folder, in name order.
fn manifests_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let known = |p: &PathBuf| {
        p.extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for path in entries.flatten().map(|e| e.path()) {
        // LocalAIStack keeps each module in a folder of its own.
        let inner = ["manifest.yaml", "manifest.yml", "manifest.json"].map(|n| path.join(n));
        files.extend(inner.into_iter().find(|p| p.is_file()));
        files.extend(Some(path).filter(|p| known(p) && p.is_file()));
    }
    files.sort();
    files
}

/// Loads what is there; one that is refused keeps no other back.
async fn load_all(handle: &RuntimeHandle, folder: &Path, named: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    let named = named.iter().map(|f| find::absolute(f));
    for file in manifests_in(folder).into_iter().chain(named) {
        let source = ManifestSource::File(file.clone());
        match handle
            .load(source, LoadOptions::default(), me("host"))
            .await
        {
            Ok(loaded) => {
                for (name, what) in loaded {
                    tracing::info!(name, ?what, file = %file.display(), "loaded");
                    names.push(name);
                }
            }
            Err(e) => {
                tracing::error!(code = e.code, file = %file.display(), "not loaded: {}", e.message)
            }
        }
    }
    names
}

async fn start_all(handle: &RuntimeHandle, names: &[String]) {
    for name in names {
        if let Err(e) = handle.start(name, me("host")).await {
            tracing::error!(code = e.code, name, "not started: {}", e.message);
        }
    }
}

/// Writes what happens to the daemon's own log.
async fn log_events(handle: RuntimeHandle) {
    let (mut newest, mut seen) = (handle.newest_event(), Seq(0));
    loop {
        newest.borrow_and_update();
        loop {
            let batch = handle.events(seen, BATCH);
            let Some(last) = batch.notices.last() else {
                break;
            };
            seen = last.seq;
            for n in &batch.notices {
                tracing::info!(seq = n.seq.0, name = %n.id, run = n.inc, "{}", kind_word(&n.kind));
            }
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}
