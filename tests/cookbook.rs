//! The cookbook's manifests: each is chosen and planned on a machine that has what it needs, and those whose programs are here
//! are run.

mod face;
mod support;

use face::{Lair, until};
use lair::manifests::facts::Gpu;
use lair::manifests::{
    Dirs, GpuFacts, HostFacts, PlanContext, Policy, RuntimeConfig, parse_stack, plan,
    problem::render, read_manifest, select,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn cookbook() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cookbook")
}

fn recipes() -> Vec<PathBuf> {
    let files = fs::read_dir(cookbook())
        .expect("the cookbook")
        .flatten()
        .map(|f| f.path());
    let mut files: Vec<PathBuf> = files
        .filter(|f| f.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

/// Two GPUs, and every program.
fn rich() -> HostFacts {
    let gpu = |n: u32| Gpu {
        uuid: format!("GPU-{n}"),
        pci: format!("00000000:6{n}:00.0"),
        index: n,
        name: "some GPU".into(),
        memory_total: 24 << 30,
        memory_free: None,
    };
    HostFacts {
        gpus: GpuFacts::Present(vec![gpu(0), gpu(1)]),
        ..HostFacts::default()
    }
}

#[test]
fn every_recipe_is_complete_chosen_and_planned_where_its_programs_are() {
    let page = fs::read_to_string(cookbook().join("../../docs/cookbook.md")).expect("the page");
    let env: BTreeMap<String, String> = ["MODEL", "COMFYUI_HOME"]
        .map(|n| (n.to_owned(), format!("/srv/{n}")))
        .into();
    for path in recipes() {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            page.contains(&name),
            "docs/cookbook.md does not tell of {name}"
        );
        let source = read_manifest(&path).expect("a file");
        let stack = parse_stack(&source).unwrap_or_else(|p| panic!("{}", render(&p)));
        for module in &stack.modules {
            let host = rich();
            let chosen = select(
                module,
                &host,
                &Policy::default(),
                &RuntimeConfig::default(),
                None,
                false,
                &Ok(()),
            );
            let chosen = chosen.unwrap_or_else(|refusal| panic!("{refusal}"));
            let context = PlanContext {
                env: env.clone(),
                gpus: host.gpus,
                ..PlanContext::new(Dirs::of(&env, 0))
            };
            let plan = plan(module, &chosen, &context).unwrap_or_else(|p| panic!("{}", render(&p)));
            let text = serde_json::to_string(&plan).expect("JSON");
            assert!(!text.contains("${"), "{}: {text}", module.name);
            assert!(
                plan.spec.awaits_ready,
                "{} says when it is ready",
                module.name
            );
            assert!(plan.limits.memory.is_some(), "{} has a limit", module.name);
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A recipe in a lair's own folder, with these words exchanged; each has to be there.
fn recipe(lair: &Lair, name: &str, words: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(cookbook().join(name)).expect("a recipe");
    for (word, other) in words {
        assert!(text.contains(word), "{name} has no {word:?}");
        text = text.replace(word, other);
    }
    let path = lair.dir.join(name);
    fs::write(&path, text).expect("a recipe");
    path
}

fn secret(lair: &Lair, name: &str, value: &str) {
    let path = lair.dir.join(name);
    fs::write(&path, format!("{value}\n")).expect("a secret");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
}

/// `lair up FILE`, ended with the test.
struct Up(Option<Child>);

impl Up {
    fn start(lair: &Lair, file: &Path, env: &[(&str, &str)]) -> Up {
        let log = fs::File::create(lair.dir.join("serve.log")).expect("a log");
        let mut command = lair.command(&["up", file.to_str().expect("a path")]);
        command
            .envs(env.iter().copied())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        Up(Some(command.spawn().expect("up")))
    }

    fn end(mut self) -> Option<i32> {
        let mut child = self.0.take().expect("it runs");
        support::signal(i32::try_from(child.id()).expect("a pid"), libc::SIGTERM);
        child.wait().expect("its end").code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            support::signal(i32::try_from(child.id()).expect("a pid"), libc::SIGTERM);
            let _ = child.wait();
        }
    }
}

fn ready(lair: &Lair, name: &str) -> Value {
    let mut last = Value::Null;
    until(&format!("{name} is ready"), SOON, || {
        let (_, text) = lair.ask(&["status", name, "-o", "json"]);
        last = serde_json::from_str(&text).unwrap_or_default();
        assert_ne!(last["state"], "failed", "{last}");
        last["ready"] == true
    });
    last
}

fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn the_recipe_for_llama_runs_a_real_server_that_asks_for_its_key() {
    let given = |name: &str| {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: eval \"$(tests/checks/machine)\" first"))
    };
    let (server, model) = (given("LAIR_LLAMA_SERVER"), given("LAIR_LLAMA_MODEL"));
    let lair = Lair::folder();
    let port = free_port();
    let file = recipe(
        &lair,
        "llama.cpp.yaml",
        &[
            ("[llama-server,", &format!("[{server},")),
            ("api: 8080", &format!("api: {port}")),
        ],
    );
    secret(&lair, "llama-key", "open-sesame");
    let up = Up::start(&lair, &file, &[("MODEL", &model)]);
    let status = ready(&lair, "llama.cpp");
    assert_eq!(status["resources"]["memory"]["limit"], 4_u64 << 30);
    let body = r#"{"prompt": "The capital of France is", "n_predict": 4}"#;
    let question = |key: &str| {
        ask(
            port,
            &format!(
                "POST /completion HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    assert!(
        question("guess").starts_with("HTTP/1.1 401"),
        "the secret is its key"
    );
    let answer = question("open-sesame");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"content\""),
        "{answer}"
    );
    assert!(ask(port, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer open-sesame\r\n\r\n").contains("llamacpp:"));
    assert_eq!(up.end(), Some(0));
}

/// What the recipe expects of Open WebUI: makes a table in its database as it starts, and fails for good where it can't.
const WEBUI: &str = r#"#!/usr/bin/python3
import http.server, os, subprocess, sys
assert sys.argv[1:4] == ["serve", "--host", "127.0.0.1"] and sys.argv[4] == "--port", sys.argv
assert os.path.isdir(os.environ["DATA_DIR"]) and os.environ["WEBUI_SECRET_KEY"] == "webui-words"
sql = "create table if not exists boots (n serial); insert into boots default values"
subprocess.run(["psql", "-q", os.environ["DATABASE_URL"], "-c", sql], check=True)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[5])), Answers).serve_forever()
"#;

