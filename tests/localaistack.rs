//! The 38 defects of LocalAIStack's Go runtime, row by row: those that are not about containers, as stories of lair.
//! `docs/conformance.md` is the table.

#[path = "support/machine.rs"]
mod machine;
mod support;

use lair::actors::view::HealthWord;
use lair::manifests::{
    HostFacts, Policy, RuntimeConfig, Source, parse_config, parse_stack, select,
};
use lair::supervision::NoticeKind;
use lair::{LoadOptions, ManifestSource, WaitFor};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use support::{Lair, asker, is_alive, sh};

const FOREVER: &str = "exec sleep 1000";

fn source(text: &str, trusted: bool) -> ManifestSource {
    ManifestSource::Text {
        text: text.to_owned(),
        dir: None,
        trusted,
    }
}

// S1
#[tokio::test]
async fn s1_what_is_run_is_supervised_logged_and_asked_for_its_health() {
    let lair = Lair::start("s1").await;
    let probe =
        "  health: { command: [\"true\"] }\n  restart: { policy: always, backoff: { first: 0s } }";
    lair.sh("m", "echo up; exec sleep 1000", probe).await;
    let up = lair.wait("m", WaitFor::Healthy).await;
    support::signal(up.pid.expect("a pid"), libc::SIGKILL);
    lair.until("m", "up again", |s| {
        s.run == 2 && s.health.state == HealthWord::Healthy
    })
    .await;
    // Healthy is what the probe says; what the second run prints may come a moment later.
    lair.until("m", "heard twice", |_| {
        lair.output("m", "stdout") == b"up\nup\n"
    })
    .await;
    lair.end().await;
}

// S2
#[tokio::test]
async fn s2_a_mode_that_nobody_can_run_is_refused_at_load_and_not_at_start() {
    let lair = Lair::start("s2").await;
    let odd = sh("m", FOREVER, "").replace("modes: [native]", "modes: [binary, quantum]");
    let refused = lair.load(&odd).await.expect_err("a word that is no mode");
    assert_eq!(refused.code, "mode_unavailable");
    assert!(refused.message.contains("quantum"), "{refused}");
    assert!(lair.handle.list().1.is_empty());
    lair.end().await;
}

// S3
#[tokio::test]
async fn s3_a_policy_about_modules_and_one_about_modes_both_restrict() {
    let config = |text: &str| {
        parse_config(&Source::of_text("config", text, "/".as_ref())).expect("a configuration")
    };
    for text in [
        "runtime: { policy: { allowed_runtimes: [other] } }",
        "runtime: { policy: { allowed_modes: [container] } }",
    ] {
        let lair = Lair::start_with("s3", |o| o.config = config(text)).await;
        let refused = lair
            .load(&sh("m", FOREVER, ""))
            .await
            .expect_err("not allowed");
        assert_eq!(refused.code, "mode_unavailable", "{refused}");
        lair.end().await;
    }
}

// S4
#[tokio::test]
async fn s4_a_native_module_that_nobody_vouches_for_is_refused() {
    let lair = Lair::start("s4").await;
    let refused = lair
        .handle
        .load(
            source(&sh("m", FOREVER, ""), false),
            LoadOptions::default(),
            asker(),
        )
        .await;
    assert_eq!(refused.expect_err("untrusted").code, "untrusted");
    let path = lair.home.path().join("m.yaml");
    std::fs::write(&path, sh("m", FOREVER, "")).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("its mode");
    let refused = lair
        .handle
        .load(ManifestSource::File(path), LoadOptions::default(), asker())
        .await;
    assert_eq!(
        refused.expect_err("everybody can write it").code,
        "untrusted"
    );
    lair.end().await;
}

// S6
#[tokio::test]
async fn s6_nothing_listens_but_what_a_module_opens_and_its_port_is_local() {
    let lair = Lair::start("s6").await;
    lair.sh("m", FOREVER, "  ports: { api: 18099 }").await;
    let up = lair.wait("m", WaitFor::Ready).await;
    assert_eq!(up.ports[0].address, "127.0.0.1");
    let (me, keeper) = (std::process::id(), lair.keeper().expect("a keeper"));
    let tcp = std::fs::read_to_string("/proc/self/net/tcp").expect("tcp");
    for pid in [me.cast_signed(), keeper] {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("fds")
            .flatten();
        for link in fds.filter_map(|e| std::fs::read_link(e.path()).ok()) {
            let link = link.to_string_lossy().into_owned();
            let inode = link
                .strip_prefix("socket:[")
                .and_then(|l| l.strip_suffix(']'));
            let listens = |i: &str| {
                tcp.lines()
                    .any(|l| l.contains(&format!(" {i} ")) && l.contains(" 0A "))
            };
            assert!(!inode.is_some_and(listens), "{pid} listens");
        }
    }
    lair.end().await;
}

