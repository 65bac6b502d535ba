//! Verbs that change something: load, unload, start, stop, restart, kill.

use super::args::{Format, Global, Kill, Load, Names, Start, Stop, StopWait, UpWait};
use super::error::CliError;
use super::exit::Code;
use super::find;
use super::out::{Out, say};
use super::progress::{How, Progress, Source};
use super::query;
use super::style::Style;
use crate::client::{Client, Pipeline};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// What became of each module's request.
pub type Results = Vec<(String, Result<Value, CliError>)>;

/// Time for an answer beyond the time that was asked to be waited.
const SLACK: Duration = Duration::from_secs(5);

/// One loaded module.
#[derive(Deserialize)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// `new`, `same`, `replaced`, `updated`, `restart_needed`.
    pub result: String,
}

/// What became of a file.
#[derive(Deserialize)]
pub struct LoadReply {
    /// Its modules.
    pub modules: Vec<Loaded>,
    /// Modules that it names no more.
    #[serde(default)]
    pub orphans: Vec<String>,
}

/// Milliseconds of a duration.
#[must_use]
pub fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Loads a file: the daemon reads it itself, since its trust hangs on the file.
///
/// # Errors
/// The daemon says no.
pub fn load_file(
    client: &mut Client,
    file: &Path,
    mode: Option<&str>,
) -> Result<LoadReply, CliError> {
    let mut params = json!({ "path": find::absolute(file) });
    if let Some(mode) = mode {
        params["preference"] = mode.into();
    }
    Ok(client.get("module.load", &params)?)
}

/// Asks the same of each module, in one write.
///
/// # Errors
/// The connection broke.
pub fn ask_each(
    client: &mut Client,
    method: &str,
    names: &[String],
    params: &Value,
) -> Result<Results, CliError> {
    let mut pipe = Pipeline::default();
    for name in names {
        let mut params = params.clone();
        params["name"] = name.clone().into();
        pipe.add(method, &params)?;
    }
    let replies = client.send(pipe)?;
    let read = |text: Box<str>| {
        serde_json::from_str(&text)
            .map_err(|e| CliError::new("unreachable", format!("{method} answered: {e}")))
    };
    let results = replies
        .into_iter()
        .map(|r| r.map_err(CliError::from).and_then(read));
    Ok(names.iter().cloned().zip(results).collect())
}

/// Prints what became of each.
///
/// # Errors
/// The output can't be written.
pub fn report(out: &Out, results: &Results) -> Result<(), CliError> {
    let good = results
        .iter()
        .filter_map(|(name, r)| r.as_ref().ok().map(|v| (name, v)));
    if out.structured() {
        return out.value(&Value::Array(good.map(|(_, v)| v.clone()).collect()));
    }
    if out.format == Format::Name {
        return out.text(&good.fold(String::new(), |text, (name, _)| text + name + "\n"));
    }
    let mut text = String::new();
    for (name, value) in good {
        match (value["result"].as_str(), value["run"].as_u64()) {
            (Some(result), Some(run)) => text += &format!("{name}: {result}, run {run}\n"),
            _ => text += &format!("{name}: done\n"),
        }
    }
    out.text(&text)
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// The wire's word.
    pub word: &'a str,
    /// No longer than this.
    pub timeout: Option<Duration>,
    /// Without telling how it goes on.
    pub quiet: bool,
}

/// Waits for the modules whose request was taken, and gives the worst code; says what went wrong.
///
/// # Errors
/// The connection broke.
pub fn worst(
    global: &Global,
    client: &mut Client,
    results: &Results,
    wait: Option<Waiting<'_>>,
) -> Result<Code, CliError> {
    let mut failures: Vec<CliError> = Vec::new();
    let mut waits = Vec::new();
    for (name, result) in results {
        match result {
            Ok(_) => waits.push(name.clone()),
            Err(e) => failures.push(e.clone()),
        }
    }
    if let Some(Waiting {
        word,
        timeout,
        quiet,
    }) = wait
    {
        let source = Source::Bridge(client.path().to_owned());
        let _progress = (!quiet).then(|| Progress::begin(source, &waits, word, How::Drawn));
        let mut params = json!({ "for": word });
        if let Some(timeout) = timeout {
            params["timeout_ms"] = millis(timeout).into();
        }
        client.set_timeout(timeout.map(|t| t + SLACK));
        // No more than the bridge carries at a time, so that none waits behind another's wait.
        for names in waits.chunks(crate::bridge::MAX_IN_FLIGHT) {
            let done = ask_each(client, "module.wait", names, &params)?;
            failures.extend(done.into_iter().filter_map(|(_, r)| r.err()));
        }
        client.set_timeout(None);
    }
    let style = Style::choose(global.color, &std::io::stderr());
    let code = failures
        .iter()
        .map(|e| e.exit)
        .max()
        .unwrap_or(super::exit::DONE);
    for failure in &failures {
        say(&failure.render(&style));
    }
    Ok(code)
}

