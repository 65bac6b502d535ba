//! From the tree to types, collecting every mistake on the way.
//!
//! Owns: the walk: paths, positions, unknown and repeated keys, the words of the commonest mistakes. Promises: goes on
//! after a mistake. Never: knows a particular manifest key; those live with their types.

use crate::problem::{Problem, ProblemKind};
use crate::tree::{Key, Node, Pos, Value, repeated};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can be read from a value.
pub(crate) trait Decode: Sized {
    /// Reads it, or says why not and gives nothing.
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self>;
}

/// The way from the root to a value; turned into a pointer only when there is something to tell.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    pub(crate) fn pointer(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Key(up, key) => up.pointer() + "/" + &key.replace('~', "~0").replace('/', "~1"),
            Path::Index(up, i) => format!("{}/{i}", up.pointer()),
        }
    }
}

/// The mistakes so far.
pub(crate) struct Sink {
    file: Arc<str>,
    pub problems: Vec<Problem>,
}

/// More mistakes than this are not listed: the rest follows from the first ones, or from malice.
const MAX_PROBLEMS: usize = 100;

impl Sink {
    pub(crate) fn new(file: &Arc<str>) -> Self {
        Sink {
            file: Arc::clone(file),
            problems: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    pub(crate) fn report(
        &mut self,
        kind: ProblemKind,
        pos: Pos,
        path: Path<'_>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.report_at(kind, pos, &path.pointer(), message, help);
    }

    pub(crate) fn report_at(
        &mut self,
        kind: ProblemKind,
        pos: Pos,
        pointer: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if !self.is_full() {
            self.problems.push(Problem {
                kind,
                file: Arc::clone(&self.file),
                line: pos.line,
                column: pos.column,
                pointer: pointer.to_owned(),
                message: message.into(),
                help,
            });
        }
    }

    /// The value, or all mistakes in the order of the text.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => {
                if self.problems.is_empty() {
                    let what = "nothing could be read, without a known reason".to_owned();
                    self.problems
                        .push(Problem::of_file(ProblemKind::Syntax, &self.file, what));
                }
                self.problems.sort_by_key(|p| (p.line, p.column));
                Err(self.problems)
            }
        }
    }
}

/// A value and the way to it.
#[derive(Clone, Copy)]
pub(crate) struct View<'p, 't> {
    pub node: &'p Node<'t>,
    pub path: Path<'p>,
}

impl<'p, 't> View<'p, 't> {
    pub(crate) fn pos(&self) -> Pos {
        self.node.pos
    }

    /// Reports a value that can't be meant.
    pub(crate) fn invalid<T>(&self, sink: &mut Sink, message: impl Into<String>) -> Option<T> {
        sink.report(ProblemKind::Invalid, self.pos(), self.path, message, None);
        None
    }

    /// The same, with a next step.
    pub(crate) fn invalid_help<T>(
        &self,
        sink: &mut Sink,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Option<T> {
        sink.report(
            ProblemKind::Invalid,
            self.pos(),
            self.path,
            message,
            Some(help.into()),
        );
        None
    }

    /// Reports something of a value below, at its own position. List items are named by their number.
    pub(crate) fn fault(
        &self,
        sink: &mut Sink,
        kind: ProblemKind,
        below: &[&str],
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let (mut node, mut pointer) = (Some(self.node), self.path.pointer());
        let mut pos = self.pos();
        for key in below {
            node = node.and_then(|n| n.child(key));
            pos = node.map_or(pos, |n| n.pos);
            pointer.push('/');
            pointer.push_str(key);
        }
        sink.report_at(kind, pos, &pointer, message, help);
    }

    fn shape(&self) -> &'static str {
        match &self.node.value {
            _ if self.node.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a table of keys",
        }
    }

    fn expected<T>(&self, sink: &mut Sink, what: &str) -> Option<T> {
        self.invalid(
            sink,
            format!("{what} is wanted here, this is {}", self.shape()),
        )
    }

    /// The text of a single value, and whether it was written without quotes. `what` names what is wanted.
    pub(crate) fn scalar(&self, sink: &mut Sink, what: &str) -> Option<(&'p str, bool)> {
        match &self.node.value {
            Value::Scalar { text, plain } if !self.node.is_null() => Some((text, *plain)),
            _ => self.expected(sink, what),
        }
    }

