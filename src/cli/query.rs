//! Verbs that only look: ps, status, inspect, call.

use super::args::{Call, Format, Global, Names, Ps, Status};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::out::{Out, say};
use super::style::Style;
use super::view;
use crate::bridge::logline::LogLine;
use crate::client::{CallError, Client, Pipeline, Reply};
use lair_actors::status::ModuleStatus;
use serde::Deserialize;
use serde_json::{Value, json};

/// Lines of output on the page of `status`.
const LAST_LINES: u64 = 10;

#[derive(Deserialize)]
struct List {
    modules: Vec<ModuleStatus>,
}

#[derive(Deserialize)]
struct Lines {
    lines: Vec<LogLine>,
}

/// The output as the flags say.
#[must_use]
pub fn out(global: &Global) -> Out {
    Out {
        format: global.output,
        style: Style::choose(global.color, &std::io::stdout()),
    }
}

pub(super) fn broken(e: &serde_json::Error) -> CliError {
    CliError::new("unreachable", format!("lair answered something else: {e}")).with_help(
        "is this program as old as the daemon? `lair call runtime.info` says its version",
    )
}

/// All modules' names.
///
/// # Errors
/// The daemon does not answer.
pub fn all_names(client: &mut Client) -> Result<Vec<String>, CliError> {
    let list: List = client.get("module.list", &json!({}))?;
    Ok(list.modules.into_iter().map(|m| m.name).collect())
}

/// The names given, or all.
///
/// # Errors
/// The daemon does not answer.
pub fn names(client: &mut Client, names: &Names) -> Result<Vec<String>, CliError> {
    if names.all {
        all_names(client)
    } else {
        Ok(names.names.clone())
    }
}

/// `lair ps`
///
/// # Errors
/// The daemon does not answer.
pub fn ps(global: &Global, args: &Ps) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let out = out(global);
    let shown = |state: &str| args.all || state != "stopped";
    if out.structured() && !args.quiet {
        let list: Value = client.get("module.list", &json!({}))?;
        let modules = list["modules"].as_array().cloned().unwrap_or_default();
        let modules = modules
            .into_iter()
            .filter(|m| shown(m["state"].as_str().unwrap_or("")));
        out.value(&Value::Array(modules.collect()))?;
        return Ok(exit::DONE);
    }
    let mut list: List = client.get("module.list", &json!({}))?;
    let loaded = list.modules.len();
    list.modules.retain(|m| shown(&m.state));
    if args.quiet || out.format == Format::Name {
        let text = list
            .modules
            .iter()
            .fold(String::new(), |text, m| text + &m.name + "\n");
        out.text(&text)?;
    } else {
        out.text(&view::ps(
            &list.modules,
            out.format == Format::Wide,
            &out.style,
        ))?;
        if list.modules.is_empty() {
            say(&nothing(loaded));
        }
    }
    Ok(exit::DONE)
}

/// Why the table is empty.
fn nothing(loaded: usize) -> String {
    match loaded {
        0 => "no module is loaded: `lair load FILE` loads one\n".to_owned(),
        1 => "one module is loaded and stopped: `lair ps -a`\n".to_owned(),
        n => format!("{n} modules are loaded and stopped: `lair ps -a`\n"),
    }
}

/// `lair status`: the worst of the modules' codes.
///
/// # Errors
/// The daemon does not answer, or there is no such module.
pub fn status(global: &Global, args: &Status) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let out = out(global);
    let names = if args.names.is_empty() {
        all_names(&mut client)?
    } else {
        args.names.clone()
    };
    let (mut worst, mut text, mut values, mut missing) =
        (exit::DONE, String::new(), Vec::new(), None);
    let pages = !out.structured() && out.format != Format::Name;
    for (name, (status, lines)) in names.iter().zip(ask(&mut client, &names, pages)?) {
        let raw = match status {
            Ok(raw) => raw,
            Err(e) => {
                missing = Some(CliError::from(e));
                continue;
            }
        };
        let status: ModuleStatus = serde_json::from_str(&raw).map_err(|e| broken(&e))?;
        worst = worst.max(view::status_code(&status));
        match out.format {
            Format::Json | Format::Jsonl | Format::Yaml => {
                values.push(serde_json::from_str::<Value>(&raw).map_err(|e| broken(&e))?);
            }
            Format::Name => text += &format!("{name}\n"),
            Format::Table | Format::Wide => {
                if !text.is_empty() {
                    text.push('\n');
                }
                let lines = lines
                    .and_then(Result::ok)
                    .and_then(|l| serde_json::from_str::<Lines>(&l).ok());
                text += &view::page(
                    &status,
                    &lines.map(|l| l.lines).unwrap_or_default(),
                    &out.style,
                );
            }
        }
    }
    show(&out, args.names.len() == 1, values, &text)?;
    match missing {
        Some(error) => Err(error),
        None => Ok(worst),
    }
}

/// Values where they are wanted, text else.
fn show(out: &Out, one: bool, mut values: Vec<Value>, text: &str) -> Result<(), CliError> {
    if !out.structured() || (one && values.is_empty()) {
        return out.text(text);
    }
    out.value(&if one {
        values.remove(0)
    } else {
        Value::Array(values)
    })
}

type Answers = (Reply, Option<Reply>);

/// All questions in one write.
fn ask(client: &mut Client, names: &[String], lines: bool) -> Result<Vec<Answers>, CallError> {
    let mut pipe = Pipeline::default();
    for name in names {
        pipe.add("module.status", &json!({ "name": name }))?;
        if lines {
            pipe.add("logs.read", &json!({ "name": name, "lines": LAST_LINES }))?;
        }
    }
    let mut replies = client.send(pipe)?.into_iter();
    let mut answers = Vec::with_capacity(names.len());
    while let Some(status) = replies.next() {
        answers.push((status, if lines { replies.next() } else { None }));
    }
    Ok(answers)
}

/// `lair inspect`
///
/// # Errors
/// The daemon does not answer, or there is no such module.
pub fn inspect(global: &Global, args: &Names) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let mut all = Vec::new();
    for name in names(&mut client, args)? {
        let mut value: Value = client.get("module.status", &json!({ "name": name }))?;
        let explained: Value = client.get("module.explain", &json!({ "name": name }))?;
        if let Some(map) = value.as_object_mut() {
            map.insert("explanation".into(), explained["lines"].clone());
        }
        all.push(value);
    }
    let mut out = out(global);
    if matches!(out.format, Format::Table | Format::Wide) {
        out.format = Format::Json;
    }
    let one = args.names.len() == 1;
    out.value(&if one {
        all.remove(0)
    } else {
        Value::Array(all)
    })?;
    Ok(exit::DONE)
}

/// `lair call`
///
/// # Errors
/// The daemon does not answer, or says no.
pub fn call(global: &Global, args: &Call) -> Result<Code, CliError> {
    let params: Box<serde_json::value::RawValue> = serde_json::from_str(&args.params)
        .map_err(|e| CliError::new("usage", format!("the parameters are not JSON: {e}")))?;
    let mut client = find::daemon(global)?;
    let text = client.call(&args.method, &params)?;
    let mut out = out(global);
    if matches!(out.format, Format::Table | Format::Wide | Format::Name) {
        out.format = Format::Json;
    }
    let value: Value = serde_json::from_str(&text).map_err(|e| broken(&e))?;
    out.value(&value)?;
    Ok(exit::DONE)
}
