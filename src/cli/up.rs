//! `lair up` and `lair down`: a stack in the foreground, or through the daemon.

use super::args::{Down, Format, Global, Up, UpWait};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::host::{self, Asked, Asks, Event, Host, me};
use super::lifecycle::{self, Results, Waiting};
use super::out::{Out, say};
use super::print::{Screen, Tails};
use super::progress::{How, Progress, Source};
use super::query;
use super::style::Style;
use crate::client::Client;
use crate::tail::Tail;
use crate::{LoadOptions, ManifestSource, RuntimeHandle, RuntimeOptions, WaitFor};
use lair_actors::files::read::Query;
use lair_manifests::{parse_stack, problem, read_manifest};
use lair_supervision::{NoticeKind, Seq};
use std::path::PathBuf;
use std::time::Duration;

/// More modules than this are not shown on the terminal: nobody could read it, and each costs an inotify instance.
const SHOWN: usize = 64;

/// `lair up`
///
/// # Errors
/// It could not be done, or was not allowed.
pub fn up(global: &Global, args: &Up) -> Result<Code, CliError> {
    let files = find::stack_files(&args.files)?;
    if args.detach {
        return detached(global, args, &files);
    }
    host::block_on(foreground(global, args, &files))
}

fn detached(global: &Global, args: &Up, files: &[PathBuf]) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let (mut names, mut changed, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let reply = lifecycle::load_file(&mut client, file, None)?;
        if !args.remove_orphans {
            let help = "--remove-orphans stops and unloads them";
            lifecycle::say_orphans(file, &reply.orphans, help);
        }
        orphans.extend(reply.orphans);
        for module in reply.modules {
            let new_run = module.result == "restart_needed";
            if new_run { &mut changed } else { &mut names }.push(module.name);
        }
    }
    // One file may have what another has lost.
    orphans.retain(|name| !names.contains(name) && !changed.contains(name));
    let nothing = serde_json::json!({});
    // What was removed may hold what the new ones need.
    let mut code = exit::DONE;
    if args.remove_orphans && !orphans.is_empty() {
        code = stop_and_unload(global, &mut client, &orphans, &nothing, (None, args.quiet))?;
    }
    let mut started = lifecycle::ask_each(&mut client, "module.restart", &changed, &nothing)?;
    started.extend(lifecycle::ask_each(
        &mut client,
        "module.start",
        &names,
        &nothing,
    )?);
    lifecycle::report(&query::out(global), &started)?;
    let word = args.wait.map(|w| {
        if w == UpWait::Ready {
            "ready"
        } else {
            "healthy"
        }
    });
    let wait = word.map(|word| Waiting {
        word,
        timeout: args.timeout,
        quiet: args.quiet,
    });
    let waited = lifecycle::worst(global, &mut client, &started, wait)?;
    Ok(code.max(waited))
}

async fn foreground(global: &Global, args: &Up, files: &[PathBuf]) -> Result<Code, CliError> {
    let mut screen = Screen::start()?;
    let mut host = start(global, args).await?;
    let handle = host.handle().clone();
    let begun = begin(&handle, files).await;
    host.open();
    let ended = match begun {
        Ok(names) => {
            if !args.quiet {
                let style = Style::choose(global.color, &std::io::stdout());
                follow(&handle, &names, style, &mut screen.tails);
            }
            attend(&mut host, &handle, args, &names, &mut screen).await
        }
        Err(e) => Err(e),
    };
    // Everything is stopped whether or not somebody reads what it says, and what it says last is shown as well.
    let progress = tell(&handle, &handle.names(), "stopped", args.quiet);
    let drained = screen.during(host.end(args.drain)).await;
    drop(progress);
    screen.finish(&mut Asks::listen()?).await;
    let code = ended?;
    Ok(if code == exit::DONE { drained } else { code })
}

/// In the usual folders, so that `lair ps` finds it; in its own if another runtime has those.
async fn start(global: &Global, args: &Up) -> Result<Host, CliError> {
    let options = |alone: bool| {
        let (config, dirs, _) = find::config(global.config.as_deref())?;
        let folders = host::folders(dirs, global.socket.as_deref());
        let folders = if alone {
            host::private(folders, "up")
        } else {
            folders
        };
        let mut options = RuntimeOptions::new(config, folders);
        options.faults = args.allow_faults || options.config.faults;
        options.if_runtime_dies = options
            .config
            .if_runtime_dies
            .unwrap_or(options.if_runtime_dies);
        Ok::<_, CliError>(options)
    };
    let named = global.socket.is_some() || global.config.is_some();
    match Host::start(options(false)?).await {
        Err(e) if e.code == "already_running" && !named => {
            let options = options(true)?;
            say(&format!(
                "another lair runs here; this one's socket is {}\n",
                options.folders.socket.display()
            ));
            Host::start(options).await
        }
        started => started,
    }
}

async fn begin(handle: &RuntimeHandle, files: &[PathBuf]) -> Result<Vec<String>, CliError> {
    let mut names = Vec::new();
    for file in files {
        let source = ManifestSource::File(file.clone());
        let loaded = handle
            .load(source, LoadOptions::default(), me("host"))
            .await?;
        names.extend(loaded.into_iter().map(|(name, _)| name));
    }
    Ok(names)
}

