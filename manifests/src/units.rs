//! Durations and sizes as people write them, with their bounds in the type.
//!
//! Owns: the notation (`1h30m`, `16MiB`, `16MB`). Promises: exact or refused; never rounded, clamped or overflowed; a
//! bare number is refused. Never: knows what a value is used for.

use crate::decode::{Decode, Sink, View};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::time::Duration;

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const HOUR: u64 = 3_600 * SECOND;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const PIB: u64 = 1 << 50;

/// A duration between two bounds, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    pub(crate) const fn millis(ms: u64) -> Self {
        assert!(MIN <= ms && ms <= MAX, "a default within its bounds");
        Span(Duration::from_millis(ms))
    }

    /// The duration.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

const DURATION_HELP: &str = "write a number and a unit: 500ms, 10s, 5m, 1h30m, 7d";

impl<const MIN: u64, const MAX: u64> Decode for Span<MIN, MAX> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, _) = view.scalar(sink, "a duration")?;
        let read = match duration(text) {
            Ok(read) => read,
            Err(why) => return view.invalid_help(sink, why, DURATION_HELP),
        };
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        if read < min || read > max {
            let why = format!(
                "a duration from {} to {} is wanted here",
                show(min),
                show(max)
            );
            return view.invalid(sink, why);
        }
        Some(Span(read))
    }
}

/// Reads `1h30m`; the units are d, h, m, s, ms, us, ns.
///
/// # Errors
/// A sentence fragment, for a bare number, a sign, a unit that is none, and for what can't be kept exactly.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text.starts_with(['-', '+']) {
        return Err("a duration has no sign".to_owned());
    }
    let (mut rest, mut total) = (text, 0u64);
    while !rest.is_empty() {
        let (whole, fraction, unit, after) = split(rest)?;
        let scale = match unit {
            "d" => 86_400_000_000_000,
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            "" => return Err("a duration needs a unit".to_owned()),
            _ => return Err("this is no unit of time".to_owned()),
        };
        let part = scaled(whole, fraction, scale)?;
        total = total
            .checked_add(part)
            .ok_or("this is longer than can be meant")?;
        rest = after;
    }
    if text.is_empty() {
        Err("a duration is empty".to_owned())
    } else {
        Ok(Duration::from_nanos(total))
    }
}

/// Reads `16MiB` (binary), `16MB` (decimal), `512B`.
///
/// # Errors
/// A sentence fragment, for a bare number, a sign, a unit that is none, and for what is no whole number of bytes.
pub fn size(text: &str) -> Result<u64, String> {
    if text.starts_with(['-', '+']) {
        return Err("a size has no sign".to_owned());
    }
    let (whole, fraction, unit, after) = split(text)?;
    let scale = match unit.trim_start() {
        "B" => 1,
        "KiB" | "Ki" => KIB,
        "MiB" | "Mi" => MIB,
        "GiB" | "Gi" => GIB,
        "TiB" | "Ti" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "" => return Err("a size needs a unit".to_owned()),
        _ => return Err("this is no unit of size".to_owned()),
    };
    if after.is_empty() {
        scaled(whole, fraction, scale)
    } else {
        Err("this is no size".to_owned())
    }
}

/// Splits `1.5h30m` into `1`, `5`, `h` and `30m`.
pub(crate) fn split(text: &str) -> Result<(&str, &str, &str, &str), String> {
    let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let unit = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit);
    if whole.is_empty() {
        return Err("a number is wanted first".to_owned());
    }
    Ok((whole, fraction, unit, after))
}

pub(crate) fn scaled(whole: &str, fraction: &str, scale: u64) -> Result<u64, String> {
    let big = || "this is more than can be meant".to_owned();
    let whole: u64 = whole.parse().map_err(|_| big())?;
    let whole = whole.checked_mul(scale).ok_or_else(big)?;
    if fraction.is_empty() {
        return Ok(whole);
    }
    let fraction = fraction.trim_end_matches('0');
    let places = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    let ten = 10u128.checked_pow(places).filter(|_| places <= 18);
    let inexact = || "this fraction can't be kept exactly".to_owned();
    let ten = ten.ok_or_else(inexact)?;
    let part = fraction.parse::<u128>().unwrap_or(0) * u128::from(scale);
    if part % ten != 0 {
        return Err(inexact());
    }
    let part = u64::try_from(part / ten).map_err(|_| big())?;
    whole.checked_add(part).ok_or_else(big)
}

/// A duration in the notation that is read.
#[must_use]
pub fn show(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    let units = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    for (scale, unit) in units {
        if rest >= scale {
            text.push_str(&format!("{}{unit}", rest / scale));
            rest %= scale;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// A size in the notation that is read: the largest binary unit that keeps it exact.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let units = [
        (1u64 << 40, "TiB"),
        (GIB, "GiB"),
        (MIB, "MiB"),
        (KIB, "KiB"),
    ];
    let fits = units
        .iter()
        .find(|(scale, _)| bytes >= *scale && bytes.is_multiple_of(*scale));
    match fits {
        Some((scale, unit)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Span<MIN, MAX> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show(self.0))
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Span<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Duration_{MIN}_{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(\\.[0-9]+)?(d|h|m|s|ms|us|ns))+$",
            "description": format!("a duration from {} to {}", show(min), show(max)),
        })
    }
}

/// A size between two bounds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    pub(crate) const fn bytes(bytes: u64) -> Self {
        assert!(MIN <= bytes && bytes <= MAX, "a default within its bounds");
        Size(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

const SIZE_HELP: &str = "write a number and a unit: 512MiB, 4GiB (binary), 4GB (decimal)";

impl<const MIN: u64, const MAX: u64> Decode for Size<MIN, MAX> {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, _) = view.scalar(sink, "a size")?;
        match size(text) {
            Err(why) => view.invalid_help(sink, why, SIZE_HELP),
            Ok(bytes) if (MIN..=MAX).contains(&bytes) => Some(Size(bytes)),
            Ok(_) => {
                let (min, max) = (show_size(MIN), show_size(MAX));
                view.invalid(sink, format!("a size from {min} to {max} is wanted here"))
            }
        }
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Size<MIN, MAX> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show_size(self.0))
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Size<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Size_{MIN}_{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(\\.[0-9]+)? *(B|[KMGT]i|[KMGT]iB|[kKMGT]B)$",
            "description": format!("a size from {} to {}; GiB is binary, GB decimal", show_size(MIN), show_size(MAX)),
        })
    }
}
