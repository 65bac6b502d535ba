//! What went wrong, for a person on stderr and for a script as an exit code.

use super::exit::{self, Code};
use super::style::{Style, Tone};
use crate::client::CallError;
use crate::codes::next_step;
use crate::handle::Refused;
use std::fmt::Write;

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
            self.message
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

impl From<CallError> for CliError {
    fn from(e: CallError) -> Self {
        let message = e.to_string();
        match e {
            CallError::Unreachable { .. } => CliError::new("unreachable", message).with_help(
                "start it with `lair serve`, or name its socket with --socket or LAIR_SOCKET",
            ),
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
