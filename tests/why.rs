//! `lair why`: the dossier of a run, the known causes, the bundle; and that no secret gets into any of them.

mod face;
mod support;

use lair::WaitFor;
use lair::actors::dossier::rules::{Pack, Seen};
use lair::actors::dossier::{Dossier, kept_runs, read};
use lair::supervision::{ChildId, StartStage};
use lair::testing::Fault;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Waits for the file: it is written after the end was told.
async fn written(lair: &support::Lair, name: &str, run: u64) -> Dossier {
    let logs = lair.handle.log_dir().to_owned();
    let there = || read(&logs, name, run).expect("readable").is_some();
    support::eventually("the dossier is written", there).await;
    read(&logs, name, run).expect("readable").expect("there")
}

#[tokio::test]
async fn a_run_that_fails_leaves_a_dossier_with_its_cause_beside_its_log() {
    let lair = support::Lair::start("why").await;
    let script = "echo starting; echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 3";
    lair.sh("bad", script, "").await;
    lair.wait("bad", WaitFor::Stopped).await;
    let dossier = written(&lair, "bad", 1).await;
    assert!(dossier.failed, "{dossier:#?}");
    let exit = dossier.exit.as_ref().expect("an exit");
    assert_eq!((exit.code, exit.by_us, dossier.run), (Some(3), None, 1));
    let cause = dossier.cause.as_ref().expect("a cause");
    assert_eq!(cause.code, "python_module_missing");
    assert!(cause.message.contains("torch"), "{cause:?}");
    assert_eq!(dossier.next_step.as_ref(), Some(&cause.next_step));
    assert_eq!(dossier.command.argv[..2], ["/bin/sh", "-c"]);
    assert!(dossier.identity.is_some_and(|i| i.starts_with("pid=")));
    let lines: Vec<&str> = dossier.last_lines.iter().map(|l| l.text.as_str()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        dossier
            .timeline
            .iter()
            .any(|m| m.what.contains("exited code=3"))
    );
    assert!(!dossier.mode.explanation.is_empty());
    // The library answers the same, without the file.
    let why = lair.handle.why("bad", None).expect("a dossier");
    assert_eq!(
        why.cause.map(|c| c.code).as_deref(),
        Some("python_module_missing")
    );
    assert_eq!(why.state, "failed");
    lair.end().await;
}

#[tokio::test]
async fn a_start_that_fails_has_a_dossier_though_it_has_no_log() {
    let lair = support::Lair::start_with("why-start", |o| o.faults = true).await;
    lair.load(&support::sh("gone", "true", ""))
        .await
        .expect("loaded");
    let fault = Fault::FailNextSpawn {
        id: ChildId::new("gone"),
        stage: StartStage::Exec,
        errno: libc::ENOENT,
    };
    let marked = lair.handle.inject(fault, "no-program", support::asker());
    marked.await.expect("injected");
    lair.handle
        .start("gone", support::asker())
        .await
        .expect("asked");
    lair.wait("gone", WaitFor::Stopped).await;
    let dossier = written(&lair, "gone", 1).await;
    let cause = dossier.cause.as_ref().map(|c| c.code.as_str());
    assert_eq!(cause, Some("program_missing"), "{dossier:#?}");
    assert!(
        dossier.summary.contains("did not start"),
        "{}",
        dossier.summary
    );
    assert_eq!(dossier.origin, "injected: no-program");
    assert!(dossier.exit.is_none() && dossier.started_at.is_none());
    lair.end().await;
}

