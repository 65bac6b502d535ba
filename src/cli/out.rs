//! What the program prints on stdout: gathered, written once, quiet about readers that left.

use super::args::Format;
use super::error::CliError;
use super::style::Style;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Standard output in the wanted format.
pub struct Out {
    /// The format.
    pub format: Format,
    /// Whether it is coloured.
    pub style: Style,
}

/// Writes to stdout; false if nobody reads it any more.
///
/// # Errors
/// It can't be written for another reason (a full disk).
pub fn write(bytes: &[u8]) -> Result<bool, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(CliError::new(
            "output",
            format!("cannot write the output: {e}"),
        )),
    }
}

/// Writes to stderr, whatever becomes of it.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

impl Out {
    /// Writes text.
    ///
    /// # Errors
    /// See [`write`].
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        write(text.as_bytes()).map(|_| ())
    }

    /// One JSON document, or YAML; `items` become one line each in `jsonl`.
    ///
    /// # Errors
    /// See [`write`].
    pub fn value(&self, value: &Value) -> Result<(), CliError> {
        let text = match (self.format, value) {
            (Format::Jsonl, Value::Array(items)) => items
                .iter()
                .fold(String::new(), |text, item| text + &item.to_string() + "\n"),
            (Format::Jsonl, other) => format!("{other}\n"),
            (Format::Yaml, other) => {
                let mut text = String::new();
                yaml(&mut text, other, 0);
                text
            }
            (_, other) => format!("{other:#}\n"),
        };
        self.text(&text)
    }

    /// Is a machine-readable format wanted?
    #[must_use]
    pub fn structured(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl | Format::Yaml)
    }
}

/// JSON's strings are YAML's: only the nesting is written the other way.
fn yaml(text: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let _ = write!(text, "{pad}{}:", plain_key(key));
                nested(text, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(text, "{pad}-");
                nested(text, item, depth + 1);
            }
        }
        scalar => {
            let _ = writeln!(text, "{pad}{scalar}");
        }
    }
}

fn nested(text: &mut String, value: &Value, depth: usize) {
    let empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    if empty {
        let _ = writeln!(text, " {value}");
    } else {
        text.push('\n');
        yaml(text, value, depth);
    }
}

fn plain_key(key: &str) -> String {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !words.contains(&key.to_ascii_lowercase().as_str());
    if plain {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}

/// A table: columns as wide as their widest cell, two spaces between.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Table {
            rows: vec![head.iter().map(|s| (*s).to_owned()).collect()],
        }
    }

    /// Appends a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, cells painted by what they say.
    #[must_use]
    pub fn render(&self, style: &Style) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(at));
            cells.map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let painted = match super::style::tone(cell) {
                    Some(tone) if number > 0 => style.paint(tone, cell),
                    _ => cell.clone(),
                };
                line.push_str(&painted);
                if at + 1 < row.len() {
                    line.push_str(&" ".repeat(widths[at] - cell.chars().count() + 2));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_nests_what_json_nests() {
        let mut text = String::new();
        yaml(
            &mut text,
            &json!({"a": [1, {"b": "x: y"}], "c": {}, "1": null}),
            0,
        );
        assert_eq!(
            text,
            "\"1\": null\na:\n  - 1\n  -\n    b: \"x: y\"\nc: {}\n"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["a-long-name".into(), "running".into()]);
        assert_eq!(
            table.render(&Style::default()),
            "NAME         STATE\na-long-name  running\n"
        );
    }
}
