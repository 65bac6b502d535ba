//! Reading configuration and manifests again while everything runs, and saying what came of it.
//!
//! Owns: which keys of the configuration a running lair can take, and the report. Promises: what is wrong is refused and
//! the old stays in force, part by part; nothing is started, stopped or restarted; reading the same again changes
//! nothing. Never: decides what a module does.

use crate::handle::{LoadOptions, ManifestSource, Refused, RuntimeHandle};
use lair_actors::messages::Loaded;
use lair_manifests::RuntimeConfig;
use lair_supervision::Origin;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What came of reading everything again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReloadReport {
    /// The configuration.
    pub config: ConfigReport,
    /// Names of modules by what became of them; those that are the same aren't named.
    pub modules: ModulesReport,
}

/// What came of the configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigReport {
    /// Keys that hold from now on.
    pub live: Vec<&'static str>,
    /// Keys that hold from lair's next start on.
    pub next_start: Vec<&'static str>,
    /// Why it was refused; the old one stays in force.
    pub refused: Option<String>,
}

/// What came of the manifests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModulesReport {
    /// Not known before.
    pub new: Vec<String>,
    /// Nothing of it ran.
    pub replaced: Vec<String>,
    /// It runs, and all that changed holds.
    pub updated: Vec<String>,
    /// It runs, and a part of what changed holds from its next start on.
    pub restart_needed: Vec<String>,
    /// Loaded from a file that is read no more, or no longer names it.
    pub orphans: Vec<String>,
    /// Files that were refused, and why; what was loaded from them before stays.
    pub refused: Vec<RefusedFile>,
}

/// A file that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedFile {
    /// Which.
    pub file: PathBuf,
    /// Stable code.
    pub code: &'static str,
    /// Why.
    pub message: String,
}

impl ModulesReport {
    fn note(&mut self, name: String, what: Loaded) {
        match what {
            Loaded::Same => {}
            Loaded::New => self.new.push(name),
            Loaded::Replaced => self.replaced.push(name),
            Loaded::Updated => self.updated.push(name),
            Loaded::RestartNeeded => self.restart_needed.push(name),
        }
    }
}

/// What a running lair takes of a configuration: the result, keys taken, and keys that wait for its next start.
#[must_use]
pub fn revise(old: &RuntimeConfig, new: &RuntimeConfig) -> (RuntimeConfig, ConfigReport) {
    let mut taken = old.clone();
    let mut report = ConfigReport::default();
    macro_rules! keys {
        ($list:ident: $($key:ident),* $(,)?) => {
            $(if old.$key != new.$key { report.$list.push(stringify!($key)); })*
        };
    }
    macro_rules! take {
        ($($key:ident),* $(,)?) => {
            keys!(live: $($key),*);
            $(taken.$key.clone_from(&new.$key);)*
        };
    }
    take!(
        docker_enabled,
        podman_enabled,
        native_enabled,
        default_mode,
        policy,
        trust,
        exposure
    );
    keys!(next_start: log_dir, state_dir, run_dir, socket, if_runtime_dies, memory, gpu, access, faults, metrics);
    (taken, report)
}

/// Reads configuration and manifests again. `config`: the new one, or why there is none; `folder`: where the daemon's
/// own manifests lie.
pub async fn reload(
    handle: &RuntimeHandle,
    config: Result<RuntimeConfig, String>,
    folder: &Path,
    files: &[PathBuf],
    origin: Origin,
) -> ReloadReport {
    let mut report = ReloadReport {
        config: match config {
            Ok(new) => handle.take_config(&new),
            Err(why) => ConfigReport {
                refused: Some(why),
                ..ConfigReport::default()
            },
        },
        ..ReloadReport::default()
    };
    let (mut read, mut named) = (Vec::new(), Vec::new());
    for file in files {
        match load(handle, file, &origin).await {
            Ok(loaded) => {
                read.push(file.clone());
                for (name, what) in loaded {
                    named.push(name.clone());
                    report.modules.note(name, what);
                }
            }
            Err(e) => report.modules.refused.push(RefusedFile {
                file: file.clone(),
                code: e.code,
                message: e.message,
            }),
        }
    }
    report.modules.orphans = handle.orphans(&read, &named);
    report.modules.orphans.extend(handle.vanished(folder));
    handle.tell_reloaded(&report, origin);
    report
}

async fn load(
    handle: &RuntimeHandle,
    file: &Path,
    origin: &Origin,
) -> Result<Vec<(String, Loaded)>, Refused> {
    let source = ManifestSource::File(file.to_owned());
    handle
        .load(source, LoadOptions::default(), origin.clone())
        .await
}
