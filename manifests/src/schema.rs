//! JSON Schemas of what people write, for editors and other programs.
//!
//! Owns: their titles. Promises: made of the types that are read, and equal to `manifests/schema/*.json`. Never: is used
//! for validation here; reading validates.

use crate::config::RuntimeConfig;
use crate::module::ModuleManifest;
use crate::stack::Group;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

/// Of a file with one module or a stack.
#[must_use]
pub fn manifest() -> Value {
    let mut generator = generator();
    let module = generator.subschema_for::<ModuleManifest>();
    let group = generator.subschema_for::<Group>();
    let definitions = generator.take_definitions(true);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lair: a module's manifest, or a stack of them",
        "oneOf": [
            module,
            {
                "type": "object",
                "required": ["modules"],
                "additionalProperties": false,
                "properties": {
                    "modules": { "type": "array", "minItems": 1, "items": module },
                    "groups": { "type": "array", "items": group },
                },
            },
        ],
        "$defs": definitions,
    })
}

/// Of the runtime's configuration file; what is not below `runtime` belongs to others.
#[must_use]
pub fn config() -> Value {
    let mut generator = generator();
    let runtime = generator.subschema_for::<RuntimeConfig>();
    let definitions = generator.take_definitions(true);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lair: the runtime's configuration",
        "type": "object",
        "properties": { "runtime": runtime },
        "$defs": definitions,
    })
}
