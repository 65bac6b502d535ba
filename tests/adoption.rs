//! Modules outlive lair: killed at any instant, it goes on with them in its next life as if nothing had been.

#![allow(
    clippy::print_stdout,
    reason = "a seed and a skipped story are worth a line"
)]

mod face;
mod support;

use face::{Lair, SOON, until};
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
        self.lair.kill();
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

    /// As `end`, and the folder stays.
    fn end_keeping(mut self) {
        self.finish();
        std::mem::forget(self);
    }

    /// Stops everything; nothing may be left.
    fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        let keeper = self.keeper();
        assert_eq!(self.lair.term(), Some(0), "{}", self.lair.log());
        until("the keeper's end", SOON, || !is_alive(keeper));
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

/// Every line is there once and in order, but for the end of the last; `words` are the forms of the nth lines. Says
/// how many rounds there are.
fn counted(text: &str, words: &[&str]) -> usize {
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
    lines.len() / words.len()
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
    assert_eq!(status["exit"]["code"], 9, "{status}");
    assert_eq!(status["run"], 1);
    assert_eq!(lair.output("ends", "stdout"), "first\nlast\nwords");
    lair.end();
}

impl Phoenix {
    /// More words of the configuration, below `runtime:`.
    fn with(more: &str) -> Self {
        let lair = Phoenix::new();
        let config = lair.lair.dir.join("config.yaml");
        let text = fs::read_to_string(&config).expect("config");
        fs::write(&config, text + more).expect("config");
        lair
    }

    fn ledger(&self) -> PathBuf {
        self.lair.dir.join("run/ledger")
    }
}

fn pid_of(status: &Value) -> i32 {
    i32::try_from(status["pid"].as_i64().expect("a pid")).expect("a pid")
}

// R3, under `kill`
#[test]
fn under_kill_the_modules_of_a_killed_lair_are_asked_and_then_killed() {
    let mut lair = Phoenix::with("  if_runtime_dies: kill\n");
    lair.rise();
    let asked = lair.lair.dir.join("asked");
    let polite = format!(
        "trap 'echo asked > {}; exit 0' TERM; while :; do sleep 0.01; done",
        asked.display()
    );
    let polite = pid_of(&lair.up("polite", &polite, ""));
    let other = pid_of(&lair.up("other", "exec sleep 1000", ""));
    let keeper = lair.keeper();
    lair.kill();
    until("all are gone", SOON, || {
        [polite, other, keeper].iter().all(|pid| !is_alive(*pid))
    });
    assert!(asked.exists(), "it was asked");
    lair.rise();
    for name in ["polite", "other"] {
        assert_ne!(lair.lair.status(name)["state"], "running", "{name}");
    }
    lair.end();
}

// R3 I6
#[test]
fn a_stop_under_way_is_finished_by_the_next_life_and_is_no_crash() {
    let mut lair = Phoenix::new();
    lair.rise();
    let go = lair.lair.dir.join("go");
    // Its grace is 2 s, in each life anew.
    let script = format!(
        "trap 'until [ -e {} ]; do sleep 0.01; done; exit 3' TERM; echo up; while :; do sleep 0.01; done",
        go.display()
    );
    lair.up("slow", &script, "  restart: { policy: always }\n");
    until("its trap is set", SOON, || {
        !lair.output("slow", "stdout").is_empty()
    });
    lair.lair
        .connect()
        .ok("module.stop", json!({ "name": "slow" }));
    lair.until("slow", "it is stopping", |s| s["state"] == "stopping");
    lair.kill();
    lair.rise();
    lair.until("slow", "it is still stopping", |s| s["state"] == "stopping");
    fs::write(&go, "").expect("go");
    let status = lair.until("slow", "it is stopped", |s| s["state"] == "stopped");
    assert_eq!(
        (&status["run"], &status["exit"]["code"]),
        (&json!(1), &json!(3))
    );
    lair.end();
}

