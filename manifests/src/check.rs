//! Rules of `runtime:` that one key alone can't know.
//!
//! Owns: what has to agree: modes with `preferred`, references with what is declared, ports with each other. Promises:
//! the position is that of the reference, not of what it misses. Never: looks at the host.

use crate::decode::{Sink, View};
use crate::health::PortRef;
use crate::problem::ProblemKind;
use crate::restart::Backoff;
use crate::runtime::Runtime;
use crate::text::Reference;
use crate::words::{EnvName, ModeWord};

pub(crate) fn runtime(runtime: &Runtime, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let before = sink.problems.len();
    // What depends on a part that was mistaken isn't known, and so isn't told.
    let bad = |sink: &Sink, part: &str| {
        let part = format!("{}/{part}", view.path.pointer());
        sink.problems.iter().any(|p| p.pointer.starts_with(&part))
    };
    let blocks = bad(sink, "native") || bad(sink, "container");
    let no_ports = bad(sink, "ports");
    let no_modes = bad(sink, "modes") || (runtime.modes.is_empty() && blocks);
    if !no_modes {
        modes(runtime, view, sink);
    }
    ports(runtime, view, sink);
    crate::park::check(runtime, view, sink, no_ports);
    if !no_ports {
        probes(runtime, view, sink);
        if !blocks {
            references(runtime, view, sink);
        }
    }
    (sink.problems.len() == before).then_some(())
}

pub(crate) fn backoff(backoff: &Backoff, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    if backoff.cap >= backoff.first {
        return Some(());
    }
    let help = Some("the delay grows from `first` to `cap`".to_owned());
    view.fault(
        sink,
        ProblemKind::Invalid,
        &["cap"],
        "`cap` is shorter than `first`",
        help,
    );
    None
}

fn modes(runtime: &Runtime, view: View<'_, '_>, sink: &mut Sink) {
    let modes = &runtime.modes;
    if let Some(i) = (0..modes.len()).find(|&i| modes[..i].contains(&modes[i])) {
        let below = ["modes", &i.to_string()];
        view.fault(
            sink,
            ProblemKind::Duplicate,
            &below,
            "this mode stands twice",
            None,
        );
    }
    let declared = runtime.declared_modes();
    if declared.is_empty() {
        let help =
            Some("for example `modes: [native]`, with `native: { command: [...] }`".to_owned());
        view.fault(
            sink,
            ProblemKind::Missing,
            &["modes"],
            "there is no mode to run as",
            help,
        );
    }
    if let Some(preferred) = &runtime.preferred
        && !declared.contains(preferred)
    {
        let names: Vec<&str> = declared.iter().map(ModeWord::as_str).collect();
        let help = Some(format!("modes here: {}", names.join(", ")));
        let what = "this is none of the `modes`";
        view.fault(sink, ProblemKind::Invalid, &["preferred"], what, help);
    }
}

fn ports(runtime: &Runtime, view: View<'_, '_>, sink: &mut Sink) {
    let all: Vec<_> = runtime.ports.iter().collect();
    for (i, (name, port)) in all.iter().enumerate() {
        if let Some((first, _)) = all[..i].iter().find(|(_, p)| p.port == port.port) {
            let what = format!("the same number as port `{first}`");
            view.fault(
                sink,
                ProblemKind::Duplicate,
                &["ports", name.as_str()],
                what,
                None,
            );
        }
    }
}

fn probes(runtime: &Runtime, view: View<'_, '_>, sink: &mut Sink) {
    let health = &runtime.health;
    let (s, r, l) = (&health.startup, &health.readiness, &health.liveness);
    let http = [
        ("startup", s.as_ref().and_then(|p| p.http.as_ref())),
        ("readiness", r.as_ref().and_then(|p| p.http.as_ref())),
        ("liveness", l.as_ref().and_then(|p| p.http.as_ref())),
    ];
    let tcp = [
        ("startup", s.as_ref().and_then(|p| p.tcp.as_ref())),
        ("readiness", r.as_ref().and_then(|p| p.tcp.as_ref())),
        ("liveness", l.as_ref().and_then(|p| p.tcp.as_ref())),
    ];
    let http = http
        .iter()
        .filter_map(|(probe, http)| Some((*probe, "http", &http.as_ref()?.port)));
    let tcp = tcp
        .iter()
        .filter_map(|(probe, tcp)| Some((*probe, "tcp", &tcp.as_ref()?.port)));
    for (probe, kind, port) in http.chain(tcp) {
        if let PortRef::Name(name) = port
            && !runtime.ports.contains_key(name)
        {
            let below = ["health", probe, kind, "port"];
            let what = format!("there is no port `{name}` in `ports`");
            view.fault(
                sink,
                ProblemKind::Invalid,
                &below,
                what,
                Some(known_ports(runtime)),
            );
        }
    }
}

pub(crate) fn known_ports(runtime: &Runtime) -> String {
    let names: Vec<&str> = runtime.ports.keys().map(|n| n.as_str()).collect();
    if names.is_empty() {
        return "declare it: `ports: { api: 8080 }`".to_owned();
    }
    format!("ports here: {}", names.join(", "))
}

/// Every `${port.X}` and `${env.X}` is declared.
fn references(runtime: &Runtime, view: View<'_, '_>, sink: &mut Sink) {
    crate::texts::each(runtime, &mut |below, text, variables| {
        for reference in text.references() {
            let (what, help) = match reference {
                Reference::Port(name) if !runtime.ports.keys().any(|n| n.as_str() == name) => (
                    "there is no port of this name in `ports`",
                    known_ports(runtime),
                ),
                Reference::Env(name) if !variables.iter().any(|v| v.as_str() == name) => (
                    "a variable that is neither in `env` nor in `pass_env`",
                    help_env(name),
                ),
                _ => continue,
            };
            view.fault(sink, ProblemKind::Invalid, below, what, Some(help));
        }
    });
}

fn help_env(name: &str) -> String {
    match EnvName::try_from(name) {
        Ok(name) => format!("add it: `pass_env: [{name}]`"),
        Err(why) => why,
    }
}
