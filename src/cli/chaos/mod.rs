//! `lair chaos`: breaks things in a running lair by a schedule, then checks that every promise was kept.
//!
//! Promises: ends with 0 only if each promise that could be looked at was kept; heals what it broke and stops the
//! modules that it used, so that what is left over is a finding. Never: runs against a lair whose fault gate is closed.

#![allow(
    clippy::disallowed_methods,
    reason = "a schedule and the time of an answer are about real time"
)]

mod books;
mod left;
mod schedule;

use super::args::{Chaos, Global};
use super::error::CliError;
use super::exit::{self, Code};
use super::find;
use super::out::{Out, Table, say};
use super::query;
use crate::client::{CallError, Client};
use books::Finding;
use left::Processes;
use schedule::Step;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// An answer of published truth may take this long.
const ANSWER: Duration = Duration::from_secs(1);
/// What may be left open or used more than before.
const SPARE_FDS: u64 = 16;
const SPARE_KIB: u64 = 64 << 10;
/// The end of all modules may take this long.
const END: Duration = Duration::from_secs(60);

/// What is known of the runtime under test.
struct Ring {
    control: Client,
    events: Receiver<Value>,
    seen: Vec<Value>,
    modules: Vec<String>,
    policies: BTreeMap<String, String>,
    before: BTreeMap<String, u64>,
    processes: Processes,
    slowest: Duration,
    asked: u64,
    refused: BTreeMap<String, u64>,
    broken: Vec<String>,
}

/// `lair chaos`: ends with 1 if a promise was broken.
///
/// # Errors
/// The daemon does not answer, or its fault gate is closed.
pub fn chaos(global: &Global, args: &Chaos) -> Result<Code, CliError> {
    let mut ring = Ring::open(global, args)?;
    let steps = match &args.schedule {
        Some(file) => schedule::read(file)?,
        None => schedule::by_chance(args.seed, &ring.modules, args.time, args.severe),
    };
    let out = query::out(global);
    if args.print {
        let lines = steps.iter().filter_map(|s| serde_json::to_string(s).ok());
        out.text(&lines.fold(String::new(), |text, line| text + &line + "\n"))?;
        return Ok(exit::DONE);
    }
    let (fds, memory) = ring.daemon();
    let label = match &args.schedule {
        Some(file) => format!("chaos {}", file.display()),
        None => format!("chaos seed {}", args.seed),
    };
    say(&format!(
        "{label}: {} steps over {} modules\n",
        steps.len(),
        ring.modules.len()
    ));
    for step in &steps {
        ring.wait(Duration::from_millis(step.after_ms));
        ring.carry_out(step, &label)?;
    }
    let mut findings = ring.heal(&label)?;
    findings.extend(books::of_events(&ring.seen, &ring.policies, &ring.before));
    findings.push(ring.answers());
    findings.push(ring.logs());
    findings.push(ring.bounds(fds, memory));
    report(&out, &label, &steps, &ring, &findings)
}

impl Ring {
    fn open(global: &Global, args: &Chaos) -> Result<Ring, CliError> {
        let mut control = find::daemon(global)?;
        control.set_timeout(Some(END));
        let info: Value = control.get("runtime.info", &json!({}))?;
        let from = info["newest_event"].as_u64().unwrap_or(0) + 1;
        let list: Value = control.get("module.list", &json!({}))?;
        let all = list["modules"].as_array().cloned().unwrap_or_default();
        let wanted = |m: &&Value| {
            args.modules.is_empty() || args.modules.iter().any(|n| m["name"] == n.as_str())
        };
        let used: Vec<&Value> = all.iter().filter(wanted).collect();
        if used.is_empty() {
            return Err(CliError::new("unknown_module", "no module is loaded that could be used")
                .with_help("load some first: `lair load FILE`; numbered output makes the check of the logs possible"));
        }
        let name = |m: &&Value| m["name"].as_str().unwrap_or("").to_owned();
        let up = |m: &&&Value| matches!(m["state"].as_str(), Some("running" | "stopping"));
        let policy = |m: &&Value| {
            (
                name(m),
                m["restarts"]["policy"].as_str().unwrap_or("").to_owned(),
            )
        };
        let mut processes = Processes::default();
        used.iter().for_each(|m| processes.note(m));
        let ring = Ring {
            events: watch(global, from)?,
            seen: Vec::new(),
            modules: used.iter().map(name).collect(),
            policies: used.iter().map(policy).collect(),
            before: used
                .iter()
                .filter(up)
                .map(|m| (name(m), m["run"].as_u64().unwrap_or(0)))
                .collect(),
            processes,
            slowest: Duration::ZERO,
            asked: 0,
            refused: BTreeMap::new(),
            broken: Vec::new(),
            control,
        };
        Ok(ring)
    }

