//! The OpenRPC document of the bridge, made from the registry. `docs/openrpc.json` is a copy that a test compares.

use super::methods::{Call, registry};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// The document.
#[must_use]
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(build)
}

fn build() -> Value {
    let settings =
        SchemaSettings::draft07().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut methods = Vec::new();
    for (name, method) in registry() {
        let (params, result) = (method.schemas)(&mut generator);
        let params = resolve(&params.to_value(), generator.definitions());
        methods.push(json!({
            "name": name,
            "summary": method.doc,
            "paramStructure": "by-name",
            "params": descriptors(&params),
            "result": { "name": "result", "schema": result },
            "x-changes": matches!(method.call, Call::Change(_)),
        }));
    }
    json!({
        "openrpc": "1.3.2",
        "info": { "title": "lair", "version": env!("CARGO_PKG_VERSION") },
        "methods": methods,
        "components": { "schemas": generator.definitions() },
    })
}

fn resolve(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let target = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next());
    target
        .and_then(|name| definitions.get(name))
        .unwrap_or(schema)
        .clone()
}

fn descriptors(params: &Value) -> Vec<Value> {
    let empty = Map::new();
    let properties = params["properties"].as_object().unwrap_or(&empty);
    let required = params["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|r| r.iter().any(|x| x == name));
    properties
        .iter()
        .map(|(name, schema)| json!({ "name": name, "schema": schema, "required": is_required(name) }))
        .collect()
}
