//! Putting a dossier together from published truth: a snapshot, the kept notices, the log files.

use super::rules::{Cause, Pack, Seen, cut, user_packs};
use super::veil::Veil;
use super::{Command, Dossier, FORM, Line, ModeChoice, Moment};
use crate::clock::Clock;
use crate::events::EventLog;
use crate::facts::{GpuDesk, Sampler};
use crate::files::read::{LogReader, Query, Runs};
use crate::files::{LINE_MAX, StreamName};
use crate::footprint::Footprints;
use crate::status::{
    Exit, ModuleStatus, Reason, Renderer, cause_word, errno_name, identity_words, rfc3339, word,
};
use crate::view::View;
use lair_manifests::launch::{Launch, LogFormat};
use lair_supervision::{
    DownReason, ExitEvidence, ExitStatus, Notice, NoticeKind, Origin, StartFault, Tri,
};
use std::path::Path;
use std::sync::Arc;

/// Changes of health that are kept.
pub const PROBES: usize = 32;
/// Events that are kept.
pub const EVENTS: usize = 64;
/// Lines of each stream that are kept.
pub const LINES: usize = 40;
/// Records that are read back for each line that is kept: the other stream's may lie between.
const RECORDS: usize = 10;
/// Characters of a line that are kept.
const WIDTH: usize = 1000;

/// Where a dossier's parts are found.
#[derive(Clone)]
pub struct Composer<'a> {
    /// Time.
    pub clock: &'a dyn Clock,
    /// What trees use.
    pub sampler: &'a Sampler,
    /// What is on the GPUs.
    pub gpus: &'a Arc<GpuDesk>,
    /// The kept notices.
    pub events: &'a EventLog,
    /// What modules usually take.
    pub footprints: &'a Footprints,
    /// Folder of all log folders.
    pub log_dir: &'a Path,
    /// Folder of a user's packs of known causes.
    pub rules: &'a Path,
    /// Lines of each stream that are kept: [`LINES`], or more for a bundle.
    pub lines: usize,
}

/// What the notices of one run tell.
#[derive(Default)]
struct Story {
    started_ms: Option<u64>,
    finished_ms: Option<u64>,
    exit: Option<(ExitStatus, ExitEvidence)>,
    fault: Option<StartFault>,
    down: Option<DownReason>,
    asked: bool,
    killed: bool,
    backoff: bool,
    timeline: Vec<Moment>,
    probes: Vec<Moment>,
    origin: Option<Origin>,
}

