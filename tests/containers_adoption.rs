//! Containers outlive lair: killed at any instant, its next life goes on with them, on both engines, by their sockets and by
//! their commands.

mod face;
#[path = "support/phoenix.rs"]
mod phoenix;
mod support;

use face::{SOON, until};
use phoenix::{By, COUNTER, Phoenix, pid, stops_with_every_line_once};
use std::fs;
use support::engines::Kind;
use support::is_alive;

type On = (Kind, By);

// R4 I1 I4 I7
fn a_killed_lair_costs_its_containers_nothing_and_no_line_is_lost_or_doubled(on: On) {
    let mut lair = Phoenix::new(on, "");
    let before = lair.up("counter", COUNTER, "");
    for life in 1..=3 {
        lair.lines("counter", 200 * life);
        lair.kill();
        assert!(is_alive(pid(&before)), "it outlives lair");
        if life == 2 {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        lair.rise();
        let after = lair.until("counter", "it runs again", |s| s["state"] == "running");
        assert_eq!(
            (&after["pid"], &after["run"]),
            (&before["pid"], &before["run"]),
            "the same process, the same run"
        );
    }
    let seen = lair.output("counter", "stdout").lines().count();
    lair.lines("counter", seen + 200);
    stops_with_every_line_once(&lair);
    lair.end();
}

// R4 I2 I6
fn what_ended_while_lair_was_away_has_its_own_exit_and_its_last_words(on: On) {
    let mut lair = Phoenix::new(on, "");
    let script =
        "echo first; trap 'echo last; printf words; exit 9' USR1; while :; do sleep 0.01; done";
    let status = lair.up("ends", script, "");
    lair.lines("ends", 0);
    lair.kill();
    let id = lair.ours();
    on.0.cli(&["kill", "--signal", "USR1", &id]);
    until("it has ended", SOON, || !is_alive(pid(&status)));
    lair.rise();
    let status = lair.until("ends", "its end is known", |s| s["state"] == "failed");
    assert_eq!(status["exit"]["code"], 9, "{status}");
    assert_eq!(status["run"], 1);
    assert_eq!(lair.output("ends", "stdout"), "first\nlast\nwords");
    lair.end();
}

// R4, under `kill`
fn under_kill_the_next_life_ends_with_grace_what_the_killed_one_left(on: On) {
    let mut lair = Phoenix::new(on, "  if_runtime_dies: kill\n");
    let state = lair.lair.dir.join("state");
    let script = "trap 'sleep 0.2; echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let status = lair.up("polite", script, "");
    lair.lines("polite", 0);
    lair.kill();
    assert!(is_alive(pid(&status)), "nobody is there to end it");
    assert!(state.exists());
    lair.rise();
    lair.until("polite", "its end is known", |s| s["state"] == "stopped");
    until("it is gone", SOON, || lair.ours().is_empty());
    assert!(!is_alive(pid(&status)));
    assert_eq!(
        lair.output("polite", "stdout"),
        "up\nasked\n",
        "its last words"
    );
    assert!(lair.said("outlived the lair that it was to die with"));
    lair.end();
}

// R4: nobody claims it
fn a_container_that_no_module_claims_is_ended_and_named(on: On) {
    let mut lair = Phoenix::new(on, "");
    let status = lair.up("m", "exec sleep 1000", "");
    lair.kill();
    fs::remove_file(lair.lair.dir.join("run/ledger")).expect("a ledger");
    fs::remove_file(lair.lair.dir.join("modules/m.yaml")).expect("a manifest");
    lair.rise();
    until("it is gone", SOON, || lair.ours().is_empty());
    assert!(!is_alive(pid(&status)));
    assert!(lair.said("m run 1 (container"));
    lair.end();
}

// R4: more than the engine keeps
fn output_that_did_not_fit_the_engines_log_is_a_gap_that_is_said(on: On) {
    let mut lair = Phoenix::new(on, "");
    let script = "echo first; trap 'yes 0123456789 | head -n 3000000; echo end; exit 0' USR1; while :; do sleep 0.01; done";
    lair.up("loud", script, "");
    lair.lines("loud", 0);
    lair.kill();
    let id = lair.ours();
    on.0.cli(&["kill", "--signal", "USR1", &id]);
    until("it has ended", SOON * 3, || {
        on.0.cli(&["inspect", "--format", "{{.State.Status}}", &id]) == "exited"
    });
    lair.rise();
    let status = lair.until("loud", "it has ended", |s| s["exit"].is_object());
    assert_eq!(status["exit"]["code"], 0, "{status}");
    let out = lair.output("loud", "stdout");
    assert!(out.starts_with("first\n") && out.ends_with("0123456789\nend\n"));
    let own = lair.output("loud", "lair");
    assert!(own.contains("the oldest of it is lost"), "{own}");
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
    a_killed_lair_costs_its_containers_nothing_and_no_line_is_lost_or_doubled
    what_ended_while_lair_was_away_has_its_own_exit_and_its_last_words
    under_kill_the_next_life_ends_with_grace_what_the_killed_one_left
    a_container_that_no_module_claims_is_ended_and_named
    output_that_did_not_fit_the_engines_log_is_a_gap_that_is_said
}
