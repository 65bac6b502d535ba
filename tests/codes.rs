//! Every stable code, produced: by the real program, real processes, a made-up engine, or a made-up clock where nothing else
//! can wait so long. The first test walks the sources, and keeps `docs/errors.md`.

mod face;
mod support;

use face::{Lair, SLEEPER, SOON, until};
use lair::WaitFor;
use lair::codes::{self, Family};
use lair::testing::{Script, Simulation};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::contained::lair_at;
use support::engines::Kind;
use support::fake_engine::{FakeEngine, Nonsense, UPGRADE, json};
use support::{Home, asker};

/// Which tests produce which codes, where it is not one of this file. Each is looked for, and has to name the code.
const ELSEWHERE: &str = "
Requests a_second_lair_is_refused_and_a_dead_ones_sockets_are_taken_over: already_running
Requests a_wrong_checksum_is_refused_whoever_vouches_for_the_file: checksum_mismatch
Requests folders_have_their_modes_whatever_the_umask_and_links_to_the_lock_are_not_followed: folder_unusable
Requests what_is_too_big_or_too_deep_is_refused_before_it_is_held: frame_too_deep frame_too_large
Requests a_closed_fault_gate_denies: injection_disabled
Requests nobody_waits_for_a_root_that_is_dead: internal
Requests an_absurd_grace_is_refused_or_harmless: invalid_manifest
Requests malformed_lines_get_one_error_reply_and_the_connection_lives: invalid_params invalid_request not_utf8 parse_error
Requests a_runtime_whose_keeper_dies_at_once_fails_with_its_reason_and_leaves_nothing: keeper_failed
Requests a_port_for_the_network_needs_the_configurations_word_as_well: lan_not_allowed
Requests without_rights_a_limit_is_said_not_to_hold_and_why_and_what_must_hold_is_refused: limit_unenforceable
Requests a_module_that_fits_nowhere_is_refused_with_each_reason: mode_unavailable program_missing
Requests a_stranger_is_refused_by_uid_though_the_socket_is_open_to_all: not_permitted
Requests a_stop_thaws_first_and_what_does_not_run_cannot_be_frozen: not_running
Requests a_start_that_does_not_fit_is_refused_with_its_sum_and_whose_stop_would_make_room: overcommitted
Requests a_second_request_at_the_same_time_is_refused: park_busy park_undeclared
Requests a_request_that_fails_is_refused_and_nothing_changes: park_failed
Requests only_a_host_that_unwinds_is_served: panic_aborts
Requests a_port_that_another_module_holds_is_refused_with_its_name: port_taken
Requests a_stop_in_the_middle_of_a_delay_is_the_end: still_up
Requests a_crowd_is_refused_with_a_reason_and_the_others_go_on: too_many_connections
Requests unknown_versions_verbs_and_fields_have_stable_codes: unknown_method unknown_seq unknown_subscription unsupported unsupported_version
Requests s7_an_error_is_a_stable_code_and_costs_no_call_to_anybody: unknown_module
Requests each_run_of_a_crash_loop_has_its_own_dossier_and_old_ones_go_with_their_logs: unknown_run
Requests s4_a_native_module_that_nobody_vouches_for_is_refused: untrusted
Reasons a_failed_start_says_where_and_why: start_failed
Reasons an_exit_code_is_kept_as_it_was: crashed
Reasons a_listener_that_never_answers_fails_by_time: unhealthy
Reasons a_slow_load_that_prints_reads_or_computes_is_left_alone_and_a_stuck_one_is_ended: not_ready_in_time
Reasons where_it_is_enforced_the_module_is_stopped_for_it_and_not_started_again: exposure_violated
Reasons a_crash_loop_is_given_up_after_its_budget: gave_up
Reasons one_that_cannot_die_is_stuck_until_it_can: stop_incomplete
Reasons a_root_that_dies_in_a_host_takes_its_modules_with_it: internal
Reasons one_for_all_stops_last_first_and_starts_first_first_after_the_delay: group_restart
Reasons a_group_that_gives_up_rests_failed_with_its_reason_and_a_start_gives_it_a_new_budget: group_gave_up
Reasons one_that_ignores_the_stop_is_killed_after_its_grace: killed_after_grace
Reasons a_dropped_engine_costs_sight_and_a_stop_meanwhile_is_done_by_the_kernel: out_of_sight
Stages on_a_read_only_disk_a_start_fails_by_name_and_works_when_it_can_be_written_again: open_logs
Stages what_cannot_be_prepared_fails_at_its_stage: change_dir drop_privileges
Engines an_engine_that_is_away_fails_a_start_and_is_found_again: engine_unreachable
Engines an_engine_that_never_answers_fails_the_start_and_leaves_nothing: engine_timed_out
Engines an_engine_that_can_not_say_who_it_is_is_not_taken: engine_nonsense
Engines a_registry_that_is_not_there_is_named: image_pull_failed
Engines a_leftover_is_replaced_and_a_stranger_left_alone: container_name_taken
Exits a_modules_life_through_the_daemon_has_the_documented_codes: 0 1 2 3 4 5 6 7 124
Exits plan_and_start_say_by_their_exit_codes_what_fits_and_what_would_change: 8
Exits run_tells_a_program_that_is_missing_from_one_that_cannot_be_executed: 125 126 127
Exits a_daemon_whose_root_dies_ends_its_modules_and_says_so_by_its_exit_code: 70
";

