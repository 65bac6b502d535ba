//! A runtime that knows one engine, and modules in its containers in three words.

use super::engines::{Kind, image};
use super::{Lair, SOON, asker};
use lair::Folders;
use lair::actors::backend::container::container_name;
use lair::actors::backend::container::find::EnginePlaces;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn places(kind: Kind, socket: PathBuf) -> EnginePlaces {
    let mut places = EnginePlaces::default();
    match kind {
        Kind::Podman => places.podman.push(socket),
        Kind::Docker => places.docker.push(socket),
    }
    places
}

/// A runtime that knows this socket only.
pub async fn lair_at(story: &str, kind: Kind, socket: PathBuf) -> Lair {
    let story = format!("{story}-{}", kind.name());
    Lair::start_with(&story, |o| o.engines = Some(places(kind, socket))).await
}

pub async fn lair_on(story: &str, kind: Kind) -> Lair {
    lair_at(story, kind, kind.socket()).await
}

/// `sh -c SCRIPT` in the tiny image, with `more` below `runtime:`.
pub fn sh(name: &str, script: &str, more: &str) -> String {
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let image = image("base");
    format!(
        "name: {name}\nruntime:\n  container: {{ image: '{image}', command: {command} }}\n  stop: {{ grace: 400ms }}\n{more}\n"
    )
}

pub async fn start(lair: &Lair, name: &str, manifest: &str) {
    lair.load(manifest).await.unwrap_or_else(|e| panic!("{e}"));
    lair.handle.start(name, asker()).await.expect("a start");
}

/// Starts it and waits for its first word; its first process.
pub async fn up(lair: &Lair, name: &str, manifest: &str) -> i32 {
    start(lair, name, manifest).await;
    let so = |s: &lair::actors::status::ModuleStatus| s.state == "running" && s.logs.bytes > 0;
    let up = lair.until(name, "up", so).await;
    up.pid.expect("its first process")
}

pub fn instance(lair: &Lair) -> String {
    let file = Folders::below(lair.home.path()).state.join("instance");
    let name = std::fs::read_to_string(file).expect("this lair's name");
    name.trim().to_owned()
}

/// What the engine calls the module's container.
pub fn container(lair: &Lair, module: &str) -> String {
    container_name(&instance(lair), module)
}

/// Ends it and looks that no container stayed, by this command's word.
pub async fn end(lair: Lair, ask: impl Fn(&[&str]) -> String) {
    let label = format!("label=lair.instance={}", instance(&lair));
    lair.end().await;
    assert_eq!(ask(&["ps", "-aq", "--filter", &label]), "", "I1: left over");
}

/// An engine of one story alone, that may be killed and frozen. Podman's uses the storage that all tests share; Docker's has
/// its own, with `live-restore`, and one image.
pub struct OwnEngine {
    kind: Kind,
    home: PathBuf,
    /// Docker's containerd, which lives on when dockerd dies, as where the system starts both.
    beneath: Option<Child>,
    process: Child,
}

impl OwnEngine {
    pub fn start(kind: Kind, home: &Path) -> OwnEngine {
        Self::start_with(kind, home, |_| {})
    }

    /// What starts it can be changed before.
    pub fn start_with(kind: Kind, home: &Path, change: impl Fn(&mut Command)) -> OwnEngine {
        let mut beneath = (kind == Kind::Docker).then(|| containerd(home));
        let mut own = OwnEngine {
            kind,
            home: home.to_owned(),
            beneath: beneath.take(),
            process: spawn(kind, home, change),
        };
        own.until_it_answers();
        if kind == Kind::Docker {
            own.bring_image();
        }
        own
    }

    /// As if the machine had run out of memory.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// After [`OwnEngine::kill`]: one that goes on with what the last one left.
    pub fn start_again(&mut self) {
        self.process = spawn(self.kind, &self.home, |_| {});
        self.until_it_answers();
    }

