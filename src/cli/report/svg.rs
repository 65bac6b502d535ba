//! Curves and bands as SVG that is drawn by the page's own style sheet. Pure.

use super::html::escape;
use super::model::{Course, Curve, Mark, Piece, Weight, time_word, times};
use crate::cli::view::health_word;
use lair_actors::view::HealthWord;
use std::fmt::Write;

const WIDE: u64 = 1000;
const LEFT: u64 = 72;
const RIGHT: u64 = 18;
const TOP: u64 = 22;
const HIGH: u64 = 130;
const FOOT: u64 = 24;
/// Parts of a unit in coordinates.
const TENTHS: u64 = 10;

/// A coordinate with one decimal.
struct At(u64);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 % TENTHS {
            0 => write!(f, "{}", self.0 / TENTHS),
            rest => write!(f, "{}.{rest}", self.0 / TENTHS),
        }
    }
}

/// `part` of `whole`, of a length, in tenths.
fn share(part: u64, whole: u64, length: u64) -> u64 {
    let at = u128::from(part.min(whole)) * u128::from(length * TENTHS) / u128::from(whole.max(1));
    u64::try_from(at).unwrap_or(0)
}

fn x(ms: u64, span: u64) -> At {
    At(LEFT * TENTHS + share(ms, span, WIDE - LEFT - RIGHT))
}

fn y(value: u64, top: u64) -> At {
    At((TOP + HIGH) * TENTHS - share(value, top, HIGH))
}

/// A curve over time.
pub fn curve(course: &Course, curve: &Curve) -> String {
    let height = TOP + HIGH + FOOT;
    let words = escape(&format!("{}: {}", curve.title, curve.words()));
    let mut svg = format!(
        "<svg class=\"plot {}\" id=\"plot-{0}\" viewBox=\"0 0 {WIDE} {height}\" role=\"img\" aria-label=\"{words}\">\n",
        curve.key
    );
    grid(&mut svg, course, curve);
    let (mut line, mut area) = (String::new(), String::new());
    for run in curve.pieces.split(|p| p.value.is_none()) {
        let Some(first) = run.first() else { continue };
        let base = y(0, 1);
        let mut points = format!(
            "{} {}",
            x(first.from, course.span_ms),
            y(first.value.unwrap_or(0), curve.top())
        );
        for piece in run {
            let _ = write!(
                points,
                "L{} {}",
                x(piece.to, course.span_ms),
                y(piece.value.unwrap_or(0), curve.top())
            );
        }
        let _ = write!(line, "M{points}");
        let to = run.last().map_or(first.to, |last| last.to);
        let _ = write!(
            area,
            "M{} {base}L{points}L{} {base}Z",
            x(first.from, course.span_ms),
            x(to, course.span_ms)
        );
    }
    let _ = writeln!(
        svg,
        "<path class=\"area\" d=\"{area}\"/><path class=\"line\" d=\"{line}\"/>"
    );
    levels(&mut svg, curve);
    marks(&mut svg, course);
    hits(&mut svg, course, curve);
    svg += "</svg>\n";
    svg
}

fn grid(svg: &mut String, course: &Course, curve: &Curve) {
    let right = WIDE - RIGHT;
    for value in &curve.axis {
        let at = y(*value, curve.top());
        let word = if *value == 0 {
            "0".to_owned()
        } else {
            (curve.show)(*value)
        };
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at}\" y2=\"{at}\"/><text class=\"label end\" x=\"{}\" y=\"{at}\" dy=\"4\">{}</text>",
            LEFT - 8,
            escape(&word)
        );
    }
    time_axis(svg, course.span_ms, TOP + HIGH);
}

fn time_axis(svg: &mut String, span: u64, bottom: u64) {
    for ms in times(span) {
        let at = x(ms, span);
        let _ = writeln!(
            svg,
            "<line class=\"tick\" x1=\"{at}\" x2=\"{at}\" y1=\"{bottom}\" y2=\"{}\"/><text class=\"label mid\" x=\"{at}\" y=\"{}\">{}</text>",
            bottom + 4,
            bottom + 17,
            time_word(ms)
        );
    }
}

