//! Loading again: what is the same is not touched, what can change under a running module does, and the rest waits for
//! its next start and says so.

mod face;

use face::{Lair, SLEEPER, SOON, until};
use lair::actors::messages::Loaded;
use lair::actors::status::ModuleStatus;
use lair::supervision::NoticeKind;
use lair::testing::{Fault, Script, Simulation};
use serde_json::json;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn module(name: &str, command: &str, more: &str) -> String {
    format!("name: {name}\nruntime:\n  native: {{ command: [/bin/true, {command}] }}\n{more}")
}

async fn load(sim: &Simulation, manifest: &str) -> Loaded {
    let loaded = sim.load(manifest).await.expect("loaded");
    sim.settle().await;
    loaded[0].1
}

fn status(sim: &Simulation, name: &str) -> ModuleStatus {
    sim.handle().status(name).expect("known")
}

async fn crash(sim: &Simulation, name: &str) {
    let fault = Fault::CrashChild {
        id: lair::supervision::ChildId::new(name),
        signal: 11,
    };
    let injected = sim.handle().inject(fault, "story", Simulation::origin());
    injected.await.expect("an open gate");
    sim.settle().await;
}

/// O81, O82: the same four rules as a supervisor's code change.
#[tokio::test]
async fn a_policy_changes_under_a_running_module_without_a_new_run() {
    let sim = Simulation::builder()
        .faults()
        .start()
        .await
        .expect("starts");
    assert_eq!(load(&sim, &module("m", "1", "")).await, Loaded::New);
    sim.start("m").await.expect("started");
    let restart = "  restart: { policy: always, backoff: { first: 0s } }\n  stop: { grace: 7s }\n";
    let before = sim.notices().len();
    assert_eq!(
        load(&sim, &module("m", "1", restart)).await,
        Loaded::Updated
    );
    let told = &sim.notices()[before..];
    let [changed] = told else {
        panic!("{told:?}");
    };
    let NoticeKind::Changed { live, next_start } = &changed.kind else {
        panic!("{changed:?}");
    };
    assert_eq!(
        (live.join(" ").as_str(), next_start.len()),
        ("restart stop", 0)
    );
    let after = status(&sim, "m");
    assert_eq!((after.run, after.restarts.policy.as_str()), (1, "always"));
    crash(&sim, "m").await;
    assert_eq!(status(&sim, "m").run, 2, "the new policy holds");
    sim.shutdown(SECOND).await;
}

/// O83: a changed spec counts from the next start on, and status says so until then.
#[tokio::test]
async fn what_a_run_was_started_with_counts_from_its_next_start() {
    let sim = Simulation::builder()
        .faults()
        .start()
        .await
        .expect("starts");
    let always = "  restart: { policy: always, backoff: { first: 0s } }\n";
    load(&sim, &module("m", "1", always)).await;
    sim.start("m").await.expect("started");
    let ports = "  restart: { policy: on-failure, backoff: { first: 0s } }\n  ports: { api: 8080 }\n  health: { readiness: { tcp: { port: api } } }\n";
    assert_eq!(
        load(&sim, &module("m", "2", ports)).await,
        Loaded::RestartNeeded
    );
    let now = status(&sim, "m");
    assert_eq!(now.next_start, ["launch", "ports", "health"]);
    assert_eq!((now.run, now.ports.len()), (1, 0));
    assert_eq!(now.restarts.policy, "on-failure", "this part holds at once");
    let before = sim.notices().len();
    assert_eq!(load(&sim, &module("m", "2", ports)).await, Loaded::Same);
    assert_eq!(sim.notices().len(), before, "the same again tells nothing");
    crash(&sim, "m").await;
    let next = status(&sim, "m");
    assert_eq!(
        (next.run, next.ports.len(), next.next_start.len()),
        (2, 1, 0)
    );
    sim.shutdown(SECOND).await;
}

/// Taken back before the next start, nothing is left of it.
#[tokio::test]
async fn a_change_that_is_taken_back_leaves_nothing_to_wait_for() {
    let sim = Simulation::builder().start().await.expect("starts");
    load(&sim, &module("m", "1", "")).await;
    sim.start("m").await.expect("started");
    assert_eq!(
        load(&sim, &module("m", "2", "")).await,
        Loaded::RestartNeeded
    );
    load(&sim, &module("m", "1", "")).await;
    assert_eq!(status(&sim, "m").next_start.len(), 0);
    assert_eq!(load(&sim, &module("m", "1", "")).await, Loaded::Same);
    sim.shutdown(SECOND).await;
}

