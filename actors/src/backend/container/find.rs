//! Which engines this machine may have, and what each says of itself.
//!
//! Owns: the places where engines are looked for, and the last findings. Promises: bounded in time; an engine that does
//! not answer is a finding with a reason and the one command that mends it. Never: decides which is taken.

use super::cli::Cli;
use super::docker::Docker;
use super::engine::{Answer, Engine, EngineInfo};
use super::fault::{EngineFault, EngineFaultKind};
use super::podman::Podman;
use super::service::ServiceOrder;
use super::{ContainerBackend, ContainerOptions, within};
use crate::clock::Clock;
use lair_supervision::Uptime;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest time for one engine to say who it is. A service that has to be started first needs seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The folder in lair's run folder that engines' programs are started in.
const FOLDER: &str = "engine";

/// Where engines are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnginePlaces {
    /// Podman's sockets, best first.
    pub podman: Vec<PathBuf>,
    /// The program that can serve Podman's socket, where none of the sockets answers, and the socket it shall serve.
    pub podman_service: Option<ServiceOrder>,
    /// Docker's sockets, best first.
    pub docker: Vec<PathBuf>,
    /// Docker-compatible programs, best first.
    pub cli: Vec<PathBuf>,
    /// Where they are started: a folder of lair's own. `None`: in `/`.
    pub cli_folder: Option<PathBuf>,
    /// What was named and can't be used, one sentence each, by the engine's name.
    pub refused: BTreeMap<&'static str, String>,
    /// Engines that the configuration has switched off.
    pub off: Vec<&'static str>,
}

impl EnginePlaces {
    /// The usual places for a user with this environment. `run_dir` is for the socket of a service that lair starts.
    #[must_use]
    pub fn of(env: &BTreeMap<String, String>, uid: u32, run_dir: &Path) -> Self {
        let mut places = EnginePlaces::default();
        let own = env.get("XDG_RUNTIME_DIR").map(PathBuf::from);
        let own = own.filter(|dir| uid != 0 && dir.is_absolute());
        let named = |name: &str| env.get(name).filter(|value| !value.is_empty());
        match named("CONTAINER_HOST").map(|url| local("CONTAINER_HOST", url)) {
            Some(Ok(socket)) => places.podman.push(socket),
            Some(Err(why)) => drop(places.refused.insert("podman", why)),
            None => {
                places
                    .podman
                    .extend(own.iter().map(|dir| dir.join("podman/podman.sock")));
                places.podman.push("/run/podman/podman.sock".into());
                let socket = run_dir.join("podman.sock");
                let program = program(env, "podman");
                let folder = run_dir.join(FOLDER);
                places.podman_service = program.map(|program| ServiceOrder {
                    program,
                    socket,
                    folder,
                });
            }
        }
        match named("DOCKER_HOST").map(|url| local("DOCKER_HOST", url)) {
            Some(Ok(socket)) => places.docker.push(socket),
            Some(Err(why)) => drop(places.refused.insert("docker", why)),
            None => {
                places
                    .docker
                    .extend(own.iter().map(|dir| dir.join("docker.sock")));
                places.docker.push("/var/run/docker.sock".into());
            }
        }
        let commands = ["podman", "docker", "nerdctl"];
        places.cli_folder = Some(run_dir.join(FOLDER));
        places.cli = commands
            .iter()
            .filter_map(|name| program(env, name))
            .collect();
        places
    }

    /// Forgets the places of engines that may not be used.
    pub fn switch_off(&mut self, podman: bool, docker: bool) {
        if podman {
            self.podman.clear();
            self.podman_service = None;
            self.off.push("podman");
        }
        if docker {
            self.docker.clear();
            self.cli.clear();
            self.off.extend(["docker", "cli"]);
        }
    }

    /// The engines that lair can speak to, in the order in which they are tried.
    #[must_use]
    pub fn engines(&self) -> Vec<Arc<dyn Engine>> {
        let podman = Podman::anywhere(self.podman.clone(), self.podman_service.clone());
        let mut all: Vec<Arc<dyn Engine>> = vec![Arc::new(podman)];
        if !self.docker.is_empty() || self.refused.contains_key("docker") {
            all.push(Arc::new(Docker::anywhere(self.docker.clone())));
        }
        let commands = self.commands();
        if !commands.is_empty() {
            let folder = self.cli_folder.clone().unwrap_or_else(|| "/".into());
            all.push(Arc::new(Cli::within(&commands, folder)));
        }
        all.retain(|engine| !self.off.contains(&engine.name()));
        all
    }
}

impl EnginePlaces {
    /// The commands that speak to this machine: one whose engine is named elsewhere would go there.
    fn commands(&self) -> Vec<PathBuf> {
        let here = |program: &&PathBuf| {
            let name = program.file_name().map(|n| n.to_string_lossy());
            name.is_none_or(|name| !self.refused.contains_key(&*name))
        };
        self.cli.iter().filter(here).cloned().collect()
    }
}

/// The path in `unix:///path`, or a bare path.
fn local(variable: &str, url: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(url.strip_prefix("unix://").unwrap_or(url));
    if path.is_absolute() {
        return Ok(path);
    }
    // An address may hold a password: it is not repeated.
    Err(format!(
        "{variable} names no Unix socket; lair runs containers on this machine only"
    ))
}

fn program(env: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    let path = env
        .get("PATH")
        .map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    path.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|program| program.is_absolute() && program.is_file())
}

