//! The panes: details, logs, events, GPUs; the page of keys; the question before something is ended.

use super::{Theme, put, put_at, rows, title};
use crate::cli::style::Tone;
use crate::cli::time::bytes;
use crate::cli::top::keys::HELP;
use crate::cli::top::state::{Pane, State, Verb};
use crate::resources::{Card, OnGpu};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

/// The open pane.
pub fn draw(buf: &mut Buffer, area: Rect, pane: Pane, state: &mut State, theme: &Theme) {
    let inside = rows(area, 1, area.height.saturating_sub(1));
    state.pane_page = usize::from(inside.height);
    let head = match pane {
        Pane::Details => details(buf, inside, state, theme),
        Pane::Logs => logs(buf, inside, state, theme),
        Pane::Events => events(buf, inside, state),
        Pane::Gpus => gpus(buf, inside, state, theme),
    };
    title(buf, rows(area, 0, 1), &head, theme, state.in_pane);
}

fn name(state: &State) -> &str {
    state.selected.as_deref().unwrap_or("no module")
}

/// The part of `count` lines that is seen when `from` are scrolled away; corrects `from`.
fn window(from: &mut usize, count: usize, page: usize) -> std::ops::Range<usize> {
    *from = (*from).min(count.saturating_sub(page));
    *from..(*from + page).min(count)
}

fn details(buf: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) -> String {
    let (head, page) = (format!("details of {}", name(state)), state.pane_page);
    let of = |d: &&(String, Vec<String>)| Some(&d.0) == state.selected.as_ref();
    let Some((_, lines)) = state.details.as_ref().filter(of) else {
        put(buf, area, 0, "asking ...", theme.style(Tone::Dim));
        return head;
    };
    let seen = window(&mut state.scroll, lines.len(), page);
    let below = lines.len() - seen.end;
    for (at, line) in (0..).zip(&lines[seen]) {
        let heading = !line.starts_with(' ') && !line.is_empty();
        let style = if heading {
            theme.style(Tone::Strong)
        } else {
            Style::default()
        };
        put(buf, area, at, line, style);
    }
    match below {
        0 => head,
        n => format!("{head}, {n} more lines (Tab, PgDn, z)"),
    }
}

fn logs(buf: &mut Buffer, area: Rect, state: &State, theme: &Theme) -> String {
    let view = &state.logs;
    let mut head = format!("logs of {}", name(state));
    head += &format!(", {}", view.stream.unwrap_or("all streams"));
    if view.previous {
        head += ", previous run";
    }
    head += if view.at.is_some() {
        ", held"
    } else {
        ", following"
    };
    if !view.search.is_empty() {
        head += &format!(", /{}", view.search);
    }
    let wanted = state.want().log;
    if wanted.as_ref() != Some(&view.of) {
        put(buf, area, 0, "asking ...", theme.style(Tone::Dim));
        return head;
    }
    if view.lines.is_empty() {
        put(buf, area, 0, "nothing yet", theme.style(Tone::Dim));
    }
    let end = view.end();
    let from = end.saturating_sub(usize::from(area.height));
    for (at, line) in (0..).zip(view.lines.range(from..end)) {
        let time = line.at.as_deref().and_then(|t| t.get(11..19)).unwrap_or("");
        let mark = match line.stream.as_str() {
            "stdout" => " ",
            "stderr" => "!",
            _ => "#",
        };
        let x = put(
            buf,
            area,
            at,
            &format!("{time} {mark} "),
            theme.style(Tone::Dim),
        );
        let style = match line.stream.as_str() {
            _ if view.hits(line) => Style::default().add_modifier(Modifier::REVERSED),
            "stderr" => theme.style(Tone::Warn),
            "lair" => theme.style(Tone::Dim),
            _ => Style::default(),
        };
        put_at(buf, area, x, at, &line.text, style);
    }
    head
}

fn events(buf: &mut Buffer, area: Rect, state: &mut State) -> String {
    let of_one = state.events_of_one;
    let who = state.selected.clone().unwrap_or_default();
    let fits = |name: &str| !of_one || name == who;
    let count = state.events.iter().filter(|e| fits(&e.name)).count();
    let page = state.pane_page;
    state.scroll = state.scroll.min(count.saturating_sub(page));
    let end = count - state.scroll;
    let all = state.events.iter().filter(|e| fits(&e.name));
    let seen = all.skip(end.saturating_sub(page)).take(page.min(end));
    for (line, event) in (0..).zip(seen) {
        put(buf, area, line, &event.text, Style::default());
    }
    match (of_one, state.scroll) {
        (true, 0) => format!("events of {who}"),
        (false, 0) => "events".to_owned(),
        (true, n) => format!("events of {who}, {n} newer below"),
        (false, n) => format!("events, {n} newer below"),
    }
}

