//! Plain numbers with their bounds in the type.
//!
//! Owns: counts and decimals. Promises: exact or refused. Never: takes a quoted text for a number.

use crate::decode::{Decode, Sink, View};
use crate::units::{scaled, split};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    pub(crate) const fn of(n: u64) -> Self {
        assert!(MIN <= n && n <= MAX, "a default within its bounds");
        Count(n)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number, for those whose bounds fit.
    #[must_use]
    pub fn small(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Decode for Count<MIN, MAX> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, plain) = view.scalar(sink, "a whole number")?;
        let octal = text.len() > 1 && text.starts_with('0');
        let digits = plain && !octal && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u64>() {
            Ok(n) if digits && (MIN..=MAX).contains(&n) => Some(Count(n)),
            _ => view.invalid(
                sink,
                format!("a whole number from {MIN} to {MAX} is wanted here"),
            ),
        }
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Count<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Count_{MIN}_{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A number with up to three decimals, between two bounds, both in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milli<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Milli<MIN, MAX> {
    pub(crate) const fn thousandths(n: u64) -> Self {
        assert!(MIN <= n && n <= MAX, "a default within its bounds");
        Milli(n)
    }

    /// The number of thousandths.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn float(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl<const MIN: u64, const MAX: u64> Decode for Milli<MIN, MAX> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, plain) = view.scalar(sink, "a number")?;
        let number = match split(text) {
            Ok((whole, fraction, "", "")) if plain => scaled(whole, fraction, 1000).ok(),
            _ => None,
        };
        match number {
            Some(n) if (MIN..=MAX).contains(&n) => Some(Milli(n)),
            _ => {
                let (min, max) = (
                    Milli::<MIN, MAX>(MIN).float(),
                    Milli::<MIN, MAX>(MAX).float(),
                );
                let what = format!(
                    "a number from {min} to {max}, with at most three decimals, is wanted here"
                );
                view.invalid(sink, what)
            }
        }
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Milli<MIN, MAX> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.float())
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Milli<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Number_{MIN}_{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let (min, max) = (
            Milli::<MIN, MAX>(MIN).float(),
            Milli::<MIN, MAX>(MAX).float(),
        );
        json_schema!({ "type": "number", "minimum": min, "maximum": max })
    }
}
