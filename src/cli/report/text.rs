//! A run's course as text plots, 80 columns wide; plain ASCII where nothing else can be shown. Pure.

use super::model::{Course, Curve, Mark, Weight, time_word, times};
use crate::cli::style::{Style, Tone};
use lair_actors::view::HealthWord;
use std::fmt::Write;

/// Columns for values.
const WIDE: u64 = 68;
/// Columns for the axis.
const LABEL: usize = 10;
/// Lines of a plot.
const HIGH: u64 = 5;
/// Parts of a cell that can be told apart.
const EIGHTHS: u64 = 8;
/// Events that are listed.
const LISTED: usize = 24;

struct Glyphs {
    cells: [char; 9],
    corner: char,
    base: char,
    side: char,
    health: [char; 3],
}

const FINE: Glyphs = Glyphs {
    cells: [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    corner: '└',
    base: '─',
    side: '│',
    health: ['━', '▓', '·'],
};
const PLAIN: Glyphs = Glyphs {
    cells: [' ', '.', '.', ':', ':', '|', '|', '#', '#'],
    corner: '+',
    base: '-',
    side: '|',
    health: ['=', '!', '.'],
};

/// The plots, and the events with the numbers that they have in them.
pub fn page(course: &Course, utf8: bool, style: &Style) -> String {
    let glyphs = if utf8 { &FINE } else { &PLAIN };
    let mut text = String::new();
    if course.is_empty() {
        text += "No samples of this run: it was over before lair looked, or ended with an earlier lair.\n\n";
    } else {
        for curve in course.curves.iter().filter(|c| c.most().is_some()) {
            plot(&mut text, course, curve, glyphs, style);
        }
        band(&mut text, course, glyphs, style);
    }
    events(&mut text, &course.marks, style);
    text
}

/// The column of a time.
fn column(ms: u64, span: u64) -> usize {
    let at = u128::from(ms) * u128::from(WIDE) / u128::from(span.max(1));
    usize::try_from(at).unwrap_or(0)
}

fn plot(text: &mut String, course: &Course, curve: &Curve, glyphs: &Glyphs, style: &Style) {
    let title = style.paint(Tone::Strong, curve.title);
    let _ = writeln!(text, "{title}  {}", curve.words());
    let columns = columns(course, curve);
    let top = curve.top();
    for line in (0..HIGH).rev() {
        let label = match line {
            _ if line == HIGH - 1 => (curve.show)(top),
            0 => "0".to_owned(),
            _ => String::new(),
        };
        let cells: String = columns
            .iter()
            .map(|v| cell(*v, line, top, glyphs))
            .collect();
        let _ = writeln!(
            text,
            "{label:>LABEL$} {}{}",
            glyphs.side,
            style.paint(Tone::Good, cells.trim_end())
        );
    }
    foot(text, course, glyphs, style);
}

/// The most that was there in each column's time.
fn columns(course: &Course, curve: &Curve) -> Vec<Option<u64>> {
    let wide = usize::try_from(WIDE).unwrap_or(0);
    let mut all = vec![None; wide];
    for piece in &curve.pieces {
        let from = column(piece.from, course.span_ms).min(wide - 1);
        let to = column(piece.to.saturating_sub(1), course.span_ms).min(wide - 1);
        for at in all.get_mut(from..=to).into_iter().flatten() {
            *at = (*at).max(piece.value);
        }
    }
    all
}

fn cell(value: Option<u64>, line: u64, top: u64, glyphs: &Glyphs) -> char {
    let Some(value) = value else { return ' ' };
    let parts = u128::from(value) * u128::from(HIGH * EIGHTHS) / u128::from(top);
    let parts = u64::try_from(parts).unwrap_or(u64::MAX);
    let mut here = parts.saturating_sub(line * EIGHTHS).min(EIGHTHS);
    if line == 0 {
        // That something is there is to be seen, however little.
        here = here.max(u64::from(value > 0));
    }
    glyphs.cells[usize::try_from(here).unwrap_or(0)]
}

/// The base, the marks on it, and the times below.
fn foot(text: &mut String, course: &Course, glyphs: &Glyphs, style: &Style) {
    let wide = usize::try_from(WIDE).unwrap_or(0);
    let base: String = std::iter::repeat_n(glyphs.base, wide).collect();
    let _ = writeln!(text, "{:>LABEL$} {}{base}", "", glyphs.corner);
    let mut row = vec![' '; wide];
    for ms in times(course.span_ms) {
        put(&mut row, column(ms, course.span_ms), &time_word(ms));
    }
    let row: String = row.into_iter().collect();
    let _ = writeln!(
        text,
        "{:>LABEL$}  {}",
        "",
        style.paint(Tone::Dim, row.trim_end())
    );
    let mut row = vec![' '; wide];
    for mark in course.marks.iter().filter(|m| m.drawn) {
        put(
            &mut row,
            column(mark.at_ms, course.span_ms),
            &format!("^{}", mark.number),
        );
    }
    let row: String = row.into_iter().collect();
    if !row.trim_end().is_empty() {
        let _ = writeln!(
            text,
            "{:>LABEL$}  {}",
            "",
            style.paint(Tone::Warn, row.trim_end())
        );
    }
    text.push('\n');
}

/// Writes a word where there is room for it.
fn put(row: &mut [char], at: usize, word: &str) {
    let length = word.chars().count();
    let at = at.min(row.len().saturating_sub(length));
    let taken = row[at.saturating_sub(1)..at + length]
        .iter()
        .any(|c| *c != ' ');
    if !taken {
        row[at..at + length]
            .iter_mut()
            .zip(word.chars())
            .for_each(|(to, c)| *to = c);
    }
}

fn band(text: &mut String, course: &Course, glyphs: &Glyphs, style: &Style) {
    let wide = usize::try_from(WIDE).unwrap_or(0);
    let [good, bad, unknown] = glyphs.health;
    let mut row = vec![' '; wide];
    for piece in &course.health {
        let from = column(piece.from, course.span_ms).min(wide - 1);
        let to = column(piece.to.saturating_sub(1), course.span_ms).min(wide - 1);
        let sign = match piece.value {
            HealthWord::Healthy => good,
            HealthWord::Unhealthy => bad,
            HealthWord::Unknown => unknown,
        };
        for at in row.get_mut(from..=to).into_iter().flatten() {
            // A short bad time is not drawn over by the good one that follows.
            if *at != bad {
                *at = sign;
            }
        }
    }
    let row: String = row.into_iter().collect();
    let title = style.paint(Tone::Strong, "Health");
    let _ = writeln!(
        text,
        "{title}  {good} healthy, {bad} unhealthy, {unknown} unknown\n{:>LABEL$}  {}\n",
        "",
        row.trim_end()
    );
}

fn events(text: &mut String, marks: &[Mark], style: &Style) {
    if marks.is_empty() {
        return;
    }
    let _ = writeln!(text, "{}", style.paint(Tone::Strong, "Events"));
    for mark in &marks[marks.len().saturating_sub(LISTED)..] {
        let tone = match mark.weight {
            Weight::Good => Tone::Good,
            Weight::Plain => Tone::Dim,
            Weight::Warn => Tone::Warn,
            Weight::Bad => Tone::Bad,
        };
        let plain = mark
            .what
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c });
        let what: String = plain.take(56).collect();
        let _ = writeln!(
            text,
            "{:>4} {} +{:<7} {}",
            mark.number,
            mark.time,
            time_word(mark.at_ms),
            style.paint(tone, &what)
        );
    }
}

