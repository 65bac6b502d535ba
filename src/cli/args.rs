//! The command line: verbs, flags, and an example for each verb.

use super::style::When;
use super::time::parse_duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// Runs AI modules on this machine, keeps the truth about them, and does nothing else.
#[derive(Debug, Parser)]
#[command(name = "lair", version, about, propagate_version = true, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
}

const EXIT_CODES: &str = "Exit codes:
  0 done   1 failed   2 usage   3 not running   4 no such module   5 refused   6 daemon unreachable
  7 not yet in the wanted state   124 timeout
  run: 125 lair failed, 126 cannot execute, 127 not found, 128+n ended by signal n, else the module's own code";

/// Flags of every verb.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Socket of the daemon.
    #[arg(long, global = true, env = "LAIR_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, global = true, env = "LAIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: When,
    /// Say more on stderr; twice: say everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Format of the output.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: Format,
}

/// Format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide terminals.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// YAML.
    Yaml,
    /// Names alone.
    Name,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run one module in the foreground, without a daemon.
    #[command(
        after_help = "Example:\n  lair run llama.yaml --set MODEL=/models/tiny.gguf -- --threads 4"
    )]
    Run(Run),
    /// Run a stack: in the foreground, or through the daemon.
    #[command(after_help = "Example:\n  lair up stack.yaml\n  lair up -d --wait=ready stack.yaml")]
    Up(Up),
    /// Stop a stack's modules and forget them.
    #[command(after_help = "Example:\n  lair down stack.yaml")]
    Down(Down),
    /// Be the daemon.
    #[command(after_help = "Example:\n  lair serve --config /etc/lair/config.yaml")]
    Serve(Serve),
    /// Make modules known to the daemon.
    #[command(after_help = "Example:\n  lair load redis.yaml qdrant.yaml")]
    Load(Load),
    /// Forget modules that are down.
    #[command(after_help = "Example:\n  lair unload redis")]
    Unload(Names),
    /// Start loaded modules.
    #[command(after_help = "Example:\n  lair start redis qdrant --wait=ready --timeout 2m")]
    Start(Start),
    /// Stop modules: signal, grace, KILL.
    #[command(after_help = "Example:\n  lair stop redis -t 30s --wait")]
    Stop(Stop),
    /// Stop modules and start a new run of each.
    #[command(after_help = "Example:\n  lair restart redis --wait=ready")]
    Restart(Stop),
    /// Kill whole modules at once, or send their leaders a signal.
    #[command(after_help = "Example:\n  lair kill redis\n  lair kill -s HUP redis")]
    Kill(Kill),
    /// List modules.
    #[command(visible_aliases = ["ls", "list"], after_help = "Example:\n  lair ps -a -o wide")]
    Ps(Ps),
    /// One page about each module.
    #[command(after_help = "Example:\n  lair status redis")]
    Status(Status),
    /// Everything about modules, as JSON.
    #[command(after_help = "Example:\n  lair inspect redis | jq .resources")]
    Inspect(Names),
    /// Read modules' output.
    #[command(after_help = "Example:\n  lair logs redis -f -n 50 --stream stderr -g 'WARN|ERROR'")]
    Logs(Logs),
    /// Read what happened.
    #[command(after_help = "Example:\n  lair events -f --since 1 -o jsonl")]
    Events(Events),
    /// Wait until a module is in a state.
    #[command(after_help = "Example:\n  lair wait redis --for ready --timeout 1m")]
    Wait(Wait),
    /// Say why a module is in its state.
    #[command(after_help = "Example:\n  lair why redis")]
    Why(Names),
    /// Check manifests without running anything.
    #[command(after_help = "Example:\n  lair validate *.yaml")]
    Validate(Files),
    /// Say which mode a module would run in, or runs in, and why.
    #[command(after_help = "Example:\n  lair explain llama.yaml\n  lair explain redis")]
    Explain(Explain),
    /// Say what this machine offers and lacks.
    #[command(after_help = "Example:\n  lair doctor")]
    Doctor,
    /// Call any method of the bridge.
    #[command(after_help = "Example:\n  lair call module.status '{\"name\":\"redis\"}'")]
    Call(Call),
    /// Print a schema.
    #[command(after_help = "Example:\n  lair schema manifest > manifest.schema.json")]
    Schema(Schema),
    /// Print a shell's completion script.
    #[command(after_help = "Example:\n  lair completion bash > /etc/bash_completion.d/lair")]
    Completion(Completion),
    /// Print the version.
    #[command(after_help = "Example:\n  lair version")]
    Version,
}