// S7
#[tokio::test]
async fn s7_an_error_is_a_stable_code_and_costs_no_call_to_anybody() {
    let lair = Lair::start("s7").await;
    let asked = std::time::Instant::now();
    let unknown = lair
        .handle
        .start("nobody", asker())
        .await
        .expect_err("unknown");
    assert_eq!(unknown.code, "unknown_module");
    lair.sh("m", "exit 1", "").await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.reason.expect("a reason").code, "crashed");
    assert!(asked.elapsed() < Duration::from_secs(5));
    lair.end().await;
}

// N1
#[tokio::test]
async fn n1_forty_stops_of_a_healthy_sleep_are_forty_stops() {
    let lair = Lair::start("n1").await;
    lair.load(&sh("m", FOREVER, "")).await.expect("loaded");
    for run in 1..=40 {
        lair.handle.start("m", asker()).await.expect("a start");
        let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
        let down = lair.stop("m").await;
        assert_eq!((down.state.as_str(), down.run), ("stopped", run));
        assert!(!is_alive(pid));
    }
    lair.end().await;
}

// N2
#[tokio::test]
async fn n2_a_stop_is_a_polite_signal_and_its_handler_gets_to_run() {
    let lair = Lair::start("n2").await;
    lair.sh(
        "m",
        "trap 'echo bye; exit 0' TERM; echo hi; while :; do sleep 0.05; done",
        "",
    )
    .await;
    lair.until("m", "up", |s| s.logs.bytes == 3).await;
    let down = lair.stop("m").await;
    assert_eq!(down.exit.expect("an exit").code, Some(0));
    assert_eq!(lair.output("m", "stdout"), b"hi\nbye\n");
    lair.end().await;
}

// N3
#[tokio::test]
async fn n3_a_grandchild_in_a_session_of_its_own_is_gone_after_a_stop() {
    let lair = Lair::start("n3").await;
    lair.sh(
        "m",
        "setsid sleep 1000 & (sleep 1000 &) ; echo up; exec sleep 1000",
        "",
    )
    .await;
    lair.until("m", "up", |s| s.logs.bytes == 3).await;
    support::eventually("all three", || lair.processes().len() >= 3).await;
    lair.stop("m").await;
    assert_eq!(lair.processes(), Vec::<i32>::new());
    lair.end().await;
}

// N4
#[tokio::test]
async fn n4_a_requested_stop_is_no_failure() {
    let lair = Lair::start("n4").await;
    lair.sh("m", FOREVER, "").await;
    lair.wait("m", WaitFor::Ready).await;
    let down = lair.stop("m").await;
    assert_eq!(
        (down.state.as_str(), down.reason.is_none()),
        ("stopped", true),
        "{down:?}"
    );
    lair.end().await;
}

// N5
#[tokio::test]
async fn n5_a_stop_of_what_has_stopped_is_fine() {
    let lair = Lair::start("n5").await;
    lair.sh("m", "exit 0", "").await;
    let first = lair.wait("m", WaitFor::Stopped).await;
    for _ in 0..3 {
        let again = lair.stop("m").await;
        assert_eq!((again.state, again.run), (first.state.clone(), first.run));
    }
    lair.end().await;
}