impl Composer<'_> {
    /// The dossier of run `run`. `before` is a snapshot from while it lived (or of now), `now` the newest one, if that
    /// is of the same run still.
    #[must_use]
    pub fn compose(&self, run: u64, before: &View, now: Option<&View>) -> Dossier {
        let veil = veil(before);
        let story = self.story(before, run, &veil);
        let renderer = Renderer {
            clock: self.clock,
            sampler: self.sampler,
            gpus: self.gpus,
            footprints: self.footprints,
            log_dir: self.log_dir,
        };
        let status = renderer.status(now.unwrap_or(before));
        let exit = exit(run, &story, now.is_some(), &status);
        let failed = failed(&story, &status, exit.as_ref(), before, now.is_some());
        let mut notes = Vec::new();
        let lines = self.last_lines(before, run, &mut notes);
        let reason = now
            .and(status.reason.clone())
            .or_else(|| ended_reason(&story, before));
        let cause = if failed {
            self.cause(&story, &lines, &mut notes)
        } else {
            None
        };
        let cause = cause.map(|c| Cause {
            message: veil.text(&c.message),
            next_step: c.next_step,
            line: c.line.map(|l| veil.text(&l)),
            ..c
        });
        let next_step = cause
            .as_ref()
            .map(|c| c.next_step.clone())
            .or_else(|| reason.as_ref().and_then(|r| r.next_step.clone()));
        let ran_ms = story
            .started_ms
            .zip(story.finished_ms)
            .map(|(from, to)| to.saturating_sub(from));
        let state = now.map_or_else(|| "ended".to_owned(), |_| status.state.clone());
        let ready = self.events.tally().served(&before.plan.spec.id, run);
        let (footprint, series) =
            self.footprints
                .of_run(before, run, ready, now.is_none() || finished(&story));
        let leftover = story.exit.as_ref().map(|(_, e)| e.leftover.clone());
        Dossier {
            format: FORM.to_owned(),
            lair: env!("CARGO_PKG_VERSION").to_owned(),
            name: status.name.clone(),
            version: status.version.clone(),
            run,
            written_at: rfc3339(self.clock.wall_ms()),
            summary: veil.text(&summary(
                &status.name,
                &state,
                exit.as_ref(),
                &story,
                reason.as_ref(),
                ran_ms,
            )),
            state,
            failed,
            reason,
            cause,
            next_step,
            mode: mode(before, &veil),
            command: command(before, &veil),
            identity: before.child.identity().map(identity_words),
            origin: origin_words(story.origin.as_ref().unwrap_or(&before.origin)),
            started_at: story.started_ms.map(rfc3339),
            finished_at: story.finished_ms.map(rfc3339),
            ran_ms,
            exit,
            leftover: leftover.unwrap_or_default(),
            resources: status.resources,
            health: status.health,
            probes: story.probes,
            timeline: story.timeline,
            last_lines: lines
                .into_iter()
                .map(|l| Line {
                    text: veil.text(&l.text),
                    ..l
                })
                .collect(),
            logs: status.logs,
            footprint,
            series,
            plan: veil.value(&serde_json::to_value(&*before.plan).unwrap_or_default()),
            notes,
        }
    }

    fn story(&self, view: &View, run: u64, veil: &Veil) -> Story {
        let mut story = Story {
            started_ms: view.started_ms.filter(|_| view.child.inc == run),
            ..Story::default()
        };
        for notice in self.events.of(&view.plan.spec.id, run) {
            story.hear(&notice, veil);
        }
        keep_last(&mut story.timeline, EVENTS);
        keep_last(&mut story.probes, PROBES);
        story
    }

    /// The last lines of both streams, in the order of the files.
    fn last_lines(&self, view: &View, run: u64, notes: &mut Vec<String>) -> Vec<Line> {
        let name = view.plan.spec.id.as_str();
        let read = || {
            let reader = LogReader::open(self.log_dir, name)?;
            if view.plan.logs.format == LogFormat::Raw {
                let mut all = tail(&reader, run, Some(StreamName::Stdout), self.lines)?;
                all.extend(tail(&reader, run, Some(StreamName::Stderr), self.lines)?);
                return Ok(all);
            }
            tail(&reader, run, None, self.lines * RECORDS)
        };
        match read() {
            Ok(lines) => last_of_each(lines, self.lines),
            Err(e) if std::io::Error::kind(&e) == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => {
                notes.push(format!("its log can't be read: {e}"));
                Vec::new()
            }
        }
    }

    fn cause(&self, story: &Story, lines: &[Line], notes: &mut Vec<String>) -> Option<Cause> {
        let fault = story.fault.as_ref();
        let mut texts: Vec<String> = lines.iter().map(|l| l.text.clone()).collect();
        // What the engine or the system said about the start counts as a line.
        texts.extend(fault.map(|f| f.message.clone()));
        let stage = fault.map(|f| word(&f.stage));
        let errno = fault.and_then(|f| f.errno).map(errno_name);
        let end = story.exit.as_ref();
        let by_us = end.is_some_and(|(_, e)| e.by_us.is_some());
        let seen = Seen {
            lines: &texts,
            oom: end.is_some_and(|(_, e)| e.oom == Tri::Yes),
            signal: end.and_then(|(status, _)| match status {
                ExitStatus::Signal(signal) if !by_us => Some(*signal),
                _ => None,
            }),
            stage: stage.as_deref(),
            errno: errno.as_deref(),
        };
        let (packs, wrong) = user_packs(self.rules);
        notes.extend(wrong);
        packs
            .iter()
            .find_map(|pack| pack.ask(&seen))
            .or_else(|| Pack::built_in().ask(&seen))
    }
}

impl Story {
    fn hear(&mut self, notice: &Arc<Notice>, veil: &Veil) {
        let at = rfc3339(notice.wall_ms);
        self.origin = Some(notice.origin.clone());
        match &notice.kind {
            NoticeKind::Running => self.started_ms = Some(notice.wall_ms),
            NoticeKind::StartFailed { fault } => {
                self.fault = Some(fault.clone());
                self.finished_ms = Some(notice.wall_ms);
            }
            NoticeKind::Exited { status, evidence } => {
                self.exit = Some((*status, evidence.clone()));
                self.finished_ms = Some(notice.wall_ms);
            }
            NoticeKind::Stopping { cause } => {
                use lair_supervision::StopCause::{Requested, Restart, Shutdown};
                self.asked = matches!(cause, Requested | Restart | Shutdown);
            }
            NoticeKind::Killing => self.killed = true,
            NoticeKind::Down { reason } => self.down = Some(reason.clone()),
            NoticeKind::Backoff { .. } => self.backoff = true,
            NoticeKind::Health {
                state,
                reason,
                probe,
            } => {
                let probe = probe.map_or_else(String::new, |p| format!(" ({})", word(&p)));
                let reason = reason
                    .as_ref()
                    .map_or_else(String::new, |r| format!(": {r}"));
                self.probes.push(Moment {
                    at: at.clone(),
                    what: veil.text(&format!("{state}{reason}{probe}")),
                });
            }
            _ => {}
        }
        let mut what = kind_words(&notice.kind);
        if let Origin::Injected { label } = &notice.origin {
            what = format!("{what} [injected: {label}]");
        }
        self.timeline.push(Moment {
            at,
            what: veil.text(&cut(&what, WIDTH)),
        });
    }
}

