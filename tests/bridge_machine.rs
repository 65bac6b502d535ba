//! What the machine may do to the daemon: X1, X5, X6, X7 of the fault list.

mod face;

use face::{Lair, SLEEPER, SOON, until};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

fn nofile(pid: u32, limit: &str) {
    let done = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}")])
        .status();
    assert!(done.expect("prlimit").success());
}

#[test]
fn an_empty_descriptor_table_costs_a_pause_and_no_spin() {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    let lair = lair.serve(&[]);
    let mut conn = lair.connect();
    conn.ok("module.start", json!({ "name": "sleeper" }));
    lair.until_state("sleeper", "running");
    let free =
        |fd: &usize| !std::path::Path::new(&format!("/proc/{}/fd/{fd}", lair.pid())).exists();
    let lowest = (0..).find(free).expect("a free number");
    nofile(lair.pid(), &format!("{}:4096", lowest + 2));
    let waiting: Vec<UnixStream> = (0..20)
        .map(|_| UnixStream::connect(lair.socket()).expect("backlog"))
        .collect();
    until("accepting fails", SOON, || {
        lair.log().contains("can't accept a connection")
    });
    let before = lair.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let spent = lair.cpu_ticks() - before;
    assert!(spent <= 10, "{spent} ticks of 10 ms in a second");
    assert_eq!(
        conn.ok("module.status", json!({ "name": "sleeper" }))["state"],
        "running"
    );
    nofile(lair.pid(), "1024:4096");
    drop(waiting);
    until("it accepts again", SOON, || {
        let stream = UnixStream::connect(lair.socket()).expect("connect");
        face::Conn::new(stream)
            .raw(br#"{"jsonrpc":"2.0","id":1,"method":"runtime.info"}"#)
            .get("result")
            .is_some()
    });
}

#[test]
fn a_storm_of_signals_changes_nothing() {
    let mut lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    lair = lair.serve(&["--start"]);
    lair.until_state("sleeper", "running");
    let before = lair.status("sleeper")["pid"].clone();
    let pid = rustix::process::Pid::from_raw(i32::try_from(lair.pid()).expect("pid")).expect("pid");
    for _ in 0..1500 {
        for signal in [
            rustix::process::Signal::HUP,
            rustix::process::Signal::USR1,
            rustix::process::Signal::USR2,
            rustix::process::Signal::CHILD,
            rustix::process::Signal::WINCH,
            rustix::process::Signal::PIPE,
        ] {
            rustix::process::kill_process(pid, signal).expect("kill");
        }
    }
    // USR2 makes it the program at its path again, and for that moment nobody is at the socket.
    until("it is itself again", SOON, || {
        let ended = lair
            .daemon
            .as_mut()
            .and_then(|d| d.try_wait().expect("waiting"));
        assert!(ended.is_none(), "it ended: {ended:?}");
        let (code, said) = lair.ask(&["status", "sleeper", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        assert!(
            code == 6 || said.is_empty() || status["pid"] == before,
            "{said}"
        );
        assert!(code == 6 || said.is_empty() || status["run"] == 1, "{said}");
        code == 0
    });
    assert_eq!(lair.term(), Some(0));
}

#[test]
fn closed_standard_streams_mix_nothing_up() {
    let lair = Lair::folder();
    lair.module(
        "sleeper",
        "for i in 1 2 3; do echo module-output-$i; done; exec sleep 1000",
        "",
    );
    // The shell closes all three, then becomes the daemon.
    let script = format!("exec {} serve --start 0<&- 1>&- 2>&-", face::LAIR);
    let mut daemon = Command::new("/bin/sh")
        .args(["-c", &script])
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"))
        .spawn()
        .expect("serve");
    until("the socket", SOON, || {
        UnixStream::connect(lair.socket()).is_ok()
    });
    lair.until_state("sleeper", "running");
    let mut conn = lair.connect();
    until("the output is in the file", SOON, || {
        let read = conn.ok(
            "logs.read",
            json!({ "name": "sleeper", "stream": "stdout" }),
        );
        read["lines"].as_array().is_some_and(|l| l.len() == 3)
    });
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{}/fd/{fd}", daemon.id())).expect("fd");
        assert_eq!(target.to_str(), Some("/dev/null"), "fd {fd}");
    }
    let pid = daemon.id().to_string();
    assert!(
        Command::new("kill")
            .arg(&pid)
            .status()
            .expect("kill")
            .success()
    );
    assert_eq!(daemon.wait().expect("wait").code(), Some(0));
}

#[test]
fn a_secret_stays_with_its_module() {
    let lair = Lair::folder();
    let secret = "tOpSeCrEt-4711";
    let more = "";
    let text = face::manifest("keeper-of-secrets", SLEEPER, more).replace(
        "native: {",
        &format!("native: {{ env: {{ API_KEY: {secret} }},"),
    );
    std::fs::write(lair.dir.join("modules/keeper-of-secrets.yaml"), text).expect("manifest");
    let lair = lair.serve(&["--start", "-vv"]);
    lair.until_state("keeper-of-secrets", "running");
    let mut conn = lair.connect();
    let mut seen = String::new();
    let name = json!({ "name": "keeper-of-secrets" });
    for method in ["module.status", "module.explain", "logs.read"] {
        seen += &conn.ok(method, name.clone()).to_string();
    }
    for method in [
        "module.list",
        "runtime.info",
        "runtime.metrics",
        "runtime.doctor",
    ] {
        seen += &conn.ok(method, json!({})).to_string();
    }
    seen += &lair.ask(&["events"]).1;
    seen += &lair.log();
    for pid in [
        lair.pid().to_string(),
        conn.ok("runtime.info", json!({}))["keeper_pid"].to_string(),
    ] {
        seen += &std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    }
    assert!(!seen.contains(secret), "{seen}");
    assert!(seen.contains("keeper-of-secrets"));
}