#[tokio::test]
async fn what_is_well_has_no_cause_and_what_was_stopped_is_no_failure() {
    let lair = support::Lair::start("why-well").await;
    // A line that would frighten, from a module that goes on.
    lair.sh(
        "well",
        "echo 'bind: Address already in use' >&2; exec sleep 1000",
        "",
    )
    .await;
    lair.wait("well", WaitFor::Ready).await;
    lair.until("well", "heard", |m| m.logs.bytes > 0).await;
    let why = lair.handle.why("well", None).expect("a dossier");
    assert!(!why.failed && why.cause.is_none(), "{why:#?}");
    assert_eq!(why.state, "running");
    lair.stop("well").await;
    let dossier = written(&lair, "well", 1).await;
    assert!(!dossier.failed && dossier.cause.is_none(), "{dossier:#?}");
    assert!(
        dossier.summary.contains("asked to stop"),
        "{}",
        dossier.summary
    );
    lair.end().await;
}

#[tokio::test]
async fn each_run_of_a_crash_loop_has_its_own_dossier_and_old_ones_go_with_their_logs() {
    let lair = support::Lair::start("why-loop").await;
    let more = "  restart: { policy: always, max: 6, within: 10m, backoff: { first: 1ms, cap: 1ms } }\n  logs: { max_files: 3 }";
    lair.sh("loop", "echo run; exit 7", more).await;
    lair.wait("loop", WaitFor::Stopped).await;
    let last = lair.status("loop").run;
    let dossier = written(&lair, "loop", last).await;
    assert_eq!(dossier.reason.map(|r| r.code).as_deref(), Some("gave_up"));
    let kept = kept_runs(lair.handle.log_dir(), "loop").expect("kept");
    assert!(kept.len() <= 4 && kept.contains(&last), "{kept:?}");
    let earlier = lair.handle.why("loop", Some(-1)).expect("the one before");
    assert_eq!((earlier.run, earlier.failed), (last - 1, true));
    let refused = lair
        .handle
        .why("loop", Some(1))
        .expect_err("gone with its log");
    assert_eq!(refused.code, "unknown_run");
    lair.end().await;
}

/// X7
#[tokio::test]
async fn no_secret_gets_into_a_dossier() {
    let lair = support::Lair::start("why-secret").await;
    let more = "  stop: { grace: 1s }";
    let manifest = support::sh(
        "m",
        "echo \"key is $PIN\"; echo 'password=hunter22' >&2; exit 1",
        more,
    )
    .replace(
        "command: [/bin/sh, -c,",
        "env: { PIN: \"tell-nobody\", SHORT_TOKEN: \"zq9\" }, command: [/bin/sh, -c,",
    );
    let manifest = manifest.replace("] }\n", ", \"${env.PIN}\", \"--api-key\", \"zq9\"] }\n");
    let loaded = lair.load(&manifest).await;
    if let Err(e) = &loaded {
        panic!("{e}\n{manifest}");
    }
    lair.handle
        .start("m", support::asker())
        .await
        .expect("started");
    lair.wait("m", WaitFor::Stopped).await;
    let dossier = written(&lair, "m", 1).await;
    let text = serde_json::to_string(&dossier).expect("JSON");
    for secret in ["tell-nobody", "hunter22", "\"zq9"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(text.contains("key is ${env.PIN}"), "{text}");
    lair.end().await;
}

/// Healthy programs print frightening lines: none of the rules takes theirs for a cause, even of a failure.
#[test]
fn no_rule_fits_the_log_of_a_healthy_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/logs/healthy");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a log");
        let lines: Vec<String> = String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect();
        let seen = Seen {
            lines: &lines,
            ..Seen::default()
        };
        let told = Pack::built_in().ask(&seen);
        assert!(told.is_none(), "{}: {told:?}", path.display());
        files += 1;
    }
    assert!(files >= 8, "only {files} logs");
}

