//! What a module may use, what it needs, and what it may reach.
//!
//! Owns: `runtime.resources` and `runtime.native.sandbox`. Promises: a limit that is required says so. Never: measures.

use crate::decode::{Decode, Sink, View};
use crate::health::PortRef;
use crate::numbers::{Count, Milli};
use crate::record::record;
use crate::text::Text;
use crate::units::{KIB, MIB, PIB, Size};
use crate::words::{Line, choice};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;

/// A limit of memory.
pub type MemorySize = Size<{ 64 * KIB }, PIB>;

record! {
    /// What it may use, and what it needs.
    pub struct Resources {
        /// Memory; `4GiB` is short for `{ limit: 4GiB }`.
        memory: Option<Memory> = None,
        /// CPUs, to three decimals.
        cpus: Option<Milli<10, 4_096_000>> = None,
        /// Processes and threads.
        pids: Option<Count<1, 4_194_304>> = None,
        /// Open descriptors.
        nofile: Option<Count<16, 1_073_741_816>> = None,
        /// GPUs.
        gpu: Option<Gpu> = None,
    }
}

impl Resources {
    /// No limit, no demand.
    #[must_use]
    pub fn unlimited() -> Self {
        Resources {
            memory: None,
            cpus: None,
            pids: None,
            nofile: None,
            gpu: None,
        }
    }
}

choice! {
    /// What if a limit can't be enforced here.
    pub enum Enforce {
        /// It is started without, and status says so.
        #[default]
        BestEffort = "best-effort",
        /// It is not started.
        Required = "required",
    }
}

/// A memory limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Bytes.
    pub limit: MemorySize,
    /// What if it can't be enforced.
    pub enforce: Enforce,
}

record! {
    /// The long form of a memory limit.
    pub struct LongMemory {
        /// How much.
        limit: MemorySize,
        /// What if it can't be enforced.
        enforce: Enforce = Enforce::BestEffort,
    }
}

impl Decode for Memory {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        if view.is_map() {
            let LongMemory { limit, enforce } = LongMemory::decode(view, sink)?;
            return Some(Memory { limit, enforce });
        }
        let limit = MemorySize::decode(view, sink)?;
        Some(Memory {
            limit,
            enforce: Enforce::BestEffort,
        })
    }
}

impl JsonSchema for Memory {
    fn schema_name() -> Cow<'static, str> {
        "Memory".into()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let (short, long) = (MemorySize::json_schema(g), g.subschema_for::<LongMemory>());
        json_schema!({ "oneOf": [short, long] })
    }
}

record! {
    /// GPUs: so many, or these.
    pub struct Gpu checked by gpu {
        /// How many.
        count: Option<Count<1, 64>> = None,
        /// Which: UUIDs, PCI addresses or indices.
        devices: Option<Vec<Line>> = None,
        /// Memory that has to be free on each.
        vram: Option<Size<MIB, PIB>> = None,
        /// Without them it isn't started.
        required: bool = true,
    }
}

impl Gpu {
    /// How many it asks for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let named = self.devices.as_ref().map(Vec::len);
        let counted = self.count.map_or(1, |n| n.small() as usize);
        named.unwrap_or(counted)
    }
}

fn gpu(gpu: &Gpu, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    match (&gpu.count, &gpu.devices) {
        (Some(_), Some(_)) => view.invalid(
            sink,
            "`count` asks for any GPUs, `devices` for these: give one of the two",
        ),
        (None, Some(devices)) if devices.is_empty() => {
            view.invalid_help(sink, "`devices` is empty", "for no GPU, leave `gpu` out")
        }
        (_, Some(devices))
            if devices
                .iter()
                .enumerate()
                .any(|(i, d)| devices[..i].contains(d)) =>
        {
            view.invalid(sink, "a device stands twice")
        }
        _ => Some(()),
    }
}

choice! {
    /// The network a module sees.
    pub enum Network {
        /// The machine's.
        #[default]
        Host = "host",
        /// None.
        None = "none",
    }
}

record! {
    /// What a native module may reach.
    pub struct Sandbox {
        /// The network it sees.
        network: Network = Network::Host,
        /// The files it may touch; without it, all that its user may.
        filesystem: Option<Filesystem> = None,
        /// The TCP ports it may use; without it, all.
        tcp: Option<TcpRules> = None,
        /// What if this machine can't do that.
        enforce: Hold = Hold::Required,
    }
}

choice! {
    /// What if a sandbox can't be made here.
    pub enum Hold {
        /// It is not started.
        #[default]
        Required = "required",
        /// It is started with what can be made, and status says which.
        BestEffort = "best-effort",
    }
}

record! {
    /// The TCP ports a native module may use: declared ones by name, others by number.
    pub struct TcpRules {
        /// Ports it may serve on; without it, any.
        bind: Option<Vec<PortRef>> = None,
        /// Ports, on whatever host, it may connect to; without it, any.
        connect: Option<Vec<PortRef>> = None,
    }
}

record! {
    /// The files a native module may touch.
    pub struct Filesystem {
        /// Folders and files it may read and execute.
        read: Vec<Text> = Vec::new(),
        /// Folders and files it may also write.
        write: Vec<Text> = Vec::new(),
    }
}