#[cfg(test)]
mod test {
    use super::super::model::Piece;
    use super::*;
    use crate::cli::time::bytes;

    fn course() -> Course {
        let piece = |n: u64| Piece {
            from: n * 1000,
            to: (n + 1) * 1000,
            value: (n != 30).then_some((n + 1) << 20),
        };
        let curve = Curve {
            key: "memory",
            title: "Memory",
            pieces: (0..60).map(piece).collect(),
            levels: Vec::new(),
            axis: vec![0, 20 << 20, 40 << 20, 60 << 20],
            show: bytes,
        };
        let mark = |number, at_ms, what: &str| Mark {
            number,
            at_ms,
            time: "00:00:01.000".into(),
            what: what.into(),
            weight: Weight::Good,
            drawn: true,
        };
        let health = |from, to, value| Piece { from, to, value };
        Course {
            span_ms: 60_000,
            curves: vec![curve],
            health: vec![
                health(0, 10_000, HealthWord::Unknown),
                health(10_000, 10_100, HealthWord::Unhealthy),
                health(10_100, 60_000, HealthWord::Healthy),
            ],
            marks: vec![
                mark(1, 10_000, "ready"),
                mark(2, 60_000, "exited\x1b[31m code=1"),
            ],
        }
    }

    #[test]
    fn plots_fit_eighty_columns_and_ascii_is_ascii() {
        for utf8 in [true, false] {
            let text = page(&course(), utf8, &Style::default());
            let widest = text.lines().map(|l| l.chars().count()).max();
            assert!(widest <= Some(80), "{text}");
            assert_eq!(text.is_ascii(), !utf8, "{text}");
            assert!(!text.contains('\x1b'));
        }
    }

    #[test]
    fn a_curve_rises_a_gap_stays_empty_and_marks_stand_below_it() {
        let text = page(&course(), true, &Style::default());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Memory  at most 60MiB"), "{text}");
        let plot = &lines[1..6];
        assert!(plot[0].starts_with("     60MiB │"), "{text}");
        assert!(plot[0].ends_with('▇') || plot[0].ends_with('█'), "{text}");
        let base: Vec<char> = plot[4].chars().collect();
        assert_eq!(
            base.iter().skip(12).filter(|c| **c == ' ').count(),
            1,
            "{text}"
        );
        assert!(
            lines[8].contains("^1") && lines[8].ends_with("^2"),
            "{text}"
        );
        assert!(text.contains('▓'), "a short bad time is seen: {text}");
    }
}
