//! A run's course, ready to be drawn: curves with their scales, and what happened when. Pure.

use crate::cli::time::{bytes, cpus, parse_rfc3339};
use lair_actors::dossier::{Dossier, Moment};
use lair_actors::footprint::{Series, Spread};
use lair_actors::view::HealthWord;

/// A value over a time: from, until, how much. Times are milliseconds since the run came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    pub from: u64,
    pub to: u64,
    pub value: T,
}

/// A level that a curve is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    pub word: &'static str,
    pub value: u64,
}

/// One curve.
pub struct Curve {
    /// Its word in the page's addresses.
    pub key: &'static str,
    pub title: &'static str,
    pub pieces: Vec<Piece<Option<u64>>>,
    pub levels: Vec<Level>,
    /// Values of its axis, from zero on; the last is the highest that is drawn.
    pub axis: Vec<u64>,
    pub show: fn(u64) -> String,
}

impl Curve {
    pub fn most(&self) -> Option<u64> {
        self.pieces.iter().filter_map(|p| p.value).max()
    }

    pub fn last(&self) -> Option<u64> {
        self.pieces.iter().rev().find_map(|p| p.value)
    }

    /// The highest value that is drawn; at least 1.
    pub fn top(&self) -> u64 {
        self.axis.last().copied().unwrap_or(1).max(1)
    }

    /// What is to be said of it beside its title.
    pub fn words(&self) -> String {
        let show = |word: &str, value: Option<u64>| Some(format!("{word} {}", (self.show)(value?)));
        let mut all = vec![show("at most", self.most()), show("last", self.last())];
        all.extend(self.levels.iter().map(|l| show(l.word, Some(l.value))));
        let all: Vec<String> = all.into_iter().flatten().collect();
        all.join(", ")
    }
}

/// How bad something that happened is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Good,
    Plain,
    Warn,
    Bad,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Mark {
    /// 1, 2, ...
    pub number: usize,
    pub at_ms: u64,
    /// `14:03:21.250`
    pub time: String,
    pub what: String,
    pub weight: Weight,
    /// It is worth a line through all curves.
    pub drawn: bool,
}

/// All of it.
pub struct Course {
    /// How long the run is, or was when it was looked at; at least 1.
    pub span_ms: u64,
    pub curves: Vec<Curve>,
    pub health: Vec<Piece<HealthWord>>,
    pub marks: Vec<Mark>,
}

/// Lines through the curves, at most: of more, those that happened last.
const DRAWN: usize = 24;

