//! Whether, and where, NVIDIA's library is looked for.
//!
//! Owns: `runtime.gpu.nvml`. Promises: a path comes from the configuration alone, since the library is code.

use crate::decode::{Decode, Sink, View};
use crate::words::AbsolutePath;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// `true`, `false`, or the library's path.
#[derive(Clone, Debug, PartialEq)]
pub enum Nvml {
    /// It isn't asked.
    Off,
    /// The system's `libnvidia-ml.so.1`.
    System,
    /// This one.
    At(AbsolutePath),
}

impl Serialize for Nvml {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Nvml::Off => s.serialize_bool(false),
            Nvml::System => s.serialize_bool(true),
            Nvml::At(path) => path.serialize(s),
        }
    }
}

impl Decode for Nvml {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        match view.scalar(sink, "true, false or the path of a library")? {
            ("true", true) => Some(Nvml::System),
            ("false", true) => Some(Nvml::Off),
            _ => AbsolutePath::decode(view, sink).map(Nvml::At),
        }
    }
}

impl JsonSchema for Nvml {
    fn schema_name() -> Cow<'static, str> {
        "Nvml".into()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let path = AbsolutePath::json_schema(g);
        json_schema!({ "oneOf": [{ "type": "boolean" }, path] })
    }
}
