//! Which mode a module runs in, and why.
//!
//! Owns: the order of authority: manifest, policy, configuration, preference. Promises: total and deterministic; each
//! step is told; an explicit wish is honoured or refused, never swapped in silence. Never: asks the host; facts are
//! handed in.

use crate::config::{Policy, RuntimeConfig};
use crate::facts::{HostFacts, ProgramFacts};
use crate::launch::Mode;
use crate::module::ModuleManifest;
use crate::runtime::{Container, Engine};
use crate::trust::TrustDecision;
use crate::words::ModeWord;
use serde::Serialize;
use std::fmt;

/// A mode was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selected {
    /// It.
    pub mode: Mode,
    /// How it was found.
    pub explanation: Vec<Step>,
    /// The mode that was preferred but can't be had, and why.
    pub fallback: Option<String>,
}

/// One step of the explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which authority spoke.
    pub step: &'static str,
    /// What came of it.
    pub text: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.text)
    }
}

/// Nothing fits, or not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The module.
    pub module: String,
    /// What removed each mode.
    pub why: Vec<Mismatch>,
}

/// Why a mode can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The mode, as in the manifest.
    pub mode: String,
    /// Which authority removed it: `manifest`, `policy`, `config`, `host`, `trust`.
    pub step: &'static str,
    /// The rule: a key, or a stable word.
    pub rule: &'static str,
    /// A sentence fragment.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module `{}` can't run in any wanted mode", self.module)?;
        for m in &self.why {
            write!(f, "\n  {}: {} ({}: {})", m.mode, m.message, m.step, m.rule)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Chooses the mode. `policy` is the request's own; the configuration's counts as well.
///
/// # Errors
/// For each mode that was wanted, every step and rule that removed it.
pub fn select(
    module: &ModuleManifest,
    host: &HostFacts,
    policy: &Policy,
    config: &RuntimeConfig,
    preference: Option<Mode>,
    fallback: bool,
    trust: &TrustDecision,
) -> Result<Selected, Refusal> {
    let judge = Judge {
        module,
        host,
        policies: [policy, &config.policy],
        config,
        trust,
    };
    let words = module.runtime.declared_modes();
    let verdicts: Vec<Verdict> = words.iter().map(|word| judge.verdict(word)).collect();
    let mut steps = opening(module, &verdicts);
    let wish = wish(module, preference, &mut steps);
    let outcome = choose(
        &verdicts,
        wish.as_deref(),
        preference.is_some() && !fallback,
        config,
    );
    let chosen = outcome.map_err(|why| Refusal {
        module: module.name.to_string(),
        why,
    })?;
    steps.push(step(
        "choice",
        format!("{}, {}", chosen.mode.as_str(), chosen.reason),
    ));
    Ok(Selected {
        mode: chosen.mode,
        explanation: steps,
        fallback: chosen.lost,
    })
}

/// What came out, why, and what was wished for in vain.
struct Chosen {
    mode: Mode,
    reason: &'static str,
    lost: Option<String>,
}

fn choose(
    verdicts: &[Verdict],
    wish: Option<&str>,
    strict: bool,
    config: &RuntimeConfig,
) -> Result<Chosen, Vec<Mismatch>> {
    let (mut lost, mut unasked) = (None, None);
    if let Some(word) = wish {
        let found = verdicts.iter().find(|v| v.word == word);
        if let Some(mode) = found.and_then(Verdict::usable) {
            return Ok(Chosen {
                mode,
                reason: "as preferred",
                lost: None,
            });
        }
        let against = found.map_or_else(|| vec![undeclared(word)], |v| v.against.clone());
        if strict {
            return Err(against);
        }
        let reasons: Vec<&str> = against.iter().map(|m| m.message.as_str()).collect();
        lost = Some(format!("{word} was preferred, but {}", reasons.join("; ")));
        unasked = found.is_none().then(|| undeclared(word));
    }
    let usable: Vec<Mode> = verdicts.iter().filter_map(Verdict::usable).collect();
    let usual = config.mode_by_default();
    match usable.first() {
        Some(_) if usable.contains(&usual) => Ok(Chosen {
            mode: usual,
            reason: "by `default_mode`",
            lost,
        }),
        Some(first) => Ok(Chosen {
            mode: *first,
            reason: "the first that can be had",
            lost,
        }),
        None => {
            let against = verdicts.iter().flat_map(|v| v.against.iter().cloned());
            Err(unasked.into_iter().chain(against).collect())
        }
    }
}

struct Verdict {
    word: String,
    mode: Option<Mode>,
    against: Vec<Mismatch>,
}

impl Verdict {
    fn usable(&self) -> Option<Mode> {
        self.mode.filter(|_| self.against.is_empty())
    }
}

fn step(step: &'static str, text: String) -> Step {
    Step { step, text }
}

fn undeclared(word: &str) -> Mismatch {
    Mismatch {
        mode: word.to_owned(),
        step: "manifest",
        rule: "runtime.modes",
        message: "the manifest doesn't declare it".to_owned(),
    }
}

fn opening(module: &ModuleManifest, verdicts: &[Verdict]) -> Vec<Step> {
    let words: Vec<&str> = verdicts.iter().map(|v| v.word.as_str()).collect();
    let mut steps = vec![step("manifest", format!("modes {}", words.join(", ")))];
    for verdict in verdicts {
        if verdict.against.is_empty() {
            steps.push(step("available", format!("{} can be had", verdict.word)));
        }
        for m in &verdict.against {
            steps.push(step(
                m.step,
                format!("{} is out: {} ({})", m.mode, m.message, m.rule),
            ));
        }
    }
    if let Some(gpu) = module
        .runtime
        .resources
        .gpu
        .as_ref()
        .filter(|gpu| !gpu.required)
    {
        steps.push(step(
            "manifest",
            format!("{} GPU wished for, not required", gpu.wanted()),
        ));
    }
    steps
}

fn wish(module: &ModuleManifest, asked: Option<Mode>, steps: &mut Vec<Step>) -> Option<String> {
    if let Some(mode) = asked {
        steps.push(step(
            "preference",
            format!("the request prefers {}", mode.as_str()),
        ));
        return Some(mode.as_str().to_owned());
    }
    let preferred = module.runtime.preferred.as_ref()?;
    steps.push(step(
        "preference",
        format!("the manifest prefers {preferred}"),
    ));
    Some(preferred.to_string())
}

struct Judge<'j> {
    module: &'j ModuleManifest,
    host: &'j HostFacts,
    policies: [&'j Policy; 2],
    config: &'j RuntimeConfig,
    trust: &'j TrustDecision,
}

impl Judge<'_> {
    fn verdict(&self, word: &ModeWord) -> Verdict {
        let mode = match word.as_str() {
            "container" => Some(Mode::Container),
            "native" => Some(Mode::Native),
            _ => None,
        };
        let mut against = Vec::new();
        let mut out = |step, rule, message: String| {
            let mode = word.to_string();
            against.push(Mismatch {
                mode,
                step,
                rule,
                message,
            });
        };
        match mode {
            None => out(
                "manifest",
                "runtime.modes",
                "this runtime has no such mode".to_owned(),
            ),
            Some(mode) => {
                self.allowed(word, &mut out);
                match mode {
                    Mode::Native => self.native(&mut out),
                    Mode::Container => self.container(&mut out),
                }
                self.gpu(&mut out);
            }
        }
        Verdict {
            word: word.to_string(),
            mode,
            against,
        }
    }

    fn allowed(&self, word: &ModeWord, out: &mut dyn FnMut(&'static str, &'static str, String)) {
        let modes = |p: &&Policy| {
            p.allowed_modes
                .as_ref()
                .is_some_and(|all| !all.contains(word))
        };
        if self.policies.iter().any(modes) {
            out(
                "policy",
                "allowed_modes",
                "policy doesn't allow this mode".to_owned(),
            );
        }
        let name = &self.module.name;
        let names = |p: &&Policy| {
            p.allowed_runtimes
                .as_ref()
                .is_some_and(|all| !all.contains(name))
        };
        if self.policies.iter().any(names) {
            out(
                "policy",
                "allowed_runtimes",
                "policy doesn't allow this module".to_owned(),
            );
        }
    }

    fn native(&self, out: &mut dyn FnMut(&'static str, &'static str, String)) {
        if !self.config.native_enabled {
            out(
                "config",
                "native_enabled",
                "native processes are switched off".to_owned(),
            );
        }
        if self.module.runtime.native.is_none() {
            let what = "the manifest says nothing about how to run natively";
            out("manifest", "runtime.native", what.to_owned());
            return;
        }
        if let ProgramFacts::Missing { searched } = &self.host.program {
            out("host", "program", missing_program(self.module, searched));
        }
        if let Err(why) = self.trust {
            out("trust", why.rule, why.to_string());
        }
    }

    fn container(&self, out: &mut dyn FnMut(&'static str, &'static str, String)) {
        if !self.config.docker_enabled && !self.config.podman() {
            out(
                "config",
                "docker_enabled",
                "containers are switched off".to_owned(),
            );
        }
        let Some(container) = &self.module.runtime.container else {
            let what = "the manifest says nothing about how to run in a container";
            out("manifest", "runtime.container", what.to_owned());
            return;
        };
        if let Err(why) = self.engine(container) {
            out("host", "engine", why);
        }
    }

    /// That an engine answers which manifest and configuration allow.
    fn engine(&self, container: &Container) -> Result<(), String> {
        let wanted =
            |name: &str| container.engine == Engine::Auto || container.engine.as_str() == name;
        let enabled = |name: &str| self.config.engine_enabled(name);
        let mut why = Vec::new();
        for engine in self
            .host
            .engines
            .iter()
            .filter(|e| wanted(&e.name) && enabled(&e.name))
        {
            match &engine.usable {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(format!("{}: {reason}", engine.name)),
            }
        }
        let none = "no container engine answers".to_owned();
        Err([&[none][..], &why].concat().join("; "))
    }

    fn gpu(&self, out: &mut dyn FnMut(&'static str, &'static str, String)) {
        if let Some(ask) = self
            .module
            .runtime
            .resources
            .gpu
            .as_ref()
            .filter(|gpu| gpu.required)
            && let Err(why) = self.host.gpus.choose(ask)
        {
            out("host", "gpu", why);
        }
    }
}

/// By name, or by the path at which it was to be.
fn missing_program(module: &ModuleManifest, searched: &str) -> String {
    let native = module.runtime.native.as_ref();
    let word = native.and_then(|n| n.command.words().first());
    match word.map(|w| w.raw()).filter(|w| !w.contains('/')) {
        Some(name) => format!("its program `{name}` is not found in {searched}"),
        None => format!("its program {searched} is not there, or may not be executed"),
    }
}
