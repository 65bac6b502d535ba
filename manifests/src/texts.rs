//! Every text of a manifest that may hold `${...}`, with its place.
//!
//! Owns: the list of those places. Promises: what is replaced by [`crate::plan`] is visited here. Never: changes it.

use crate::health::Health;
use crate::runtime::{Container, Native, Runtime};
use crate::text::Text;
use crate::words::EnvName;

/// Called with the keys to the text, the text, and the variables that it may name.
type Visit<'v> = dyn FnMut(&[&str], &Text, &[&EnvName]) + 'v;

pub(crate) fn each(runtime: &Runtime, visit: &mut Visit<'_>) {
    let mut anywhere = Vec::new();
    if let Some(n) = &runtime.native {
        let passed: Vec<&EnvName> = n
            .pass_env
            .iter()
            .chain(BASE_NAMES.get_or_init(base).iter())
            .collect();
        let all: Vec<&EnvName> = n.env.keys().chain(passed.iter().copied()).collect();
        native(n, &passed, &all, visit);
        anywhere.extend(all);
    }
    if let Some(c) = &runtime.container {
        let passed: Vec<&EnvName> = c.pass_env.iter().collect();
        let all: Vec<&EnvName> = c.env.keys().chain(passed.iter().copied()).collect();
        container(c, &passed, &all, visit);
        anywhere.extend(all);
    }
    health(&runtime.health, &anywhere, visit);
    let calls = [
        ("park", runtime.park.as_ref().map(|p| &p.http)),
        ("wake", runtime.wake.as_ref().map(|w| &w.http)),
    ];
    for (which, call) in calls {
        if let Some(call) = call {
            visit(&[which, "http", "path"], &call.path, &anywhere);
            visit(&[which, "http", "body"], &call.body, &anywhere);
        }
    }
}

/// The variables that every native module has.
pub(crate) const BASE: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

static BASE_NAMES: std::sync::OnceLock<Vec<EnvName>> = std::sync::OnceLock::new();

fn base() -> Vec<EnvName> {
    BASE.iter()
        .filter_map(|name| EnvName::try_from(*name).ok())
        .collect()
}

fn native(n: &Native, passed: &[&EnvName], all: &[&EnvName], visit: &mut Visit<'_>) {
    list(&["native", "command"], n.command.words().iter(), all, visit);
    visit(&["native", "workdir"], &n.workdir, all);
    for (name, value) in &n.env {
        visit(&["native", "env", name.as_str()], value.text(), passed);
    }
    if let Some(files) = n.sandbox.as_ref().and_then(|s| s.filesystem.as_ref()) {
        list(
            &["native", "sandbox", "filesystem", "read"],
            files.read.iter(),
            all,
            visit,
        );
        list(
            &["native", "sandbox", "filesystem", "write"],
            files.write.iter(),
            all,
            visit,
        );
    }
}

fn container(c: &Container, passed: &[&EnvName], all: &[&EnvName], visit: &mut Visit<'_>) {
    visit(&["container", "image"], &c.image, all);
    list(
        &["container", "command"],
        c.command.iter().map(|w| w.text()),
        all,
        visit,
    );
    for (name, value) in &c.env {
        visit(&["container", "env", name.as_str()], value.text(), passed);
    }
    for (i, volume) in c.volumes.iter().enumerate() {
        visit(
            &["container", "volumes", &i.to_string(), "source"],
            &volume.source,
            all,
        );
    }
}

fn health(h: &Health, all: &[&EnvName], visit: &mut Visit<'_>) {
    let commands = [
        (&["health", "command"][..], &h.command),
        (
            &["health", "startup", "command"],
            &h.startup.as_ref().and_then(|p| p.command.clone()),
        ),
        (
            &["health", "readiness", "command"],
            &h.readiness.as_ref().and_then(|p| p.command.clone()),
        ),
        (
            &["health", "liveness", "command"],
            &h.liveness.as_ref().and_then(|p| p.command.clone()),
        ),
    ];
    for (below, command) in commands {
        if let Some(command) = command {
            list(below, command.words().iter(), all, visit);
        }
    }
    let paths = [
        ("startup", h.startup.as_ref().and_then(|p| p.http.as_ref())),
        (
            "readiness",
            h.readiness.as_ref().and_then(|p| p.http.as_ref()),
        ),
        (
            "liveness",
            h.liveness.as_ref().and_then(|p| p.http.as_ref()),
        ),
    ];
    for (probe, http) in paths {
        if let Some(http) = http {
            visit(&["health", probe, "http", "path"], &http.path, all);
        }
    }
}

fn list<'x>(
    below: &[&str],
    texts: impl Iterator<Item = &'x Text>,
    variables: &[&EnvName],
    visit: &mut Visit<'_>,
) {
    for (i, text) in texts.enumerate() {
        let i = i.to_string();
        let below: Vec<&str> = below.iter().copied().chain([i.as_str()]).collect();
        visit(&below, text, variables);
    }
}
