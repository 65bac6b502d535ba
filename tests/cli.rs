//! The program, as people and scripts use it.

mod face;

use face::{Lair, SLEEPER, SOON, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

fn run_code(script: &str, flags: &[&str]) -> (i32, String, String) {
    let lair = Lair::folder();
    let file = lair.module("once", script, "");
    let file = file.to_str().expect("path");
    let mut args = vec!["run", file];
    args.extend(flags);
    let out = lair.lair(&args);
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(&out.stdout),
        text(&out.stderr),
    )
}

#[test]
fn run_streams_both_outputs_and_ends_with_the_modules_code() {
    let (code, out, err) = run_code("echo to stdout; echo to stderr >&2; exit 7", &[]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (7, "to stdout\n", "to stderr\n")
    );
    assert_eq!(run_code("exit 0", &[]).0, 0);
    assert_eq!(run_code("kill -9 $$", &[]).0, 137);
}

#[test]
fn run_gives_arguments_and_settings_to_the_module() {
    let (code, out, _) = run_code(
        "echo $GREETING $0 $1",
        &["--set", "GREETING=hi there", "--", "first", "second"],
    );
    assert_eq!((code, out.as_str()), (0, "hi there first second\n"));
}

#[test]
fn run_loses_no_line_of_a_module_that_writes_much_and_ends() {
    let (code, out, _) = run_code("seq 1 50000", &[]);
    assert_eq!(code, 0);
    assert_eq!(out.lines().count(), 50_000);
    assert_eq!(out.lines().last(), Some("50000"));
}

