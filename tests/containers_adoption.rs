//! Containers outlive lair: killed at any instant, its next life goes on with them, on both engines.

mod face;
mod support;

use face::{Lair, SOON, until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use support::engines::{Kind, image};
use support::{is_alive, read_stream};

/// A daemon on one engine that can be killed and started again.
struct Phoenix {
    lair: Lair,
    kind: Kind,
}

impl Phoenix {
    fn new(kind: Kind, config: &str) -> Self {
        let lair = Lair::folder();
        let file = lair.dir.join("config.yaml");
        let text = fs::read_to_string(&file).expect("config");
        fs::write(&file, text + config).expect("config");
        let mut phoenix = Phoenix { lair, kind };
        phoenix.rise();
        phoenix
    }

    fn rise(&mut self) {
        let nowhere = format!("unix://{}/nowhere", self.lair.dir.display());
        let here = format!("unix://{}", self.kind.socket().display());
        let (podman, docker) = match self.kind {
            Kind::Podman => (&here, &nowhere),
            Kind::Docker => (&nowhere, &here),
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.lair.dir.join("serve.log"))
            .expect("log");
        let mut command = self.lair.command(&["serve"]);
        let child = command
            .env("CONTAINER_HOST", podman)
            .env("DOCKER_HOST", docker)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("serve");
        self.lair.daemon = Some(child);
        until("the socket", SOON * 3, || {
            UnixStream::connect(self.lair.socket()).is_ok()
        });
    }

    fn kill(&mut self) {
        let mut daemon = self.lair.daemon.take().expect("a daemon");
        daemon.kill().expect("killed");
        daemon.wait().expect("gone");
    }

    fn up(&self, name: &str, script: &str, more: &str) -> Value {
        let image = image("base");
        let command = json!(["/bin/sh", "-c", script]);
        let text = format!(
            "name: {name}\nruntime:\n  container: {{ image: '{image}', command: {command} }}\n  stop: {{ grace: 5s }}\n{more}"
        );
        let path = self.lair.dir.join("modules").join(format!("{name}.yaml"));
        fs::write(&path, text).expect("a manifest");
        let mut conn = self.lair.connect();
        conn.ok(
            "module.load",
            json!({ "path": path.to_str().expect("a path") }),
        );
        conn.ok("module.start", json!({ "name": name }));
        self.until(name, "it runs", |s| {
            s["state"] == "running" && s["pid"].is_number()
        })
    }

    fn until(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut conn = self.lair.connect();
        let mut seen = Value::Null;
        until(&format!("{name}: {what}"), SOON * 3, || {
            seen = conn.ok("module.status", json!({ "name": name }));
            so(&seen)
        });
        seen
    }

    fn output(&self, name: &str, stream: &str) -> String {
        let bytes = read_stream(&self.lair.dir.join("logs").join(name), stream);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn lines(&self, name: &str, count: usize) {
        let what = format!("{count} lines of {name}");
        until(&what, SOON * 3, || {
            self.output(name, "stdout").lines().count() > count
        });
    }

    /// The words of the daemon's own log, of all its lives.
    fn said(&self, what: &str) -> bool {
        self.lair.log().contains(what)
    }

    /// Containers of this lair, running or not.
    fn ours(&self) -> String {
        let file = self.lair.dir.join("state/instance");
        let name = fs::read_to_string(file).expect("this lair's name");
        let label = format!("label=lair.instance={}", name.trim());
        self.kind.cli(&["ps", "-aq", "--filter", &label])
    }

    fn end(mut self) {
        assert_eq!(self.lair.term(), Some(0), "{}", self.lair.log());
        assert_eq!(self.ours(), "", "I1: left over");
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in self.ours().lines() {
                self.kind.cli(&["rm", "-f", id]);
            }
        }
    }
}

fn pid(status: &Value) -> i32 {
    i32::try_from(status["pid"].as_i64().expect("a pid")).expect("a pid")
}

/// Counts up in whole lines, on both streams, in pieces of every kind.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo out $i; echo err $i >&2; printf 'half %s' $i; [ $((i % 7)) = 0 ] && sleep 0.01; echo ' whole'; done";

/// Every line is there once and in order, but for the end of the last; `words` are the forms of the nth lines.
fn counted(text: &str, words: &[&str]) {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let number = (at / words.len() + 1).to_string();
        let wanted = words[at % words.len()].replace('#', &number);
        let cut_off = at + 1 == lines.len() && wanted.starts_with(line);
        assert!(
            *line == wanted || cut_off,
            "line {at} is {line:?}, not {wanted:?}"
        );
    }
}

