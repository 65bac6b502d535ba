//! What scrapers get: by the bridge, by the port, and what a real Prometheus makes of it.

mod face;

use face::{Lair, SLEEPER, SOON, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A folder whose configuration has the port.
fn folder(port: u16) -> Lair {
    let lair = Lair::folder();
    let path = lair.dir.join("config.yaml");
    let text = std::fs::read_to_string(&path).expect("config");
    let metrics = format!("  metrics: {{ listen: 127.0.0.1:{port} }}\n");
    std::fs::write(&path, text + &metrics).expect("config");
    lair
}

/// What comes back for these bytes, until the other side ends it.
fn answer(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("timeout");
    // It may answer before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn get(port: u16, path: &str, more: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{more}\r\n");
    let text = answer(port, &request);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_owned(), body.to_owned())
}

/// A sample's value.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(sample))?;
    line.strip_prefix(' ')?.parse().ok()
}

const FAILS: &str = "restart: { policy: on-failure, backoff: { first: 50ms, factor: 1, cap: 50ms }, max: 2, within: 1m }";

/// Three modules: one runs with a limit, one was stopped, one has failed for good.
fn three(port: u16) -> Lair {
    let lair = folder(port);
    let limit = "  resources: { memory: 64MiB }\n";
    lair.module("runs", SLEEPER, limit);
    lair.module("rests", SLEEPER, "");
    lair.module("fails", "exit 3", &format!("  {FAILS}\n"));
    let lair = lair.serve(&["--start"]);
    lair.until_state("runs", "running");
    lair.until_state("rests", "running");
    lair.until_state("fails", "failed");
    let mut conn = lair.connect();
    conn.ok("module.stop", json!({ "name": "rests" }));
    lair.until_state("rests", "stopped");
    lair
}

