//! The first stories: one module, from start to a stop with proof.

mod support;

use lair::WaitFor;
use support::{Lair, is_alive};

#[tokio::test]
async fn a_module_runs_prints_and_stops_with_proof() {
    let lair = Lair::start("first").await;
    lair.sh(
        "m",
        "echo out; echo err >&2; printf tail; exec sleep 1000",
        "",
    )
    .await;
    let up = lair.until("m", "printing", |s| s.logs.bytes == 12).await;
    let pid = up.pid.expect("a pid");
    let down = lair.stop("m").await;
    assert_eq!(
        (down.state.as_str(), down.exit.expect("an exit").signal),
        ("stopped", Some(15))
    );
    assert!(!is_alive(pid));
    assert_eq!(lair.output("m", "stdout"), b"out\ntail");
    assert_eq!(lair.output("m", "stderr"), b"err\n");
    assert_eq!(
        lair.story("m"),
        "loaded#0 starting#1 running#1 ready#1 stopping#1 exited#1 down#1"
    );
    lair.end().await;
}

#[tokio::test]
async fn an_exit_code_is_kept_as_it_was() {
    let lair = Lair::start("code").await;
    lair.sh("m", "exit 3", "").await;
    let down = lair.wait("m", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.signal), (Some(3), None));
    assert_eq!(down.state, "failed");
    assert_eq!(down.reason.expect("a reason").code, "crashed");
    lair.end().await;
}