// R3 I4
#[test]
fn a_restart_that_was_waited_for_is_made_and_no_other() {
    let mut lair = Phoenix::new();
    lair.rise();
    let again = "  restart: { policy: always, backoff: { first: 3s, cap: 3s } }\n";
    lair.up("again", "echo run; sleep 0.3; exit 1", again);
    lair.up("once", "echo run; sleep 0.3; exit 1", "");
    lair.until("again", "it waits", |s| {
        s["restarts"]["next_at"].is_string()
    });
    lair.until("once", "it has failed", |s| s["state"] == "failed");
    lair.kill();
    lair.rise();
    lair.until("again", "its next run", |s| s["run"] == 2);
    let once = lair.lair.status("once");
    assert_eq!((&once["run"], &once["pid"]), (&json!(1), &Value::Null));
    assert_eq!(lair.output("once", "stdout"), "run\n");
    lair.end();
}

// R3 I2: killed between an end and the note of it
#[test]
fn an_end_that_lair_has_heard_of_and_not_noted_is_known_to_its_next_life() {
    let mut lair = Phoenix::with("  faults: true\n");
    lair.rise();
    let go = lair.lair.dir.join("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done; exit 9", go.display());
    let pid = pid_of(&lair.up("ends", &script, ""));
    let stalled = json!({ "stall_actor": { "which": "root", "for_ms": 60_000 } });
    let fault = json!({ "fault": stalled, "label": "deaf" });
    lair.lair.connect().ok("fault.inject", fault);
    fs::write(&go, "").expect("go");
    until("it has ended", SOON, || !is_alive(pid));
    // Enough for a lair that would let the keeper forget it too early; one that does not needs no time.
    std::thread::sleep(std::time::Duration::from_millis(300));
    lair.kill();
    lair.rise();
    let status = lair.until("ends", "its end is known", |s| s["state"] == "failed");
    assert_eq!(
        (&status["run"], &status["exit"]["code"]),
        (&json!(1), &json!(9)),
        "{status}"
    );
    lair.end();
}

// R3 I2: killed between the note of an end and the word to the keeper
#[test]
fn an_end_that_was_noted_is_not_told_again_and_restarts_nothing() {
    let mut lair = Phoenix::new();
    lair.rise();
    let stays_down = |lair: &Phoenix| {
        let over = lair.lair.status("over");
        assert_eq!(
            (&over["run"], &over["pid"]),
            (&json!(1), &Value::Null),
            "{over}"
        );
    };
    let again = "  restart: { policy: always, backoff: { first: 100ms, cap: 100ms } }\n";
    let script = "echo run; exec sleep 1000";
    let pids = ["over", "waits"].map(|name| pid_of(&lair.up(name, script, again)));
    lair.kill();
    for pid in pids {
        let pid = pid.to_string();
        let killed = Command::new("kill").args(["-9", &pid]).status();
        assert!(killed.expect("kill").success());
    }
    until("both have ended", SOON, || !pids.into_iter().any(is_alive));
    let mut text = fs::read_to_string(lair.ledger()).expect("a ledger");
    for (id, standing) in [("over", "down"), ("waits", "waiting")] {
        let mark = json!({ "run": 1, "standing": standing });
        text += &format!("{}\n", json!({ "mark": { "id": id, "mark": mark } }));
    }
    fs::write(lair.ledger(), text).expect("written");
    lair.rise();
    lair.until("waits", "its next run", |s| {
        s["run"] == 2 && s["pid"].is_number()
    });
    stays_down(&lair);
    let (_, told) = lair.lair.ask(&["events", "-o", "json"]);
    for word in ["module.exited", "module.adopted"] {
        assert!(!told.contains(word), "{told}");
    }
    // The keeper has forgotten them, too: another life finds nothing of them.
    lair.kill();
    lair.rise();
    stays_down(&lair);
    assert_eq!(lair.output("over", "stdout"), "run\n");
    lair.end();
}

