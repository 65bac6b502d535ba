//! Verbs about what the machine has to give: plan, gpus.

use super::args::{Format, Global, Plan};
use super::error::CliError;
use super::exit::{self, Code};
use super::files::embedded;
use super::find;
use super::out::Table;
use super::query;
use super::style::{Style, Tone};
use super::time::bytes;
use crate::client::{CallError, Client};
use crate::resources::{Card, GpuReport, ModulePlan, PlanReport};
use crate::{LoadOptions, ManifestSource};
use lair_manifests::launch::Mode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Write;

/// Asks the daemon; `None`: there is none, and none was named.
fn daemon<T: DeserializeOwned>(
    global: &Global,
    method: &str,
    params: &Value,
) -> Result<Option<T>, CliError> {
    match Client::connect(&find::socket(global)?) {
        Ok(mut client) => Ok(Some(client.get(method, params)?)),
        Err(CallError::Unreachable { .. }) if global.socket.is_none() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// `lair gpus`
///
/// # Errors
/// Nobody could look.
pub fn gpus(global: &Global) -> Result<Code, CliError> {
    let report: GpuReport = match daemon(global, "runtime.gpus", &json!({}))? {
        Some(report) => report,
        None => embedded(global, "gpus", async |handle| Ok(handle.gpus().await?))?,
    };
    let out = query::out(global);
    if out.structured() {
        out.value(&serde_json::to_value(&report).unwrap_or_default())?;
    } else if out.format == Format::Name {
        let names = report.gpus.iter().filter_map(|gpu| gpu.uuid.as_ref());
        out.text(&names.fold(String::new(), |text, uuid| text + uuid + "\n"))?;
    } else {
        out.text(&page(&report, &out.style))?;
    }
    Ok(exit::DONE)
}

fn page(report: &GpuReport, style: &Style) -> String {
    if let Some(why) = &report.reason {
        return format!("no GPU can be seen: {why}\n");
    }
    if report.gpus.is_empty() {
        return "the driver answers, and knows no GPU\n".to_owned();
    }
    let mut cards = Table::new(&[
        "GPU", "NAME", "UUID", "USED", "TOTAL", "ROOM", "BUSY", "MODULES",
    ]);
    let mut processes = Table::new(&["GPU", "PID", "PROCESS", "OWNER", "MEM"]);
    let mut some = false;
    for card in &report.gpus {
        cards.row(row(card));
        for process in &card.processes {
            some = true;
            let owner = match (&process.module, process.run) {
                (Some(module), Some(run)) if process.owner == "left_behind" => {
                    format!("left behind by {module} (run {run})")
                }
                (Some(module), _) => module.clone(),
                (None, _) => "stranger".to_owned(),
            };
            processes.row(vec![
                card.index.to_string(),
                process.pid.to_string(),
                process.name.clone().unwrap_or_else(|| "gone".into()),
                owner,
                known(process.memory),
            ]);
        }
    }
    let mut text = cards.render(style);
    if some {
        text.push('\n');
        text += &processes.render(style);
    }
    text
}

fn known(size: Option<u64>) -> String {
    size.map_or_else(|| "unknown".into(), bytes)
}

fn row(card: &Card) -> Vec<String> {
    let share = |of: &crate::resources::Share| match of.vram {
        Some(vram) => format!("{} {}", of.module, bytes(vram)),
        None => format!("{} alone", of.module),
    };
    let shares: Vec<String> = card.modules.iter().map(share).collect();
    let room = card
        .memory
        .room
        .map(|room| u64::try_from(room).unwrap_or(0));
    let busy = card.busy_percent;
    let name = match &card.fault {
        Some(fault) => format!("can't be used: {fault}"),
        None => card.name.clone().unwrap_or_else(|| "unknown".into()),
    };
    vec![
        card.index.to_string(),
        name,
        card.uuid.clone().unwrap_or_else(|| "unknown".into()),
        known(card.memory.used),
        known(card.memory.total),
        known(room),
        busy.map_or_else(|| "unknown".into(), |percent| format!("{percent}%")),
        if shares.is_empty() {
            "-".into()
        } else {
            shares.join(", ")
        },
    ]
}

/// `lair plan`: 8 when something would change, 5 when it could not.
///
/// # Errors
/// The file can't be prepared.
pub fn plan(global: &Global, args: &Plan) -> Result<Code, CliError> {
    let mode = args.mode.map(Mode::from);
    let file = find::absolute(&args.file);
    let mut params = json!({ "path": file });
    if let Some(mode) = mode {
        params["preference"] = mode.as_str().into();
    }
    let report: PlanReport = match daemon(global, "runtime.plan", &params)? {
        Some(report) => report,
        None => embedded(global, "plan", async |handle| {
            let options = LoadOptions {
                preference: mode,
                ..LoadOptions::default()
            };
            let source = ManifestSource::File(file.clone());
            Ok(handle.plan(source, options).await?)
        })?,
    };
    let out = query::out(global);
    if out.structured() {
        out.value(&serde_json::to_value(&report).unwrap_or_default())?;
    } else {
        out.text(&plan_page(&report, out.format, &out.style))?;
    }
    Ok(match (report.fits, report.pending) {
        (false, _) => exit::REFUSED,
        (true, true) => exit::PENDING,
        (true, false) => exit::DONE,
    })
}

fn plan_page(report: &PlanReport, format: Format, style: &Style) -> String {
    let mut text = String::new();
    for module in &report.modules {
        if format == Format::Name {
            let _ = writeln!(text, "{}", module.name);
        } else {
            module_page(module, &mut text, style);
        }
    }
    if format == Format::Name {
        return text;
    }
    for sum in &report.sums {
        let _ = writeln!(text, "{}", style.paint(Tone::Strong, &sum.what));
        let _ = writeln!(text, "  before: {}", sum.before.text);
        let _ = writeln!(text, "   after: {}", sum.after.text);
    }
    text
}

fn module_page(m: &ModulePlan, text: &mut String, style: &Style) {
    let change = match m.change.as_str() {
        "none" => "nothing changes: it runs so already",
        "start" => "would be started",
        "load" => "would be loaded and started",
        "replace" => "would be replaced and started",
        "update" => "would take it while it runs",
        _ => "would need a new run: lair restart",
    };
    let _ = writeln!(text, "{} {change}", style.paint(Tone::Strong, &m.name));
    let mut row = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:>10}: {value}");
    };
    if m.change == "update" || m.change == "restart" {
        for (when, parts) in [("at once", &m.live), ("next start", &m.next_start)] {
            if !parts.is_empty() {
                row(when, &parts.join(" "));
            }
        }
    }
    row("mode", &m.mode);
    for line in &m.explanation {
        row("", line);
    }
    for device in &m.devices {
        let how = match device.vram {
            Some(vram) => format!("{}, shared", bytes(vram)),
            None => "alone".into(),
        };
        row("GPU", &format!("{} ({how})", device.uuid));
    }
    for port in &m.ports {
        let held = match &port.held_by {
            Some(holder) => format!(" (taken by {holder})"),
            None => String::new(),
        };
        row(
            "port",
            &format!("{} {}:{}{held}", port.name, port.address, port.port),
        );
    }
    row("limits", &limits(m));
    for hint in &m.hints {
        row("so far", hint);
    }
    if let Some(refused) = &m.refused {
        row(
            "refused",
            &format!("{} [{}]", refused.message, refused.code),
        );
        if let Some(help) = &refused.help {
            row("help", help);
        }
    }
}

fn limits(m: &ModulePlan) -> String {
    let l = &m.limits;
    let all = [
        l.memory.map(|size| format!("memory {}", bytes(size))),
        l.cpu_milli
            .map(|milli| format!("{}.{:03} CPUs", milli / 1000, milli % 1000)),
        l.pids.map(|n| format!("{n} processes")),
        l.nofile.map(|n| format!("{n} descriptors")),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() {
        "none".into()
    } else {
        all.join(", ")
    }
}