async fn attend(
    host: &mut Host,
    handle: &RuntimeHandle,
    args: &Up,
    names: &[String],
    screen: &mut Screen,
) -> Result<Code, CliError> {
    let mut seen = *handle.newest_event().borrow();
    for name in names {
        handle.start(name, me("host")).await?;
    }
    let mut progress = tell(handle, names, "ready", args.quiet);
    let ready = all_ready(handle, names, args);
    tokio::pin!(ready);
    let (mut said, mut newest) = (args.wait.is_none(), handle.newest_event());
    loop {
        tokio::select! {
            event = host.until_asked() => match event {
                Event::Signal(Asked::End | Asked::Hangup) | Event::Drained => {
                    screen.hurry = true;
                    return Ok(exit::DONE);
                }
                Event::Signal(_) => {}
                Event::RootDied => return Ok(exit::FAILED),
            },
            done = &mut ready, if !said => {
                said = true;
                drop(progress.take());
                done?;
                say("ready\n");
            }
            () = screen.pass_on() => {}
            _ = newest.changed() => {
                newest.borrow_and_update();
                if let Some(code) = all_down(handle, names, &mut seen) {
                    return Ok(code);
                }
            }
        }
    }
}

/// Says how it goes on, in lines between the modules' own.
fn tell(handle: &RuntimeHandle, names: &[String], word: &str, quiet: bool) -> Option<Progress> {
    let source = Source::Host(Box::new(handle.clone()));
    if quiet {
        return None;
    }
    Progress::begin(source, names, word, How::Plain)
}

fn follow(handle: &RuntimeHandle, names: &[String], style: Style, tails: &mut Tails) {
    if names.len() > SHOWN {
        return say(&format!(
            "the output of {} modules is in {}\n",
            names.len(),
            handle.log_dir().display()
        ));
    }
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for name in names {
        match Tail::open(handle.log_dir(), name, Query::default(), None) {
            Ok(tail) => tails.add(Some((name, width, style)), tail),
            Err(e) => say(&format!(
                "warning: the output of {name} can't be shown: {e}\n"
            )),
        }
    }
}

async fn all_ready(handle: &RuntimeHandle, names: &[String], args: &Up) -> Result<(), CliError> {
    let what = match args.wait {
        Some(UpWait::Healthy) => WaitFor::Healthy,
        _ => WaitFor::Ready,
    };
    for name in names {
        handle.wait(name, what, args.timeout).await?;
    }
    Ok(())
}

/// When something has come to rest since the last look, and nothing is left: the stack's code.
fn all_down(handle: &RuntimeHandle, names: &[String], seen: &mut Seq) -> Option<Code> {
    let batch = handle.events(*seen, usize::MAX);
    let rested = batch
        .notices
        .iter()
        .any(|n| matches!(n.kind, NoticeKind::Down { .. }));
    *seen = batch.notices.last().map_or(*seen, |n| n.seq);
    let down = |name: &String| handle.view(name).map_or(true, |v| v.child.is_down());
    if !(rested || batch.gap.is_some()) || !names.iter().all(down) {
        return None;
    }
    let failed = |name: &String| handle.status(name).is_ok_and(|s| s.state == "failed");
    Some(if names.iter().any(failed) {
        exit::FAILED
    } else {
        exit::DONE
    })
}

/// `lair down`
///
/// # Errors
/// The daemon does not answer, or says no.
pub fn down(global: &Global, args: &Down) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let names = if args.all {
        query::all_names(&mut client)?
    } else {
        names_in(&find::stack_files(&args.files)?)?
    };
    let mut params = serde_json::json!({});
    if let Some(grace) = args.grace {
        params["grace_ms"] = lifecycle::millis(grace).into();
    }
    let timeout = args.timeout;
    stop_and_unload(global, &mut client, &names, &params, (timeout, args.quiet))
}

/// Stops modules, waits for that, and forgets them.
fn stop_and_unload(
    global: &Global,
    client: &mut Client,
    names: &[String],
    params: &serde_json::Value,
    (timeout, quiet): (Option<Duration>, bool),
) -> Result<Code, CliError> {
    let mut stopped = lifecycle::ask_each(client, "module.stop", names, params)?;
    // What the daemon does not know is down already.
    stopped.retain(|(_, r)| !matches!(r, Err(e) if e.code == "unknown_module"));
    let wait = Waiting {
        word: "stopped",
        timeout: timeout.or(Some(Duration::from_secs(120))),
        quiet,
    };
    let code = lifecycle::worst(global, client, &stopped, Some(wait))?;
    let names: Vec<String> = stopped.into_iter().map(|(name, _)| name).collect();
    let forgotten = lifecycle::ask_each(client, "module.unload", &names, &serde_json::json!({}))?;
    report_down(&query::out(global), &forgotten)?;
    Ok(code.max(lifecycle::worst(global, client, &forgotten, None)?))
}

fn report_down(out: &Out, forgotten: &Results) -> Result<(), CliError> {
    let good = forgotten.iter().filter(|(_, result)| result.is_ok());
    if out.structured() {
        let all = good.map(|(name, _)| serde_json::json!({ "name": name, "result": "down" }));
        return out.value(&all.collect());
    }
    let word = if out.format == Format::Name {
        ""
    } else {
        ": down"
    };
    out.text(&good.fold(String::new(), |text, (name, _)| text + name + word + "\n"))
}

fn names_in(files: &[PathBuf]) -> Result<Vec<String>, CliError> {
    let mut names = Vec::new();
    for file in files {
        let invalid = |p: &[lair_manifests::Problem]| {
            CliError::new("invalid_manifest", problem::render(p).trim_end())
        };
        let source = read_manifest(file).map_err(|p| invalid(&[p]))?;
        let stack = parse_stack(&source).map_err(|p| invalid(&p))?;
        names.extend(stack.modules.iter().map(|m| m.name.as_str().to_owned()));
    }
    Ok(names)
}
