//! Modules as people read them: the table of `ps` and the page of `status`.

use super::exit::{self, Code};
use super::out::Table;
use super::style::{Style, Tone, tone};
use super::time::{age, bytes, now_ms, parse_rfc3339, span};
use crate::bridge::logline::LogLine;
use lair_actors::confinement::Confinement;
use lair_actors::footprint::{Footprint, Spread, runs_word};
use lair_actors::status::{Exit, ModuleStatus};
use lair_actors::view::HealthWord;
use std::fmt::Write;

/// The word of a health verdict.
#[must_use]
pub fn health_word(health: HealthWord) -> &'static str {
    match health {
        HealthWord::Healthy => "healthy",
        HealthWord::Unhealthy => "unhealthy",
        HealthWord::Unknown => "unknown",
    }
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

fn since(time: Option<&String>, now: i64) -> String {
    let at = time.and_then(|t| parse_rfc3339(t));
    at.map_or_else(|| "-".into(), |at| age(now - at))
}

fn cpu(ms: Option<u64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 60_000 => format!("{}.{:02}s", ms / 1000, ms % 1000 / 10),
        Some(ms) => age(i64::try_from(ms).unwrap_or(i64::MAX)),
    }
}

fn memory(m: &ModuleStatus) -> String {
    let now = m.resources.memory.current.map(bytes);
    match (now, m.resources.memory.limit.map(bytes)) {
        (Some(now), Some(limit)) => format!("{now}/{limit}"),
        (Some(now), None) => now,
        (None, Some(limit)) => format!("-/{limit}"),
        (None, None) => "-".into(),
    }
}

fn ports(m: &ModuleStatus) -> String {
    let all: Vec<String> = m
        .ports
        .iter()
        .map(|p| format!("{}:{}", p.name, p.port))
        .collect();
    dash(all.join(","))
}

/// How a run ended, in words.
#[must_use]
pub fn exit_words(exit: &Exit) -> String {
    let mut text = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by {}", crate::signals::name(signal)),
        (None, None) => "nobody could tell how".into(),
    };
    if exit.oom == Some(true) {
        text.push_str(", out of memory");
    }
    if exit.killed_after_grace {
        text.push_str(", killed after its grace period");
    }
    text
}

/// Whether a limit holds.
fn held(enforced: bool, by: Option<&str>) -> String {
    match (enforced, by) {
        (_, None) => String::new(),
        (true, Some(by)) => format!(" (held by {by})"),
        (false, Some(why)) => format!(" (not enforced: {why})"),
    }
}

/// Its state, or what it is held in meanwhile.
fn condition(m: &ModuleStatus) -> &str {
    if m.frozen {
        "frozen"
    } else if m.parked.is_some() {
        "parked"
    } else {
        &m.state
    }
}

/// The table of `ps`.
#[must_use]
pub fn ps(modules: &[ModuleStatus], wide: bool, style: &Style) -> String {
    let mut head = vec![
        "NAME", "MODE", "STATE", "HEALTH", "READY", "RESTARTS", "CPU", "MEM", "PORTS", "AGE",
    ];
    if wide {
        head.extend(["PID", "RUN", "BACKEND", "VERSION", "REASON"]);
    }
    let mut table = Table::new(&head);
    let now = now_ms();
    for m in modules {
        let alive = matches!(m.state.as_str(), "running" | "stopping");
        let mut row = vec![
            m.name.clone(),
            m.mode.clone(),
            condition(m).to_owned(),
            health_word(m.health.state).to_owned(),
            if m.ready { "yes" } else { "no" }.to_owned(),
            m.restarts.count.to_string(),
            cpu(m.resources.cpu_ms),
            memory(m),
            ports(m),
            since(
                if alive {
                    m.started_at.as_ref()
                } else {
                    m.finished_at.as_ref()
                },
                now,
            ),
        ];
        if wide {
            let id = m.container.as_ref().map(|c| c.chars().take(12).collect());
            row.extend([
                m.pid
                    .map(|p| p.to_string())
                    .or(id)
                    .unwrap_or_else(|| "-".into()),
                m.run.to_string(),
                m.backend.clone(),
                m.version.clone(),
                m.reason
                    .as_ref()
                    .map_or_else(|| "-".into(), |r| r.code.clone()),
            ]);
        }
        table.row(row);
    }
    table.render(style)
}