fn levels(svg: &mut String, curve: &Curve) {
    for level in curve.levels.iter().filter(|l| l.value <= curve.top()) {
        let at = y(level.value, curve.top());
        let class = if level.word.starts_with("usual") {
            "usual"
        } else {
            "limit"
        };
        let _ = writeln!(
            svg,
            "<line class=\"level {class}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\"/><text class=\"word {class}\" x=\"{}\" y=\"{at}\" dy=\"-4\">{} {}</text>",
            WIDE - RIGHT,
            WIDE - RIGHT - 4,
            level.word,
            escape(&(curve.show)(level.value))
        );
    }
}

/// The class of a weight.
pub fn class(weight: Weight) -> &'static str {
    match weight {
        Weight::Good => "good",
        Weight::Plain => "plain",
        Weight::Warn => "warn",
        Weight::Bad => "bad",
    }
}

/// Lines through the curve, each with its number on top; where two lie together, one has room for its number.
fn marks(svg: &mut String, course: &Course) {
    let mut free = 0;
    for mark in course.marks.iter().filter(|m| m.drawn) {
        let at = x(mark.at_ms, course.span_ms);
        let _ = write!(
            svg,
            "<g class=\"mark {}\"><title>{}</title><line x1=\"{at}\" x2=\"{at}\" y1=\"{TOP}\" y2=\"{}\"/>",
            class(mark.weight),
            escape(&tip(mark)),
            TOP + HIGH
        );
        if at.0 >= free {
            free = at.0 + 17 * TENTHS;
            let _ = write!(
                svg,
                "<circle cx=\"{at}\" cy=\"12\" r=\"8\"/><text class=\"mid\" x=\"{at}\" y=\"16\">{}</text>",
                mark.number
            );
        }
        svg.push_str("</g>\n");
    }
}

fn tip(mark: &Mark) -> String {
    format!("{}. {} {}", mark.number, mark.time, mark.what)
}

/// What is said of each point when the pointer is over it.
fn hits(svg: &mut String, course: &Course, curve: &Curve) {
    for piece in &curve.pieces {
        let Some(value) = piece.value else { continue };
        let (from, to) = (x(piece.from, course.span_ms), x(piece.to, course.span_ms));
        let wide = At(to.0.saturating_sub(from.0).max(1));
        let _ = write!(
            svg,
            "<rect class=\"hit\" x=\"{from}\" y=\"{TOP}\" width=\"{wide}\" height=\"{HIGH}\"><title>{}: {}</title></rect>",
            time_word(piece.to),
            escape(&(curve.show)(value))
        );
    }
    svg.push('\n');
}

/// Health over time.
pub fn band(course: &Course) -> String {
    const THICK: u64 = 18;
    let height = THICK + FOOT;
    let mut svg = format!(
        "<svg class=\"plot health\" id=\"plot-health\" viewBox=\"0 0 {WIDE} {height}\" role=\"img\" aria-label=\"Health\">\n"
    );
    // Bad times last, so that a short one is not covered by its neighbours.
    let bad = |p: &&Piece<HealthWord>| p.value == HealthWord::Unhealthy;
    let others = course.health.iter().filter(|p| !bad(p));
    for piece in others.chain(course.health.iter().filter(bad)) {
        let (from, to) = (x(piece.from, course.span_ms), x(piece.to, course.span_ms));
        let least = if piece.value == HealthWord::Unhealthy {
            20
        } else {
            1
        };
        let word = health_word(piece.value);
        let _ = writeln!(
            svg,
            "<rect class=\"{word}\" x=\"{from}\" y=\"0\" width=\"{}\" height=\"{THICK}\"><title>{word} from {} to {}</title></rect>",
            At(to.0.saturating_sub(from.0).max(least)),
            time_word(piece.from),
            time_word(piece.to)
        );
    }
    time_axis(&mut svg, course.span_ms, THICK);
    svg += "</svg>\n";
    svg
}
