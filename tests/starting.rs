//! Starts that come to nothing, and why: faults D4, D5 and D7.

mod support;

use lair::WaitFor;
use lair::supervision::{DownReason, NoticeKind, Phase, StopCause};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::{Lair, asker, is_alive, sh};

/// D4
#[tokio::test]
async fn a_module_that_fits_nowhere_is_refused_with_each_reason() {
    let lair = Lair::start("d4").await;
    let manifest = "
name: m
runtime:
  modes: [container, native]
  container: { image: x/y }
  native: { command: [/no/such/program] }
  resources: { gpu: { count: 64 }, memory: 900TiB }
";
    let refused = lair.load(manifest).await.expect_err("it fits nowhere");
    assert!(
        ["mode_unavailable", "program_missing"].contains(&refused.code),
        "{}",
        refused.code
    );
    let why = refused.data["refusals"][0]["why"]
        .as_array()
        .expect("reasons");
    let told = |mode: &str, about: &str| {
        why.iter()
            .any(|m| m["mode"] == mode && m.to_string().to_lowercase().contains(about))
    };
    for (mode, about) in [
        ("container", "engine"),
        ("container", "gpu"),
        ("native", "gpu"),
        ("native", "program"),
    ] {
        assert!(told(mode, about), "nothing of {about} for {mode}: {why:#?}");
    }
    assert!(refused.help.is_some());
    // Neither a crash nor something to try again: it is not there.
    assert_eq!(
        lair.handle.status("m").expect_err("not loaded").code,
        "unknown_module"
    );
    assert!(lair.handle.start("m", asker()).await.is_err());
    assert_eq!(lair.notices("m").len(), 0);
    lair.end().await;
}

/// D5
#[tokio::test]
async fn a_port_that_is_taken_is_the_modules_own_failure() {
    let lair = Lair::start("d5").await;
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = stranger.local_addr().expect("an address").port();
    let script = format!(
        "exec perl -MIO::Socket::INET -e '$| = 1; IO::Socket::INET->new(LocalAddr => qq(127.0.0.1), \
         LocalPort => {port}, Listen => 1, ReuseAddr => 1) or die qq(bind: $!\\n); print qq(up\\n); sleep 1000'"
    );
    // Declared, it is refused before anything is done, and the holder is named.
    let declared = format!("  ports: {{ http: {port} }}");
    lair.load(&sh("m", &script, &declared))
        .await
        .expect("loaded");
    let refused = lair.handle.start("m", asker()).await.expect_err("taken");
    assert_eq!(refused.code, "port_taken");
    let me = std::process::id();
    assert!(
        refused.message.contains(&format!("is taken by pid {me} (")),
        "{refused}"
    );
    assert_eq!(lair.status("m").run, 0, "nothing was started");
    // Not declared, or taken after the look, it is the module's own failure.
    lair.sh("m", &script, "").await;
    let down = lair.wait("m", WaitFor::Exited).await;
    let (reason, exit) = (down.reason.expect("a reason"), down.exit.expect("an exit"));
    assert_eq!(
        (reason.code.as_str(), exit.code),
        ("crashed", Some(libc::EADDRINUSE))
    );
    assert_eq!(
        reason.evidence,
        Vec::<String>::new(),
        "the stranger's port is nothing of the module's"
    );
    assert_eq!(
        lair.output("m", "stderr"),
        b"bind: Address already in use\n"
    );
    // The stranger is as it was, and when it goes the module can have the port.
    assert_eq!(stranger.local_addr().expect("an address").port(), port);
    drop(stranger);
    lair.load(&sh("m", &script, &declared))
        .await
        .expect("loaded");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "listening", |s| s.logs.bytes == 3).await;
    // Stopped means that the port is free again.
    let down = lair.stop("m").await;
    assert!(down.reason.is_none(), "{:?}", down.reason);
    TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    lair.end().await;
}

const NEVER: &str = "echo up; exec sleep 1000";
const CLOSES: &str = "exec 3>&-; echo up; exec sleep 1000";
const PATIENT: &str = "  health: { startup: { fd: true, deadline: 400ms } }";

/// D7
#[tokio::test]
async fn one_that_never_says_ready_is_stopped_for_it() {
    let lair = Lair::start("d7").await;
    lair.sh("m", NEVER, PATIENT).await;
    let pid = lair
        .until("m", "up", |s| s.logs.bytes == 3)
        .await
        .pid
        .expect("a pid");
    assert!(!lair.status("m").ready);
    let refused = lair
        .handle
        .wait("m", WaitFor::Ready, Some(support::SOON))
        .await;
    assert_eq!(refused.expect_err("it never will be").code, "failed");
    not_ready_in_time(&lair, pid);
    assert_eq!(lair.count("m", "starting"), 1, "no policy, no second start");
    lair.end().await;
}

fn not_ready_in_time(lair: &Lair, pid: i32) {
    let down = lair.status("m");
    assert_eq!((down.state.as_str(), down.ready), ("failed", false));
    assert_eq!(down.reason.expect("a reason").code, "not_ready_in_time");
    assert_eq!(
        lair.view("m").child.phase,
        Phase::Down(DownReason::NotReadyInTime)
    );
    assert_eq!(
        lair.story("m").replace("health#1 ", ""),
        "loaded#0 starting#1 running#1 stopping#1 exited#1 down#1"
    );
    let cause = NoticeKind::Stopping {
        cause: StopCause::NotReadyInTime,
    };
    assert!(lair.notices("m").iter().any(|n| n.kind == cause));
    assert!(!is_alive(pid));
}

/// D7
#[tokio::test]
async fn one_that_closes_its_ready_descriptor_is_stopped_at_once() {
    let lair = Lair::start("d7-close").await;
    let began = Instant::now();
    lair.sh("m", CLOSES, "  health: { ready: fd }").await;
    let up = lair
        .until("m", "up or down", |s| {
            s.pid.is_some() || s.state == "failed"
        })
        .await;
    lair.wait("m", WaitFor::Stopped).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it waited for a deadline"
    );
    not_ready_in_time(&lair, up.pid.unwrap_or(i32::MAX));
    lair.end().await;
}

/// D7
#[tokio::test]
async fn the_restart_policy_holds_for_one_that_is_not_ready_in_time() {
    let lair = Lair::start("d7-policy").await;
    let more = format!(
        "  restart: {{ policy: on-failure, max: 2, within: 60s, backoff: {{ first: 10ms }} }}\n{}",
        "  health: { ready: fd }"
    );
    lair.sh("m", CLOSES, &more).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(
        (down.run, down.reason.expect("a reason").code.as_str()),
        (3, "gave_up")
    );
    assert_eq!(
        (lair.count("m", "ready"), lair.count("m", "exited")),
        (0, 3)
    );
    lair.end().await;
}

/// D7
#[tokio::test]
async fn one_newline_in_time_makes_it_ready() {
    let lair = Lair::start("d7-good").await;
    lair.sh(
        "m",
        "sleep 0.1; echo >&3; exec sleep 1000",
        "  health: { startup: { fd: true, deadline: 15s } }",
    )
    .await;
    assert!(lair.wait("m", WaitFor::Ready).await.ready);
    lair.stop("m").await;
    assert_eq!(
        lair.story("m").replace("health#1 ", ""),
        "loaded#0 starting#1 running#1 ready#1 stopping#1 exited#1 down#1"
    );
    lair.end().await;
}
