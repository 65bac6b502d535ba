//! YAML (or JSON) as plain JSON values, for files of lair's that are no manifests: rule packs.
//!
//! Promises: the same bounds as manifests (depth, number of values, aliases). Never: guesses: only plain `true`,
//! `false`, `null` and whole numbers are anything but text.

use crate::problem::Problem;
use crate::tree::{self, Node, Value as Tree};
use serde_json::Value;
use std::sync::Arc;

/// Reads one document; `name` stands in problems.
///
/// # Errors
/// It is no YAML, or too large in one of its measures.
pub fn read_data(name: &str, text: &str) -> Result<Value, Problem> {
    const MOST: usize = 4 << 20;
    let root = tree::read(&Arc::from(name), text, MOST)?;
    Ok(value(&root))
}

fn value(node: &Node<'_>) -> Value {
    match &node.value {
        Tree::Scalar { text, plain } => scalar(text, *plain),
        Tree::List(items) => Value::Array(items.iter().map(value).collect()),
        Tree::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.text.to_string(), value(node)))
            .collect(),
    }
}

fn scalar(text: &str, plain: bool) -> Value {
    match text {
        "" | "~" | "null" if plain => Value::Null,
        "true" if plain => Value::Bool(true),
        "false" if plain => Value::Bool(false),
        _ => match text.parse::<i64>() {
            Ok(number) if plain => Value::from(number),
            _ => Value::from(text),
        },
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use serde_json::json;

    #[test]
    fn quoted_words_stay_text_and_plain_ones_are_read() {
        let read = read_data("f", "a: [1, '1', true, \"true\", ~, 1.10]\nb: { c: x }\n");
        assert_eq!(
            read.expect("read"),
            json!({ "a": [1, "1", true, "true", null, "1.10"], "b": { "c": "x" } })
        );
    }
}