/// Those of this file.
const HERE: &str = "
Requests what_the_command_line_can_meet_has_its_code: cannot_execute invalid_config no_stack output unreachable usage bridge sandbox_unavailable terminal
Requests what_a_daemon_can_refuse_has_its_code: draining failed group_exists log_folder log_unreadable takeover_failed timeout too_many_subscriptions
Requests a_damaged_dossier_is_told_of: dossier_unreadable
Requests an_end_that_nobody_saw_is_no_exit_code: exit_unknown
Requests where_nothing_can_hold_a_module_still_it_is_said: freeze_failed
Requests one_module_more_than_lair_takes_is_refused: busy
Mistakes every_kind_of_mistake_has_its_code: syntax too_large too_deep unknown_field missing invalid duplicate version
Reasons a_start_that_takes_for_ever_is_ended: start_timed_out
Stages what_an_engine_refuses_has_its_code_and_stage: resolve_image create prepare_dirs exec start identify
Stages a_limit_above_the_users_own_fails_the_start_by_name: enter_limits
Engines what_an_engine_refuses_has_its_code_and_stage: image_missing container_missing port_taken device_missing mount_missing command_missing limit_refused init_missing engine_refused
Engines engines_that_may_not_be_used_are_told_by_doctor: engine_denied engine_unsupported
";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All Rust texts below a folder, without what is built.
fn texts(folder: &str, all: &mut Vec<String>) {
    for entry in fs::read_dir(here(folder)).expect("a folder").flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(here(""))
            .expect("below")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            texts(&name, all);
        } else if name.ends_with(".rs") {
            all.push(fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The body of each test, and of each story that a macro makes tests of.
fn bodies() -> BTreeMap<String, String> {
    let mut all = Vec::new();
    for folder in [
        "tests",
        "manifests/tests",
        "actors/tests",
        "supervision",
        "src",
        "actors/src",
    ] {
        texts(folder, &mut all);
    }
    let mut bodies = BTreeMap::new();
    for text in all {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let Some(rest) = line
                .trim_start()
                .trim_start_matches("async ")
                .strip_prefix("fn ")
            else {
                continue;
            };
            let end = format!("{}}}", " ".repeat(indent));
            let body = lines[at..].iter().take_while(|l| **l != end);
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            bodies.insert(name, body.copied().collect::<Vec<_>>().join("\n"));
        }
    }
    bodies
}

fn names(body: &str, code: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    body.match_indices(code).any(|(at, _)| {
        let before = body[..at].chars().next_back().is_some_and(part);
        let after = body[at + code.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

/// What the sources can say, of requests: the word after one of these.
fn said() -> BTreeSet<String> {
    let mut all = Vec::new();
    texts("src", &mut all);
    let makers = [
        "Refused::new(",
        "CliError::new(",
        "RpcError::refused(",
        ".with_code(",
        "refuse(",
        "code: ",
        "RpcError::new(number::INVALID_REQUEST, ",
        "RpcError::new(number::INVALID_PARAMS, ",
        "number::UNKNOWN_METHOD, ",
        "RpcError::new(number::INTERNAL, ",
        "(true, _) => ",
        "(false, true) => ",
        "(false, false) => ",
    ];
    let mut said = BTreeSet::new();
    for text in all {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let flat: String = product
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace("( ", "(");
        for maker in makers {
            for (at, _) in flat.match_indices(maker) {
                let rest = &flat[at + maker.len()..];
                let word = rest.strip_prefix('"').and_then(|r| r.split('"').next());
                said.extend(
                    word.filter(|w| {
                        !w.is_empty() && w.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                    })
                    .map(str::to_owned),
                );
            }
        }
    }
    for (file, kind) in [
        ("src/runtime.rs", "RuntimeError::"),
        ("src/bridge/frame.rs", "FrameError::"),
    ] {
        said.extend(arms(file, kind));
    }
    // Words beside codes: a column, a lint, an owner.
    for no in ["events", "stranger", "unknown", "dry", "policy"] {
        said.remove(no);
    }
    said
}

/// `Kind::Some => "word"`.
fn arms(file: &str, kind: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(here(file)).expect("a source");
    let arms = text.lines().map(str::trim).filter(|l| l.starts_with(kind));
    let word = |l: &str| Some(l.split_once("=> \"")?.1.split('"').next()?.to_owned());
    arms.filter_map(word).collect()
}

/// The variants of an enum, as they are written in JSON.
fn variants(file: &str, name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(here(file)).expect("a source");
    let body = text
        .split(&format!("pub enum {name} {{"))
        .nth(1)
        .and_then(|t| t.split("\n}").next());
    let words = body
        .expect("an enum")
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with(char::is_uppercase));
    let snake = |l: &str| {
        let mut word = String::new();
        for c in l.trim_end_matches(',').chars() {
            if c.is_uppercase() && !word.is_empty() {
                word.push('_');
            }
            word.extend(c.to_lowercase());
        }
        word
    };
    words.map(snake).collect()
}

fn named(family: &str) -> Family {
    let all = codes::all().map(|e| e.family);
    all.into_iter()
        .find(|f| format!("{f:?}") == family)
        .expect("a family")
}

fn exits() -> BTreeSet<String> {
    let text = fs::read_to_string(here("src/cli/exit.rs")).expect("a source");
    let codes = text.split("= Code(").skip(1);
    codes
        .filter_map(|t| t.split(')').next().map(str::to_owned))
        .collect()
}

fn page(shown: &BTreeMap<(Family, &str), Vec<&str>>) -> String {
    let mut text = String::from(
        "# Codes\n\nEvery refusal and every end has a stable code, a sentence and a next step; programs look at the code alone. This page is made of\n\
         `src/codes.txt` and of the tests that produce each code (`every_code_has_a_cause_a_next_step_and_a_test_that_produces_it`).\n",
    );
    let heads = [
        (
            Family::Requests,
            "Requests",
            "`error[code]` of the program, `data.code` over [the bridge](bridge.md), `Refused::code` of [the library](embedding.md).",
        ),
        (
            Family::Mistakes,
            "Mistakes in manifests and configurations",
            "Each with file, line, column and pointer, under `invalid_manifest` or `invalid_config`.",
        ),
        (
            Family::Reasons,
            "Reasons",
            "`reason.code` of a status: why a module is in its state. What the module itself said of its end has codes of its own, with\ntheir causes: [why](why.md).",
        ),
        (
            Family::Stages,
            "Stages",
            "`reason.stage` of `start_failed`: at which step.",
        ),
        (
            Family::Engines,
            "Engines",
            "In the words of `start_failed`, in brackets, and in `lair doctor`.",
        ),
        (
            Family::Exits,
            "Exit codes",
            "With several modules the worst counts. `run` ends with the module's own code, or 128 + n when signal n ended it, and with 5 where\ntrust or policy refuses.",
        ),
    ];
    for (family, title, words) in heads {
        let _ = write!(
            text,
            "\n## {title}\n\n{words}\n\n| code | what happened | what to do | test |\n| --- | --- | --- | --- |\n"
        );
        for entry in codes::all().filter(|e| e.family == family) {
            let tests = shown
                .get(&(family, entry.code))
                .map(Vec::as_slice)
                .unwrap_or_default();
            let tests: Vec<String> = tests.iter().map(|t| format!("`{t}`")).collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                entry.code,
                entry.cause,
                entry.next,
                tests.join(", ")
            );
        }
    }
    text
}

#[test]
fn every_code_has_a_cause_a_next_step_and_a_test_that_produces_it() {
    let mut wrong = Vec::new();
    let closed = [
        (Family::Requests, said()),
        (
            Family::Mistakes,
            arms("manifests/src/problem.rs", "ProblemKind::"),
        ),
        (
            Family::Reasons,
            variants("supervision/src/status.rs", "ReasonCode"),
        ),
        (
            Family::Stages,
            variants("supervision/src/event.rs", "StartStage"),
        ),
        (
            Family::Engines,
            arms("actors/src/backend/container/fault.rs", "EngineFaultKind::"),
        ),
        (Family::Exits, exits()),
    ];
    for (family, said) in &closed {
        let table: BTreeSet<String> = codes::all()
            .filter(|e| e.family == *family)
            .map(|e| e.code.to_owned())
            .collect();
        wrong.extend(
            said.difference(&table)
                .map(|c| format!("{family:?}: `{c}` is not in src/codes.txt")),
        );
        wrong.extend(
            table
                .difference(said)
                .map(|c| format!("{family:?}: no source says `{c}`")),
        );
    }
    let bodies = bodies();
    let mut shown: BTreeMap<(Family, &str), Vec<&str>> = BTreeMap::new();
    for line in ELSEWHERE.lines().chain(HERE.lines()).skip(1) {
        let Some((family, rest)) = line.split_once(' ') else {
            continue;
        };
        let (family, (test, codes)) = (named(family), rest.split_once(": ").expect("codes"));
        for code in codes.split(' ') {
            match bodies.get(test) {
                Some(body) if names(body, code) => {
                    shown.entry((family, code)).or_default().push(test)
                }
                Some(_) => wrong.push(format!("{test} does not name `{code}`")),
                None => wrong.push(format!("there is no test {test}")),
            }
        }
    }
    for entry in codes::all() {
        let shows = shown.contains_key(&(entry.family, entry.code));
        if !shows {
            wrong.push(format!(
                "{:?}: no test produces `{}`",
                entry.family, entry.code
            ));
        }
        let needs_no_step = entry.family == Family::Exits;
        if entry.cause.is_empty() || (entry.next.is_empty() && !needs_no_step) {
            wrong.push(format!("`{}` has no cause or no next step", entry.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (file, made) = (here("docs/errors.md"), page(&shown));
    if std::env::var_os("LAIR_BLESS").is_some() {
        fs::write(&file, &made).expect("the page");
    }
    let page = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        page == made,
        "docs/errors.md is old: LAIR_BLESS=1 cargo test --test codes"
    );
}

/// The code of a refusal, which has to say what to do; and what the program ended with.
fn told(out: &Output) -> (String, i32) {
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    let code = err
        .split_once("error[")
        .and_then(|(_, t)| t.split(']').next());
    assert!(err.contains("help: "), "no next step: {err}");
    (
        code.unwrap_or(&err).to_owned(),
        out.status.code().unwrap_or(-1),
    )
}

fn is(code: &str, exit: i32) -> (String, i32) {
    (code.to_owned(), exit)
}

/// An old kernel, for what is executed behind it: it has no Landlock, and tells nobody but the parent how a process ended.
const OLD_KERNEL: &str = "
import ctypes, os, struct, sys
ioctl = 29 if os.uname().machine == 'aarch64' else 16
load, same, give = 0x20, 0x15, 0x06
steps = [(load, 0, 0, 0), (same, 4, 0, 444), (same, 0, 2, ioctl), (load, 0, 0, 24), (same, 2, 0, 0xC040FF0B)]
steps += [(give, 0, 0, 0x7fff0000), (give, 0, 0, 0x50000 | 38), (give, 0, 0, 0x50000 | 25)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *s) for s in steps))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

/// A terminal that can be read and not written.
const ONE_WAY: &str = "
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
out = os.open(os.ttyname(theirs), os.O_RDONLY | os.O_NOCTTY)
sys.exit(subprocess.run(sys.argv[1:], stdin=theirs, stdout=out, env={**os.environ, 'TERM': 'xterm'}).returncode)
";

fn behind(lair: &Lair, script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script, face::LAIR]).args(args);
    command
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"))
        .env_remove("LAIR_SOCKET")
        .stdin(Stdio::null());
    command
}

#[test]
fn what_the_command_line_can_meet_has_its_code() {
    let lair = Lair::folder();
    let path = |name: &str| lair.dir.join(name).display().to_string();
    assert_eq!(told(&lair.lair(&["ps"])), is("unreachable", 6));
    assert_eq!(
        told(&lair.lair(&["logs", "x", "--since", "yesterday"])),
        is("usage", 2)
    );
    let plain = path("plain");
    fs::write(&plain, "\u{1}words").expect("a file");
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o755)).expect("a mode");
    let text = format!("name: plain\nruntime: {{ native: {{ command: [{plain}] }} }}\n");
    fs::write(path("plain.yaml"), text).expect("a manifest");
    assert_eq!(
        told(&lair.lair(&["run", &path("plain.yaml")])),
        is("cannot_execute", 126)
    );
    fs::write(path("bad.yaml"), "runtime: { no_such_key: 1 }\n").expect("a configuration");
    assert_eq!(
        told(&lair.lair(&["--config", &path("bad.yaml"), "ps"])),
        is("invalid_config", 1)
    );
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("a full disk");
    let out = lair
        .command(&["schema", "manifest"])
        .stdout(full)
        .output()
        .expect("lair");
    assert_eq!(told(&out), is("output", 1));
    let gone = format!(
        "mkdir {0} && cd {0} && rmdir {0} && exec {1} up",
        path("gone"),
        face::LAIR
    );
    let out = Command::new("/bin/sh")
        .args(["-c", &gone])
        .env("LAIR_CONFIG", path("config.yaml"))
        .output()
        .expect("sh");
    assert_eq!(told(&out), is("no_stack", 1));
    let below_a_file = format!("{plain}/lair.sock");
    assert_eq!(
        told(&lair.lair(&["serve", "--socket", &below_a_file])),
        is("bridge", 1)
    );
    let more = "  native: { command: [/bin/true], sandbox: { filesystem: { read: [/etc] } } }\n";
    fs::write(path("shut.yaml"), format!("name: shut\nruntime:\n{more}")).expect("a manifest");
    let mut old = behind(&lair, OLD_KERNEL, &["run", &path("shut.yaml")]);
    let out = old.output().expect("python3");
    assert_eq!(told(&out), is("sandbox_unavailable", 5));
    let out = behind(&lair, ONE_WAY, &["top"]).output().expect("python3");
    assert_eq!(told(&out), is("terminal", 1));
}