/// `lair run`
#[derive(Debug, Args)]
pub struct Run {
    /// The module's manifest.
    pub manifest: PathBuf,
    /// Run it in this mode.
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// Take another mode if that one can't be had.
    #[arg(long, requires = "mode")]
    pub fallback: bool,
    /// Set an environment variable of the module, and `${env.K}` in its manifest.
    #[arg(long = "set", value_name = "K=V", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Arguments appended to the module's command.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// How a module runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// As a process.
    Native,
    /// In a container.
    Container,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// `lair up`
#[derive(Debug, Args)]
pub struct Up {
    /// Manifests or stacks; default: lair.yaml here or above.
    pub files: Vec<PathBuf>,
    /// Through the daemon, and come back.
    #[arg(short, long)]
    pub detach: bool,
    /// Come back, or say `ready`, when all modules are.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "ready", require_equals = true)]
    pub wait: Option<UpWait>,
    /// Wait no longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Time for all modules to stop, in the foreground.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "30s")]
    pub drain: Duration,
    /// Don't print the modules' output.
    #[arg(short, long)]
    pub quiet: bool,
    /// Allow fault injection, in the foreground.
    #[arg(long)]
    pub allow_faults: bool,
}

/// What to wait for after a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UpWait {
    /// It serves.
    Ready,
    /// Its health says so.
    Healthy,
}

/// `lair down`
#[derive(Debug, Args)]
pub struct Down {
    /// Manifests or stacks; default: lair.yaml here or above.
    pub files: Vec<PathBuf>,
    /// All modules of the daemon.
    #[arg(long, conflicts_with = "files")]
    pub all: bool,
    /// Time between the stop signal and KILL.
    #[arg(short = 't', long, value_parser = parse_duration, value_name = "DURATION")]
    pub grace: Option<Duration>,
    /// Wait no longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// `lair serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Load this manifest or stack, besides those in the configuration's folder `modules`.
    #[arg(long, value_name = "FILE")]
    pub manifest: Vec<PathBuf>,
    /// Start all modules that were loaded.
    #[arg(long)]
    pub start: bool,
    /// Time for all modules to stop on SIGTERM.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "30s")]
    pub drain: Duration,
    /// Allow fault injection.
    #[arg(long)]
    pub allow_faults: bool,
}

/// `lair load`
#[derive(Debug, Args)]
pub struct Load {
    /// Manifests or stacks.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Prefer this mode.
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
}

