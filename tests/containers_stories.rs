//! Containers in a runtime, on the real engines: what goes wrong with an engine, and what a module may then rely on.

mod support;

use lair::actors::backend::container::container_name;
use lair::actors::backend::container::find::EnginePlaces;
use lair::supervision::ChildIdentity;
use lair::{Folders, WaitFor};
use std::path::PathBuf;
use support::engines::{Kind, image};
use support::{Home, Lair, asker, eventually, is_alive};

/// A runtime that knows one engine only, at this socket.
async fn lair_at(story: &str, kind: Kind, socket: PathBuf) -> Lair {
    let mut places = EnginePlaces::default();
    match kind {
        Kind::Podman => places.podman.push(socket),
        Kind::Docker => places.docker.push(socket),
    }
    let story = format!("{story}-{}", kind.name());
    Lair::start_with(&story, |o| o.engines = Some(places)).await
}

async fn lair_on(story: &str, kind: Kind) -> Lair {
    lair_at(story, kind, kind.socket()).await
}

/// `sh -c SCRIPT` in the tiny image.
fn sh(name: &str, script: &str, more: &str) -> String {
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    manifest(name, "base", &format!("command: {command}"), more)
}

fn manifest(name: &str, of: &str, container: &str, more: &str) -> String {
    let image = image(of);
    let container = format!("image: '{image}', {container}");
    let container = container.trim_end_matches(", ");
    format!(
        "name: {name}\nruntime:\n  container: {{ {container} }}\n  stop: {{ grace: 400ms }}\n{more}\n"
    )
}

async fn start(lair: &Lair, name: &str, manifest: &str) {
    lair.load(manifest).await.unwrap_or_else(|e| panic!("{e}"));
    lair.handle.start(name, asker()).await.expect("a start");
}

/// Starts it and waits for its first word.
async fn up(lair: &Lair, name: &str, manifest: &str) -> i32 {
    start(lair, name, manifest).await;
    let so = |s: &lair::actors::status::ModuleStatus| s.state == "running" && s.logs.bytes > 0;
    lair.until(name, "up", so).await;
    init(lair, name)
}

/// Its first process, as this machine numbers it.
fn init(lair: &Lair, name: &str) -> i32 {
    match lair.view(name).child.identity() {
        Some(ChildIdentity::Container {
            init_pid: Some(pid),
            ..
        }) => *pid,
        other => panic!("no first process: {other:?}"),
    }
}

fn instance(lair: &Lair) -> String {
    let file = Folders::below(lair.home.path()).state.join("instance");
    let name = std::fs::read_to_string(file).expect("this lair's name");
    name.trim().to_owned()
}

fn container(lair: &Lair, module: &str) -> String {
    container_name(&instance(lair), module)
}

/// Containers with this lair's label.
fn ours(lair: &Lair, kind: Kind) -> String {
    let label = format!("label=lair.instance={}", instance(lair));
    kind.cli(&["ps", "-aq", "--filter", &label])
}

/// Ends it and looks that no container stayed.
async fn end(lair: Lair, kind: Kind) {
    let label = format!("label=lair.instance={}", instance(&lair));
    lair.end().await;
    assert_eq!(
        kind.cli(&["ps", "-aq", "--filter", &label]),
        "",
        "I1: left over"
    );
}

async fn failed(lair: &Lair, name: &str) -> (String, String) {
    let down = lair.wait(name, WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.code, "start_failed", "{reason:?}");
    let words = serde_json::to_string(&reason).expect("a reason");
    (reason.stage.unwrap_or_default(), words)
}

/// D1: an image that is not here is said to be so, and nobody is asked for it.
async fn an_image_that_is_not_here_is_not_fetched(kind: Kind) {
    let lair = lair_on("d1", kind).await;
    let text = "name: m\nruntime:\n  container: { image: 'lair-test/not-there:1' }\n  restart: { policy: permanent }\n";
    start(&lair, "m", text).await;
    let (stage, words) = failed(&lair, "m").await;
    assert_eq!(stage, "resolve_image");
    assert!(
        words.contains("image_missing") && words.contains("pull"),
        "{words}"
    );
    assert_eq!(lair.count("m", "starting"), 1, "trying again can't help");
    end(lair, kind).await;
}

