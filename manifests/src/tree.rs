//! YAML (and JSON, its subset) as a tree with a position at every key and value.
//!
//! Owns: the bounds of what is read: depth, number of values, bytes reached through aliases. Promises: plain scalars
//! keep their text (`1.10` stays `1.10`, `yes` stays a word). Never: decides what a value means; see [`crate::decode`].

use crate::problem::{Problem, ProblemKind};
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;

/// The price of one value beside the bytes of its text.
const NODE: usize = 16;

/// Where something stands in the text: line and column from 1, or 0 for nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pos {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    pub pos: Pos,
    pub value: Value<'t>,
    /// What it costs to copy: bytes of scalars, and [`NODE`] for each value, here and below.
    weight: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Value<'t> {
    Scalar { text: Cow<'t, str>, plain: bool },
    List(Vec<Node<'t>>),
    Map(Vec<(Key<'t>, Node<'t>)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key<'t> {
    pub pos: Pos,
    pub text: Cow<'t, str>,
}

impl<'t> Node<'t> {
    /// The value of a key, or the item of a number.
    pub(crate) fn child(&self, key: &str) -> Option<&Node<'t>> {
        match &self.value {
            Value::Scalar { .. } => None,
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, v)| v),
        }
    }

    /// Nothing: `~`, `null`, or an empty value.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads one document. `budget` bounds the bytes of scalars and the number of values (16 each); what an alias stands
/// for counts as often as it is used.
pub(crate) fn read<'t>(file: &Arc<str>, text: &'t str, budget: usize) -> Result<Node<'t>, Problem> {
    let mut builder = Builder::new(budget);
    let mut options = granit_parser::Options::default();
    options.disallow_directives = true;
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(next) = parser.next_event() {
        let outcome = match next {
            Ok((event, span)) => builder.take(event, span),
            Err(e) => {
                let at = marker(e.marker());
                Err(fault(ProblemKind::Syntax, at, &e.info()))
            }
        };
        outcome.map_err(|mut problem| {
            problem.file = Arc::clone(file);
            problem
        })?;
    }
    Ok(builder.root.unwrap_or(Node {
        pos: Pos { line: 1, column: 1 },
        value: Value::Scalar {
            text: Cow::Borrowed(""),
            plain: true,
        },
        weight: NODE,
    }))
}

fn marker(m: &granit_parser::Marker) -> Pos {
    Pos {
        line: u32::try_from(m.line()).unwrap_or(u32::MAX),
        column: u32::try_from(m.col() + 1).unwrap_or(u32::MAX),
    }
}

fn fault(kind: ProblemKind, at: Pos, message: &str) -> Problem {
    Problem {
        line: at.line,
        column: at.column,
        ..Problem::of_file(kind, "", message.to_owned())
    }
}

struct Open<'t> {
    node: Node<'t>,
    anchor: usize,
    key: Option<Key<'t>>,
}

struct Builder<'t> {
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    root: Option<Node<'t>>,
    documents: usize,
    left: usize,
}

impl<'t> Builder<'t> {
    fn new(weight: usize) -> Self {
        Builder {
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            documents: 0,
            left: weight,
        }
    }

    fn take(&mut self, event: Event<'t>, span: Span) -> Result<(), Problem> {
        let pos = marker(&span.start);
        match event {
            Event::DocumentStart(..) => self.document(pos),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !tagged(tag.as_deref(), pos)?;
                let weight = NODE + text.len();
                self.charge(weight, pos)?;
                let value = Value::Scalar { text, plain };
                self.close(Node { pos, value, weight }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                tagged(tag.as_deref(), pos)?;
                self.begin(Value::List(Vec::new()), anchor, pos)
            }
            Event::MappingStart(_, anchor, tag) => {
                tagged(tag.as_deref(), pos)?;
                self.begin(Value::Map(Vec::new()), anchor, pos)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(done) => self.close(done.node, done.anchor),
                None => Ok(()),
            },
            Event::Alias(id) => self.alias(id, pos),
            _ => Ok(()),
        }
    }

    fn document(&mut self, pos: Pos) -> Result<(), Problem> {
        self.documents += 1;
        if self.documents > 1 {
            let what = "a second document in one file";
            return Err(fault(ProblemKind::Syntax, pos, what)
                .with_help("several modules go into one list: `modules: [ ... ]`"));
        }
        Ok(())
    }

    fn begin(&mut self, value: Value<'t>, anchor: usize, pos: Pos) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            let what = format!("nested more than {MAX_DEPTH} deep");
            return Err(fault(ProblemKind::TooDeep, pos, &what));
        }
        self.charge(NODE, pos)?;
        let node = Node {
            pos,
            value,
            weight: NODE,
        };
        self.open.push(Open {
            node,
            anchor,
            key: None,
        });
        Ok(())
    }

    fn alias(&mut self, id: usize, pos: Pos) -> Result<(), Problem> {
        let Some(target) = self.anchors.get(&id) else {
            let what = "an alias to something that isn't complete yet";
            return Err(fault(ProblemKind::Syntax, pos, what));
        };
        if target.weight > self.left {
            let what = "aliases expand to more than is read";
            return Err(fault(ProblemKind::TooLarge, pos, what));
        }
        if depth(target) + self.open.len() > MAX_DEPTH {
            let what = format!("aliases nest more than {MAX_DEPTH} deep");
            return Err(fault(ProblemKind::TooDeep, pos, &what));
        }
        let mut copy = target.clone();
        copy.pos = pos;
        self.charge(copy.weight, pos)?;
        self.close(copy, 0)
    }

    fn charge(&mut self, weight: usize, pos: Pos) -> Result<(), Problem> {
        self.left = self
            .left
            .checked_sub(weight)
            .ok_or_else(|| fault(ProblemKind::TooLarge, pos, "more values than are read"))?;
        Ok(())
    }

    /// A value is complete: it becomes an item, a key, a key's value, or the root.
    fn close(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.charge(node.weight, node.pos)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let weight = node.weight;
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    parent.key = Some(as_key(node)?);
                }
            },
            Value::Scalar { .. } => {}
        }
        parent.node.weight += weight;
        Ok(())
    }
}

fn as_key(node: Node<'_>) -> Result<Key<'_>, Problem> {
    match node.value {
        Value::Scalar { text, .. } => Ok(Key {
            pos: node.pos,
            text,
        }),
        _ => Err(fault(ProblemKind::Syntax, node.pos, "a key must be a word")),
    }
}

fn depth(node: &Node<'_>) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, v)| depth(v)).max().unwrap_or(0),
    }
}

/// Whether a tag makes a plain scalar a string; other tags of YAML's core are let pass, foreign ones are not.
fn tagged(tag: Option<&Tag>, pos: Pos) -> Result<bool, Problem> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.is_yaml_core_schema_tag("str")),
        Some(_) => Err(fault(
            ProblemKind::Syntax,
            pos,
            "a tag that means nothing here",
        )),
    }
}

/// Positions of the keys that stand twice in one mapping, in order.
pub(crate) fn repeated<'n>(entries: &'n [(Key<'_>, Node<'_>)]) -> Vec<&'n Key<'n>> {
    if entries.len() <= 16 {
        let twice = |i: usize| {
            entries[..i]
                .iter()
                .any(|(k, _)| k.text == entries[i].0.text)
        };
        return (0..entries.len())
            .filter(|&i| twice(i))
            .map(|i| &entries[i].0)
            .collect();
    }
    let mut seen = HashSet::with_capacity(entries.len());
    let keys = entries.iter().map(|(k, _)| k);
    keys.filter(|k| !seen.insert(&*k.text)).collect()
}
