//! Where modules listen, against what they declared: real sockets, found in the kernel, never asked of a module.

mod support;

use lair::actors::status::ModuleStatus;
use lair::manifests::{Source, parse_config};
use lair::supervision::NoticeKind;
use lair::{LoadOptions, ManifestSource, WaitFor};
use std::net::TcpListener;
use std::path::Path;
use support::{Lair, asker, sh};

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

/// A script that listens on each of these, in a process below its leader.
fn listens(on: &[String]) -> String {
    let list: Vec<String> = on.iter().map(|at| format!("q({at})")).collect();
    format!(
        "perl -MIO::Socket::INET -e '$| = 1; for ({}) {{ push @l, IO::Socket::INET->new(LocalAddr => $_, Listen => 1, ReuseAddr => 1) || die $! }} print qq(up\\n); sleep 1000'; true",
        list.join(", ")
    )
}

async fn with_config(name: &str, config: &str) -> Lair {
    let source = Source::of_text("config", config, Path::new("/"));
    let config = parse_config(&source).expect("a configuration");
    Lair::start_with(name, |o| o.config = config).await
}

fn places(status: &ModuleStatus) -> Vec<String> {
    let places = status.exposed.iter();
    places
        .map(|s| format!("{}:{}", s.address, s.port))
        .collect()
}

/// The verdicts that were told as events.
fn told(lair: &Lair, name: &str) -> Vec<String> {
    let notices = lair.notices(name);
    let states = notices.iter().filter_map(|notice| match &notice.kind {
        NoticeKind::Exposure { state, .. } => Some(state.clone()),
        _ => None,
    });
    states.collect()
}

#[tokio::test]
async fn a_module_that_listens_where_it_declared_is_as_declared_and_that_is_no_event() {
    let lair = Lair::start("declared").await;
    let port = free_port();
    let script = listens(&[format!("127.0.0.1:{port}")]);
    lair.sh("m", &script, &format!("  ports: {{ api: {port} }}"))
        .await;
    lair.until("m", "looked at", |s| s.exposure == "as-declared")
        .await;
    assert_eq!(told(&lair, "m"), Vec::<String>::new());
    lair.end().await;
}

#[tokio::test]
async fn an_undeclared_socket_and_one_for_the_whole_network_are_told_with_their_addresses() {
    let lair = Lair::start("violated").await;
    let (open, hidden) = (free_port(), free_port());
    let script = listens(&[format!("0.0.0.0:{open}"), format!("127.0.0.1:{hidden}")]);
    lair.sh("m", &script, &format!("  ports: {{ api: {open} }}"))
        .await;
    let status = lair
        .until("m", "found out", |s| s.exposure == "violated")
        .await;
    let mut wanted = [format!("0.0.0.0:{open}"), format!("127.0.0.1:{hidden}")];
    let mut seen = places(&status);
    wanted.sort();
    seen.sort();
    assert_eq!(seen, wanted);
    assert_eq!(status.state, "running", "it is told, not ended");
    let leader = status.pid.expect("a pid");
    assert!(
        status.exposed.iter().all(|s| s.pid != leader),
        "a descendant holds them"
    );
    let event = lair.notices("m").into_iter().find_map(|n| match &n.kind {
        NoticeKind::Exposure { state, sockets } => Some((state.clone(), sockets.clone())),
        _ => None,
    });
    let (state, sockets) = event.expect("an event");
    assert_eq!(state, "violated");
    assert!(
        sockets
            .iter()
            .any(|s| s.starts_with(&format!("0.0.0.0:{open} (pid "))),
        "{sockets:?}"
    );
    lair.end().await;
}

#[tokio::test]
async fn where_it_is_enforced_the_module_is_stopped_for_it_and_not_started_again() {
    let lair = Lair::start("enforced").await;
    let port = free_port();
    let script = listens(&[format!("0.0.0.0:{port}")]);
    let more = "  exposure: enforce\n  restart: { policy: always, backoff: { first: 10ms } }";
    lair.sh("m", &script, more).await;
    let down = lair
        .until("m", "stopped for it", |s| s.state == "failed")
        .await;
    let why = down.reason.expect("a reason");
    assert_eq!(why.code, "exposure_violated", "{why:?}");
    assert!(
        why.evidence
            .iter()
            .any(|e| e.contains(&format!("0.0.0.0:{port}"))),
        "{why:?}"
    );
    assert_eq!((down.run, down.exposure.as_str()), (1, "violated"));
    TcpListener::bind(("0.0.0.0", port)).expect("the port is free again");
    lair.end().await;
}

#[tokio::test]
async fn the_configuration_can_enforce_it_for_every_module() {
    let lair = with_config("everybody", "runtime: { exposure: { mode: enforce } }").await;
    let script = listens(&[format!("127.0.0.1:{}", free_port())]);
    lair.sh("m", &script, "").await;
    let down = lair
        .until("m", "stopped for it", |s| s.state == "failed")
        .await;
    assert_eq!(down.reason.expect("a reason").code, "exposure_violated");
    lair.end().await;
}

