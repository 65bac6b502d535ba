//! What status tells of a container is what is in force, and a lost engine changes nothing of what runs: on both engines.

mod support;

use lair::WaitFor;
use lair::actors::backend::container::find::EnginePlaces;
use lair::actors::fault::Fault;
use lair::supervision::Origin;
use support::engines::{Kind, image};
use support::{Lair, asker, is_alive};

async fn lair_on(story: &str, kind: Kind) -> Lair {
    let mut places = EnginePlaces::default();
    match kind {
        Kind::Podman => places.podman.push(kind.socket()),
        Kind::Docker => places.docker.push(kind.socket()),
    }
    let story = format!("{story}-{}", kind.name());
    Lair::start_with(&story, |o| {
        o.engines = Some(places);
        o.faults = true;
    })
    .await
}

/// `sh -c SCRIPT` in the tiny image, started.
async fn start(lair: &Lair, script: &str, more: &str) {
    let image = image("base");
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let text = format!(
        "name: m\nruntime:\n  container: {{ image: '{image}', command: {command} }}\n  stop: {{ grace: 5s }}\n{more}\n"
    );
    lair.load(&text).await.unwrap_or_else(|e| panic!("{e}"));
    lair.handle.start("m", asker()).await.expect("a start");
}

async fn up(lair: &Lair, script: &str, more: &str) -> i32 {
    start(lair, script, more).await;
    let so = |s: &lair::actors::status::ModuleStatus| s.state == "running" && s.logs.bytes > 0;
    lair.until("m", "up", so).await;
    lair.status("m").pid.expect("a process")
}

async fn status_tells_what_is_in_force(kind: Kind) {
    let lair = lair_on("force", kind).await;
    let limits = "  resources: { memory: 64MiB, cpus: 0.5, pids: 77 }";
    up(
        &lair,
        "echo up; nc -l -p 47611 >/dev/null & exec sleep 1000",
        limits,
    )
    .await;
    let status = lair.status("m");
    let engine = &status.engine;
    let says = |what: &str| engine.get(what).map_or("", String::as_str);
    assert!(says("image_id").len() >= 64, "{engine:?}");
    for (what, told) in [
        ("capabilities", "none"),
        ("no_new_privileges", "yes"),
        ("read_only", "yes"),
        ("privileged", "no"),
        ("network", "none"),
        ("restarts", "no"),
    ] {
        assert_eq!(says(what), told, "{what}: {engine:?}");
    }
    assert_eq!(says("differs"), "", "{engine:?}");
    let held = status.confinement.expect("the kernel's word");
    assert!(
        held.no_new_privs && held.capabilities.is_empty(),
        "{held:?}"
    );
    let resources = status.resources;
    let (memory, cpus, pids) = (resources.memory, resources.cpus, resources.pids);
    let by = Some(kind.name().to_owned());
    assert_eq!(
        (memory.limit, memory.enforced, &memory.by),
        (Some(64 << 20), true, &by)
    );
    assert!(memory.current.is_some_and(|n| n > 0) && memory.peak >= memory.current);
    assert_eq!(
        (cpus.limit, cpus.enforced, &cpus.by),
        (Some(0.5), true, &by)
    );
    assert_eq!((pids.limit, pids.enforced, &pids.by), (Some(77), true, &by));
    assert!(pids.current.is_some_and(|n| n >= 1), "{pids:?}");
    // It listens in a network of its own, where nobody is.
    let judged = |s: &lair::actors::status::ModuleStatus| s.exposure != "unknown";
    let status = lair.until("m", "its sockets are judged", judged).await;
    assert_eq!(status.exposure, "as-declared");
    lair.stop("m").await;
    lair.end().await;
}

async fn a_dropped_engine_costs_sight_and_a_stop_meanwhile_is_done_by_the_kernel(kind: Kind) {
    let lair = lair_on("drop", kind).await;
    let pid = up(
        &lair,
        "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done",
        "",
    )
    .await;
    let fault = Fault::DropEngine { for_ms: 6000 };
    lair.handle
        .inject(fault, "drill", asker())
        .await
        .expect("an injection");
    support::eventually("sight is lost", || lair.count("m", "sight_lost") == 1).await;
    assert!(is_alive(pid));
    let unseen = lair.status("m");
    assert_eq!(unseen.state, "running");
    assert_eq!(unseen.reason.expect("a note").code, "out_of_sight");
    let origin = Origin::Requested {
        peer: "test".into(),
    };
    lair.handle.stop("m", None, origin).await.expect("a stop");
    support::eventually("it ends all the same", || !is_alive(pid)).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    let exit = down.exit.expect("an exit");
    assert!(
        !exit.killed_after_grace,
        "it ended within its grace: {exit:?}"
    );
    assert_eq!(exit.by_us, Some(libc::SIGTERM), "{exit:?}");
    lair.end().await;
}

async fn a_secret_reaches_its_container_and_no_file_of_lairs(kind: Kind) {
    let lair = lair_on("secret", kind).await;
    let file = lair.home.path().join("token");
    std::fs::write(&file, "canary-5d1f\n").expect("a secret");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).expect("its mode");
    let more = format!("  secrets: {{ TOKEN: {{ file: '{}' }} }}", file.display());
    let pid = up(&lair, "echo $${#TOKEN}; exec sleep 1000", &more).await;
    assert_eq!(lair.output("m", "stdout"), b"11\n");
    let environ = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    assert!(String::from_utf8_lossy(&environ).contains("TOKEN=canary-5d1f"));
    let status = serde_json::to_string(&lair.status("m")).expect("a status");
    let told = serde_json::to_string(&lair.notices("m")).expect("notices");
    assert!(!status.contains("canary") && !told.contains("canary"));
    lair.stop("m").await;
    std::fs::remove_file(&file).expect("gone");
    let found = std::process::Command::new("grep")
        .args(["-rla", "canary-5d1f"])
        .arg(lair.home.path())
        .output()
        .expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    // Without it there is no start, and its reason is said.
    lair.handle.start("m", asker()).await.expect("a start");
    let down = lair.wait("m", WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert!(reason.message.contains("secret TOKEN"), "{reason:?}");
    lair.end().await;
}

macro_rules! on_both {
    ($($story:ident)*) => {
        mod podman { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Podman).await; })* }
        mod docker { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Docker).await; })* }
    };
}

on_both! {
    status_tells_what_is_in_force
    a_dropped_engine_costs_sight_and_a_stop_meanwhile_is_done_by_the_kernel
    a_secret_reaches_its_container_and_no_file_of_lairs
}