/// The exit code of `status`.
#[must_use]
pub fn status_code(m: &ModuleStatus) -> Code {
    match m.state.as_str() {
        "running" if m.ready => exit::DONE,
        "stopped" | "failed" => exit::NOT_RUNNING,
        _ => exit::NOT_YET,
    }
}

/// The page of `status`.
#[must_use]
pub fn page(m: &ModuleStatus, lines: &[LogLine], style: &Style) -> String {
    let now = now_ms();
    let paint = |word: &str| tone(word).map_or_else(|| word.to_owned(), |t| style.paint(t, word));
    let mut text = format!(
        "{} {} ({})\n",
        style.paint(Tone::Strong, &m.name),
        m.version,
        m.mode
    );
    let mut row = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:>10}: {value}");
    };
    verdict(m, &mut row, now, &paint);
    facts(m, &mut row);
    if !lines.is_empty() {
        text.push('\n');
        for line in lines {
            let at = line
                .at
                .as_deref()
                .map_or("", |t| t.get(11..23).unwrap_or(t));
            let _ = writeln!(
                text,
                "{} {} {}",
                style.paint(Tone::Dim, at),
                line.stream,
                line.text
            );
        }
    }
    text
}

/// State, reason, health, last exit.
fn verdict(
    m: &ModuleStatus,
    row: &mut impl FnMut(&str, &str),
    now: i64,
    paint: &impl Fn(&str) -> String,
) {
    let times = if m.state == "running" {
        m.started_at.as_ref()
    } else {
        m.finished_at.as_ref()
    };
    let when = times.map_or_else(String::new, |t| {
        format!(" since {t} ({} ago)", since(Some(t), now))
    });
    let ready = match (m.frozen, m.ready) {
        (true, _) => ", frozen",
        (false, true) => ", ready",
        (false, false) => "",
    };
    row(
        "State",
        &format!("{}{ready}{when}, run {}", paint(&m.state), m.run),
    );
    if let Some(parked) = &m.parked {
        let at = &parked.since;
        let ago = since(Some(at), now);
        row("Parked", &format!("since {at} ({ago} ago)"));
    }
    if let Some(reason) = &m.reason {
        row("Reason", &format!("{} [{}]", reason.message, reason.code));
        for line in &reason.evidence {
            row("Evidence", line);
        }
        if let Some(next) = &reason.next_step {
            row("Next step", next);
        }
    }
    if let Some(group) = &m.group {
        let why = group.reason.as_ref().map(|r| format!(": {r}"));
        let why = why.unwrap_or_default();
        row(
            "Group",
            &format!("{} ({}), {}{why}", group.name, group.strategy, group.state),
        );
    }
    let probe = m
        .health
        .reason
        .as_ref()
        .map_or_else(String::new, |r| format!(": {r}"));
    row(
        "Health",
        &format!("{}{probe}", paint(health_word(m.health.state))),
    );
    if let Some(exit) = &m.exit {
        let at = exit
            .at
            .as_ref()
            .map_or_else(String::new, |t| format!(" at {t}"));
        row(
            "Last exit",
            &format!("{}{at}, run {}", exit_words(exit), exit.run),
        );
    }
}