    pub(crate) fn entries(&self, sink: &mut Sink) -> Option<&'p [(Key<'t>, Node<'t>)]> {
        let Value::Map(entries) = &self.node.value else {
            return self.expected(sink, "a table of keys");
        };
        for key in repeated(entries) {
            let path = Path::Key(&self.path, &key.text);
            let help = Some("keep one of the two".to_owned());
            sink.report(
                ProblemKind::Duplicate,
                key.pos,
                path,
                "this key stands twice",
                help,
            );
        }
        Some(entries)
    }

    pub(crate) fn items(&self, sink: &mut Sink) -> Option<&'p [Node<'t>]> {
        match &self.node.value {
            Value::List(items) => Some(items),
            _ => self.expected(sink, "a list"),
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar { .. })
    }

    /// Opens a table of known keys; unknown ones are reported with the nearest known one.
    pub(crate) fn table(&self, sink: &mut Sink, known: &[&'static str]) -> Option<Table<'p, 't>> {
        let entries = self.entries(sink)?;
        for (key, _) in entries.iter().filter(|(k, _)| !known.contains(&&*k.text)) {
            if sink.is_full() {
                break;
            }
            let path = Path::Key(&self.path, &key.text);
            let help = did_you_mean(&key.text, known);
            let what = "there is no such key here";
            sink.report(ProblemKind::UnknownField, key.pos, path, what, Some(help));
        }
        Some(Table {
            entries,
            path: self.path,
            pos: self.pos(),
        })
    }

    /// Opens a table that may hold more than is known.
    pub(crate) fn loose(&self, sink: &mut Sink, _: &[&'static str]) -> Option<Table<'p, 't>> {
        let entries = self.entries(sink)?;
        Some(Table {
            entries,
            path: self.path,
            pos: self.pos(),
        })
    }
}

/// An open table.
pub(crate) struct Table<'p, 't> {
    entries: &'p [(Key<'t>, Node<'t>)],
    path: Path<'p>,
    pos: Pos,
}

impl<'t> Table<'_, 't> {
    /// Calls `f` with the key's value, if the key is there.
    pub(crate) fn with<T>(&self, key: &str, f: impl FnOnce(View<'_, 't>) -> Option<T>) -> Field<T> {
        match self.entries.iter().find(|(k, _)| k.text == key) {
            None => Field::Absent,
            Some((_, node)) => {
                let path = Path::Key(&self.path, key);
                f(View { node, path }).map_or(Field::Bad, Field::Good)
            }
        }
    }

    /// The key's value; absent gives the default.
    pub(crate) fn or<T: Decode>(
        &self,
        key: &str,
        sink: &mut Sink,
        default: impl FnOnce() -> T,
    ) -> Option<T> {
        match self.with(key, |view| T::decode(view, sink)) {
            Field::Good(value) => Some(value),
            Field::Bad => None,
            Field::Absent => Some(default()),
        }
    }

    /// The key's value; absent is a mistake.
    pub(crate) fn need<T: Decode>(&self, key: &str, sink: &mut Sink) -> Option<T> {
        match self.with(key, |view| T::decode(view, sink)) {
            Field::Good(value) => Some(value),
            Field::Bad => None,
            Field::Absent => {
                let path = Path::Key(&self.path, key);
                let what = format!("`{key}` has to be given");
                sink.report(ProblemKind::Missing, self.pos, path, what, None);
                None
            }
        }
    }
}

/// What became of a key.
pub(crate) enum Field<T> {
    /// Not written.
    Absent,
    /// Written, and reported as a mistake.
    Bad,
    /// Written, and read.
    Good(T),
}

/// The nearest of the known words, or all of them.
pub(crate) fn did_you_mean(word: &str, known: &[&'static str]) -> String {
    match nearest(word, known) {
        Some(k) => format!("did you mean `{k}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The known word that was probably meant, if one is near enough.
#[must_use]
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|k| (distance(word, k), *k)).min();
    near.and_then(|(d, k)| (d <= 1 + k.len() / 4).then_some(k))
}

/// Edits (insert, delete, replace, swap of neighbours) between two words; long words count as far.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let edit = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            rows[i][j] = edit.min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}

// ---- shapes that are used everywhere ----

impl<T: Decode> Decode for Option<T> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        if view.node.is_null() {
            Some(None)
        } else {
            T::decode(view, sink).map(Some)
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let items = view.items(sink)?;
        let read = |(i, node)| {
            T::decode(
                View {
                    node,
                    path: Path::Index(&view.path, i),
                },
                sink,
            )
        };
        let read: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }
}

impl<K: Ord + for<'k> TryFrom<&'k str, Error = String>, T: Decode> Decode for BTreeMap<K, T> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (mut map, mut good) = (BTreeMap::new(), true);
        for (key, node) in view.entries(sink)? {
            let path = Path::Key(&view.path, &key.text);
            let name = K::try_from(&key.text);
            if let Err(why) = &name {
                sink.report(ProblemKind::Invalid, key.pos, path, why, None);
            }
            match (name, T::decode(View { node, path }, sink)) {
                (Ok(name), Some(value)) => drop(map.insert(name, value)),
                _ => good = false,
            }
        }
        good.then_some(map)
    }
}

impl Decode for bool {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        match view.scalar(sink, "true or false")? {
            ("true", true) => Some(true),
            ("false", true) => Some(false),
            _ => view.invalid_help(
                sink,
                "true or false is wanted here",
                "write true or false, without quotes",
            ),
        }
    }
}