fn all(
    global: &Global,
    method: &str,
    names: &Names,
    params: &Value,
) -> Result<(Client, Results), CliError> {
    let mut client = find::daemon(global)?;
    let names = query::names(&mut client, names)?;
    let results = ask_each(&mut client, method, &names, params)?;
    report(&query::out(global), &results)?;
    Ok((client, results))
}

/// `lair load`
///
/// # Errors
/// The daemon does not answer, or says no.
pub fn load(global: &Global, args: &Load) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let mode = args
        .mode
        .map(|m| lair_manifests::launch::Mode::from(m).as_str());
    let (mut loaded, mut ended) = (Vec::new(), Ok(super::exit::DONE));
    for file in &args.files {
        match load_file(&mut client, file, mode) {
            Ok(reply) => {
                say_orphans(file, &reply.orphans, "`lair unload` forgets them");
                loaded.extend(reply.modules);
            }
            Err(e) => {
                ended = Err(e);
                break;
            }
        }
    }
    // What is loaded is loaded, whatever became of the next file.
    report_loaded(&query::out(global), &loaded)?;
    ended
}

/// Says which modules a file names no more.
pub fn say_orphans(file: &Path, orphans: &[String], help: &str) {
    if !orphans.is_empty() {
        say(&format!(
            "warning: {} no longer names {}, which stay as they are; {help}\n",
            file.display(),
            orphans.join(", ")
        ));
    }
}

fn report_loaded(out: &Out, loaded: &[Loaded]) -> Result<(), CliError> {
    if out.structured() && !loaded.is_empty() {
        let all = loaded
            .iter()
            .map(|m| json!({ "name": m.name, "result": m.result }));
        return out.value(&all.collect());
    }
    out.text(&loaded.iter().fold(String::new(), |text, m| {
        let more = match out.format {
            Format::Name => String::new(),
            _ if m.result == "restart_needed" => {
                format!(
                    ": changed, in part from its next start on: lair restart {}",
                    m.name
                )
            }
            _ => format!(": {}", m.result),
        };
        text + &m.name + &more + "\n"
    }))
}

/// `lair unload`
///
/// # Errors
/// The daemon does not answer.
pub fn unload(global: &Global, args: &Names) -> Result<Code, CliError> {
    let (mut client, results) = all(global, "module.unload", args, &json!({}))?;
    worst(global, &mut client, &results, None)
}

/// `lair start`
///
/// # Errors
/// The daemon does not answer.
pub fn start(global: &Global, args: &Start) -> Result<Code, CliError> {
    let (mut client, results) = all(global, "module.start", &args.names, &json!({}))?;
    let word = args.wait.map(|w| {
        if w == UpWait::Ready {
            "ready"
        } else {
            "healthy"
        }
    });
    let wait = word.map(|word| Waiting {
        word,
        timeout: args.timeout,
        quiet: args.quiet,
    });
    worst(global, &mut client, &results, wait)
}

/// `lair stop` and `lair restart`
///
/// # Errors
/// The daemon does not answer.
pub fn stop(global: &Global, args: &Stop, method: &str) -> Result<Code, CliError> {
    let mut params = json!({});
    if let Some(grace) = args.grace {
        params["grace_ms"] = millis(grace).into();
    }
    let (mut client, results) = all(global, method, &args.names, &params)?;
    let done = if method == "module.stop" {
        "stopped"
    } else {
        "ready"
    };
    let word = args.wait.map(|w| match w {
        StopWait::Done => done,
        StopWait::Stopped => "stopped",
        StopWait::Ready => "ready",
    });
    let wait = word.map(|word| Waiting {
        word,
        timeout: args.timeout,
        quiet: args.quiet,
    });
    worst(global, &mut client, &results, wait)
}

/// `lair kill`
///
/// # Errors
/// The daemon does not answer.
pub fn kill(global: &Global, args: &Kill) -> Result<Code, CliError> {
    let mut params = json!({});
    if let Some(signal) = args.signal {
        params["signal"] = signal.into();
    }
    let (mut client, results) = all(global, "module.kill", &args.names, &params)?;
    let wait = args.wait.then_some(Waiting {
        word: "stopped",
        timeout: args.timeout,
        quiet: args.quiet,
    });
    worst(global, &mut client, &results, wait)
}

/// `lair freeze`, `lair thaw`
///
/// # Errors
/// The daemon does not answer.
pub fn freeze(global: &Global, names: &Names, method: &str) -> Result<Code, CliError> {
    let (mut client, results) = all(global, method, names, &json!({}))?;
    worst(global, &mut client, &results, None)
}