// R4 I1 I4 I7
fn a_killed_lair_costs_its_containers_nothing_and_no_line_is_lost_or_doubled(kind: Kind) {
    let mut lair = Phoenix::new(kind, "");
    let before = lair.up("counter", COUNTER, "");
    for life in 1..=3 {
        lair.lines("counter", 200 * life);
        lair.kill();
        assert!(is_alive(pid(&before)), "it outlives lair");
        if life == 2 {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        lair.rise();
        let after = lair.until("counter", "it runs again", |s| s["state"] == "running");
        assert_eq!(
            (&after["pid"], &after["run"]),
            (&before["pid"], &before["run"]),
            "the same process, the same run"
        );
    }
    let seen = lair.output("counter", "stdout").lines().count();
    lair.lines("counter", seen + 200);
    let mut conn = lair.lair.connect();
    conn.ok("module.stop", json!({ "name": "counter" }));
    lair.until("counter", "it is down", |s| s["state"] == "stopped");
    counted(
        &lair.output("counter", "stdout"),
        &["out #", "half # whole"],
    );
    counted(&lair.output("counter", "stderr"), &["err #"]);
    lair.end();
}

// R4 I2 I6
fn what_ended_while_lair_was_away_has_its_own_exit_and_its_last_words(kind: Kind) {
    let mut lair = Phoenix::new(kind, "");
    let script =
        "echo first; trap 'echo last; printf words; exit 9' USR1; while :; do sleep 0.01; done";
    let status = lair.up("ends", script, "");
    lair.lines("ends", 0);
    lair.kill();
    let id = lair.ours();
    kind.cli(&["kill", "--signal", "USR1", &id]);
    until("it has ended", SOON, || !is_alive(pid(&status)));
    lair.rise();
    let status = lair.until("ends", "its end is known", |s| s["state"] == "failed");
    assert_eq!(status["exit"]["code"], 9, "{status}");
    assert_eq!(status["run"], 1);
    assert_eq!(lair.output("ends", "stdout"), "first\nlast\nwords");
    lair.end();
}

// R4, under `kill`
fn under_kill_the_next_life_ends_with_grace_what_the_killed_one_left(kind: Kind) {
    let mut lair = Phoenix::new(kind, "  if_runtime_dies: kill\n");
    let state = lair.lair.dir.join("state");
    let script = "trap 'sleep 0.2; echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let status = lair.up("polite", script, "");
    lair.lines("polite", 0);
    lair.kill();
    assert!(is_alive(pid(&status)), "nobody is there to end it");
    assert!(state.exists());
    lair.rise();
    lair.until("polite", "its end is known", |s| s["state"] == "stopped");
    until("it is gone", SOON, || lair.ours().is_empty());
    assert!(!is_alive(pid(&status)));
    assert_eq!(
        lair.output("polite", "stdout"),
        "up\nasked\n",
        "its last words"
    );
    assert!(lair.said("outlived the lair that it was to die with"));
    lair.end();
}

// R4: nobody claims it
fn a_container_that_no_module_claims_is_ended_and_named(kind: Kind) {
    let mut lair = Phoenix::new(kind, "");
    let status = lair.up("m", "exec sleep 1000", "");
    lair.kill();
    fs::remove_file(lair.lair.dir.join("run/ledger")).expect("a ledger");
    fs::remove_file(lair.lair.dir.join("modules/m.yaml")).expect("a manifest");
    lair.rise();
    until("it is gone", SOON, || lair.ours().is_empty());
    assert!(!is_alive(pid(&status)));
    assert!(lair.said("m run 1 (container"));
    lair.end();
}

// R4: more than the engine keeps
fn output_that_did_not_fit_the_engines_log_is_a_gap_that_is_said(kind: Kind) {
    let mut lair = Phoenix::new(kind, "");
    let script = "echo first; trap 'yes 0123456789 | head -n 3000000; echo end; exit 0' USR1; while :; do sleep 0.01; done";
    lair.up("loud", script, "");
    lair.lines("loud", 0);
    lair.kill();
    let id = lair.ours();
    kind.cli(&["kill", "--signal", "USR1", &id]);
    until("it has ended", SOON * 3, || {
        kind.cli(&["inspect", "--format", "{{.State.Status}}", &id]) == "exited"
    });
    lair.rise();
    let status = lair.until("loud", "it has ended", |s| s["exit"].is_object());
    assert_eq!(status["exit"]["code"], 0, "{status}");
    let out = lair.output("loud", "stdout");
    assert!(out.starts_with("first\n") && out.ends_with("0123456789\nend\n"));
    let own = lair.output("loud", "lair");
    assert!(own.contains("the oldest of it is lost"), "{own}");
    lair.end();
}

macro_rules! on_both {
    ($($story:ident)*) => {
        mod podman { $(#[test] fn $story() { super::$story(super::Kind::Podman); })* }
        mod docker { $(#[test] fn $story() { super::$story(super::Kind::Docker); })* }
    };
}

on_both! {
    a_killed_lair_costs_its_containers_nothing_and_no_line_is_lost_or_doubled
    what_ended_while_lair_was_away_has_its_own_exit_and_its_last_words
    under_kill_the_next_life_ends_with_grace_what_the_killed_one_left
    a_container_that_no_module_claims_is_ended_and_named
    output_that_did_not_fit_the_engines_log_is_a_gap_that_is_said
}
