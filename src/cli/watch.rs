//! Verbs that follow: logs, events, wait.

use super::args::{Events, Format, Global, Logs, StreamArg, Wait};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::out::{self, say};
use super::query;
use super::style::{Style, Tone};
use super::time::{now_ms, parse_duration, parse_rfc3339};
use crate::bridge::logline::{LogLine, LogPlace};
use crate::bridge::methods::logs::read_files;
use crate::client::{CallError, Client};
use lair_actors::status::ModuleStatus;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Deserialize)]
struct Page {
    lines: Vec<LogLine>,
    next: Option<LogPlace>,
    more: bool,
    missed: u64,
}

#[derive(Deserialize)]
struct LogNote {
    line: Option<LogLine>,
    #[serde(default)]
    missed: u64,
    end: Option<String>,
}

/// Where pages come from: the daemon, or without one the files themselves.
enum Source {
    Daemon(Client),
    Files(std::path::PathBuf),
}

impl Source {
    fn page(&mut self, params: &Value) -> Result<Page, CliError> {
        match self {
            Source::Daemon(client) => Ok(client.get("logs.read", params)?),
            Source::Files(dir) => {
                let refused = |e: crate::bridge::wire::RpcError| {
                    let mut error = CliError::new(&e.code, e.message);
                    error.help = e.help;
                    error
                };
                let value = read_files(dir, params.clone()).map_err(refused)?;
                serde_json::from_value(value).map_err(|e| CliError::new("internal", e.to_string()))
            }
        }
    }
}

fn source(global: &Global, follow: bool) -> Result<Source, CliError> {
    let socket = find::socket(global)?;
    match Client::connect(&socket) {
        Ok(client) => Ok(Source::Daemon(client)),
        Err(CallError::Unreachable { .. }) if global.socket.is_none() && !follow => {
            find::config(global.config.as_deref()).map(|(_, dirs, _)| Source::Files(dirs.logs))
        }
        Err(e) => Err(e.into()),
    }
}

/// How lines are shown.
struct Shape {
    json: bool,
    names: usize,
    times: bool,
    style: Style,
}

impl Shape {
    fn line(&self, text: &mut Vec<u8>, line: &LogLine) {
        if self.json {
            // A line can always be written as JSON.
            let _ = serde_json::to_writer(&mut *text, line);
            text.push(b'\n');
            return;
        }
        if self.names > 0 {
            let name = format!("{:width$} | ", line.name, width = self.names);
            text.extend_from_slice(self.style.paint(Tone::Strong, &name).as_bytes());
        }
        if self.times {
            let at = line.at.as_deref().unwrap_or("-");
            text.extend_from_slice(self.style.paint(Tone::Dim, at).as_bytes());
            text.push(b' ');
        }
        if line.stream == "lair" {
            text.extend_from_slice(
                self.style
                    .paint(Tone::Dim, &format!("[lair] {}", line.text))
                    .as_bytes(),
            );
        } else {
            text.extend_from_slice(&line.bytes());
        }
        text.push(b'\n');
    }
}

/// `lair logs`
///
/// # Errors
/// There is no such module, or its log can't be read.
pub fn logs(global: &Global, args: &Logs) -> Result<Code, CliError> {
    let mut source = source(global, args.follow)?;
    let out = query::out(global);
    let several = args.names.len() > 1;
    let shape = Shape {
        json: out.structured(),
        names: if several {
            args.names.iter().map(String::len).max().unwrap_or(0)
        } else {
            0
        },
        times: args.timestamps,
        style: out.style,
    };
    let (mut merged, mut places) = (Vec::new(), Vec::new());
    for name in &args.names {
        let mut params = read_params(name, args)?;
        let place = loop {
            let page = source.page(&params)?;
            if page.missed > 0 {
                say(&format!(
                    "warning: {} files of {name} were deleted before they could be read\n",
                    page.missed
                ));
            }
            if several {
                merged.extend(page.lines);
            } else if !print(&shape, &page.lines)? {
                return Ok(exit::DONE);
            }
            match page.next {
                Some(next) if page.more && args.lines.is_none() => params["from"] = json!(next),
                next => break next,
            }
        };
        places.push((name.clone(), place));
    }
    merged.sort_by(|a: &LogLine, b: &LogLine| a.at.cmp(&b.at));
    print(&shape, &merged)?;
    match source {
        Source::Daemon(mut client) if args.follow => follow(&mut client, args, &places, &shape),
        _ => Ok(exit::DONE),
    }
}

fn print(shape: &Shape, lines: &[LogLine]) -> Result<bool, CliError> {
    let mut text = Vec::new();
    for line in lines {
        shape.line(&mut text, line);
    }
    out::write(&text)
}

fn read_params(name: &str, args: &Logs) -> Result<Value, CliError> {
    let mut params = json!({ "name": name });
    if let Some(n) = args.lines {
        params["lines"] = n.into();
    }
    if let Some(since) = &args.since {
        params["since_ms"] = moment(since)?.into();
    }
    if let Some(until) = &args.until {
        params["until_ms"] = moment(until)?.into();
    }
    if let Some(run) = args.run.or(args.previous.then_some(-1)) {
        params["run"] = run.into();
    }
    select(&mut params, args);
    Ok(params)
}

fn select(params: &mut Value, args: &Logs) {
    if let Some(stream) = args.stream {
        params["stream"] = match stream {
            StreamArg::Stdout => "stdout",
            StreamArg::Stderr => "stderr",
            StreamArg::Lair => "lair",
        }
        .into();
    }
    if let Some(grep) = &args.grep {
        params["grep"] = grep.clone().into();
    }
}

