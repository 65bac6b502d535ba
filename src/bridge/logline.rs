//! A line of a module's output, safe to carry in JSON whatever its bytes.
//!
//! Promises: `text` is always there, with what is not UTF-8 replaced; then `base64` has the exact bytes.

use lair_actors::files::StreamName;
use lair_actors::files::read::{Cursor, Entry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Whose.
    pub name: String,
    /// Of which run.
    pub run: u64,
    /// When lair read it (RFC 3339 UTC, nanoseconds); absent for raw files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<String>,
    /// `stdout`, `stderr`, `lair`.
    pub stream: String,
    /// The module had not ended the line here.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub partial: bool,
    /// The text; what is not UTF-8 is replaced.
    pub text: String,
    /// The exact bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
}

impl LogLine {
    /// The wire's form of a record.
    #[must_use]
    pub fn of(name: &str, entry: &Entry) -> Self {
        let text = String::from_utf8_lossy(&entry.bytes);
        let exact = matches!(text, std::borrow::Cow::Borrowed(_));
        LogLine {
            name: name.to_owned(),
            run: entry.here.run,
            at: entry.at.map(|at| at.to_string()),
            stream: entry.stream.as_str().to_owned(),
            partial: entry.partial,
            base64: (!exact).then(|| encode(&entry.bytes)),
            text: text.into_owned(),
        }
    }

    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let exact = self.base64.as_deref().and_then(decode);
        exact.unwrap_or_else(|| self.text.clone().into_bytes())
    }
}

/// A place in a log, to go on from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogPlace {
    run: u64,
    segment: u64,
    offset: u64,
    /// For raw files only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    stream: Option<StreamWord>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StreamWord {
    Stdout,
    Stderr,
    Lair,
}

impl From<Cursor> for LogPlace {
    fn from(c: Cursor) -> Self {
        LogPlace {
            run: c.run,
            segment: c.segment,
            offset: c.offset,
            stream: c.stream.map(|s| match s {
                StreamName::Stdout => StreamWord::Stdout,
                StreamName::Stderr => StreamWord::Stderr,
                StreamName::Lair => StreamWord::Lair,
            }),
        }
    }
}

impl From<LogPlace> for Cursor {
    fn from(p: LogPlace) -> Self {
        Cursor {
            run: p.run,
            segment: p.segment,
            offset: p.offset,
            stream: p.stream.map(|s| match s {
                StreamWord::Stdout => StreamName::Stdout,
                StreamWord::Stderr => StreamName::Stderr,
                StreamWord::Lair => StreamName::Lair,
            }),
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0u8; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(word);
        for at in 0..4 {
            if at <= chunk.len() {
                let index = (bits >> (18 - 6 * at)) & 63;
                out.push(char::from(ALPHABET[index as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        let mut have = 0usize;
        for byte in chunk.iter().take_while(|b| **b != b'=') {
            let index = ALPHABET.iter().position(|a| a == byte)?;
            bits = (bits << 6) | u32::try_from(index).ok()?;
            have += 1;
        }
        let bits = bits << (6 * (4 - have));
        out.extend_from_slice(bits.to_be_bytes().get(1..have)?);
    }
    Some(out)
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_base64(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn base64_is_the_usual_one() {
        assert_eq!(encode(b"lair\xff"), "bGFpcv8=");
    }
}
