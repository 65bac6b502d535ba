//! Verbs about files and the machine: validate, explain, doctor, schema.

use super::args::{Explain, Files, Global, Schema, SchemaArg};
use super::error::{CliError, headed};
use super::exit::{self, Code};
use super::find;
use super::host;
use super::out::say;
use super::query;
use super::style::{Style, Tone};
use crate::client::{CallError, Client};
use crate::{LoadOptions, Runtime, RuntimeHandle, RuntimeOptions};
use lair_manifests::{parse_stack, problem, read_manifest, schema};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// `lair validate`
///
/// # Errors
/// The output can't be written.
pub fn validate(global: &Global, args: &Files) -> Result<Code, CliError> {
    let out = query::out(global);
    let style = Style::choose(global.color, &std::io::stderr());
    let (mut worst, mut values) = (exit::DONE, Vec::new());
    for file in &args.files {
        let parsed = read_manifest(file)
            .map_err(|p| vec![p])
            .and_then(|source| parse_stack(&source));
        let name = file.display().to_string();
        match parsed {
            Ok(stack) => {
                let names: Vec<&str> = stack.modules.iter().map(|m| m.name.as_str()).collect();
                if !out.structured() {
                    out.text(&format!("{name}: valid ({})\n", names.join(", ")))?;
                }
                values.push(json!({ "file": name, "valid": true, "modules": names }));
            }
            Err(problems) => {
                worst = exit::FAILED;
                if !out.structured() {
                    let head = style.paint(Tone::Bad, "error[invalid_manifest]");
                    say(&format!(
                        "{head}: {}\n",
                        headed(problem::render(&problems).trim_end())
                    ));
                }
                values.push(json!({ "file": name, "valid": false, "problems": problems }));
            }
        }
    }
    if out.structured() {
        out.value(&Value::Array(values))?;
    }
    Ok(worst)
}

/// `lair explain`
///
/// # Errors
/// There is no such file or module, or no mode can be had.
pub fn explain(global: &Global, args: &Explain) -> Result<Code, CliError> {
    let out = query::out(global);
    let is_file = args.what.contains('/') || Path::new(&args.what).is_file();
    let explained = if is_file {
        let options = LoadOptions {
            preference: args.mode.map(Into::into),
            ..LoadOptions::default()
        };
        let file = find::absolute(Path::new(&args.what));
        embedded(global, "explain", async |handle| {
            Ok(handle.explain_file(&file, &options)?)
        })?
    } else {
        let mut client = find::daemon(global)?;
        let value: Value = client.get("module.explain", &json!({ "name": args.what }))?;
        let lines = value["lines"].as_array().cloned().unwrap_or_default();
        let lines = lines
            .iter()
            .filter_map(|l| l.as_str().map(str::to_owned))
            .collect();
        vec![(args.what.clone(), lines)]
    };
    if out.structured() {
        let all = explained
            .into_iter()
            .map(|(name, lines)| json!({ "name": name, "lines": lines }));
        out.value(&Value::Array(all.collect()))?;
        return Ok(exit::DONE);
    }
    let mut text = String::new();
    for (name, lines) in explained {
        text += &format!("{}\n", out.style.paint(Tone::Strong, &name));
        for line in lines {
            text += &format!("  {line}\n");
        }
    }
    out.text(&text)?;
    Ok(exit::DONE)
}

/// Asks a runtime that lives for the question only.
pub(super) fn embedded<T>(
    global: &Global,
    word: &str,
    ask: impl AsyncFnOnce(&RuntimeHandle) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let (config, dirs, _) = find::config(global.config.as_deref())?;
    let folders = host::private(host::folders(dirs, None), word);
    let run = folders.run.clone();
    let answer = host::block_on(async {
        let runtime = Runtime::start(RuntimeOptions::new(config, folders)).await?;
        let answer = ask(runtime.handle()).await;
        runtime.shutdown(Duration::ZERO).await;
        answer
    });
    let _ = std::fs::remove_dir_all(run);
    answer
}

/// `lair doctor`: of the daemon, or without one of this user.
///
/// # Errors
/// Neither could look.
pub fn doctor(global: &Global) -> Result<Code, CliError> {
    let out = query::out(global);
    let asked = Client::connect(&find::socket(global)?);
    let (value, whose) = match asked {
        Ok(mut client) => (client.get("runtime.doctor", &json!({}))?, "the daemon"),
        Err(CallError::Unreachable { .. }) if global.socket.is_none() => (
            embedded(global, "doctor", async |handle| Ok(handle.doctor()))?,
            "this user; no daemon answers",
        ),
        Err(e) => return Err(e.into()),
    };
    if out.structured() {
        out.value(&value)?;
        return Ok(exit::DONE);
    }
    out.text(&format!(
        "as seen by {whose}\n{}",
        findings(&value, &out.style)
    ))?;
    Ok(exit::DONE)
}

fn findings(value: &Value, style: &Style) -> String {
    let list = value.as_array().or_else(|| value["findings"].as_array());
    let Some(list) = list else {
        return format!("{value:#}\n");
    };
    let mut text = String::new();
    for finding in list {
        let field = |key: &str| finding[key].as_str().unwrap_or("").to_owned();
        let state = field("verdict");
        let tone = match state.as_str() {
            "ok" => Tone::Good,
            "missing" => Tone::Bad,
            _ => Tone::Warn,
        };
        text += &format!(
            "{} {}: {}\n",
            style.paint(tone, &format!("{state:>7}")),
            field("what"),
            field("found")
        );
        let help = field("mend");
        if !help.is_empty() {
            text += &format!("        help: {help}\n");
        }
    }
    text
}

/// `lair schema`
///
/// # Errors
/// The output can't be written.
pub fn print_schema(global: &Global, args: &Schema) -> Result<Code, CliError> {
    let value = match args.which {
        SchemaArg::Manifest => schema::manifest(),
        SchemaArg::Config => schema::config(),
        SchemaArg::Rpc => crate::bridge::openrpc::document().clone(),
    };
    query::out(global).value(&value)?;
    Ok(exit::DONE)
}
