//! A lair of its own for each test: the real program, real modules, a real socket.
#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const LAIR: &str = env!("CARGO_BIN_EXE_lair");

/// Waits until `look` says so; level-triggered.
pub fn until(what: &str, within: Duration, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !look() {
        assert!(Instant::now() < end, "not before {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub const SOON: Duration = Duration::from_secs(20);

/// A folder, and perhaps a daemon in it.
pub struct Lair {
    pub dir: PathBuf,
    pub daemon: Option<Child>,
}

/// Folders are kept for whoever looks at a failure, or were left by a test that was killed: a day later nobody looks.
fn forget_old_ones(dir: &Path) {
    let day = Duration::from_secs(86_400);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mut words = name.to_str().unwrap_or_default().splitn(4, '-');
        let (Some("lair"), Some("face"), Some(pid)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let written = entry.metadata().and_then(|m| m.modified());
        let old = written.is_ok_and(|t| t.elapsed().is_ok_and(|age| age > day));
        if old && !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Lair {
    /// A folder with a configuration and no daemon.
    pub fn folder() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| forget_old_ones(&std::env::temp_dir()));
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lair-face-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("modules")).expect("folder");
        fs::create_dir_all(dir.join("run")).expect("folder");
        let text = format!(
            "runtime:\n  default_mode: native\n  state_dir: {0}/state\n  log_dir: {0}/logs\n  run_dir: {0}/run\n",
            dir.display()
        );
        fs::write(dir.join("config.yaml"), text).expect("config");
        Lair { dir, daemon: None }
    }

    pub fn module(&self, name: &str, script: &str, more: &str) -> PathBuf {
        let path = self.dir.join("modules").join(format!("{name}.yaml"));
        fs::write(&path, manifest(name, script, more)).expect("manifest");
        path
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/lair.sock")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LAIR);
        command
            .args(args)
            .env_remove("LAIR_SOCKET")
            .env("LAIR_CONFIG", self.dir.join("config.yaml"))
            .stdin(Stdio::null());
        command
    }

    pub fn lair(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("lair")
    }

    /// Exit code and stdout.
    pub fn ask(&self, args: &[&str]) -> (i32, String) {
        let out = self.lair(args);
        (
            out.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&out.stdout).into_owned(),
        )
    }

    pub fn serve(mut self, args: &[&str]) -> Self {
        let log = fs::File::create(self.dir.join("serve.log")).expect("log");
        let mut command = self.command(&["serve"]);
        let child = command
            .args(args)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("serve");
        self.daemon = Some(child);
        until("the socket", SOON, || {
            UnixStream::connect(self.socket()).is_ok()
        });
        self
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("daemon").id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("serve.log")).unwrap_or_default()
    }

    pub fn connect(&self) -> Conn {
        Conn::new(UnixStream::connect(self.socket()).expect("connect"))
    }

    pub fn status(&self, name: &str) -> Value {
        self.connect().ok("module.status", json!({ "name": name }))
    }

    pub fn until_state(&self, name: &str, state: &str) {
        let mut conn = self.connect();
        until(&format!("{name} is {state}"), SOON, || {
            conn.ok("module.status", json!({ "name": name }))["state"] == state
        });
    }

    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("fds")
            .count()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .expect("kill")
                .success()
        );
    }

    /// CPU time of the daemon in clock ticks (1/100 s).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("stat");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("fields")
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    /// Resident memory of the daemon, KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = status
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .expect("rss");
        line.split_whitespace()
            .nth(1)
            .expect("rss")
            .parse()
            .expect("rss")
    }

    /// KILL, and the daemon's end.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon");
        daemon.kill().expect("killed");
        daemon.wait().expect("gone");
    }

    /// TERM, and the daemon's exit code.
    pub fn term(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.daemon
            .take()
            .expect("daemon")
            .wait()
            .expect("wait")
            .code()
    }
}

impl Drop for Lair {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let pid = child.id().to_string();
            let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
            let end = Instant::now() + Duration::from_secs(15);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("kept: {}\n{}", self.dir.display(), self.log());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

pub fn manifest(name: &str, script: &str, more: &str) -> String {
    format!(
        "name: {name}\ncategory: service\nversion: 0.1.0\ndescription: a test\nruntime:\n  modes: [native]\n  \
         native: {{ command: [/bin/sh, -c, {script:?}] }}\n  stop: {{ grace: 2s }}\n{more}"
    )
}

pub const SLEEPER: &str = "echo hello; exec sleep 1000";

/// A connection that speaks lines.
pub struct Conn {
    pub stream: UnixStream,
    reader: BufReader<UnixStream>,
    next: u64,
}

impl Conn {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        let reader = BufReader::new(stream.try_clone().expect("clone"));
        Conn {
            stream,
            reader,
            next: 1,
        }
    }

    pub fn send(&mut self, line: &[u8]) {
        self.stream.write_all(line).expect("send");
        self.stream.write_all(b"\n").expect("send");
    }

    /// The next line, or none at the end.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("no line: {e}"),
        }
    }

    pub fn raw(&mut self, line: &[u8]) -> Value {
        self.send(line);
        self.line().expect("a reply")
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(request.to_string().as_bytes());
        loop {
            let reply = self.line().expect("a reply");
            if reply["id"] == id {
                return reply;
            }
            assert!(reply.get("method").is_some(), "a stray reply: {reply}");
        }
    }

    pub fn ok(&mut self, method: &str, params: Value) -> Value {
        let reply = self.call(method, params);
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["result"].clone()
    }

    /// As `ok`, where the peer may go at any time.
    pub fn try_ok(&mut self, method: &str, params: Value) -> Option<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
        writeln!(self.stream, "{request}").ok()?;
        let mut line = String::new();
        self.reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let reply: Value = serde_json::from_str(&line).ok()?;
        reply.get("result").cloned()
    }

    /// The stable code of the refusal.
    pub fn refused(&mut self, method: &str, params: Value) -> String {
        code(&self.call(method, params))
    }

    /// Everything up to the end.
    pub fn rest(&mut self) -> String {
        let mut text = String::new();
        let _ = self.reader.read_to_string(&mut text);
        text
    }
}

pub fn code(reply: &Value) -> String {
    reply["error"]["data"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {reply}"))
        .to_owned()
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