/// Modules.
#[derive(Debug, Args)]
pub struct Names {
    /// Names of modules.
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// All modules.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

/// `lair start`
#[derive(Debug, Args)]
pub struct Start {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// Come back when they are.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "ready", require_equals = true)]
    pub wait: Option<UpWait>,
    /// Wait no longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// `lair stop`, `lair restart`
#[derive(Debug, Args)]
pub struct Stop {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// Time between the stop signal and KILL.
    #[arg(short = 't', long, value_parser = parse_duration, value_name = "DURATION")]
    pub grace: Option<Duration>,
    /// Come back when they are: stopped, or for a restart ready.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "done", require_equals = true)]
    pub wait: Option<StopWait>,
    /// Wait no longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// What to wait for after a stop or restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StopWait {
    /// What the verb is about.
    #[value(hide = true)]
    Done,
    /// It is down.
    Stopped,
    /// It serves.
    Ready,
}

/// `lair kill`
#[derive(Debug, Args)]
pub struct Kill {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// Send this signal to the leader and change nothing else.
    #[arg(short, long, value_parser = signal)]
    pub signal: Option<i32>,
    /// Come back when they are down.
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

fn signal(word: &str) -> Result<i32, String> {
    crate::signals::number(word).ok_or_else(|| format!("there is no signal {word:?}"))
}

/// `lair ps`
#[derive(Debug, Default, Args)]
pub struct Ps {
    /// Also those that are stopped.
    #[arg(short, long)]
    pub all: bool,
    /// Names alone.
    #[arg(short, long)]
    pub quiet: bool,
}

/// `lair status`
#[derive(Debug, Args)]
pub struct Status {
    /// Names of modules; none: all of them.
    pub names: Vec<String>,
}

/// `lair logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// Names of modules.
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Go on with what comes.
    #[arg(short, long)]
    pub follow: bool,
    /// The last lines only.
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u64>,
    /// Not older than this: a time (RFC 3339 UTC) or an age (10m).
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
    /// Not newer than this.
    #[arg(long, value_name = "T")]
    pub until: Option<String>,
    /// Only this stream.
    #[arg(long, value_enum)]
    pub stream: Option<StreamArg>,
    /// Only this run; -1 is the one before the newest.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub run: Option<i64>,
    /// Only the run before the newest.
    #[arg(long, conflicts_with = "run")]
    pub previous: bool,
    /// Show times.
    #[arg(short = 't', long)]
    pub timestamps: bool,
    /// Only lines that match this regular expression.
    #[arg(short = 'g', long, value_name = "RE")]
    pub grep: Option<String>,
}

/// A stream of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamArg {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// lair's own remarks.
    Lair,
}

/// `lair events`
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what comes.
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with this number.
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// Only of these modules.
    pub names: Vec<String>,
}

/// `lair wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// Which module.
    pub name: String,
    /// Until when.
    #[arg(long = "for", value_enum)]
    pub what: WaitArg,
    /// No longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitArg {
    /// Health says so.
    Healthy,
    /// It serves.
    Ready,
    /// It is down.
    Stopped,
    /// The current run has ended.
    Exited,
}

impl WaitArg {
    /// The wire's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            WaitArg::Healthy => "healthy",
            WaitArg::Ready => "ready",
            WaitArg::Stopped => "stopped",
            WaitArg::Exited => "exited",
        }
    }
}

/// Files.
#[derive(Debug, Args)]
pub struct Files {
    /// Manifests or stacks.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// `lair explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// A manifest's file, or the name of a loaded module.
    pub what: String,
    /// As if this mode were preferred.
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
}

/// `lair call`
#[derive(Debug, Args)]
pub struct Call {
    /// The method.
    pub method: String,
    /// Its parameters, a JSON object.
    #[arg(default_value = "{}")]
    pub params: String,
}

/// `lair schema`
#[derive(Debug, Args)]
pub struct Schema {
    /// Which.
    #[arg(value_enum)]
    pub which: SchemaArg,
}

/// A schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaArg {
    /// Of manifests.
    Manifest,
    /// Of the configuration.
    Config,
    /// Of the bridge (OpenRPC).
    Rpc,
}

/// `lair completion`
#[derive(Debug, Args)]
pub struct Completion {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

#[cfg(test)]
mod test {
    use super::*;
    use clap::CommandFactory;

    /// Words as a shell reads them, as far as the examples go.
    fn words(line: &str) -> Vec<String> {
        let (mut all, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
        for c in line.chars() {
            match c {
                '\'' => (quoted, any) = (!quoted, true),
                ' ' if !quoted => {
                    if any || !word.is_empty() {
                        all.push(std::mem::take(&mut word));
                        any = false;
                    }
                }
                '|' | '>' if !quoted => break,
                c => word.push(c),
            }
        }
        if any || !word.is_empty() {
            all.push(word);
        }
        all
    }

    #[test]
    fn the_tree_of_verbs_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example_and_each_of_them_parses() {
        for verb in Cli::command().get_subcommands() {
            let help = verb
                .get_after_help()
                .unwrap_or_else(|| panic!("{} has no example", verb.get_name()))
                .to_string();
            let examples: Vec<&str> = help
                .lines()
                .filter(|l| l.trim_start().starts_with("lair "))
                .collect();
            assert!(!examples.is_empty(), "{}", verb.get_name());
            for example in examples {
                let parsed = Cli::try_parse_from(words(example));
                assert!(
                    parsed.is_ok(),
                    "{example}: {}",
                    parsed.err().map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
    }
}