    /// Takes events in until the time is over.
    fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.seen.push(event),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    self.broken
                        .push("the runtime closed the events' connection".to_owned());
                    // Nothing more comes: what is left of the time is waited for on a channel of our own.
                    let (_keep, silence) = channel::<()>();
                    let _ = silence.recv_timeout(left);
                    return;
                }
            }
        }
    }

    fn carry_out(&mut self, step: &Step, label: &str) -> Result<(), CliError> {
        let (method, params) = step.request(label);
        self.asked += 1;
        match self.control.call(method, &params) {
            Ok(_) => {}
            Err(CallError::Refused(r)) if r.data.code == "injection_disabled" => {
                return Err(CallError::Refused(r).into());
            }
            Err(CallError::Refused(r)) => *self.refused.entry(r.data.code).or_default() += 1,
            Err(e) => {
                self.broken.push(format!("{}: {e}", step.words()));
                return Err(e.into());
            }
        }
        self.look();
        Ok(())
    }

    /// Asks for all modules' status, and how long that takes.
    fn look(&mut self) {
        let begun = Instant::now();
        let list = self.control.get::<Value, _>("module.list", &json!({}));
        self.slowest = self.slowest.max(begun.elapsed());
        self.asked += 1;
        match list {
            Ok(list) => {
                let modules = list["modules"].as_array().cloned().unwrap_or_default();
                // Nobody else's are stopped at the end.
                let ours = |m: &&Value| self.modules.iter().any(|n| m["name"] == n.as_str());
                let ours = modules.iter().filter(ours);
                ours.for_each(|m| self.processes.note(m));
            }
            Err(e) => self.broken.push(format!("module.list: {e}")),
        }
    }

    /// Undoes what is undone by nobody else, and stops everything that was used.
    fn heal(&mut self, label: &str) -> Result<Vec<Finding>, CliError> {
        let names = self.modules.clone();
        for name in &names {
            let params = json!({ "fault": { "resume_child": { "id": name } }, "label": label });
            let _ = self.control.call("fault.inject", &params);
        }
        let begun = Instant::now();
        for name in &names {
            let _ = self.control.call("module.stop", &json!({ "name": name }));
        }
        let mut late = Vec::new();
        for name in &names {
            let left = END.saturating_sub(begun.elapsed()).as_millis().max(1);
            let params = json!({ "name": name, "for": "stopped", "timeout_ms": u64::try_from(left).unwrap_or(1) });
            if let Err(e) = self.control.call("module.wait", &params) {
                late.push(format!("{name}: {e}"));
            }
        }
        let took = begun.elapsed();
        // The last events are on their way.
        let info: Value = self.control.get("runtime.info", &json!({}))?;
        let newest = info["newest_event"].as_u64().unwrap_or(0);
        let patience = Instant::now() + END;
        while self
            .seen
            .last()
            .and_then(|e| e["seq"].as_u64())
            .unwrap_or(0)
            < newest
            && Instant::now() < patience
        {
            self.wait(Duration::from_millis(20));
        }
        Ok(vec![
            Finding {
                promise: "I1",
                about: "nothing is left of the modules",
                seen: format!("{} processes", self.processes.count()),
                broken: self.processes.left(),
            },
            Finding {
                promise: "I12",
                about: "all modules stop within a minute",
                seen: format!("{:.1} s", took.as_secs_f64()),
                broken: late,
            },
        ])
    }

    fn answers(&self) -> Finding {
        let mut broken = self.broken.clone();
        if self.slowest > ANSWER {
            broken.push(format!("an answer took {:?}", self.slowest));
        }
        Finding {
            promise: "I5 I10",
            about: "each request has its answer, status within a second",
            seen: format!(
                "{} requests, the slowest status {:?}",
                self.asked, self.slowest
            ),
            broken,
        }
    }

    /// Reads numbered output back.
    fn logs(&mut self) -> Finding {
        let (mut counted, mut broken) = (0, Vec::new());
        let runs: BTreeSet<(String, u64)> = self
            .seen
            .iter()
            .filter(|e| e["type"] == "module.running")
            .filter_map(|e| Some((e["name"].as_str()?.to_owned(), e["run"].as_u64()?)))
            .collect();
        for (name, run) in runs {
            let lines = self.lines(&name, run, "stdout");
            let dropped: u64 = self
                .lines(&name, run, "lair")
                .iter()
                .filter_map(|l| dropped_lines(l))
                .sum();
            let (numbers, wrong) = books::of_lines(&name, run, &lines, dropped);
            counted += numbers;
            broken.extend(wrong);
        }
        let seen = match counted {
            0 => "no module printed numbered lines".to_owned(),
            n => format!("{n} numbered lines"),
        };
        Finding {
            promise: "I7",
            about: "no line is lost untold or doubled",
            seen,
            broken,
        }
    }

    fn lines(&mut self, name: &str, run: u64, stream: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut params = json!({ "name": name, "run": run, "stream": stream });
        while let Ok(page) = self.control.get::<Value, _>("logs.read", &params) {
            let more = page["lines"].as_array().cloned().unwrap_or_default();
            lines.extend(
                more.iter()
                    .filter_map(|l| l["text"].as_str().map(str::to_owned)),
            );
            if page["more"] != true {
                break;
            }
            params["from"] = page["next"].clone();
        }
        lines
    }

    /// Descriptors and KiB of memory of the daemon, where they can be seen.
    fn daemon(&mut self) -> (Option<u64>, Option<u64>) {
        let info = self.control.get::<Value, _>("runtime.info", &json!({}));
        let Some(pid) = info.ok().and_then(|i| i["pid"].as_i64()) else {
            return (None, None);
        };
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()
            .map(|d| d.count() as u64);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        (
            fds,
            rss.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()),
        )
    }

    fn bounds(&mut self, fds: Option<u64>, memory: Option<u64>) -> Finding {
        let (fds_now, memory_now) = self.daemon();
        let mut broken = Vec::new();
        if let (Some(before), Some(now)) = (fds, fds_now)
            && now > before + SPARE_FDS
        {
            broken.push(format!("{before} descriptors became {now}"));
        }
        if let (Some(before), Some(now)) = (memory, memory_now)
            && now > before + SPARE_KIB
        {
            broken.push(format!("{before} KiB became {now} KiB"));
        }
        let show = |n: Option<u64>| n.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        Finding {
            promise: "I9",
            about: "descriptors and memory of the daemon are bounded",
            seen: format!("{} descriptors, {} KiB", show(fds_now), show(memory_now)),
            broken,
        }
    }
}

