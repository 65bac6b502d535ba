//! A real service by its ready manifest: Redis in a container of each engine and as a process, with the same data.

mod support;

use lair::actors::backend::container::find::EnginePlaces;
use lair::manifests::launch::Mode;
use lair::{LoadOptions, ManifestSource, WaitFor};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use support::engines::{Kind, image};
use support::{Lair, asker};

const READY_MANIFEST: &str = include_str!("../manifests/modules/redis/manifest.yaml");

/// The ready manifest, on a port that is free here and with the image that this machine built.
fn manifest(port: u16) -> String {
    let (theirs, ours) = ("docker.io/library/redis:7", image("redis"));
    assert!(READY_MANIFEST.contains(theirs) && READY_MANIFEST.contains("redis: 6379"));
    let text = READY_MANIFEST.replace(theirs, &ours);
    text.replace("redis: 6379", &format!("redis: {port}"))
}

async fn load(lair: &Lair, text: &str, mode: Mode) {
    let source = ManifestSource::Text {
        text: text.to_owned(),
        dir: Some(lair.home.path().to_owned()),
        trusted: true,
    };
    let options = LoadOptions {
        preference: Some(mode),
        ..LoadOptions::default()
    };
    let loaded = lair.handle.load(source, options, asker()).await;
    loaded.unwrap_or_else(|e| panic!("{e}"));
}

async fn start(lair: &Lair) {
    lair.handle.start("redis", asker()).await.expect("a start");
    lair.until("redis", "ready", |s| s.ready).await;
}

/// One command, one line of answer.
fn ask(port: u16, words: &str) -> String {
    let mut peer = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    peer.set_read_timeout(Some(support::SOON)).expect("a bound");
    write!(peer, "{words}\r\n").expect("asked");
    let mut answer = String::new();
    let mut lines = BufReader::new(peer);
    lines.read_line(&mut answer).expect("an answer");
    if answer.starts_with('$') {
        answer.clear();
        lines.read_line(&mut answer).expect("a value");
    }
    answer.trim_end().to_owned()
}

/// It must end by itself, within its grace and without a failure.
async fn stop(lair: &Lair) {
    lair.handle
        .stop("redis", None, asker())
        .await
        .expect("a stop");
    let down = lair.wait("redis", WaitFor::Stopped).await;
    assert_eq!(down.state, "stopped");
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.killed_after_grace), (Some(0), false));
}

async fn a_service_keeps_its_data_from_engine_to_process_and_back(kind: Kind) {
    let mut places = EnginePlaces::default();
    match kind {
        Kind::Podman => places.podman.push(kind.socket()),
        Kind::Docker => places.docker.push(kind.socket()),
    }
    let story = format!("redis-{}", kind.name());
    let lair = Lair::start_with(&story, |o| o.engines = Some(places)).await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    let text = manifest(port);

    load(&lair, &text, Mode::Container).await;
    start(&lair).await;
    assert_eq!(lair.status("redis").backend, kind.name());
    assert_eq!(ask(port, "SET answer 42"), "+OK");
    stop(&lair).await;
    start(&lair).await;
    assert_eq!(lair.status("redis").run, 2);
    assert_eq!(ask(port, "GET answer"), "42", "kept over a restart");
    assert_eq!(ask(port, "INCR answer"), ":43");
    stop(&lair).await;

    load(&lair, &text, Mode::Native).await;
    start(&lair).await;
    assert_eq!(lair.status("redis").backend, "native");
    assert_eq!(ask(port, "INCR answer"), ":44", "what the container kept");
    stop(&lair).await;

    load(&lair, &text, Mode::Container).await;
    start(&lair).await;
    assert_eq!(ask(port, "GET answer"), "44", "what the process kept");
    stop(&lair).await;
    lair.end().await;
}

/// Redis on Podman is reached by its port, stops cleanly, and its data goes along to a process and back.
#[tokio::test]
async fn redis_keeps_its_data_from_podman_to_a_process_and_back() {
    a_service_keeps_its_data_from_engine_to_process_and_back(Kind::Podman).await;
}

/// The same on Docker.
#[tokio::test]
async fn redis_keeps_its_data_from_docker_to_a_process_and_back() {
    a_service_keeps_its_data_from_engine_to_process_and_back(Kind::Docker).await;
}
