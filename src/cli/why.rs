//! `lair why`: one screen about a run, the most important first; or all that a bug report needs, in one file.

use super::args::{Global, Why};
use super::bundle;
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::query;
use super::style::{Style, Tone};
use super::time::{bytes, cpus, span};
use crate::client::{CallError, Client};
use crate::handle::recorded;
use lair_actors::dossier::{Dossier, Moment};
use lair_actors::footprint::{RunFootprint, Spread};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Lines of output on the page.
const LAST_LINES: usize = 8;
/// Moments on the page.
const MOMENTS: usize = 3;
/// Columns of a page on no terminal.
const WIDTH: usize = 100;

/// Where dossiers come from: the daemon, or without one the files themselves.
pub(super) enum Source {
    Daemon(Client),
    Files(PathBuf),
}

impl Source {
    pub(super) fn open(global: &Global) -> Result<Source, CliError> {
        match Client::connect(&find::socket(global)?) {
            Ok(client) => Ok(Source::Daemon(client)),
            Err(CallError::Unreachable { .. }) if global.socket.is_none() => {
                let (_, dirs, _) = find::config(global.config.as_deref())?;
                Ok(Source::Files(dirs.logs))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn dossier(
        &mut self,
        name: &str,
        run: Option<i64>,
        lines: Option<u64>,
    ) -> Result<Dossier, CliError> {
        match self {
            Source::Daemon(client) => {
                let mut params = json!({ "name": name });
                if let Some(run) = run {
                    params["run"] = run.into();
                }
                if let Some(lines) = lines {
                    params["lines"] = lines.into();
                }
                let value: Value = client.get("module.why", &params)?;
                serde_json::from_value(value).map_err(|e| query::broken(&e))
            }
            Source::Files(logs) => Ok(recorded(logs, name, run, false)?),
        }
    }
}

/// `lair why`: ends with 1 if something is wrong with one of them.
///
/// # Errors
/// There is no such module or run, or the file can't be written.
pub fn why(global: &Global, args: &Why) -> Result<Code, CliError> {
    let mut source = Source::open(global)?;
    let out = query::out(global);
    let names = match &mut source {
        Source::Daemon(client) => query::names(client, &args.names)?,
        Source::Files(_) if args.names.all => {
            return Err(
                CliError::new("unreachable", "no daemon answers that knows all modules")
                    .with_help("name them: dossiers of single modules are read from their files"),
            );
        }
        Source::Files(_) => args.names.names.clone(),
    };
    if let Some(file) = &args.bundle {
        return pack(&mut source, &names, args.run, file);
    }
    let (mut text, mut values) = (String::new(), Vec::new());
    for name in &names {
        let dossier = source.dossier(name, args.run, None)?;
        if out.structured() {
            values.push(serde_json::to_value(&dossier).map_err(|e| query::broken(&e))?);
        } else {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &page(&dossier, &out.style);
        }
    }
    if out.structured() {
        let one = names.len() == 1 && !args.names.all;
        out.value(&if one {
            values.remove(0)
        } else {
            Value::Array(values)
        })?;
    } else {
        out.text(&text)?;
    }
    Ok(exit::DONE)
}

fn pack(
    source: &mut Source,
    names: &[String],
    run: Option<i64>,
    file: &std::path::Path,
) -> Result<Code, CliError> {
    let [name] = names else {
        return Err(CliError::new(
            "usage",
            "a bundle is about one module: name one",
        ));
    };
    let dossier = source.dossier(name, run, Some(2000))?;
    let mut files = vec![
        (
            "README.txt".to_owned(),
            bundle::readme(&dossier).into_bytes(),
        ),
        (
            "why.txt".to_owned(),
            page(&dossier, &Style::default()).into_bytes(),
        ),
        ("dossier.json".to_owned(), bundle::json(&dossier)),
    ];
    for back in 1..=5 {
        let Some(earlier) = i64::try_from(dossier.run)
            .ok()
            .map(|n| n - back)
            .filter(|n| *n > 0)
        else {
            break;
        };
        if let Ok(earlier) = source.dossier(name, Some(earlier), None) {
            files.push((
                format!("earlier/{}.dossier.json", earlier.run),
                bundle::json(&earlier),
            ));
        }
    }
    if let Source::Daemon(client) = source {
        for (name, method) in [
            ("runtime.json", "runtime.info"),
            ("doctor.json", "runtime.doctor"),
        ] {
            if let Ok(value) = client.get::<Value, _>(method, &json!({})) {
                files.push((name.to_owned(), bundle::json(&value)));
            }
        }
    }
    let folder = format!("lair-why-{name}-{}", dossier.run);
    bundle::write(file, &folder, &files).map_err(|e| {
        CliError::new("output", format!("cannot write {}: {e}", file.display()))
            .with_help("name a file in a folder that you may write to")
    })?;
    super::out::say(&format!(
        "{}: {} files about run {} of {name}. Read why.txt and dossier.json before you publish it: lair hides values of \
         the environment and what looks like a key, and can not know what else is private\n",
        file.display(),
        files.len(),
        dossier.run
    ));
    Ok(exit::DONE)
}

/// One screen.
#[must_use]
pub fn page(d: &Dossier, style: &Style) -> String {
    let tone = if d.failed { Tone::Bad } else { Tone::Strong };
    let mut text = style.paint(tone, &d.summary);
    if let Some(reason) = &d.reason {
        let _ = write!(text, " [{}]", reason.code);
    }
    text.push('\n');
    let mut row = |key: &str, value: &str| {
        for (at, line) in wrap(value, WIDTH - 10).iter().enumerate() {
            let key = if at == 0 { key } else { "" };
            let _ = writeln!(
                text,
                "  {} {line}",
                style.paint(Tone::Strong, &format!("{key:<7}"))
            );
        }
    };
    finding(d, &mut row);
    facts(d, &mut row);
    for (at, moment) in last(&d.timeline, MOMENTS).iter().enumerate() {
        row(if at == 0 { "Events" } else { "" }, &moment_words(moment));
    }
    for (at, line) in last(&d.last_lines, LAST_LINES).iter().enumerate() {
        let words: String = format!("{} {}", line.stream, line.text)
            .chars()
            .take(WIDTH - 10)
            .collect();
        row(if at == 0 { "Output" } else { "" }, &words);
    }
    for note in &d.notes {
        row("Note", note);
    }
    let more = if d.run > 0 {
        format!(
            "lair logs {0} --run {1}, lair why {0} --run {1} -o json, --bundle FILE",
            d.name, d.run
        )
    } else {
        format!("lair status {}", d.name)
    };
    row("More", &more);
    text
}

/// The cause, the evidence, the next step.
fn finding(d: &Dossier, row: &mut impl FnMut(&str, &str)) {
    match &d.cause {
        Some(cause) => {
            let pack = if cause.pack == "built-in" {
                String::new()
            } else {
                format!(" of {}", cause.pack)
            };
            row(
                "Cause",
                &format!("{} [{}{pack}]", cause.message, cause.code),
            );
            if let Some(line) = &cause.line {
                row("", &format!("> {line}"));
            }
        }
        None if d.failed => row(
            "Cause",
            "none of the causes that lair knows; the output below has its last words",
        ),
        None => {}
    }
    if let Some(reason) = &d.reason {
        if !d.summary.contains(&reason.message) {
            row("Reason", &reason.message);
        }
        for line in &reason.evidence {
            row("", line);
        }
    }
    if let Some(next) = d
        .next_step
        .as_ref()
        .filter(|_| d.failed || d.reason.is_some())
    {
        row("Next", next);
    }
}

/// Which run, what was started, how it ended.
fn facts(d: &Dossier, row: &mut impl FnMut(&str, &str)) {
    if d.run == 0 {
        return row("Mode", &mode_words(d));
    }
    let times = match (&d.started_at, &d.finished_at) {
        (Some(from), Some(to)) => format!(", {from} to {to}"),
        (Some(from), None) => format!(", up since {from}"),
        (None, Some(at)) => format!(", failed to start at {at}"),
        (None, None) => String::new(),
    };
    let who = d
        .identity
        .as_ref()
        .map_or_else(String::new, |i| format!(", {i}"));
    row("Run", &format!("{}{who}{times}, {}", d.run, d.origin));
    let image = d
        .command
        .image
        .as_ref()
        .map_or_else(String::new, |i| format!("{i} "));
    row("Command", &format!("{image}{}", words(&d.command.argv)));
    if let Some(dir) = &d.command.workdir {
        let user = d
            .command
            .user
            .as_ref()
            .map_or_else(String::new, |u| format!(", as {u}"));
        row("", &format!("in {dir}{user}"));
    }
    row("Mode", &mode_words(d));
    if let Some(exit) = &d.exit {
        let oom = match exit.oom {
            Some(true) => "out of memory",
            Some(false) => "not out of memory",
            None => "whether out of memory is unknown",
        };
        let by_us = match exit.by_us {
            Some(signal) => format!("lair sent {}", crate::signals::name(signal)),
            None => "lair sent no signal".to_owned(),
        };
        row(
            "Exit",
            &format!("{}; {oom}; {by_us}", super::view::exit_words(exit)),
        );
    }
    if !d.leftover.is_empty() {
        row("Left", &d.leftover.join(", "));
    }
    limits(d, row);
    if let Some(footprint) = &d.footprint {
        taken(footprint, row);
    }
    let verdict = d
        .probes
        .last()
        .filter(|_| d.health.reason.is_none())
        .map(moment_words);
    if let Some(health) = d.health.reason.clone().or(verdict) {
        row("Health", &health);
    }
    if d.logs.dropped > 0 {
        row("Lost", &format!("{} of its output", bytes(d.logs.dropped)));
    }
}

fn limits(d: &Dossier, row: &mut impl FnMut(&str, &str)) {
    let memory = &d.resources.memory;
    if let Some(limit) = memory.limit {
        let by = memory.by.as_deref().unwrap_or("nobody says by what");
        let peak = memory
            .peak
            .map_or_else(String::new, |p| format!(", peak {}", bytes(p)));
        row("Limits", &format!("memory {} ({by}){peak}", bytes(limit)));
    }
}

/// What the run took, what is usual, and what is new.
fn taken(footprint: &RunFootprint, row: &mut impl FnMut(&str, &str)) {
    let usual = footprint.usual.as_ref();
    let beside = |value: Option<String>, usual: Option<String>| match (value, usual) {
        (Some(value), Some(usual)) => Some(format!("{value} (usually {usual})")),
        (value, _) => value,
    };
    let taken = &footprint.taken;
    let of = |what: Option<u64>, spread: Option<Spread>, show: fn(u64) -> String| {
        beside(what.map(show), spread.map(|s| show(s.usual)))
    };
    let all = [
        of(taken.memory, usual.and_then(|u| u.memory), bytes).map(|w| format!("memory {w}")),
        of(taken.gpu_memory, usual.and_then(|u| u.gpu_memory), bytes)
            .map(|w| format!("GPU memory {w}")),
        of(taken.ready_ms, usual.and_then(|u| u.ready_ms), span)
            .map(|w| format!("ready after {w}")),
        of(taken.cpu_milli, usual.and_then(|u| u.cpu_milli), cpus).map(|w| format!("CPUs {w}")),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if !all.is_empty() {
        row("Took", &all.join(", "));
    }
    if let Some(change) = &footprint.change {
        row("Change", change);
    }
}

fn mode_words(d: &Dossier) -> String {
    let why = d
        .mode
        .explanation
        .last()
        .map_or_else(String::new, |l| format!(": {l}"));
    format!("{} by {}{why}", d.mode.mode, d.mode.backend)
}

fn moment_words(moment: &Moment) -> String {
    format!(
        "{} {}",
        moment.at.get(11..23).unwrap_or(&moment.at),
        moment.what
    )
}

/// The command as a shell would read it.
pub(super) fn words(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+${}".contains(c);
    let quote = |word: &String| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    argv.iter().map(quote).collect::<Vec<_>>().join(" ")
}

fn last<T>(all: &[T], most: usize) -> &[T] {
    &all[all.len().saturating_sub(most)..]
}

/// Lines of at most so many characters, broken at spaces where there are any; at most three of them.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').map(|w| w.replace(char::is_control, " ")) {
        let full = lines.len() == 3;
        let Some(line) = lines.last_mut() else { break };
        let fits = line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width;
        if fits {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        } else if full {
            line.push('…');
            break;
        } else {
            lines.push(word);
        }
    }
    lines
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn long_texts_are_broken_at_spaces_and_end_after_three_lines() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("a b c d e", 1), ["a", "b", "c…"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn a_command_is_shown_as_a_shell_reads_it() {
        let argv = ["sh", "-c", "echo 'x'", ""].map(str::to_owned);
        assert_eq!(words(&argv), r"sh -c 'echo '\''x'\''' ''");
    }
}
