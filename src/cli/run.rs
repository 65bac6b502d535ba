//! `lair run`: one module in the foreground, without a daemon.
//!
//! Promises: ends with the module's own code; the first Ctrl-C stops it with its grace, the second kills it.

use super::args::{Global, ModeArg, Run};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::host::{self, Asks, me};
use super::print::Screen;
use super::progress::{How, Progress, Source};
use crate::tail::Tail;
use crate::{LoadOptions, ManifestSource, Runtime, RuntimeHandle, RuntimeOptions, WaitFor};
use lair_actors::files::read::Query;
use lair_actors::status::ModuleStatus;
use lair_manifests::launch::Mode;
use lair_manifests::{parse_stack, read_manifest};
use std::path::Path;
use std::time::Duration;

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Native => Mode::Native,
            ModeArg::Container => Mode::Container,
        }
    }
}

/// `lair run`
///
/// # Errors
/// lair could not do it, or was not allowed to.
pub fn run(global: &Global, args: &Run) -> Result<Code, CliError> {
    host::block_on(go(global, args)).map_err(|e| match e.exit {
        exit::REFUSED | exit::USAGE => e,
        _ if e.code == "program_missing" && is_there(&args.manifest) => {
            e.with_exit(exit::RUN_CANNOT_EXECUTE)
        }
        _ if e.code == "program_missing" => e.with_exit(exit::RUN_NOT_FOUND),
        _ if e.code == "cannot_execute" => e.with_exit(exit::RUN_CANNOT_EXECUTE),
        _ => e.with_exit(exit::RUN_FAILED),
    })
}

/// Is there a file where the module's program should be? Then it is one that can't be executed.
fn is_there(manifest: &Path) -> bool {
    let stack = read_manifest(manifest)
        .map_err(|p| vec![p])
        .and_then(|source| parse_stack(&source));
    let native = stack
        .ok()
        .and_then(|s| s.modules.into_iter().next())
        .and_then(|m| m.runtime.native);
    let Some(native) = native else { return false };
    let dir = manifest
        .parent()
        .unwrap_or(Path::new(""))
        .join(native.workdir.raw());
    let program = native.command.words().first().map(|w| w.raw().to_owned());
    program.is_some_and(|p| p.contains('/') && dir.join(p).exists())
}

async fn go(global: &Global, args: &Run) -> Result<Code, CliError> {
    let (config, dirs, _) = find::config(global.config.as_deref())?;
    let folders = host::private(host::folders(dirs, None), "run");
    let run_dir = folders.run.clone();
    let mut asks = Asks::listen()?;
    let runtime = Runtime::start(RuntimeOptions::new(config, folders)).await?;
    host::spare_lair();
    let handle = runtime.handle().clone();
    let ended = supervise(&handle, args, &mut asks).await;
    runtime.shutdown(Duration::from_secs(5)).await;
    let _ = std::fs::remove_dir_all(run_dir);
    ended
}

async fn supervise(handle: &RuntimeHandle, args: &Run, asks: &mut Asks) -> Result<Code, CliError> {
    let options = LoadOptions {
        preference: args.mode.map(Mode::from),
        fallback: args.fallback,
        args: args.args.clone(),
        env: args.set.iter().cloned().collect(),
        ..LoadOptions::default()
    };
    let source = ManifestSource::File(find::absolute(&args.manifest));
    let loaded = handle.load(source, options, me("host")).await?;
    let [(name, _)] = loaded.as_slice() else {
        let error = CliError::new("usage", "`run` takes one module; this is a stack");
        return Err(error.with_help("use `lair up`"));
    };
    let mut screen = Screen::start()?;
    match Tail::open(handle.log_dir(), name, Query::default(), None) {
        Ok(tail) => screen.tails.add(None, tail),
        Err(e) => super::out::say(&format!("warning: the output can't be shown: {e}\n")),
    }
    handle.start(name, me("host")).await?;
    let progress = (!args.quiet).then(|| {
        let source = Source::Host(Box::new(handle.clone()));
        Progress::begin(source, std::slice::from_ref(name), "ready", How::Plain)
    });
    let status = until_down(handle, name, asks, &mut screen).await?;
    drop(progress);
    screen.finish(asks).await;
    outcome(&status)
}

async fn until_down(
    handle: &RuntimeHandle,
    name: &str,
    asks: &mut Asks,
    screen: &mut Screen,
) -> Result<ModuleStatus, CliError> {
    let down = handle.wait(name, WaitFor::Stopped, None);
    tokio::pin!(down);
    let mut asked = 0;
    loop {
        tokio::select! {
            status = &mut down => return Ok(status?),
            () = asks.end_or_hangup() => {
                asked += 1;
                screen.hurry = true;
                if asked == 1 {
                    handle.stop(name, None, me("signal")).await?;
                } else {
                    handle.kill(name, None, me("signal")).await?;
                }
            }
            () = screen.pass_on() => {}
        }
    }
}

/// The module's own code, as docker and podman give it.
fn outcome(status: &ModuleStatus) -> Result<Code, CliError> {
    let start_failed = status.reason.as_ref().filter(|r| r.code == "start_failed");
    if let Some(exit) = status.exit.as_ref().filter(|_| start_failed.is_none()) {
        let code = exit.code.or(exit.signal.map(|n| 128 + n));
        return code
            .and_then(|c| u8::try_from(c).ok())
            .map(Code)
            .ok_or_else(|| {
                CliError::new(
                    "exit_unknown",
                    "the module ended, and nobody could tell how",
                )
            });
    }
    let Some(reason) = &status.reason else {
        return Ok(exit::DONE);
    };
    let mut error = CliError::new(&reason.code, reason.message.clone());
    error.evidence.clone_from(&reason.evidence);
    error.help.clone_from(&reason.next_step);
    let exec = reason.stage.as_deref() == Some("exec");
    error.code = reason.code.clone();
    Err(match reason.errno.as_deref() {
        Some("ENOENT") if exec => CliError {
            code: "program_missing".into(),
            ..error
        },
        Some(_) if exec => CliError {
            code: "cannot_execute".into(),
            ..error
        },
        _ => error,
    })
}
