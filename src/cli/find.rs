//! Where things are: the configuration, the socket, the stack of this folder.

use super::args::Global;
use super::error::CliError;
use crate::client::Client;
use lair_manifests::config::lookup;
use lair_manifests::{Dirs, RuntimeConfig, parse_config, problem, read_manifest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The environment, as far as it is text.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The configuration and the folders that follow from it; and its file, if there is one.
///
/// # Errors
/// A file that was named is not there, or has mistakes.
pub fn config(flag: Option<&Path>) -> Result<(RuntimeConfig, Dirs, Option<PathBuf>), CliError> {
    let env = environment();
    for place in lookup(flag, &env, uid()) {
        if !place.named && !place.path.exists() {
            continue;
        }
        let invalid = |p: &[lair_manifests::Problem]| {
            CliError::new("invalid_config", problem::render(p).trim_end())
                .with_help("`lair schema config` prints its shape")
        };
        let source = read_manifest(&place.path).map_err(|p| invalid(&[p]))?;
        let config = parse_config(&source).map_err(|p| invalid(&p))?;
        let mut dirs = config.dirs(&env, uid());
        if let Some(dir) = place.path.parent().filter(|d| !d.as_os_str().is_empty()) {
            dirs.config = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        }
        return Ok((config, dirs, Some(place.path)));
    }
    Ok((RuntimeConfig::default(), Dirs::of(&env, uid()), None))
}

/// Where the daemon's socket is.
///
/// # Errors
/// The configuration has mistakes.
pub fn socket(global: &Global) -> Result<PathBuf, CliError> {
    match &global.socket {
        Some(path) => Ok(path.clone()),
        None => config(global.config.as_deref()).map(|(_, dirs, _)| dirs.socket),
    }
}

/// A connection to the daemon.
///
/// # Errors
/// There is none.
pub fn daemon(global: &Global) -> Result<Client, CliError> {
    Ok(Client::connect(&socket(global)?)?)
}

/// The stack of this folder or of one above: `lair.yaml`, `lair.yml`, `lair.json`.
///
/// # Errors
/// There is none.
pub fn stack_here() -> Result<PathBuf, CliError> {
    let here = std::env::current_dir()
        .map_err(|e| CliError::new("no_stack", format!("there is no current folder: {e}")))?;
    for dir in here.ancestors() {
        for name in ["lair.yaml", "lair.yml", "lair.json"] {
            let path = dir.join(name);
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    let error = CliError::new(
        "usage",
        "no stack was named, and there is no lair.yaml here or above",
    );
    Err(error.with_help("name a file, as in `lair up stack.yaml`"))
}

/// The files, or the stack of this folder; absolute.
///
/// # Errors
/// None is named and there is none here.
pub fn stack_files(files: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    if files.is_empty() {
        return Ok(vec![stack_here()?]);
    }
    Ok(files.iter().map(|f| absolute(f)).collect())
}

/// The path from the root.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