// N6
#[tokio::test]
async fn n6_two_starts_at_once_are_one_process() {
    let lair = Lair::start("n6").await;
    lair.load(&sh("m", FOREVER, "")).await.expect("loaded");
    let starts = (0..20).map(|_| {
        let handle = lair.handle.clone();
        tokio::spawn(async move { handle.start("m", asker()).await })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.expect("a task").expect("a start");
    }
    lair.wait("m", WaitFor::Ready).await;
    // Between two of its programs a process has no environment to be known by.
    support::eventually("one", || lair.processes().len() == 1).await;
    assert_eq!((lair.status("m").run, lair.count("m", "running")), (1, 1));
    lair.end().await;
}

// N7
#[tokio::test]
async fn n7_a_start_that_failed_is_in_the_status_with_its_cause() {
    let lair = Lair::start("n7").await;
    let lost = sh("m", FOREVER, "").replace("native: {", "native: { workdir: /nowhere/at/all,");
    lair.load(&lost).await.expect("loaded");
    lair.handle.start("m", asker()).await.expect("asked");
    let down = lair.wait("m", WaitFor::Stopped).await;
    let why = down.reason.expect("a reason");
    assert_eq!(
        (down.state.as_str(), why.code.as_str()),
        ("failed", "start_failed")
    );
    assert_eq!(
        (why.stage.as_deref(), why.errno.as_deref()),
        (Some("change_dir"), Some("ENOENT"))
    );
    lair.end().await;
}

// N8
#[tokio::test]
async fn n8_a_module_gets_its_own_environment_and_not_the_runtimes() {
    let lair = Lair::start("n8").await;
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() || std::env::vars().count() > 8);
    lair.sh("m", "env -0 | cut -z -d= -f1 | tr '\\0' '\\n' | sort", "")
        .await;
    lair.wait("m", WaitFor::Stopped).await;
    let names = String::from_utf8(lair.output("m", "stdout")).expect("text");
    // The shell adds PWD, SHLVL, OLDPWD and _ for itself.
    let known = [
        "CUDA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "HOME",
        "LAIR_MARKER",
        "LAIR_STORY",
        "LANG",
        "NVIDIA_VISIBLE_DEVICES",
        "OLDPWD",
        "PATH",
        "PWD",
        "ROCR_VISIBLE_DEVICES",
        "SHLVL",
        "TZ",
        "_",
    ];
    assert!(names.lines().all(|n| known.contains(&n)), "{names}");
    lair.end().await;
}

// N9
#[tokio::test]
async fn n9_a_code_and_a_signal_are_different_values() {
    let lair = Lair::start("n9").await;
    lair.sh("code", "exit 137", "").await;
    lair.sh("signal", "kill -KILL $$", "").await;
    let (code, signal) = (
        lair.wait("code", WaitFor::Stopped).await,
        lair.wait("signal", WaitFor::Stopped).await,
    );
    let (code, signal) = (code.exit.expect("an exit"), signal.exit.expect("an exit"));
    assert_eq!(
        (code.code, code.signal, code.oom),
        (Some(137), None, Some(false))
    );
    assert_eq!(
        (signal.code, signal.signal, signal.by_us),
        (None, Some(9), None)
    );
    lair.end().await;
}

// H1
#[tokio::test]
async fn h1_an_old_runs_probes_say_nothing_of_the_new_run() {
    let lair = Lair::start("h1").await;
    let bad = lair.home.path().join("bad").display().to_string();
    let probe = format!(
        "  health: {{ liveness: {{ command: [/bin/sh, -c, \"! test -e {bad}\"], interval: 50ms, failures: 1 }} }}"
    );
    lair.sh("m", FOREVER, &probe).await;
    lair.wait("m", WaitFor::Healthy).await;
    std::fs::write(&bad, "").expect("bad");
    lair.until("m", "unhealthy", |s| {
        s.health.state == HealthWord::Unhealthy
    })
    .await;
    let seq = lair.handle.newest_event().borrow().to_owned();
    lair.stop("m").await;
    std::fs::remove_file(&bad).expect("good");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "healthy", |s| {
        s.run == 2 && s.health.state == HealthWord::Healthy
    })
    .await;
    let after = lair.handle.events(seq, usize::MAX).notices;
    let sick = |n: &&std::sync::Arc<lair::supervision::Notice>| matches!(&n.kind, NoticeKind::Health { state, .. } if n.inc == 2 && state == "unhealthy");
    assert_eq!(after.iter().filter(sick).count(), 0);
    lair.end().await;
}