/// O84: what is new is loaded and not started; a bad file is refused and everything stays.
#[tokio::test]
async fn new_modules_are_loaded_and_not_started_and_a_bad_stack_changes_nothing() {
    let sim = Simulation::builder().start().await.expect("starts");
    let one = |name: &str, command: &str| {
        format!("- name: {name}\n  runtime:\n    native: {{ command: [/bin/true, {command}] }}\n")
    };
    sim.load(&format!("modules:\n{}", one("a", "1")))
        .await
        .expect("loaded");
    sim.start("a").await.expect("started");
    let bad = format!("modules:\n{}{}  restrat: 1\n", one("a", "2"), one("b", "1"));
    assert_eq!(
        sim.load(&bad).await.expect_err("bad").code,
        "invalid_manifest"
    );
    assert!(status(&sim, "a").next_start.is_empty());
    assert_eq!(sim.handle().list().1.len(), 1);
    let good = format!("modules:\n{}{}", one("a", "1"), one("b", "1"));
    let loaded = sim.load(&good).await.expect("loaded");
    assert_eq!(loaded[0], ("a".to_owned(), Loaded::Same));
    assert_eq!(loaded[1], ("b".to_owned(), Loaded::New));
    assert_eq!(status(&sim, "b").state, "stopped");
    assert_eq!(status(&sim, "a").run, 1);
    sim.shutdown(SECOND).await;
}

/// How a file is written is no difference.
#[tokio::test]
async fn other_words_for_the_same_are_the_same() {
    let sim = Simulation::builder().start().await.expect("starts");
    load(
        &sim,
        &module("m", "'1'", "  stop: { grace: 10s }\n  restart: never\n"),
    )
    .await;
    sim.start("m").await.expect("started");
    let text = "# a comment\nruntime: { restart: { policy: temporary }, native: { command: ['/bin/true', \"1\"] } }\nname: m\ndescription: new words\n";
    assert_eq!(load(&sim, text).await, Loaded::Same);
    sim.shutdown(SECOND).await;
}

/// A probe that is added to a running module is asked from then on, and no start is asked about twice.
#[tokio::test]
async fn probes_change_under_a_running_module() {
    // The first look is good, all others are bad.
    let script = Script {
        answers: [vec![0], vec![1; 50]].concat(),
        ..Script::default()
    };
    let sim = Simulation::builder().script("m", script);
    let sim = sim.start().await.expect("starts");
    let startup = "  health: { startup: { command: [yes], interval: 1s } }\n";
    load(&sim, &module("m", "1", startup)).await;
    sim.start("m").await.expect("started");
    sim.advance(3 * SECOND).await;
    let before = status(&sim, "m");
    assert!(before.ready && before.health.state.as_str() == "healthy");
    let both = "  health: { startup: { command: [yes], interval: 2s }, liveness: { command: [yes], interval: 1s, failures: 2 } }\n";
    let loaded = load(&sim, &module("m", "1", both)).await;
    assert_eq!(loaded, Loaded::Updated);
    assert!(status(&sim, "m").ready, "it goes on serving");
    sim.advance(4 * SECOND).await;
    let after = status(&sim, "m");
    assert_eq!(after.health.state.as_str(), "unhealthy");
    assert!(after.ready, "a start is not asked about twice");
    let restarts = both.replace("failures: 2", "failures: 2, on_failure: restart")
        + "  restart: { policy: always, backoff: { first: 0s } }\n";
    load(&sim, &module("m", "1", &restarts)).await;
    sim.advance(3 * SECOND).await;
    assert!(status(&sim, "m").run > 1, "the new consequence holds");
    // Without any question it serves, and nobody knows how it is.
    assert_eq!(load(&sim, &module("m", "1", "")).await, Loaded::Updated);
    assert!(status(&sim, "m").ready);
    sim.check().expect("every promise");
    sim.shutdown(SECOND).await;
}

