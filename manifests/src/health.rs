//! `runtime.health`: the three questions and how they are asked.
//!
//! Owns: the kinds of probes and their defaults. Promises: each probe has exactly one kind. Never: asks anything.

use crate::decode::{Decode, Sink, View};
use crate::numbers::Count;
use crate::record::record;
use crate::text::{Command, Text};
use crate::units::{DAY, HOUR, Span};
use crate::words::{PortName, choice};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;

/// Time between two probes.
pub type Interval = Span<50, HOUR>;
/// Longest time of one probe.
pub type Timeout = Span<10, HOUR>;
/// Outcomes in a row.
pub type InARow = Count<1, 1000>;
/// Time to come up, or without progress.
pub type Patience = Span<100, { 30 * DAY }>;
/// Time before the first probe.
pub type Delay = Span<0, DAY>;

record! {
    /// Whether it came up, serves, lives.
    pub struct Health checked by check_health {
        /// The short form: one liveness probe that runs a command.
        command: Option<Command> = None,
        /// `fd`: the short form of `startup: { fd: true }`.
        ready: Option<ReadyWord> = None,
        /// Has it come up? Gates the other two.
        startup: Option<Startup> = None,
        /// Does it serve?
        readiness: Option<Readiness> = None,
        /// Does it live?
        liveness: Option<Liveness> = None,
    }
}

impl Health {
    /// Nothing is asked.
    #[must_use]
    pub fn none() -> Self {
        Health {
            command: None,
            ready: None,
            startup: None,
            readiness: None,
            liveness: None,
        }
    }
}

choice! {
    /// How a module says by itself that it is ready.
    pub enum ReadyWord {
        /// A newline on the descriptor `$LAIR_READY_FD`.
        #[default]
        Fd = "fd",
    }
}

choice! {
    /// What a failed liveness probe does.
    pub enum OnFailure {
        /// Health says so; nothing else happens.
        #[default]
        Report = "report",
        /// The module is stopped, and its restart policy decides.
        Restart = "restart",
    }
}

record! {
    /// Has it come up?
    pub struct Startup checked by check_startup {
        /// Exit code 0 is success.
        command: Option<Command> = None,
        /// A GET.
        http: Option<Http> = None,
        /// A connection.
        tcp: Option<Tcp> = None,
        /// A line of its output.
        log: Option<LogLine> = None,
        /// READY=1 on `$NOTIFY_SOCKET`.
        notify: bool = false,
        /// A newline on the descriptor `$LAIR_READY_FD`.
        fd: bool = false,
        /// The image's own health check.
        image: bool = false,
        /// Not up by then: stopped, as a failure. Without it, only `stall` and patience bound it.
        deadline: Option<Patience> = None,
        /// No output, CPU time, I/O or memory growth for this long: stuck, as a failure.
        stall: Option<Patience> = None,
        /// Time between two probes.
        interval: Interval = Interval::millis(500),
        /// A probe that takes longer has failed.
        timeout: Timeout = Timeout::millis(2000),
        /// Failures in a row that end the wait; without it, `deadline` alone does.
        failures: Option<InARow> = None,
        /// Successes in a row that are wanted.
        successes: InARow = InARow::of(1),
        /// Time before the first probe.
        initial_delay: Delay = Delay::millis(0),
    }
}

record! {
    /// Does it serve?
    pub struct Readiness checked by check_readiness {
        /// Exit code 0 is success.
        command: Option<Command> = None,
        /// A GET.
        http: Option<Http> = None,
        /// A connection.
        tcp: Option<Tcp> = None,
        /// A line of its output.
        log: Option<LogLine> = None,
        /// READY=1 on `$NOTIFY_SOCKET`.
        notify: bool = false,
        /// The image's own health check.
        image: bool = false,
        /// Time between two probes.
        interval: Interval = Interval::millis(1000),
        /// A probe that takes longer has failed.
        timeout: Timeout = Timeout::millis(2000),
        /// Failures in a row that make it not ready.
        failures: InARow = InARow::of(3),
        /// Successes in a row that make it ready.
        successes: InARow = InARow::of(1),
        /// Time before the first probe.
        initial_delay: Delay = Delay::millis(0),
    }
}

