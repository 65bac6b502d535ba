//! Family S of the fault list: what a bridge must survive from its peers.

mod face;

use face::{Conn, Lair, SLEEPER, SOON, code, until};
use serde_json::{Value, json};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

fn with_sleeper() -> Lair {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    lair.serve(&[])
}

#[test]
fn malformed_lines_get_one_error_reply_and_the_connection_lives() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    let info = br#""jsonrpc":"2.0","method":"runtime.info""#;
    let duplicate = [b"{\"id\":1,\"id\":2,".as_slice(), info, b"}"].concat();
    let nul = [b"{\"id\":1,\0".as_slice(), info, b"}"].concat();
    let bom = [b"\xef\xbb\xbf{\"id\":1,".as_slice(), info, b"}"].concat();
    let bad_utf8 = [b"{\"id\":\"\xff\",".as_slice(), info, b"}"].concat();
    let cases: [(&[u8], i64, &str); 12] = [
        (b"", -32_700, "parse_error"),
        (b"{", -32_700, "parse_error"),
        (b"hello", -32_700, "parse_error"),
        (&nul, -32_700, "parse_error"),
        (&bom, -32_700, "parse_error"),
        (&bad_utf8, -32_700, "not_utf8"),
        (&duplicate, -32_600, "invalid_request"),
        (b"[]", -32_600, "invalid_request"),
        (b"12e999", -32_600, "invalid_request"),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}",
            -32_600,
            "invalid_request",
        ),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"x\"}",
            -32_600,
            "invalid_request",
        ),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"module.status\",\"params\":[\"sleeper\"]}",
            -32_602,
            "invalid_params",
        ),
    ];
    for (line, number, word) in cases {
        let reply = conn.raw(line);
        assert_eq!(
            (reply["error"]["code"].as_i64(), code(&reply).as_str()),
            (Some(number), word),
            "{reply}"
        );
        assert!(conn.ok("runtime.info", json!({}))["version"].is_string());
    }
    let huge = br#"{"jsonrpc":"2.0","id":1,"method":"module.stop","params":{"name":"sleeper","grace_ms":1e999}}"#;
    assert_eq!(code(&conn.raw(huge)), "invalid_params");
    let twice = br#"{"jsonrpc":"2.0","id":9,"method":"module.status","params":{"name":"sleeper","name":"sleeper"}}"#;
    assert_eq!(code(&conn.raw(twice)), "invalid_params");
}

#[test]
fn what_is_too_big_or_too_deep_is_refused_before_it_is_held() {
    let lair = with_sleeper();
    let before = lair.rss_kib();
    let mut conn = lair.connect();
    let block = vec![b'x'; 64 * 1024];
    // 64 MiB without an end: the daemon must have closed long before.
    let refused = (0..1024).any(|_| conn.stream.write_all(&block).is_err());
    assert!(refused, "64 MiB were taken");
    assert_eq!(code(&conn.line().expect("a reply")), "frame_too_large");
    assert!(conn.line().is_none());
    assert!(
        lair.rss_kib() < before + 8 * 1024,
        "memory grew from {before} to {} KiB",
        lair.rss_kib()
    );

    let mut conn = lair.connect();
    conn.send(&vec![b'['; 100_000]);
    assert_eq!(code(&conn.line().expect("a reply")), "frame_too_deep");
    assert!(conn.line().is_none());
    assert_eq!(lair.status("sleeper")["state"], "stopped");
}

#[test]
fn fragments_and_half_closed_connections_get_their_replies() {
    let lair = with_sleeper();
    let line = b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"module.status\",\"params\":{\"name\":\"sleeper\"}}\n";
    let mut conn = lair.connect();
    for byte in line {
        conn.stream.write_all(&[*byte]).expect("byte");
    }
    assert_eq!(conn.line().expect("reply")["result"]["name"], "sleeper");
    conn.stream
        .write_all(&[line.as_slice(), line.as_slice()].concat())
        .expect("two");
    assert_eq!(conn.line().expect("reply")["id"], "a");
    assert_eq!(conn.line().expect("reply")["id"], "a");

    let mut conn = lair.connect();
    let wait = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"module.wait\",\"params\":{\"name\":\"sleeper\",\"for\":\"ready\",\"timeout_ms\":300}}\n";
    conn.stream.write_all(wait).expect("wait");
    // The last line has no end, and the direction is closed: both are answered.
    conn.stream
        .write_all(&line[..line.len() - 1])
        .expect("status");
    conn.stream.shutdown(Shutdown::Write).expect("half close");
    let replies = [conn.line().expect("reply"), conn.line().expect("reply")];
    assert!(replies.iter().any(|r| r["id"] == "a"), "{replies:?}");
    assert!(replies.iter().any(|r| r["id"] == 1), "{replies:?}");
    assert!(conn.line().is_none());
}