fn gpus(buf: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) -> String {
    let head = "GPUs and who is on them".to_owned();
    let Some(report) = &state.gpus else {
        put(
            buf,
            area,
            0,
            "asking the driver ...",
            theme.style(Tone::Dim),
        );
        return head;
    };
    let mut lines: Vec<(String, bool)> = Vec::new();
    if let Some(why) = &report.reason {
        lines.push((format!("no GPU can be seen: {why}"), false));
    } else if report.gpus.is_empty() {
        lines.push(("the driver answers, and knows no GPU".to_owned(), false));
    }
    for card in &report.gpus {
        lines.push((card_line(card), true));
        for share in &card.modules {
            let part = share.vram.map_or_else(|| "alone".to_owned(), bytes);
            let left = if share.left_behind {
                ", ended, something is left"
            } else {
                ""
            };
            lines.push((format!("   given to {}: {part}{left}", share.module), false));
        }
        lines.extend(card.processes.iter().map(|p| (process_line(p), false)));
        if card.processes.is_empty() {
            lines.push(("   no process on it".to_owned(), false));
        }
    }
    let seen = window(&mut state.scroll, lines.len(), state.pane_page);
    for (at, (line, strong)) in (0..).zip(&lines[seen]) {
        let style = if *strong {
            theme.style(Tone::Strong)
        } else {
            Style::default()
        };
        put(buf, area, at, line, style);
    }
    head
}

fn known(size: Option<u64>) -> String {
    size.map_or_else(|| "unknown".to_owned(), bytes)
}

fn card_line(card: &Card) -> String {
    let name = match &card.fault {
        Some(fault) => format!("can't be used: {fault}"),
        None => card.name.clone().unwrap_or_else(|| "unknown".to_owned()),
    };
    let mut text = format!(
        "{} {name}  {} of {}",
        card.index,
        known(card.memory.used),
        known(card.memory.total)
    );
    if let Some(percent) = card.busy_percent {
        text += &format!(", busy {percent}%");
    }
    if let Some(degrees) = card.temperature_c {
        text += &format!(", {degrees} C");
    }
    text
}

fn process_line(process: &OnGpu) -> String {
    let owner = match (&process.module, process.run) {
        (Some(module), Some(run)) if process.owner == "left_behind" => {
            format!("left behind by {module} (run {run})")
        }
        (Some(module), _) => format!("of {module}"),
        (None, _) => "a stranger".to_owned(),
    };
    let name = process.name.as_deref().unwrap_or("gone");
    format!(
        "   {:>8} {:>9}  {name}, {owner}",
        process.pid,
        known(process.memory)
    )
}

/// A box in the middle with these lines.
fn boxed(buf: &mut Buffer, all: Rect, width: u16, lines: &[String], theme: &Theme) {
    let height = u16::try_from(lines.len())
        .unwrap_or(all.height)
        .min(all.height);
    let width = width.min(all.width);
    let area = Rect {
        x: all.x + (all.width - width) / 2,
        y: all.y + (all.height - height) / 2,
        width,
        height,
    };
    let wide = usize::from(width);
    for (at, line) in (0..).zip(lines) {
        let style = if at == 0 {
            theme.style(Tone::Strong)
        } else {
            Style::default()
        };
        let text = format!(" {line:<wide$}");
        put(buf, area, at, &text, style.add_modifier(Modifier::REVERSED));
    }
}

/// The page of keys.
pub fn help(buf: &mut Buffer, all: Rect, theme: &Theme) {
    let mut lines = vec!["lair top: keys (any key closes this)".to_owned()];
    lines.extend(HELP.iter().map(|(keys, what)| format!("{keys:<13} {what}")));
    boxed(buf, all, 66, &lines, theme);
}

/// The question before something is ended.
pub fn question(buf: &mut Buffer, all: Rect, verb: Verb, name: &str, theme: &Theme) {
    let what = match verb {
        Verb::Start => "it is started",
        Verb::Stop => "its stop signal, its grace, then KILL",
        Verb::Restart => "it is stopped, then a new run is started",
        Verb::Kill => "its whole tree is killed at once",
    };
    let lines = [
        format!("{} {name}?", verb.word()),
        what.to_owned(),
        "y yes   n no".to_owned(),
    ];
    let width = lines
        .iter()
        .map(|l| l.chars().count() + 2)
        .max()
        .unwrap_or(20);
    boxed(
        buf,
        all,
        u16::try_from(width).unwrap_or(60).max(30),
        &lines,
        theme,
    );
}
