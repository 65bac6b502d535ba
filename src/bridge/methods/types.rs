//! Parameters, as documented by `rpc.discover`.

use crate::bridge::wire::RpcError;
use crate::handle::{LoadOptions, ManifestSource, WaitFor};
use lair_actors::fault::Fault;
use lair_manifests::launch::Mode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A module's name: `[a-z0-9][a-z0-9._-]{0,62}`, without `..`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^[a-z0-9][a-z0-9._-]{0,62}$"))]
pub struct Name(String);

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = name.as_bytes().first().is_some_and(first)
            && name.len() <= 63
            && name.bytes().all(inner)
            && !name.contains("..");
        if good {
            return Ok(Name(name));
        }
        let shown: String = name.chars().take(80).collect();
        Err(format!(
            "{shown:?} can't be a module's name ([a-z0-9][a-z0-9._-]{{0,62}}, no `..`)"
        ))
    }
}

/// How a module runs.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(
    dead_code,
    reason = "only its schema is used: the value is lair_manifests' Mode"
)]
pub(super) enum ModeWord {
    /// In a container.
    Container,
    /// As a process.
    Native,
}

/// Nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// One module.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneModule {
    /// Its name.
    pub name: Name,
}

/// A run to explain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyParams {
    /// Its module.
    pub name: Name,
    /// Its number; negative counts back from the newest (-1: the one before it); absent: the newest.
    pub run: Option<i64>,
    /// Lines of each stream, at most 2000; absent: 40. More than 40 are there for the newest run only.
    pub lines: Option<u64>,
}

/// A module to stop or restart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopParams {
    /// Its name.
    pub name: Name,
    /// Time between the stop signal and KILL; the manifest's if absent.
    pub grace_ms: Option<u64>,
}

/// A module to signal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillParams {
    /// Its name.
    pub name: Name,
    /// Send this signal to the leader and change nothing else; absent: KILL the whole tree.
    pub signal: Option<SignalWord>,
}

/// A signal by number or by name, with or without `SIG`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SignalWord {
    /// Its number.
    Number(i32),
    /// Its name.
    Name(String),
}

/// Manifests to load.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadParams {
    /// The manifest or stack: an object, or a string of YAML or JSON. Either this or `path`.
    #[schemars(with = "Option<Value>")]
    pub manifest: Option<Box<RawValue>>,
    /// Absolute path of a file that the runtime reads itself. Either this or `manifest`.
    pub path: Option<PathBuf>,
    /// With `manifest`: the absolute folder that its relative paths mean.
    pub dir: Option<PathBuf>,
    /// The user's preference of a mode.
    #[schemars(with = "Option<ModeWord>")]
    pub preference: Option<Mode>,
    /// Take another mode if the preference can't be met.
    pub fallback: bool,
    /// The modes that the Control Layer allows for this request.
    #[schemars(with = "Option<Vec<ModeWord>>")]
    pub allowed_modes: Option<Vec<Mode>>,
    /// Arguments appended to the command.
    pub args: Vec<String>,
    /// Environment added to the manifest's.
    pub env: BTreeMap<String, String>,
}

impl LoadParams {
    /// Source and options.
    ///
    /// # Errors
    /// There is no manifest, there are two, or a path is relative.
    pub fn split(self) -> Result<(ManifestSource, LoadOptions), RpcError> {
        let absolute = |p: &Option<PathBuf>| p.as_ref().is_none_or(|p| p.is_absolute());
        if !absolute(&self.path) || !absolute(&self.dir) {
            return Err(RpcError::invalid_params(
                "`path` and `dir` must be absolute",
            ));
        }
        let source = match (self.manifest, self.path) {
            (Some(raw), None) => ManifestSource::Text {
                text: manifest_text(&raw)?,
                dir: self.dir,
                trusted: false,
            },
            (None, Some(path)) if self.dir.is_none() => ManifestSource::File(path),
            _ => {
                return Err(RpcError::invalid_params(
                    "give either `manifest` (with `dir`) or `path`",
                ));
            }
        };
        let options = LoadOptions {
            preference: self.preference,
            fallback: self.fallback,
            allowed_modes: self.allowed_modes,
            args: self.args,
            env: self.env,
        };
        Ok((source, options))
    }
}