/// D3: a leftover of ours under our name is replaced, and said to be; a stranger's container is left alone.
async fn a_leftover_is_replaced_and_a_stranger_left_alone(kind: Kind) {
    let lair = lair_on("d3", kind).await;
    let name = container(&lair, "m");
    let base = image("base");
    kind.cli(&["create", "--name", &name, &base, "sleep", "9"]);
    start(&lair, "m", &sh("m", "echo up; exec sleep 1000", "")).await;
    let (_, words) = failed(&lair, "m").await;
    assert!(
        words.contains("container_name_taken") && words.contains(&name),
        "{words}"
    );
    assert_eq!(
        kind.cli(&[
            "ps",
            "-a",
            "--filter",
            &format!("name={name}"),
            "--format",
            "{{.Names}}"
        ]),
        name
    );
    kind.cli(&["rm", &name]);
    let labels = [
        format!("lair.instance={}", instance(&lair)),
        "lair.module=m".into(),
        "lair.run=77".into(),
    ];
    kind.cli(&[
        "create", "--name", &name, "--label", &labels[0], "--label", &labels[1], "--label",
        &labels[2], &base, "sleep", "9",
    ]);
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "up", |s| s.state == "running" && s.logs.bytes > 0)
        .await;
    let told = serde_json::to_string(&lair.notices("m")).expect("notices");
    assert!(told.contains("leftover container"), "{told}");
    lair.stop("m").await;
    end(lair, kind).await;
}

/// D6: a limit that the engine may not set fails the start with the engine's reason in one line, and leaves no container.
async fn a_limit_that_the_engine_may_not_set_fails_the_start(kind: Kind) {
    let lair = lair_on("d6", kind).await;
    start(
        &lair,
        "m",
        &sh("m", "echo up", "  resources: { nofile: 9000000 }"),
    )
    .await;
    let (stage, words) = failed(&lair, "m").await;
    assert!(
        words.contains("limit_refused") && words.to_lowercase().contains("rlimit"),
        "{words}"
    );
    assert_eq!(
        stage,
        if kind == Kind::Podman {
            "create"
        } else {
            "start"
        }
    );
    eventually("the container is removed", || ours(&lair, kind).is_empty()).await;
    end(lair, kind).await;
}

/// B9: a first process that ignores the stop signal gets its whole grace and is then killed; it was stopped on request.
async fn a_first_process_that_ignores_the_stop_is_killed_after_its_grace(kind: Kind) {
    let lair = lair_on("b9", kind).await;
    let deaf = manifest("m", "ignore-term", "init: false", "");
    let pid = up(&lair, "m", &deaf).await;
    let begun = std::time::Instant::now();
    let down = lair.stop("m").await;
    assert!(
        begun.elapsed() >= std::time::Duration::from_millis(400),
        "the whole grace"
    );
    assert_eq!(down.state, "stopped");
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.by_us), (Some(9), Some(9)), "{exit:?}");
    assert!(!is_alive(pid));
    end(lair, kind).await;
}

/// G1: an engine that is away fails a container's start with its code, processes go on, and the next start finds it again.
async fn an_engine_that_is_away_fails_a_start_and_is_found_again(kind: Kind) {
    let home = Home::new("g1");
    let socket = home.path().join("engine.sock");
    let there = || std::os::unix::fs::symlink(kind.socket(), &socket).expect("a link");
    there();
    let lair = lair_at("g1", kind, socket.clone()).await;
    lair.load(&sh("m", "echo up; exec sleep 1000", ""))
        .await
        .expect("a load");
    std::fs::remove_file(&socket).expect("gone");
    lair.handle.start("m", asker()).await.expect("a start");
    let (_, words) = failed(&lair, "m").await;
    assert!(words.contains("engine_unreachable"), "{words}");
    lair.sh("native", "exec sleep 1000", "").await;
    lair.until("native", "up", |s| s.state == "running").await;
    there();
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "up", |s| s.state == "running" && s.logs.bytes > 0)
        .await;
    lair.stop("m").await;
    lair.stop("native").await;
    end(lair, kind).await;
}

/// G5: a container that somebody removes has ended once, and its module does not stay up for ever.
async fn one_that_is_removed_by_hand_has_ended_once(kind: Kind) {
    let lair = lair_on("g5", kind).await;
    let pid = up(&lair, "m", &sh("m", "echo up; exec sleep 1000", "")).await;
    let name = container(&lair, "m");
    match kind {
        Kind::Podman => kind.cli(&["rm", "-f", "-t", "0", &name]),
        Kind::Docker => kind.cli(&["rm", "-f", &name]),
    };
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.state, "failed");
    assert!(!is_alive(pid));
    assert_eq!(
        (lair.count("m", "exited"), lair.count("m", "running")),
        (1, 1)
    );
    end(lair, kind).await;
}