#[test]
fn a_notification_has_its_effect_and_no_reply() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    conn.send(br#"{"jsonrpc":"2.0","method":"module.start","params":{"name":"sleeper"}}"#);
    conn.send(br#"{"jsonrpc":"2.0","method":"no.such"}"#);
    let reply = conn.raw(br#"{"jsonrpc":"2.0","id":5,"method":"runtime.info"}"#);
    assert_eq!(reply["id"], 5);
    lair.until_state("sleeper", "running");
}

#[test]
fn a_request_has_its_effect_once_though_its_peer_vanishes() {
    let lair = with_sleeper();
    let mut watcher = lair.connect();
    let send = |line: Value| {
        let mut stream = UnixStream::connect(lair.socket()).expect("connect");
        stream
            .write_all(format!("{line}\n").as_bytes())
            .expect("send");
    };
    let ask = |method: &str, params: Value| {
        send(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
    };
    for round in 1..=50 {
        ask("module.start", json!({ "name": "sleeper" }));
        until("running", SOON, || {
            watcher.ok("module.status", json!({ "name": "sleeper" }))["state"] == "running"
        });
        ask("module.kill", json!({ "name": "sleeper" }));
        until("down", SOON, || {
            let status = watcher.ok("module.status", json!({ "name": "sleeper" }));
            assert_eq!(status["run"], round);
            matches!(status["state"].as_str(), Some("stopped" | "failed"))
        });
    }
    let before = lair.fds();
    for _ in 0..300 {
        ask("module.wait", json!({ "name": "sleeper", "for": "ready" }));
        ask("module.status", json!({ "name": "sleeper" }));
        ask("events.subscribe", json!({ "from_seq": 1 }));
    }
    until("no descriptor is left behind", SOON, || {
        lair.fds() <= before + 1
    });
    let info = watcher.ok("runtime.info", json!({}));
    assert!(
        info["bridge"]["open"].as_u64().is_some_and(|n| n <= 2),
        "{info}"
    );
}

#[test]
fn a_crowd_is_refused_with_a_reason_and_the_others_go_on() {
    let lair = with_sleeper();
    let mut first = lair.connect();
    first.ok("runtime.info", json!({}));
    let mut crowd: Vec<Conn> = (0..200).map(|_| lair.connect()).collect();
    let mut refused = 0;
    for conn in crowd.iter_mut().rev() {
        // Those inside say nothing: ask those that were sent away only.
        conn.stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("timeout");
        let mut byte = [0u8; 1];
        let peeked = rustix::net::recv(&conn.stream, &mut byte, rustix::net::RecvFlags::PEEK);
        if matches!(peeked, Ok((1, _))) {
            assert_eq!(
                code(&conn.line().expect("a reason")),
                "too_many_connections"
            );
            assert!(conn.line().is_none());
            refused += 1;
        } else if refused > 130 {
            break;
        }
    }
    assert_eq!(refused, 200 - 63);
    first.ok("runtime.info", json!({}));
    drop(crowd);
    until("there is room again", SOON, || {
        lair.connect()
            .raw(br#"{"jsonrpc":"2.0","id":1,"method":"runtime.info"}"#)
            .get("result")
            .is_some()
    });
}

#[test]
fn unknown_versions_verbs_and_fields_have_stable_codes() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    assert_eq!(
        code(&conn.raw(br#"{"jsonrpc":"1.0","id":1,"method":"runtime.info"}"#)),
        "unsupported_version"
    );
    assert_eq!(
        code(&conn.raw(br#"{"id":1,"method":"runtime.info"}"#)),
        "unsupported_version"
    );
    assert_eq!(conn.refused("module.explode", json!({})), "unknown_method");
    assert_eq!(
        conn.refused("module.status", json!({ "name": "sleeper", "colour": 1 })),
        "invalid_params"
    );
    assert_eq!(conn.refused("module.status", json!({})), "invalid_params");
    assert_eq!(
        conn.refused("module.status", json!({ "name": "nobody" })),
        "unknown_module"
    );
    assert_eq!(
        conn.refused("module.start", json!({ "name": "sleeper", "args": ["x"] })),
        "invalid_params"
    );
    assert_eq!(
        conn.refused("policy.set", json!({ "allowed_modes": ["native"] })),
        "unsupported"
    );
    assert_eq!(
        conn.refused("unsubscribe", json!({ "subscription": "77" })),
        "unknown_subscription"
    );
    assert_eq!(
        conn.refused("events.subscribe", json!({ "from_seq": 99_999 })),
        "unknown_seq"
    );
}

/// How long the races last: `LAIR_LONG=1` for the minute of the fault list.
fn race_time() -> Duration {
    Duration::from_secs(if std::env::var_os("LAIR_LONG").is_some() {
        60
    } else {
        4
    })
}

#[test]
fn conflicting_clients_keep_every_reply_and_the_order_of_events() {
    let lair = with_sleeper();
    let mut events = lair.connect();
    events.ok("events.subscribe", json!({ "from_seq": 1 }));
    let end = Instant::now() + race_time();
    let racers: Vec<_> = (0..4u64)
        .map(|seed| {
            let mut conn = lair.connect();
            std::thread::spawn(move || {
                let mut random = seed * 2 + 1;
                let mut answers = 0u64;
                while Instant::now() < end {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let method = [
                        "module.start",
                        "module.stop",
                        "module.restart",
                        "module.kill",
                    ][(random >> 40) as usize % 4];
                    conn.ok(method, json!({ "name": "sleeper" }));
                    answers += 1;
                    std::thread::sleep(Duration::from_millis(random >> 60));
                }
                answers
            })
        })
        .collect();
    let answers: u64 = racers.into_iter().map(|r| r.join().expect("racer")).sum();
    lair.connect()
        .ok("module.stop", json!({ "name": "sleeper" }));
    lair.until_state("sleeper", "stopped");
    let newest = lair.connect().ok("runtime.info", json!({}))["newest_event"]
        .as_u64()
        .expect("newest");
    let mut all = Vec::new();
    while all.len() < usize::try_from(newest).expect("newest") {
        let note = events.line().expect("event");
        assert!(note["params"].get("gap").is_none(), "{note}");
        all.push(note["params"]["event"].clone());
    }
    check_order(&all);
    assert!(answers > 50, "{answers} answers");
}

/// Numbers without holes; per run starting < running < exited, each once.
fn check_order(events: &[Value]) {
    let mut seen: std::collections::BTreeMap<(u64, String), u64> =
        std::collections::BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["seq"].as_u64(), Some(at as u64 + 1), "{event}");
        let run = event["run"].as_u64().expect("run");
        let kind = event["type"].as_str().expect("type").to_owned();
        if ["module.starting", "module.running", "module.exited"].contains(&kind.as_str()) {
            assert!(
                seen.insert((run, kind.clone()), at as u64).is_none(),
                "twice: {event}"
            );
        }
        let came = |kind: &str| seen.contains_key(&(run, kind.to_owned()));
        if kind == "module.running" {
            assert!(came("module.starting"), "{event}");
        }
        if kind == "module.exited" {
            assert!(came("module.running"), "{event}");
        }
    }
    let count = |kind: &str| seen.keys().filter(|(_, k)| k == kind).count();
    assert_eq!(count("module.running"), count("module.exited"));
}

#[test]
fn a_stranger_is_refused_by_uid_though_the_socket_is_open_to_all() {
    if !rustix::process::geteuid().is_root() {
        panic!("this test needs root, to become another user");
    }
    let lair = with_sleeper();
    let run = |words: &[&str]| {
        assert!(
            Command::new(words[0])
                .args(&words[1..])
                .status()
                .expect("run")
                .success()
        )
    };
    let (dir, socket) = (
        lair.dir.display().to_string(),
        lair.socket().display().to_string(),
    );
    run(&["chmod", "0755", &dir, &format!("{dir}/run")]);
    run(&["chmod", "0777", &socket]);
    let client = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"module.start","params":{"name":"sleeper"}}\n')
except OSError:
    pass  # refused before it was read
print(s.makefile().readline())
"#;
    let out = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            client,
            &socket,
        ])
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&out.stdout);
    let lines: Vec<&str> = text.lines().filter(|l| !l.is_empty()).collect();
    assert_eq!(
        lines.len(),
        1,
        "{text} {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let reply: Value = serde_json::from_str(lines[0]).expect("json");
    assert_eq!(code(&reply), "not_permitted");
    assert!(reply["id"].is_null());
    assert_eq!(lair.status("sleeper")["run"], 0);
    until("it is logged", SOON, || lair.log().contains("stranger"));
}

#[test]
fn a_socket_file_that_is_removed_comes_back() {
    let lair = with_sleeper();
    let mut old = lair.connect();
    old.ok("runtime.info", json!({}));
    for _ in 0..3 {
        std::fs::remove_file(lair.socket()).expect("remove");
        until("the socket is back", SOON, || face::exists(&lair.socket()));
        assert_eq!(lair.status("sleeper")["state"], "stopped");
    }
    old.ok("runtime.info", json!({}));
    // A second daemon is refused, and the first one does not notice.
    let second = lair.lair(&["serve"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("already_running"));
    old.ok("runtime.info", json!({}));
}

#[test]
fn names_that_lead_elsewhere_are_rejected_at_the_edge() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    let long = "a".repeat(10_000);
    for name in [
        "..",
        "../sleeper",
        "a/b",
        "/etc/passwd",
        "a\0b",
        "a..b",
        "",
        "Sleeper",
        "sl\u{435}eper",
        ".x",
        &long,
    ] {
        for method in [
            "module.status",
            "module.start",
            "module.stop",
            "module.unload",
            "logs.read",
            "logs.follow",
        ] {
            let reply = conn.call(method, json!({ "name": name }));
            assert_eq!(code(&reply), "invalid_params", "{method} {name:?}");
            assert!(
                reply.to_string().len() < 1000,
                "echoes {} bytes",
                reply.to_string().len()
            );
        }
    }
    for path in ["relative.yaml", "../x"] {
        assert_eq!(
            conn.refused("module.load", json!({ "path": path })),
            "invalid_params"
        );
    }
}

#[test]
fn a_closed_fault_gate_denies() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    conn.ok("module.start", json!({ "name": "sleeper" }));
    lair.until_state("sleeper", "running");
    let fault =
        json!({ "fault": { "crash_child": { "id": "sleeper", "signal": 9 } }, "label": "t" });
    assert_eq!(conn.refused("fault.inject", fault), "injection_disabled");
    assert_eq!(lair.status("sleeper")["state"], "running");
}

#[test]
fn an_injected_crash_is_real_and_marked_everywhere() {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    let lair = lair.serve(&["--allow-faults"]);
    let mut conn = lair.connect();
    conn.ok(
        "events.subscribe",
        json!({ "types": ["module.exited", "fault."] }),
    );
    conn.ok("module.start", json!({ "name": "sleeper" }));
    lair.until_state("sleeper", "running");
    let fault =
        json!({ "fault": { "crash_child": { "id": "sleeper", "signal": 9 } }, "label": "drill-7" });
    assert!(
        lair.connect().ok("fault.inject", fault)["seq"]
            .as_u64()
            .is_some()
    );
    for kind in ["fault.injected", "module.exited"] {
        let event = conn.line().expect("event")["params"]["event"].clone();
        assert_eq!(
            (event["type"].as_str(), event["origin"].as_str()),
            (Some(kind), Some("injected")),
            "{event}"
        );
        assert_eq!(event["label"], "drill-7");
    }
    until("failed", SOON, || {
        lair.status("sleeper")["state"] == "failed"
    });
    let status = lair.status("sleeper");
    assert_eq!(status["exit"]["signal"], 9, "{status}");
    assert!(
        status["origin"]
            .as_str()
            .is_some_and(|o| o.starts_with("injected")),
        "{status}"
    );
    let lairs = json!({ "name": "sleeper", "stream": "lair" });
    until("its log tells of it", SOON, || {
        let log = lair.connect().ok("logs.read", lairs.clone());
        log.to_string().contains("drill-7")
    });
}

#[test]
fn a_drain_over_the_bridge_is_answered_and_ends_the_daemon() {
    let mut lair = with_sleeper();
    let mut conn = lair.connect();
    conn.ok("module.start", json!({ "name": "sleeper" }));
    lair.until_state("sleeper", "running");
    // Somebody else waits: it is told, too.
    let mut other = lair.connect();
    other.send(br#"{"jsonrpc":"2.0","id":1,"method":"module.wait","params":{"name":"sleeper","for":"healthy"}}"#);
    let report = conn.ok("runtime.drain", json!({ "within_ms": 10_000 }));
    assert_eq!(
        (
            report["stopped"].as_u64(),
            report["remaining"].as_array().map(Vec::len)
        ),
        (Some(1), Some(0)),
        "{report}"
    );
    let told = other.line().expect("an answer");
    assert_eq!(told["id"], 1, "{told}");
    let mut daemon = lair.daemon.take().expect("daemon");
    assert_eq!(daemon.wait().expect("wait").code(), Some(0));
    assert!(!face::exists(&lair.socket()));
}