/// A module to start: a loaded one by `name`, or a whole `manifest` (or `path`) that is loaded first.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartParams {
    /// Name of a loaded module; then nothing else may be given.
    pub name: Option<Name>,
    /// As in `module.load`.
    #[schemars(with = "Option<Value>")]
    pub manifest: Option<Box<RawValue>>,
    /// As in `module.load`.
    pub path: Option<PathBuf>,
    /// As in `module.load`.
    pub dir: Option<PathBuf>,
    /// As in `module.load`.
    #[schemars(with = "Option<ModeWord>")]
    pub preference: Option<Mode>,
    /// As in `module.load`.
    pub fallback: bool,
    /// As in `module.load`.
    #[schemars(with = "Option<Vec<ModeWord>>")]
    pub allowed_modes: Option<Vec<Mode>>,
    /// As in `module.load`.
    pub args: Vec<String>,
    /// As in `module.load`.
    pub env: BTreeMap<String, String>,
}

impl StartParams {
    /// A name, or what has to be loaded.
    ///
    /// # Errors
    /// Both are given.
    pub fn split(self) -> Result<Result<Name, LoadParams>, RpcError> {
        let options = self.preference.is_some()
            || self.fallback
            || self.allowed_modes.is_some()
            || !self.args.is_empty()
            || !self.env.is_empty();
        let load = self.manifest.is_some() || self.path.is_some() || self.dir.is_some();
        match self.name {
            Some(_) if load || options => Err(RpcError::invalid_params(
                "a loaded module is started by `name` alone",
            )
            .with_help("mode, args and env belong to the manifest: give it whole, or unload and load it again")),
            Some(name) => Ok(Ok(name)),
            None => Ok(Err(LoadParams {
                manifest: self.manifest,
                path: self.path,
                dir: self.dir,
                preference: self.preference,
                fallback: self.fallback,
                allowed_modes: self.allowed_modes,
                args: self.args,
                env: self.env,
            })),
        }
    }
}

fn manifest_text(raw: &RawValue) -> Result<String, RpcError> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => Ok(text.to_owned()),
        Some(b'"') => {
            serde_json::from_str(text).map_err(|e| RpcError::invalid_params(&e.to_string()))
        }
        _ => Err(RpcError::invalid_params(
            "`manifest` is an object or a string",
        )),
    }
}

/// A wait for a state.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitParams {
    /// Whose.
    pub name: Name,
    /// Until when.
    #[serde(rename = "for")]
    #[schemars(with = "WaitWord")]
    pub what: WaitFor,
    /// At most this long; absent: as long as the connection lives.
    pub timeout_ms: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum WaitWord {
    /// Health says so.
    Healthy,
    /// It serves.
    Ready,
    /// It is down.
    Stopped,
    /// The current run has ended.
    Exited,
}

/// A drain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainParams {
    /// The whole drain's deadline; 30 s if absent.
    pub within_ms: Option<u64>,
}

/// A fault to inject.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectParams {
    /// What: see `docs/bridge.md`.
    #[schemars(with = "Value")]
    pub fault: Fault,
    /// Marks everything that follows from it.
    pub label: String,
}

/// Events to follow.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubscribeParams {
    /// Begin with this number, replaying what is kept; absent: only new ones.
    pub from_seq: Option<u64>,
    /// Only of these modules; empty: of all.
    pub names: Vec<Name>,
    /// Only events whose type begins with one of these (`module.exited`, `fault.`); empty: all.
    pub types: Vec<String>,
}

/// A subscription to end.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeParams {
    /// What `events.subscribe` or `logs.follow` answered.
    pub subscription: String,
}