const GROUP: &str = "modules:\n- { name: NAME, runtime: { native: { command: [/bin/sleep, '1000'] } } }\n\
                     groups: [ { name: pair, strategy: one_for_all, modules: [NAME] } ]\n";

#[test]
fn what_a_daemon_can_refuse_has_its_code() {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    lair.module("done", "exit 3", "");
    lair.module(
        "deaf",
        "trap '' TERM; echo deaf; while :; do sleep 0.1; done",
        "",
    );
    let lair = lair.serve(&[]);
    let ask = |args: &[&str]| told(&lair.lair(args));
    assert_eq!(lair.ask(&["start", "sleeper", "deaf", "--wait=ready"]).0, 0);
    assert_eq!(
        ask(&["wait", "sleeper", "--for", "stopped", "--timeout", "100ms"]),
        is("timeout", 124)
    );
    assert_eq!(ask(&["wait", "done", "--for", "ready"]), is("failed", 1));
    for name in ["one", "two"] {
        fs::write(
            lair.dir.join(format!("modules/{name}.yaml")),
            GROUP.replace("NAME", name),
        )
        .expect("a stack");
    }
    let file = |name: &str| {
        lair.dir
            .join(format!("modules/{name}.yaml"))
            .display()
            .to_string()
    };
    assert_eq!(lair.ask(&["load", &file("one")]).0, 0);
    assert_eq!(ask(&["load", &file("two")]), is("group_exists", 1));
    lair.module("late", SLEEPER, "");
    fs::write(lair.dir.join("logs/late"), "in its place").expect("a file");
    assert_eq!(ask(&["load", &file("late")]), is("log_folder", 1));
    fs::write(lair.dir.join("logs/one"), "in its place").expect("a file");
    let mut conn = lair.connect();
    assert_eq!(
        conn.refused("logs.read", json!({ "name": "one" })),
        "log_unreadable"
    );
    for _ in 0..16 {
        conn.ok("events.subscribe", json!({}));
    }
    assert_eq!(
        conn.refused("events.subscribe", json!({})),
        "too_many_subscriptions"
    );
    fs::create_dir(lair.dir.join("run/takeover")).expect("a folder in its place");
    assert_eq!(ask(&["serve", "--takeover"]), is("takeover_failed", 1));
    // One that does not hear keeps the daemon for its grace.
    until("it is deaf", SOON, || {
        lair.status("deaf")["logs"]["bytes"].as_u64() > Some(0)
    });
    let mut asker = lair.connect();
    asker.send(br#"{"jsonrpc":"2.0","id":1,"method":"runtime.drain","params":{}}"#);
    let mut other = lair.connect();
    let start = || other.call("module.start", json!({ "name": "done" }));
    let mut start = start;
    until("it is draining", SOON, || {
        let reply = start();
        let data = &reply["error"]["data"];
        data["code"] == "draining" && data["help"].is_string()
    });
}

#[test]
fn a_damaged_dossier_is_told_of() {
    let lair = Lair::folder();
    let file = lair.module("m", "exit 3", "");
    assert_eq!(lair.ask(&["run", file.to_str().expect("path")]).0, 3);
    let dossier = lair.dir.join("logs/m/1.dossier.json");
    until("its dossier", SOON, || dossier.exists());
    fs::write(&dossier, "{").expect("damage");
    assert_eq!(told(&lair.lair(&["why", "m"])), is("dossier_unreadable", 1));
}

#[test]
fn an_end_that_nobody_saw_is_no_exit_code() {
    let lair = Lair::folder();
    let note = lair.dir.join("pids");
    let script = format!(
        "echo $$ $PPID > {0}.new; mv {0}.new {0}; exec sleep 1000",
        note.display()
    );
    let file = lair.module("m", &script, "");
    let mut command = behind(&lair, OLD_KERNEL, &["run", file.to_str().expect("path")]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    until("it runs", SOON, || note.exists());
    let pids = fs::read_to_string(&note).expect("pids");
    let pids: Vec<i32> = pids
        .split_whitespace()
        .map(|p| p.parse().expect("a pid"))
        .collect();
    for pid in [pids[1], pids[0]] {
        support::signal(pid, 9);
        until("it is gone", SOON, || !support::is_alive(pid));
    }
    let out = child.wait_with_output().expect("its end");
    assert_eq!(told(&out), is("exit_unknown", 125));
}

fn give_away(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        if entry.path().is_dir() {
            give_away(&entry.path());
        }
        chown(entry.path(), Some(65534), Some(65534)).expect("given");
    }
    chown(dir, Some(65534), Some(65534)).expect("given");
}

/// Somebody without rights has no group of version 2 that could be frozen.
#[test]
fn where_nothing_can_hold_a_module_still_it_is_said() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root, to become another user"
    );
    let mut lair = Lair::folder();
    lair.module("m", SLEEPER, "");
    give_away(&lair.dir);
    let mut command = lair.command(&["serve", "--start"]);
    command
        .uid(65534)
        .gid(65534)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    lair.daemon = Some(command.spawn().expect("serve"));
    until("it answers", SOON, || lair.socket().exists());
    lair.until_state("m", "running");
    assert_eq!(told(&lair.lair(&["freeze", "m"])), is("freeze_failed", 1));
    assert_eq!(lair.status("m")["frozen"], json!(false));
}

