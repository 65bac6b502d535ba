//! The dossier of a run: everything a person would ask for to say why it ended as it did, in one file beside its logs.
//!
//! Owns: `<log_dir>/<module>/<run>.dossier.json` and the packs of known causes. Promises: written off the hot path when
//! a run has ended, kept as long as the run's log; no secret is in it; what could not be known is absent, not guessed.
//! Never: decides, or delays a module's next life.

mod archive;
mod compose;
pub mod rules;
pub mod veil;

pub use archive::{Archive, ArchiveOptions, Ended, kept_runs, read};
pub use compose::{Composer, EVENTS, LINES, PROBES};

use crate::footprint::{RunFootprint, Series};
use crate::status::{Exit, Health, Logs, Reason, Resources};
use rules::Cause;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form of the file; a number is added when a reader of the old one would be misled.
pub const FORM: &str = "lair-dossier/1";

/// One run. Times are RFC 3339 UTC with milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dossier {
    /// [`FORM`].
    pub format: String,
    /// Version of the lair that wrote it.
    pub lair: String,
    /// Module name.
    pub name: String,
    /// Its manifest's version.
    pub version: String,
    /// Number of the run; 0: it never started.
    pub run: u64,
    /// When this was put together.
    pub written_at: String,
    /// The module's state then, if the run was its newest; else `ended`.
    pub state: String,
    /// Is there something wrong with this run?
    pub failed: bool,
    /// One sentence: how the run ended, or how it is.
    pub summary: String,
    /// Why, as status says it.
    pub reason: Option<Reason>,
    /// The known cause, if one fits.
    pub cause: Option<Cause>,
    /// What to do now.
    pub next_step: Option<String>,
    /// How it ran, and why so.
    pub mode: ModeChoice,
    /// What was started.
    pub command: Command,
    /// `pid=4711`, `container=...`.
    pub identity: Option<String>,
    /// Why the last change happened: `observed`, `requested by ...`, `injected: ...`.
    pub origin: String,
    /// When it came up.
    pub started_at: Option<String>,
    /// When it ended, or failed to start.
    pub finished_at: Option<String>,
    /// How long it was up, milliseconds.
    pub ran_ms: Option<u64>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// What is left of it; empty: verified gone.
    #[serde(default)]
    pub leftover: Vec<String>,
    /// What it used and might use, and by what it was limited.
    pub resources: Resources,
    /// The last verdict on its health.
    pub health: Health,
    /// Changes of that verdict, oldest first, the last [`PROBES`].
    pub probes: Vec<Moment>,
    /// What happened to it, oldest first, the last [`EVENTS`].
    pub timeline: Vec<Moment>,
    /// Its last words on both streams, oldest first, the last [`LINES`] of each.
    pub last_lines: Vec<Line>,
    /// Its log files.
    pub logs: Logs,
    /// What it took, and what is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footprint: Option<RunFootprint>,
    /// What it used over time, as far as this lair saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// The plan it was started by: values of the environment are not in it.
    pub plan: Value,
    /// What could not be looked at, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How a module ran, and why so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModeChoice {
    /// `native` or `container`.
    pub mode: String,
    /// What ran it.
    pub backend: String,
    /// The choice, one line a step.
    pub explanation: Vec<String>,
    /// The mode that was preferred and not taken, and why.
    pub fallback: Option<String>,
}

/// What was started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Command {
    /// The image, for containers.
    pub image: Option<String>,
    /// Program and arguments; for containers what follows the entrypoint.
    pub argv: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// As whom.
    pub user: Option<String>,
    /// Names of its environment's variables.
    pub env: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: String,
    /// What: an event's word and what belongs to it.
    pub what: String,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text; what is not UTF-8 is replaced, and long lines are cut.
    pub text: String,
}