impl Course {
    pub fn of(d: &Dossier) -> Course {
        let none = Series::default();
        let series = d.series.as_ref().unwrap_or(&none);
        let began = d.started_at.as_deref().and_then(parse_rfc3339);
        let marks = marks(&d.timeline, began);
        let last = series.at_ms.last().copied().unwrap_or(0);
        let happened = marks.iter().map(|m| m.at_ms).max().unwrap_or(0);
        let span_ms = d.ran_ms.unwrap_or(0).max(last).max(happened).max(1);
        let health = exact(&d.timeline, &marks, span_ms)
            .unwrap_or_else(|| pieces(&series.at_ms, &series.health));
        Course {
            span_ms,
            curves: curves(d, series),
            health: joined(health),
            marks,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.curves.iter().all(|c| c.most().is_none())
    }
}

fn curves(d: &Dossier, series: &Series) -> Vec<Curve> {
    let usual = d.footprint.as_ref().and_then(|f| f.usual.as_ref());
    let level = |word, value: Option<u64>| value.map(|value| Level { word, value });
    let peak = |spread: Option<Spread>| level("usual peak", spread.map(|s| s.usual));
    let limit = d.resources.memory.limit;
    let mut all = vec![
        curve(
            ("memory", "Memory", bytes),
            pieces(&series.at_ms, &series.memory),
            [level("limit", limit), peak(usual.and_then(|u| u.memory))],
        ),
        curve(
            ("cpu", "CPUs", cpus),
            pieces(&series.at_ms, &series.cpu_milli),
            [
                level(
                    "usual mean",
                    usual.and_then(|u| u.cpu_milli).map(|s| s.usual),
                ),
                None,
            ],
        ),
    ];
    if !series.gpu_memory.is_empty() {
        let vram: Option<u64> = d.resources.gpu.iter().map(|gpu| gpu.vram).sum();
        let vram = vram.filter(|n| *n > 0);
        all.push(curve(
            ("gpu", "GPU memory", bytes),
            pieces(&series.at_ms, &series.gpu_memory),
            [
                level("declared", vram),
                peak(usual.and_then(|u| u.gpu_memory)),
            ],
        ));
    }
    all.push(curve(
        ("log", "Log output", |n| format!("{}/s", bytes(n))),
        pieces(&series.at_ms, &series.log_rate),
        [None, None],
    ));
    all
}

fn curve(
    (key, title, show): (&'static str, &'static str, fn(u64) -> String),
    pieces: Vec<Piece<Option<u64>>>,
    levels: [Option<Level>; 2],
) -> Curve {
    let levels: Vec<Level> = levels.into_iter().flatten().collect();
    let most = pieces.iter().filter_map(|p| p.value).max().unwrap_or(0);
    // A limit far above the curve would press it flat: it is told in words only.
    let near = levels
        .iter()
        .map(|l| l.value)
        .filter(|n| *n <= most.saturating_mul(2));
    let most = near.max().unwrap_or(0).max(most);
    Curve {
        key,
        title,
        pieces,
        levels,
        axis: axis(most, key != "cpu"),
        show,
    }
}

fn pieces<T: Copy>(at_ms: &[u64], values: &[T]) -> Vec<Piece<T>> {
    let begins = std::iter::once(&0).chain(at_ms);
    begins
        .zip(at_ms)
        .zip(values)
        .map(|((from, to), value)| Piece {
            from: *from,
            to: *to,
            value: *value,
        })
        .collect()
}

/// Verdicts as they were told; `None`: the first of them are not kept any more, and only samples are left.
fn exact(timeline: &[Moment], marks: &[Mark], span_ms: u64) -> Option<Vec<Piece<HealthWord>>> {
    timeline.iter().find(|m| m.what == "running")?;
    let mut all = Vec::new();
    let (mut from, mut value) = (0, HealthWord::Unknown);
    for mark in marks {
        let Some(verdict) = mark.what.strip_prefix("health ") else {
            continue;
        };
        all.push(Piece {
            from,
            to: mark.at_ms,
            value,
        });
        let word = verdict.split(':').next().unwrap_or_default();
        value = match word {
            "healthy" => HealthWord::Healthy,
            "unhealthy" => HealthWord::Unhealthy,
            _ => HealthWord::Unknown,
        };
        from = mark.at_ms;
    }
    let to = span_ms;
    all.push(Piece { from, to, value });
    Some(all)
}

fn joined(all: Vec<Piece<HealthWord>>) -> Vec<Piece<HealthWord>> {
    let mut kept: Vec<Piece<HealthWord>> = Vec::new();
    for piece in all {
        match kept.last_mut() {
            Some(last) if last.value == piece.value => last.to = piece.to,
            _ => kept.push(piece),
        }
    }
    kept
}

/// Two to five steps of a round size, from 0 to at least `most`.
fn axis(most: u64, binary: bool) -> Vec<u64> {
    let steps: Vec<u64> = if binary {
        let kib = (0..5)
            .flat_map(|unit| [1, 2, 5, 10, 20, 50, 100, 200, 500].map(|n: u64| n << (10 * unit)));
        kib.collect()
    } else {
        let tens = (1..8).flat_map(|digits| [1, 2, 5].map(|n: u64| n * 10_u64.pow(digits)));
        tens.collect()
    };
    let fits = |step: &&u64| most.div_ceil(**step) <= 4;
    let step = steps.iter().find(fits).copied().unwrap_or(most.max(1));
    let count = most.div_ceil(step).max(1);
    (0..=count).map(|n| n * step).collect()
}

/// Times for the time axis: round ones, seven at most.
pub fn times(span_ms: u64) -> Vec<u64> {
    const YEAR: u64 = 31_536_000;
    const SECONDS: [u64; 22] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
        86_400, 172_800, 604_800, 1_209_600, 2_592_000,
    ];
    let fits = |step: &&u64| span_ms / (**step * 1000) <= 6;
    let years = span_ms / (YEAR * 1000) / 6 + 1;
    let step = SECONDS.iter().find(fits).copied().unwrap_or(YEAR * years) * 1000;
    (0..=span_ms / step).map(|n| n * step).collect()
}

/// `0`, `30s`, `5m`, `1h30m`, `2d`.
pub fn time_word(ms: u64) -> String {
    let s = ms / 1000;
    let parts = [
        (s / 86_400, 'd'),
        (s % 86_400 / 3600, 'h'),
        (s % 3600 / 60, 'm'),
        (s % 60, 's'),
    ];
    let all = parts.iter().filter(|(n, _)| *n > 0).take(2);
    let text: String = all.map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0".into() } else { text }
}

/// In the order in which they happened: one that a clock set back would place before another lies where that does.
fn marks(timeline: &[Moment], began: Option<i64>) -> Vec<Mark> {
    let all = timeline.iter().filter(|m| m.what != "loaded");
    let mut latest = 0;
    let mut marks: Vec<Mark> = (1..)
        .zip(all)
        .map(|(number, moment)| {
            let at = parse_rfc3339(&moment.at).zip(began);
            let at = at.map_or(0, |(at, began)| u64::try_from(at - began).unwrap_or(0));
            latest = at.max(latest);
            let (weight, drawn) = weigh(&moment.what);
            Mark {
                number,
                at_ms: latest,
                time: moment.at.get(11..23).unwrap_or(&moment.at).to_owned(),
                what: moment.what.clone(),
                weight,
                drawn,
            }
        })
        .collect();
    let mut left = DRAWN;
    for mark in marks.iter_mut().rev() {
        mark.drawn &= left > 0;
        left -= usize::from(mark.drawn);
    }
    marks
}

