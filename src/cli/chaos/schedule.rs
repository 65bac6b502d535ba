//! What is done when: read from a file, or made by chance from a seed.
//!
//! Promises: the same seed, modules and time give the same schedule.

use crate::cli::error::CliError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// One line of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Wait this long after the step before.
    #[serde(default)]
    pub after_ms: u64,
    /// A method to call, with `params`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// A fault to inject.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub inject: Value,
}

impl Step {
    /// The method and its parameters; `label` marks a fault.
    #[must_use]
    pub fn request(&self, label: &str) -> (&str, Value) {
        match &self.call {
            Some(method) if self.params.is_null() => (method, json!({})),
            Some(method) => (method, self.params.clone()),
            None => (
                "fault.inject",
                json!({ "fault": self.inject, "label": label }),
            ),
        }
    }

    /// In a few words.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.call {
            Some(method) => format!("{method} {}", self.params),
            None => format!("inject {}", self.inject),
        }
    }
}

/// Reads a schedule: a JSON object a line; empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// A line is no step.
pub fn read(file: &Path) -> Result<Vec<Step>, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError::new("usage", format!("cannot read {}: {e}", file.display())))?;
    let lines = text.lines().enumerate();
    let steps = lines.filter(|(_, l)| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    steps
        .map(|(at, line)| {
            let wrong = |why: String| {
                CliError::new("usage", format!("{}:{}: {why}", file.display(), at + 1))
                    .with_help("a line is {\"after_ms\": 100, \"call\": METHOD, \"params\": {…}} or {\"inject\": FAULT}")
            };
            let step: Step = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            if step.call.is_some() != step.inject.is_null() {
                return Err(wrong("give either `call` or `inject`".into()));
            }
            Ok(step)
        })
        .collect()
}

/// xorshift64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }

    fn of<'t, T>(&mut self, all: &'t [T]) -> Option<&'t T> {
        let at = self.roll(all.len() as u64);
        all.get(usize::try_from(at).unwrap_or(0))
    }
}

/// Makes a schedule of about this length.
#[must_use]
pub fn by_chance(seed: u64, modules: &[String], time: Duration, severe: bool) -> Vec<Step> {
    // Small seeds are close to each other; this sets them far apart, and never to zero.
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let end = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (mut at, mut steps, mut keeper) = (0, Vec::new(), severe);
    while at < end {
        let after_ms = 20 + dice.roll(300);
        at += after_ms;
        let Some(name) = dice.of(modules).cloned() else {
            break;
        };
        let mut step = step(&mut dice, &name, severe);
        if keeper && at > end / 2 {
            keeper = false;
            step.call = None;
            step.params = Value::Null;
            step.inject = json!("kill_keeper");
        }
        steps.push(Step { after_ms, ..step });
    }
    steps
}

fn step(dice: &mut Dice, name: &str, severe: bool) -> Step {
    let call = |method: &str, params: Value| Step {
        after_ms: 0,
        call: Some(method.to_owned()),
        params,
        inject: Value::Null,
    };
    let inject = |fault: Value| Step {
        after_ms: 0,
        call: None,
        params: Value::Null,
        inject: fault,
    };
    match dice.roll(if severe { 22 } else { 19 }) {
        0..=5 => call("module.start", json!({ "name": name })),
        6 | 7 => call(
            "module.stop",
            json!({ "name": name, "grace_ms": 100 + dice.roll(900) }),
        ),
        8 | 9 => call(
            "module.restart",
            json!({ "name": name, "grace_ms": 100 + dice.roll(900) }),
        ),
        10 => call("module.kill", json!({ "name": name })),
        11..=13 => {
            let signal = dice.of(&[9, 11, 6, 15]).copied().unwrap_or(9);
            inject(json!({ "crash_child": { "id": name, "signal": signal } }))
        }
        14 => inject(json!({ "pause_child": { "id": name, "for_ms": 50 + dice.roll(800) } })),
        15 => inject(json!({ "fail_next_spawn": { "id": name, "stage": "exec", "errno": 2 } })),
        16 => inject(
            json!({ "fail_log_writes": { "id": name, "errno": 28, "count": 1 + dice.roll(3) } }),
        ),
        17 | 18 => {
            let which = dice
                .of(&["log", "health", "pump"])
                .copied()
                .unwrap_or("log");
            inject(json!({ "stall_actor": { "which": which, "for_ms": 50 + dice.roll(450) } }))
        }
        19 | 20 => inject(json!({ "panic_actor": { "which": "module", "id": name } })),
        _ => {
            let which = dice
                .of(&["log", "health", "pump"])
                .copied()
                .unwrap_or("log");
            inject(json!({ "panic_actor": { "which": which } }))
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_another() {
        let modules = ["a".to_owned(), "b".to_owned()];
        let made = |seed| by_chance(seed, &modules, Duration::from_secs(20), true);
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
        assert!(made(7).len() > 50);
        let kills = made(7).iter().filter(|s| s.inject == "kill_keeper").count();
        assert_eq!(kills, 1);
    }
}
