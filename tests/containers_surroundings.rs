//! What lair's helpers of engines get from lair itself: nothing that could be taken from under them.

mod support;

use lair::WaitFor;
use lair::actors::backend::container::cli::Cli;
use lair::actors::backend::container::engine::{CreateSpec, Engine};
use lair::actors::backend::container::find::EnginePlaces;
use lair::actors::backend::container::podman::Podman;
use lair::actors::backend::container::service::ServiceOrder;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use support::contained::{end, start};
use support::engines::{Kind, image};
use support::{Home, Lair};

/// A program that writes down where it was started, and fails.
fn program(home: &Home, name: &str) -> PathBuf {
    let path = home.path().join(name);
    let said = home.path().join("where");
    let text = format!("#!/bin/sh\npwd >{}\nexit 1\n", said.display());
    std::fs::write(&path, text).expect("a program");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
    path
}

fn said(home: &Home) -> String {
    let said = std::fs::read_to_string(home.path().join("where"));
    said.expect("it was started").trim().to_owned()
}

/// Podman starts no container once the folder is gone that its service or command was started in: lair's own may vanish.
#[tokio::test]
async fn the_folder_that_lair_was_started_in_may_vanish() {
    let home = Home::new("where");
    let order = ServiceOrder {
        program: program(&home, "podman"),
        socket: home.path().join("podman.sock"),
        folder: home.path().join("engine"),
    };
    let own = order.folder.display().to_string();
    let service = Podman::anywhere(Vec::new(), Some(order));
    assert!(service.ping().await.is_err());
    assert_eq!(said(&home), own);
    let home = Home::new("where");
    let folder = home.path().join("engine");
    let own = folder.display().to_string();
    let command = Cli::within(&[program(&home, "docker")], folder);
    assert!(command.info().await.is_err());
    assert_eq!(said(&home), own);
    std::fs::remove_dir(own).expect("an empty folder");
    assert!(command.info().await.is_err());
    assert!(home.path().join("engine").exists(), "made again");
}

/// Ends the `sleep` in the container of this process, if there is one.
fn end_sleep(first: i32) -> bool {
    let read = |pid: i32, what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}"));
    let group = read(first, "cgroup").expect("its cgroup");
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = pids.filter_map(|e| e.file_name().to_str()?.parse().ok());
    let sleeps = |pid: &i32| {
        let same = |what, text: &str| read(*pid, what).is_ok_and(|t| t == text);
        same("comm", "sleep\n") && same("cgroup", &group)
    };
    let found = pids.find(sleeps);
    found
        .inspect(|pid| support::signal(*pid, libc::SIGKILL))
        .is_some()
}

/// On cgroup v1 a container's monitor writes an empty file where Podman was started: not into `/`.
async fn what_a_monitor_leaves_lies_in_lairs_own_folder(by: fn(&Home) -> EnginePlaces) {
    let home = Home::new("monitor");
    let lair = Lair::start_with("monitor-oom", |o| o.engines = Some(by(&home))).await;
    let image = image("oom");
    let text = format!(
        "name: m\nruntime:\n  container: {{ image: '{image}', command: ['512', '1000'] }}\n  resources: {{ memory: 32MiB }}\n"
    );
    // Lair asks an engine's command for the first process after the start: of what is dead by then it has the code alone.
    start(&lair, "m", &text).await;
    let up = lair.until("m", "up", |s| s.pid.is_some()).await;
    let first = up.pid.expect("its first process");
    support::eventually("it sleeps before it eats", || end_sleep(first)).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    let exit = down.exit.expect("an exit");
    assert_eq!(exit.signal, Some(libc::SIGKILL), "{exit:?}");
    let left = home.path().join("engine/oom");
    support::eventually("conmon's word", || left.exists()).await;
    end(lair, |args| Kind::Podman.cli(args)).await;
}

#[tokio::test]
async fn what_a_monitor_leaves_lies_in_the_folder_of_lairs_service() {
    what_a_monitor_leaves_lies_in_lairs_own_folder(|home| EnginePlaces {
        podman_service: Some(ServiceOrder {
            program: Kind::Podman.program(),
            socket: home.path().join("podman.sock"),
            folder: home.path().join("engine"),
        }),
        ..EnginePlaces::default()
    })
    .await;
}

#[tokio::test]
async fn what_a_monitor_leaves_lies_in_the_folder_of_lairs_commands() {
    what_a_monitor_leaves_lies_in_lairs_own_folder(|home| EnginePlaces {
        cli: vec![Kind::Podman.program()],
        cli_folder: Some(home.path().join("engine")),
        ..EnginePlaces::default()
    })
    .await;
}

/// Of the neighbour's C5: variables of a container are in no command line, where everybody could read them.
#[tokio::test]
async fn a_variable_is_in_no_command_line() {
    let home = Home::new("words");
    let path = home.path().join("docker");
    let said = |name: &str| home.path().join(name);
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = create ] || {{ echo '{{\"ServerVersion\": \"20.10.24\"}}'; exit 0; }}\n\
         echo \"$@\" >>{}; cat >{}\nprintf '%064d\\n' 1\n",
        said("words").display(),
        said("input").display()
    );
    std::fs::write(&path, text).expect("a program");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
    let spec = CreateSpec {
        name: "x".into(),
        image: "y".into(),
        env: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
        log_bytes: 1 << 20,
        ..CreateSpec::default()
    };
    let made = Cli::of(&[path]).create(std::sync::Arc::new(spec)).await;
    made.unwrap_or_else(|e| panic!("{e}"));
    let read = |name| std::fs::read_to_string(said(name)).expect("it was started");
    assert!(!read("words").contains("hunter2"), "{}", read("words"));
    assert!(read("input").contains("TOKEN=hunter2"), "{}", read("input"));
}
