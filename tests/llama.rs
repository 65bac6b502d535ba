//! The story of README's first command: a real llama.cpp server under lair. `tests/run` brings server and model.

use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A missing server or model is a failure, never a skip: this is the story that lair is for.
fn given(name: &str) -> String {
    let path = std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run tests/run, or eval \"$(tests/checks/machine)\" first")
    });
    assert!(Path::new(&path).exists(), "{name}={path} does not exist");
    path
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .expect("a free port")
}

/// The quick start's program is built by cargo beside the tests.
fn quickstart() -> PathBuf {
    let me = std::env::current_exe().expect("the test has a path");
    let program = me
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .join("examples/quickstart");
    assert!(
        program.exists(),
        "{} is not built: cargo build --example quickstart",
        program.display()
    );
    program
}

/// The quick start's manifest on a port of this test's own, in a folder of its own.
fn manifest(dir: &Path, port: u16, edit: impl Fn(String) -> String) -> PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/llama");
    let text = fs::read_to_string(example.join("manifest.yaml")).expect("the manifest");
    fs::copy(example.join("template.jinja"), dir.join("template.jinja")).expect("its template");
    assert!(
        text.contains("api: 18080"),
        "the manifest's port has changed"
    );
    let path = dir.join("manifest.yaml");
    fs::write(
        &path,
        edit(text.replace("api: 18080", &format!("api: {port}"))),
    )
    .expect("a manifest is written");
    path
}

fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder");
    dir
}

fn run(dir: &Path, manifest: &Path, question: &str, model: &str) -> Output {
    Command::new(quickstart())
        .arg(manifest)
        .args(["--ask", question])
        .env("LLAMA_SERVER", given("LAIR_LLAMA_SERVER"))
        .env("MODEL", model)
        .env("XDG_STATE_HOME", dir)
        .stdin(Stdio::null())
        .output()
        .expect("the quick start runs")
}

#[test]
fn a_real_model_server_is_watched_asked_and_stopped_with_proof() {
    let dir = folder("llama");
    let port = free_port();
    let output = run(
        &dir,
        &manifest(&dir, port, |m| m),
        "What is the capital of France?",
        &given("LAIR_LLAMA_MODEL"),
    );
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{shown}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let position = |what: &str| {
        shown
            .find(what)
            .unwrap_or_else(|| panic!("no {what:?} in\n{shown}"))
    };
    // Seen in the order in which it happened.
    let order = [
        "event   \"starting\"",
        "event   \"running\"",
        "healthy after",
        "> What is the capital",
        "tokens per second",
        "== ps",
        "== stop",
        "0 are left",
    ]
    .map(|what| position(what.replace('"', "").as_str()));
    assert!(order.is_sorted(), "{order:?} in\n{shown}");

    let answer = shown
        .split("> What is the capital of France?\n")
        .nth(1)
        .and_then(|rest| rest.split("\n(").next())
        .expect("an answer");
    assert!(!answer.trim().is_empty(), "the answer is empty:\n{shown}");
    let speed = shown
        .split(" tokens, ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|n| n.parse::<f64>().ok())
        .expect("a speed");
    assert!(speed > 0.0, "{speed} tokens per second");

    let exit = shown
        .lines()
        .find_map(|l| {
            l.strip_prefix("state      stopped in ")?
                .split_once(", exit ")
        })
        .expect("an exit");
    let exit: Value = serde_json::from_str(exit.1).expect("the exit is JSON");
    assert_eq!(exit["code"], 0, "{exit}");
    assert_eq!(exit["killed_after_grace"], false, "{exit}");
    TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    fs::remove_dir_all(&dir).expect("its folder can be removed");
}

#[test]
fn a_model_that_is_not_there_is_a_failure_with_the_servers_own_words() {
    let dir = folder("no-model");
    let once = |m: String| m.replace("policy: on-failure", "policy: never");
    let output = run(
        &dir,
        &manifest(&dir, free_port(), once),
        "Anybody there?",
        "/nonexistent/model.gguf",
    );
    let (shown, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(!output.status.success(), "{shown}");
    assert!(
        shown.contains("/nonexistent/model.gguf"),
        "the server's own words are missing:\n{shown}"
    );
    assert!(said.contains("will not become healthy"), "{said}");
    fs::remove_dir_all(&dir).expect("its folder can be removed");
}

#[test]
fn a_memory_limit_that_fits_is_not_noticed_and_one_that_does_not_is_named_within_one_screen() {
    let dir = folder("limits");
    let limited = |limit: &'static str| {
        move |m: String| {
            let limit = format!(
                "  resources: {{ memory: {{ limit: {limit}, enforce: required }} }}\n  stop:"
            );
            assert!(m.contains("\n  stop:"), "the manifest has changed");
            m.replace("policy: on-failure", "policy: never")
                .replace("  stop:", &limit)
        }
    };
    let asked = "What is the capital of France?";
    let model = given("LAIR_LLAMA_MODEL");
    let fits = manifest(&dir, free_port(), limited("1GiB"));
    let output = run(&dir, &fits, asked, &model);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("tokens per second"), "{shown}");

    let small = manifest(&dir, free_port(), limited("32MiB"));
    let output = run(&dir, &small, asked, &model);
    assert!(!output.status.success());
    let all = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = all.lines().collect();
    let screen = lines[lines.len().saturating_sub(24)..].join("\n");
    for why in ["oom=yes", "for lack of memory", "its limit is 32MiB"] {
        assert!(screen.contains(why), "no {why:?} in\n{screen}");
    }
    fs::remove_dir_all(&dir).expect("its folder can be removed");
}
