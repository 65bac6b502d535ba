//! The table of modules, and the two lines about the chosen one.

use super::{Theme, put, put_at, rows};
use crate::cli::style::Tone;
use crate::cli::time::{age, bytes, parse_rfc3339};
use crate::cli::top::model::{Row, Trend};
use crate::cli::top::state::{Link, Sort, State};
use crate::cli::view::health_word;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

/// A column's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Name,
    State,
    Health,
    Run,
    Restarts,
    Cpu,
    CpuTrend,
    Memory,
    MemoryTrend,
    Gpu,
    GpuTrend,
    Ports,
    Age,
    Reason,
}

impl What {
    fn head(self) -> &'static str {
        match self {
            What::Name => "NAME",
            What::State => "STATE",
            What::Health => "HEALTH",
            What::Run => "RUN",
            What::Restarts => "RESTARTS",
            What::Cpu => "CPU",
            What::CpuTrend | What::MemoryTrend | What::GpuTrend => "",
            What::Memory => "MEMORY",
            What::Gpu => "GPU MEM",
            What::Ports => "PORTS",
            What::Age => "AGE",
            What::Reason => "REASON",
        }
    }

    fn right(self) -> bool {
        matches!(
            self,
            What::Run | What::Cpu | What::Memory | What::Gpu | What::Age
        )
    }

    fn sort(self) -> Option<Sort> {
        match self {
            What::Name => Some(Sort::Name),
            What::State => Some(Sort::State),
            What::Cpu => Some(Sort::Cpu),
            What::Memory => Some(Sort::Memory),
            What::Gpu => Some(Sort::Gpu),
            What::Restarts => Some(Sort::Restarts),
            _ => None,
        }
    }
}

/// Columns that fit, each with its width, in their order.
fn columns(width: u16, gpus: bool) -> Vec<(What, u16)> {
    let mut all = vec![
        (What::State, 8),
        (What::Health, 9),
        (What::Run, 3),
        (What::Restarts, 8),
        (What::Cpu, 6),
        (What::Memory, 13),
        (What::Age, 6),
    ];
    if gpus || width >= 100 {
        all.insert(6, (What::Gpu, 9));
    }
    let used = |all: &[(What, u16)]| all.iter().map(|(_, w)| w + 1).sum::<u16>();
    let mut name = width.saturating_sub(used(&all)).max(8);
    let spare = |all: &[(What, u16)]| width.saturating_sub(used(all) + 24);
    let more = [
        (What::Ports, 16, What::Age),
        (What::CpuTrend, 10, What::Memory),
        (What::MemoryTrend, 10, What::Gpu),
        (What::GpuTrend, 10, What::Ports),
    ];
    for (what, wide, before) in more {
        if spare(&all) > wide && (what != What::GpuTrend || gpus) {
            let at = all.iter().position(|(w, _)| *w == before).unwrap_or(0);
            all.insert(at, (what, wide));
            name = width - used(&all);
        }
    }
    let left = spare(&all);
    if left > 20 {
        all.push((What::Reason, left - 1));
        name = 24;
    }
    all.insert(0, (What::Name, name));
    all
}

/// The table; only lines that are seen are put into words.
pub fn draw(buf: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let gpus = state.rows.iter().any(|r| !r.resources.gpu.is_empty());
    let columns = columns(area.width, gpus);
    let head = theme.style(Tone::Strong).add_modifier(Modifier::REVERSED);
    put(buf, area, 0, &" ".repeat(usize::from(area.width)), head);
    let mut x = area.x;
    for (what, wide) in &columns {
        let mark = match what.sort() {
            Some(sort) if sort == state.sort && state.reverse => "^",
            Some(sort) if sort == state.sort => "v",
            _ => "",
        };
        let text = cell(&format!("{}{mark}", what.head()), *wide, what.right());
        put_at(buf, area, x, 0, &text, head);
        x += wide + 1;
    }
    let page = usize::from(area.height.saturating_sub(1));
    state.page = page;
    let cursor = state.cursor();
    let last = state.order.len().saturating_sub(page);
    state.top = state
        .top
        .min(cursor)
        .min(last)
        .max((cursor + 1).saturating_sub(page));
    if state.order.is_empty() {
        let text = match (&state.link, state.filter.is_empty()) {
            (Link::Up, true) => "no module is loaded: `lair load FILE`, `lair up -d FILE`",
            (Link::Up, false) => "no module fits the filter: Esc shows all",
            _ => "",
        };
        put(buf, area, 1, text, theme.style(Tone::Dim));
    }
    let seen: Vec<usize> = state
        .order
        .iter()
        .skip(state.top)
        .take(page)
        .copied()
        .collect();
    for (line, at) in (1..).zip(seen) {
        one(buf, rows(area, line, 1), &columns, state, at, theme);
    }
}

fn one(
    buf: &mut Buffer,
    area: Rect,
    columns: &[(What, u16)],
    state: &State,
    at: usize,
    theme: &Theme,
) {
    let row = &state.rows[at];
    let chosen = state.selected.as_deref() == Some(row.name.as_str());
    let old = !matches!(state.link, Link::Up);
    let empty = Trend::default();
    let trend = state.trends.get(&row.name).unwrap_or(&empty);
    let mut x = area.x;
    if chosen {
        let line = " ".repeat(usize::from(area.width));
        put(
            buf,
            area,
            0,
            &line,
            Style::default().add_modifier(Modifier::REVERSED),
        );
    }
    for (what, wide) in columns {
        let text = words(*what, row, trend, usize::from(*wide), state.now_ms, theme);
        let mut style = match what {
            What::State | What::Health if !old => theme.of_word(&text),
            _ if old => theme.style(Tone::Dim),
            _ => Style::default(),
        };
        if chosen {
            // Reversed colours would be blocks of colour in the bar.
            style = Style::default().add_modifier(Modifier::REVERSED);
        }
        put_at(buf, area, x, 0, &cell(&text, *wide, what.right()), style);
        x += wide + 1;
    }
}