// H2
#[tokio::test]
async fn h2_the_first_probe_comes_at_once_and_one_failure_is_no_verdict() {
    let lair = Lair::start("h2").await;
    let asked = lair.home.path().join("asked").display().to_string();
    let script =
        format!("echo >> {asked}; test $(wc -l < {asked}) != 2 || {{ echo why; exit 3; }}");
    let quick = format!(
        "  health: {{ liveness: {{ command: [/bin/sh, -c, \"{script}\"], interval: 200ms, failures: 3 }} }}"
    );
    lair.sh(
        "m",
        FOREVER,
        "  health: { liveness: { command: [\"true\"], interval: 30s } }",
    )
    .await;
    let started = std::time::Instant::now();
    lair.wait("m", WaitFor::Healthy).await;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "not after a whole interval"
    );
    lair.sh("once", FOREVER, &quick).await;
    let lines = || std::fs::read_to_string(&asked).map_or(0, |t| t.lines().count());
    lair.until("once", "asked five times", |_| lines() >= 5)
        .await;
    assert_eq!(lair.status("once").health.state, HealthWord::Healthy);
    let sick = "  health: { liveness: { command: [/bin/sh, -c, \"echo no model; exit 3\"], interval: 50ms, failures: 2 } }";
    lair.sh("sick", FOREVER, sick).await;
    let status = lair
        .until("sick", "unhealthy", |s| {
            s.health.state == HealthWord::Unhealthy
        })
        .await;
    let why = status.health.reason.expect("a reason");
    assert!(
        why.contains("exited with 3") && why.contains("no model"),
        "{why}"
    );
    lair.end().await;
}

// H3
#[tokio::test]
async fn h3_running_is_not_healthy() {
    let lair = Lair::start("h3").await;
    lair.sh("m", FOREVER, "").await;
    let up = lair.wait("m", WaitFor::Ready).await;
    assert_eq!(
        (up.state.as_str(), up.health.state),
        ("running", HealthWord::Unknown)
    );
    lair.end().await;
}

// H4
#[tokio::test]
async fn h4_a_module_that_was_stopped_is_not_unhealthy() {
    let lair = Lair::start("h4").await;
    lair.sh("m", FOREVER, "  health: { command: [\"true\"] }")
        .await;
    lair.wait("m", WaitFor::Healthy).await;
    let down = lair.stop("m").await;
    assert_eq!(down.health.state, HealthWord::Unknown);
    lair.end().await;
}

// H5
#[tokio::test]
async fn h5_a_probe_has_the_modules_environment_and_folder_and_may_be_http_or_tcp() {
    let lair = Lair::start("h5").await;
    let probe = "  health: { liveness: { command: [/bin/sh, -c, 'test \"$COLOUR\" = red && test \"$PWD\" = /usr'], interval: 50ms, failures: 1 } }";
    let manifest = sh("m", FOREVER, probe).replace(
        "native: {",
        "native: { workdir: /usr, env: { COLOUR: red },",
    );
    lair.load(&manifest).await.expect("loaded");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.wait("m", WaitFor::Healthy).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    lair.sh(
        "tcp",
        FOREVER,
        &format!("  health: {{ liveness: {{ tcp: {{ port: {port} }} }} }}"),
    )
    .await;
    lair.wait("tcp", WaitFor::Healthy).await;
    lair.end().await;
}

// L1
#[tokio::test]
async fn l1_three_starts_in_a_second_are_three_files() {
    let lair = Lair::start("l1").await;
    for _ in 0..3 {
        lair.sh("m", "echo $LAIR_MARKER", "").await;
        lair.wait("m", WaitFor::Stopped).await;
    }
    assert_eq!(lair.output("m", "stdout").split(|b| *b == b'\n').count(), 4);
    let runs: Vec<String> = machine::segments(&lair.handle.log_dir().join("m"));
    assert_eq!(
        runs.iter().map(|n| &n[..2]).collect::<Vec<_>>(),
        ["1.", "2.", "3."]
    );
    lair.end().await;
}

// L2
#[tokio::test]
async fn l2_a_name_that_is_a_path_is_refused_and_nothing_is_written_elsewhere() {
    let lair = Lair::start("l2").await;
    let refused = lair
        .load(&sh("../../escape", "true", ""))
        .await
        .expect_err("a path");
    assert_eq!(refused.code, "invalid_manifest");
    let up = lair.handle.log_dir().join("../../escape");
    assert!(!up.exists());
    lair.end().await;
}

