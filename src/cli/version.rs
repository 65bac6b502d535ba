//! What `lair version` says: version, commit, and what this program can do without being asked to start anything.

use super::error::CliError;
use super::exit::{self, Code};
use super::out::Out;
use lair_actors::keeper::wire::{OLDEST_VERSION, PROTOCOL_VERSION};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Version and origin in one line, as `0.1.0 (45e6b21, 2026-11-23)`; `dev` in a debug build.
pub const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LAIR_BUILD"), ")");

/// The ways to run modules that are in this program.
const BACKENDS: [&str; 2] = ["native", "container"];

/// The same line, and the features below it.
pub static LONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{SHORT}\ntarget: {}\nbackends: {}\nkeeper protocol: {PROTOCOL_VERSION}, speaks {OLDEST_VERSION} and later",
        env!("LAIR_BUILD_TARGET"),
        BACKENDS.join(", ")
    )
});

/// `lair version`
///
/// # Errors
/// Nothing can be written.
pub fn version(out: &Out) -> Result<Code, CliError> {
    if out.structured() {
        out.value(&json())?;
    } else {
        out.text(&format!("lair {}\n", *LONG))?;
    }
    Ok(exit::DONE)
}

fn json() -> Value {
    let known = |text: &'static str| (!text.is_empty()).then_some(text);
    json!({
        "name": "lair",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": known(env!("LAIR_BUILD_COMMIT")),
        "commit_date": known(env!("LAIR_BUILD_DATE")),
        "target": env!("LAIR_BUILD_TARGET"),
        "backends": BACKENDS,
        "keeper_protocol": { "newest": PROTOCOL_VERSION, "oldest": OLDEST_VERSION },
    })
}
