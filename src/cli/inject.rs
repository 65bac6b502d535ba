//! `lair inject`: faults of the bridge's `fault.inject`, by their words.

use super::args::{ActorArg, FaultArg, Global, Inject, OutputArg};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::query;
use serde_json::{Value, json};
use std::time::Duration;

/// `lair inject`: prints the number of the event that marks it.
///
/// # Errors
/// The daemon does not answer, its gate is closed, or nothing there can do that.
pub fn inject(global: &Global, args: &Inject) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let params = json!({ "fault": fault(&args.fault)?, "label": args.label });
    let answer: Value = client.get("fault.inject", &params)?;
    let out = query::out(global);
    if out.structured() {
        out.value(&answer)?;
    } else {
        out.text(&format!("injected as event {}\n", answer["seq"]))?;
    }
    Ok(exit::DONE)
}

fn fault(arg: &FaultArg) -> Result<Value, CliError> {
    Ok(match arg {
        FaultArg::Crash { name, signal } => {
            json!({ "crash_child": { "id": name, "signal": signal } })
        }
        FaultArg::Pause { name, time } => {
            json!({ "pause_child": { "id": name, "for_ms": time.map(ms) } })
        }
        FaultArg::Resume { name } => json!({ "resume_child": { "id": name } }),
        FaultArg::FailStart { name, stage, errno } => {
            json!({ "fail_next_spawn": { "id": name, "stage": stage, "errno": errno } })
        }
        FaultArg::FailLog { name, errno, count } => {
            json!({ "fail_log_writes": { "id": name, "errno": errno, "count": count } })
        }
        FaultArg::CloseStream { name, stream } => {
            let stream = match stream {
                OutputArg::Stdout => "stdout",
                OutputArg::Stderr => "stderr",
            };
            json!({ "close_stream": { "id": name, "stream": stream } })
        }
        FaultArg::Panic { actor, name } => {
            json!({ "panic_actor": { "which": which(*actor, name.as_ref())?, "id": name } })
        }
        FaultArg::Stall { actor, name, time } => {
            json!({ "stall_actor": { "which": which(*actor, name.as_ref())?, "id": name, "for_ms": ms(*time) } })
        }
        FaultArg::KillKeeper => json!("kill_keeper"),
        FaultArg::DropEngine { time } => json!({ "drop_engine": { "for_ms": ms(*time) } }),
    })
}

fn which(actor: ActorArg, name: Option<&String>) -> Result<&'static str, CliError> {
    let (word, of_module) = match actor {
        ActorArg::Root => ("root", false),
        ActorArg::Module => ("module", true),
        ActorArg::Log => ("log", false),
        ActorArg::Pump => ("pump", false),
        ActorArg::Health => ("health", false),
    };
    match (of_module, name) {
        (true, None) => Err(CliError::new(
            "usage",
            "each module has an owner of its own: name the module",
        )),
        (false, Some(_)) => Err(CliError::new(
            "usage",
            format!("there is one {word} actor for all modules: name none"),
        )),
        _ => Ok(word),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An error's number, from its name (`ENOSPC`) or as it is.
pub(super) fn errno(word: &str) -> Option<i32> {
    if let Ok(n) = word.parse::<i32>() {
        return (1..=133).contains(&n).then_some(n);
    }
    let word = word.to_ascii_uppercase();
    (1..=133).find(|n| lair_actors::status::errno_name(*n) == word)
}
