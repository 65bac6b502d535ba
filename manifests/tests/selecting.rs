//! The choice of a mode: authority, refusals, explanations, determinism.

use lair_manifests::{
    EngineFacts, GpuFacts, HostFacts, Mode, ModuleManifest, Policy, ProgramFacts, Refusal,
    RuntimeConfig, Selected, Source, parse_config, parse_module, problem::render, select,
};
use proptest::prelude::*;
use std::path::Path;

fn module(runtime: &str) -> ModuleManifest {
    let blocks = "native: { command: [prog] }, container: { image: i }";
    let text = format!("name: m\nruntime: {{ {runtime}, {blocks} }}\n");
    let source = Source::of_text("m.yaml", &text, Path::new("/srv"));
    parse_module(&source).unwrap_or_else(|p| panic!("{}", render(&p)))
}

fn config(runtime: &str) -> RuntimeConfig {
    let source = Source::of_text(
        "c.yaml",
        &format!("runtime: {{ {runtime} }}\n"),
        Path::new("/"),
    );
    parse_config(&source).unwrap_or_else(|p| panic!("{}", render(&p)))
}

fn host(engine: bool) -> HostFacts {
    let usable = if engine {
        Ok(())
    } else {
        Err("connection refused".to_owned())
    };
    let engine = EngineFacts {
        name: "podman".into(),
        version: None,
        usable,
    };
    HostFacts {
        engines: vec![engine],
        ..HostFacts::default()
    }
}

fn choose(
    module: &ModuleManifest,
    engine: bool,
    config: &RuntimeConfig,
    wish: Option<Mode>,
    fallback: bool,
) -> Result<Selected, Refusal> {
    select(
        module,
        &host(engine),
        &Policy::default(),
        config,
        wish,
        fallback,
        &Ok(()),
    )
}

fn rules(outcome: Result<Selected, Refusal>) -> Vec<&'static str> {
    outcome
        .expect_err("a refusal")
        .why
        .iter()
        .map(|m| m.rule)
        .collect()
}

const BOTH: &str = "modes: [native, container]";

#[test]
fn isolation_is_the_default_where_nobody_prefers() {
    let chosen = choose(&module(BOTH), true, &RuntimeConfig::default(), None, false).expect("one");
    assert_eq!(chosen.mode, Mode::Container);
}

#[test]
fn the_manifests_preference_comes_before_the_default_mode() {
    let module = module("modes: [native, container], preferred: native");
    let chosen = choose(&module, true, &RuntimeConfig::default(), None, false).expect("one");
    assert_eq!((chosen.mode, chosen.fallback), (Mode::Native, None));
}

#[test]
fn the_users_preference_comes_before_the_manifests() {
    let module = module("modes: [native, container], preferred: native");
    let wish = Some(Mode::Container);
    let chosen = choose(&module, true, &RuntimeConfig::default(), wish, false).expect("one");
    assert_eq!(chosen.mode, Mode::Container);
}

#[test]
fn a_wish_that_cannot_be_met_is_refused_and_never_swapped() {
    let config = config("policy: { allowed_modes: [container] }");
    let wish = Some(Mode::Native);
    assert_eq!(
        rules(choose(&module(BOTH), true, &config, wish, false)),
        ["allowed_modes"]
    );
    let chosen = choose(&module(BOTH), true, &config, wish, true).expect("one, with fallback");
    assert_eq!(chosen.mode, Mode::Container);
    assert!(chosen.fallback.expect("told").contains("policy"));
}

#[test]
fn a_manifests_preference_falls_back_and_says_so() {
    let module = module("modes: [container, native], preferred: container");
    let chosen = choose(&module, false, &RuntimeConfig::default(), None, false).expect("one");
    assert_eq!(chosen.mode, Mode::Native);
    assert!(
        chosen
            .fallback
            .expect("told")
            .contains("connection refused")
    );
}

#[test]
fn nothing_available_names_what_removed_each_mode() {
    let config = config("native_enabled: false");
    assert_eq!(
        rules(choose(&module(BOTH), false, &config, None, false)),
        ["native_enabled", "engine"]
    );
}

#[test]
fn a_wish_for_an_undeclared_mode_is_refused() {
    let module = module("modes: [native]");
    let outcome = choose(
        &module,
        true,
        &RuntimeConfig::default(),
        Some(Mode::Container),
        false,
    );
    assert_eq!(rules(outcome), ["runtime.modes"]);
}

#[test]
fn policy_can_name_the_modules_that_may_run() {
    let config = config("policy: { allowed_runtimes: [other] }");
    let outcome = choose(&module(BOTH), true, &config, None, false);
    assert_eq!(rules(outcome), ["allowed_runtimes", "allowed_runtimes"]);
}

#[test]
fn a_requests_policy_and_the_configurations_both_count() {
    let policy = config("policy: { allowed_modes: [native] }").policy;
    let own = config("policy: { allowed_modes: [container] }");
    let outcome = select(
        &module(BOTH),
        &host(true),
        &policy,
        &own,
        None,
        false,
        &Ok(()),
    );
    assert_eq!(rules(outcome), ["allowed_modes", "allowed_modes"]);
}

fn distrust() -> lair_manifests::Distrust {
    lair_manifests::Distrust {
        rule: "trust.native",
        message: "no".to_owned(),
        allow: "name it".to_owned(),
    }
}

