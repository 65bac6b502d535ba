//! From values to cells: the header, the table, the pane below it, and the line of keys.
//!
//! Promises: nothing that is not seen is put into words; without colour every word still says it.

mod panes;
mod table;

use super::model::Curve;
use super::state::{Link, Pane, State, Typing};
use crate::cli::style::{Tone, tone};
use crate::cli::time::bytes;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

/// The least that something can be shown on.
const LEAST: (u16, u16) = (40, 10);

/// How things look on this terminal.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    colour: bool,
    steps: [char; 9],
}

impl Theme {
    /// With colours or without, with block characters or ASCII.
    #[must_use]
    pub fn new(colour: bool, utf8: bool) -> Theme {
        let steps = if utf8 {
            [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            [' ', '.', '.', ':', '-', '=', '+', '*', '#']
        };
        Theme { colour, steps }
    }

    fn style(&self, tone: Tone) -> Style {
        let plain = Style::default();
        match tone {
            Tone::Strong => plain.add_modifier(Modifier::BOLD),
            _ if !self.colour => plain,
            Tone::Good => plain.fg(Color::Green),
            Tone::Warn => plain.fg(Color::Yellow),
            Tone::Bad => plain.fg(Color::Red),
            Tone::Dim => plain.fg(Color::DarkGray),
        }
    }

    fn of_word(&self, word: &str) -> Style {
        tone(word).map_or_else(Style::default, |t| self.style(t))
    }

    /// A curve's last samples as characters, against the highest of them or `full`.
    fn spark(&self, curve: &Curve, width: usize, full: Option<u64>) -> String {
        let highest = curve.last(width).max().unwrap_or(0);
        let full = full.unwrap_or(highest).max(1);
        let step = |value: u64| match value {
            0 => self.steps[0],
            value => {
                let eighths = (value.saturating_mul(8)).div_ceil(full).clamp(1, 8);
                self.steps[usize::try_from(eighths).unwrap_or(8)]
            }
        };
        let text: String = curve.last(width).map(step).collect();
        format!("{text:>width$}")
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, theme: &Theme) {
    let all = frame.area();
    let buf = frame.buffer_mut();
    if all.width < LEAST.0 || all.height < LEAST.1 {
        put(
            buf,
            all,
            0,
            "the terminal is too small for lair top",
            Style::default(),
        );
        return;
    }
    head(buf, all, state, theme);
    let body = rows(all, 2, all.height - 3);
    match state.pane {
        None => {
            let at = body.height - 2;
            table::draw(buf, rows(body, 0, at), state, theme);
            table::strip(buf, rows(body, at, 2), state, theme);
        }
        Some(pane) if state.zoom => panes::draw(buf, body, pane, state, theme),
        Some(pane) => {
            let above = (body.height * 2 / 5).max(4);
            table::draw(buf, rows(body, 0, above), state, theme);
            panes::draw(
                buf,
                rows(body, above, body.height - above),
                pane,
                state,
                theme,
            );
        }
    }
    foot(buf, rows(all, all.height - 1, 1), state, theme);
    if state.help {
        panes::help(buf, all, theme);
    }
    if let Some((verb, name)) = &state.asked {
        panes::question(buf, all, *verb, name, theme);
    }
}

/// Part of an area: `height` lines from line `from` on.
fn rows(area: Rect, from: u16, height: u16) -> Rect {
    let from = from.min(area.height);
    Rect {
        y: area.y + from,
        height: height.min(area.height - from),
        ..area
    }
}

/// A line of text into line `line` of an area, cut at its edge; the column after it.
fn put(buf: &mut Buffer, area: Rect, line: u16, text: &str, style: Style) -> u16 {
    if line >= area.height {
        return area.x;
    }
    let width = usize::from(area.width);
    let (x, _) = buf.set_stringn(area.x, area.y + line, text, width, style);
    x
}

/// The same, from a column on.
fn put_at(buf: &mut Buffer, area: Rect, x: u16, line: u16, text: &str, style: Style) -> u16 {
    let right = area.x + area.width;
    let x = x.min(right);
    let rest = Rect {
        x,
        width: right - x,
        ..area
    };
    put(buf, rest, line, text, style)
}

/// The title of a part: its words, then a rule.
fn title(buf: &mut Buffer, area: Rect, text: &str, theme: &Theme, strong: bool) {
    let style = if strong {
        theme.style(Tone::Strong).add_modifier(Modifier::REVERSED)
    } else {
        theme.style(Tone::Strong).add_modifier(Modifier::UNDERLINED)
    };
    let width = usize::from(area.width);
    put(buf, area, 0, &format!("{text:width$}"), style);
}

fn head(buf: &mut Buffer, all: Rect, state: &State, theme: &Theme) {
    let strong = theme.style(Tone::Strong);
    let mut x = put(buf, all, 0, "lair top ", strong);
    let count = |word: &str| state.rows.iter().filter(|r| r.state == word).count();
    let modules = format!(" {} modules", state.rows.len());
    x = put_at(buf, all, x, 0, &modules, Style::default());
    let words = [
        "running", "starting", "backoff", "stopping", "failed", "stopped",
    ];
    for word in words {
        let n = count(word);
        if n > 0 {
            let text = format!("  {n} {word}");
            x = put_at(buf, all, x, 0, &text, theme.of_word(word));
        }
    }
    if !state.filter.is_empty() {
        let text = format!("  {} shown for /{}", state.order.len(), state.filter);
        put_at(buf, all, x, 0, &text, strong);
    }
    match &state.link {
        Link::Connecting => {
            put(buf, all, 1, "asking lair ...", theme.style(Tone::Warn));
        }
        Link::Lost(why) => {
            let text = format!("lost lair, tried again each second: {why}");
            put(
                buf,
                all,
                1,
                &text,
                theme.style(Tone::Bad).add_modifier(Modifier::BOLD),
            );
        }
        Link::Up => totals(buf, all, state, theme),
    }
}

fn totals(buf: &mut Buffer, all: Rect, state: &State, theme: &Theme) {
    let total = &state.total;
    let width = usize::from(all.width).saturating_sub(50).clamp(6, 60) / 3;
    let cpu = format!(
        "CPU {:>6} {}  ",
        table::percent(total.cpu.now()),
        theme.spark(&total.cpu, width, None)
    );
    let memory = format!(
        "memory {:>9} {}  ",
        bytes(total.memory.now()),
        theme.spark(&total.memory, width, None)
    );
    let mut x = put(buf, all, 1, &cpu, Style::default());
    x = put_at(buf, all, x, 1, &memory, Style::default());
    if state.rows.iter().any(|r| !r.resources.gpu.is_empty()) {
        let gpu = format!(
            "GPU {:>9} {}",
            bytes(total.gpu.now()),
            theme.spark(&total.gpu, width, None)
        );
        put_at(buf, all, x, 1, &gpu, Style::default());
    }
}

/// What is typed, what was said, or the keys.
fn foot(buf: &mut Buffer, area: Rect, state: &State, theme: &Theme) {
    let strong = theme.style(Tone::Strong);
    match (state.typing, &state.said) {
        (Typing::Filter, _) => {
            put(buf, area, 0, &format!("filter: {}_", state.filter), strong);
        }
        (Typing::Search, _) => {
            put(
                buf,
                area,
                0,
                &format!("search: {}_", state.logs.search),
                strong,
            );
        }
        (Typing::No, Some((text, bad))) => {
            let style = theme.style(if *bad { Tone::Bad } else { Tone::Good });
            put(buf, area, 0, text, style.add_modifier(Modifier::BOLD));
        }
        (Typing::No, None) => {
            let keys = match state.pane {
                Some(Pane::Logs) => {
                    "? keys  / search  n N hits  f follow  t stream  p previous run  z zoom  q end"
                }
                _ => "? keys  Enter details  l logs  e events  u GPUs  / filter  s x r K  o sort",
            };
            put(buf, area, 0, keys, theme.style(Tone::Dim));
        }
    }
}