/// Exactly as wide as its column; what is cut ends in a tilde.
fn cell(text: &str, wide: u16, right: bool) -> String {
    let wide = usize::from(wide);
    let count = text.chars().count();
    if count > wide {
        let mut cut: String = text.chars().take(wide.saturating_sub(1)).collect();
        cut.push('~');
        return cut;
    }
    if right {
        format!("{text:>wide$}")
    } else {
        format!("{text:<wide$}")
    }
}

fn words(what: What, row: &Row, trend: &Trend, wide: usize, now: i64, theme: &Theme) -> String {
    let memory = &row.resources.memory;
    match what {
        What::Name => row.name.clone(),
        What::State => row.condition().to_owned(),
        What::Health => health_word(row.health.state).to_owned(),
        What::Run => row.run.to_string(),
        What::Restarts => match next(row, now) {
            Some(next) => format!("{} in {next}", row.restarts.count),
            None => row.restarts.count.to_string(),
        },
        What::Cpu if row.resources.cpu_ms.is_some() => percent(trend.cpu.now()),
        What::Memory => match (memory.current.map(short), memory.limit.map(short)) {
            (Some(now), Some(limit)) => format!("{now}/{limit}"),
            (Some(now), None) => now,
            (None, Some(limit)) => format!("-/{limit}"),
            (None, None) => "-".to_owned(),
        },
        What::Gpu => row.gpu_memory().map_or_else(|| "-".to_owned(), bytes),
        What::CpuTrend => theme.spark(&trend.cpu, wide, None),
        What::MemoryTrend => theme.spark(&trend.memory, wide, memory.limit),
        What::GpuTrend => theme.spark(&trend.gpu, wide, None),
        What::Ports => ports(row),
        What::Age => since(row, now),
        What::Reason => reason(row).unwrap_or_default(),
        What::Cpu => "-".to_owned(),
    }
}

/// Thousandths of a processor as a percentage.
pub fn percent(milli: u64) -> String {
    format!("{}.{}%", milli / 10, milli % 10)
}

/// A size in at most six characters.
fn short(n: u64) -> String {
    let text = bytes(n);
    match text.split_once('.') {
        Some((whole, rest)) if whole.len() > 1 => {
            let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{whole}{unit}")
        }
        _ => text,
    }
}

/// Time to the next restart.
fn next(row: &Row, now: i64) -> Option<String> {
    let at = parse_rfc3339(row.restarts.next_at.as_ref()?)?;
    Some(age(at - now))
}

fn since(row: &Row, now: i64) -> String {
    let at = if row.is_alive() {
        &row.started_at
    } else {
        &row.finished_at
    };
    let at = at.as_ref().and_then(|t| parse_rfc3339(t));
    at.map_or_else(|| "-".to_owned(), |at| age(now - at))
}

fn ports(row: &Row) -> String {
    let all: Vec<String> = row
        .ports
        .iter()
        .map(|p| format!("{}:{}", p.name, p.port))
        .collect();
    if all.is_empty() {
        "-".to_owned()
    } else {
        all.join(",")
    }
}

/// Why it is as it is: its state's reason, else its health's.
fn reason(row: &Row) -> Option<String> {
    match (&row.reason, &row.health.reason) {
        (Some(why), _) if !row.is_alive() => Some(format!("{} [{}]", why.message, why.code)),
        (_, Some(finding)) => Some(finding.clone()),
        (Some(why), None) => Some(format!("{} [{}]", why.message, why.code)),
        (None, None) => None,
    }
}

/// Two lines about the chosen module.
pub fn strip(buf: &mut Buffer, area: Rect, state: &State, theme: &Theme) {
    let Some(row) = state.chosen() else { return };
    let empty = Trend::default();
    let trend = state.trends.get(&row.name).unwrap_or(&empty);
    let mut x = put(buf, area, 0, &row.name, theme.style(Tone::Strong));
    let serves = if row.ready { " ready" } else { "" };
    x = put_at(buf, area, x, 0, serves, theme.style(Tone::Good));
    if let Some(text) = reason(row) {
        put_at(buf, area, x, 0, &format!(": {text}"), Style::default());
    }
    let width = usize::from(area.width).saturating_sub(44).clamp(6, 120) / 3;
    let mut text = format!(
        "CPU {} {}  memory {} {}",
        theme.spark(&trend.cpu, width, None),
        percent(trend.cpu.now()),
        theme.spark(&trend.memory, width, row.resources.memory.limit),
        row.resources
            .memory
            .current
            .map_or_else(|| "-".to_owned(), bytes),
    );
    if !row.resources.gpu.is_empty() {
        let now = row.gpu_memory().map_or_else(|| "unknown".to_owned(), bytes);
        text += &format!("  GPU {} {now}", theme.spark(&trend.gpu, width, None));
    }
    if !row.ports.is_empty() {
        text += &format!("  {}", ports(row));
    }
    put(buf, area, 1, &text, Style::default());
}