// R3: killed once more while it comes up
#[test]
fn while_lair_comes_up_its_ledger_never_says_less_than_the_one_before() {
    let mut lair = Phoenix::new();
    lair.rise();
    let again = "  restart: { policy: always, backoff: { first: 60s, cap: 60s } }\n";
    lair.up("waits", "sleep 0.3; exit 1", again);
    lair.up("runs", "exec sleep 1000", "");
    lair.up("stops", "trap '' TERM; while :; do sleep 0.05; done", "");
    lair.until("waits", "it waits", |s| {
        s["restarts"]["next_at"].is_string()
    });
    let mut conn = lair.lair.connect();
    conn.ok("module.stop", json!({ "name": "stops" }));
    lair.until("stops", "it is stopping", |s| s["state"] == "stopping");
    lair.kill();
    lair.rise();
    let text = fs::read_to_string(lair.ledger()).expect("a ledger");
    let lines = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("a line"));
    let mut news = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in lines {
        if let (Some(id), mark) = (line["mark"]["id"].as_str(), &line["mark"]["mark"]) {
            let standing = mark["standing"].as_str().unwrap_or_default().to_owned();
            news.entry(id.to_owned()).or_default().push(standing);
        }
    }
    // What the last life wrote, and what this one made of it.
    let begun = |id: &str| {
        news[id]
            .iter()
            .take(2)
            .map(String::as_str)
            .collect::<Vec<_>>()
    };
    assert_eq!(begun("waits"), ["waiting", "starting"], "{news:?}");
    assert_eq!(begun("runs")[0], "up", "{news:?}");
    assert!(!begun("runs").contains(&"down"), "{news:?}");
    assert_eq!(begun("stops")[0], "stopping", "{news:?}");
    assert!(!begun("stops")[1..].contains(&"up"), "{news:?}");
    lair.end();
}

// R3: probes without a false failure
#[test]
fn a_module_that_has_said_that_it_is_ready_need_not_say_it_again() {
    let mut lair = Phoenix::new();
    lair.rise();
    let go = lair.lair.dir.join("go");
    let log = "  health: { startup: { log: { pattern: ^serving }, deadline: 2s } }\n";
    let fd = "  health: { startup: { fd: true, deadline: 20s } }\n";
    let says = "echo >&$LAIR_READY_FD; exec sleep 1000";
    let later = format!("until [ -e {} ]; do sleep 0.01; done; {says}", go.display());
    lair.up("line", "echo serving; exec sleep 1000", log);
    lair.up("fd", says, &fd.replace("20s", "2s"));
    lair.up("later", &later, fd);
    let names = ["line", "fd", "later"];
    for name in ["line", "fd"] {
        lair.until(name, "it is ready", |s| s["ready"] == true);
    }
    let before = names.map(|name| lair.lair.status(name));
    assert_eq!(before[2]["ready"], false);
    lair.kill();
    // Said while nobody listens.
    fs::write(&go, "").expect("go");
    lair.rise();
    for name in ["line", "fd"] {
        assert_eq!(lair.lair.status(name)["ready"], true, "{name}: at once");
    }
    lair.until("later", "it is ready", |s| s["ready"] == true);
    // Longer than two of them had to become ready.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    for (name, before) in names.iter().zip(before) {
        let after = lair.lair.status(name);
        assert_eq!(
            (&after["run"], &after["pid"]),
            (&json!(1), &before["pid"]),
            "{after}"
        );
        assert_eq!(after["ready"], true, "{after}");
    }
    lair.end();
}

// R3b
#[test]
fn after_the_keepers_death_old_modules_are_seen_and_stopped_and_new_ones_start() {
    let mut lair = Phoenix::new();
    lair.rise();
    let old = pid_of(&lair.up("old", "exec sleep 1000", ""));
    let first = lair.keeper();
    support::signal(first, 9);
    until("another keeper", SOON, || lair.keeper() != first);
    assert_eq!(lair.lair.status("old")["state"], "running", "sight is kept");
    let new = pid_of(&lair.up("new", "echo hello; exec sleep 1000", ""));
    until("its output", SOON, || {
        lair.output("new", "stdout") == "hello\n"
    });
    lair.lair
        .connect()
        .ok("module.stop", json!({ "name": "old" }));
    let status = lair.until("old", "it is stopped", |s| s["state"] == "stopped");
    assert!(!is_alive(old));
    let signal = &status["exit"]["signal"];
    assert!(
        signal.is_null() || *signal == "TERM" || *signal == "SIGTERM" || *signal == 15,
        "{status}"
    );
    lair.kill();
    lair.rise();
    assert_eq!(
        pid_of(&lair.lair.status("new")),
        new,
        "the second keeper keeps as well"
    );
    lair.end();
}

