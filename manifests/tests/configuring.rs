//! The runtime's configuration: defaults, places, folders.

use lair_manifests::config::{Place, lookup};
use lair_manifests::{Dirs, RuntimeConfig, Source, parse_config, problem::render};
use std::collections::BTreeMap;
use std::path::Path;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn config(text: &str) -> RuntimeConfig {
    let source = Source::of_text("c.yaml", text, Path::new("/"));
    parse_config(&source).unwrap_or_else(|p| panic!("{}", render(&p)))
}

#[test]
fn nothing_and_an_empty_runtime_are_the_defaults() {
    for text in [
        "",
        "# only a comment\n",
        "other: 1\n",
        "runtime:\n",
        "runtime: {}\n",
    ] {
        assert_eq!(config(text), RuntimeConfig::default(), "{text:?}");
    }
}

#[test]
fn podman_is_as_docker_is_unless_it_is_said() {
    assert!(config("").podman());
    assert!(!config("runtime: { docker_enabled: false }").podman());
    assert!(config("runtime: { docker_enabled: false, podman_enabled: true }").podman());
}

#[test]
fn the_configuration_is_looked_for_in_the_documented_order() {
    let paths = |flag: Option<&str>, pairs: &[(&str, &str)], uid| -> Vec<String> {
        let places: Vec<Place> = lookup(flag.map(Path::new), &env(pairs), uid);
        places
            .iter()
            .map(|p| p.path.display().to_string())
            .collect()
    };
    let home = ("HOME", "/home/u");
    assert_eq!(paths(Some("/c"), &[("LAIR_CONFIG", "/d")], 1000), ["/c"]);
    assert_eq!(paths(None, &[("LAIR_CONFIG", "/d"), home], 1000), ["/d"]);
    let usual = ["/home/u/.config/lair/config.yaml", "/etc/lair/config.yaml"];
    assert_eq!(paths(None, &[home], 1000), usual);
    let xdg = ["/x/lair/config.yaml", "/etc/lair/config.yaml"];
    assert_eq!(paths(None, &[home, ("XDG_CONFIG_HOME", "/x")], 1000), xdg);
    assert_eq!(
        paths(None, &[home, ("XDG_CONFIG_HOME", "relative")], 1000),
        usual
    );
    assert_eq!(
        paths(None, &[("HOME", "/root")], 0),
        ["/etc/lair/config.yaml"]
    );
    assert_eq!(paths(None, &[], 1000), ["/etc/lair/config.yaml"]);
}

#[test]
fn folders_are_those_of_the_system_for_root_and_of_xdg_else() {
    let root = Dirs::of(&env(&[]), 0);
    assert_eq!(root.socket, Path::new("/run/lair/lair.sock"));
    assert_eq!(
        (root.state.to_str(), root.logs.to_str()),
        (Some("/var/lib/lair"), Some("/var/log/lair"))
    );
    let user = Dirs::of(
        &env(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1000")]),
        1000,
    );
    assert_eq!(user.socket, Path::new("/run/user/1000/lair/lair.sock"));
    assert_eq!(user.state, Path::new("/home/u/.local/state/lair"));
    assert_eq!(user.logs, Path::new("/home/u/.local/state/lair/logs"));
    let bare = Dirs::of(&env(&[]), 1000);
    for path in [&bare.state, &bare.logs, &bare.run, &bare.socket] {
        assert!(
            path.is_absolute() && !path.starts_with("/tmp"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn folders_that_are_named_win() {
    let config = config("runtime: { state_dir: /s, log_dir: /l, run_dir: /r }");
    let dirs = config.dirs(&env(&[]), 0);
    assert_eq!(dirs.socket, Path::new("/r/lair.sock"));
    assert_eq!(dirs.module_data("m"), Path::new("/s/modules/m"));
    assert_eq!(dirs.module_logs("m"), Path::new("/l/m"));
}
