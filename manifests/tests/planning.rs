//! From a manifest and a mode to a plan: defaults, substitution, the environment.

use lair_manifests::{
    Dirs, Launch, LaunchPlan, Mode, ModuleManifest, PlanContext, Problem, Selected, Source,
    parse_module, plan, problem::render,
};
use lair_supervision::{ChildId, ChildSpec, RestartType};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

fn read(text: &str) -> ModuleManifest {
    let source = Source::of_text("m.yaml", text, Path::new("/srv/m"));
    parse_module(&source).unwrap_or_else(|p| panic!("{}", render(&p)))
}

fn planned(text: &str, mode: Mode, env: &[(&str, &str)]) -> Result<LaunchPlan, Vec<Problem>> {
    let env: BTreeMap<String, String> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let context = PlanContext {
        env,
        ..PlanContext::new(Dirs::of(&BTreeMap::new(), 0))
    };
    let selected = Selected {
        mode,
        explanation: Vec::new(),
        fallback: None,
    };
    plan(&read(text), &selected, &context)
}

const SMALL: &str = "name: m\nruntime:\n  native: { command: [prog] }\n";

#[test]
fn the_least_manifest_has_the_documented_defaults() {
    let plan = planned(SMALL, Mode::Native, &[]).expect("a plan");
    let mut spec = ChildSpec::new(ChildId::new("m"));
    spec.backoff.seed = plan.spec.backoff.seed;
    assert_eq!(plan.spec, spec);
    assert_eq!(plan.logs, lair_manifests::launch::LogPolicy::default());
    assert_eq!(plan.limits, lair_manifests::launch::Limits::default());
    assert_eq!(plan.digest.len(), 64);
    let Launch::Native(native) = &plan.launch else {
        panic!("a process")
    };
    assert_eq!(native.workdir, Path::new("/srv/m"));
    assert!(!native.ready_fd && !native.notify && native.user.is_none());
}