fn finished(story: &Story) -> bool {
    story.finished_ms.is_some()
}

fn keep_last<T>(all: &mut Vec<T>, most: usize) {
    all.drain(..all.len().saturating_sub(most));
}

fn veil(view: &View) -> Veil {
    match &view.plan.launch {
        Launch::Native(native) => Veil::of(&native.env),
        Launch::Container(container) => Veil::of(&container.env),
    }
}

fn mode(view: &View, veil: &Veil) -> ModeChoice {
    ModeChoice {
        mode: view.plan.mode.as_str().to_owned(),
        backend: view.backend.to_owned(),
        explanation: view.plan.explanation.iter().map(|l| veil.text(l)).collect(),
        fallback: view.plan.fallback.clone(),
    }
}

fn command(view: &View, veil: &Veil) -> Command {
    match &view.plan.launch {
        Launch::Native(n) => Command {
            image: None,
            argv: veil.words(&n.argv),
            workdir: Some(veil.text(&n.workdir.display().to_string())),
            user: n.user.clone(),
            env: n.env.keys().cloned().collect(),
        },
        Launch::Container(c) => Command {
            image: Some(veil.text(&c.image)),
            argv: veil.words(&c.command),
            workdir: None,
            user: c.user.clone(),
            env: c.env.keys().cloned().collect(),
        },
    }
}

/// From the notices; where those are gone, from the newest snapshot.
fn exit(run: u64, story: &Story, newest: bool, status: &ModuleStatus) -> Option<Exit> {
    let Some((end, evidence)) = &story.exit else {
        return status.exit.clone().filter(|e| newest && e.run == run);
    };
    let known = status.exit.as_ref().filter(|e| newest && e.run == run);
    Some(Exit {
        code: match end {
            ExitStatus::Code(code) => Some(*code),
            _ => None,
        },
        signal: match end {
            ExitStatus::Signal(signal) => Some(*signal),
            _ => None,
        },
        unknown: matches!(end, ExitStatus::Unknown).then_some(true),
        oom: match evidence.oom {
            Tri::Yes => Some(true),
            Tri::No => Some(false),
            Tri::Unknown => None,
        },
        by_us: evidence.by_us,
        killed_after_grace: known.map_or(story.asked && story.killed, |e| e.killed_after_grace),
        run,
        at: story.finished_ms.map(rfc3339),
    })
}

fn failed(
    story: &Story,
    status: &ModuleStatus,
    exit: Option<&Exit>,
    view: &View,
    newest: bool,
) -> bool {
    if newest {
        let unwell = status.health.state == crate::view::HealthWord::Unhealthy;
        if matches!(status.state.as_str(), "failed" | "backoff") || unwell {
            return true;
        }
    }
    if story.asked || exit.is_none() && story.fault.is_none() {
        return false;
    }
    let success = exit
        .and_then(|e| e.code)
        .is_some_and(|code| view.plan.spec.success.0.contains(&code));
    story.fault.is_some() || !success
}

/// Why a run that is not the newest any more ended.
fn ended_reason(story: &Story, view: &View) -> Option<Reason> {
    let (code, message) = match (&story.fault, &story.exit) {
        (Some(fault), _) => ("start_failed", fault.message.clone()),
        (None, Some((status, _))) if !story.asked => {
            if view.plan.spec.success.holds(*status) {
                return None;
            }
            ("crashed", end_words(*status))
        }
        _ => return None,
    };
    Some(Reason {
        code: code.to_owned(),
        message,
        stage: story.fault.as_ref().map(|f| word(&f.stage)),
        errno: story.fault.as_ref().and_then(|f| f.errno).map(errno_name),
        evidence: Vec::new(),
        next_step: None,
    })
}

