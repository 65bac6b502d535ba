//! Every mistake is told, with its place and a next step: the corpus in `tests/bad`.
//!
//! `LAIR_BLESS=1` writes what is told now as what is expected; read the difference before committing it.

use lair_manifests::{Source, parse_config, parse_module, parse_stack, problem::render};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let files = std::fs::read_dir(folder).expect("the corpus");
    let files = files.map(|file| file.expect("an entry").path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

fn told(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a bad manifest");
    let name = path.file_name().expect("a name").to_string_lossy();
    let source = Source::of_text(&name, &text, Path::new("/srv/modules"));
    let problems = parse_stack(&source).expect_err("a mistake");
    render(&problems) + "\n"
}

/// O14, O26, O28: unknown keys are mistakes too.
#[test]
fn every_bad_manifest_is_told_what_is_wrong_with_it() {
    let mut wrong = Vec::new();
    for path in corpus() {
        let (told, expected) = (told(&path), path.with_extension("expected"));
        if std::env::var_os("LAIR_BLESS").is_some() {
            std::fs::write(&expected, &told).expect("writing what is expected");
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != told {
            wrong.push(format!("{}:\n{told}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_misspelt_restart_is_refused_with_the_right_word_and_place() {
    let text = "name: x\nruntime:\n  native: { command: [a] }\n  restrat: permanent\n";
    let problems = parse_module(&source(text)).expect_err("a mistake");
    assert_eq!(problems.len(), 1);
    let problem = &problems[0];
    assert_eq!(
        (problem.kind.code(), problem.line, problem.column),
        ("unknown_field", 4, 3)
    );
    assert_eq!(problem.pointer, "/runtime/restrat");
    assert_eq!(problem.help.as_deref(), Some("did you mean `restart`?"));
}

#[test]
fn no_problem_quotes_a_value_of_the_environment() {
    for path in corpus() {
        assert!(!told(&path).contains("hunter2"), "{}", path.display());
    }
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let deep_flow = "[".repeat(500_000);
    let deep_block: String = (0..2000).map(|i| " ".repeat(i) + "a:\n").collect();
    let wide: String = (0..60_000).map(|i| format!("k{i}: 1\n")).collect();
    let long_word = format!("name: {}\n", "a".repeat(900_000));
    let many_anchors: String = (0..50_000).map(|i| format!("- &a{i} x\n")).collect();
    let nested_anchors = "&a [".repeat(60) + &"x,".repeat(100_000) + &"]".repeat(60);
    let repeated = "k: 1\n".repeat(100_000);
    let big = format!("name: x # {}\n", "a".repeat(2 << 20));
    let nul = "name: \"a\\0b\"\nruntime: {}\n".to_owned();
    let texts = [
        deep_flow,
        deep_block,
        wide,
        long_word,
        many_anchors,
        nested_anchors,
        repeated,
        big,
        nul,
    ];
    for (i, text) in texts.iter().enumerate() {
        let start = Instant::now();
        let problems = parse_module(&source(text)).expect_err("a mistake");
        assert!(
            !problems.is_empty() && problems.len() <= 100,
            "text {i}: {}",
            problems.len()
        );
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "text {i}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_module_longer_than_a_mebibyte_and_a_stack_longer_than_sixteen_are_too_large() {
    let module = |n: usize| {
        format!(
            "name: x\nruntime: {{ native: {{ command: [a] }} }}\n# {}\n",
            "a".repeat(n)
        )
    };
    let code = |text: &str| parse_stack(&source(text)).map_err(|p| p[0].kind.code());
    assert_eq!(code(&module(1 << 20)).err(), Some("too_large"));
    assert!(code(&module((1 << 20) - 100)).is_ok());
    let stack = |n: usize| {
        format!(
            "modules: [ {{ name: x, runtime: {{ native: {{ command: [a] }} }} }} ]\n# {}\n",
            "a".repeat(n)
        )
    };
    assert!(code(&stack(2 << 20)).is_ok());
    assert_eq!(code(&stack(16 << 20)).err(), Some("too_large"));
}

#[test]
fn names_that_could_leave_their_folder_are_refused() {
    let long = "a".repeat(64);
    let names = [
        "..", "a..b", "a/b", "/a", "a\\0b", "", ".a", "-a", "A", "а", "a b", "a\\n", &long,
    ];
    for name in names {
        let text = format!("name: \"{name}\"\nruntime: {{ native: {{ command: [a] }} }}\n");
        let problems = parse_module(&source(&text)).expect_err(name);
        assert_eq!(problems[0].pointer, "/name", "{name}");
    }
    for name in ["a", "0", "llama.cpp", "a-b_c.d", &"a".repeat(63)] {
        let text = format!("name: \"{name}\"\nruntime: {{ native: {{ command: [a] }} }}\n");
        assert!(parse_module(&source(&text)).is_ok(), "{name}");
    }
}

#[test]
fn a_configuration_is_strict_below_runtime_and_blind_beside_it() {
    let text = "server: { a: 1, a2: [] }\nruntime: { nativ_enabled: no, policy: { allowed_mods: [] }, trust: { native: [ { name: x } ] }, gpu: { reserve: 5 }, metrics: { listen: localhost } }\n";
    let problems = parse_config(&source(text)).expect_err("mistakes");
    let pointers: Vec<&str> = problems.iter().map(|p| p.pointer.as_str()).collect();
    let expected = [
        "/runtime/nativ_enabled",
        "/runtime/policy/allowed_mods",
        "/runtime/trust/native/0",
        "/runtime/gpu/reserve",
        "/runtime/metrics/listen",
    ];
    assert_eq!(pointers, expected, "{}", render(&problems));
}

#[test]
fn metrics_are_for_this_machine_alone_unless_it_is_said() {
    let said = |listen: &str, more: &str| {
        let text = format!("runtime: {{ metrics: {{ listen: '{listen}'{more} }} }}\n");
        parse_config(&source(&text)).map_err(|problems| render(&problems))
    };
    for address in ["127.0.0.1:9464", "127.8.0.1:1", "[::1]:9464"] {
        let config = said(address, "").expect(address);
        let at = config.metrics.and_then(|metrics| metrics.address());
        assert_eq!(at.map(|at| at.to_string()).as_deref(), Some(address));
    }
    for address in ["0.0.0.0:9464", "[::]:9464", "192.168.1.2:9464"] {
        let why = said(address, "").expect_err(address);
        assert!(why.contains("runtime.metrics.listen"), "{why}");
        assert!(why.contains("allow_lan: true"), "{why}");
        said(address, ", allow_lan: true").expect(address);
    }
}

fn source(text: &str) -> Source {
    Source::of_text("test.yaml", text, Path::new("/srv/modules"))
}
