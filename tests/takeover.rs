//! A new version of the program takes over from the old one, and no module notices.

mod face;

use face::{LAIR, Lair, SOON, until};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const SCRIPT: &str = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.005; done";

fn up(lair: &Lair, name: &str) -> Value {
    let file = lair.module(name, SCRIPT, "");
    let mut conn = lair.connect();
    conn.ok(
        "module.load",
        json!({ "path": file.to_str().expect("path") }),
    );
    conn.ok("module.start", json!({ "name": name }));
    lair.until_state(name, "running");
    lair.status(name)
}

fn info(lair: &Lair) -> Value {
    lair.connect().ok("runtime.info", json!({}))
}

/// Waits for the answer of another life: its events go on above the numbers that were reserved.
fn until_reborn(lair: &Lair, before: &Value) {
    let newest = |info: &Value| info["newest_event"].as_u64().unwrap_or(0);
    until("another life answers", SOON, || {
        std::os::unix::net::UnixStream::connect(lair.socket()).is_ok_and(|stream| {
            let answer = face::Conn::new(stream).try_ok("runtime.info", json!({}));
            answer.is_some_and(|info| newest(&info) > newest(before) + 512)
        })
    });
}

fn same_life(before: &Value, after: &Value) {
    for key in ["pid", "run", "started_at", "restarts"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(after["state"], "running");
}

fn lines_are_whole(lair: &Lair, name: &str) {
    let mut text = String::new();
    until("a few lines", SOON, || {
        let (code, said) = lair.ask(&["logs", name, "--stream", "stdout"]);
        assert_eq!(code, 0);
        text = said;
        text.lines().count() > 10
    });
    for (at, line) in text.lines().enumerate() {
        assert!(line.ends_with(&format!("line {}", at + 1)), "{at}: {line}");
    }
}

#[test]
fn usr2_makes_the_daemon_the_program_that_stands_at_its_path_and_no_module_notices() {
    let dir = Lair::folder();
    // Its own copy of the program, to be replaced as a package manager would.
    let program = dir.dir.join("lair");
    std::fs::copy(LAIR, &program).expect("a copy");
    let mut lair = dir;
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let log = std::fs::File::create(lair.dir.join("serve.log")).expect("log");
    lair.daemon = Some(command.stderr(log).arg0("lair").spawn().expect("serve"));
    until("the socket", SOON, || {
        std::os::unix::net::UnixStream::connect(lair.socket()).is_ok()
    });
    let before = up(&lair, "m");
    let newest = info(&lair);
    let fresh = lair.dir.join("lair.new");
    std::fs::copy(LAIR, &fresh).expect("a copy");
    std::fs::rename(&fresh, &program).expect("replaced");
    lair.signal("USR2");
    until_reborn(&lair, &newest);
    let after = info(&lair);
    assert_eq!(after["pid"], newest["pid"], "the same process");
    assert_eq!(after["keeper_pid"], newest["keeper_pid"], "the same keeper");
    assert!(after["newest_event"].as_u64() > newest["newest_event"].as_u64());
    let exe = std::fs::read_link(format!("/proc/{}/exe", lair.pid())).expect("exe");
    assert_eq!(exe, program, "and not the deleted one");
    same_life(&before, &lair.status("m"));
    lines_are_whole(&lair, "m");
    assert_eq!(lair.term(), Some(0));
}

#[test]
fn a_successor_takes_everything_over_and_the_old_one_leaves_with_0() {
    let mut lair = Lair::folder().serve(&[]);
    let before = up(&lair, "m");
    let newest = info(&lair);
    let mut old = lair.daemon.take().expect("daemon");
    let log = std::fs::File::create(lair.dir.join("second.log")).expect("log");
    let new = lair
        .command(&["serve", "--takeover"])
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()
        .expect("serve");
    lair.daemon = Some(new);
    assert!(old.wait().expect("gone").success());
    until_reborn(&lair, &newest);
    assert_eq!(info(&lair)["keeper_pid"], newest["keeper_pid"]);
    same_life(&before, &lair.status("m"));
    lines_are_whole(&lair, "m");
    assert_eq!(lair.term(), Some(0));
}

#[test]
fn under_kill_a_handover_still_costs_no_module() {
    let lair = Lair::folder();
    let config = lair.dir.join("config.yaml");
    let text = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, text + "  if_runtime_dies: kill\n").expect("config");
    let mut lair = lair.serve(&[]);
    let before = up(&lair, "m");
    let newest = info(&lair);
    lair.signal("USR2");
    until_reborn(&lair, &newest);
    same_life(&before, &lair.status("m"));
    lines_are_whole(&lair, "m");
    assert_eq!(lair.term(), Some(0));
}

#[test]
fn a_program_that_does_not_start_is_not_handed_over_to() {
    let dir = Lair::folder();
    let program = dir.dir.join("lair");
    std::fs::copy(LAIR, &program).expect("a copy");
    let mut lair = dir;
    let log = std::fs::File::create(lair.dir.join("serve.log")).expect("log");
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"));
    lair.daemon = Some(
        command
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("serve"),
    );
    until("the socket", SOON, || {
        std::os::unix::net::UnixStream::connect(lair.socket()).is_ok()
    });
    let before = up(&lair, "m");
    std::fs::remove_file(&program).expect("removed");
    std::fs::write(&program, "no program").expect("replaced");
    lair.signal("USR2");
    until("it says so", SOON, || {
        lair.log().contains("not handed over")
    });
    same_life(&before, &lair.status("m"));
    assert_eq!(lair.term(), Some(0));
}

#[test]
fn a_client_goes_on_by_number_in_the_next_life_and_is_told_the_gap() {
    let mut lair = Lair::folder().serve(&[]);
    up(&lair, "m");
    let newest = info(&lair);
    let seen = newest["newest_event"].as_u64().expect("a number");
    lair.signal("USR2");
    until_reborn(&lair, &newest);
    let mut conn = lair.connect();
    conn.ok("events.subscribe", json!({ "from_seq": seen + 1 }));
    let first = conn.line().expect("a notice");
    let gap = &first["params"]["gap"];
    assert_eq!(gap["from"].as_u64(), Some(seen + 1), "{first}");
    let upto = gap["to"].as_u64().expect("a gap");
    let snapshot = conn.line().expect("a snapshot");
    assert_eq!(snapshot["params"]["snapshot"]["modules"][0]["name"], "m");
    let next = conn.line().expect("an event");
    assert_eq!(
        next["params"]["event"]["seq"].as_u64(),
        Some(upto + 1),
        "{next}"
    );
    assert_eq!(lair.term(), Some(0));
}
