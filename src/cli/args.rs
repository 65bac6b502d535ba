//! The command line: verbs, flags, and an example for each verb.

pub use super::flags::{
    ActorArg, Call, Chaos, Completion, Down, Events, Explain, FaultArg, Files, Inject, Kill, Load,
    Logs, ModeArg, Names, OutputArg, Plan, Ps, Report, Run, Schema, SchemaArg, Serve, Start,
    Status, Stop, StopWait, StreamArg, Up, UpWait, Wait, WaitArg, Why,
};
use super::style::When;
use super::version;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs AI modules on this machine, keeps the truth about them, and does nothing else.
#[derive(Debug, Parser)]
#[command(name = "lair", version = version::SHORT, long_version = version::LONG.as_str(), about, propagate_version = true, disable_help_subcommand = true, after_help = EXIT_CODES)]
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
  7 not yet in the wanted state   8 plan: something would change   124 timeout
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
    /// Hold modules still: they use no CPU and answer nobody until they are thawed.
    #[command(after_help = "Example:\n  lair freeze redis\n  lair thaw redis")]
    Freeze(Names),
    /// Let modules that are held still go on.
    #[command(after_help = "Example:\n  lair thaw redis")]
    Thaw(Names),
    /// Have modules let go of memory that they can do without, as their manifests say how.
    #[command(after_help = "Example:\n  lair park redis\n  lair wake redis")]
    Park(Names),
    /// Have modules that are parked take their memory again, and serve.
    #[command(after_help = "Example:\n  lair wake redis")]
    Wake(Names),
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
    /// Say why a module is in its state, or why one of its runs ended as it did.
    #[command(
        after_help = "Example:\n  lair why redis\n  lair why redis --run -1\n  lair why redis --bundle redis.tar.zst"
    )]
    Why(Why),
    /// Show a run over time: memory, CPU, GPU memory, log output, health, and what happened.
    #[command(
        after_help = "Example:\n  lair report redis\n  lair report redis --run -1 --html redis.html\n  lair report redis -o json"
    )]
    Report(Report),
    /// Check manifests without running anything.
    #[command(after_help = "Example:\n  lair validate *.yaml")]
    Validate(Files),
    /// Say which mode a module would run in, or runs in, and why.
    #[command(after_help = "Example:\n  lair explain llama.yaml\n  lair explain redis")]
    Explain(Explain),
    /// Say what loading and starting a file would change, and whether it fits.
    #[command(
        after_help = "Exits with 8 if something would change, 5 if it could not be done, 0 if nothing would.\n\nExample:\n  lair plan stack.yaml -o json"
    )]
    Plan(Plan),
    /// Show the GPUs, who holds them, and each process on them.
    #[command(after_help = "Example:\n  lair gpus")]
    Gpus,
    /// Say what this machine offers and lacks.
    #[command(after_help = "Example:\n  lair doctor")]
    Doctor,
    /// Watch all modules, and act on them, on one screen.
    #[command(
        after_help = "Keys are shown by `?`: l logs, Enter details, e events, u GPUs, / filter, s start, x stop, r restart, q end.\n\nExample:\n  lair top\n  lair --color never top"
    )]
    Top,
    /// Break something on purpose; the daemon must run with --allow-faults.
    #[command(
        after_help = "Example:\n  lair inject crash redis --signal SEGV --label drill\n  lair inject fail-start redis --stage exec --errno ENOENT\n  lair inject stall health --for 5s\n  lair inject kill-keeper"
    )]
    Inject(Inject),
    /// Break things by a schedule or by chance, then check that every promise was kept.
    #[command(
        after_help = "Example:\n  lair chaos --seed 7 --for 30s\n  lair chaos drill.jsonl -o json"
    )]
    Chaos(Chaos),
    /// Call any method of the bridge.
    #[command(after_help = "Example:\n  lair call module.status '{\"name\":\"redis\"}'")]
    Call(Call),
    /// Print a schema.
    #[command(after_help = "Example:\n  lair schema manifest > manifest.schema.json")]
    Schema(Schema),
    /// Print a shell's completion script.
    #[command(after_help = "Example:\n  lair completion bash > /etc/bash_completion.d/lair")]
    Completion(Completion),
    /// Print version, commit and features.
    #[command(after_help = "Example:\n  lair version\n  lair version -o json")]
    Version,
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
