//! `logs.*`: reading modules' output back.

use super::results::Subscribed;
use super::types::Name;
use super::{Context, OnConnection, Registry, on_connection, wait};
use crate::bridge::logline::{LogLine, LogPlace};
use crate::bridge::wire::RpcError;
use lair_actors::files::read::{Cursor, LogReader, Query, Runs};
use lair_actors::files::{Stamp, StreamName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

pub(super) fn register(all: &mut Registry) {
    all.insert("logs.read", wait("Reads a module's output back.", read));
    all.insert(
        "logs.follow",
        on_connection::<FollowParams, Subscribed>(
            "Sends a module's output as notifications `log`, as it comes.",
            OnConnection::Logs,
        ),
    );
}

/// Lines given at most by one `logs.read`.
const MOST_LINES: u64 = 10_000;
/// Names that a name with a slip is compared with.
const MAX_NAMES: usize = 4096;
/// Bytes of output after which one `logs.read` ends.
const MOST_BYTES: usize = 1 << 20;

/// A stream of a module.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    Lair,
}

/// Output to read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadParams {
    /// Whose.
    name: Name,
    /// The last so many lines that fit; at most 10000.
    #[serde(default)]
    lines: Option<u64>,
    /// From this place on, as given by an earlier reading; then `lines` counts from there.
    #[serde(default)]
    from: Option<LogPlace>,
    /// Not before this time, milliseconds since 1970.
    #[serde(default)]
    since_ms: Option<i64>,
    /// Not after this time, milliseconds since 1970.
    #[serde(default)]
    until_ms: Option<i64>,
    /// Only of this stream.
    #[serde(default)]
    stream: Option<Stream>,
    /// Only of this run; negative counts back from the newest (-1: the one before it); absent: all that are kept.
    #[serde(default)]
    run: Option<i64>,
    /// Only lines in which this regular expression is found.
    #[serde(default)]
    grep: Option<String>,
}

/// Output to follow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowParams {
    /// Whose.
    pub name: Name,
    /// From this place on, as given by `logs.read`; absent: only what comes.
    #[serde(default)]
    pub from: Option<LogPlace>,
    /// Only of this stream.
    #[serde(default)]
    pub stream: Option<Stream>,
    /// Only lines in which this regular expression is found.
    #[serde(default)]
    pub grep: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct ReadResult {
    /// Oldest first.
    lines: Vec<LogLine>,
    /// Where the next reading or following goes on.
    next: Option<LogPlace>,
    /// There is more after `next`.
    more: bool,
    /// Files that were deleted before they could be read.
    missed: u64,
}

impl ReadParams {
    fn query(&self) -> Result<Query, RpcError> {
        let p = self;
        Ok(Query {
            runs: Runs::All,
            tail: p
                .lines
                .filter(|_| p.from.is_none())
                .map(|n| usize::try_from(n.min(MOST_LINES)).unwrap_or(0)),
            since: p.since_ms.map(stamp),
            until: p.until_ms.map(stamp),
            stream: p.stream.map(stream),
            grep: p.grep.as_deref().map(pattern).transpose()?,
            from: p.from.map(Cursor::from),
        })
    }
}

impl FollowParams {
    /// The query and the place.
    ///
    /// # Errors
    /// The expression is none.
    pub fn query(&self) -> Result<(Query, Option<Cursor>), RpcError> {
        let query = Query {
            runs: Runs::All,
            stream: self.stream.map(stream),
            grep: self.grep.as_deref().map(pattern).transpose()?,
            ..Query::default()
        };
        Ok((query, self.from.map(Cursor::from)))
    }
}

fn stream(s: Stream) -> StreamName {
    match s {
        Stream::Stdout => StreamName::Stdout,
        Stream::Stderr => StreamName::Stderr,
        Stream::Lair => StreamName::Lair,
    }
}

fn pattern(text: &str) -> Result<regex_lite::Regex, RpcError> {
    regex_lite::Regex::new(text).map_err(|e| RpcError::invalid_params(&format!("`grep`: {e}")))
}