// R3b, both at once
#[test]
fn when_lair_and_keeper_are_killed_no_module_runs_twice() {
    let mut lair = Phoenix::new();
    lair.rise();
    let old = pid_of(&lair.up(
        "m",
        "sleep 1000 & exec sleep 1000",
        "  restart: { policy: always }\n",
    ));
    let keeper = lair.keeper();
    lair.kill();
    support::signal(keeper, 9);
    until("the keeper is gone", SOON, || !is_alive(keeper));
    lair.rise();
    let status = lair.until("m", "it runs again", |s| {
        s["run"] == 2 && s["pid"].is_number()
    });
    assert!(!is_alive(old), "the first copy was ended");
    assert_ne!(pid_of(&status), old);
    lair.end();
}

// R3b, both at once: the leader dies of writing to nobody, and its helpers do not
#[test]
fn when_lair_and_keeper_are_killed_what_outlived_its_leader_is_ended_too() {
    let mut lair = Phoenix::new();
    lair.rise();
    let dir = lair.lair.dir.clone();
    let script = format!(
        "sleep 1000 & echo $! > {0}/plain; env -i setsid sleep 1000 & echo $! > {0}/escaped; while :; do echo x; sleep 0.01; done",
        dir.display()
    );
    let leader = pid_of(&lair.up("m", &script, "  restart: { policy: always }\n"));
    let pid = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.trim().parse::<i32>().unwrap_or_default()
    };
    until("its helpers", SOON, || {
        pid("plain") > 0 && pid("escaped") > 0
    });
    let (plain, escaped) = (pid("plain"), pid("escaped"));
    let keeper = lair.keeper();
    lair.kill();
    support::signal(keeper, 9);
    until("its leader is gone", SOON, || !is_alive(leader));
    assert!(is_alive(plain), "it writes to nobody");
    lair.rise();
    lair.until("m", "it runs again", |s| {
        s["run"] == 2 && s["pid"].is_number()
    });
    assert!(!is_alive(plain), "nothing of the first copy was left");
    // Without a group of version 2 nothing tells whose it is.
    if has_groups() {
        assert!(!is_alive(escaped), "nor what had hidden");
    } else {
        support::signal(escaped, 9);
    }
    lair.end();
}

/// Can lair make groups of version 2 here?
fn has_groups() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    mounts.contains(" cgroup2 rw") && rustix::process::geteuid().is_root()
}

// R5 I5 I8
#[test]
fn a_damaged_ledger_is_put_aside_and_prevents_nothing() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("random", |path| {
            fs::write(path, [0xA5; 5000]).expect("written")
        }),
        ("truncated within its first line", |path| {
            let text = fs::read(path).expect("read");
            fs::write(path, &text[..10]).expect("written");
        }),
        ("a line of it broken", |path| {
            let text = fs::read_to_string(path).expect("read");
            fs::write(path, text.replace("\"load\"", "\"lo\u{0}d\"")).expect("written");
        }),
        ("newer", |path| {
            let text = fs::read_to_string(path).expect("read");
            let text = text.replacen("\"lair_ledger\":1", "\"lair_ledger\":99", 1);
            fs::write(path, text).expect("written");
        }),
        ("1 GiB", |path| {
            let file = fs::File::options().write(true).open(path).expect("open");
            file.set_len(1 << 30).expect("grown");
        }),
        ("a link", |path| {
            fs::remove_file(path).expect("removed");
            std::os::unix::fs::symlink("/etc/passwd", path).expect("linked");
        }),
    ];
    for (what, damage) in damages {
        let mut lair = Phoenix::new();
        lair.rise();
        let known = lair.up("known", "echo up; exec sleep 1000", "");
        let elsewhere = lair.lair.dir.join("elsewhere.yaml");
        fs::write(&elsewhere, face::manifest("lost", "exec sleep 1000", "")).expect("manifest");
        let path = elsewhere.to_str().expect("path");
        lair.lair.ask(&["load", path]);
        let is_loaded = lair.lair.ask(&["start", "lost"]).0 == 0;
        let lost =
            is_loaded.then(|| pid_of(&lair.until("lost", "it runs", |s| s["pid"].is_number())));
        lair.kill();
        damage(&lair.ledger());
        lair.rise();
        let info = lair.lair.connect().ok("runtime.info", json!({}));
        assert!(
            info["ledger_ignored"].is_string(),
            "{what}: it is said: {info}"
        );
        let after = lair.until("known", what, |s| s["state"] == "running");
        assert_eq!(
            (&after["pid"], &after["run"]),
            (&known["pid"], &json!(1)),
            "{what}"
        );
        if let Some(lost) = lost {
            until("what nobody knows any more is stopped", SOON, || {
                !is_alive(lost)
            });
        }
        assert!(
            fs::read_to_string("/etc/passwd")
                .expect("intact")
                .contains("root")
        );
        lair.end();
    }
}

