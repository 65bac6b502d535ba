//! `lair status NAME` and `lair ps` without building the command line's tree: the two that scripts call in loops.
//!
//! Promises: prints and ends exactly as the long way does, or declines.

use super::args::{Format, Global, Ps, Status};
use super::error::CliError;
use super::exit::Code;
use super::query;
use super::style::When;
use std::ffi::OsString;
use std::path::PathBuf;

/// Is it worth trying?
pub fn may_do(args: &[OsString]) -> bool {
    args.first()
        .is_some_and(|verb| verb == "status" || verb == "ps")
}

/// Does the work, if it is a kind that can be done here.
pub fn try_run(args: &[OsString]) -> Option<(Global, Result<Code, CliError>)> {
    if !may_do(args) {
        return None;
    }
    let mut words = args
        .iter()
        .map(|a| a.to_str())
        .collect::<Option<Vec<&str>>>()?
        .into_iter();
    let verb = words.next()?;
    let mut global = Global {
        socket: std::env::var_os("LAIR_SOCKET")
            .filter(|s| !s.is_empty())
            .map(PathBuf::from),
        config: std::env::var_os("LAIR_CONFIG")
            .filter(|s| !s.is_empty())
            .map(PathBuf::from),
        color: When::Auto,
        verbose: 0,
        output: Format::Table,
    };
    let (mut names, mut ps) = (Vec::new(), Ps::default());
    while let Some(word) = words.next() {
        match word {
            "--socket" => global.socket = Some(words.next()?.into()),
            "-o" | "--output" => global.output = format(words.next()?)?,
            "-a" | "--all" if verb == "ps" => ps.all = true,
            "-q" | "--quiet" if verb == "ps" => ps.quiet = true,
            name if verb == "status" && !name.starts_with('-') && !name.is_empty() => {
                names.push(name.to_owned())
            }
            _ => match word.strip_prefix("--socket=") {
                Some(path) if !path.is_empty() => global.socket = Some(path.into()),
                _ => return None,
            },
        }
    }
    let done = match verb {
        "ps" => query::ps(&global, &ps),
        _ => query::status(&global, &Status { names }),
    };
    Some((global, done))
}

fn format(word: &str) -> Option<Format> {
    match word {
        "table" => Some(Format::Table),
        "wide" => Some(Format::Wide),
        "json" => Some(Format::Json),
        "jsonl" => Some(Format::Jsonl),
        "yaml" => Some(Format::Yaml),
        "name" => Some(Format::Name),
        _ => None,
    }
}