/// Bounds of the files hold for the run that writes them.
#[test]
fn log_bounds_change_under_a_running_module() {
    let lair = Lair::folder();
    let script = "trap 'yes out | head -c 600000' USR1; while :; do sleep 0.05; done";
    let bounds = |files: u32| {
        format!("  logs: {{ max_size: 64KiB, max_files: {files}, compress: false }}\n")
    };
    let path = lair.module("m", script, &bounds(50));
    let lair = lair.serve(&["--start"]);
    lair.until_state("m", "running");
    let segments = || {
        let folder = std::fs::read_dir(lair.dir.join("logs/m")).expect("a folder");
        let names = folder
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.starts_with("1.")).count()
    };
    let print = |total: u64| {
        assert_eq!(lair.ask(&["kill", "-s", "USR1", "m"]).0, 0);
        until("it has printed", SOON, || {
            lair.status("m")["logs"]["bytes"] == total
        });
    };
    print(600_000);
    assert!(segments() > 9, "{}", segments());
    lair.module("m", script, &bounds(3));
    let (code, said) = lair.ask(&["load", &path.display().to_string()]);
    assert_eq!((code, said.as_str()), (0, "m: updated\n"));
    print(1_200_000);
    until("the new bound holds", SOON, || segments() <= 3);
    assert_eq!(lair.status("m")["run"], 1);
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len() as u64) as usize]
    }

    fn stack(&mut self) -> String {
        let mut text = "modules:\n".to_owned();
        for name in ["a", "b", "c"] {
            let command = self.pick(&["1", "2"]);
            let more = [
                self.pick(&[
                    "",
                    "    restart: always\n",
                    "    restart: { policy: on-failure, max: 2 }\n",
                ]),
                self.pick(&["", "    stop: { grace: 3s }\n"]),
                self.pick(&[
                    "",
                    "    logs: { max_files: 2 }\n",
                    "    logs: { format: raw }\n",
                ]),
                self.pick(&["", "    ports: { api: 8080 }\n"]),
                self.pick(&[
                    "",
                    "    health: { liveness: { command: [x], interval: 1s } }\n",
                    "    health: { readiness: { command: [x] } }\n",
                ]),
                self.pick(&["", "    resources: { nofile: 64 }\n"]),
            ];
            text += &format!(
                "- name: {name}\n  runtime:\n    native: {{ command: [/bin/true, '{command}'] }}\n{}",
                more.concat()
            );
        }
        text + self.pick(&[
            "",
            "groups: [ { name: g, modules: [a, b] } ]\n",
            "groups: [ { name: g, strategy: one_for_all, modules: [a, b, c] } ]\n",
            "groups: [ { name: h, strategy: rest_for_one, modules: [c, b], max: 1 } ]\n",
        ])
    }
}

/// `apply ∘ apply` does nothing, whatever was applied before and whatever the modules do.
#[tokio::test]
async fn to_load_the_same_twice_does_nothing_the_second_time() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 1..=40_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let sim = Simulation::builder()
            .faults()
            .start()
            .await
            .expect("starts");
        for _ in 0..6 {
            let stack = dice.stack();
            let before = sim.handle().list().1;
            let first = sim.load(&stack).await.expect("loaded");
            // What waits to be restarted may come back in the meantime: that is no doing of the load.
            for old in before.iter().filter(|m| m.state != "backoff") {
                let new = status(&sim, &old.name).run;
                assert_eq!(old.run, new, "seed {seed}: it started {}", old.name);
            }
            outcomes.extend(first.iter().map(|(_, what)| format!("{what:?}")));
            sim.settle().await;
            let told = sim.notices().len();
            let again = sim.load(&stack).await.expect("loaded");
            assert!(
                again.iter().all(|(_, what)| *what == Loaded::Same),
                "seed {seed}: {again:?}"
            );
            sim.settle().await;
            assert_eq!(sim.notices().len(), told, "seed {seed}: it told something");
            for name in ["a", "b", "c"] {
                match dice.roll(4) {
                    0 => drop(sim.start(name).await),
                    1 => drop(sim.handle().stop(name, None, Simulation::origin()).await),
                    2 => crash(&sim, name).await,
                    _ => {}
                }
            }
            sim.advance(Duration::from_millis(dice.roll(3000))).await;
            sim.check()
                .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
        sim.advance(200 * SECOND).await;
        // A group waits for the one whose turn it is to serve.
        let all = sim.handle().list().1;
        let awaited = all.iter().any(|m| m.state == "running" && !m.ready);
        for module in all.iter().filter(|_| !awaited) {
            assert_ne!(
                module.state, "backoff",
                "seed {seed}, forgotten: {module:#?}"
            );
        }
        sim.shutdown(SECOND).await;
    }
    let all = ["New", "Replaced", "RestartNeeded", "Updated"];
    assert!(outcomes.iter().eq(all), "{outcomes:?}");
}

fn stack(modules: &[(&str, &str)]) -> String {
    let mut text = "modules:\n".to_owned();
    for (name, seconds) in modules {
        text += &format!(
            "- name: {name}\n  runtime:\n    native: {{ command: [/bin/sleep, '{seconds}'] }}\n"
        );
    }
    text
}