#[test]
fn the_environment_is_built_from_nothing() {
    let text = "name: m\nruntime:\n  native: { command: [prog], env: { A: '${env.TOKEN}!', LANG: de }, pass_env: [TOKEN, UNSET] }\n";
    let env = [
        ("TOKEN", "t"),
        ("SECRET", "s"),
        ("HOME", "/home/u"),
        ("TZ", "UTC"),
        ("LD_PRELOAD", "x"),
    ];
    let plan = planned(text, Mode::Native, &env).expect("a plan");
    let Launch::Native(native) = &plan.launch else {
        panic!("a process")
    };
    let expected = [
        ("A", "t!"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("HIP_VISIBLE_DEVICES", ""),
        ("HOME", "/home/u"),
        ("LANG", "de"),
        ("NVIDIA_VISIBLE_DEVICES", ""),
        ("PATH", lair_manifests::plan::PATH),
        ("ROCR_VISIBLE_DEVICES", ""),
        ("TOKEN", "t"),
        ("TZ", "UTC"),
    ];
    let got: Vec<(&str, &str)> = native
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn a_container_gets_no_variable_of_the_host() {
    let text = "name: m\nruntime:\n  container: { image: i, env: { A: b }, volumes: [ { source: ./data, target: /data } ] }\n";
    let plan = planned(text, Mode::Container, &[("HOME", "/root"), ("TZ", "UTC")]).expect("a plan");
    let Launch::Container(container) = &plan.launch else {
        panic!("a container")
    };
    assert_eq!(
        container.env.keys().collect::<Vec<_>>(),
        ["A", "NVIDIA_VISIBLE_DEVICES"]
    );
    assert_eq!(container.volumes[0].source, Path::new("/srv/m/data"));
    assert!(container.read_only && container.init && container.pull == "never");
}

#[test]
fn every_reference_is_replaced() {
    let text = "name: m\nruntime:\n  native:\n    command: [prog, '${port.api}', '${module.name}', '${module.dir}', '${module.data}', '${module.logs}', '[${gpu.uuids}]', '$${plain}', '$x', 'a${env.E}b${env.E}']\n    env: { E: e }\n  ports: { api: 81 }\n";
    let plan = planned(text, Mode::Native, &[]).expect("a plan");
    let Launch::Native(native) = &plan.launch else {
        panic!("a process")
    };
    let expected = [
        "prog",
        "81",
        "m",
        "/srv/m",
        "/var/lib/lair/modules/m",
        "/var/log/lair/m",
        "[]",
        "${plain}",
        "$x",
        "aebe",
    ];
    assert_eq!(native.argv, expected);
}

#[test]
fn what_parks_a_module_is_planned_with_its_port_and_words() {
    let park = "  park: { http: { port: api, path: '/free?of=${module.name}', body: '{\"port\":${port.api}}', expect: 202 }, within: 5s, probes: rest }\n  wake: { http: { method: PUT, port: api } }\n";
    let text = |port: u16, more: &str| {
        format!(
            "name: m\nruntime:\n  native: {{ command: [prog] }}\n  ports: {{ api: {port} }}\n{more}"
        )
    };
    let plan = planned(&text(81, park), Mode::Native, &[]).expect("a plan");
    let parking = plan.park.as_deref().expect("it can be parked");
    let (first, wake) = (&parking.park, parking.wake.as_ref().expect("and woken"));
    assert_eq!(
        (first.method.as_str(), first.port, first.expect),
        ("POST", 81, Some(202))
    );
    assert_eq!(
        (first.path.as_str(), first.body.as_str()),
        ("/free?of=m", "{\"port\":81}")
    );
    assert_eq!(
        (first.address.as_str(), first.within.as_secs()),
        ("127.0.0.1", 5)
    );
    assert_eq!(
        (wake.method.as_str(), wake.path.as_str(), wake.body.as_str()),
        ("PUT", "/", "")
    );
    assert_eq!(
        (wake.expect, wake.within.as_secs(), parking.rests),
        (None, 600, true)
    );
    // A running one takes it at once, but for a port that only its next run has.
    let without = planned(&text(81, ""), Mode::Native, &[]).expect("a plan");
    assert_eq!(without.difference(&plan).live, ["park"]);
    assert_eq!(without.revised(&plan).park, plan.park);
    let moved = planned(&text(82, park), Mode::Native, &[]).expect("a plan");
    assert_eq!(plan.difference(&moved).next_start, ["ports", "park"]);
    assert_eq!(plan.revised(&moved).park, plan.park);
}

#[test]
fn a_variable_that_is_not_set_is_told_with_its_position() {
    let text = "name: m\nruntime:\n  native:\n    command: [prog, '${env.MODEL}']\n    pass_env: [MODEL]\n";
    let problems = planned(text, Mode::Native, &[]).expect_err("no MODEL");
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].line, problems[0].column), (4, 21));
    assert_eq!(problems[0].pointer, "/runtime/native/command/1");
    assert!(problems[0].message.contains("MODEL"));
}

#[test]
fn values_of_variables_are_never_shown() {
    let text =
        "name: m\nruntime:\n  native: { command: [prog], env: { A: hunter2 }, pass_env: [B] }\n";
    let module = read(text);
    let plan = planned(text, Mode::Native, &[("B", "hunter3")]).expect("a plan");
    let shown = [
        format!("{module:?}{plan:?}"),
        serde_json::to_string(&module).expect("JSON"),
        serde_json::to_string(&plan).expect("JSON"),
    ];
    assert!(
        shown.iter().all(|text| !text.contains("hunter")),
        "{shown:?}"
    );
}

#[test]
fn both_vocabularies_of_restarting_mean_the_same() {
    for (words, expected) in [
        (["never", "temporary"], RestartType::Temporary),
        (["on-failure", "transient"], RestartType::Transient),
        (["always", "permanent"], RestartType::Permanent),
    ] {
        for word in words {
            for form in [word.to_owned(), format!("{{ policy: {word} }}")] {
                let plan = planned(&format!("{SMALL}  restart: {form}\n"), Mode::Native, &[]);
                assert_eq!(plan.expect("a plan").spec.restart, expected, "{form}");
            }
        }
    }
}

