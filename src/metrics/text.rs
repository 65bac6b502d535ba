//! The two text formats that scrapers read, line by line.
//!
//! Promises: what is written is right in both: a family's name, unit and samples come from one place. Never: knows what
//! the figures mean.

use std::fmt::{Display, Write};

/// Which of the formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    #[default]
    OpenMetrics,
    /// Prometheus's own text format, 0.0.4.
    Prometheus,
}

impl Format {
    /// What a scraper that accepts this wants.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// The text's media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It goes up, and begins anew with what it counts.
    Counter,
    /// Sizes, counted.
    Histogram,
    /// Always 1: its labels tell.
    Info,
}

/// A text that is being written.
pub(super) struct Text {
    format: Format,
    text: String,
}

/// One family of samples: its name as without `_total` and `_info`.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    suffix: &'static str,
}

/// Units are named by the last word of a name.
const UNITS: [&str; 4] = ["seconds", "bytes", "ratio", "celsius"];

impl Text {
    pub fn new(format: Format) -> Self {
        Text {
            format,
            text: String::new(),
        }
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> Family<'_> {
        let suffix = match kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let (declared, word) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Info) => ("", "info"),
            (Format::Prometheus, Kind::Info) => (suffix, "gauge"),
            (Format::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Format::Prometheus, Kind::Counter) => (suffix, "counter"),
            (_, Kind::Gauge) => ("", "gauge"),
            (_, Kind::Histogram) => ("", "histogram"),
        };
        let text = &mut self.text;
        let _ = writeln!(text, "# TYPE {name}{declared} {word}");
        let unit = UNITS.iter().find(|unit| name.ends_with(*unit));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "# HELP {name}{declared} {help}");
        Family { text, name, suffix }
    }

    /// The whole text.
    pub fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line(self.suffix, labels, None, value);
    }

    /// One sample, where there is a value.
    pub fn known(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(labels, value);
        }
    }

    /// A histogram's samples: how many were at most each bound, how many there were, and their sum.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, n) in buckets {
            // With a point, as both formats have it.
            let bound = format!("{bound:?}");
            self.line("_bucket", labels, Some(("le", &bound)), n);
        }
        self.line("_bucket", labels, Some(("le", "+Inf")), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        last: Option<(&str, &str)>,
        value: impl Display,
    ) {
        let text = &mut *self.text;
        let _ = write!(text, "{}{suffix}", self.name);
        let mut before = '{';
        for (label, said) in labels.iter().copied().chain(last) {
            let _ = write!(text, "{before}{label}=\"");
            escape(text, said);
            text.push('"');
            before = ',';
        }
        let close = if before == ',' { "}" } else { "" };
        let _ = writeln!(text, "{close} {value}");
    }
}

/// Inside quotes.
fn escape(text: &mut String, said: &str) {
    for c in said.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_reads_right_in_both_formats() {
        let write = |format| {
            let mut text = Text::new(format);
            let mut family = text.family(Kind::Counter, "lair_log_bytes", "Output.");
            family.sample(&[("module", "a\"b\\c\nd")], 3);
            let mut times = text.family(Kind::Histogram, "lair_stop_seconds", "Stops.");
            times.histogram(&[], [(0.5, 1), (1.0, 1)].into_iter(), 2, 7.25);
            text.end()
        };
        let times = "lair_stop_seconds_bucket{le=\"0.5\"} 1\nlair_stop_seconds_bucket{le=\"1.0\"} 1\n\
             lair_stop_seconds_bucket{le=\"+Inf\"} 2\nlair_stop_seconds_sum 7.25\nlair_stop_seconds_count 2\n";
        let sample = "lair_log_bytes_total{module=\"a\\\"b\\\\c\\nd\"} 3\n";
        assert_eq!(
            write(Format::OpenMetrics),
            format!(
                "# TYPE lair_log_bytes counter\n# UNIT lair_log_bytes bytes\n# HELP lair_log_bytes Output.\n{sample}\
                 # TYPE lair_stop_seconds histogram\n# UNIT lair_stop_seconds seconds\n# HELP lair_stop_seconds Stops.\n{times}# EOF\n"
            )
        );
        assert_eq!(
            write(Format::Prometheus),
            format!(
                "# TYPE lair_log_bytes_total counter\n# HELP lair_log_bytes_total Output.\n{sample}\
                 # TYPE lair_stop_seconds histogram\n# HELP lair_stop_seconds Stops.\n{times}"
            )
        );
    }
}