#[tokio::test]
async fn a_port_for_the_network_needs_the_configurations_word_as_well() {
    let port = free_port();
    let more = format!("  ports: {{ api: {{ port: {port}, expose: lan }} }}");
    let manifest = sh("m", &listens(&[format!("0.0.0.0:{port}")]), &more);
    let strict = Lair::start("lan").await;
    let refused = strict.load(&manifest).await.expect_err("not allowed");
    assert_eq!(refused.code, "lan_not_allowed");
    assert!(
        refused
            .help
            .expect("help")
            .contains("runtime.exposure.allow_lan: true")
    );
    strict.end().await;

    let lair = with_config("lan2", "runtime: { exposure: { allow_lan: true } }").await;
    lair.load(&manifest).await.expect("allowed");
    lair.handle.start("m", asker()).await.expect("a start");
    let up = lair
        .until("m", "looked at", |s| s.exposure != "unknown")
        .await;
    assert_eq!(up.exposure, "as-declared", "{up:#?}");
    lair.end().await;
}

/// What listens in a network of its own is shown to nobody.
#[tokio::test]
async fn a_socket_in_a_network_of_its_own_is_no_exposure() {
    let lair = Lair::start("inside").await;
    let manifest = sh("m", &listens(&["0.0.0.0:8080".to_owned()]), "")
        .replace("native: {", "native: { sandbox: { network: none }, ");
    lair.load(&manifest).await.expect("loaded");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "listening", |s| s.logs.bytes == 3).await;
    let up = lair
        .until("m", "looked at", |s| s.exposure != "unknown")
        .await;
    assert_eq!(up.exposure, "as-declared", "{up:#?}");
    lair.end().await;
}

#[tokio::test]
async fn a_port_that_another_module_holds_is_refused_with_its_name() {
    let lair = Lair::start("ours").await;
    let port = free_port();
    let script = listens(&[format!("127.0.0.1:{port}")]);
    let ports = format!("  ports: {{ api: {port} }}");
    lair.sh("first", &script, &ports).await;
    lair.until("first", "listening", |s| s.logs.bytes == 3)
        .await;
    lair.load(&sh("second", &script, &ports))
        .await
        .expect("loaded");
    let refused = lair
        .handle
        .start("second", asker())
        .await
        .expect_err("taken");
    assert_eq!(refused.code, "port_taken");
    assert!(
        refused.message.contains("(perl), of the module `first`"),
        "{refused}"
    );
    assert_eq!(refused.data["module"], "first");
    // One that is up already has its own port.
    lair.handle
        .start("first", asker())
        .await
        .expect("already so");
    lair.stop("first").await;
    lair.handle
        .start("second", asker())
        .await
        .expect("free now");
    lair.end().await;
}

/// Nobody asks before a restart, so the start itself fails, and says the same.
#[tokio::test]
async fn a_port_taken_between_two_runs_is_told_by_the_restart() {
    let lair = Lair::start("between").await;
    let port = free_port();
    let go = lair.home.path().join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exit 1",
        go.display()
    );
    let more = format!(
        "  ports: {{ api: {port} }}\n  restart: {{ policy: on-failure, max: 100, backoff: {{ first: 50ms, cap: 50ms }} }}"
    );
    lair.sh("m", &script, &more).await;
    lair.wait("m", WaitFor::Ready).await;
    let stranger = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    std::fs::write(&go, "").expect("a file");
    let waits = lair
        .until("m", "refused", |s| {
            s.reason.as_ref().is_some_and(|r| r.code == "start_failed")
        })
        .await;
    let why = waits.reason.expect("a reason");
    assert_eq!(why.errno.as_deref(), Some("EADDRINUSE"), "{why:?}");
    assert!(
        why.message
            .contains(&format!("port {port} (api) is taken by pid")),
        "{why:?}"
    );
    std::fs::remove_file(&go).expect("gone");
    drop(stranger);
    lair.until("m", "up again", |s| s.state == "running").await;
    lair.end().await;
}

/// The whole of the request, as the bridge has it: a file of the user's own.
#[tokio::test]
async fn a_refused_port_starts_nothing() {
    let lair = Lair::start("nothing").await;
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = stranger.local_addr().expect("an address").port();
    let path = lair.home.path().join("m.yaml");
    let manifest = sh(
        "m",
        "touch started; exec sleep 1000",
        &format!("  ports: {{ api: {port} }}"),
    );
    std::fs::write(&path, manifest).expect("a file");
    let source = ManifestSource::File(path);
    lair.handle
        .load(source, LoadOptions::default(), asker())
        .await
        .expect("loaded");
    lair.handle.start("m", asker()).await.expect_err("taken");
    assert!(!lair.home.path().join("started").exists());
    assert_eq!(lair.story("m"), "loaded#0");
    lair.end().await;
}
