//! From what somebody hands over to plans that the root can load.
//!
//! Owns: the order of the steps: read, parse, trust, select, plan. Promises: all or nothing, and every problem at once.
//! Never: starts anything.

use crate::containers;
use crate::handle::{Inner, LoadOptions, ManifestSource, Refused};
use crate::resources::Cards;
use lair_actors::cgroup::Limit;
use lair_manifests::launch::{LaunchPlan, Mode};
use lair_manifests::module::ModuleManifest;
use lair_manifests::plan::PATH;
use lair_manifests::stack::Group;
use lair_manifests::words::ModeWord;
use lair_manifests::{
    HostFacts, PlanContext, Policy, Problem, Refusal, Selected, Source, Stack, TrustDecision,
    facts, parse_stack, plan, problem, read_manifest, select,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the plans of every module in `source`, in the order of the file.
pub(crate) fn prepare(
    inner: &Inner,
    source: ManifestSource,
    options: &LoadOptions,
) -> Result<Vec<LaunchPlan>, Refused> {
    let file = match &source {
        ManifestSource::File(path) => Some(same_path(path)),
        ManifestSource::Text { .. } => None,
    };
    let (source, vouched) = read(source)?;
    let stack = parse_stack(&source).map_err(|problems| invalid(&problems))?;
    if !options.args.is_empty() && stack.modules.len() > 1 {
        return Err(Refused::new(
            "invalid_request",
            "arguments can be given to a single module only".into(),
        )
        .help("name one module, or put the arguments into the manifest"));
    }
    let mut plans = plan_all(inner, &source, vouched, &stack, options)?;
    for plan in &mut plans {
        plan.source.clone_from(&file);
    }
    Ok(plans)
}

/// One name for a file, however it is reached.
pub(crate) fn same_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn plan_all(
    inner: &Inner,
    source: &Source,
    vouched: bool,
    stack: &Stack,
    options: &LoadOptions,
) -> Result<Vec<LaunchPlan>, Refused> {
    let mut context = context(inner, options);
    let mut cards = Cards::of(inner, stack);
    let mut engines = Vec::new();
    if stack.modules.iter().any(|m| m.runtime.container.is_some()) {
        engines = containers::facts(&inner.engines);
    }
    let (mut plans, mut problems, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for (index, module) in stack.modules.iter().enumerate() {
        if let Some(cards) = &cards {
            context.gpus = cards.offered(module.name.as_str());
        }
        let mut host = host_facts(inner, &context);
        host.engines.clone_from(&engines);
        let trusted = crate::vouch::trusted(inner, source, vouched, stack, index)?;
        match choose(inner, module, &host, &trusted, source, options) {
            Ok(selected) => match plan(module, &selected, &context) {
                Ok(plan) => {
                    let plan = containers::with_engine(plan, &host.engines, &inner.config());
                    let plan = crate::ports::allow(inner, grouped(stack, plan))?;
                    if let Some(cards) = &mut cards {
                        cards.give(&plan);
                    }
                    let mut plan = enforceable(inner, plan)?;
                    if let Some(last) = plans.last() {
                        plan.share_with(last);
                    }
                    plans.push(plan);
                }
                Err(more) => problems.extend(more),
            },
            Err(refusal) => refusals.push((refusal, trusted)),
        }
    }
    match (problems.is_empty(), refusals.is_empty()) {
        (true, true) => Ok(plans),
        (false, _) => Err(invalid(&problems)),
        (true, false) => Err(refused(&refusals)),
    }
}

/// With the group that the stack puts it into.
fn grouped(stack: &Stack, mut plan: LaunchPlan) -> LaunchPlan {
    let named = |g: &&Group| {
        g.modules
            .iter()
            .any(|m| m.as_str() == plan.spec.id.as_str())
    };
    plan.group = stack.groups.iter().find(named).map(|g| Arc::new(g.spec()));
    plan.spec.grouped = plan.group.is_some();
    plan
}

fn read(source: ManifestSource) -> Result<(Source, bool), Refused> {
    match source {
        ManifestSource::File(path) => Ok((read_manifest(&path).map_err(|p| invalid(&[p]))?, false)),
        ManifestSource::Text { text, dir, trusted } => {
            let dir = dir.unwrap_or_else(|| PathBuf::from("/"));
            Ok((Source::of_text("manifest", &text, &dir), trusted))
        }
    }
}

fn context(inner: &Inner, options: &LoadOptions) -> PlanContext {
    let mut context = PlanContext::new(inner.folders.dirs());
    context.env = environment();
    context.set = options.env.clone();
    context.args.clone_from(&options.args);
    context.seed = inner.seed;
    context
}

/// The runtime's own environment; manifests get of it only what they name.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

fn host_facts(inner: &Inner, context: &PlanContext) -> HostFacts {
    HostFacts {
        gpus: context.gpus.clone(),
        memory_total: inner.memory_total,
        ..HostFacts::default()
    }
}

/// Refuses what the manifest insists on and can't be held here: better no module than one without its bounds.
fn enforceable(inner: &Inner, plan: LaunchPlan) -> Result<LaunchPlan, Refused> {
    let name = plan.spec.id.as_str();
    let refuse = |code, what: &str, help| {
        Err(Refused::new(code, format!("`{name}` asks for {what}")).help(help))
    };
    let memory = inner.cgroups.as_ref().map(|c| c.enforcer(Limit::Memory));
    let native = plan.mode == Mode::Native;
    if let (true, true, Some(Err(why))) = (plan.limits.memory_required, native, memory) {
        return refuse(
            "limit_unenforceable",
            &format!(
                "a memory limit with `enforce: required`, which lair can't enforce here: {why}"
            ),
            "see `lair doctor`; with `enforce: best-effort` it starts, and the limit is shown as not enforced",
        );
    }
    if let Some((needs, has)) = plan.limits.sandbox.as_ref().and_then(unheld) {
        let what = format!(
            "a `runtime.native.sandbox` that needs version {needs} of the kernel's Landlock, where this kernel has {has}"
        );
        let help = "take `enforce: best-effort`: status then shows what holds; or run the module elsewhere";
        return refuse("sandbox_unavailable", &what, help);
    }
    Ok(plan)
}

fn choose(
    inner: &Inner,
    module: &ModuleManifest,
    host: &HostFacts,
    trusted: &TrustDecision,
    source: &Source,
    options: &LoadOptions,
) -> Result<Selected, Refusal> {
    let mut host = host.clone();
    if let Some(native) = &module.runtime.native {
        host.program = facts::find_program(native, &source.dir, PATH);
    }
    let words = options.allowed_modes.as_ref().map(|m| {
        m.iter()
            .filter_map(|m| ModeWord::try_from(m.as_str()).ok())
            .collect()
    });
    let policy = Policy {
        allowed_modes: words,
        ..Policy::default()
    };
    select(
        module,
        &host,
        &policy,
        &inner.config(),
        options.preference,
        options.fallback,
        trusted,
    )
}

fn invalid(problems: &[Problem]) -> Refused {
    Refused::new("invalid_manifest", problem::render(problems))
        .help("mend what is named; `lair validate FILE` checks it again, `lair schema manifest` is the whole shape")
        .with(serde_json::json!({ "problems": problems }))
}

fn refused(refusals: &[(Refusal, TrustDecision)]) -> Refused {
    let words: Vec<String> = refusals.iter().map(|(r, _)| r.to_string()).collect();
    let why: Vec<&Refusal> = refusals.iter().map(|(r, _)| r).collect();
    let untrusted = why.iter().any(|r| r.why.iter().any(|m| m.step == "trust"));
    let missing = why
        .iter()
        .any(|r| r.why.iter().any(|m| m.rule == "program"));
    let code = match (untrusted, missing) {
        (true, _) => "untrusted",
        (false, true) => "program_missing",
        (false, false) => "mode_unavailable",
    };
    Refused::new(code, words.join("\n"))
        .help("`lair explain FILE` shows every step of the choice; `lair doctor` shows what the machine lacks")
        .with(serde_json::json!({ "refusals": why }))
}

/// The version of Landlock that a sandbox needs, and the one that is here, if that is not enough.
fn unheld(sandbox: &lair_manifests::launch::Sandbox) -> Option<(u32, u32)> {
    let tcp = sandbox.bind.is_some() || sandbox.connect.is_some();
    let files = sandbox.read.is_some() || sandbox.write.is_some();
    let needs = if tcp { 4 } else { u32::from(files) };
    let has = lair_actors::keeper::landlock_abi();
    (!sandbox.best_effort && has < needs).then_some((needs, has))
}

/// What a file would run as, and why, without loading it.
pub(crate) fn explain(
    inner: &Inner,
    file: &Path,
    options: &LoadOptions,
) -> Result<Vec<(String, Vec<String>)>, Refused> {
    let plans = prepare(inner, ManifestSource::File(file.to_owned()), options)?;
    Ok(plans
        .into_iter()
        .map(|p| (p.spec.id.to_string(), p.explanation))
        .collect())
}
