//! The program at its edges: readers that read nothing, thousands of modules, odd JSON, every format.

mod face;

use face::{Lair, SLEEPER, SOON, until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const FLOOD: &str =
    "trap 'exit 0' TERM; while :; do echo 0123456789012345678901234567890123456789; done";

fn term(child: &Child) {
    let sent = Command::new("kill")
        .args(["-s", "TERM", &child.id().to_string()])
        .status();
    assert!(sent.is_ok_and(|s| s.success()));
}

fn ends(child: &mut Child, within: Duration) -> Option<i32> {
    let mut code = None;
    until("the program's end", within, || {
        code = child.try_wait().expect("wait");
        code.is_some()
    });
    code.and_then(|c| c.code())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_reader_that_takes_nothing_keeps_no_module_alive() {
    for verb in ["up", "run"] {
        let lair = Lair::folder();
        let file = lair.module("flood", FLOOD, "");
        let mut child = lair
            .command(&[verb, file.to_str().expect("path")])
            .stdout(Stdio::piped())
            .spawn()
            .expect(verb);
        let log = lair.dir.join("logs/flood/current.log");
        until("more output than a pipe holds", SOON, || {
            fs::metadata(&log).is_ok_and(|m| m.len() > 2 << 20)
        });
        term(&child);
        assert_eq!(ends(&mut child, SOON), Some(0), "{verb}");
    }
}

#[test]
fn what_modules_say_while_they_stop_is_shown_by_up() {
    let lair = Lair::folder();
    let script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done";
    let file = lair.module("polite", script, "");
    let mut child = lair
        .command(&["up", file.to_str().expect("path")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("up");
    let mut out = child.stdout.take().expect("stdout");
    let mut seen = Vec::new();
    until("its first words", SOON, || {
        let mut some = [0; 256];
        let n = out.read(&mut some).expect("read");
        seen.extend_from_slice(&some[..n]);
        text(&seen).contains("hello")
    });
    term(&child);
    out.read_to_end(&mut seen).expect("rest");
    assert_eq!(ends(&mut child, SOON), Some(0));
    assert_eq!(text(&seen), "polite | hello\npolite | bye\n");
}

#[test]
fn run_shows_both_streams_in_the_order_of_the_log() {
    let lair = Lair::folder();
    // More than a pipe holds, so that what follows waits and is shown in one go.
    let script = "seq 1 100000; sleep 0.2; for i in 1 2 3 4 5 6 7 8 9; do \
                  echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done; echo end";
    let file = lair.module("two", script, "");
    let (mut shown, out) = std::io::pipe().expect("pipe");
    let mut command = lair.command(&["run", file.to_str().expect("path")]);
    command.stdout(out.try_clone().expect("pipe")).stderr(out);
    let mut child = command.spawn().expect("run");
    drop(command);
    until("the module's end", SOON, || {
        lair.ask(&["logs", "two", "-n", "1"]).1.contains("exited")
    });
    let mut all = String::new();
    shown.read_to_string(&mut all).expect("output");
    assert_eq!(ends(&mut child, SOON), Some(0));
    let (code, log) = lair.ask(&["logs", "two"]);
    assert_eq!(code, 0);
    let last = |text: &str| -> Vec<String> {
        let words = text.lines().filter(|l| l.starts_with(['o', 'e']));
        words.map(str::to_owned).collect()
    };
    assert_eq!(last(&all).len(), 19);
    assert_eq!(last(&all), last(&log));
}

#[test]
fn parameters_may_be_written_over_several_lines() {
    let lair = Lair::folder();
    lair.module("idle", SLEEPER, "");
    let lair = lair.serve(&[]);
    let (code, out) = lair.ask(&["call", "module.status", "{\n  \"name\":\r\n  \"idle\"\n}\n"]);
    assert_eq!(code, 0);
    let status: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(status["name"], "idle");
}

#[test]
fn doctor_says_in_words_what_it_says_in_json() {
    let lair = Lair::folder();
    let (code, json) = lair.ask(&["doctor", "-o", "json"]);
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let (code, words) = lair.ask(&["doctor"]);
    assert_eq!(code, 0);
    for finding in json["findings"].as_array().expect("findings") {
        // The rest may differ between two looks: a folder's name, a number.
        let what = finding["what"].as_str().expect("what");
        let said: String = finding["found"]
            .as_str()
            .expect("text")
            .chars()
            .take(10)
            .collect();
        assert!(words.contains(&format!("{what}: {said}")), "{words}");
    }
}

#[test]
fn codes_and_formats_are_the_documented_ones_at_the_edges() {
    let lair = Lair::folder();
    let file = lair.module("idle", SLEEPER, "");
    let file = file.to_str().expect("path");
    let lair = lair.serve(&[]);
    assert_eq!(lair.ask(&["kill", "-s", "HUP", "idle"]).0, 3, "not running");
    assert_eq!(
        lair.ask(&["load", file, "-o", "name"]),
        (0, "idle\n".into())
    );
    let (code, out) = lair.ask(&["load", file, "/no/such.yaml", "-o", "jsonl"]);
    assert_eq!(code, 1, "the second file is not there");
    assert_eq!(out, "{\"name\":\"idle\",\"result\":\"same\"}\n");
    assert_eq!(
        lair.ask(&["start", "idle", "--wait", "-o", "name"]),
        (0, "idle\n".into())
    );
    assert_eq!(
        lair.ask(&["logs", "idle", "--run", "99"]).0,
        1,
        "no such run"
    );
    assert_eq!(
        lair.ask(&["logs", "idle", "--since", "99999999999-01-01T00:00:00Z"])
            .0,
        2
    );
    let (code, out) = lair.ask(&["down", file, "-o", "jsonl"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "{\"name\":\"idle\",\"result\":\"down\"}\n")
    );
    assert_eq!(lair.ask(&["status", "-o", "json"]), (0, "[]\n".into()));
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_the_daemon_up() {
    let lair = Lair::folder();
    lair.module("idle", SLEEPER, "");
    let (unread, mut full) = std::io::pipe().expect("pipe");
    // As much as a pipe holds: the next byte would wait for ever.
    full.write_all(&[b'x'; 64 * 1024]).expect("fill");
    let mut command = lair.command(&["serve", "--start"]);
    let mut daemon = command.stderr(full).spawn().expect("serve");
    drop(command);
    until("the module", SOON, || {
        // A daemon that hangs would let it wait for ever.
        let wait = ["wait", "idle", "--for", "ready", "--timeout", "100ms"];
        lair.socket().exists() && lair.ask(&wait).0 == 0
    });
    term(&daemon);
    assert_eq!(ends(&mut daemon, SOON), Some(0));
    drop(unread);
}