#[test]
fn signals_are_known_by_name_and_number() {
    for (word, number) in [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("15", 15),
        ("INT", 2),
        ("QUIT", 3),
        ("34", 34),
    ] {
        let plan = planned(
            &format!("{SMALL}  stop: {{ signal: {word} }}\n"),
            Mode::Native,
            &[],
        );
        assert_eq!(plan.expect("a plan").spec.stop_signal, number, "{word}");
    }
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "name: m\nruntime:\n  native:\n    command: [prog, no, 1.10, 0x10]\n    env: { A: yes }\n  ports: { api: 80 }\n  stop: { grace: 5s }\n";
    let json = r#"{"name":"m","runtime":{"native":{"command":["prog","no","1.10","0x10"],"env":{"A":"yes"}},"ports":{"api":{"port":80}},"stop":{"grace":"5s"}}}"#;
    let (yaml, json) = (read(yaml), read(json));
    assert_eq!(yaml.runtime, json.runtime);
}

#[test]
fn readiness_can_be_said_by_the_module_itself() {
    for (health, fd, notify) in [
        ("{ ready: fd }", true, false),
        ("{ startup: { fd: true, deadline: 5s } }", true, false),
        ("{ startup: { notify: true } }", false, true),
        ("{ liveness: { notify: true } }", false, true),
    ] {
        let plan =
            planned(&format!("{SMALL}  health: {health}\n"), Mode::Native, &[]).expect("a plan");
        let Launch::Native(native) = &plan.launch else {
            panic!("a process")
        };
        assert_eq!((native.ready_fd, native.notify), (fd, notify), "{health}");
        assert_eq!(
            plan.spec.awaits_ready,
            !health.contains("liveness"),
            "{health}"
        );
        assert_eq!(
            plan.spec.probes.startup.is_some(),
            plan.probes.startup.is_some(),
            "{health}"
        );
    }
}

#[test]
fn the_short_health_command_is_one_liveness_probe() {
    let plan = planned(
        &format!("{SMALL}  health: {{ command: [curl, x] }}\n"),
        Mode::Native,
        &[],
    );
    let plan = plan.expect("a plan");
    assert!(plan.probes.liveness.is_some() && plan.spec.probes.liveness.is_some());
    assert!(!plan.spec.awaits_ready);
}

#[test]
fn durations_and_sizes_at_their_bounds_are_kept_exactly() {
    let text = format!(
        "{SMALL}  stop: {{ grace: 1h }}\n  restart: {{ policy: always, max: 0, within: 100ms, backoff: {{ first: 0s, factor: 1, cap: 0s, jitter: 0 }} }}\n  resources: {{ memory: 1.5GiB, cpus: 0.5, pids: 1 }}\n  logs: {{ max_size: 4KiB, max_age: 1h30m }}\n"
    );
    let plan = planned(&text, Mode::Native, &[]).expect("a plan");
    assert_eq!(plan.spec.grace, Duration::from_secs(3600));
    assert_eq!(
        (plan.spec.intensity.max, plan.spec.intensity.within),
        (0, Duration::from_millis(100))
    );
    assert_eq!(
        (plan.spec.backoff.first, plan.spec.backoff.cap),
        (Duration::ZERO, Duration::ZERO)
    );
    assert_eq!(
        (plan.limits.memory, plan.limits.cpu_milli),
        (Some(3 << 29), Some(500))
    );
    assert_eq!(plan.logs.max_age, Some(Duration::from_secs(5400)));
}

