//! A mistake in something that a person wrote, and how it is told.
//!
//! Owns: the stable codes of mistakes and their two renderings (text and JSON). Promises: a position whenever there is
//! a text, a next step wherever one is known. Never: quotes the text beside the mistake, for that may be a secret.

use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// What kind of mistake it is: the stable code that programs match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Not YAML (or JSON), or not a file that can be read as one.
    Syntax,
    /// Longer, or with more values, than is read.
    TooLarge,
    /// Nested deeper than is read.
    TooDeep,
    /// A key that means nothing here.
    UnknownField,
    /// A key that has to be here.
    Missing,
    /// A value that can't be meant.
    Invalid,
    /// The same thing twice.
    Duplicate,
    /// Not a version number.
    Version,
}

impl ProblemKind {
    /// The code, as printed and as in JSON.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            ProblemKind::Syntax => "syntax",
            ProblemKind::TooLarge => "too_large",
            ProblemKind::TooDeep => "too_deep",
            ProblemKind::UnknownField => "unknown_field",
            ProblemKind::Missing => "missing",
            ProblemKind::Invalid => "invalid",
            ProblemKind::Duplicate => "duplicate",
            ProblemKind::Version => "version",
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its stable code.
    pub kind: ProblemKind,
    /// The file's name, as given.
    pub file: Arc<str>,
    /// Line, from 1; 0 where there is no text to point at.
    pub line: u32,
    /// Column in characters, from 1; 0 where there is no text to point at.
    pub column: u32,
    /// JSON pointer (RFC 6901) to the value or key.
    pub pointer: String,
    /// What is wrong, in one sentence fragment.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem of a whole file, without a position in it.
    #[must_use]
    pub fn of_file(kind: ProblemKind, file: &str, message: String) -> Self {
        Problem {
            kind,
            file: Arc::from(file),
            line: 0,
            column: 0,
            pointer: String::new(),
            message,
            help: None,
        }
    }

    /// The same problem with a next step.
    #[must_use]
    pub fn with_help(mut self, help: &str) -> Self {
        self.help = Some(help.to_owned());
        self
    }

    /// The pointer in the dotted form that people read: `runtime.restart.max`.
    #[must_use]
    pub fn dotted(&self) -> String {
        let dotted = self.pointer.trim_start_matches('/').replace('/', ".");
        dotted.replace("~1", "/").replace("~0", "~")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: ", self.kind.code())?;
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.dotted())?;
        }
        write!(f, "{}\n  --> {}", self.message, self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// All problems, one after the other, as a person reads them.
#[must_use]
pub fn render(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
