//! A module's page: what `lair status` says, why it runs in its mode, what its probes said, and its processes.

use super::feed::ask;
use crate::cli::style::Style;
use crate::cli::time::{age, bytes, now_ms, parse_rfc3339};
use crate::cli::view;
use crate::client::{CallError, Client};
use crate::resources::{ModuleProcess, ProcessReport};
use lair_actors::dossier::Dossier;
use lair_actors::status::ModuleStatus;
use serde_json::json;
use std::collections::BTreeMap;

/// Findings of probes on the page.
const FINDINGS: usize = 6;
/// Steps from the leader that are drawn.
const DEEPEST: usize = 20;

/// The page's lines.
///
/// # Errors
/// The connection broke.
pub fn page(client: &mut Client, name: &str) -> Result<Vec<String>, CallError> {
    let one = json!({ "name": name });
    let [status, explain, tree, why] = ask(
        client,
        [
            ("module.status", one.clone()),
            ("module.explain", one.clone()),
            ("module.processes", one),
            ("module.why", json!({ "name": name, "lines": 1 })),
        ],
    )?;
    let Some(status) = status.and_then(|t| serde_json::from_str::<ModuleStatus>(&t).ok()) else {
        return Ok(vec![format!("{name} is not there")]);
    };
    let text = view::page(&status, &[], &Style::default());
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.push(probe_line(&status));
    let dossier = why.and_then(|t| serde_json::from_str::<Dossier>(&t).ok());
    lines.extend(dossier.iter().flat_map(findings));
    lines.push(String::new());
    lines.push("Why this mode".to_owned());
    let steps: Vec<String> = explain
        .and_then(|t| serde_json::from_str::<Explained>(&t).ok())
        .map(|e| e.lines)
        .unwrap_or_default();
    lines.extend(steps.into_iter().map(|step| format!("  {step}")));
    lines.push(String::new());
    lines.push("Processes".to_owned());
    match tree.and_then(|t| serde_json::from_str::<ProcessReport>(&t).ok()) {
        Some(report) => lines.extend(processes(&report)),
        None => lines.push("  unknown".to_owned()),
    }
    Ok(lines)
}

fn probe_line(status: &ModuleStatus) -> String {
    let health = &status.health;
    let ago = |at: &Option<String>| {
        let at = at.as_ref().and_then(|t| parse_rfc3339(t));
        at.map_or_else(|| "never".to_owned(), |at| age(now_ms() - at) + " ago")
    };
    let word = health.probe.and_then(|p| serde_json::to_value(p).ok());
    match word.as_ref().and_then(|w| w.as_str()) {
        Some(word) => format!(
            "{:>10}: {word}, looked at {}, so since {}",
            "Probe",
            ago(&health.checked),
            ago(&health.since)
        ),
        None => format!("{:>10}: none has spoken", "Probe"),
    }
}

fn findings(dossier: &Dossier) -> Vec<String> {
    let from = dossier.probes.len().saturating_sub(FINDINGS);
    let line = |m: &lair_actors::dossier::Moment| {
        format!(
            "{:>10}  {} {}",
            "",
            m.at.get(11..23).unwrap_or(&m.at),
            m.what
        )
    };
    dossier.probes[from..].iter().map(line).collect()
}

#[derive(serde::Deserialize)]
struct Explained {
    lines: Vec<String>,
}

/// The tree, children below their parents.
fn processes(report: &ProcessReport) -> Vec<String> {
    if report.processes.is_empty() {
        return vec!["  none".to_owned()];
    }
    let mut below: BTreeMap<i32, Vec<&ModuleProcess>> = BTreeMap::new();
    let known = |pid: i32| report.processes.iter().any(|p| p.pid == pid);
    for process in &report.processes {
        let parent = Some(process.parent).filter(|p| known(*p)).unwrap_or(0);
        below.entry(parent).or_default().push(process);
    }
    let mut lines = vec![format!(
        "  {:>8} {:>9} {:>9} {:>4}  NAME",
        "PID", "MEMORY", "CPU", "THR"
    )];
    draw(&below, 0, 0, &mut lines);
    let io = |n: Option<u64>| n.map_or_else(|| "unknown".to_owned(), bytes);
    lines.push(format!(
        "  read {} from storage, written {}",
        io(report.read_bytes),
        io(report.write_bytes)
    ));
    lines
}

fn draw(
    below: &BTreeMap<i32, Vec<&ModuleProcess>>,
    parent: i32,
    depth: usize,
    lines: &mut Vec<String>,
) {
    if depth > DEEPEST {
        return;
    }
    for process in below.get(&parent).into_iter().flatten() {
        let cpu = format!(
            "{}.{:02}s",
            process.cpu_ms / 1000,
            process.cpu_ms % 1000 / 10
        );
        lines.push(format!(
            "  {:>8} {:>9} {cpu:>9} {:>4}  {}{}",
            process.pid,
            bytes(process.memory),
            process.threads,
            "  ".repeat(depth),
            process.name
        ));
        draw(below, process.pid, depth + 1, lines);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn children_stand_below_their_parents_and_strangers_parents_are_roots() {
        let process = |pid, parent| ModuleProcess {
            pid,
            parent,
            name: format!("p{pid}"),
            memory: 1024,
            cpu_ms: 1500,
            threads: 1,
        };
        let report = ProcessReport {
            name: "x".into(),
            run: 1,
            read_bytes: Some(2048),
            write_bytes: None,
            processes: vec![
                process(10, 1),
                process(11, 10),
                process(12, 11),
                process(20, 7),
            ],
        };
        let lines = processes(&report).join("\n");
        for wanted in [
            "  p10",
            "    p11",
            "      p12",
            "  p20",
            "1.50s",
            "read 2KiB",
            "written unknown",
        ] {
            assert!(lines.contains(wanted), "{wanted}: {lines}");
        }
    }
}