#[tokio::test]
async fn one_module_more_than_lair_takes_is_refused() {
    let sim = Simulation::builder().start().await.expect("starts");
    let most = lair::actors::root::MAX_MODULES;
    let one = |n: usize| {
        format!("- {{ name: m{n}, runtime: {{ native: {{ command: [/bin/true] }} }} }}\n")
    };
    let all: String = (0..most).map(one).collect();
    sim.load(&format!("modules:\n{all}"))
        .await
        .expect("as many as it takes");
    let refused = sim
        .load(&format!("modules:\n{}", one(most)))
        .await
        .expect_err("one more");
    assert_eq!(refused.code, "busy");
    assert!(refused.help.is_some());
}

#[test]
fn every_kind_of_mistake_has_its_code() {
    let lair = Lair::folder();
    let file = lair.dir.join("m.yaml");
    let good = "name: m\nruntime: { native: { command: [/bin/true] } }\n";
    let long = format!("{good}description: {}\n", "x".repeat(2 << 20));
    let deep = format!("{good}hardware: {}{}\n", "[".repeat(80), "]".repeat(80));
    for (text, code) in [
        ("name: [", "syntax"),
        (&long, "too_large"),
        (&deep, "too_deep"),
        (&format!("{good}colour: red\n"), "unknown_field"),
        ("name: m\n", "missing"),
        (
            "name: m\nruntime: { native: { command: [/bin/true] }, stop: { grace: 1ms } }\n",
            "invalid",
        ),
        (&format!("{good}name: n\n"), "duplicate"),
        (&format!("{good}version: first\n"), "version"),
    ] {
        fs::write(&file, text).expect("a manifest");
        let out = lair.lair(&["validate", file.to_str().expect("path")]);
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(out.status.code(), Some(1), "{code}: {said}");
        assert!(said.contains(&format!("[{code}]")), "{code}: {said}");
    }
}

