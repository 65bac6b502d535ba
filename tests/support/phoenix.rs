//! A daemon on one engine that can be killed, handed over and started again, and a module in a container that counts.
#![allow(dead_code, reason = "each test file uses a part")]

use crate::face::{Lair, SOON, until};
use crate::support::engines::{Kind, image};
use crate::support::read_stream;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// How lair speaks to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Socket,
    Command,
}

/// A daemon on one engine that can be killed and started again.
pub struct Phoenix {
    pub lair: Lair,
    pub kind: Kind,
    by: By,
}

impl Phoenix {
    pub fn new((kind, by): (Kind, By), config: &str) -> Self {
        let lair = Lair::folder();
        let file = lair.dir.join("config.yaml");
        let text = fs::read_to_string(&file).expect("config");
        fs::write(&file, text + config).expect("config");
        let mut phoenix = Phoenix { lair, kind, by };
        phoenix.rise();
        phoenix
    }

    pub fn rise(&mut self) {
        self.lair.daemon = Some(self.spawn(&["serve"]));
        until("the socket", SOON * 3, || {
            UnixStream::connect(self.lair.socket()).is_ok()
        });
    }

    /// A lair with these words that knows this engine only.
    pub fn spawn(&self, words: &[&str]) -> Child {
        let nowhere = format!("unix://{}/nowhere", self.lair.dir.display());
        let here = format!("unix://{}", self.kind.socket().display());
        let (podman, docker) = match (self.by, self.kind) {
            (By::Command, _) => (&nowhere, &nowhere),
            (By::Socket, Kind::Podman) => (&here, &nowhere),
            (By::Socket, Kind::Docker) => (&nowhere, &here),
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.lair.dir.join("serve.log"))
            .expect("log");
        let path = std::env::var("PATH").expect("a path");
        let mut command = self.lair.command(words);
        command
            .env("CONTAINER_HOST", podman)
            .env("DOCKER_HOST", docker)
            .env("PATH", format!("{}:{path}", self.commands().display()))
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().expect("serve")
    }

    /// A folder with this engine's command, and none of the other's.
    fn commands(&self) -> PathBuf {
        let dir = self.lair.dir.join("bin");
        fs::create_dir_all(&dir).expect("a folder");
        for kind in [Kind::Podman, Kind::Docker] {
            let text = match kind == self.kind {
                true => format!("#!/bin/sh\nexec {} \"$@\"\n", kind.program().display()),
                false => "#!/bin/sh\nexit 1\n".to_owned(),
            };
            let (file, fresh) = (dir.join(kind.name()), dir.join("fresh"));
            fs::write(&fresh, text).expect("a program");
            fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).expect("a mode");
            fs::rename(fresh, file).expect("in place");
        }
        dir
    }

    pub fn kill(&mut self) {
        self.lair.kill();
    }

    pub fn up(&self, name: &str, script: &str, more: &str) -> Value {
        let image = image("base");
        let command = json!(["/bin/sh", "-c", script]);
        let text = format!(
            "name: {name}\nruntime:\n  container: {{ image: '{image}', command: {command} }}\n  stop: {{ grace: 5s }}\n{more}"
        );
        let path = self.lair.dir.join("modules").join(format!("{name}.yaml"));
        fs::write(&path, text).expect("a manifest");
        let mut conn = self.lair.connect();
        conn.ok(
            "module.load",
            json!({ "path": path.to_str().expect("a path") }),
        );
        conn.ok("module.start", json!({ "name": name }));
        self.until(name, "it runs", |s| {
            s["state"] == "running" && s["pid"].is_number()
        })
    }

    pub fn until(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut conn = self.lair.connect();
        let mut seen = Value::Null;
        until(&format!("{name}: {what}"), SOON * 3, || {
            seen = conn.ok("module.status", json!({ "name": name }));
            so(&seen)
        });
        seen
    }

    pub fn output(&self, name: &str, stream: &str) -> String {
        let bytes = read_stream(&self.lair.dir.join("logs").join(name), stream);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn lines(&self, name: &str, count: usize) {
        let what = format!("{count} lines of {name}");
        until(&what, SOON * 3, || {
            self.output(name, "stdout").lines().count() > count
        });
    }

    /// The words of the daemon's own log, of all its lives.
    pub fn said(&self, what: &str) -> bool {
        self.lair.log().contains(what)
    }

    /// Containers of this lair, running or not.
    pub fn ours(&self) -> String {
        let file = self.lair.dir.join("state/instance");
        let name = fs::read_to_string(file).expect("this lair's name");
        let label = format!("label=lair.instance={}", name.trim());
        self.kind.cli(&["ps", "-aq", "--filter", &label])
    }

    pub fn end(mut self) {
        assert_eq!(self.lair.term(), Some(0), "{}", self.lair.log());
        assert_eq!(self.ours(), "", "I1: left over");
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in self.ours().lines() {
                self.kind.cli(&["rm", "-f", id]);
            }
        }
    }
}

pub fn pid(status: &Value) -> i32 {
    i32::try_from(status["pid"].as_i64().expect("a pid")).expect("a pid")
}

/// Counts up in whole lines, on both streams, in pieces of every kind.
pub const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo out $i; echo err $i >&2; printf 'half %s' $i; [ $((i % 7)) = 0 ] && sleep 0.01; echo ' whole'; done";

/// Every line is there once and in order, but for the end of the last; `words` are the forms of the nth lines.
fn counted(text: &str, words: &[&str]) {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let number = (at / words.len() + 1).to_string();
        let wanted = words[at % words.len()].replace('#', &number);
        let cut_off = at + 1 == lines.len() && wanted.starts_with(line);
        assert!(
            *line == wanted || cut_off,
            "line {at} is {line:?}, not {wanted:?}"
        );
    }
}

/// Stops the counter, and looks whether each of its lines is in the files once.
pub fn stops_with_every_line_once(lair: &Phoenix) {
    let mut conn = lair.lair.connect();
    conn.ok("module.stop", json!({ "name": "counter" }));
    lair.until("counter", "it is down", |s| s["state"] == "stopped");
    let out = lair.output("counter", "stdout");
    counted(&out, &["out #", "half # whole"]);
    counted(&lair.output("counter", "stderr"), &["err #"]);
}