#[test]
fn up_again_restarts_what_changed_and_nothing_else() {
    let lair = Lair::folder();
    let file = lair.dir.join("modules/lair.yaml");
    std::fs::write(&file, stack(&[("a", "1000"), ("b", "1000"), ("c", "1000")])).expect("a file");
    let lair = lair.serve(&[]);
    let path = file.display().to_string();
    let pids = || ["a", "b", "c"].map(|name| lair.status(name)["pid"].as_i64());
    assert_eq!(lair.ask(&["up", "-d", "--wait", &path]).0, 0);
    let before = pids();
    let seq = lair.connect().ok("module.list", json!({}))["seq"].clone();
    assert_eq!(lair.ask(&["up", "-d", "--wait", &path]).0, 0);
    assert_eq!(pids(), before);
    assert_eq!(
        lair.connect().ok("module.list", json!({}))["seq"],
        seq,
        "it did nothing"
    );
    std::fs::write(&file, stack(&[("a", "1000"), ("b", "2000")])).expect("a file");
    let out = lair.lair(&["up", "-d", "--wait", &path]);
    assert!(out.status.success());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        said.contains("no longer names c") && said.contains("--remove-orphans"),
        "{said}"
    );
    let after = pids();
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    assert!(after[1].is_some() && after[1] != before[1]);
    let out = lair.lair(&["up", "-d", "--remove-orphans", &path]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(
        lair.connect()
            .refused("module.status", json!({ "name": "c" })),
        "unknown_module"
    );
    assert_eq!(pids_of(&lair, &["a", "b"]), [after[0], after[1]]);
}

fn pids_of(lair: &Lair, names: &[&str]) -> Vec<Option<i64>> {
    let pid = |name: &&str| lair.status(name)["pid"].as_i64();
    names.iter().map(pid).collect()
}

/// The `runtime.reloaded` events so far.
fn reloads(lair: &Lair) -> Vec<serde_json::Value> {
    // The configuration may be broken just now; the command need not read it for this.
    let socket = lair.socket().display().to_string();
    let (_, text) = lair.ask(&["--socket", &socket, "events", "--since", "0", "-o", "jsonl"]);
    let all = text
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    all.filter(|e| e["type"] == "runtime.reloaded").collect()
}

#[test]
fn hup_takes_what_is_right_refuses_what_is_wrong_and_ends_nothing() {
    let lair = Lair::folder();
    lair.module("a", SLEEPER, "");
    lair.module("gone", SLEEPER, "");
    let lair = lair.serve(&["--start"]);
    lair.until_state("a", "running");
    lair.until_state("gone", "running");
    let pids = pids_of(&lair, &["a", "gone"]);
    let config = lair.dir.join("config.yaml");
    let good = std::fs::read_to_string(&config).expect("a configuration");

    // A live key, one that needs a restart, a changed module, a new one, a bad one and one that is gone.
    let text = format!("{good}  native_enabled: false\n  faults: true\n");
    std::fs::write(&config, text).expect("a configuration");
    lair.module("a", SLEEPER, "  restart: always\n");
    std::fs::remove_file(lair.dir.join("modules/gone.yaml")).expect("removed");
    std::fs::write(lair.dir.join("modules/bad.yaml"), "name: bad\nruntime: 1\n").expect("a file");
    lair.signal("HUP");
    until("the report", SOON, || reloads(&lair).len() == 1);
    let report = reloads(&lair).remove(0);
    assert_eq!(
        report["config"]["live"],
        json!(["native_enabled"]),
        "{report}"
    );
    assert_eq!(report["config"]["next_start"], json!(["faults"]));
    let refused = report["modules"]["refused"].as_array().expect("refused");
    let codes: Vec<&str> = refused.iter().filter_map(|f| f["code"].as_str()).collect();
    // The new configuration counts for the manifests that are read with it.
    assert_eq!(codes, ["mode_unavailable", "invalid_manifest"], "{report}");
    assert_eq!(report["modules"]["orphans"], json!(["gone"]));

    std::fs::write(&config, &good).expect("a configuration");
    lair.module("new", SLEEPER, "");
    lair.signal("HUP");
    until("the report", SOON, || reloads(&lair).len() == 2);
    let report = reloads(&lair).remove(1);
    assert_eq!(
        report["config"]["live"],
        json!(["native_enabled"]),
        "{report}"
    );
    assert_eq!(report["modules"]["updated"], json!(["a"]));
    assert_eq!(report["modules"]["new"], json!(["new"]));

    std::fs::write(&config, "runtime: { native_enabeld: true }\n").expect("a configuration");
    lair.signal("HUP");
    until("the report", SOON, || reloads(&lair).len() == 3);
    let report = reloads(&lair).remove(2);
    let why = report["config"]["refused"]
        .as_str()
        .expect("refused")
        .to_owned();
    assert!(
        why.contains("native_enabeld") && why.contains("native_enabled"),
        "{why}"
    );
    // The old one holds: native modules may still be started.
    std::fs::write(&config, &good).expect("a configuration");
    assert_eq!(lair.ask(&["start", "new", "--wait"]).0, 0);
    assert_eq!(pids_of(&lair, &["a", "gone"]), pids);
    assert_eq!(lair.status("a")["restarts"]["policy"], "always");
}
