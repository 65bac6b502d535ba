//! Modules outlive lair: killed at any instant, it goes on with them in its next life as if nothing had been.

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
    let more = "  logs: { max_size: 64KiB, max_files: 1000 }\n";
    let raw = "  logs: { max_size: 64KiB, max_files: 1000, format: raw }\n";
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

/// All segments in order. A kill can leave both forms of one, and half of a compressed one beside it.
fn segments(dir: &Path, stream: Option<&str>) -> Vec<u8> {
    let mut files = std::collections::BTreeMap::new();
    for entry in fs::read_dir(dir).expect("logs").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        let parts: Vec<&str> = name.split('.').collect();
        let (of, rest) = match stream {
            None => (None, &parts[2..]),
            Some(_) => (parts.get(2).copied(), parts.get(3..).unwrap_or_default()),
        };
        if parts[0] == "current" || of != stream || rest.last() == Some(&"tmp") {
            continue;
        }
        let whole = rest == ["log", "zst"];
        assert!(whole || rest == ["log"], "{name}");
        let number = (
            parts[0].parse::<u64>().expect("a run"),
            parts[1].parse::<u64>().expect("a segment"),
        );
        if whole || !files.contains_key(&number) {
            files.insert(number, (entry.path(), whole));
        }
    }
    let read = |(path, whole): (PathBuf, bool)| {
        let bytes = fs::read(path).expect("a segment");
        match whole {
            true => zstd::decode_all(&bytes[..]).expect("a whole segment"),
            false => bytes,
        }
    };
    files.into_values().flat_map(read).collect()
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
