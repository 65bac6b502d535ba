//! Modules outlive lair: killed at any instant, it goes on with them in its next life as if nothing had been.

mod face;
mod support;

use face::{Lair, SLEEPER, SOON, until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{is_alive, read_stream};

/// A daemon that can be killed, and one that ends what a failed story would leave.
struct Phoenix {
    lair: Lair,
}

impl Phoenix {
    fn new() -> Self {
        let lair = Lair::folder();
        Phoenix { lair }
    }

    fn rise(&mut self) {
        let dir = self.lair.dir.clone();
        let daemon = self.lair.daemon.take();
        assert!(daemon.is_none(), "one at a time");
        let old = std::mem::replace(&mut self.lair, Lair { dir, daemon: None });
        std::mem::forget(old);
        let lair = std::mem::replace(
            &mut self.lair,
            Lair {
                dir: PathBuf::new(),
                daemon: None,
            },
        );
        std::mem::forget(std::mem::replace(&mut self.lair, lair.serve(&[])));
    }

    fn kill(&mut self) {
        let mut daemon = self.lair.daemon.take().expect("a daemon");
        daemon.kill().expect("killed");
        daemon.wait().expect("gone");
    }

    fn start(&self, name: &str) {
        let mut conn = self.lair.connect();
        conn.ok("module.start", json!({ "name": name }));
    }

    fn up(&self, name: &str, script: &str, more: &str) -> Value {
        let file = self.lair.module(name, script, more);
        let path = file.to_str().expect("path").to_owned();
        self.lair
            .connect()
            .ok("module.load", json!({ "path": path }));
        self.start(name);
        self.until(name, "it runs", |s| s["pid"].is_number())
    }

    fn until(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut conn = self.lair.connect();
        let mut seen = Value::Null;
        until(&format!("{name}: {what}"), SOON, || {
            seen = conn.ok("module.status", json!({ "name": name }));
            so(&seen)
        });
        seen
    }

    fn output(&self, name: &str, stream: &str) -> String {
        let bytes = read_stream(&self.lair.dir.join("logs").join(name), stream);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn keeper(&self) -> i32 {
        let info = self.lair.connect().ok("runtime.info", json!({}));
        i32::try_from(info["keeper_pid"].as_i64().expect("a keeper")).expect("a pid")
    }

    /// Stops everything; nothing may be left.
    fn end(mut self) {
        let keeper = self.keeper();
        assert_eq!(self.lair.term(), Some(0), "{}", self.lair.log());
        assert!(!is_alive(keeper), "I1: the keeper stayed");
        assert_eq!(family(&self.lair.dir), Vec::<i32>::new(), "I1: left over");
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pid in family(&self.lair.dir) {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
    }
}

/// The keepers of this folder and their children.
fn family(dir: &Path) -> Vec<i32> {
    let socket = dir.join("run/keeper.sock").display().to_string();
    let pids = || {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
    };
    let is_keeper = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&socket)
    };
    let keepers: Vec<i32> = pids().filter(is_keeper).filter(|p| is_alive(*p)).collect();
    let child = |pid: &i32| parent(*pid).is_some_and(|parent| keepers.contains(&parent));
    let children: Vec<i32> = pids().filter(child).filter(|p| is_alive(*p)).collect();
    keepers.into_iter().chain(children).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Counts up in whole lines, on both streams, in pieces of every kind.
const COUNTER: &str = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo out $i; echo err $i >&2; printf 'half %s' $i; [ $((i % 7)) = 0 ] && sleep 0.01; echo ' whole'; done";

/// Every line that was begun is there once, in order, up to the last; `most` is where it was stopped at the latest.
fn counted(text: &str, words: &[&str]) -> usize {
    let mut wanted = Vec::new();
    let mut n = 1;
    for (at, line) in text.lines().enumerate() {
        let form = words[at % words.len()];
        let expected = form.replace('#', &n.to_string());
        let is_last = at + 1 == text.lines().count();
        assert!(
            line == expected || (is_last && expected.starts_with(line)),
            "line {at} is {line:?}, not {expected:?}"
        );
        if at % words.len() == words.len() - 1 {
            n += 1;
        }
        wanted.push(expected);
    }
    n
}

// R3 I1 I4 I7
#[test]
fn a_killed_lair_costs_its_modules_nothing_and_the_next_one_goes_on_with_them() {
    let mut lair = Phoenix::new();
    lair.rise();
    let before = lair.up("counter", COUNTER, "");
    until("some lines", SOON, || {
        lair.output("counter", "stdout").lines().count() > 20
    });
    lair.kill();
    assert!(is_alive(before["pid"].as_i64().expect("pid") as i32));
    lair.rise();
    let after = lair.until("counter", "it runs again", |s| s["state"] == "running");
    assert_eq!(
        (&after["pid"], &after["run"]),
        (&before["pid"], &before["run"]),
        "the same process, the same run"
    );
    let seen = lair.output("counter", "stdout").lines().count();
    until("more lines", SOON, || {
        lair.output("counter", "stdout").lines().count() > seen + 20
    });
    lair.lair
        .connect()
        .ok("module.stop", json!({ "name": "counter" }));
    lair.until("counter", "it is down", |s| s["state"] == "stopped");
    assert!(
        counted(
            &lair.output("counter", "stdout"),
            &["out #", "half # whole"]
        ) > 20
    );
    assert!(counted(&lair.output("counter", "stderr"), &["err #"]) > 20);
    lair.end();
}

// R3 I2 I6
#[test]
fn what_ended_while_lair_was_away_has_its_own_exit_and_its_last_words() {
    let mut lair = Phoenix::new();
    lair.rise();
    let go = lair.lair.dir.join("go");
    let script = format!(
        "echo first; until [ -e {} ]; do sleep 0.01; done; echo last; printf words; exit 9",
        go.display()
    );
    let pid = lair.up("ends", &script, "")["pid"].as_i64().expect("pid") as i32;
    lair.kill();
    fs::write(&go, "").expect("go");
    until("it has ended", SOON, || !is_alive(pid));
    lair.rise();
    let status = lair.until("ends", "its end is known", |s| s["state"] == "failed");
    assert_eq!(status["last_exit"]["code"], 9, "{status}");
    assert_eq!(status["run"], 1);
    assert_eq!(lair.output("ends", "stdout"), "first\nlast\nwords");
    lair.end();
}
