//! Engines that are killed, frozen or mute under a runtime, each an engine of the story's own.

mod support;

use lair::WaitFor;
use support::contained::{OwnEngine, container, end, lair_at, sh, up};
use support::engines::Kind;
use support::{Home, Lair, SOON, asker, eventually, is_alive, signal};

const FOREVER: &str = "echo up; exec sleep 1000";

fn is_there(lair: &Lair, engine: &OwnEngine, module: &str) -> bool {
    let name = format!("name={}", container(lair, module));
    !engine.ask(&["ps", "-aq", "--filter", &name]).is_empty()
}

/// Its log says that it was let go of with its streams open.
fn detached(lair: &Lair, module: &str) -> bool {
    let dir = lair.handle.log_dir().join(module);
    let texts = std::fs::read_dir(dir).expect("logs");
    let mut texts = texts.map(|file| std::fs::read(file.expect("a file").path()).expect("read"));
    texts.any(|text| String::from_utf8_lossy(&text).contains(" detached open="))
}

/// G2: an engine that is killed under a running module costs sight of it and nothing else.
async fn an_engine_that_is_killed_costs_sight_and_no_module(kind: Kind) {
    let home = Home::new("g2");
    let mut engine = OwnEngine::start(kind, home.path());
    let lair = lair_at("g2", kind, engine.socket()).await;
    let pid = up(&lair, "m", &sh("m", FOREVER, "")).await;
    engine.kill();
    eventually("sight is lost", || lair.count("m", "sight_lost") == 1).await;
    assert!(is_alive(pid));
    engine.start_again();
    eventually("sight is regained", || {
        lair.count("m", "sight_regained") == 1
    })
    .await;
    assert_eq!((lair.status("m").run, lair.count("m", "exited")), (1, 0));
    assert!(is_alive(pid));
    let down = lair.stop("m").await;
    assert_eq!(down.state, "stopped");
    end(lair, |args| engine.ask(args)).await;
}

/// G2 I4: what a module prints while its engine is dead, and after, is in its log when the engine is back: each line once. Of what
/// Docker had read and nobody has, as it was killed before it could hand it on, a few lines are missing in its own log, too.
async fn an_engine_that_is_killed_costs_no_line(kind: Kind) {
    const COUNTS: &str = "i=0; while [ ! -e /tmp/enough ]; do i=$((i+1)); echo out $i; echo err $i >&2; sleep 0.005; done; exec sleep 1000";
    let home = Home::new("g2c");
    let mut engine = OwnEngine::start(kind, home.path());
    let lair = lair_at("g2c", kind, engine.socket()).await;
    up(&lair, "m", &sh("m", COUNTS, "")).await;
    for round in 1..=2 {
        engine.kill();
        eventually("sight is lost", || lair.count("m", "sight_lost") == round).await;
        engine.start_again();
        eventually("sight is regained", || {
            lair.count("m", "sight_regained") == round
        })
        .await;
        let before = lair.status("m").logs.bytes;
        lair.until("m", "its output goes on", |s| s.logs.bytes > before + 2000)
            .await;
    }
    let name = container(&lair, "m");
    engine.ask(&["exec", &name, "touch", "/tmp/enough"]);
    for (stream, word) in [("stdout", "out"), ("stderr", "err")] {
        let lines = |text: &str| -> Vec<u64> {
            let of = |line: &str| line.strip_prefix(word)?.trim().parse().ok();
            text.lines().filter_map(of).collect()
        };
        let ours = || lines(&String::from_utf8_lossy(&lair.output("m", stream)));
        let theirs = || lines(&engine.ask(&["logs", &name]));
        eventually("all that the engine has is in the log", || {
            let ours = ours();
            theirs().iter().all(|n| ours.binary_search(n).is_ok())
        })
        .await;
        let ours = ours();
        assert!(ours.windows(2).all(|w| w[0] < w[1]), "none twice: {ours:?}");
        let missing = ours.last().map_or(0, |last| last - ours.len() as u64);
        assert!(kind == Kind::Docker || missing == 0, "{ours:?}");
        assert!(ours.len() > 400 && missing < 40, "{missing} of {ours:?}");
    }
    lair.stop("m").await;
    end(lair, |args| engine.ask(args)).await;
}