#[tokio::test]
async fn a_start_that_takes_for_ever_is_ended() {
    let never = Script {
        spawn_after: Duration::from_secs(1_000_000),
        ..Script::default()
    };
    let sim = Simulation::builder()
        .script("m", never)
        .start()
        .await
        .expect("starts");
    sim.load("name: m\nruntime: { native: { command: [/bin/true] } }\n")
        .await
        .expect("loaded");
    sim.start("m").await.expect("started");
    sim.advance(Duration::from_secs(100_000)).await;
    let status = sim.handle().status("m").expect("known");
    let reason = status.reason.expect("a reason");
    assert_eq!(
        (status.state.as_str(), reason.code.as_str()),
        ("failed", "start_timed_out")
    );
    assert!(reason.next_step.is_some());
}

#[test]
fn a_limit_above_the_users_own_fails_the_start_by_name() {
    let lair = Lair::folder();
    let file = lair.module("m", "exec true", "  resources: { nofile: 4096 }\n");
    // Root may raise it, unless it has lost that right.
    let mut words = vec!["-c", "ulimit -n 1024; exec \"$@\"", "sh"];
    if rustix::process::geteuid().is_root() {
        words.extend([
            "setpriv",
            "--bounding-set=-sys_resource",
            "--inh-caps=-sys_resource",
        ]);
    }
    let mut command = Command::new("/bin/sh");
    command.args(words).args([face::LAIR, "run"]).arg(file);
    let out = command
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"))
        .output()
        .expect("run");
    assert_eq!(told(&out), is("start_failed", 125));
    let dossier = fs::read_to_string(lair.dir.join("logs/m/1.dossier.json")).expect("its dossier");
    assert!(dossier.contains("\"enter_limits\""), "{dossier}");
}