#[test]
fn what_is_scraped_tells_of_every_life_and_promtool_finds_nothing_wrong() {
    let port = free_port();
    let lair = three(port);
    let (head, text) = get(port, "/metrics", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    for (sample, expected) in [
        (r#"lair_module_state{module="runs",state="running"}"#, 1.0),
        (r#"lair_module_state{module="runs",state="failed"}"#, 0.0),
        (r#"lair_module_state{module="rests",state="stopped"}"#, 1.0),
        (r#"lair_module_state{module="fails",state="failed"}"#, 1.0),
        (r#"lair_module_ready{module="runs"}"#, 1.0),
        (r#"lair_module_health{module="runs",health="unknown"}"#, 1.0),
        (r#"lair_module_starts_total{module="fails"}"#, 3.0),
        (r#"lair_module_restarts_total{module="fails"}"#, 2.0),
        (r#"lair_module_restarts_total{module="runs"}"#, 0.0),
        (
            r#"lair_module_exits_total{module="fails",cause="failed"}"#,
            3.0,
        ),
        (
            r#"lair_module_exits_total{module="rests",cause="requested"}"#,
            1.0,
        ),
        (r#"lair_module_stop_seconds_count{module="rests"}"#, 1.0),
        (
            r#"lair_module_start_seconds_bucket{module="runs",le="+Inf"}"#,
            1.0,
        ),
        (r#"lair_module_ready_seconds_count{module="runs"}"#, 1.0),
        (
            r#"lair_module_memory_limit_bytes{module="runs"}"#,
            67_108_864.0,
        ),
        ("lair_modules", 3.0),
        ("lair_root_responsive", 1.0),
        ("lair_log_backlog", 0.0),
        ("lair_bridge_strangers_total", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample}\n{text}");
    }
    for sample in [
        r#"lair_module_memory_bytes{module="runs"}"#,
        r#"lair_module_log_bytes_total{module="runs"}"#,
        "lair_root_answer_seconds",
        "process_resident_memory_bytes",
    ] {
        assert!(value(&text, sample).is_some(), "{sample}\n{text}");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the package prometheus");
    promtool
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("written");
    let said = promtool.wait_with_output().expect("promtool");
    let words = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
    // The bridge has the same, in the other format.
    let told = lair.connect().ok("runtime.metrics", json!({}));
    assert!(
        told["content_type"]
            .as_str()
            .is_some_and(|t| t.starts_with("application/openmetrics-text"))
    );
    let told = told["text"].as_str().expect("a text");
    assert!(told.ends_with("# EOF\n") && told.contains("# TYPE lair_module_exits counter\n"));
    assert_eq!(
        value(
            told,
            r#"lair_module_exits_total{module="fails",cause="failed"}"#
        ),
        Some(3.0)
    );
}

struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    /// With the example's configuration, for this port and faster.
    fn scraping(lair: &Lair, scraped: u16) -> Self {
        let example = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/grafana/prometheus.yml"
        );
        let text = std::fs::read_to_string(example).expect("the example");
        let text = text
            .replace("127.0.0.1:9464\"", &format!("127.0.0.1:{scraped}\""))
            .replace("scrape_interval: 15s", "scrape_interval: 250ms");
        let file = lair.dir.join("prometheus.yml");
        std::fs::write(&file, text).expect("written");
        let port = free_port();
        let log = std::fs::File::create(lair.dir.join("prometheus.log")).expect("log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                lair.dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the package prometheus");
        Prometheus { child, port }
    }

    /// The value of an instant query's only series, once there is one.
    fn ask(&self, query: &str) -> Option<f64> {
        TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let escaped: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        // An answer in pieces would have to be put together.
        let request = format!("GET /api/v1/query?query={escaped} HTTP/1.0\r\n\r\n");
        let text = answer(self.port, &request);
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        let result = body["data"]["result"].as_array()?;
        assert!(result.len() <= 1, "{query}: {body}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_scrapes_it() {
    let port = free_port();
    let lair = three(port);
    let prometheus = Prometheus::scraping(&lair, port);
    for (query, expected) in [
        (r#"up{job="lair"}"#, 1.0),
        (r#"lair_module_state{module="runs",state="running"}"#, 1.0),
        (r#"sum(lair_module_state{state="failed"})"#, 1.0),
        (
            r#"lair_module_exits_total{module="fails",cause="failed"}"#,
            3.0,
        ),
        (r#"lair_module_stop_seconds_count{module="rests"}"#, 1.0),
        (r#"count(lair_build_info)"#, 1.0),
    ] {
        until(query, Duration::from_secs(60), || {
            prometheus.ask(query) == Some(expected)
        });
    }
    // It asks for OpenMetrics, in which every family has its kind.
    lair.connect().ok("module.stop", json!({ "name": "runs" }));
    let query = r#"lair_module_exits_total{module="runs",cause="requested"}"#;
    until(query, Duration::from_secs(60), || {
        prometheus.ask(query) == Some(1.0)
    });
}

#[test]
fn the_dashboard_shows_nothing_that_lair_does_not_tell() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../examples/grafana/lair.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|p| p["targets"].as_array().expect("targets"));
    let mut names = BTreeSet::new();
    for target in targets {
        let words = target["expr"]
            .as_str()
            .expect("a query")
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = |w: &&str| w.starts_with("lair_") || w.starts_with("process_");
        names.extend(words.filter(ours).map(str::to_owned));
    }
    assert!(names.len() > 15, "{names:?}");
    let port = free_port();
    let _lair = three(port);
    let (_, text) = get(port, "/metrics", "");
    for name in names {
        let family = name.trim_end_matches("_bucket");
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "{name} is not told"
        );
    }
}

#[test]
fn a_hostile_scraper_costs_itself_only() {
    let port = free_port();
    let lair = folder(port);
    lair.module("runs", SLEEPER, "");
    let lair = lair.serve(&["--start"]);
    lair.until_state("runs", "running");
    let long = format!("X: {}\r\n", "x".repeat(9000));
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics HTTP/2\r\n\r\n", "505"),
        ("GET /metrics\r\n\r\n", "400"),
        ("GET /metrics HTTP/1.1\r\nno header\r\n\r\n", "400"),
        // A name that somebody else's DNS has pointed here.
        (
            "GET /metrics HTTP/1.1\r\nHost: evil.example:9464\r\n\r\n",
            "403",
        ),
        (&format!("GET /metrics HTTP/1.1\r\n{long}\r\n"), "431"),
        ("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
        ("GET /metrics HTTP/1.1\r\nHost: [::1]:9464\r\n\r\n", "200"),
    ] {
        let said = answer(port, request);
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {said}"
        );
    }
    let said = answer(port, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(said.ends_with("\r\n\r\n"), "a body: {said}");
    // More silent peers than it takes: they are cut off, and then the next one has its turn.
    let silent: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).expect("connect"))
        .collect();
    let before = lair.fds();
    assert!(before < 60, "{before} descriptors");
    assert_eq!(lair.status("runs")["state"], "running");
    drop(silent);
    until("a scrape", Duration::from_secs(40), || {
        get(port, "/metrics", "").0.contains(" 200 ")
    });
}

#[test]
fn a_port_that_is_taken_keeps_no_module_waiting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let lair = folder(port);
    lair.module("runs", SLEEPER, "");
    let lair = lair.serve(&["--start"]);
    lair.until_state("runs", "running");
    assert!(
        lair.log().contains("metrics can't be scraped"),
        "{}",
        lair.log()
    );
}

/// The entries in the order in which they came: fields by name.
fn entries(
    journal: &std::os::unix::net::UnixDatagram,
) -> Vec<std::collections::BTreeMap<String, String>> {
    let mut all = Vec::new();
    let mut space = vec![0; 1 << 17];
    while let Ok(n) = journal.recv(&mut space) {
        let mut fields = std::collections::BTreeMap::new();
        let mut rest = &space[..n];
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = &rest[end + 1..];
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => {
                    let length = u64::from_le_bytes(rest[..8].try_into().expect("a length"));
                    let length = usize::try_from(length).expect("a length");
                    let value = String::from_utf8_lossy(&rest[8..8 + length]).into_owned();
                    rest = &rest[8 + length + 1..];
                    (line, value)
                }
            };
            fields.insert(name, value);
        }
        assert!(rest.is_empty(), "a field without end");
        all.push(fields);
    }
    all
}

#[test]
fn under_systemd_its_own_log_is_entries_with_fields() {
    use std::os::unix::fs::MetadataExt;
    let lair = Lair::folder();
    lair.module("runs", SLEEPER, "");
    let folder = lair.dir.join("journal");
    std::fs::create_dir(&folder).expect("a folder");
    let journal = std::os::unix::net::UnixDatagram::bind(folder.join("socket")).expect("a journal");
    journal.set_nonblocking(true).expect("set");
    let log = std::fs::File::create(lair.dir.join("serve.log")).expect("log");
    let meta = log.metadata().expect("its number");
    // In a namespace of its own the journal's socket is ours, and nobody else's.
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && exec {} serve --start",
        folder.display(),
        face::LAIR
    );
    let mut child = Command::new("unshare")
        .args(["--mount", "/bin/sh", "-c", &script])
        .env("LAIR_CONFIG", lair.dir.join("config.yaml"))
        .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("unshare");
    let mut seen = Vec::new();
    until("an entry about the module", SOON, || {
        seen.extend(entries(&journal));
        seen.iter().any(|e| {
            e.get("LAIR_NAME").is_some_and(|n| n == "runs")
                && e.get("LAIR_RUN").is_some_and(|n| n == "1")
                && e["PRIORITY"] == "6"
                && e["SYSLOG_IDENTIFIER"] == "lair"
                && e["MESSAGE"].contains("module.running")
        })
    });
    // A word of several lines stays one entry.
    std::fs::write(
        lair.dir.join("config.yaml"),
        "runtime:\n  bad: 1\n  worse: 2\n",
    )
    .expect("config");
    let pid = child.id().to_string();
    Command::new("kill")
        .args(["-s", "HUP", &pid])
        .status()
        .expect("kill");
    until("an error of several lines", SOON, || {
        seen.extend(entries(&journal));
        seen.iter().any(|e| {
            e["PRIORITY"] == "3" && e["MESSAGE"].contains("bad") && e["MESSAGE"].contains("worse")
        })
    });
    Command::new("kill").arg(&pid).status().expect("kill");
    child.wait().expect("its end");
    assert_eq!(lair.log(), "", "it was written to stderr as well");
}