/// `memory 6GiB (5.9GiB to 6.1GiB), ready after 41.0s (40.2s to 44.0s), 5 runs`
fn usually(footprint: &Footprint) -> Option<String> {
    let of = |spread: Option<Spread>, show: fn(u64) -> String| {
        let spread = spread?;
        let (usual, least, most) = (show(spread.usual), show(spread.least), show(spread.most));
        Some(match least == most {
            true => usual,
            false => format!("{usual} ({least} to {most})"),
        })
    };
    let all = [
        of(footprint.memory, bytes).map(|w| format!("memory {w}")),
        of(footprint.gpu_memory, bytes).map(|w| format!("GPU memory {w}")),
        of(footprint.ready_ms, span).map(|w| format!("ready after {w}")),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    let runs = runs_word(footprint.runs);
    (!all.is_empty()).then(|| format!("{}, {runs}", all.join(", ")))
}

fn facts(m: &ModuleStatus, row: &mut impl FnMut(&str, &str)) {
    if let Some(pid) = m.pid {
        row(
            "Process",
            &format!("{pid}, {} in its tree", m.resources.processes.unwrap_or(1)),
        );
    }
    if let Some(container) = &m.container {
        row("Container", container);
    }
    let next = m
        .restarts
        .next_at
        .as_ref()
        .map_or_else(String::new, |t| format!(", next at {t}"));
    row(
        "Restarts",
        &format!("{}, policy {}{next}", m.restarts.count, m.restarts.policy),
    );
    let r = &m.resources;
    let peak = r.memory.peak.map(bytes);
    let peak = peak.map_or_else(String::new, |p| format!(", at most {p} so far"));
    let by = held(r.memory.enforced, r.memory.by.as_deref());
    row("Memory", &format!("{}{peak}{by}", memory(m)));
    let share = r
        .cpus
        .limit
        .map_or_else(String::new, |n| format!(", of {n} CPUs"));
    let by = held(r.cpus.enforced, r.cpus.by.as_deref());
    row("CPU", &format!("{}{share}{by}", cpu(r.cpu_ms)));
    if let (Some(read), Some(written)) = (r.read_bytes, r.written_bytes) {
        row(
            "Disk",
            &format!("{} read, {} written", bytes(read), bytes(written)),
        );
    }
    if let Some(limit) = r.pids.limit {
        let now = r.pids.current.map_or_else(|| "-".into(), |n| n.to_string());
        let by = held(r.pids.enforced, r.pids.by.as_deref());
        row("Tasks", &format!("{now}/{limit}{by}"));
    }
    if let Some(usual) = m.footprint.as_deref().and_then(usually) {
        row("Usually", &usual);
    }
    for gpu in &m.resources.gpu {
        let has = match (gpu.memory, gpu.in_use) {
            (Some(memory), _) => bytes(memory),
            (None, Some(false)) => "not in use".into(),
            (None, _) => "unknown".into(),
        };
        let of = gpu
            .vram
            .map_or_else(|| " (alone)".into(), |v| format!("/{}", bytes(v)));
        row("GPU", &format!("{} {has}{of}", gpu.uuid));
    }
    if !m.ports.is_empty() {
        let all: Vec<String> = m
            .ports
            .iter()
            .map(|p| format!("{} {}:{}", p.name, p.address, p.port))
            .collect();
        row("Ports", &format!("{} ({})", all.join(", "), m.exposure));
    }
    for socket in &m.exposed {
        row("Exposed", &format!("{socket}, which it did not declare"));
    }
    if !m.engine.is_empty() {
        row("Engine", &in_force(m));
    }
    if let Some(held) = &m.confinement {
        row("Confined", &confined(held));
    }
    let lost = if m.logs.dropped > 0 {
        format!(", {} lost", bytes(m.logs.dropped))
    } else {
        String::new()
    };
    let file = m.logs.current.as_ref().unwrap_or(&m.logs.dir);
    row("Logs", &format!("{file} ({}{lost})", bytes(m.logs.bytes)));
}

/// What an engine says of a module's container, in one line.
fn in_force(m: &ModuleStatus) -> String {
    let each = |(what, told): (&String, &String)| format!("{what} {told}");
    m.engine.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// What holds a module, in one line.
fn confined(held: &Confinement) -> String {
    let mut words = vec![format!("uid {}", held.uid)];
    if held.no_new_privs {
        words.push("no new privileges".to_owned());
    }
    words.push(match held.capabilities.as_slice() {
        [] => "no capabilities".to_owned(),
        some => format!("capabilities {}", some.join(" ")),
    });
    if let Some(sandbox) = &held.sandbox {
        let whole = if sandbox.complete {
            ""
        } else {
            ", not all of it"
        };
        words.push(format!("sandbox: network {}{whole}", sandbox.network));
    }
    words.join(", ")
}
