//! LocalAIStack's `integrity.checksum`: whether a manifest is as its author left it.
//!
//! Owns: what the checksum is over. A file can't hold its own SHA-256, so it is over the file with the digits of every
//! checksum in it made zeros: `sed -E 's/(sha256:)[0-9a-fA-F]{64}/\1000…/'` and `sha256sum` give the same. Promises: a
//! checksum that is there is verified, whatever the mode; one of zeros is a placeholder and says nothing. Never: takes
//! it for trust: whoever changes the manifest can change it as well.

use crate::source::{Source, digest};
use crate::stack::Stack;

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What came of looking at a module's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is none, or a placeholder of zeros.
    Absent,
    /// It is right.
    Right,
    /// It is another.
    Wrong {
        /// As written.
        written: String,
        /// As it should be.
        real: String,
    },
    /// Not a SHA-256, so lair can't tell.
    Unknown {
        /// As written.
        written: String,
    },
}

/// Looks at the checksum of the module at `index` of a stack.
#[must_use]
pub fn checksum(source: &Source, stack: &Stack, index: usize) -> Checked {
    let written = |i: usize| {
        let integrity = stack.modules.get(i)?.integrity.as_ref()?;
        Some(integrity.checksum.as_ref()?.as_str())
    };
    let Some(mine) = written(index).filter(|text| !text.is_empty()) else {
        return Checked::Absent;
    };
    let Some(digits) = digits(mine) else {
        return Checked::Unknown {
            written: mine.to_owned(),
        };
    };
    if digits == ZEROS {
        return Checked::Absent;
    }
    let all = (0..stack.modules.len()).filter_map(|i| self::digits(written(i)?));
    let blank = all.fold(source.text.clone(), |text, digits| {
        text.replace(digits, ZEROS)
    });
    let real = digest(blank.as_bytes());
    if real.eq_ignore_ascii_case(digits) {
        return Checked::Right;
    }
    Checked::Wrong {
        written: digits.to_owned(),
        real: real.to_string(),
    }
}

fn digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).trim();
    let hex = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then_some(digits)
}
