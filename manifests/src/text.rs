//! Text with `${...}` in it: what may stand there, and what becomes of it.
//!
//! Owns: the notation and its meaning. Promises: an unknown reference is a mistake with a position, never an empty
//! string; `$${` is a plain `${`. Never: looks at the process's own environment.

use crate::decode::{Decode, Sink, View};
use crate::tree::Pos;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Text of a manifest that may refer to ports, variables and places.
#[derive(Clone)]
pub struct Text {
    raw: Box<str>,
    pos: Pos,
}

impl Text {
    pub(crate) fn plain(raw: &str) -> Self {
        Text {
            raw: raw.into(),
            pos: Pos::default(),
        }
    }

    /// As written.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Where it stands.
    #[must_use]
    pub fn pos(&self) -> Pos {
        self.pos
    }

    /// What it refers to. Only well-formed text exists, so nothing is lost here.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        let pieces = pieces(&self.raw).unwrap_or_default();
        pieces.into_iter().filter_map(|piece| match piece {
            Piece::Plain(_) => None,
            Piece::Reference(reference) => Some(reference),
        })
    }

    /// The text with every reference replaced.
    ///
    /// # Errors
    /// A sentence fragment for the first reference that `scope` doesn't know.
    pub fn expand(&self, scope: &Scope<'_>) -> Result<String, String> {
        if !self.raw.contains("${") {
            return Ok(self.raw.to_string());
        }
        let mut expanded = String::with_capacity(self.raw.len());
        for piece in pieces(&self.raw)? {
            match piece {
                Piece::Plain(text) => expanded.push_str(text),
                Piece::Reference(reference) => expanded.push_str(&scope.look_up(reference)?),
            }
        }
        Ok(expanded)
    }
}

/// What stands between `${` and `}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'r> {
    /// `${port.NAME}`.
    Port(&'r str),
    /// `${env.NAME}`.
    Env(&'r str),
    /// `${module.name}`.
    ModuleName,
    /// `${module.dir}`: the manifest's folder.
    ModuleDir,
    /// `${module.data}`: the module's own folder for what it keeps.
    ModuleData,
    /// `${module.logs}`: the folder of its log files.
    ModuleLogs,
    /// `${gpu.uuids}`: the GPUs it may use, with commas between.
    GpuUuids,
}

/// What references stand for.
#[derive(Clone, Debug)]
pub struct Scope<'s> {
    /// Numbers of ports.
    pub ports: &'s BTreeMap<String, u16>,
    /// Values of variables.
    pub env: &'s BTreeMap<String, String>,
    /// The module's name.
    pub name: &'s str,
    /// The manifest's folder.
    pub dir: &'s str,
    /// The module's data folder.
    pub data: &'s str,
    /// The module's log folder.
    pub logs: &'s str,
    /// UUIDs of its GPUs.
    pub gpus: &'s [String],
}

impl Scope<'_> {
    fn look_up(&self, reference: Reference<'_>) -> Result<Cow<'_, str>, String> {
        let found = match reference {
            Reference::Port(name) => self.ports.get(name).map(|p| p.to_string().into()),
            Reference::Env(name) => self.env.get(name).map(|v| v.as_str().into()),
            Reference::ModuleName => Some(self.name.into()),
            Reference::ModuleDir => Some(self.dir.into()),
            Reference::ModuleData => Some(self.data.into()),
            Reference::ModuleLogs => Some(self.logs.into()),
            Reference::GpuUuids => Some(self.gpus.join(",").into()),
        };
        found.ok_or_else(|| match reference {
            Reference::Port(name) => format!("there is no port `{name}`"),
            Reference::Env(name) => format!("the variable `{name}` is not set"),
            _ => "this reference has no value here".to_owned(),
        })
    }
}

enum Piece<'r> {
    Plain(&'r str),
    Reference(Reference<'r>),
}

fn pieces(raw: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut rest, mut found) = (raw, Vec::new());
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            found.push(Piece::Plain(&rest[..at - 1]));
            found.push(Piece::Plain("${"));
            rest = &rest[at + 2..];
            continue;
        }
        found.push(Piece::Plain(&rest[..at]));
        let after = &rest[at + 2..];
        let end = after
            .find('}')
            .ok_or("`${` without its `}`; a plain one is written `$${`")?;
        found.push(Piece::Reference(reference(&after[..end])?));
        rest = &after[end + 1..];
    }
    found.push(Piece::Plain(rest));
    Ok(found)
}

fn reference(inside: &str) -> Result<Reference<'_>, String> {
    match inside.split_once('.') {
        Some(("port", name)) if !name.is_empty() => Ok(Reference::Port(name)),
        Some(("env", name)) if !name.is_empty() => Ok(Reference::Env(name)),
        Some(("module", "name")) => Ok(Reference::ModuleName),
        Some(("module", "dir")) => Ok(Reference::ModuleDir),
        Some(("module", "data")) => Ok(Reference::ModuleData),
        Some(("module", "logs")) => Ok(Reference::ModuleLogs),
        Some(("gpu", "uuids")) => Ok(Reference::GpuUuids),
        _ => Err("this `${...}` is not known".to_owned()),
    }
}

/// Longest text of a manifest, in bytes: what Linux takes as one argument.
const LONGEST: usize = 128 * 1024 - 1;

impl Decode for Text {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (raw, _) = view.scalar(sink, "text")?;
        if raw.contains('\0') || raw.len() > LONGEST {
            return view.invalid(sink, "text has no NUL byte and at most 131071 bytes");
        }
        if let Err(why) = pieces(raw) {
            let known = "known: ${port.NAME} ${env.NAME} ${module.name|dir|data|logs} ${gpu.uuids}; a plain `${` is written `$${`";
            return view.invalid_help(sink, why, known);
        }
        Some(Text {
            raw: raw.into(),
            pos: view.pos(),
        })
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.raw, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.raw)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "text; ${port.NAME}, ${env.NAME}, ${module.name|dir|data|logs} and ${gpu.uuids} are replaced; YAML's numbers and booleans are taken as written",
            "type": ["string", "number", "boolean"],
        })
    }
}

/// The value of a variable: hidden from `Debug` and from everything that is serialised.
#[derive(Clone, PartialEq)]
pub struct Secret(Text);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("(hidden)")
    }
}

impl Decode for Secret {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        if matches!(&view.node.value, crate::tree::Value::Scalar { text, plain: false } if text.is_empty())
        {
            return Some(Secret(Text {
                raw: "".into(),
                pos: view.pos(),
            }));
        }
        Text::decode(view, sink).map(Secret)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        Text::schema_name()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        Text::json_schema(g)
    }
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Command(#[schemars(length(min = 1))] Vec<Text>);

impl Command {
    /// The words; never empty.
    #[must_use]
    pub fn words(&self) -> &[Text] {
        &self.0
    }
}

impl Decode for Command {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        if view.is_scalar() && !view.node.is_null() {
            let help = "write each word as an item: [program, --option, value]; there is no shell";
            return view.invalid_help(sink, "a command is a list of words", help);
        }
        let words = words(view, sink)?;
        match words.first() {
            Some(first) if !first.raw().is_empty() => Some(Command(words)),
            _ => view.invalid(sink, "a command needs a program"),
        }
    }
}

/// A list of words, of which some may be empty.
pub(crate) fn words(view: View<'_, '_>, sink: &mut Sink) -> Option<Vec<Text>> {
    Vec::<Secret>::decode(view, sink).map(|words| words.into_iter().map(|w| w.0).collect())
}
