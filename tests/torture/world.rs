//! The lair under torture, its two engines, its modules, and the ways to kill each of them.

use super::clients::Shared;
use super::dice::Dice;
use super::face::{LAIR, Lair};
use super::support::contained::OwnEngine;
use super::support::engines::{Kind, image};
use super::support::{Home, is_alive, processes_with, signal};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const NATIVES: usize = 50;
pub const CONTAINERS: usize = 10;

/// Longer than anything takes on a machine that others load as well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds since 1970, as the modules note them.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_millis() as u64
}

/// A module's name, state, run and process.
pub type Listed = (String, String, u64, Option<i64>);

/// When what was killed, in `now_ms`.
#[derive(Default)]
pub struct Kills {
    /// Ends of lair, with the time at which the next one answered.
    pub lair: Vec<(u64, u64)>,
    /// Of these: while it was coming up.
    pub rising: u64,
    /// Handed over to the next program by USR2.
    pub handed: u64,
    pub keeper: Vec<u64>,
    pub podman: Vec<u64>,
    pub docker: Vec<u64>,
    /// Modules that the next lair had with the same process and run.
    pub adopted: u64,
}

pub struct World {
    pub lair: Lair,
    pub podman: OwnEngine,
    pub docker: OwnEngine,
    pub kills: Kills,
    pub shared: Arc<Shared>,
    _homes: [Home; 2],
}

impl World {
    pub fn new() -> World {
        let homes = [Home::new("torture-p"), Home::new("torture-d")];
        let podman = OwnEngine::start(Kind::Podman, homes[0].path());
        let docker = OwnEngine::start(Kind::Docker, homes[1].path());
        let lair = Lair::folder();
        fs::create_dir(lair.dir.join("proof")).expect("a folder");
        let config = lair.dir.join("config.yaml");
        let text = fs::read_to_string(&config).expect("config") + "  if_runtime_dies: keep\n";
        fs::write(config, text).expect("config");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/talker.c");
        let built = Command::new("cc")
            .args(["-O1", "-static", "-Wall", "-o"])
            .args([lair.dir.join("talker"), PathBuf::from(source)])
            .status();
        assert!(built.expect("a C compiler").success());
        // Of its own, so that a build meanwhile changes nothing.
        fs::copy(LAIR, lair.dir.join("lair")).expect("a copy of lair");
        let names = (0..NATIVES).map(native_name);
        let names = names.chain((0..CONTAINERS).map(container_name)).collect();
        let shared = Shared::new(lair.dir.clone(), names);
        let mut world = World {
            lair,
            podman,
            docker,
            kills: Kills::default(),
            shared,
            _homes: homes,
        };
        for i in 0..NATIVES {
            world.write(&native_name(i), &world.native(i));
        }
        for i in 0..CONTAINERS {
            world.write(&container_name(i), &world.container(i));
        }
        world.spawn();
        world.until_up();
        world
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.lair.dir.join("modules").join(format!("{name}.yaml"));
        fs::write(path, text).expect("a manifest");
    }

    /// What every process of ours has in its environment.
    pub fn mark(&self) -> String {
        format!("TORTURE={}", self.lair.dir.display())
    }

    fn native(&self, i: usize) -> String {
        let dir = self.lair.dir.display();
        let name = native_name(i);
        // Two thirds end by themselves now and then.
        let span = if i.is_multiple_of(3) {
            0
        } else {
            8_000 + 1_000 * i
        };
        let more = match i % 10 {
            3 => ", deaf",
            4 => ", child",
            7 => ", deaf, child",
            _ => "",
        };
        let size = ["8KiB", "32KiB", "128KiB"][i % 3];
        let compress = i.is_multiple_of(2);
        let format = if i % 10 == 9 { "raw" } else { "cri" };
        let policy = ["always", "on-failure", "never"][(i / 2) % 3];
        format!(
            "name: {name}\nruntime:\n  native: {{ command: ['{dir}/talker', {name}, '{dir}/proof', '100', '{span}'{more}], env: {{ TORTURE: '{dir}' }} }}\n  \
             restart: {{ policy: {policy}, max: 10000, backoff: {{ first: 100ms, cap: 2s }} }}\n  stop: {{ grace: 700ms }}\n  \
             logs: {{ max_size: {size}, max_files: 10000, compress: {compress}, format: {format} }}\n"
        )
    }

    fn container(&self, i: usize) -> String {
        let dir = self.lair.dir.display();
        let (name, image) = (container_name(i), image("base"));
        let engine = if i < CONTAINERS / 2 {
            "podman"
        } else {
            "docker"
        };
        let span = if i.is_multiple_of(2) { 0 } else { 40_000 };
        format!(
            "name: {name}\nruntime:\n  modes: [container]\n  container:\n    image: '{image}'\n    engine: {engine}\n    \
             command: [/talker, {name}, /proof, '200', '{span}']\n    env: {{ TORTURE: '{dir}' }}\n    volumes:\n    \
             - {{ source: '{dir}/talker', target: /talker, read_only: true }}\n    - {{ source: '{dir}/proof', target: /proof }}\n  \
             restart: {{ policy: always, max: 10000, backoff: {{ first: 1s, cap: 5s }} }}\n  stop: {{ grace: 2s }}\n  \
             logs: {{ max_size: 32KiB, max_files: 10000 }}\n"
        )
    }

