//! Names and other single words, valid by construction.
//!
//! Owns: which characters a name may have. Promises: a [`ModuleId`] is safe as a folder's name. Never: normalises; what
//! isn't valid is refused.

use crate::decode::{Decode, Sink, View, did_you_mean};
use crate::problem::ProblemKind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Makes a word type of a rule: its reading, its schema, its conversions.
macro_rules! word {
    ($(#[$meta:meta])* $name:ident, $pattern:literal, $rule:expr, $kind:expr, $message:literal) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = String;

            fn try_from(text: &str) -> Result<Self, String> {
                let rule: fn(&str) -> bool = $rule;
                if rule(text) { Ok($name(text.to_owned())) } else { Err($message.to_owned()) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Decode for $name {
            fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
                let (text, _) = view.scalar(sink, "a single word")?;
                match $name::try_from(text) {
                    Ok(word) => Some(word),
                    Err(why) => {
                        sink.report($kind, view.pos(), view.path, why, None);
                        None
                    }
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

fn made_of(text: &str, longest: usize, first: fn(u8) -> bool, rest: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= longest
        && first(bytes[0])
        && bytes[1..].iter().all(|&b| rest(b))
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn printable(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}

word!(
    /// A module's name: also the name of its folders.
    ModuleId,
    "^(?!.*\\.\\.)[a-z0-9][a-z0-9._-]{0,62}$",
    |t| !t.contains("..") && made_of(t, 63, lower, |b| lower(b) || b"._-".contains(&b)),
    ProblemKind::Invalid,
    "a name is 1 to 63 of a-z 0-9 . _ -, begins with a letter or digit, and has no `..`"
);

word!(
    /// The name of a port.
    PortName,
    "^[a-z][a-z0-9_-]{0,31}$",
    |t| made_of(t, 32, |b| b.is_ascii_lowercase(), |b| lower(b) || b"_-".contains(&b)),
    ProblemKind::Invalid,
    "a port's name is 1 to 32 of a-z 0-9 _ -, and begins with a letter"
);

word!(
    /// The name of an environment variable.
    EnvName,
    "^[A-Za-z_][A-Za-z0-9_]{0,254}$",
    |t| made_of(t, 255, |b| b.is_ascii_alphabetic() || b == b'_', |b| b.is_ascii_alphanumeric() || b == b'_'),
    ProblemKind::Invalid,
    "a variable's name is made of A-Z a-z 0-9 _, and doesn't begin with a digit"
);

word!(
    /// The name of a credential of the service manager: a file's name.
    CredentialName,
    "^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$",
    |t| made_of(t, 255, |b| b.is_ascii_alphanumeric() || b == b'_', |b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
    ProblemKind::Invalid,
    "a credential's name is made of A-Z a-z 0-9 . _ -"
);

word!(
    /// A version number: 1 to 3 numbers, and perhaps a suffix as SemVer has it.
    Version,
    "^[0-9]+(\\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?$",
    version,
    ProblemKind::Version,
    "a version is 1 to 3 numbers with dots between, as in 0.1.0"
);

word!(
    /// A word of the mode list; words that are no mode of this runtime are kept, and explained by selection.
    ModeWord,
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    |t| made_of(t, 63, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
    ProblemKind::Invalid,
    "a mode is one word"
);

word!(
    /// A user or user and group, by name or number.
    UserName,
    "^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$",
    |t| t.split(':').count() <= 2 && t.split(':').all(|part| {
        made_of(part, 32, |b| b.is_ascii_alphanumeric() || b == b'_', |b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    }),
    ProblemKind::Invalid,
    "a user is a name or a number, perhaps with `:group`"
);

word!(
    /// One line of text for people.
    Line,
    "^[^\\x00-\\x1f]{1,4096}$",
    |t| printable(t, 4096),
    ProblemKind::Invalid,
    "one line of text is wanted here, at most 4096 bytes"
);

word!(
    /// Text for people, perhaps of several lines.
    Prose,
    "^[^\\x00]{1,65536}$",
    |t| !t.is_empty() && t.len() <= 65_536 && !t.contains('\0'),
    ProblemKind::Invalid,
    "text is wanted here"
);

word!(
    /// Text that belongs to others, and may be empty.
    Note,
    "^[^\\x00]{0,65536}$",
    |t| t.len() <= 65_536 && !t.contains('\0'),
    ProblemKind::Invalid,
    "text is wanted here"
);

word!(
    /// An absolute path.
    AbsolutePath,
    "^/",
    |t| t.starts_with('/') && printable(t, 4095) && !t.split('/').any(|part| part == ".."),
    ProblemKind::Invalid,
    "an absolute path without `..` is wanted here"
);

word!(
    /// A SHA-256: 64 hex digits.
    Digest,
    "^[0-9A-Fa-f]{64}$",
    |t| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit()),
    ProblemKind::Invalid,
    "a SHA-256 is 64 hex digits"
);

fn version(text: &str) -> bool {
    let (numbers, suffix) = match text.find(['-', '+']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 128
        && numbers.split('.').count() <= 3
        && numbers.split('.').all(number)
        && suffix.is_none_or(|s| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b".-+".contains(&b);
            !s.is_empty() && s.bytes().all(fits)
        })
}

/// Makes an enum of fixed words: its reading, its schema, its text.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal $(| $other:literal)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// The word of the manifest.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl crate::decode::Decode for $name {
            fn decode(view: crate::decode::View<'_, '_>, sink: &mut crate::decode::Sink) -> Option<Self> {
                let known: &[&'static str] = &[$($word $(, $other)*),+];
                match view.scalar(sink, "a single word")?.0 {
                    $($word $(| $other)* => Some($name::$variant),)+
                    other => view.invalid_help(sink, "this word isn't known here", crate::decode::did_you_mean(other, known)),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($word $(, $other)*),+] })
            }
        }
    };
}
pub(crate) use choice;

/// A signal that asks a module to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// SIGTERM.
    pub const TERM: Signal = Signal(15);

    /// Its number on Linux.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    /// By name (`TERM`, `SIGTERM`) or number (`15`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Signal> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let named = SIGNALS
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, number)| *number);
        let number = || {
            text.parse::<i32>()
                .ok()
                .filter(|n| (1..=64).contains(n) && text.len() < 3)
        };
        named.or_else(number).map(Signal)
    }
}

/// Names of the signals that people send, with Linux's numbers (signal(7)).
pub const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

impl Decode for Signal {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, _) = view.scalar(sink, "a signal")?;
        match Signal::parse(text) {
            Some(Signal(17..=20)) => view.invalid_help(
                sink,
                "this signal doesn't ask a process to end",
                "TERM is the usual one",
            ),
            Some(signal) => Some(signal),
            None => {
                let names: Vec<&'static str> = SIGNALS.iter().map(|(name, _)| *name).collect();
                let help = did_you_mean(text.strip_prefix("SIG").unwrap_or(text), &names);
                view.invalid_help(sink, "this is no signal of Linux", help)
            }
        }
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => s.serialize_str(name),
            None => s.serialize_i32(self.0),
        }
    }
}

impl JsonSchema for Signal {
    fn schema_name() -> Cow<'static, str> {
        "Signal".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a signal by name (TERM, SIGTERM) or number",
            "oneOf": [{ "type": "string" }, { "type": "integer", "minimum": 1, "maximum": 64 }],
        })
    }
}
