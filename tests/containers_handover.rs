//! A new version of the program takes over from the old one while containers run, and none of them notices.

mod face;
#[path = "support/phoenix.rs"]
mod phoenix;
mod support;

use face::{Conn, SOON, until};
use phoenix::{By, COUNTER, Phoenix, stops_with_every_line_once};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use support::engines::Kind;

type On = (Kind, By);

fn info(lair: &Phoenix) -> Value {
    lair.lair.connect().ok("runtime.info", json!({}))
}

/// Another life answers: its events go on above the numbers that the one before had reserved.
fn until_reborn(lair: &Phoenix, before: &Value) {
    let newest = |info: &Value| info["newest_event"].as_u64().unwrap_or(0);
    until("another life answers", SOON * 3, || {
        UnixStream::connect(lair.lair.socket()).is_ok_and(|stream| {
            let answer = Conn::new(stream).try_ok("runtime.info", json!({}));
            answer.is_some_and(|info| newest(&info) > newest(before) + 512)
        })
    });
}

fn is_the_same_life(before: &Value, after: &Value) {
    for key in ["container", "pid", "run", "started_at", "restarts"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert!(before["container"].is_string(), "{before}");
}

/// Twice, so that what the first one left is handed over as well.
fn a_handover_in_place_costs_a_container_nothing(on: On, config: &str) {
    let lair = Phoenix::new(on, config);
    let before = lair.up("counter", COUNTER, "");
    for life in 1..=2 {
        lair.lines("counter", 200 * life);
        let newest = info(&lair);
        lair.lair.signal("USR2");
        until_reborn(&lair, &newest);
        assert_eq!(info(&lair)["pid"], newest["pid"], "the same process");
        let after = lair.until("counter", "it runs on", |s| s["state"] == "running");
        is_the_same_life(&before, &after);
    }
    let seen = lair.output("counter", "stdout").lines().count();
    lair.lines("counter", seen + 200);
    stops_with_every_line_once(&lair);
    lair.end();
}

fn usr2_costs_a_container_neither_its_run_nor_a_line(on: On) {
    a_handover_in_place_costs_a_container_nothing(on, "");
}

fn under_kill_usr2_costs_a_container_nothing_either(on: On) {
    a_handover_in_place_costs_a_container_nothing(on, "  if_runtime_dies: kill\n");
}

fn a_successor_goes_on_with_the_container_under_its_run(on: On) {
    let mut lair = Phoenix::new(on, "");
    let before = lair.up("counter", COUNTER, "");
    lair.lines("counter", 200);
    let newest = info(&lair);
    let mut old = lair.lair.daemon.take().expect("a daemon");
    lair.lair.daemon = Some(lair.spawn(&["serve", "--takeover"]));
    assert!(old.wait().expect("gone").success(), "{}", lair.lair.log());
    until_reborn(&lair, &newest);
    let after = lair.until("counter", "it runs on", |s| s["state"] == "running");
    is_the_same_life(&before, &after);
    let seen = lair.output("counter", "stdout").lines().count();
    lair.lines("counter", seen + 200);
    stops_with_every_line_once(&lair);
    lair.end();
}

macro_rules! on_all {
    ($($story:ident)*) => {
        on_all! { podman(Podman, Socket) docker(Docker, Socket) podman_command(Podman, Command) docker_command(Docker, Command): [$($story)*] }
    };
    ($($name:ident($kind:ident, $by:ident))*: $stories:tt) => {
        $(on_all! { in $name (super::Kind::$kind, super::By::$by) $stories })*
    };
    (in $name:ident $on:tt [$($story:ident)*]) => {
        mod $name { $(#[test] fn $story() { super::$story($on); })* }
    };
}

on_all! {
    usr2_costs_a_container_neither_its_run_nor_a_line
    under_kill_usr2_costs_a_container_nothing_either
    a_successor_goes_on_with_the_container_under_its_run
}
