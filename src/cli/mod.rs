//! The program: verbs over the library and the bridge.
//!
//! Owns: the process's stdout, stderr, exit code, panic hook and subscriber. Promises: data on stdout, everything else
//! on stderr; the exit codes of `docs/errors.md`. Never: is used by the library.

pub mod args;
mod bundle;
mod chaos;
pub mod error;
pub mod exit;
mod fast;
mod files;
mod find;
pub mod flags;
mod hand_over;
mod host;
mod inject;
mod journal;
mod lifecycle;
mod log;
mod notify;
mod out;
mod park;
mod print;
mod progress;
mod query;
mod report;
mod resources;
mod run;
mod serve;
mod style;
mod time;
mod top;
mod up;
mod version;
mod view;
mod watch;
mod why;

use args::{Cli, Global, Verb};
use clap::{CommandFactory, FromArgMatches};
use error::CliError;
use exit::Code;
use std::ffi::OsString;
use std::process::ExitCode;
use style::Style;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Does what the command line says if that is one of the things that scripts do in loops, without any preparation;
/// its exit code. `None`: nothing was done.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "this is the program, not the library"
)]
pub fn at_once() -> Option<u8> {
    let standard = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    // What is opened next would take the place of one that is closed, and be printed to.
    if standard
        .iter()
        .any(|fd| rustix::io::fcntl_getfd(fd).is_err())
    {
        return None;
    }
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !fast::may_do(&args) {
        return None;
    }
    tell_of_bugs();
    let (global, done) = fast::try_run(&args)?;
    Some(end(&global, done))
}

/// Does what the command line says.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "this is the program, not the library"
)]
pub fn main() -> ExitCode {
    tell_of_bugs();
    let args = asks_for_help(std::env::args_os().collect());
    if let Some((global, done)) = fast::try_run(args.get(1..).unwrap_or_default()) {
        return end(&global, done).into();
    }
    let parsed = Cli::command()
        .try_get_matches_from(args)
        .and_then(|m| Cli::from_arg_matches(&m));
    match parsed {
        Ok(cli) => {
            let done = dispatch(&cli.global, &cli.verb);
            end(&cli.global, done).into()
        }
        Err(e) => {
            let _ = e.print();
            ExitCode::from(if e.use_stderr() {
                exit::USAGE.0
            } else {
                exit::DONE.0
            })
        }
    }
}

/// `lair help VERB` is `lair VERB --help`.
fn asks_for_help(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.get(1).is_some_and(|word| word == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    args
}

/// A panic is told on stderr, on a terminal that is as it was.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the program, not the library"
)]
fn tell_of_bugs() {
    std::panic::set_hook(Box::new(|info| {
        top::give_terminal_back();
        out::say(&format!("lair: a bug: {info}\n"));
    }));
}

fn end(global: &Global, done: Result<Code, CliError>) -> u8 {
    let code = done.unwrap_or_else(|e| {
        out::say(&e.render(&Style::choose(global.color, &std::io::stderr())));
        e.exit
    });
    code.0
}

fn dispatch(global: &Global, verb: &Verb) -> Result<Code, CliError> {
    if matches!(verb, Verb::Run(_) | Verb::Up(_) | Verb::Serve(_)) {
        keep_to_itself();
    }
    match verb {
        Verb::Run(args) => {
            let _log = trace(global, "warn");
            run::run(global, args)
        }
        Verb::Up(args) => {
            let _log = trace(global, "warn");
            up::up(global, args)
        }
        Verb::Serve(args) => {
            let _log = trace(global, "info");
            serve::serve(global, args)
        }
        Verb::Down(args) => up::down(global, args),
        Verb::Load(args) => lifecycle::load(global, args),
        Verb::Unload(args) => lifecycle::unload(global, args),
        Verb::Start(args) => lifecycle::start(global, args),
        Verb::Stop(args) => lifecycle::stop(global, args, "module.stop"),
        Verb::Restart(args) => lifecycle::stop(global, args, "module.restart"),
        Verb::Kill(args) => lifecycle::kill(global, args),
        Verb::Freeze(names) => lifecycle::freeze(global, names, "module.freeze"),
        Verb::Thaw(names) => lifecycle::freeze(global, names, "module.thaw"),
        Verb::Park(names) => park::park(global, names, "module.park"),
        Verb::Wake(names) => park::park(global, names, "module.wake"),
        Verb::Ps(args) => query::ps(global, args),
        Verb::Status(args) => query::status(global, args),
        Verb::Inspect(args) => query::inspect(global, args),
        Verb::Why(args) => why::why(global, args),
        Verb::Report(args) => report::report(global, args),
        Verb::Inject(args) => inject::inject(global, args),
        Verb::Chaos(args) => chaos::chaos(global, args),
        Verb::Call(args) => query::call(global, args),
        Verb::Logs(args) => watch::logs(global, args),
        Verb::Events(args) => watch::events(global, args),
        Verb::Wait(args) => watch::wait(global, args),
        Verb::Validate(args) => files::validate(global, args),
        Verb::Explain(args) => files::explain(global, args),
        Verb::Plan(args) => resources::plan(global, args),
        Verb::Gpus => resources::gpus(global),
        Verb::Top => top::top(global),
        Verb::Doctor => files::doctor(global),
        Verb::Schema(args) => files::print_schema(global, args),
        Verb::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "lair", &mut script);
            out::write(&script).map(|_| exit::DONE)
        }
        Verb::Version => version::version(&query::out(global)),
    }
}

/// What lair was given (its variables, its memory) is not for modules of the same user to read out of /proc, nor for a
/// core dump. Only fails where there is no such setting.
fn keep_to_itself() {
    // Before Linux 6.4 rustix reads /proc/self/auxv when it is first asked, and panics where it may not: from the next line
    // on that file is root's.
    let _ = rustix::param::page_size();
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// lair's own log goes to stderr; `LAIR_LOG` chooses what of it.
fn trace(global: &Global, usual: &str) -> Option<log::Flush> {
    let level = match global.verbose {
        0 => usual,
        1 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("LAIR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let ansi = Style::choose(global.color, &std::io::stderr()).is_on();
    let journal = journal::socket();
    let (log, flush) = log::Log::start(journal)?;
    if journal.is_some() {
        let all = tracing_subscriber::registry().with(filter);
        let _ = all.with(journal::Journal(log)).try_init();
        return Some(flush);
    }
    // Only fails if there is one already; then that one stays.
    let _ = tracing_subscriber::fmt()
        .with_writer(log)
        .with_ansi(ansi)
        .with_env_filter(filter)
        .try_init();
    Some(flush)
}
