//! A module's manifest as written.
//!
//! Owns: the top level, which is LocalAIStack's, and where a manifest came from. Promises: the blocks that belong to the
//! Control Layer are read and shown. Never: acts on them.

use crate::decode::{Decode, Sink, View};
use crate::numbers::Count;
use crate::record::record;
use crate::runtime::Runtime;
use crate::units::{show_size, size};
use crate::words::{Line, ModuleId, Note, Prose, Version, choice};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

/// A module's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleManifest {
    /// Its name.
    pub name: ModuleId,
    /// What kind of thing it is.
    pub category: Option<Category>,
    /// Its version.
    pub version: Option<Version>,
    /// What it is, for people.
    pub description: Option<Prose>,
    /// Its licence.
    pub license: Option<Note>,
    /// What the Control Layer asks of the hardware.
    pub hardware: Option<Hardware>,
    /// What the Control Layer installs first.
    pub dependencies: Option<Dependencies>,
    /// How it runs.
    pub runtime: Runtime,
    /// What it offers and uses, for the Control Layer.
    pub interfaces: Option<Interfaces>,
    /// What vouches for the file, for the Control Layer.
    pub integrity: Option<Integrity>,
    /// Where it came from.
    #[serde(skip)]
    #[schemars(skip)]
    pub origin: Origin,
}

/// Where a manifest came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// The folder that relative paths start from.
    pub dir: PathBuf,
    /// SHA-256 of the whole file, lower-case hex.
    pub digest: Arc<str>,
    /// Pointer to the module within the file: empty, or `/modules/3`.
    pub pointer: String,
}

const KEYS: [&str; 10] = [
    "name",
    "category",
    "version",
    "description",
    "license",
    "hardware",
    "dependencies",
    "runtime",
    "interfaces",
    "integrity",
];

impl ModuleManifest {
    pub(crate) fn read(view: View<'_, '_>, sink: &mut Sink, origin: &Origin) -> Option<Self> {
        let table = view.table(sink, &KEYS)?;
        let name = table.need("name", sink);
        let category = table.or("category", sink, || None);
        let version = table.or("version", sink, || None);
        let description = table.or("description", sink, || None);
        let license = table.or("license", sink, || None);
        let hardware = table.or("hardware", sink, || None);
        let dependencies = table.or("dependencies", sink, || None);
        let runtime = table.need("runtime", sink);
        let interfaces = table.or("interfaces", sink, || None);
        let integrity = table.or("integrity", sink, || None);
        Some(ModuleManifest {
            name: name?,
            category: category?,
            version: version?,
            description: description?,
            license: license?,
            hardware: hardware?,
            dependencies: dependencies?,
            runtime: runtime?,
            interfaces: interfaces?,
            integrity: integrity?,
            origin: Origin {
                pointer: view.path.pointer(),
                ..origin.clone()
            },
        })
    }
}

choice! {
    /// LocalAIStack's kinds of modules.
    pub enum Category {
        /// A programming language.
        Language = "language",
        /// An inference runtime.
        #[default]
        Runtime = "runtime",
        /// A framework.
        Framework = "framework",
        /// A service.
        Service = "service",
        /// An application.
        Application = "application",
        /// A tool.
        Tool = "tool",
        /// A model.
        Model = "model",
    }
}

record! {
    /// What the Control Layer asks of the hardware.
    pub [open] struct Hardware {
        /// Of the CPU.
        cpu: Option<HardwareCpu> = None,
        /// Of the memory.
        memory: Option<HardwareMemory> = None,
        /// Of the GPU.
        gpu: Option<HardwareGpu> = None,
    }
}

record! {
    /// Of the CPU.
    pub [open] struct HardwareCpu {
        /// Least number of cores.
        cores_min: Option<Count<1, 65_536>> = None,
    }
}

record! {
    /// Of the memory.
    pub [open] struct HardwareMemory {
        /// Least memory.
        ram_min: Option<StackSize> = None,
    }
}

record! {
    /// Of the GPU.
    pub [open] struct HardwareGpu {
        /// Least GPU memory.
        vram_min: Option<StackSize> = None,
        /// Whether several GPUs are used.
        multi_gpu: bool = false,
    }
}

record! {
    /// What the Control Layer installs first.
    pub [open] struct Dependencies {
        /// Packages of the system.
        system: Vec<Line> = Vec::new(),
        /// Other modules.
        modules: Vec<Line> = Vec::new(),
        /// Packages of a language runtime.
        runtime: Vec<Line> = Vec::new(),
    }
}

record! {
    /// What it offers and uses.
    pub [open] struct Interfaces {
        /// Offered.
        provides: Vec<Line> = Vec::new(),
        /// Used.
        consumes: Vec<Line> = Vec::new(),
    }
}

record! {
    /// What vouches for the file.
    pub [open] struct Integrity {
        /// A checksum.
        checksum: Option<Note> = None,
        /// A signature.
        signature: Option<Note> = None,
    }
}

/// A size as LocalAIStack has it: `4GB` is binary there, whatever its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackSize(u64);

impl StackSize {
    /// The number of bytes.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Decode for StackSize {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, _) = view.scalar(sink, "a size")?;
        let upper = text.to_ascii_uppercase().replace(' ', "");
        let stem = upper
            .strip_suffix("IB")
            .or(upper.strip_suffix('B'))
            .unwrap_or(&upper);
        let binary = match stem.chars().last() {
            Some('K' | 'M' | 'G' | 'T') => format!("{stem}iB"),
            _ => upper.clone(),
        };
        match size(&binary) {
            Ok(bytes) => Some(StackSize(bytes)),
            Err(why) => view.invalid_help(sink, why, "write a number and a unit: 4GB"),
        }
    }
}

impl Serialize for StackSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show_size(self.0))
    }
}

impl JsonSchema for StackSize {
    fn schema_name() -> Cow<'static, str> {
        "StackSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "a size; binary units, whatever their case" })
    }
}