/// Reads events on a connection of their own.
fn watch(global: &Global, from: u64) -> Result<Receiver<Value>, CliError> {
    let mut client = find::daemon(global)?;
    client.call("events.subscribe", &json!({ "from_seq": from }))?;
    let (to, events) = channel();
    std::thread::Builder::new()
        .name("lair-chaos-events".into())
        .spawn(move || {
            while let Ok(text) = client.next_note() {
                let note: Value = serde_json::from_str(&text).unwrap_or_default();
                if to.send(note["event"].clone()).is_err() {
                    return;
                }
            }
        })
        .map_err(|e| CliError::new("internal", format!("cannot start a thread: {e}")))?;
    Ok(events)
}

/// `dropped bytes=17 lines=2 since=...`, as lair remarks it.
fn dropped_lines(remark: &str) -> Option<u64> {
    let rest = remark.strip_prefix("dropped ")?;
    // A line whose end was lost may have lost its beginning before: one more than was counted.
    let lines = rest.split(' ').find_map(|w| w.strip_prefix("lines="))?;
    lines.parse::<u64>().ok().map(|n| n + 1)
}

fn report(
    out: &Out,
    label: &str,
    steps: &[Step],
    ring: &Ring,
    findings: &[Finding],
) -> Result<Code, CliError> {
    let broken: usize = findings.iter().map(|f| f.broken.len()).sum();
    if out.structured() {
        out.value(&json!({
            "label": label, "steps": steps.len(), "modules": ring.modules, "events": ring.seen.len(),
            "refused": ring.refused, "broken": broken, "findings": findings,
        }))?;
    } else {
        let mut table = Table::new(&["PROMISE", "", "SEEN", "RESULT"]);
        for f in findings {
            let result = if f.broken.is_empty() {
                "kept".to_owned()
            } else {
                format!("broken {} times", f.broken.len())
            };
            table.row(vec![
                f.promise.into(),
                f.about.into(),
                f.seen.clone(),
                result,
            ]);
        }
        let mut text = table.render(&out.style);
        for line in findings.iter().flat_map(|f| {
            f.broken
                .iter()
                .take(10)
                .map(move |b| format!("{}: {b}\n", f.promise))
        }) {
            text.push_str(&line);
        }
        out.text(&text)?;
    }
    Ok(if broken == 0 {
        exit::DONE
    } else {
        exit::FAILED
    })
}