/// The answers of an engine with which everything goes well, but for one.
fn engine(question: &str, bad: (&str, &str, &str)) -> Option<String> {
    let (method, rest) = question.split_once(' ')?;
    let path = rest.split(['?', ' ']).next()?;
    if (method, true) == (bad.0, path.ends_with(bad.1)) {
        let code = if bad.2.starts_with("no such") {
            "404 Not Found"
        } else {
            "500 Internal Server Error"
        };
        return Some(json(
            code,
            &json!({ "cause": bad.2, "message": bad.2, "response": 500 }).to_string(),
        ));
    }
    let id = "a".repeat(64);
    let nothing = || "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    Some(match path.rsplit('/').next()? {
        "info" => json(
            "200 OK",
            r#"{"host": {"cgroupVersion": "v1"}, "version": {"Version": "4.3.1"}}"#,
        ),
        "_ping" => json("200 OK", "OK"),
        "json" if path.contains("/images/") => json(
            "200 OK",
            r#"{"Id": "sha256:0123", "User": "", "Config": {}}"#,
        ),
        "json" if path.ends_with("/containers/json") => json("200 OK", "[]"),
        "create" => json(
            "201 Created",
            &json!({ "Id": id, "Warnings": [] }).to_string(),
        ),
        "attach" => UPGRADE.to_owned(),
        "init" | "start" => nothing(),
        _ => json(
            "404 Not Found",
            r#"{"cause": "no such container", "message": "no such container", "response": 404}"#,
        ),
    })
}

