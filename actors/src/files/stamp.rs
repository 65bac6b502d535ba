//! The wall clock's reading as RFC 3339 in UTC with nanoseconds.
//!
//! The only place of the log path that reads the wall clock. The text of a second is
//! kept, so a chunk costs nine digits.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub i64);

/// Length of a stamp's text.
pub const STAMP_LEN: usize = 30;

/// Formats stamps; remembers the last second.
#[derive(Debug)]
pub struct Stamper {
    second: i64,
    text: [u8; STAMP_LEN],
}

// -----------------------------------------------------------------------------

impl Stamp {
    /// The wall clock, now.
    pub fn now() -> Self {
        let t = clock_gettime(ClockId::Realtime);
        Self(
            t.tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(t.tv_nsec),
        )
    }

    /// Reads what [`Stamper`] writes; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != STAMP_LEN {
            return None;
        }
        for (at, mark) in [
            (4, b'-'),
            (7, b'-'),
            (10, b'T'),
            (13, b':'),
            (16, b':'),
            (19, b'.'),
            (29, b'Z'),
        ] {
            if text[at] != mark {
                return None;
            }
        }
        let n = |from: usize, to: usize| {
            text[from..to].iter().try_fold(0i64, |v, c| {
                c.is_ascii_digit().then(|| v * 10 + i64::from(c - b'0'))
            })
        };
        let (month, day) = (n(5, 7)?, n(8, 10)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let days = days_from_civil(n(0, 4)?, month, day);
        let second = days * 86_400 + n(11, 13)? * 3600 + n(14, 16)? * 60 + n(17, 19)?;
        second
            .checked_mul(1_000_000_000)?
            .checked_add(n(20, 29)?)
            .map(Self)
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(Stamper::new().text(*self)))
    }
}

impl Stamper {
    /// A stamper that has formatted nothing yet.
    pub fn new() -> Self {
        Self {
            second: i64::MIN,
            text: *b"1970-01-01T00:00:00.000000000Z",
        }
    }

    /// The stamp's text, valid until the next call.
    pub fn text(&mut self, stamp: Stamp) -> &[u8; STAMP_LEN] {
        let second = stamp.0.div_euclid(1_000_000_000);
        if second != self.second {
            self.format_second(second);
            self.second = second;
        }
        digits(&mut self.text[20..29], stamp.0.rem_euclid(1_000_000_000));
        &self.text
    }

    fn format_second(&mut self, second: i64) {
        let (year, month, day) = civil_from_days(second.div_euclid(86_400));
        let of_day = second.rem_euclid(86_400);
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], day);
        digits(&mut self.text[11..13], of_day / 3600);
        digits(&mut self.text[14..16], of_day / 60 % 60);
        digits(&mut self.text[17..19], of_day % 60);
    }
}

impl Default for Stamper {
    fn default() -> Self {
        Self::new()
    }
}

fn digits(to: &mut [u8], mut value: i64) {
    for place in to.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

// Both directions after Howard Hinnant's "chrono-compatible low-level date algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn known_moments_have_their_known_text() {
        let mut stamper = Stamper::new();
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_767_225_599_999_999_999, "2025-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(stamper.text(Stamp(nanos)), text.as_bytes());
            assert_eq!(Stamp::parse(text.as_bytes()), Some(Stamp(nanos)));
        }
    }
}