/// What an engine said of itself, or why it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `podman`, `docker` or `cli`.
    pub name: &'static str,
    /// Its own words.
    pub info: Result<EngineInfo, EngineFault>,
    /// The one command that mends it, where there is one.
    pub mend: Option<&'static str>,
}

/// All engines of a runtime, and what was last found out about them.
pub struct Engines {
    backends: BTreeMap<&'static str, Arc<ContainerBackend>>,
    order: Vec<&'static str>,
    places: EnginePlaces,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(Uptime, Vec<Finding>)>>,
}

impl Engines {
    /// One backend an engine. Nothing is asked of any of them yet.
    #[must_use]
    pub fn new(places: EnginePlaces, options: &ContainerOptions, clock: Arc<dyn Clock>) -> Self {
        let engines = places.engines();
        let order = engines.iter().map(|e| e.name()).collect();
        let backend = |engine: Arc<dyn Engine>| {
            let name = engine.name();
            (
                name,
                Arc::new(ContainerBackend::new(engine, options.clone())),
            )
        };
        Engines {
            backends: engines.into_iter().map(backend).collect(),
            order,
            places,
            clock,
            last: Mutex::new(None),
        }
    }

    /// No engine at all.
    #[must_use]
    pub fn none(clock: Arc<dyn Clock>) -> Self {
        Engines {
            backends: BTreeMap::new(),
            order: Vec::new(),
            places: EnginePlaces::default(),
            clock,
            last: Mutex::new(None),
        }
    }

    /// The backends, by the engine's name.
    #[must_use]
    pub fn backends(&self) -> &BTreeMap<&'static str, Arc<ContainerBackend>> {
        &self.backends
    }

    /// What the engines say of themselves, in the order in which they are tried; asked again if the last answers are
    /// older than `age`. Takes 10 s at most, and one asks for all who wait.
    pub async fn look(&self, age: Duration) -> Vec<Finding> {
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        if let Some((at, found)) = &*last
            && now.since(*at) <= age
        {
            return found.clone();
        }
        let asked: Vec<_> = self
            .order
            .iter()
            .filter_map(|name| self.backends.get_key_value(name))
            .map(|(name, backend)| (*name, tokio::spawn(ask(backend.info()))))
            .collect();
        let mut found = Vec::with_capacity(asked.len());
        for (name, asked) in asked {
            let info = asked.await.unwrap_or_else(|e| {
                Err(EngineFault::new(EngineFaultKind::Refused, &e.to_string()))
            });
            found.push(self.finding(name, info));
        }
        *last = Some((self.clock.now(), found.clone()));
        found
    }

    fn finding(&self, name: &'static str, info: Result<EngineInfo, EngineFault>) -> Finding {
        let refused = self.places.refused.get(name);
        let info = info.map_err(|fault| match refused {
            Some(why) => EngineFault::new(EngineFaultKind::Unsupported, why),
            None => fault,
        });
        let mend = info.as_ref().err().map(|fault| match (name, fault.kind) {
            ("podman", EngineFaultKind::Unsupported) => "unset CONTAINER_HOST",
            ("docker", EngineFaultKind::Unsupported) => "unset DOCKER_HOST",
            ("podman", EngineFaultKind::Denied) => "systemctl --user enable --now podman.socket",
            ("docker", EngineFaultKind::Denied) => {
                "sudo usermod -aG docker $USER, then log in again"
            }
            ("podman", _) if self.places.podman_service.is_some() => "podman info",
            ("podman", _) => "sudo apt-get install podman",
            ("docker", _) if Path::new("/usr/bin/dockerd").exists() => {
                "sudo systemctl start docker"
            }
            ("docker", _) => "sudo apt-get install docker.io, or Podman in its place",
            _ => "sudo apt-get install podman",
        });
        Finding { name, info, mend }
    }
}

async fn ask(info: Answer<EngineInfo>) -> Result<EngineInfo, EngineFault> {
    within(ANSWERS_WITHIN, "say who it is", info).await
}

#[cfg(test)]
mod test {
    use super::*;

    fn of(env: &[(&str, &str)], uid: u32) -> EnginePlaces {
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        EnginePlaces::of(&env, uid, Path::new("/run/lair"))
    }

    #[test]
    fn a_socket_that_is_named_is_the_only_one() {
        let places = of(
            &[
                ("CONTAINER_HOST", "unix:///x.sock"),
                ("DOCKER_HOST", "/y.sock"),
            ],
            0,
        );
        assert_eq!(places.podman, [PathBuf::from("/x.sock")]);
        assert_eq!(places.docker, [PathBuf::from("/y.sock")]);
        assert_eq!(places.podman_service, None);
    }

    #[test]
    fn a_user_is_served_by_the_users_own_engine_first() {
        let places = of(&[("XDG_RUNTIME_DIR", "/run/user/7")], 7);
        assert_eq!(
            places.podman[0],
            PathBuf::from("/run/user/7/podman/podman.sock")
        );
        assert_eq!(places.docker[0], PathBuf::from("/run/user/7/docker.sock"));
        let root = of(&[("XDG_RUNTIME_DIR", "/run/user/0")], 0);
        assert_eq!(root.podman, [PathBuf::from("/run/podman/podman.sock")]);
    }

    #[test]
    fn an_engine_elsewhere_is_refused_without_repeating_its_address() {
        let places = of(&[("DOCKER_HOST", "tcp://user:secret@far:2375")], 0);
        assert!(places.docker.is_empty());
        let why = &places.refused["docker"];
        assert!(
            why.contains("DOCKER_HOST") && !why.contains("secret"),
            "{why}"
        );
    }
}
