//! What must be there before a start, and what may not be left after an end, a failure or a death of the keeper.

mod support;

use lair::{Folders, Runtime, RuntimeOptions, WaitFor};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use support::{Home, Lair, SOON, asker, eventually, signal};

fn entries(dir: &Path) -> Vec<String> {
    let read = std::fs::read_dir(dir).into_iter().flatten().flatten();
    read.filter(|e| e.file_type().is_ok_and(|t| !t.is_file()))
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

/// R3b: nobody tells any more when the tree is gone, and yet it goes.
#[tokio::test]
async fn without_its_keeper_a_module_still_ends_with_all_its_helpers() {
    let lair = Lair::start("alone").await;
    let script = "(trap '' TERM; echo deaf; exec sleep 1000) & exec sleep 1000";
    lair.sh("m", script, "  stop: { grace: 200ms }").await;
    lair.until("m", "printing", |s| s.logs.bytes == 5).await;
    eventually("two processes", || lair.processes_of("m").len() == 2).await;
    signal(lair.keeper().expect("a keeper"), libc::SIGKILL);
    signal(lair.status("m").pid.expect("a pid"), libc::SIGKILL);
    let down = lair.wait("m", WaitFor::Exited).await;
    assert_eq!(lair.processes_of("m"), Vec::<i32>::new());
    assert_eq!(down.reason.expect("a reason").evidence, [""; 0]);
    lair.runtime.shutdown(SOON).await;
}

#[tokio::test]
async fn the_folder_that_a_module_keeps_its_things_in_is_there_when_it_starts() {
    let lair = Lair::start("data").await;
    let folder = lair.home.path().join("state/modules");
    lair.sh("none", "exit 0", "").await;
    lair.wait("none", WaitFor::Exited).await;
    assert!(!folder.exists(), "nobody asked for one");
    let manifest = support::sh("m", "echo kept > it", "");
    let manifest = manifest.replace("native: {", "native: { workdir: \"${module.data}\",");
    lair.load(&manifest).await.expect("a load");
    lair.handle.start("m", asker()).await.expect("a start");
    let down = lair.wait("m", WaitFor::Exited).await;
    assert_eq!(down.state, "stopped", "{:?}", down.reason);
    let kept = std::fs::read_to_string(folder.join("m/it"));
    assert_eq!(kept.expect("a file"), "kept\n");
    let mode = std::fs::metadata(folder.join("m"))
        .expect("a folder")
        .mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    lair.end().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_a_failed_start_with_its_stage() {
    let lair = Lair::start("nodata").await;
    std::fs::write(lair.home.path().join("state/modules"), "in the way").expect("a file");
    let manifest = support::sh("m", "true", "");
    let manifest = manifest.replace("native: {", "native: { workdir: \"${module.data}\",");
    lair.load(&manifest).await.expect("a load");
    lair.handle.start("m", asker()).await.expect("an answer");
    let down = lair.wait("m", WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.stage.as_deref(), Some("prepare_dirs"), "{reason:?}");
    lair.end().await;
}

#[tokio::test]
async fn probes_that_cannot_be_run_leave_no_groups() {
    let lair = Lair::start("groups").await;
    let probe =
        "  health: { liveness: { command: [/nowhere/at/all], interval: 50ms, failures: 1 } }";
    lair.sh("m", "exec sleep 1000", probe).await;
    lair.until("m", "asked", |s| s.health.reason.is_some())
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let handle = lair.view("m").handle.clone().expect("a grip");
    if let lair::actors::backend::Tree::Cgroup(group) = handle.tree() {
        // One may be under way.
        let probes = entries(&group);
        assert!(probes.len() <= 1, "{probes:?}");
    }
    drop(handle);
    lair.end().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_notify_socket() {
    let lair = Lair::start("socket").await;
    let manifest = support::sh("m", "true", "  health: { startup: { notify: true } }");
    lair.load(&manifest.replace("native: {", "native: { workdir: /nowhere/at/all,"))
        .await
        .expect("a load");
    lair.handle.start("m", asker()).await.expect("an answer");
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.state, "failed");
    let left = entries(&lair.home.path().join("run/notify"));
    assert_eq!(left, Vec::<String>::new());
    lair.end().await;
}

#[test]
fn looking_whether_a_folder_can_be_written_follows_nothing_that_was_planted() {
    let home = Home::new("planted");
    let folders = Folders::below(home.path());
    folders.make().expect("folders");
    let victim = home.path().join("victim");
    std::fs::write(&victim, "precious").expect("a file");
    let planted = folders.logs.join(".lair-probe");
    std::os::unix::fs::symlink(&victim, &planted).expect("a link");
    folders.make().expect("folders");
    assert_eq!(
        std::fs::read_to_string(&victim).expect("a file"),
        "precious"
    );
    assert!(planted.is_symlink(), "it is not ours to remove");
}

#[tokio::test]
async fn the_folders_stay_locked_while_modules_may_live_in_them() {
    let lair = Lair::start("locked").await;
    lair.sh("m", "exec sleep 1000", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let options = || {
        let folders = Folders::below(lair.home.path());
        let mut options = RuntimeOptions::new(Default::default(), folders);
        options.keeper = env!("CARGO_BIN_EXE_lair").into();
        options
    };
    drop(lair.runtime);
    let second = Runtime::start(options()).await.err().expect("a refusal");
    assert_eq!(second.code(), "already_running");
    assert_eq!(lair.handle.status("m").expect("a status").state, "running");
    drop(lair.handle);
    let third = Runtime::start(options()).await.expect("free folders");
    let kept = third.handle().clone();
    third.shutdown(SOON).await;
    let fourth = Runtime::start(options()).await;
    fourth.expect("free folders").shutdown(SOON).await;
    drop(kept);
}
