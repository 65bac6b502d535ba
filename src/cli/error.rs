//! What went wrong, for a person on stderr and for a script as an exit code.

use super::exit::{self, Code};
use super::style::{Style, Tone};
use crate::client::CallError;
use crate::codes::next_step;
use crate::handle::Refused;
use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// An error of the program.
#[derive(Clone, Debug)]
pub struct CliError {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What was seen, one line each.
    pub evidence: Vec<String>,
    /// What to do now.
    pub help: Option<String>,
    /// What the program ends with.
    pub exit: Code,
}

impl CliError {
    /// An error with a stable code; the exit code follows from it.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        CliError {
            code: code.to_owned(),
            message: message.into(),
            evidence: Vec::new(),
            help: None,
            exit: exit::of_error(code),
        }
    }

    /// The same with a next step.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with_exit(mut self, exit: Code) -> Self {
        self.exit = exit;
        self
    }

    /// `error[code]: ...`, evidence, `help: ...`.
    #[must_use]
    pub fn render(&self, style: &Style) -> String {
        let mut text = format!(
            "{}: {}\n",
            style.paint(Tone::Bad, &format!("error[{}]", self.code)),
            headed(&self.message)
        );
        for line in &self.evidence {
            let _ = writeln!(text, "  {line}");
        }
        if let Some(help) = self.help.as_deref().or_else(|| next_step(&self.code)) {
            let _ = writeln!(text, "{}: {help}", style.paint(Tone::Strong, "help"));
        }
        text
    }
}

/// A message that is a list of mistakes, each with its own code, begins with their number on a line of its own.
pub fn headed(message: &str) -> String {
    let mistakes = message.lines().filter(|l| l.starts_with("error[")).count();
    match mistakes {
        _ if !message.starts_with("error[") => message.to_owned(),
        1 => format!("one mistake\n{message}"),
        n => format!("{n} mistakes\n{message}"),
    }
}

/// Evidence as lines: strings as they are, objects as `key: value`.
fn lines(evidence: &serde_json::Value) -> Vec<String> {
    use serde_json::Value;
    let one = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Object(map) => match map.get("rendered").or_else(|| map.get("message")) {
            Some(Value::String(s)) => s.clone(),
            _ => v.to_string(),
        },
        other => other.to_string(),
    };
    match evidence {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().map(one).collect(),
        Value::Object(map) => map
            .iter()
            // The message has these already, as people read them.
            .filter(|(key, _)| !matches!(key.as_str(), "problems" | "refusals" | "shortage"))
            .flat_map(|(key, value)| match value {
                Value::Array(all) => all.iter().map(one).collect(),
                _ => vec![format!("{key}: {}", one(value))],
            })
            .collect(),
        other => vec![one(other)],
    }
}

/// What to do about a daemon that does not answer.
fn reach(path: &Path, why: &io::Error) -> &'static str {
    let machines = Path::new("/run/lair/lair.sock");
    if why.kind() == io::ErrorKind::PermissionDenied {
        return "this user may not speak to that daemon: repeat it with sudo, or start one of your own with `lair serve`";
    }
    // Where this user may not look into its folder, that is all that can be known.
    let there = |tried: io::Result<UnixStream>| match tried {
        Ok(_) => true,
        Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
    };
    if path != machines && there(UnixStream::connect(machines)) {
        return "the machine's daemon has a socket of its own: repeat it with sudo, or start one of your own with `lair serve`";
    }
    "start it with `lair serve`, or name its socket with --socket or LAIR_SOCKET"
}

impl From<CallError> for CliError {
    fn from(e: CallError) -> Self {
        let message = e.to_string();
        match e {
            CallError::Unreachable { path, source } => {
                CliError::new("unreachable", message).with_help(reach(&path, &source))
            }
            CallError::Broken(_) => CliError::new("unreachable", message),
            CallError::Refused(r) => {
                let mut error = CliError::new(&r.data.code, message);
                error.evidence = lines(&r.data.evidence);
                error.help = r.data.help;
                error
            }
        }
    }
}

impl From<Refused> for CliError {
    fn from(r: Refused) -> Self {
        let mut error = CliError::new(r.code, r.message);
        error.evidence = lines(&r.data);
        error.help = r.help;
        error
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_daemon_of_another_user_is_not_said_to_be_down() {
        let tried = |kind: io::ErrorKind| {
            let error = CliError::from(CallError::Unreachable {
                path: "/run/lair/lair.sock".into(),
                source: kind.into(),
            });
            error.help.expect("a next step")
        };
        assert!(tried(io::ErrorKind::PermissionDenied).contains("repeat it with sudo"));
        assert!(tried(io::ErrorKind::NotFound).starts_with("start it with `lair serve`"));
    }
}