// L3
#[tokio::test]
async fn l3_logs_are_bounded_stamped_told_apart_and_not_for_everybody() {
    let lair = Lair::start("l3").await;
    lair.sh(
        "m",
        "seq 1 20000; echo e >&2",
        "  logs: { max_size: 64KiB, max_files: 3, compress: false }",
    )
    .await;
    lair.wait("m", WaitFor::Stopped).await;
    let dir = lair.handle.log_dir().join("m");
    let files = machine::segments(&dir);
    assert!(files.len() <= 3 && machine::bytes_below(&dir) <= 3 * 64 * 1024);
    let mode =
        |p: &std::path::Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o750);
    for file in &files {
        assert_eq!(mode(&dir.join(file)), 0o640);
    }
    let last = std::fs::read_to_string(dir.join(files.last().expect("a file"))).expect("text");
    let line = last
        .lines()
        .find(|l| l.ends_with(" stderr F e"))
        .expect("stamped and marked");
    assert!(
        line.starts_with("20") && line.contains("T") && line.contains("Z "),
        "{line}"
    );
    lair.end().await;
}

// X1
#[tokio::test]
async fn x1_a_status_is_a_copy_that_nobody_changes_behind_its_readers_back() {
    let lair = Lair::start("x1").await;
    lair.sh("m", FOREVER, "").await;
    let up = lair.wait("m", WaitFor::Ready).await;
    let before = serde_json::to_string(&up).expect("text");
    lair.stop("m").await;
    assert_eq!(serde_json::to_string(&up).expect("text"), before);
    assert_ne!(
        serde_json::to_string(&lair.status("m")).expect("text"),
        before
    );
    lair.end().await;
}

// X2
#[tokio::test]
async fn x2_starting_is_told_before_running() {
    let lair = Lair::start("x2").await;
    lair.sh("m", FOREVER, "").await;
    lair.wait("m", WaitFor::Ready).await;
    assert!(
        lair.story("m")
            .starts_with("loaded#0 starting#1 running#1 ready#1"),
        "{}",
        lair.story("m")
    );
    lair.end().await;
}

// X3
#[tokio::test]
async fn x3_a_preference_that_cannot_be_met_is_refused_unless_a_fallback_is_asked_for() {
    let lair = Lair::start("x3").await;
    let both = sh("m", FOREVER, "  container: { image: localhost/none }")
        .replace("modes: [native]", "modes: [native, container]");
    let mut options = LoadOptions {
        preference: Some(lair::manifests::Mode::Container),
        ..LoadOptions::default()
    };
    let refused = lair
        .handle
        .load(source(&both, true), options.clone(), asker())
        .await
        .expect_err("no engine");
    assert_eq!(refused.code, "mode_unavailable", "{refused}");
    options.fallback = true;
    lair.handle
        .load(source(&both, true), options, asker())
        .await
        .expect("native instead");
    assert_eq!(
        (
            lair.status("m").mode.as_str(),
            lair.count("m", "mode_fallback")
        ),
        ("native", 1)
    );
    lair.end().await;
}

// X4
#[test]
fn x4_the_same_question_gets_the_same_mode_every_time() {
    let both = sh("m", FOREVER, "  container: { image: localhost/none }")
        .replace("modes: [native]", "modes: [native, container]");
    let stack = parse_stack(&Source::of_text("m", &both, "/".as_ref())).expect("a manifest");
    let choose = || {
        let chosen = select(
            &stack.modules[0],
            &HostFacts::default(),
            &Policy::default(),
            &RuntimeConfig::default(),
            None,
            true,
            &Ok(()),
        );
        format!("{:?}", chosen.map(|c| (c.mode, c.explanation)))
    };
    let first = choose();
    assert!((0..100).all(|_| choose() == first));
}

// X5
#[tokio::test]
async fn x5_restarts_follow_a_policy_within_a_budget_and_every_step_is_an_event() {
    let lair = Lair::start("x5").await;
    let policy = "  restart: { policy: always, max: 2, within: 1m, backoff: { first: 100ms } }";
    lair.sh("m", "exit 1", policy).await;
    let down = lair.until("m", "given up", |s| s.state == "failed").await;
    assert_eq!(down.reason.expect("a reason").code, "gave_up");
    assert_eq!(
        (
            lair.count("m", "starting"),
            lair.count("m", "backoff"),
            lair.count("m", "exited")
        ),
        (3, 2, 3)
    );
    lair.end().await;
}