/// G2 I4: the last words of what ends while its engine is dead are in its log, or it is said that they may be missing: Docker's
/// containers have nobody else who would hear them.
async fn last_words_that_no_engine_heard_are_kept_or_missed_aloud(kind: Kind) {
    const SPEAKS: &str =
        "trap 'echo last; printf words; exit 3' USR1; echo first; while :; do sleep 0.01; done";
    let home = Home::new("g2d");
    let mut engine = OwnEngine::start(kind, home.path());
    let lair = lair_at("g2d", kind, engine.socket()).await;
    let pid = up(&lair, "m", &sh("m", SPEAKS, "")).await;
    lair.until("m", "its trap is set", |s| s.logs.bytes >= 6)
        .await;
    engine.kill();
    eventually("sight is lost", || lair.count("m", "sight_lost") == 1).await;
    signal(pid, libc::SIGUSR1);
    eventually("it has ended", || !is_alive(pid)).await;
    engine.start_again();
    let down = lair.wait("m", WaitFor::Exited).await;
    assert_eq!(down.exit.and_then(|exit| exit.code), Some(3));
    let said = lair.output("m", "stdout");
    let whole = said == b"first\nlast\nwords";
    let missed = lair.count("m", "differs") > 0 || detached(&lair, "m");
    assert!(whole || missed, "{:?}", String::from_utf8_lossy(&said));
    assert!(
        whole || kind == Kind::Docker || detached(&lair, "m"),
        "conmon heard them"
    );
    end(lair, |args| engine.ask(args)).await;
}

/// G2: what ends while its engine is dead has ended by the kernel's word, and its container is removed when the engine is back.
async fn what_ends_while_its_engine_is_dead_is_told_and_removed(kind: Kind) {
    let home = Home::new("g2b");
    let mut engine = OwnEngine::start(kind, home.path());
    let lair = lair_at("g2b", kind, engine.socket()).await;
    let pid = up(&lair, "m", &sh("m", FOREVER, "")).await;
    engine.kill();
    eventually("sight is lost", || lair.count("m", "sight_lost") == 1).await;
    let down = lair.stop("m").await;
    assert_eq!(down.state, "stopped");
    assert!(!is_alive(pid));
    engine.start_again();
    eventually("its container is removed", || {
        !is_there(&lair, &engine, "m")
    })
    .await;
    end(lair, |args| engine.ask(args)).await;
}

/// G3: an engine that is frozen costs sight; a stop that is asked for meanwhile ends the module by the kernel, and the container
/// is removed when the engine has thawed.
async fn an_engine_that_is_frozen_keeps_nobody_from_stopping(kind: Kind) {
    let home = Home::new("g3");
    let engine = OwnEngine::start(kind, home.path());
    let lair = lair_at("g3", kind, engine.socket()).await;
    let pid = up(&lair, "m", &sh("m", FOREVER, "")).await;
    signal(engine.pid(), libc::SIGSTOP);
    eventually("sight is lost", || lair.count("m", "sight_lost") == 1).await;
    lair.handle.stop("m", None, asker()).await.expect("a stop");
    eventually("it ends all the same", || !is_alive(pid)).await;
    signal(engine.pid(), libc::SIGCONT);
    lair.wait("m", WaitFor::Stopped).await;
    eventually("its container is removed", || {
        !is_there(&lair, &engine, "m")
    })
    .await;
    end(lair, |args| engine.ask(args)).await;
}

/// D2: an engine that never answers a create fails the start at its deadline, and what it makes later does not stay.
async fn an_engine_that_never_answers_fails_the_start_and_leaves_nothing(kind: Kind) {
    let home = Home::new("d2");
    let engine = OwnEngine::start(kind, home.path());
    let lair = lair_at("d2", kind, engine.socket()).await;
    lair.load(&sh("m", FOREVER, "")).await.expect("a load");
    signal(engine.pid(), libc::SIGSTOP);
    lair.handle.start("m", asker()).await.expect("a start");
    let down = lair
        .handle
        .wait("m", WaitFor::Stopped, Some(SOON * 3))
        .await;
    let reason = down.expect("an end of the start").reason.expect("a reason");
    assert!(reason.message.contains("engine_timed_out"), "{reason:?}");
    signal(engine.pid(), libc::SIGCONT);
    eventually("nothing stays", || !is_there(&lair, &engine, "m")).await;
    assert_eq!(lair.count("m", "running"), 0);
    end(lair, |args| engine.ask(args)).await;
}

macro_rules! on_both {
    ($($story:ident)*) => {
        mod podman { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Podman).await; })* }
        mod docker { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Docker).await; })* }
    };
}

on_both! {
    an_engine_that_is_killed_costs_sight_and_no_module
    an_engine_that_is_killed_costs_no_line
    last_words_that_no_engine_heard_are_kept_or_missed_aloud
    what_ends_while_its_engine_is_dead_is_told_and_removed
    an_engine_that_is_frozen_keeps_nobody_from_stopping
    an_engine_that_never_answers_fails_the_start_and_leaves_nothing
}
