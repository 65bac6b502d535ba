//! What the host offers, as plain data.
//!
//! Owns: the shape of the facts that selection decides by. Promises: absence is a fact, never an error. Never: reads
//! them from the host, but for [`find_program`].

use crate::resources::Gpu as Demand;
use crate::runtime::Native;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the host offers to one module.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostFacts {
    /// Container engines, in the order in which they are tried.
    pub engines: Vec<EngineFacts>,
    /// The module's native program.
    pub program: ProgramFacts,
    /// GPUs.
    pub gpus: GpuFacts,
    /// Bytes of memory, if known.
    pub memory_total: Option<u64>,
}

/// A container engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineFacts {
    /// `podman`, `docker` or `cli`.
    pub name: String,
    /// Its version, for people.
    pub version: Option<String>,
    /// That it answers, or why not.
    pub usable: Result<(), String>,
}

/// A native program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramFacts {
    /// Nobody looked; the start will tell.
    #[default]
    Unchecked,
    /// It is there.
    Found(PathBuf),
    /// It is not.
    Missing {
        /// Where it was looked for.
        searched: String,
    },
}

/// The GPUs of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuFacts {
    /// They can't be seen, and why.
    Unavailable(String),
    /// Those that can be used.
    Present(Vec<Gpu>),
}

impl Default for GpuFacts {
    fn default() -> Self {
        GpuFacts::Unavailable("nobody looked".to_owned())
    }
}

impl GpuFacts {
    /// The GPUs that a module gets by its demand: those it names, or the first that have the memory.
    ///
    /// # Errors
    /// What is missing.
    pub fn choose(&self, ask: &Demand) -> Result<Vec<String>, String> {
        let present = match self {
            GpuFacts::Unavailable(why) => {
                return Err(format!("a GPU is required, and none can be seen: {why}"));
            }
            GpuFacts::Present(present) => present,
        };
        let need = ask.vram.map_or(0, |v| v.get());
        let fits = |gpu: &&Gpu| gpu.memory_free.unwrap_or(gpu.memory_total) >= need;
        if let Some(devices) = &ask.devices {
            let mut chosen = Vec::with_capacity(devices.len());
            for word in devices {
                let gpu = present.iter().find(|gpu| gpu.is(word.as_str()));
                let gpu = gpu.ok_or_else(|| format!("GPU {word} is required, and not here"))?;
                if !fits(&gpu) {
                    return Err(format!("GPU {word} has too little free memory"));
                }
                chosen.push(gpu.uuid.clone());
            }
            return Ok(chosen);
        }
        let fitting: Vec<String> = present
            .iter()
            .filter(fits)
            .map(|gpu| gpu.uuid.clone())
            .collect();
        if fitting.len() < ask.wanted() {
            let (wanted, total, have) = (ask.wanted(), present.len(), fitting.len());
            return Err(format!(
                "{wanted} GPU wanted; {total} here, {have} of them with enough free memory"
            ));
        }
        Ok(fitting.into_iter().take(ask.wanted()).collect())
    }
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// Its UUID.
    pub uuid: String,
    /// Its PCI address.
    pub pci: String,
    /// Its number.
    pub index: u32,
    /// Its model, for people.
    pub name: String,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes of it that are free, if known.
    pub memory_free: Option<u64>,
}

impl Gpu {
    /// Whether a manifest's word (UUID, PCI address or number) means this one.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        let pci = |text: &str| text.trim_start_matches('0').to_ascii_lowercase();
        let numbered = word.parse::<u32>().is_ok_and(|n| n == self.index);
        numbered || word == self.uuid || (word.contains(':') && pci(word) == pci(&self.pci))
    }
}

/// Looks for a module's program as the start will: in `path` unless it holds a slash, then from its working folder.
#[must_use]
pub fn find_program(native: &Native, dir: &Path, path: &str) -> ProgramFacts {
    let Some(program) = native.command.words().first() else {
        return ProgramFacts::Unchecked;
    };
    if program.raw().contains("${") || native.workdir.raw().contains("${") {
        return ProgramFacts::Unchecked;
    }
    let program = Path::new(program.raw());
    if program.components().count() > 1 || program.is_absolute() {
        let whole = dir.join(native.workdir.raw()).join(program);
        if runnable(&whole) {
            return ProgramFacts::Found(whole);
        }
        return ProgramFacts::Missing {
            searched: whole.display().to_string(),
        };
    }
    let found = path
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|p| runnable(p));
    match found {
        Some(whole) => ProgramFacts::Found(whole),
        None => ProgramFacts::Missing {
            searched: path.to_owned(),
        },
    }
}

fn runnable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