#[test]
fn run_tells_a_program_that_is_missing_from_one_that_cannot_be_executed() {
    let lair = Lair::folder();
    let plain = lair.dir.join("plain");
    std::fs::write(&plain, "no program").expect("file");
    for (program, wanted) in [
        ("/no/such/program", 127),
        (plain.to_str().expect("path"), 126),
    ] {
        let text = face::manifest("broken", "x", "")
            .replace("[/bin/sh, -c, \"x\"]", &format!("[{program}]"));
        let file = lair.dir.join("broken.yaml");
        std::fs::write(&file, text).expect("manifest");
        let out = lair.lair(&["run", file.to_str().expect("path")]);
        assert_eq!(
            out.status.code(),
            Some(wanted),
            "{program}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let out = lair.lair(&["run", "/no/such/manifest.yaml"]);
    assert_eq!(
        out.status.code(),
        Some(125),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn ctrl_c_stops_a_run_gracefully_and_twice_kills_it() {
    for (script, signals, wanted) in [
        (
            "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done",
            1,
            5,
        ),
        (
            "trap '' TERM; echo up; while :; do sleep 0.05; done",
            2,
            137,
        ),
    ] {
        let lair = Lair::folder();
        let text = face::manifest("stubborn", script, "").replace("grace: 2s", "grace: 60s");
        let file = lair.dir.join("stubborn.yaml");
        std::fs::write(&file, text).expect("manifest");
        let mut child = lair
            .command(&["run", file.to_str().expect("path")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("run");
        let mut out = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        out.read_line(&mut line).expect("line");
        assert_eq!(line, "up\n");
        for _ in 0..signals {
            Command::new("kill")
                .args(["-s", "INT", &child.id().to_string()])
                .status()
                .expect("kill");
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        assert_eq!(child.wait().expect("wait").code(), Some(wanted), "{script}");
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("rest");
        assert_eq!(rest, if signals == 1 { "bye\n" } else { "" });
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let lair = Lair::folder();
    let file = lair.module("talker", "seq 1 200000", "");
    let mut child = lair
        .command(&["run", file.to_str().expect("path")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    drop(child.stdout.take());
    let mut err = String::new();
    child
        .stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut err)
        .expect("stderr");
    assert_eq!(
        (child.wait().expect("wait").code(), err.as_str()),
        (Some(0), "")
    );
    let shell = format!("{} schema manifest | head -1", face::LAIR);
    let out = Command::new("/bin/bash")
        .args(["-c", &format!("set -o pipefail; {shell}")])
        .output()
        .expect("bash");
    assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0));
}

#[test]
fn a_modules_life_through_the_daemon_has_the_documented_codes() {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    lair.module(
        "slow",
        "exec sleep 1000",
        "  health: { readiness: { tcp: { port: 1 }, interval: 1s } }\n",
    );
    let lair = lair.serve(&[]);
    assert_eq!(lair.ask(&["status", "sleeper"]).0, 3);
    assert_eq!(lair.ask(&["status", "nobody"]).0, 4);
    assert_eq!(lair.ask(&["ps", "-q"]), (0, String::new()));
    assert_eq!(lair.ask(&["ps", "-a", "-q"]), (0, "sleeper\nslow\n".into()));
    assert_eq!(lair.ask(&["start", "sleeper", "--wait=ready"]).0, 0);
    assert_eq!(lair.ask(&["status", "sleeper"]).0, 0);
    let (code, text) = lair.ask(&["status", "sleeper", "-o", "json"]);
    let status: Value = serde_json::from_str(&text).expect("json");
    assert_eq!((code, status["state"].as_str()), (0, Some("running")));
    assert_eq!(lair.ask(&["start", "slow", "nobody"]).0, 4);
    assert_eq!(
        lair.ask(&["wait", "slow", "--for", "ready", "--timeout", "300ms"])
            .0,
        124
    );
    assert_eq!(lair.ask(&["status", "slow"]).0, 7);
    assert_eq!(lair.ask(&["status"]).0, 7);
    assert_eq!(lair.ask(&["unload", "sleeper"]).0, 1);
    assert_eq!(
        lair.ask(&["logs", "sleeper", "--stream", "stdout"]),
        (0, "hello\n".into())
    );
    assert_eq!(lair.ask(&["kill", "--all", "--wait"]).0, 0);
    assert_eq!(lair.ask(&["status", "sleeper", "slow"]).0, 3);
    assert_eq!(lair.ask(&["unload", "slow"]).0, 0);
    assert_eq!(lair.ask(&["call", "no.such"]).0, 2);
    assert_eq!(lair.ask(&["--no-such-flag"]).0, 2);
    let elsewhere = lair.dir.join("outside.yaml");
    std::fs::write(&elsewhere, face::manifest("outside", SLEEPER, "")).expect("manifest");
    assert_eq!(lair.ask(&["load", elsewhere.to_str().expect("path")]).0, 5);
    assert_eq!(
        lair.ask(&["status", "sleeper", "--socket", "/no/such.sock"])
            .0,
        6
    );
}

#[test]
fn the_fast_way_prints_what_the_long_way_prints() {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    let lair = lair.serve(&[]);
    for words in [
        ["ps", "-a"],
        ["status", "sleeper"],
        ["status", "nobody"],
        ["ps", "-qa"],
    ] {
        let fast = lair.lair(&words);
        // A flag that the fast way declines.
        let long = lair.lair(&[words[0], words[1], "--color=auto"]);
        assert_eq!(
            (fast.status.code(), fast.stdout, fast.stderr),
            (long.status.code(), long.stdout, long.stderr)
        );
    }
}

#[test]
fn logs_are_merged_filtered_followed_and_readable_without_a_daemon() {
    let lair = Lair::folder();
    lair.module("one", "echo one-a; echo one-b >&2; exec sleep 1000", "");
    lair.module("two", "echo two-a; exec sleep 1000", "");
    let mut lair = lair.serve(&["--start"]);
    until("both wrote", SOON, || {
        lair.ask(&["logs", "one", "two", "--stream", "stdout"])
            .1
            .lines()
            .count()
            == 2
    });
    assert_eq!(
        lair.ask(&["logs", "one", "--stream", "stderr"]).1,
        "one-b\n"
    );
    assert_eq!(lair.ask(&["logs", "one", "-g", "^one-[a]$"]).1, "one-a\n");
    let (_, json) = lair.ask(&[
        "logs", "two", "-n", "1", "--stream", "stdout", "-o", "jsonl",
    ]);
    let line: Value = serde_json::from_str(&json).expect("json");
    assert_eq!(
        (
            line["name"].as_str(),
            line["text"].as_str(),
            line["run"].as_u64()
        ),
        (Some("two"), Some("two-a"), Some(1))
    );

    let mut follow = lair
        .command(&["logs", "two", "-f", "--stream", "stdout"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("logs");
    let mut out = BufReader::new(follow.stdout.take().expect("stdout"));
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("line");
        line
    };
    assert_eq!(next(), "two-a\n");
    assert_eq!(lair.ask(&["restart", "two"]).0, 0);
    assert_eq!(next(), "two-a\n");
    follow.kill().expect("kill");
    follow.wait().expect("wait");
    assert_eq!(
        lair.ask(&["logs", "two", "--previous", "--stream", "stdout"])
            .1,
        "two-a\n"
    );
    assert_eq!(lair.term(), Some(0));
    assert_eq!(
        lair.ask(&["logs", "one", "--stream", "stderr"]),
        (0, "one-b\n".into())
    );
    assert_eq!(lair.ask(&["logs", "nobody"]).0, 4);
}

#[test]
fn a_stack_comes_up_in_the_foreground_and_goes_down_on_term() {
    let lair = Lair::folder();
    let module = |name: &str| face::manifest(name, SLEEPER, "").replace('\n', "\n    ");
    let stack = format!(
        "modules:\n  - {}\n  - {}\n",
        module("first"),
        module("second")
    );
    let file = lair.dir.join("stack.yaml");
    std::fs::write(&file, stack).expect("stack");
    let mut child = lair
        .command(&["up", file.to_str().expect("path"), "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("up");
    let mut err = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    err.read_line(&mut line).expect("line");
    assert_eq!(line, "ready\n");
    assert_eq!(lair.ask(&["ps", "-q"]), (0, "first\nsecond\n".into()));
    let mut out = BufReader::new(child.stdout.take().expect("stdout"));
    let mut lines = vec![String::new(), String::new()];
    lines
        .iter_mut()
        .for_each(|l| assert!(out.read_line(l).expect("line") > 0));
    lines.sort();
    assert_eq!(lines, ["first  | hello\n", "second | hello\n"]);
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    assert_eq!(lair.ask(&["ps"]).0, 6);
}

#[test]
fn a_stack_goes_through_the_daemon_and_down_again() {
    let lair = Lair::folder();
    let file = lair.module("stacked", SLEEPER, "");
    let file = file.to_str().expect("path").to_owned();
    let lair = lair.serve(&[]);
    assert_eq!(lair.ask(&["up", "-d", "--wait", &file]).0, 0);
    assert_eq!(lair.ask(&["status", "stacked"]).0, 0);
    assert_eq!(lair.ask(&["down", &file]).0, 0);
    assert_eq!(lair.ask(&["status", "stacked"]).0, 4);
    assert_eq!(lair.ask(&["down", &file]).0, 0);
}

#[test]
fn the_daemon_tells_its_manager_when_it_is_ready_and_when_it_stops() {
    let lair = Lair::folder();
    let path = lair.dir.join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(SOON)).expect("timeout");
    let mut child = lair
        .command(&["serve"])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .expect("serve");
    let hear = || {
        let mut word = [0u8; 64];
        let n = socket.recv(&mut word).expect("a word");
        String::from_utf8_lossy(&word[..n]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(lair.ask(&["ps"]).0, 0);
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .expect("kill");
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    assert!(!face::exists(&lair.socket()));
}

#[test]
fn colours_come_only_where_they_are_wanted() {
    let lair = Lair::folder();
    let coloured = |command: &mut Command| {
        let out = command.output().expect("lair");
        String::from_utf8_lossy(&out.stderr).contains("\x1b[")
    };
    let ps = || lair.command(&["ps"]);
    assert!(!coloured(&mut ps()));
    assert!(coloured(ps().env("CLICOLOR_FORCE", "1")));
    assert!(!coloured(
        ps().env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1")
    ));
    assert!(coloured(&mut lair.command(&["ps", "--color", "always"])));
    assert!(!coloured(
        lair.command(&["ps", "--color", "never"])
            .env("CLICOLOR_FORCE", "1")
    ));
}

#[test]
fn completions_can_be_made_for_every_shell() {
    let lair = Lair::folder();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script) = lair.ask(&["completion", shell]);
        assert!(code == 0 && script.contains("inspect"), "{shell}");
    }
}