    fn spawn(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.lair.dir.join("serve.log"))
            .expect("a log");
        let mut command = Command::new(self.lair.dir.join("lair"));
        let socket = |engine: &OwnEngine| format!("unix://{}", engine.socket().display());
        let child = command
            .arg("serve")
            .env_remove("LAIR_SOCKET")
            .env("LAIR_CONFIG", self.lair.dir.join("config.yaml"))
            .stdin(Stdio::null())
            .env("CONTAINER_HOST", socket(&self.podman))
            .env("DOCKER_HOST", socket(&self.docker))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.lair.daemon = Some(child.expect("lair serve"));
    }

    fn until_up(&mut self) {
        let begun = Instant::now();
        while UnixStream::connect(self.lair.socket()).is_err() {
            let daemon = self.lair.daemon.as_mut().expect("a daemon");
            let ended = daemon.try_wait().expect("its state");
            assert!(ended.is_none(), "lair ended by itself: {ended:?}");
            assert!(begun.elapsed() < PATIENCE, "lair does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        // It answers when all is loaded and taken over.
        self.listed();
    }

    /// The list, from whichever lair answers: one that hands over cuts its connections.
    pub fn listed(&self) -> Vec<Listed> {
        let begun = Instant::now();
        loop {
            if let Some(list) = self.list() {
                return list;
            }
            assert!(begun.elapsed() < PATIENCE, "lair answers nobody");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Each module's state, run and process.
    fn list(&self) -> Option<Vec<Listed>> {
        let reply = self.shared.connect()?.ask("module.list", Value::Null)?;
        let modules = reply["result"]["modules"].as_array()?;
        let word = |m: &Value, key: &str| m[key].as_str().unwrap_or_default().to_owned();
        let one = |m: &Value| {
            let run = m["run"].as_u64().unwrap_or_default();
            (word(m, "name"), word(m, "state"), run, m["pid"].as_i64())
        };
        Some(modules.iter().map(one).collect())
    }

    fn keeper(&self) -> Option<i32> {
        let reply = self.shared.connect()?.ask("runtime.info", Value::Null)?;
        i32::try_from(reply["result"]["keeper_pid"].as_i64()?).ok()
    }

    /// One end of lair and its return, with what else dies meanwhile.
    pub fn kill_lair(&mut self, dice: &mut Dice) {
        let before = self.list().unwrap_or_default();
        let keeper = dice.once_in(40).then(|| self.keeper()).flatten();
        if dice.once_in(2) {
            // In the middle of something.
            self.shared.fire(dice);
            dice.sleep(Duration::from_millis(60));
        }
        let at = now_ms();
        if keeper.is_none() && dice.once_in(8) {
            self.lair.signal("USR2");
            self.kills.handed += 1;
            dice.sleep(Duration::from_millis(400));
            self.until_up();
        } else {
            self.end_lair();
            if let Some(keeper) = keeper {
                self.kills.keeper.push(now_ms());
                signal(keeper, 9);
            }
            if dice.once_in(10) {
                self.kill_engine(dice);
            }
            dice.sleep(Duration::from_millis(1500));
            self.spawn();
            while dice.once_in(6) {
                dice.sleep(Duration::from_millis(1200));
                self.end_lair();
                self.kills.rising += 1;
                self.spawn();
            }
            self.until_up();
        }
        self.kills.lair.push((at, now_ms()));
        let after = self.listed();
        let same = before.iter().filter(|b| b.3.is_some() && after.contains(b));
        self.kills.adopted += same.count() as u64;
    }

    fn end_lair(&mut self) {
        self.lair.kill();
    }

    /// The keeper dies under a living lair.
    pub fn kill_keeper(&mut self) {
        if let Some(keeper) = self.keeper().filter(|pid| is_alive(*pid)) {
            self.kills.keeper.push(now_ms());
            signal(keeper, 9);
        }
    }

    pub fn kill_engine(&mut self, dice: &mut Dice) {
        let (engine, kills) = if dice.once_in(2) {
            (&mut self.podman, &mut self.kills.podman)
        } else {
            (&mut self.docker, &mut self.kills.docker)
        };
        kills.push(now_ms());
        engine.kill();
        dice.sleep(Duration::from_secs(2));
        engine.start_again();
    }

    /// Containers of this lair on either engine.
    pub fn containers(&self) -> Vec<String> {
        let file = self.lair.dir.join("state/instance");
        let instance = fs::read_to_string(file).unwrap_or_default();
        let label = format!("label=lair.instance={}", instance.trim());
        let ask = |engine: &OwnEngine| engine.ask(&["ps", "-aq", "--filter", &label]);
        let all = [ask(&self.podman), ask(&self.docker)];
        let ids = all.iter().flat_map(|text| text.split_whitespace());
        ids.map(str::to_owned).collect()
    }

    pub fn processes(&self) -> Vec<i32> {
        processes_with(&format!("{}\0", self.mark()))
    }

    /// Resident memory of lair, KiB.
    pub fn resident(&self) -> u64 {
        self.lair.rss_kib()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(mut daemon) = self.lair.daemon.take() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            for id in self.containers() {
                for engine in [&self.podman, &self.docker] {
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        engine.ask(&["rm", "-f", &id])
                    }));
                }
            }
            for pid in self.processes() {
                signal(pid, 9);
            }
        }
    }
}

pub fn native_name(i: usize) -> String {
    format!("n{i:02}")
}

pub fn container_name(i: usize) -> String {
    let engine = if i < CONTAINERS / 2 {
        "podman"
    } else {
        "docker"
    };
    format!("{engine}{i}")
}