#[tokio::test]
async fn what_an_engine_refuses_has_its_code_and_stage() {
    let home = Home::new("codes");
    let fake = FakeEngine::start(home.path(), Nonsense::Refuses);
    fake.talk_sense(|q| engine(q, ("", "", "")));
    let lair = lair_at("codes", Kind::Podman, fake.socket.clone()).await;
    let (create, start) = (("POST", "/create"), ("POST", "/start"));
    let volume = "volumes: [ { source: ./not-there, target: /x } ]";
    let words = [
        (
            ("GET", "/json"),
            "no such image",
            "",
            "image_missing",
            "resolve_image",
        ),
        (
            create,
            "listen tcp 127.0.0.1:80: bind: address already in use",
            "",
            "port_taken",
            "create",
        ),
        (
            create,
            "error gathering device information for custom device \"/dev/x\": no such file",
            "",
            "device_missing",
            "create",
        ),
        (
            create,
            "setting rlimit: operation not permitted",
            "",
            "limit_refused",
            "create",
        ),
        (
            create,
            "lookup container-init binary: not found",
            "",
            "init_missing",
            "create",
        ),
        (create, "the moon is full", "", "engine_refused", "create"),
        (("", ""), "", volume, "mount_missing", "prepare_dirs"),
        (
            start,
            "executable file `nothing` not found in $PATH: No such file or directory",
            "",
            "command_missing",
            "exec",
        ),
        (start, "the moon is full", "", "engine_refused", "start"),
        (("", ""), "", "", "container_missing", "identify"),
    ];
    for (n, (step, said, more, code, stage)) in words.into_iter().enumerate() {
        fake.talk_sense(move |q| engine(q, (step.0, step.1, said)));
        let name = format!("m{n}");
        let more = if more.is_empty() {
            String::new()
        } else {
            format!(", {more}")
        };
        let text = format!(
            "name: {name}\nruntime:\n  container: {{ image: 'x.test/y:1', pull: never, engine: podman{more} }}\n"
        );
        lair.load(&text).await.expect("a load");
        lair.handle.start(&name, asker()).await.expect("a start");
        let down = lair.wait(&name, WaitFor::Stopped).await;
        let reason = down.reason.expect("a reason");
        assert!(
            reason.message.contains(&format!("({code})")),
            "{code}: {reason:?}"
        );
        assert_eq!(reason.stage.as_deref(), Some(stage), "{code}: {reason:?}");
        assert!(reason.next_step.is_some(), "{code}");
    }
    fake.set(Nonsense::Closes);
    lair.end().await;
}

#[test]
fn engines_that_may_not_be_used_are_told_by_doctor() {
    let lair = Lair::folder();
    let script = "#!/bin/sh\necho 'permission denied while trying to connect to the Docker daemon socket' >&2\nexit 1\n";
    let program = lair.dir.join("docker");
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
    let doctor = |host: Option<&str>| {
        let mut command = lair.command(&["doctor"]);
        command.env("PATH", &lair.dir).env_remove("DOCKER_HOST");
        command.envs(host.map(|h| ("DOCKER_HOST", h)));
        String::from_utf8_lossy(&command.output().expect("doctor").stdout).into_owned()
    };
    let (local, elsewhere) = (doctor(None), doctor(Some("tcp://192.0.2.1:2375")));
    assert!(local.contains("(engine_denied)"), "{local}");
    assert!(elsewhere.contains("(engine_unsupported)"), "{elsewhere}");
}