async fn read(cx: Context, p: ReadParams) -> Result<ReadResult, RpcError> {
    let query = p.query()?;
    let log_dir = cx.handle.log_dir().to_owned();
    let known = cx.handle.status(p.name.as_str()).is_ok();
    let short = p.lines.is_some_and(|n| n <= 64);
    let work = move || match LogReader::open(&log_dir, p.name.as_str()) {
        Ok(reader) => gather(&reader, query, &p),
        Err(e) if e.kind() == io::ErrorKind::NotFound && known => Ok(ReadResult {
            lines: Vec::new(),
            next: None,
            more: false,
            missed: 0,
        }),
        Err(e) => Err(no_log(&e, &p.name, &log_dir)),
    };
    // A short tail is in the page cache: cheaper read here than handed to another thread and back.
    if short {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| RpcError::internal(&format!("the reading broke off: {e}")))?
}

/// What `logs.read` answers, read from the files without a runtime.
///
/// # Errors
/// As `logs.read`.
pub(crate) fn read_files(
    log_dir: &Path,
    params: serde_json::Value,
) -> Result<serde_json::Value, RpcError> {
    let p: ReadParams =
        serde_json::from_value(params).map_err(|e| RpcError::invalid_params(&e.to_string()))?;
    let query = p.query()?;
    let reader =
        LogReader::open(log_dir, p.name.as_str()).map_err(|e| no_log(&e, &p.name, log_dir))?;
    serde_json::to_value(gather(&reader, query, &p)?)
        .map_err(|e| RpcError::internal(&e.to_string()))
}

fn no_log(e: &io::Error, name: &Name, log_dir: &Path) -> RpcError {
    if e.kind() != io::ErrorKind::NotFound {
        return unreadable(e);
    }
    let name = name.as_str();
    let message = format!("no module `{name}` is loaded, and none has left a log");
    let refused = RpcError::refused("unknown_module", &message);
    let folders = std::fs::read_dir(log_dir).into_iter().flatten().flatten();
    let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
    let names: Vec<String> = names.take(MAX_NAMES).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    match lair_manifests::nearest(name, &known) {
        Some(near) => refused.with_help(&format!(
            "did you mean `{near}`? `lair ps -a` lists what is loaded"
        )),
        None => refused,
    }
}

fn stamp(ms: i64) -> Stamp {
    Stamp(ms.saturating_mul(1_000_000))
}

pub(crate) fn unreadable(e: &io::Error) -> RpcError {
    RpcError::refused("log_unreadable", &format!("the log can't be read: {e}"))
}

fn gather(reader: &LogReader, mut query: Query, p: &ReadParams) -> Result<ReadResult, RpcError> {
    if let Some(run) = p.run {
        query.runs = Runs::Number(which_run(reader, run)?);
    }
    let most = p.lines.unwrap_or(MOST_LINES).min(MOST_LINES);
    let most = usize::try_from(most).unwrap_or(0);
    let mut entries = reader.entries(query).map_err(|e| unreadable(&e))?;
    let (mut lines, mut bytes, mut next, mut more) = (Vec::new(), 0, None, false);
    for entry in entries.by_ref() {
        let entry = entry.map_err(|e| unreadable(&e))?;
        if lines.len() >= most || bytes >= MOST_BYTES {
            more = true;
            break;
        }
        bytes += entry.bytes.len();
        next = Some(LogPlace::from(entry.next));
        lines.push(LogLine::of(p.name.as_str(), &entry));
    }
    Ok(ReadResult {
        lines,
        next,
        more,
        missed: entries.missed,
    })
}

fn which_run(reader: &LogReader, run: i64) -> Result<u64, RpcError> {
    let unknown = || RpcError::refused("unknown_run", "no log of such a run is kept");
    let runs = reader.runs().map_err(|e| unreadable(&e))?;
    if let Ok(run) = u64::try_from(run) {
        return runs.contains(&run).then_some(run).ok_or_else(unknown);
    }
    let back = usize::try_from(run.unsigned_abs()).unwrap_or(usize::MAX);
    runs.len()
        .checked_sub(back.saturating_add(1))
        .and_then(|at| runs.get(at).copied())
        .ok_or_else(unknown)
}
