//! The examples of every verb's `--help`, run as they are written against a daemon with modules of their names.

mod face;

use face::{Lair, SOON, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than any example takes on two busy cores.
const LONG: Duration = Duration::from_secs(120);

/// What has to be so before a verb's examples mean something; the daemon runs, and `redis` and `qdrant` are up, before each example.
const BEFORE: &[(&str, &str)] = &[
    ("down", "lair up -d --wait=ready stack.yaml"),
    ("unload", "lair stop redis --wait"),
    ("thaw", "lair freeze redis"),
    // Two runs that ended.
    (
        "why",
        "lair kill redis --wait; lair start redis --wait=ready; lair kill redis --wait",
    ),
    (
        "report",
        "lair kill redis --wait; lair start redis --wait=ready",
    ),
];
/// Whose effect may be seen a moment after their answer.
const ENDS_REDIS: [&str; 2] = ["lair kill", "lair inject crash"];
/// Verbs that go on until they are told to end: they are, once they have said something.
const LASTING: [&str; 4] = ["up stack.yaml", "serve", "logs redis -f", "events -f"];
/// Words of examples that mean a real machine's folders or its owner's time, and what they mean here.
const HERE: [(&str, &str); 6] = [
    ("/etc/lair/config.yaml", "second.yaml.config"),
    ("/etc/bash_completion.d/lair", "completion"),
    ("--for 30s", "--for 2s"),
    // Beside a daemon of the same, named configuration it would be refused.
    (
        "lair up stack.yaml",
        "lair --config second.yaml.config up stack.yaml",
    ),
    // A terminal, and somebody who presses q.
    ("lair top", "in-a-terminal lair top"),
    (
        "lair --color never top",
        "in-a-terminal lair --color never top",
    ),
];
/// A terminal, and somebody who presses q when the modules are seen.
const TERMINAL: &str = r#"#!/bin/bash
s=$PWD/tmux.$$
tmux -S "$s" -f /dev/null new-session -d -x 80 -y 24 "$*; echo \$? > $s.code"
until tmux -S "$s" capture-pane -p | grep -q qdrant; do sleep 0.1; done
tmux -S "$s" send-keys q
until [ -s "$s.code" ]; do sleep 0.1; done
exit "$(cat "$s.code")"
"#;
/// Codes other than 0 that are an answer.
const ANSWERS: [(&str, i32); 1] = [("plan", 8)];

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file");
}

/// A daemon over the modules that the examples speak of.
fn stage() -> Lair {
    let lair = Lair::folder();
    let health = "  health: { startup: { log: { pattern: '^ready' } } }\n";
    let script = "trap 'exit 0' TERM; echo ready; echo WARN said >&2; while :; do sleep 0.1; done";
    lair.module("qdrant", script, health);
    // A server that can be parked.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    let port = port.expect("a port").port();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/sleeper.py");
    lair.module(
        "redis",
        &format!("exec python3 {program} {port} 20"),
        &format!(
            "  ports: {{ api: {port} }}\n{health}  park: {{ http: {{ port: api, path: /sleep }} }}\n  wake: {{ http: {{ port: api, path: /wake }} }}\n"
        ),
    );
    let dir = lair.dir.join("modules");
    let one = |name: &str| {
        format!(
            "- {{ name: {name}, runtime: {{ native: {{ command: [/bin/sh, -c, 'echo up; exec sleep 1000'] }} }} }}\n"
        )
    };
    write(
        &dir,
        "stack.yaml",
        &format!("modules:\n{}{}", one("first"), one("second")),
    );
    write(
        &dir,
        "llama.yaml",
        "name: llama\nruntime: { native: { command: [/bin/sh, -c, 'echo $MODEL $1', sh], env: { MODEL: none } } }\n",
    );
    write(
        &dir,
        "drill.jsonl",
        "{\"after_ms\": 50, \"call\": \"module.restart\", \"params\": {\"name\": \"redis\"}}\n",
    );
    let other = lair.dir.join("other");
    fs::create_dir_all(&other).expect("a folder");
    let text = format!(
        "runtime:\n  state_dir: {0}/state\n  log_dir: {0}/logs\n  run_dir: {0}/run\n",
        other.display()
    );
    write(&dir, "second.yaml.config", &text);
    // What an example's pipe needs, and no more.
    let jq = "#!/usr/bin/python3\nimport json, sys\nprint(json.load(sys.stdin)[sys.argv[1].lstrip('.')])\n";
    let bin = lair.dir.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    for (name, text) in [("jq", jq), ("in-a-terminal", TERMINAL)] {
        write(&bin, name, text);
        fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).expect("a mode");
    }
    lair.serve(&["--allow-faults"])
}

