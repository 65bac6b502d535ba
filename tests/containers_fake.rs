//! Engines that talk nonsense under a whole runtime, at every step of a start; and a registry that is told of line by line.

mod support;

use lair::WaitFor;
use lair::actors::backend::container::find::EnginePlaces;
use lair::supervision::NoticeKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::contained::{lair_at, places};
use support::engines::Kind;
use support::fake_engine::{FakeEngine, Nonsense, UPGRADE, json};
use support::{Home, Lair, SOON, asker, eventually};

const KINDS: [Kind; 2] = [Kind::Podman, Kind::Docker];
/// Steps of a start that the fake can do right: who it is, the image, the container, its output, its start.
const STEPS: usize = 5;

/// The answer to a question, if it belongs to the first `steps` of a start.
fn good(question: &str, steps: usize) -> Option<String> {
    let (method, rest) = question.split_once(' ')?;
    let path = rest.split(['?', ' ']).next()?;
    let ends = |word: &str| path.ends_with(word);
    let id = "a".repeat(64);
    let (step, answer) = match method {
        _ if ends("/info") => (
            0,
            json(
                "200 OK",
                r#"{"host": {"cgroupVersion": "v1"}, "version": {"Version": "4.3.1"}, "ServerVersion": "20.10.24", "SecurityOptions": []}"#,
            ),
        ),
        _ if ends("/_ping") => (0, json("200 OK", "OK")),
        "GET" if path.contains("/images/") => (
            1,
            json(
                "200 OK",
                r#"{"Id": "sha256:0123", "User": "", "Config": {}}"#,
            ),
        ),
        "GET" if ends("/containers/json") => (2, json("200 OK", "[]")),
        _ if ends("/containers/create") => (
            2,
            json(
                "201 Created",
                &format!(r#"{{"Id": "{id}", "Warnings": []}}"#),
            ),
        ),
        _ if ends("/init") => (3, "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        _ if ends("/attach") => (3, UPGRADE.to_owned()),
        _ if ends("/start") => (4, "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        "DELETE" => (
            5,
            json(
                "404 Not Found",
                r#"{"cause": "no such container", "message": "no such container", "response": 404}"#,
            ),
        ),
        _ => return None,
    };
    (step < steps).then_some(answer)
}

fn manifest(engine: Kind, pull: &str) -> String {
    format!(
        "name: m\nruntime:\n  container: {{ image: 'registry.test/thing:1', pull: {pull}, engine: {} }}\n",
        engine.name()
    )
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok());
    pages.expect("a number") * 4096
}

/// Starts it, and takes the words of its failure.
async fn failure(lair: &Lair) -> String {
    lair.handle.start("m", asker()).await.expect("a start");
    let down = lair.wait("m", WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.code, "start_failed", "{reason:?}");
    format!("{} at {}", reason.message, reason.stage.unwrap_or_default())
}

async fn a_runtime_bears_any_nonsense_at_any_step(kind: Kind) {
    let home = Home::new("fake");
    let fake = FakeEngine::start(home.path(), Nonsense::Refuses);
    fake.talk_sense(|question| good(question, STEPS));
    let lair = lair_at("fake", kind, fake.socket.clone()).await;
    lair.load(&manifest(kind, "never")).await.expect("a load");
    let before = resident();
    // One that says nothing is the deadlines' matter: D2 and G3.
    for mode in Nonsense::ALL.into_iter().filter(|m| *m != Nonsense::Silent) {
        fake.set(mode);
        for steps in 1..=STEPS {
            fake.talk_sense(move |question| good(question, steps));
            let words = failure(&lair).await;
            assert!(
                words.contains("(engine_")
                    || words.contains("(image_")
                    || words.contains("(container_"),
                "{mode:?} after {steps} steps has no code: {words}"
            );
            assert!(words.len() < 600, "{mode:?} after {steps} steps: {words}");
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{} MiB more after all that", grown >> 20);
    lair.sh("native", "exec sleep 1000", "").await;
    lair.until("native", "up", |s| s.state == "running").await;
    // It comes to its senses, and what was begun is seen to its end.
    fake.talk_sense(|question| good(question, STEPS + 1));
    fake.set(Nonsense::Closes);
    eventually("all is put away", || fake.open() == 0).await;
    lair.stop("native").await;
    lair.end().await;
}

/// G4: no answer of Podman's at any step of a start makes a runtime panic, hang or grow; each is a start that failed, with a code.
#[tokio::test]
async fn a_runtime_on_podman_bears_any_nonsense_at_any_step() {
    a_runtime_bears_any_nonsense_at_any_step(Kind::Podman).await;
}

/// G4: the same of Docker's.
#[tokio::test]
async fn a_runtime_on_docker_bears_any_nonsense_at_any_step() {
    a_runtime_bears_any_nonsense_at_any_step(Kind::Docker).await;
}

/// G4: an engine that can't say how a container is, because that ends at this moment, is asked again: it is no failed start.
#[tokio::test]
async fn what_ends_while_its_engine_looks_at_it_has_ended_and_was_started() {
    let home = Home::new("ends-at-a-look");
    let fake = FakeEngine::start(home.path(), Nonsense::Refuses);
    let lair = {
        fake.talk_sense(|question| good(question, STEPS));
        lair_at("ends-at-a-look", Kind::Podman, fake.socket.clone()).await
    };
    let started = AtomicBool::new(false);
    let looks = AtomicUsize::new(0);
    fake.talk_sense(move |question| {
        if question.contains("/start") {
            started.store(true, Ordering::Relaxed);
        }
        let inspects = question.starts_with("GET") && question.contains("/containers/a");
        if !inspects || !question.contains("/json") {
            return good(question, STEPS + 1);
        }
        let looks = match started.load(Ordering::Relaxed) {
            true => looks.fetch_add(1, Ordering::Relaxed),
            false => usize::MAX,
        };
        let state = match looks {
            0 => {
                return Some(json(
                    "500 Internal Server Error",
                    r#"{"cause": "no such process", "message": "read /proc/27005/cgroup: no such process", "response": 500}"#,
                ));
            }
            usize::MAX => "initialized",
            _ => "exited",
        };
        let id = "a".repeat(64);
        let facts = format!(
            r#"{{"Id": "{id}", "Name": "m", "Image": "sha256:0123", "State": {{"Status": "{state}", "ExitCode": 3}}, "Config": {{}}, "HostConfig": {{}}}}"#
        );
        Some(json("200 OK", &facts))
    });
    lair.load(&manifest(Kind::Podman, "never"))
        .await
        .expect("a load");
    lair.handle.start("m", asker()).await.expect("a start");
    let down = lair.wait("m", WaitFor::Exited).await;
    assert_eq!(
        down.exit.as_ref().and_then(|e| e.code),
        Some(3),
        "{down:#?}"
    );
    lair.end().await;
}

/// G4: who talks nonsense when asked who it is runs no module, and the refusal says why.
#[tokio::test]
async fn an_engine_that_can_not_say_who_it_is_is_not_taken() {
    for (kind, mode) in KINDS
        .into_iter()
        .zip([Nonsense::WrongFields, Nonsense::EndlessBody])
    {
        let home = Home::new("who");
        let fake = FakeEngine::start(home.path(), mode);
        let lair = lair_at("who", kind, fake.socket.clone()).await;
        let refused = lair
            .load(&manifest(kind, "never"))
            .await
            .expect_err("a refusal");
        let words = serde_json::to_string(&(&refused.code, &refused.message, &refused.data));
        let words = words.expect("words");
        assert!(
            refused.code == "mode_unavailable" && words.contains("engine_nonsense"),
            "{words}"
        );
        lair.end().await;
    }
}

/// Fetching is told line by line with its own event, is part of no id, and the container is made of what came.
async fn a_pull_is_told_as_it_goes(kind: Kind) {
    let home = Home::new("pull");
    let fake = FakeEngine::start(home.path(), Nonsense::Refuses);
    let here = Arc::new(AtomicBool::new(false));
    let seen = here.clone();
    fake.talk_sense(move |question| {
        let lines = match (question.contains("/images/create?"), question.contains("/images/pull?")) {
            (true, _) => "{\"status\": \"Pulling from thing\", \"id\": \"1\"}\n{\"status\": \"Download complete\", \"id\": \"0a1b\"}\n",
            (_, true) => "{\"stream\": \"Copying blob sha256:0a1b\\n\"}\n{\"id\": \"sha256:0123\"}\n",
            _ if question.starts_with("GET") && question.contains("/images/") && !seen.load(Ordering::SeqCst) => {
                return Some(json("404 Not Found", r#"{"message": "no such image"}"#));
            }
            _ => return good(question, STEPS + 1),
        };
        seen.store(true, Ordering::SeqCst);
        Some(json("200 OK", lines))
    });
    let lair = lair_at("pull", kind, fake.socket.clone()).await;
    lair.load(&manifest(kind, "missing")).await.expect("a load");
    let words = failure(&lair).await;
    assert!(
        words.contains("the disk is on fire"),
        "all else was right: {words}"
    );
    let told: Vec<String> = lair
        .notices("m")
        .iter()
        .filter_map(|n| match &n.kind {
            NoticeKind::Pulling { progress } => Some(progress.clone()),
            _ => None,
        })
        .collect();
    assert!(told[0].contains("registry.test/thing:1"), "{told:?}");
    let blob = told.iter().any(|line| line.contains("0a1b"));
    assert!(blob && here.load(Ordering::SeqCst), "{told:?}");
    lair.end().await;
}

#[tokio::test]
async fn a_pull_by_podman_is_told_as_it_goes() {
    a_pull_is_told_as_it_goes(Kind::Podman).await;
}

#[tokio::test]
async fn a_pull_by_docker_is_told_as_it_goes() {
    a_pull_is_told_as_it_goes(Kind::Docker).await;
}

/// D1: a registry that isn't there fails the start at its own stage, with the engine's reason.
#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    for kind in KINDS {
        let lair = lair_at("registry", kind, kind.socket()).await;
        for pull in ["missing", "always"] {
            let text = manifest(kind, pull).replace("registry.test/", "127.0.0.1:1/");
            lair.load(&text).await.expect("a load");
            let words = failure(&lair).await;
            assert!(words.ends_with("at resolve_image"), "{words}");
            assert!(
                words.contains("(image_pull_failed)") && words.contains("127.0.0.1:1"),
                "{words}"
            );
        }
        lair.end().await;
    }
}

fn auto() -> String {
    manifest(Kind::Podman, "never").replace("engine: podman", "engine: auto")
}

/// Of the neighbour's C6: a socket without an engine behind it is none. What `auto` takes is the first that answers, and the
/// plan says which and why.
#[tokio::test]
async fn auto_is_the_first_engine_that_answers() {
    for (here, gone) in [(Kind::Podman, Kind::Docker), (Kind::Docker, Kind::Podman)] {
        let home = Home::new("auto");
        let mut both: EnginePlaces = places(here, here.socket());
        let nobody = home.path().join("nobody.sock");
        drop(std::os::unix::net::UnixListener::bind(&nobody).expect("a socket"));
        match gone {
            Kind::Podman => both.podman.push(nobody),
            Kind::Docker => both.docker.push(nobody),
        }
        let lair = Lair::start_with("auto", |o| o.engines = Some(both)).await;
        lair.load(&auto()).await.expect("a load");
        assert_eq!(lair.status("m").backend, here.name());
        let why = lair.view("m").plan.explanation.join("\n");
        assert!(why.contains(&format!("engine: {}", here.name())), "{why}");
        lair.end().await;
    }
}

/// Of the neighbour's C6: Docker is switched off by itself, and Podman goes on where the configuration says so.
#[tokio::test]
async fn docker_switched_off_leaves_podman_on() {
    let mut both = places(Kind::Podman, Kind::Podman.socket());
    both.docker.push(Kind::Docker.socket());
    let lair = Lair::start_with("off", |o| {
        o.engines = Some(both);
        o.config.docker_enabled = false;
        o.config.podman_enabled = Some(true);
    })
    .await;
    lair.load(&auto()).await.expect("a load");
    assert_eq!(lair.status("m").backend, "podman");
    let docker = lair.load(&manifest(Kind::Docker, "never")).await;
    assert_eq!(docker.expect_err("a refusal").code, "mode_unavailable");
    tokio::time::timeout(SOON, lair.end())
        .await
        .expect("its end");
}