#[test]
#[ignore = "a measurement: cargo test --release -p lair-manifests --test planning -- --ignored --nocapture"]
fn a_thousand_modules_are_read_and_planned_in_25_milliseconds() {
    let mut text = "modules:\n".to_owned();
    for i in 0..1000 {
        text.push_str(&format!(
            "  - name: m{i}\n    category: service\n    version: 0.1.0\n    runtime:\n      native: {{ command: [prog, --port, \"${{port.api}}\"], env: {{ A: b }} }}\n      ports: {{ api: 8080 }}\n      health:\n        startup: {{ http: {{ port: api, path: /health }}, deadline: 1m }}\n      restart: {{ policy: on-failure, max: 3 }}\n      stop: {{ grace: 5s }}\n"
        ));
    }
    let source = Source::of_text("stack.yaml", &text, Path::new("/srv"));
    let context = PlanContext::new(Dirs::of(&BTreeMap::new(), 0));
    let selected = Selected {
        mode: Mode::Native,
        explanation: Vec::new(),
        fallback: None,
    };
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = std::time::Instant::now();
        let stack = lair_manifests::parse_stack(&source).expect("a stack");
        let read = start.elapsed();
        let plans = stack
            .modules
            .iter()
            .map(|m| plan(m, &selected, &context))
            .filter(Result::is_ok)
            .count();
        assert_eq!(plans, 1000);
        best = best.min(start.elapsed());
        eprintln!(
            "{} bytes: read {read:?}, read and planned {:?}",
            text.len(),
            start.elapsed()
        );
    }
    assert!(best < Duration::from_millis(25), "{best:?}");
}

fn spec_of(text: &str) -> ChildSpec {
    planned(text, Mode::Native, &[]).expect("a plan").spec
}

/// O13, O26, O27: every combination of valid words is taken, and means what it says.
#[test]
fn every_combination_of_policies_is_taken_as_written() {
    let policies = [
        ("never", RestartType::Temporary),
        ("on-failure", RestartType::Transient),
        ("always", RestartType::Permanent),
        ("temporary", RestartType::Temporary),
        ("transient", RestartType::Transient),
        ("permanent", RestartType::Permanent),
    ];
    let times = [
        ("100ms", 100),
        ("1s", 1000),
        ("10m", 600_000),
        ("30d", 2_592_000_000),
    ];
    let graces = [("100ms", 100), ("1h", 3_600_000)];
    let signals = [("TERM", 15), ("SIGINT", 2), ("9", 9)];
    let mut taken = 0;
    for (policy, restart) in policies {
        for max in [0, 1, 10_000] {
            for (within, within_ms) in times {
                for (grace, grace_ms) in graces {
                    for (signal, number) in signals {
                        let text = format!(
                            "name: m\nruntime:\n  native: {{ command: [/bin/true] }}\n  restart: {{ policy: {policy}, max: {max}, within: {within} }}\n  stop: {{ signal: {signal}, grace: {grace} }}\n"
                        );
                        let spec = spec_of(&text);
                        assert_eq!((spec.restart, spec.intensity.max), (restart, max), "{text}");
                        let ms = |d: Duration| d.as_millis() as u64;
                        assert_eq!(
                            (ms(spec.intensity.within), ms(spec.grace), spec.stop_signal),
                            (within_ms, grace_ms, number),
                            "{text}"
                        );
                        taken += 1;
                    }
                }
            }
        }
    }
    assert_eq!(taken, 432);
}

#[test]
fn a_spec_digest_is_of_what_is_started_and_of_nothing_else() {
    let of = |text: &str| {
        let plan = planned(text, Mode::Native, &[("TOKEN", "t")]).expect("a plan");
        plan.spec_digest()
    };
    let first = of(SMALL);
    assert_eq!(first.len(), 16);
    for same in [
        "# a comment\nname: m\nruntime: { native: { command: [prog] } }\n",
        "name: m\nversion: 2.0.0\nruntime:\n  native: { command: [prog] }\n  restart: always\n",
        "name: m\nruntime:\n  native: { command: [prog] }\n  resources: { memory: 1GiB }\n",
    ] {
        assert_eq!(of(same), first, "{same}");
    }
    for other in [
        "name: m\nruntime:\n  native: { command: [prog, -v] }\n",
        "name: m\nruntime:\n  native: { command: [prog], env: { A: b } }\n",
        "name: m\nruntime:\n  native: { command: [prog], workdir: /tmp }\n",
    ] {
        assert_ne!(of(other), first, "{other}");
    }
    // What is passed on from the runtime's environment is a secret as often as not.
    let passed = "name: m\nruntime:\n  native: { command: [prog], pass_env: [TOKEN] }\n";
    let with = |value| {
        let plan = planned(passed, Mode::Native, &[("TOKEN", value)]).expect("a plan");
        plan.spec_digest()
    };
    assert_eq!(with("a"), with("b"));
}