/// A time, or an age counted back from now.
fn moment(text: &str) -> Result<i64, CliError> {
    if let Some(ms) = parse_rfc3339(text) {
        return Ok(ms);
    }
    let back = parse_duration(text).map_err(|_| {
        CliError::new(
            "usage",
            format!("{text:?} is neither a time (2026-01-01T00:00:00Z) nor an age (10m)"),
        )
    })?;
    Ok(now_ms() - i64::try_from(back.as_millis()).unwrap_or(i64::MAX))
}

fn follow(
    client: &mut Client,
    args: &Logs,
    places: &[(String, Option<LogPlace>)],
    shape: &Shape,
) -> Result<Code, CliError> {
    for (name, place) in places {
        let mut params = json!({ "name": name });
        match place {
            Some(place) => params["from"] = json!(place),
            // Nothing fitted: with nothing but the query's own choice that goes for the whole log.
            None if args.since.is_none()
                && args.run.is_none()
                && !args.previous
                && args.lines != Some(0) =>
            {
                params["from"] = json!({ "run": 0, "segment": 0, "offset": 0 });
            }
            None => {}
        }
        select(&mut params, args);
        client.call("logs.follow", &params)?;
    }
    let mut text = Vec::new();
    loop {
        let note: LogNote = note(client)?;
        if note.missed > 0 {
            say(&format!(
                "warning: {} files were deleted before they could be read\n",
                note.missed
            ));
        }
        if let Some(end) = note.end {
            return Err(CliError::new("log_unreadable", end));
        }
        if let Some(line) = &note.line {
            shape.line(&mut text, line);
        }
        if text.len() > 60_000 || !client.has_more() {
            if !out::write(&text)? {
                return Ok(exit::DONE);
            }
            text.clear();
        }
    }
}

fn note<T: serde::de::DeserializeOwned>(client: &mut Client) -> Result<T, CliError> {
    let text = client.next_note()?;
    serde_json::from_str(&text)
        .map_err(|e| CliError::new("unreachable", format!("lair sent something else: {e}")))
}

#[derive(Deserialize)]
struct EventNote {
    event: Option<Box<RawValue>>,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: u64,
}

/// `lair events`
///
/// # Errors
/// The daemon does not answer.
pub fn events(global: &Global, args: &Events) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let from = args.since.or((!args.follow).then_some(1));
    let params = match from {
        Some(from) => json!({ "from_seq": from }),
        None => json!({}),
    };
    let started: Value = client.get("events.subscribe", &params)?;
    let newest = started["seq"].as_u64().unwrap_or(0);
    let out = query::out(global);
    let mut seen = from.map_or(newest, |f| f.saturating_sub(1));
    while args.follow || seen < newest {
        let note: EventNote = note(&mut client)?;
        if let Some(gap) = note.gap {
            say(&format!(
                "events {} to {} are no longer kept\n",
                gap.from, gap.to
            ));
            seen = seen.max(gap.to);
        }
        let Some(raw) = note.event else { continue };
        let event: Value = serde_json::from_str(raw.get())
            .map_err(|e| CliError::new("unreachable", format!("lair sent something else: {e}")))?;
        seen = event["seq"].as_u64().unwrap_or(seen);
        let name = event["name"].as_str().unwrap_or("");
        if !args.names.is_empty() && !args.names.iter().any(|n| n == name) {
            continue;
        }
        let line = if out.structured() {
            format!("{}\n", raw.get())
        } else {
            event_line(&event, &out.style, out.format)
        };
        if !out::write(line.as_bytes())? {
            break;
        }
    }
    Ok(exit::DONE)
}

/// An event for people: number, time, kind, module, and what belongs to the kind.
pub(super) fn event_line(event: &Value, style: &Style, format: Format) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("").to_owned();
    if format == Format::Name {
        return format!("{}\n", text("name"));
    }
    let kind = text("type");
    let word = kind.rsplit('.').next().unwrap_or("");
    let painted = super::style::tone(word).map_or_else(|| kind.clone(), |t| style.paint(t, &kind));
    let pad = " ".repeat(20usize.saturating_sub(kind.len()));
    let plain = ["seq", "at", "type", "name", "run", "origin"];
    let rest: String = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| !plain.contains(&key.as_str()) && !value.is_null())
        .fold(String::new(), |text, (key, value)| {
            text + " " + key + "=" + &value.to_string()
        });
    let by = text("origin");
    format!(
        "{:>5} {} {painted}{pad} {} run={} {by}{rest}\n",
        event["seq"],
        text("at"),
        text("name"),
        event["run"]
    )
}

/// `lair wait`
///
/// # Errors
/// The time is over, or it can no longer happen.
pub fn wait(global: &Global, args: &Wait) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let mut params = json!({ "name": args.name, "for": args.what.word() });
    if let Some(timeout) = args.timeout {
        params["timeout_ms"] = super::lifecycle::millis(timeout).into();
        client.set_timeout(Some(timeout + Duration::from_secs(5)));
    }
    let status: Value = client.get("module.wait", &params)?;
    let out = query::out(global);
    if out.structured() {
        out.value(&status)?;
    } else if let Ok(status) = serde_json::from_value::<ModuleStatus>(status) {
        out.text(&format!(
            "{}: {}, run {}\n",
            status.name, status.state, status.run
        ))?;
    }
    Ok(exit::DONE)
}
