//! What a host and a second lair may rely on: several runtimes, folders, refusals, words that are true.

mod support;

use lair::{Folders, Runtime, RuntimeError, RuntimeOptions, WaitFor};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use support::{Home, Lair, asker, is_alive};

fn options(home: &Path) -> RuntimeOptions {
    let mut options = RuntimeOptions::new(Default::default(), Folders::below(home));
    options.keeper = PathBuf::from(env!("CARGO_BIN_EXE_lair"));
    options
}

#[tokio::test]
async fn two_runtimes_live_in_one_process_and_know_only_their_own() {
    let (one, two) = (Lair::start("one").await, Lair::start("two").await);
    one.sh("m", "exec sleep 1000", "").await;
    two.sh("m", "exec sleep 1000", "").await;
    let first = one.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    let second = two.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    assert_ne!(first, second);
    one.stop("m").await;
    assert!(is_alive(second), "the other runtime's module goes on");
    assert_eq!(two.status("m").state, "running");
    one.end().await;
    two.stop("m").await;
    two.end().await;
}

// R6
#[tokio::test]
async fn a_second_lair_on_the_same_folders_is_refused_and_the_first_goes_on() {
    let lair = Lair::start("second").await;
    lair.sh("m", "exec sleep 1000", "").await;
    lair.wait("m", WaitFor::Ready).await;
    let refused = Runtime::start(options(lair.home.path())).await.err();
    let refused = refused.expect("a refusal");
    assert_eq!(refused.code(), "already_running");
    assert!(
        refused
            .to_string()
            .contains(&std::process::id().to_string()),
        "{refused}"
    );
    assert_eq!(lair.status("m").state, "running");
    lair.stop("m").await;
    lair.end().await;
}

// R7, O8
#[tokio::test]
async fn a_folder_that_cannot_be_trusted_is_refused_by_name_before_anything_starts() {
    let home = Home::new("folders");
    let refused = async |root: &Path| match Runtime::start(options(root)).await.err() {
        Some(RuntimeError::Folder { path, why }) => (path, why),
        other => panic!("{other:?}"),
    };
    let open = home.path().join("open");
    std::fs::create_dir_all(open.join("run")).expect("a folder");
    std::fs::set_permissions(open.join("run"), PermissionsExt::from_mode(0o777)).expect("a mode");
    let (path, why) = refused(&open).await;
    assert!(
        path.ends_with("run") && why.contains("everybody may write"),
        "{why}"
    );

    let file = home.path().join("file");
    std::fs::create_dir_all(&file).expect("a folder");
    std::fs::write(file.join("logs"), "in the way").expect("a file");
    let (path, why) = refused(&file).await;
    assert!(
        path.ends_with("logs") && why.contains("not a folder"),
        "{why}"
    );

    let foreign = home.path().join("foreign");
    std::fs::create_dir_all(foreign.join("state")).expect("a folder");
    std::os::unix::fs::chown(foreign.join("state"), Some(65534), None).expect("this test is root");
    let (path, why) = refused(&foreign).await;
    assert!(path.ends_with("state") && why.contains("65534"), "{why}");
}

#[tokio::test]
async fn folders_have_their_modes_whatever_the_umask_and_links_to_the_lock_are_not_followed() {
    let home = Home::new("modes");
    let victim = home.path().join("victim");
    std::fs::write(&victim, "precious").expect("a victim");
    std::fs::create_dir_all(home.path().join("run")).expect("a folder");
    symlink(&victim, home.path().join("run/lair.lock")).expect("a link");
    let refused = Runtime::start(options(home.path())).await.err();
    assert_eq!(refused.expect("a refusal").code(), "folder_unusable");
    assert_eq!(std::fs::read(&victim).expect("the victim"), b"precious");
    std::fs::remove_file(home.path().join("run/lair.lock")).expect("the link");
    std::fs::remove_dir(home.path().join("run")).expect("the folder");

    let runtime = Runtime::start(options(home.path()))
        .await
        .expect("a runtime");
    let mode = |name: &str| {
        std::fs::metadata(home.path().join(name))
            .expect("a folder")
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("run"), mode("logs"), mode("state")),
        (0o700, 0o750, 0o750)
    );
    runtime.shutdown(support::SOON).await;
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_or_said_to_be_unenforced() {
    let lair = Lair::start("unenforced").await;
    assert!(lair.handle.list().1.is_empty(), "nothing was loaded");

    lair.sh(
        "m",
        "exec sleep 1000",
        "  resources: { memory: { limit: 1GiB } }",
    )
    .await;
    let up = lair.wait("m", WaitFor::Ready).await;
    assert_eq!(up.resources.memory.limit, Some(1 << 30));
    assert!(
        up.resources.memory.by.is_some(),
        "held or not, it is said by what, or why not"
    );
    assert_eq!(up.exposure, "unknown", "nobody has looked yet");
    lair.handle
        .kill("m", Some(9), asker())
        .await
        .expect("a signal");
    let down = lair.wait("m", WaitFor::Exited).await;
    assert_eq!(
        down.exit.expect("an exit").oom,
        Some(false),
        "the KILL was ours"
    );
    lair.end().await;
}

/// A host's supervisor that takes note of what becomes of the tree beneath it.
struct Host;

impl Actor for Host {
    type Msg = ();
    type State = tokio::sync::mpsc::UnboundedSender<&'static str>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _me: ActorRef<()>,
        tell: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(tell)
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<()>,
        event: SupervisionEvent,
        tell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let word = match event {
            SupervisionEvent::ActorTerminated(..) => "ended",
            SupervisionEvent::ActorFailed(..) => "failed",
            _ => return Ok(()),
        };
        let _ = tell.send(word);
        Ok(())
    }
}

#[tokio::test]
async fn the_whole_tree_hangs_under_the_hosts_own_supervisor() {
    let home = Home::new("linked");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (host, _) = Actor::spawn(None, Host, tell).await.expect("a host");
    let runtime = Runtime::spawn_linked(options(home.path()), host.get_cell())
        .await
        .expect("a runtime");
    runtime.shutdown(support::SOON).await;
    let word = tokio::time::timeout(support::SOON, told.recv())
        .await
        .expect("a word");
    assert_eq!(word, Some("ended"));
    host.stop(None);
}
