//! What lair's helpers of engines get from lair itself: nothing that could be taken from under them.

mod support;

use lair::actors::backend::container::cli::Cli;
use lair::actors::backend::container::engine::Engine;
use lair::actors::backend::container::podman::Podman;
use lair::actors::backend::container::service::ServiceOrder;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use support::Home;

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
    };
    let service = Podman::anywhere(Vec::new(), Some(order));
    assert!(service.ping().await.is_err());
    assert_eq!(said(&home), "/");
    let home = Home::new("where");
    let command = Cli::of(&[program(&home, "docker")]);
    assert!(command.info().await.is_err());
    assert_eq!(said(&home), "/");
}