/// How bad, and whether worth a line.
fn weigh(what: &str) -> (Weight, bool) {
    let word = what.split([' ', ':']).next().unwrap_or_default();
    match word {
        "ready" | "thawed" | "woke" | "adopted" | "log_recovered" | "sight_regained" => {
            (Weight::Good, true)
        }
        "health" if what.starts_with("health healthy") => (Weight::Good, true),
        "health" if what.starts_with("health unhealthy") => (Weight::Bad, true),
        "health" => (Weight::Plain, false),
        "exited" if what.starts_with("exited code=0") => (Weight::Plain, true),
        "exited" | "killing" | "stuck" | "start_failed" | "owner_died" | "log_degraded"
        | "injected" | "failed" => (Weight::Bad, true),
        "stopping" | "not_ready" | "backoff" | "frozen" | "parked" | "footprint_changed"
        | "sight_lost" | "group_restart" | "group_gave_up" | "exposure" => (Weight::Warn, true),
        _ => (Weight::Plain, false),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn an_axis_has_few_round_steps_and_reaches_the_most() {
        for most in [0, 1, 7, 1000, 6_442_450_944, 1 << 40] {
            for binary in [true, false] {
                let axis = axis(most, binary);
                assert!((2..=5).contains(&axis.len()), "{most}: {axis:?}");
                assert!(axis.last() >= Some(&most), "{most}: {axis:?}");
            }
        }
        assert_eq!(axis(6 << 30, true), [0, 2 << 30, 4 << 30, 6 << 30]);
        assert_eq!(axis(1500, false), [0, 500, 1000, 1500]);
    }

    #[test]
    fn times_are_round_and_few() {
        for span in [
            1,
            999,
            5000,
            61_000,
            3_600_000,
            90_000_000,
            40_000_000_000,
            u64::MAX,
        ] {
            assert!((1..=8).contains(&times(span).len()), "{span}");
        }
        assert_eq!(times(75_000), [0, 15_000, 30_000, 45_000, 60_000, 75_000]);
        assert_eq!(time_word(5_400_000), "1h30m");
        assert_eq!(time_word(0), "0");
    }

    #[test]
    fn verdicts_are_drawn_as_they_were_told() {
        let moment = |at: &str, what: &str| Moment {
            at: format!("2026-01-01T00:00:{at}Z"),
            what: what.into(),
        };
        let timeline = [
            moment("00.000", "running"),
            moment("02.000", "health healthy"),
            moment("05.000", "health unhealthy: it answered 503"),
        ];
        let marks = marks(&timeline, parse_rfc3339("2026-01-01T00:00:00.000Z"));
        let all = exact(&timeline, &marks, 9000).expect("complete");
        let seen: Vec<_> = all.iter().map(|p| (p.from, p.to, p.value)).collect();
        let wanted = [
            (0, 2000, HealthWord::Unknown),
            (2000, 5000, HealthWord::Healthy),
            (5000, 9000, HealthWord::Unhealthy),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_clock_that_is_set_back_turns_no_time_round() {
        let moment = |at: &str, what: &str| Moment {
            at: format!("2026-01-01T{at}.000Z"),
            what: what.into(),
        };
        let timeline = [
            moment("12:00:00", "running"),
            moment("12:00:09", "health healthy"),
            moment("11:00:01", "health unhealthy: it answered 503"),
            moment("11:00:02", "exited code=1"),
        ];
        let marks = marks(&timeline, parse_rfc3339("2026-01-01T12:00:00.000Z"));
        let at: Vec<_> = marks.iter().map(|m| m.at_ms).collect();
        assert_eq!(at, [0, 9000, 9000, 9000]);
        let health = exact(&timeline, &marks, 9000).expect("complete");
        assert!(health.iter().all(|p| p.from <= p.to), "{health:?}");
    }

    #[test]
    fn a_mark_lies_where_it_happened_and_only_what_matters_is_drawn() {
        let moment = |at: &str, what: &str| Moment {
            at: format!("2026-01-01T00:00:{at}Z"),
            what: what.into(),
        };
        let timeline = [
            moment("00.000", "starting"),
            moment("02.500", "ready"),
            moment("09.000", "exited code=1"),
        ];
        let marks = marks(&timeline, parse_rfc3339("2026-01-01T00:00:01.000Z"));
        assert!(exact(&timeline, &marks, 8000).is_none());
        let seen: Vec<_> = marks.iter().map(|m| (m.at_ms, m.drawn)).collect();
        assert_eq!(seen, [(0, false), (1500, true), (8000, true)]);
        assert_eq!(marks[2].weight, Weight::Bad);
        let many: Vec<Moment> = (0..60).map(|_| moment("02.000", "ready")).collect();
        let drawn = super::marks(&many, None).iter().filter(|m| m.drawn).count();
        assert_eq!(drawn, DRAWN);
    }
}