fn summary(
    name: &str,
    state: &str,
    exit: Option<&Exit>,
    story: &Story,
    reason: Option<&Reason>,
    ran_ms: Option<u64>,
) -> String {
    let after = ran_ms.map_or_else(String::new, |ms| format!(" after {}", span(ms)));
    if let Some(fault) = &story.fault {
        return format!("{name} did not start: {}", fault.message);
    }
    match (exit, reason) {
        (Some(exit), _) if matches!(state, "failed" | "stopped" | "backoff" | "ended") => {
            let asked = if story.asked {
                " when it was asked to stop"
            } else {
                ""
            };
            let then = if story.backoff {
                ", and will be started again"
            } else {
                ""
            };
            format!("{name} {}{asked}{after}{then}", exit_sentence(exit))
        }
        (_, Some(reason)) => format!("{name} is {state}: {}", reason.message),
        (_, None) => format!("{name} is {state}"),
    }
}

/// `exited with code 1`, `was ended by signal 9 (out of memory)`.
fn exit_sentence(exit: &Exit) -> String {
    let mut text = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended, and nobody could tell how".to_owned(),
    };
    if exit.oom == Some(true) {
        text.push_str(" (out of memory)");
    }
    text
}

fn end_words(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("it exited with code {code}"),
        ExitStatus::Signal(signal) => format!("it was ended by signal {signal}"),
        ExitStatus::Unknown => "it ended, and nobody could tell how".to_owned(),
    }
}

/// `0.4 s`, `12 min`.
fn span(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn origin_words(origin: &Origin) -> String {
    match origin {
        Origin::Observed => "observed".to_owned(),
        Origin::Requested { peer } => format!("requested by {peer}"),
        Origin::Injected { label } => format!("injected: {label}"),
    }
}

/// An event in a few words.
fn kind_words(kind: &NoticeKind) -> String {
    match kind {
        NoticeKind::Stopping { cause } => format!("stopping: {}", cause_word(*cause)),
        NoticeKind::StartFailed { fault } => {
            format!("start_failed at {}: {}", word(&fault.stage), fault.message)
        }
        NoticeKind::Exited { status, evidence } => crate::status::exit_words(*status, evidence),
        NoticeKind::Backoff { delay, attempt } => {
            format!("backoff of {} ms, attempt {attempt}", delay.as_millis())
        }
        NoticeKind::Health { state, reason, .. } => {
            format!(
                "health {state}{}",
                reason
                    .as_ref()
                    .map_or_else(String::new, |r| format!(": {r}"))
            )
        }
        NoticeKind::LogDegraded { fault } => format!("log_degraded: {fault}"),
        NoticeKind::LogRecovered { dropped } => format!("log_recovered, {dropped} bytes lost"),
        NoticeKind::FootprintChanged { what } => format!("footprint_changed: {what}"),
        NoticeKind::Injected { fault } => format!("injected {fault}"),
        NoticeKind::ModeFallback { reason } => format!("mode_fallback: {reason}"),
        other => match serde_json::to_value(other) {
            Ok(serde_json::Value::String(word)) => word,
            Ok(serde_json::Value::Object(map)) => map.keys().next().cloned().unwrap_or_default(),
            _ => String::new(),
        },
    }
}

fn tail(
    reader: &LogReader,
    run: u64,
    stream: Option<StreamName>,
    count: usize,
) -> std::io::Result<Vec<Line>> {
    let query = Query {
        runs: Runs::Number(run),
        tail: Some(count),
        stream,
        ..Query::default()
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut open: Option<StreamName> = None;
    for entry in reader.entries(query)? {
        let entry = entry?;
        if entry.stream == StreamName::Lair {
            continue;
        }
        let text = String::from_utf8_lossy(&entry.bytes);
        // A line that came in parts is one line, as long as it stays a line of bearable length.
        match lines
            .last_mut()
            .filter(|l| open == Some(entry.stream) && l.text.len() < LINE_MAX)
        {
            Some(last) => last.text.push_str(&text),
            None => lines.push(Line {
                stream: entry.stream.as_str().to_owned(),
                text: text.into_owned(),
            }),
        }
        open = entry.partial.then_some(entry.stream);
    }
    Ok(lines)
}

fn last_of_each(lines: Vec<Line>, most: usize) -> Vec<Line> {
    let mut left = [most, most];
    let mut kept: Vec<Line> = Vec::new();
    for line in lines.into_iter().rev() {
        let left = &mut left[usize::from(line.stream == "stderr")];
        if *left > 0 {
            *left -= 1;
            kept.push(Line {
                text: cut(&line.text, WIDTH),
                ..line
            });
        }
    }
    kept.reverse();
    kept
}