// R5: of another user
#[test]
fn a_ledger_of_another_user_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can give files away");
    }
    let mut lair = Phoenix::new();
    lair.rise();
    lair.up("m", "exec sleep 1000", "");
    lair.kill();
    std::os::unix::fs::chown(lair.ledger(), Some(65534), None).expect("given away");
    lair.rise();
    let info = lair.lair.connect().ok("runtime.info", json!({}));
    let why = info["ledger_ignored"].as_str().unwrap_or_default();
    assert!(why.contains("65534"), "{info}");
    assert_eq!(
        lair.lair.status("m")["state"],
        "running",
        "found by its manifest"
    );
    lair.end();
}

// R6
#[test]
fn a_second_lair_is_refused_and_a_dead_ones_sockets_are_taken_over() {
    let mut lair = Phoenix::new();
    lair.rise();
    lair.up("m", "exec sleep 1000", "");
    let second = lair.lair.lair(&["serve"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("already_running"), "{said}");
    assert_eq!(lair.lair.status("m")["state"], "running");
    let keeper = lair.keeper();
    lair.kill();
    support::signal(keeper, 9);
    until("the keeper is gone", SOON, || !is_alive(keeper));
    for socket in ["lair.sock", "keeper.sock"] {
        assert!(
            lair.lair.dir.join("run").join(socket).exists(),
            "{socket} is left"
        );
    }
    lair.rise();
    assert_ne!(lair.keeper(), keeper);
    lair.end();
}

// R8 I8
#[test]
fn a_ledger_of_another_boot_signals_nobody() {
    let mut lair = Phoenix::new();
    lair.rise();
    lair.up("m", "exec sleep 1000", "");
    let keeper = lair.keeper();
    let module = pid_of(&lair.lair.status("m"));
    lair.kill();
    support::signal(keeper, 9);
    until("the keeper is gone", SOON, || !is_alive(keeper));
    let text = fs::read_to_string(lair.ledger()).expect("a ledger");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let other = "00000000-0000-0000-0000-000000000000";
    fs::write(lair.ledger(), text.replace(boot.trim(), other)).expect("written");
    lair.rise();
    assert!(is_alive(module), "a process of that number is a stranger");
    support::signal(module, 9);
    lair.end();
}

// R10 I1 I10
#[tokio::test]
async fn a_root_that_dies_in_a_host_takes_its_modules_with_it() {
    let change = |options: &mut lair::RuntimeOptions| options.faults = true;
    let lair = support::Lair::start_with("root-dies", change).await;
    lair.sh("m", "exec sleep 1000", "").await;
    let pid = lair
        .wait("m", lair::WaitFor::Ready)
        .await
        .pid
        .expect("a pid");
    let fault = lair::actors::fault::Fault::PanicActor {
        which: lair::actors::fault::ActorKind::Root,
        id: None,
    };
    let _ = lair.handle.inject(fault, "story", support::asker()).await;
    support::eventually("the module is gone", || !is_alive(pid)).await;
    let refused = lair.handle.start("m", support::asker()).await;
    assert_eq!(refused.expect_err("no hang").code, "internal");
    lair.runtime.shutdown(SOON).await;
}

// R10
#[test]
fn a_daemon_whose_root_dies_ends_its_modules_and_says_so_by_its_exit_code() {
    let mut lair = Phoenix::with("  faults: true\n");
    lair.rise();
    let pid = pid_of(&lair.up("m", "exec sleep 1000", ""));
    let keeper = lair.keeper();
    let fault = json!({ "fault": { "panic_actor": { "which": "root" } }, "label": "story" });
    let mut conn = lair.lair.connect();
    conn.try_ok("fault.inject", fault);
    let mut daemon = lair.lair.daemon.take().expect("a daemon");
    assert_eq!(
        daemon.wait().expect("gone").code(),
        Some(70),
        "{}",
        lair.lair.log()
    );
    until("all are gone", SOON, || !is_alive(pid) && !is_alive(keeper));
}

/// Numbers that repeat for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

// R3 I4 I7
#[test]
fn killed_at_random_instants_lair_loses_and_doubles_no_line() {
    let seed = std::env::var("LAIR_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let kills: u32 = std::env::var("LAIR_KILLS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(30);
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut lair = Phoenix::new();
    lair.rise();
    let more = "  logs: { max_size: 64KiB, max_files: 10000 }\n";
    let raw = "  logs: { max_size: 64KiB, max_files: 10000, format: raw }\n";
    let flood = "i=0; while [ $i -lt 10000000 ]; do i=$((i+1)); echo out $i; echo err $i >&2; done";
    let mut pids = Vec::new();
    for (name, script, more) in [
        ("counter", COUNTER, more),
        ("flood", flood, more),
        ("raw", COUNTER, raw),
    ] {
        pids.push((name, lair.up(name, script, more)["pid"].clone()));
    }
    for _ in 0..kills {
        std::thread::sleep(std::time::Duration::from_micros(dice.below(150_000)));
        lair.kill();
        std::thread::sleep(std::time::Duration::from_micros(dice.below(20_000)));
        lair.rise();
        for (name, pid) in &pids {
            let status = lair.lair.status(name);
            assert_eq!(
                (&status["pid"], &status["run"]),
                (pid, &json!(1)),
                "{name}: seed {seed}"
            );
        }
    }
    for (name, _) in &pids {
        let mut conn = lair.lair.connect();
        conn.ok("module.stop", json!({ "name": name }));
        lair.until(name, "it is down", |s| s["state"] == "stopped");
    }
    let logs = lair.lair.dir.join("logs");
    let keep = Logs(logs.clone());
    lair.end_keeping();
    let lines = |name, stream, words: &[&str]| counted(&records(&logs.join(name), stream), words);
    let raw = |stream, words: &[&str]| counted(&raw_stream(&logs.join("raw"), stream), words);
    let told = [
        lines("counter", "stdout", &["out #", "half # whole"]),
        lines("counter", "stderr", &["err #"]),
        lines("flood", "stdout", &["out #"]),
        lines("flood", "stderr", &["err #"]),
        raw("stdout", &["out #", "half # whole"]),
        raw("stderr", &["err #"]),
    ];
    println!("{kills} kills, lines {told:?}");
    assert!(told.iter().all(|lines| *lines > 20), "{told:?}");
    drop(keep);
}

/// All that a module wrote on one stream, from its records.
fn records(dir: &Path, stream: &str) -> String {
    let mut bytes = Vec::new();
    for line in segments(dir, None).split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("whole records only");
        let record = lair::actors::files::parse_record(line);
        let record = record.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(line)));
        if record.stream.as_str() == stream {
            bytes.extend_from_slice(record.bytes);
            if !record.partial {
                bytes.push(b'\n');
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn raw_stream(dir: &Path, stream: &str) -> String {
    String::from_utf8_lossy(&segments(dir, Some(stream))).into_owned()
}

/// All segments in order, of records or of a raw stream.
fn segments(dir: &Path, stream: Option<&str>) -> Vec<u8> {
    let all = support::segments::read(dir).into_iter();
    let ours = all.filter(|(name, _)| name.stream.map(|s| s.as_str()) == stream);
    ours.flat_map(|(_, bytes)| bytes).collect()
}

/// Logs that outlive their lair, for a look at them; kept when it fails.
struct Logs(PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(self.0.parent().expect("a folder"));
        }
    }
}