#[test]
fn why_is_one_screen_with_the_most_important_first_and_works_without_a_daemon() {
    let mut lair = face::Lair::folder();
    lair.module(
        "bad",
        "echo one; echo 'error: invalid argument: --nope' >&2; exit 1",
        "",
    );
    let rules = lair.dir.join("rules");
    std::fs::create_dir_all(&rules).expect("rules");
    lair = lair.serve(&["--start"]);
    lair.until_state("bad", "failed");
    let (code, text) = lair.ask(&["why", "bad"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 0, "{text}");
    assert!(lines.len() <= 24, "{text}");
    assert!(
        lines[0].contains("exited with code 1") && lines[0].contains("[crashed]"),
        "{text}"
    );
    assert!(
        lines[1].contains("--nope") && lines[1].contains("[bad_arguments]"),
        "{text}"
    );
    // A rule of one's own is asked first.
    let pack = "format: lair-rules/1\nrules: [ { code: mine, cause: It is mine., next: Nothing., lines: ['invalid argument'] } ]\n";
    std::fs::write(rules.join("mine.yaml"), pack).expect("a pack");
    let (_, text) = lair.ask(&["why", "bad", "-o", "json"]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["cause"]["code"], "mine", "{text}");
    assert_eq!(value["format"], "lair-dossier/1");
    std::fs::write(rules.join("mine.yaml"), "format: x\n").expect("a broken pack");
    let (_, text) = lair.ask(&["why", "bad"]);
    assert!(
        text.contains("[bad_arguments]") && text.contains("Note"),
        "{text}"
    );
    // Over the bridge the same object.
    let mut conn = lair.connect();
    assert_eq!(conn.ok("module.why", json!({ "name": "bad" }))["run"], 1);
    assert_eq!(
        conn.refused("module.why", json!({ "name": "nope" })),
        "unknown_module"
    );
    assert_eq!(
        conn.refused("module.why", json!({ "name": "bad", "run": 9 })),
        "unknown_run"
    );
    drop(conn);
    assert_eq!(lair.term(), Some(0));
    let (code, text) = lair.ask(&["why", "bad"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("[bad_arguments]"), "{text}");
    assert_eq!(lair.ask(&["why", "nope"]).0, 4);
}

#[test]
fn a_bundle_is_one_archive_that_tar_reads() {
    let lair = face::Lair::folder();
    lair.module("bad", "echo 'password=hunter22'; exit 1", "");
    let lair = lair.serve(&["--start"]);
    lair.until_state("bad", "failed");
    for name in ["b.tar", "b.tar.zst"] {
        let file = lair.dir.join(name);
        let out = lair.lair(&["why", "bad", "--bundle", &file.display().to_string()]);
        assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
        let bytes = std::fs::read(&file).expect("the bundle");
        let tar = if name.ends_with("zst") {
            zstd::decode_all(&bytes[..]).expect("zstd")
        } else {
            bytes
        };
        let plain = lair.dir.join("plain.tar");
        std::fs::write(&plain, &tar).expect("a file");
        let list = std::process::Command::new("tar")
            .arg("-tf")
            .arg(&plain)
            .output()
            .expect("tar");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        for part in ["why.txt", "dossier.json", "doctor.json", "README.txt"] {
            assert!(list.contains(&format!("lair-why-bad-1/{part}")), "{list}");
        }
        assert!(
            !tar.windows(8).any(|w| w == b"hunter22"),
            "a secret in {name}"
        );
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&file.metadata().expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// A model server that can't find its model: the real program's words.
#[tokio::test]
async fn a_model_server_without_its_model_is_told_so() {
    let server = std::env::var_os("LAIR_LLAMA_SERVER")
        .map(PathBuf::from)
        .expect("`eval \"$(tests/checks/machine)\"` brings the server and sets LAIR_LLAMA_SERVER");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let lair = support::Lair::start("why-llama").await;
    let script = format!("exec {} -m /nope/x.gguf --port {port}", server.display());
    lair.sh("llama", &script, "").await;
    lair.wait("llama", WaitFor::Stopped).await;
    let why = lair.handle.why("llama", None).expect("a dossier");
    let cause = why.cause.expect("a cause");
    assert_eq!(cause.code, "model_file_missing");
    assert_eq!(cause.message, "The model file /nope/x.gguf is not there.");
    lair.end().await;
}