#[test]
fn an_untrusted_module_does_not_run_natively() {
    let untrusted = Err(distrust());
    let config = RuntimeConfig::default();
    let module = module("modes: [native]");
    let outcome = select(
        &module,
        &host(true),
        &Policy::default(),
        &config,
        None,
        false,
        &untrusted,
    );
    assert_eq!(rules(outcome), ["trust.native"]);
}

#[test]
fn a_missing_program_and_a_missing_gpu_are_told_together() {
    let module = module("modes: [native], resources: { gpu: { count: 2 } }");
    let facts = HostFacts {
        program: ProgramFacts::Missing {
            searched: "/usr/bin".into(),
        },
        gpus: GpuFacts::Present(Vec::new()),
        ..HostFacts::default()
    };
    let config = RuntimeConfig::default();
    let outcome = select(
        &module,
        &facts,
        &Policy::default(),
        &config,
        None,
        false,
        &Ok(()),
    );
    assert_eq!(rules(outcome), ["program", "gpu"]);
}

#[test]
fn a_gpu_that_is_only_wished_for_removes_nothing() {
    let module = module("modes: [native], resources: { gpu: { count: 2, required: false } }");
    let chosen = choose(&module, true, &RuntimeConfig::default(), None, false);
    assert_eq!(chosen.expect("native").mode, Mode::Native);
}

#[test]
fn an_engine_that_is_switched_off_does_not_count() {
    let config = config("podman_enabled: false");
    assert_eq!(
        rules(choose(
            &module("modes: [container]"),
            true,
            &config,
            None,
            false
        )),
        ["engine"]
    );
}

fn mode() -> impl Strategy<Value = Option<Mode>> {
    prop_oneof![
        Just(None),
        Just(Some(Mode::Native)),
        Just(Some(Mode::Container))
    ]
}

fn modes() -> impl Strategy<Value = String> {
    let words = vec!["native", "container", "binary", "python", "source"];
    let some = proptest::sample::subsequence(words, 1..=5).prop_shuffle();
    (some, any::<proptest::sample::Index>(), any::<bool>()).prop_map(|(some, at, preferred)| {
        let word = some[at.index(some.len())];
        let preferred = if preferred {
            format!(", preferred: {word}")
        } else {
            String::new()
        };
        format!("modes: [{}]{preferred}", some.join(", "))
    })
}

proptest! {
    #[test]
    fn the_choice_is_total_deterministic_allowed_and_explained(
        runtime in modes(),
        (engine, docker, native) in any::<(bool, bool, bool)>(),
        allowed in proptest::option::of(prop_oneof![Just("native"), Just("container"), Just("binary")]),
        default_native in any::<bool>(),
        wish in mode(),
        fallback in any::<bool>(),
        trusted in any::<bool>(),
    ) {
        let module = module(&runtime);
        let policy = allowed.map_or(String::new(), |m| format!(", policy: {{ allowed_modes: [{m}] }}"));
        let default = if default_native { "native" } else { "container" };
        let config = config(&format!("docker_enabled: {docker}, native_enabled: {native}, default_mode: {default}{policy}"));
        let trust = if trusted { Ok(()) } else { Err(distrust()) };
        let once = || select(&module, &host(engine), &Policy::default(), &config, wish, fallback, &trust);
        let outcome = once();
        prop_assert_eq!(&outcome, &once());
        let declared: Vec<String> = module.runtime.declared_modes().iter().map(ToString::to_string).collect();
        match outcome {
            Ok(chosen) => {
                let word = chosen.mode.as_str();
                prop_assert!(declared.iter().any(|m| m == word));
                prop_assert!(allowed.is_none_or(|only| only == word));
                match chosen.mode {
                    Mode::Native => prop_assert!(native && trusted),
                    Mode::Container => prop_assert!(docker && engine),
                }
                prop_assert!(!chosen.explanation.is_empty());
                let preferred = wish.map(|m| m.as_str().to_owned()).or(module.runtime.preferred.as_ref().map(ToString::to_string));
                let swapped = preferred.is_some_and(|p| p != word);
                prop_assert_eq!(swapped, chosen.fallback.is_some());
                prop_assert!(!swapped || wish.is_none() || fallback);
            }
            Err(refusal) => {
                prop_assert!(!refusal.why.is_empty());
                if wish.is_none() || fallback {
                    for mode in &declared {
                        prop_assert!(refusal.why.iter().any(|m| &m.mode == mode), "{mode} is unexplained");
                    }
                }
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,200}|([a-z]+: ?[\\[{\"'&*|>!-]?.{0,10}\n){0,10}") {
        let source = Source::of_text("any.yaml", &text, Path::new("/"));
        if let Err(problems) = parse_module(&source) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn a_duration_is_read_as_it_is_shown(nanos in 0u64..=u64::MAX / 2) {
        let duration = std::time::Duration::from_nanos(nanos);
        let shown = lair_manifests::units::show(duration);
        prop_assert_eq!(lair_manifests::units::duration(&shown), Ok(duration));
    }

    #[test]
    fn a_size_is_read_as_it_is_shown(bytes in any::<u64>()) {
        let shown = lair_manifests::units::show_size(bytes);
        prop_assert_eq!(lair_manifests::units::size(&shown), Ok(bytes));
    }
}