    fn until_it_answers(&mut self) {
        let begun = Instant::now();
        while !self.answers() {
            let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
            let over = begun.elapsed() > SOON * 2 || !matches!(self.process.try_wait(), Ok(None));
            assert!(!over, "it does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.home.join("engine.sock")
    }

    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Its command's answer.
    pub fn ask(&self, args: &[&str]) -> String {
        if self.kind == Kind::Podman {
            return self.kind.cli(args);
        }
        let done = self.command(args).output().expect("its command");
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "docker {args:?}: {err}");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .args(args);
        command
    }

    fn answers(&self) -> bool {
        match self.kind {
            Kind::Podman => std::os::unix::net::UnixStream::connect(self.socket()).is_ok(),
            Kind::Docker => {
                let asked = self.command(&["version"]).output();
                asked.is_ok_and(|done| done.status.success())
            }
        }
    }

    fn bring_image(&self) {
        let mut from = Command::new(Kind::Docker.program())
            .args(["save", &image("base")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker save");
        let out = from.stdout.take().expect("an image");
        let loaded = self
            .command(&["load", "-q"])
            .stdin(out)
            .output()
            .expect("docker load");
        assert!(from.wait().is_ok_and(|s| s.success()) && loaded.status.success());
    }
}

fn spawn(kind: Kind, home: &Path, change: impl Fn(&mut Command)) -> Child {
    let socket = home.join("engine.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = match kind {
        Kind::Podman => {
            let mut command = Command::new(kind.program());
            command.args(["system", "service", "--time=0"]);
            command.arg(format!("unix://{}", socket.display()));
            command
        }
        Kind::Docker => dockerd(home, &socket),
    };
    change(&mut command);
    in_background(command, &home.join("log"))
}

fn in_background(mut command: Command, log: &Path) -> Child {
    let log = std::fs::File::create(log).expect("a log");
    let command = command.current_dir("/").stdin(Stdio::null());
    let spawned = command.stdout(Stdio::null()).stderr(log).spawn();
    spawned.expect("an engine")
}

fn containerd(home: &Path) -> Child {
    let socket = home.join("containerd.sock");
    let text = format!(
        "version = 2\nroot = '{0}/containerd'\nstate = '{0}/containerd-run'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
         [grpc]\naddress = '{1}'\n[ttrpc]\naddress = '{1}.ttrpc'\n",
        home.display(),
        socket.display()
    );
    let config = home.join("containerd.toml");
    std::fs::write(&config, text).expect("a file");
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config);
    let mut child = in_background(command, &home.join("containerd.log"));
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        let over = begun.elapsed() > SOON || !matches!(child.try_wait(), Ok(None));
        assert!(!over, "containerd does not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// No network, so that nothing of the machine's is touched.
fn dockerd(home: &Path, socket: &Path) -> Command {
    let config = home.join("dockerd.json");
    std::fs::write(&config, "{}").expect("a file");
    let _ = std::fs::remove_file(home.join("pid"));
    let mut command = Command::new("dockerd");
    let place = |name: &str| home.join(name).display().to_string();
    command
        .arg(format!("--host=unix://{}", socket.display()))
        .arg(format!("--config-file={}", config.display()))
        .arg(format!("--data-root={}", place("data")))
        .arg(format!("--exec-root={}", place("run")))
        .arg(format!("--pidfile={}", place("pid")))
        .arg(format!("--containerd={}", place("containerd.sock")))
        .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
        .args(["--live-restore", "--log-level=error"]);
    command
}

/// Asked to end, and waited for: it has mounts to give back.
fn end_process(process: &mut Child) {
    if matches!(process.try_wait(), Ok(None)) {
        let pid = process.id() as i32;
        super::signal(pid, libc::SIGCONT);
        super::signal(pid, libc::SIGTERM);
    }
    let begun = Instant::now();
    while begun.elapsed() < SOON && matches!(process.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = process.kill();
    let _ = process.wait();
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        end_process(&mut self.process);
        if let Some(beneath) = &mut self.beneath {
            end_process(beneath);
        }
    }
}