record! {
    /// Does it live?
    pub struct Liveness checked by check_liveness {
        /// Exit code 0 is success.
        command: Option<Command> = None,
        /// A GET.
        http: Option<Http> = None,
        /// A connection.
        tcp: Option<Tcp> = None,
        /// WATCHDOG=1 on `$NOTIFY_SOCKET`, at least every `interval`.
        notify: bool = false,
        /// The image's own health check.
        image: bool = false,
        /// Time between two probes.
        interval: Interval = Interval::millis(10_000),
        /// A probe that takes longer has failed.
        timeout: Timeout = Timeout::millis(2000),
        /// Failures in a row that make it unhealthy.
        failures: InARow = InARow::of(3),
        /// Successes in a row that make it healthy again.
        successes: InARow = InARow::of(1),
        /// Time before the first probe.
        initial_delay: Delay = Delay::millis(0),
        /// What a failure does.
        on_failure: OnFailure = OnFailure::Report,
    }
}

record! {
    /// A GET on 127.0.0.1.
    pub struct Http checked by check_http {
        /// The port.
        port: PortRef,
        /// Path and query.
        path: Text = Text::plain("/"),
        /// The one status that counts; without it, every 2xx and 3xx.
        expect: Option<Count<100, 599>> = None,
    }
}

record! {
    /// A connection to 127.0.0.1.
    pub struct Tcp {
        /// The port.
        port: PortRef,
    }
}

record! {
    /// A line of output.
    pub struct LogLine checked by check_pattern {
        /// Regular expression, searched in each line.
        pattern: Pattern,
    }
}

/// A regular expression that compiles.
pub type Pattern = crate::words::Line;

/// A port of the module by name, or any by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PortRef {
    /// A declared port.
    Name(PortName),
    /// A number.
    Number(Count<1, 65535>),
}

impl Decode for PortRef {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        let (text, _) = view.scalar(sink, "a port's name or number")?;
        if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return Count::decode(view, sink).map(PortRef::Number);
        }
        PortName::decode(view, sink).map(PortRef::Name)
    }
}

impl JsonSchema for PortRef {
    fn schema_name() -> Cow<'static, str> {
        "PortRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let (name, number) = (PortName::json_schema(g), Count::<1, 65535>::json_schema(g));
        json_schema!({ "description": "a declared port's name, or a number", "oneOf": [name, number] })
    }
}

// ---- rules that one key alone can't know ----

fn check_health(health: &Health, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    if health.command.is_some() && health.liveness.is_some() {
        let why =
            "`command` is the short form of a liveness probe, and there is `liveness` as well";
        return view.invalid_help(sink, why, "move it to `liveness: { command: [...] }`");
    }
    if health.ready.is_some() && health.startup.is_some() {
        let why = "`ready` is the short form of a startup probe, and there is `startup` as well";
        return view.invalid_help(sink, why, "move it to `startup: { fd: true }`");
    }
    Some(())
}

fn one_kind(kinds: &[bool], view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    match kinds.iter().filter(|k| **k).count() {
        1 => Some(()),
        0 => view.invalid_help(
            sink,
            "a probe needs a kind",
            "for example `http: { port: api, path: /health }`, or `tcp: { port: api }`",
        ),
        _ => view.invalid(sink, "a probe has one kind, not several"),
    }
}

fn check_startup(p: &Startup, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let asked = [
        p.command.is_some(),
        p.http.is_some(),
        p.tcp.is_some(),
        p.log.is_some(),
    ];
    let told = [p.notify, p.fd, p.image];
    one_kind(&[&asked[..], &told[..]].concat(), view, sink)
}

fn check_readiness(p: &Readiness, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let asked = [
        p.command.is_some(),
        p.http.is_some(),
        p.tcp.is_some(),
        p.log.is_some(),
    ];
    one_kind(&[&asked[..], &[p.notify, p.image]].concat(), view, sink)
}

fn check_liveness(p: &Liveness, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let asked = [
        p.command.is_some(),
        p.http.is_some(),
        p.tcp.is_some(),
        p.notify,
        p.image,
    ];
    one_kind(&asked, view, sink)
}

fn check_http(http: &Http, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    path(&http.path, view, sink)
}

pub(crate) fn path(path: &Text, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let path = path.raw();
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if path.starts_with('/') && !path.contains(odd) {
        return Some(());
    }
    view.invalid(sink, "a path begins with `/` and has no blanks")
}

fn check_pattern(line: &LogLine, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    match regex_lite::Regex::new(line.pattern.as_str()) {
        Ok(_) => Some(()),
        Err(e) => view.invalid(sink, format!("the pattern is no regular expression: {e}")),
    }
}