/// A real PostgreSQL; Open WebUI itself is 6 GB, and a stand-in that needs of its surroundings what it needs.
#[test]
fn the_recipe_for_open_webui_brings_its_database_up_first_and_restarts_with_it() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: PostgreSQL has a user of its own"
    );
    let lair = Lair::folder();
    let (sql, web) = (free_port(), free_port());
    let home = lair.dir.join("postgres");
    fs::create_dir(&home).expect("its home");
    let passwd = fs::read_to_string("/etc/passwd").expect("users");
    let fields = passwd
        .lines()
        .find(|l| l.starts_with("postgres:"))
        .expect("Debian's postgresql");
    let ids: Vec<u32> = fields.split(':').filter_map(|f| f.parse().ok()).collect();
    chown(&home, Some(ids[0]), Some(ids[1])).expect("given");
    fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).expect("its mode");
    let program = lair.dir.join("open-webui");
    fs::write(&program, WEBUI).expect("a program");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
    let file = recipe(
        &lair,
        "open-webui.yaml",
        &[
            (
                "/var/lib/postgresql/lair }",
                &format!("{} }}", home.display()),
            ),
            (
                "exec open-webui serve",
                &format!("exec {} serve", program.display()),
            ),
            ("sql: 5432", &format!("sql: {sql}")),
            ("web: 3000", &format!("web: {web}")),
        ],
    );
    secret(&lair, "database-password", "sesame");
    secret(
        &lair,
        "database-url",
        &format!("postgresql://webui:sesame@127.0.0.1:{sql}/webui"),
    );
    secret(&lair, "webui-key", "webui-words");
    let up = Up::start(&lair, &file, &[]);
    ready(&lair, "webui-database");
    let page = ready(&lair, "open-webui");
    assert_eq!(
        (page["run"].as_u64(), page["restarts"]["count"].as_u64()),
        (Some(1), Some(0))
    );
    assert!(ask(web, "GET /health HTTP/1.0\r\n\r\n").contains("200"));
    let database = ready(&lair, "webui-database");
    support::signal(
        i32::try_from(database["pid"].as_i64().expect("a pid")).expect("a pid"),
        libc::SIGKILL,
    );
    until("both are there again", SOON, || {
        let again = |name: &str| {
            let (_, text) = lair.ask(&["status", name, "-o", "json"]);
            let status: Value = serde_json::from_str(&text).unwrap_or_default();
            status["ready"] == true && status["restarts"]["count"] == 1
        };
        again("webui-database") && again("open-webui")
    });
    let url = fs::read_to_string(lair.dir.join("database-url")).expect("its address");
    let out = std::process::Command::new("psql")
        .args(["-qAt", url.trim(), "-c", "select count(*) from boots"])
        .stdin(Stdio::null())
        .output()
        .expect("psql");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "2", "{out:?}");
    assert_eq!(up.end(), Some(0));
}
