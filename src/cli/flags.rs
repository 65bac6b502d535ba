//! The flags of each verb.

use super::time::parse_duration;
use clap::{Args, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Don't say on stderr how its start goes on.
    #[arg(short, long)]
    pub quiet: bool,
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
    /// With -d: stop and unload what the files named once and name no more.
    #[arg(long, requires = "detach")]
    pub remove_orphans: bool,
    /// Come back, or say `ready`, when all modules are.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "ready", require_equals = true)]
    pub wait: Option<UpWait>,
    /// Wait no longer than this.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Time for all modules to stop, in the foreground.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "30s")]
    pub drain: Duration,
    /// Print neither the modules' output nor how it goes on.
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
    /// Don't say on stderr how waiting goes on.
    #[arg(short, long)]
    pub quiet: bool,
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
    /// Take everything over from the lair that runs on these folders, without a module noticing.
    #[arg(long)]
    pub takeover: bool,
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
    /// Don't say on stderr how waiting goes on.
    #[arg(short, long)]
    pub quiet: bool,
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
    /// Don't say on stderr how waiting goes on.
    #[arg(short, long)]
    pub quiet: bool,
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
    /// Don't say on stderr how waiting goes on.
    #[arg(short, long)]
    pub quiet: bool,
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

/// `lair why`
#[derive(Debug, Args)]
pub struct Why {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// This run; -1 is the one before the newest.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub run: Option<i64>,
    /// Put all that a bug report needs into this file, without secrets: a tar archive, compressed if it ends in .zst.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    pub bundle: Option<PathBuf>,
}

/// `lair report`
#[derive(Debug, Args)]
pub struct Report {
    /// Which module.
    pub name: String,
    /// This run; -1 is the one before the newest.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub run: Option<i64>,
    /// Write it as a page into this file, which needs nothing else to be looked at; `-`: to stdout.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
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

/// `lair inject`
#[derive(Debug, Args)]
pub struct Inject {
    /// What.
    #[command(subcommand)]
    pub fault: FaultArg,
    /// Marks everything that follows from it.
    #[arg(long, global = true, default_value = "by-hand")]
    pub label: String,
}

/// Something bad.
#[derive(Debug, clap::Subcommand)]
pub enum FaultArg {
    /// Send a signal to a module's leader, as a stranger would.
    Crash {
        /// Which module.
        name: String,
        /// Which signal.
        #[arg(short, long, value_parser = signal, default_value = "KILL")]
        signal: i32,
    },
    /// Stop a module's whole tree (STOP).
    Pause {
        /// Which module.
        name: String,
        /// Let it go on after this long.
        #[arg(long = "for", value_parser = parse_duration, value_name = "DURATION")]
        time: Option<Duration>,
    },
    /// Let a paused module go on.
    Resume {
        /// Which module.
        name: String,
    },
    /// Let the next start of a module fail.
    FailStart {
        /// Which module.
        name: String,
        /// At which step: exec, create, change_dir, ...
        #[arg(long, default_value = "exec")]
        stage: String,
        /// The system's error, by name or number.
        #[arg(long, value_parser = errno, default_value = "ENOENT")]
        errno: i32,
    },
    /// Let the next writes of a module's log fail.
    FailLog {
        /// Which module.
        name: String,
        /// The system's error, by name or number.
        #[arg(long, value_parser = errno, default_value = "ENOSPC")]
        errno: i32,
        /// How many writes.
        #[arg(long, default_value_t = 1)]
        count: u64,
    },
    /// Keep nothing more of a stream: what comes is dropped and counted.
    CloseStream {
        /// Which module.
        name: String,
        /// Which stream.
        #[arg(value_enum)]
        stream: OutputArg,
    },
    /// Panic in an actor.
    Panic {
        /// Which actor.
        #[arg(value_enum)]
        actor: ActorArg,
        /// Whose, for `module`.
        name: Option<String>,
    },
    /// Keep an actor from doing anything for a time.
    Stall {
        /// Which actor.
        #[arg(value_enum)]
        actor: ActorArg,
        /// Whose, for `module`.
        name: Option<String>,
        /// How long.
        #[arg(long = "for", value_parser = parse_duration, value_name = "DURATION", default_value = "5s")]
        time: Duration,
    },
    /// KILL the keeper, the parent of all native modules.
    KillKeeper,
    /// Lose the container engine for a time.
    DropEngine {
        /// How long.
        #[arg(long = "for", value_parser = parse_duration, value_name = "DURATION", default_value = "10s")]
        time: Duration,
    },
}

/// A stream that a module writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// An actor of lair's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ActorArg {
    /// The root: the daemon ends with 70.
    Root,
    /// The owner of a module's run.
    Module,
    /// The keeper of log files.
    Log,
    /// The pump behind it.
    Pump,
    /// The prober.
    Health,
}

fn errno(word: &str) -> Result<i32, String> {
    super::inject::errno(word).ok_or_else(|| format!("there is no error {word:?}"))
}

/// `lair chaos`
#[derive(Debug, Args)]
pub struct Chaos {
    /// A schedule: a JSON object a line. Without one, chance decides.
    pub schedule: Option<PathBuf>,
    /// Seed of chance; the same seed and modules give the same schedule.
    #[arg(long, default_value_t = 1, conflicts_with = "schedule")]
    pub seed: u64,
    /// How long, by chance.
    #[arg(long = "for", value_parser = parse_duration, value_name = "DURATION", default_value = "30s", conflicts_with = "schedule")]
    pub time: Duration,
    /// Only these modules; default: all.
    #[arg(long = "module", value_name = "NAME")]
    pub modules: Vec<String>,
    /// Also kill the keeper and panic in the log, health and module actors.
    #[arg(long, conflicts_with = "schedule")]
    pub severe: bool,
    /// Print the schedule that chance makes, and do nothing.
    #[arg(long, conflicts_with = "schedule")]
    pub print: bool,
}

/// `lair plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// A manifest or stack.
    pub file: PathBuf,
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