/// A line of shell in the modules' folder.
fn shell(lair: &Lair, line: &str) -> Command {
    let folder = Path::new(face::LAIR).parent().expect("a folder").display();
    let mut command = Command::new("bash");
    command
        .args(["-c", line])
        .current_dir(lair.dir.join("modules"))
        .env(
            "PATH",
            format!(
                "{folder}:{}/bin:/usr/local/bin:/usr/bin:/bin",
                lair.dir.display()
            ),
        )
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"))
        .env("TERM", "xterm")
        .env_remove("LAIR_SOCKET")
        .stdin(Stdio::null());
    command
}

fn prepare(lair: &Lair, line: &str) {
    let out = shell(lair, line).output().expect("bash");
    assert!(
        out.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Runs an example; its code and all that it said.
fn run(lair: &Lair, line: &str, lasting: bool) -> (i32, String) {
    let said = lair.dir.join("said");
    let file = fs::File::create(&said).expect("a file");
    let line = if lasting {
        format!("exec {line}")
    } else {
        line.to_owned()
    };
    let mut command = shell(lair, &line);
    command
        .stdout(file.try_clone().expect("a file"))
        .stderr(file);
    let mut child = command.spawn().expect("bash");
    let mut code = None;
    if lasting {
        until(&format!("`{line}` says something"), LONG, || {
            fs::metadata(&said).is_ok_and(|m| m.len() > 0)
        });
        let pid = child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
    }
    until(&format!("the end of `{line}`"), LONG, || {
        code = child.try_wait().expect("the shell");
        code.is_some()
    });
    let text = fs::read_to_string(&said).unwrap_or_default();
    // Who only reads has nothing to put away, and ends by the signal.
    let code = code.map_or(-1, |c| c.code().unwrap_or(if lasting { 0 } else { -1 }));
    (code, text)
}

fn examples(help: &str) -> Vec<String> {
    let after = help.split("Example:\n").nth(1).unwrap_or_default();
    let lines = after.lines().map_while(|l| l.strip_prefix("  "));
    lines.map(|l| l.trim().to_owned()).collect()
}

/// The verbs that `lair --help` lists.
fn verbs(lair: &Lair) -> Vec<String> {
    let (_, help) = lair.ask(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|l| !l.is_empty());
    let verbs = lines.filter(|l| !l.starts_with("    "));
    verbs
        .filter_map(|l| l.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn every_example_of_the_help_does_what_it_is_for() {
    let lair = stage();
    let verbs = verbs(&lair);
    assert!(verbs.len() > 30, "{verbs:?}");
    // What breaks most comes last.
    let (hard, soft): (Vec<String>, Vec<String>) = verbs
        .into_iter()
        .partition(|v| v == "inject" || v == "chaos");
    for verb in soft.iter().chain(&hard) {
        let (code, help) = lair.ask(&[verb, "--help"]);
        let examples = examples(&help);
        assert!(
            code == 0 && !examples.is_empty(),
            "`lair {verb} --help` has no example:\n{help}"
        );
        for example in examples {
            prepare(
                &lair,
                "lair load redis.yaml qdrant.yaml && timeout 60 bash -c 'until lair start redis qdrant --wait=ready; do sleep 0.1; done'",
            );
            for (of, line) in BEFORE {
                if of == verb {
                    prepare(&lair, line);
                }
            }
            let lasting = LASTING
                .iter()
                .any(|l| example.starts_with(&format!("lair {l}")));
            let here = HERE.iter().fold(example.clone(), |line, (word, other)| {
                if word.starts_with("lair ") && line != *word {
                    line
                } else {
                    line.replace(word, other)
                }
            });
            let (code, said) = run(&lair, &here, lasting);
            if ENDS_REDIS.iter().any(|l| example.starts_with(l)) {
                prepare(&lair, "lair wait redis --for exited --timeout 60s");
            }
            let answer = ANSWERS.iter().any(|(v, c)| v == verb && *c == code);
            assert!(
                code == 0 || answer,
                "`{here}` ended with {code}:\n{said}\n{}",
                lair.log()
            );
        }
    }
    until("the daemon still answers", SOON, || {
        lair.ask(&["ps"]).0 == 0
    });
}