/// G6: one that is stopped by hand has ended; one that is paused is up, and a stop ends it as it is.
async fn one_that_is_paused_by_hand_is_up_and_can_be_stopped(kind: Kind) {
    let lair = lair_on("g6", kind).await;
    up(
        &lair,
        "m",
        &sh(
            "m",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done",
            "",
        ),
    )
    .await;
    let name = container(&lair, "m");
    kind.cli(&["stop", "-t", "5", &name]);
    let down = lair.wait("m", WaitFor::Stopped).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.by_us), (Some(3), None), "{exit:?}");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "up", |s| s.run == 2 && s.state == "running")
        .await;
    kind.cli(&["pause", &name]);
    assert_eq!(lair.status("m").state, "running");
    let down = lair.stop("m").await;
    assert_eq!(down.state, "stopped");
    assert_eq!(lair.count("m", "exited"), 2);
    end(lair, kind).await;
}

/// G7: two lairs on one engine don't see, take or remove each other's containers, though their modules have the same name.
async fn two_lairs_on_one_engine_keep_apart(kind: Kind) {
    let (one, two) = (lair_on("g7a", kind).await, lair_on("g7b", kind).await);
    let text = sh("m", "echo up; exec sleep 1000", "");
    let first = up(&one, "m", &text).await;
    let second = up(&two, "m", &text).await;
    assert_ne!(instance(&one), instance(&two));
    one.stop("m").await;
    end(one, kind).await;
    assert!(is_alive(second) && !is_alive(first));
    assert_eq!(two.status("m").state, "running");
    two.stop("m").await;
    end(two, kind).await;
}

/// Least privilege, by the word of the process inside: no capability, none to be gained, a root that can't be written, no network but
/// its own loopback, no host folder and no engine's socket.
async fn a_module_has_nothing_that_it_did_not_ask_for(kind: Kind) {
    let lair = lair_on("least", kind).await;
    let look = "grep -E '^(NoNewPrivs|CapEff|CapBnd):' /proc/1/status /proc/self/status; touch /x 2>/dev/null && echo wrote; touch /tmp/x && echo tmp; \
                ls /sys/class/net; find / -xdev -name '*.sock' 2>/dev/null; grep -cE ' /(home|root|var/run|run/podman/)' /proc/self/mounts; hostname >/dev/null";
    start(&lair, "m", &sh("m", look, "")).await;
    lair.wait("m", WaitFor::Stopped).await;
    let out = String::from_utf8(lair.output("m", "stdout"))
        .expect("text")
        .replace('\t', " ");
    let none = "0000000000000000";
    for process in ["/proc/1/status", "/proc/self/status"] {
        for line in [
            format!("CapEff: {none}"),
            format!("CapBnd: {none}"),
            "NoNewPrivs: 1".into(),
        ] {
            assert!(
                out.contains(&format!("{process}:{line}")),
                "{line} of {process}: {out}"
            );
        }
    }
    let rest: Vec<&str> = out.lines().filter(|l| !l.starts_with("/proc/")).collect();
    assert_eq!(rest, ["tmp", "lo", "0"], "{out}");
    let told = serde_json::to_string(&lair.notices("m")).expect("notices");
    assert!(
        !told.contains("was asked for"),
        "what is in force is what was asked for: {told}"
    );
    end(lair, kind).await;
}

/// Nothing is lost under flood, and the two streams stay apart, in the same files and form as a process's.
async fn a_flood_on_both_streams_is_complete(kind: Kind) {
    let lair = lair_on("flood", kind).await;
    let script = "(i=0; while [ $i -lt 3000 ]; do echo err $i; i=$((i+1)); done >&2) & yes 0123456789012345678901234567890123456789 | head -n 200000; wait; printf end";
    start(&lair, "m", &sh("m", script, "")).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.logs.dropped, 0);
    let out = lair.output("m", "stdout");
    assert_eq!(out.len(), 200_000 * 41 + 3);
    assert!(out.ends_with(b"\nend"));
    let err = String::from_utf8(lair.output("m", "stderr")).expect("text");
    let want: String = (0..3000).map(|i| format!("err {i}\n")).collect();
    assert!(err == want, "{} bytes of {}", err.len(), want.len());
    end(lair, kind).await;
}

macro_rules! on_both {
    ($($story:ident)*) => {
        mod podman { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Podman).await; })* }
        mod docker { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Docker).await; })* }
    };
}

on_both! {
    an_image_that_is_not_here_is_not_fetched
    a_leftover_is_replaced_and_a_stranger_left_alone
    a_limit_that_the_engine_may_not_set_fails_the_start
    a_first_process_that_ignores_the_stop_is_killed_after_its_grace
    an_engine_that_is_away_fails_a_start_and_is_found_again
    one_that_is_removed_by_hand_has_ended_once
    one_that_is_paused_by_hand_is_up_and_can_be_stopped
    two_lairs_on_one_engine_keep_apart
    a_module_has_nothing_that_it_did_not_ask_for
    a_flood_on_both_streams_is_complete
}
