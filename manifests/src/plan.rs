//! From a manifest and a mode to a plan that a backend can carry out.
//!
//! Owns: substitution, the environment of a module, absolute paths. Promises: a plan is complete, or every problem is
//! told. Never: decides on a mode, or inherits a variable that was not asked for.

use crate::capability;
use crate::config::Dirs;
use crate::facts::GpuFacts;
use crate::health::PortRef;
use crate::launch::{
    ContainerLaunch, Launch, LaunchPlan, Mode, NativeLaunch, Sandbox, SecretSource, Volume,
};
use crate::module::ModuleManifest;
use crate::problem::{Problem, ProblemKind};
use crate::resources::{Hold, Network};
use crate::runtime::{Container, Native, SecretFrom};
use crate::selection::Selected;
use crate::text::{Command, Scope, Secret, Text};
use crate::words::EnvName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod gpu;
mod park;
mod policy;
mod probes;

/// Where programs of native modules are looked for, unless the manifest says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a plan needs beside the manifest.
#[derive(Clone)]
pub struct PlanContext {
    /// The runtime's folders.
    pub dirs: Dirs,
    /// The runtime's own environment; only what is asked for is taken from it.
    pub env: BTreeMap<String, String>,
    /// Variables of this start; they win over the manifest's.
    pub set: BTreeMap<String, String>,
    /// Arguments of this start, after the manifest's.
    pub args: Vec<String>,
    /// The GPUs of the host.
    pub gpus: GpuFacts,
    /// Seed of random delays.
    pub seed: u64,
}

impl PlanContext {
    /// Nothing but folders.
    #[must_use]
    pub fn new(dirs: Dirs) -> Self {
        PlanContext {
            dirs,
            env: BTreeMap::new(),
            set: BTreeMap::new(),
            args: Vec::new(),
            gpus: GpuFacts::default(),
            seed: 0,
        }
    }
}

impl std::fmt::Debug for PlanContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanContext")
            .field("dirs", &self.dirs)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Makes the plan.
///
/// # Errors
/// Every text that can't be completed, with its position.
pub fn plan(
    module: &ModuleManifest,
    selected: &Selected,
    context: &PlanContext,
) -> Result<LaunchPlan, Vec<Problem>> {
    let mut planner = Planner::new(module, selected.mode, context);
    let launch = planner.launch();
    let sandbox = planner.sandbox();
    let capabilities = planner.capabilities();
    let probes = planner.probes();
    let park = planner.parking();
    let mut limits = policy::limits(&module.runtime, &planner.gpus);
    limits.sandbox = sandbox;
    limits.capabilities = capabilities;
    let Planner { problems, .. } = planner;
    let (Some(launch), true) = (launch, problems.is_empty()) else {
        return Err(problems);
    };
    Ok(LaunchPlan {
        spec: policy::spec(module, context.seed),
        version: module
            .version
            .as_ref()
            .map_or("0.0.0", |v| v.as_str())
            .to_owned(),
        mode: selected.mode,
        launch,
        ports: policy::ports(&module.runtime),
        probes,
        park,
        logs: policy::logs(&module.runtime),
        limits,
        explanation: selected
            .explanation
            .iter()
            .map(ToString::to_string)
            .collect(),
        fallback: selected.fallback.clone(),
        digest: module.origin.digest.to_string(),
        group: None,
        source: None,
    })
}

struct Planner<'p> {
    module: &'p ModuleManifest,
    mode: Mode,
    context: &'p PlanContext,
    ports: BTreeMap<String, u16>,
    env: BTreeMap<String, String>,
    dir: String,
    data: String,
    logs: String,
    gpus: Vec<String>,
    problems: Vec<Problem>,
}

impl<'p> Planner<'p> {
    fn new(module: &'p ModuleManifest, mode: Mode, context: &'p PlanContext) -> Self {
        let name = module.name.as_str();
        let ports = policy::ports(&module.runtime)
            .into_iter()
            .map(|p| (p.name, p.port))
            .collect();
        let gpu = module.runtime.resources.gpu.as_ref();
        let gpus = gpu.and_then(|ask| context.gpus.choose(ask).ok());
        Planner {
            module,
            mode,
            context,
            ports,
            env: BTreeMap::new(),
            dir: module.origin.dir.display().to_string(),
            data: context.dirs.module_data(name).display().to_string(),
            logs: context.dirs.module_logs(name).display().to_string(),
            gpus: gpus.unwrap_or_default(),
            problems: Vec::new(),
        }
    }

    fn launch(&mut self) -> Option<Launch> {
        let runtime = &self.module.runtime;
        match (self.mode, &runtime.native, &runtime.container) {
            (Mode::Native, Some(native), _) => self.native(native).map(Launch::Native),
            (Mode::Container, _, Some(container)) => {
                self.container(container).map(Launch::Container)
            }
            (mode, ..) => {
                let what = format!("there is no `runtime.{}` to run", mode.as_str());
                let mut problem =
                    Problem::of_file(ProblemKind::Missing, &self.module.origin.file, what);
                problem.pointer = format!("{}/runtime", self.module.origin.pointer);
                self.problems.push(problem);
                None
            }
        }
    }

    fn native(&mut self, native: &Native) -> Option<NativeLaunch> {
        let own = &self.context.env;
        let mut base = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        // Another user has a home of its own, which the backend looks up with the rest of that user.
        if native.user.is_none() {
            let home = own.get("HOME").map_or("/", String::as_str);
            base.insert("HOME".to_owned(), home.to_owned());
        }
        if let Some(zone) = own.get("TZ") {
            base.insert("TZ".to_owned(), zone.clone());
        }
        let gpus = gpu::native(&self.gpus);
        base.extend(gpus.clone());
        self.environment(base, &native.pass_env, &native.env, "/runtime/native/env");
        self.keep_gpus(&gpus, "/runtime/native/env");
        let argv = self.command(&native.command, "/runtime/native/command");
        let workdir = self.text(&native.workdir, "/runtime/native/workdir");
        let health = &self.module.runtime.health;
        let startup = health.startup.as_ref();
        let notify = [
            startup.is_some_and(|p| p.notify),
            health.readiness.as_ref().is_some_and(|p| p.notify),
            health.liveness.as_ref().is_some_and(|p| p.notify),
        ];
        let mut argv = argv?;
        argv.extend(self.context.args.iter().cloned());
        let workdir = workdir?;
        let keeps = {
            let mut words = argv.iter().chain(self.env.values()).chain([&workdir]);
            words.any(|word| word.contains(&self.data))
        };
        Some(NativeLaunch {
            argv,
            env: Arc::new(self.env.clone()),
            passed: self.passed(native),
            secrets: self.secrets(),
            workdir: self.absolute(&workdir),
            data: keeps.then(|| PathBuf::from(&self.data)),
            user: native.user.as_ref().map(ToString::to_string),
            ready_fd: health.ready.is_some() || startup.is_some_and(|p| p.fd),
            notify: notify.contains(&true),
        })
    }

    /// Variables that have their value from the runtime's environment, and from nowhere after that.
    fn passed(&self, native: &Native) -> BTreeSet<String> {
        let again = |name: &&EnvName| {
            native.env.contains_key(*name) || self.context.set.contains_key(name.as_str())
        };
        let passed = native.pass_env.iter().filter(|name| !again(name));
        passed.map(ToString::to_string).collect()
    }

    fn secrets(&self) -> BTreeMap<String, SecretSource> {
        let secrets = self.module.runtime.secrets.iter();
        let source = |from: &SecretFrom| match (&from.file, &from.credential, &from.env) {
            (Some(file), ..) => Some(SecretSource::File(self.absolute(file.as_str()))),
            (_, Some(name), _) => Some(SecretSource::Credential(name.to_string())),
            (.., Some(name)) => Some(SecretSource::Env(name.to_string())),
            (None, None, None) => None,
        };
        secrets
            .filter_map(|(name, from)| Some((name.to_string(), source(from)?)))
            .collect()
    }

    fn container(&mut self, c: &Container) -> Option<ContainerLaunch> {
        let gpus = gpu::container(&self.gpus);
        self.environment(gpus.clone(), &c.pass_env, &c.env, "/runtime/container/env");
        self.keep_gpus(&gpus, "/runtime/container/env");
        let image = self.text(&c.image, "/runtime/container/image");
        let words = c.command.iter().map(Secret::text);
        let command = self.words(words, "/runtime/container/command");
        let mut volumes = Vec::with_capacity(c.volumes.len());
        for (i, mount) in c.volumes.iter().enumerate() {
            let pointer = format!("/runtime/container/volumes/{i}/source");
            let source = self.text(&mount.source, &pointer);
            volumes.extend(source.map(|source| {
                let source = self.absolute(&source);
                Volume {
                    own: source.starts_with(&self.data),
                    source,
                    target: mount.target.to_string(),
                    read_only: mount.read_only,
                }
            }));
        }
        let mut command = command?;
        command.extend(self.context.args.iter().cloned());
        Some(ContainerLaunch {
            image: image?,
            pull: c.pull.as_str().to_owned(),
            command,
            env: self.env.clone(),
            secrets: self.secrets(),
            volumes,
            user: c.user.as_ref().map(ToString::to_string),
            cap_add: c.cap_add.iter().map(ToString::to_string).collect(),
            read_only: c.read_only,
            init: c.init,
            engine: c.engine.as_str().to_owned(),
            gpu_devices: self.gpus.clone(),
        })
    }

    /// Base, then what is passed, then the manifest's, then this start's. A passed variable that isn't set is absent.
    fn environment(
        &mut self,
        base: BTreeMap<String, String>,
        pass: &[EnvName],
        own: &BTreeMap<EnvName, Secret>,
        pointer: &str,
    ) {
        self.env = base;
        let passed = pass
            .iter()
            .filter_map(|name| self.context.env.get_key_value(name.as_str()));
        self.env
            .extend(passed.map(|(name, value)| (name.clone(), value.clone())));
        let mut values = Vec::with_capacity(own.len());
        for (name, value) in own {
            let value = self.text(value.text(), &format!("{pointer}/{name}"));
            values.extend(value.map(|value| (name.to_string(), value)));
        }
        self.env.extend(values);
        self.env.extend(self.context.set.clone());
    }

    /// A variable that would give it other GPUs than those it asked for is a mistake, not a way around the account.
    fn keep_gpus(&mut self, ours: &BTreeMap<String, String>, pointer: &str) {
        for name in gpu::changed(ours, &self.env) {
            let origin = &self.module.origin;
            let what = format!("`{name}` would show it other GPUs than it asked for");
            let problem = Problem::of_file(ProblemKind::Invalid, &origin.file, what);
            self.problems.push(Problem {
                pointer: format!("{}{pointer}/{name}", origin.pointer),
                help: Some(
                    "ask by `runtime.resources.gpu`; its value is then `${gpu.uuids}`".to_owned(),
                ),
                ..problem
            });
        }
    }

    fn sandbox(&mut self) -> Option<Sandbox> {
        let native = self
            .module
            .runtime
            .native
            .as_ref()
            .filter(|_| self.mode == Mode::Native);
        let sandbox = native.and_then(|n| n.sandbox.as_ref())?;
        let (mut read, mut write) = (None, None);
        if let Some(files) = &sandbox.filesystem {
            read = self.words(files.read.iter(), "/runtime/native/sandbox/filesystem/read");
            write = self.words(
                files.write.iter(),
                "/runtime/native/sandbox/filesystem/write",
            );
        }
        let paths = |words: Option<Vec<String>>| -> Option<Vec<PathBuf>> {
            words.map(|words| words.iter().map(|word| self.absolute(word)).collect())
        };
        let (read, write) = (paths(read), paths(write));
        let (bind, connect) = match &sandbox.tcp {
            None => (None, None),
            Some(tcp) => (
                self.allowed_ports(tcp.bind.as_deref(), "bind"),
                self.allowed_ports(tcp.connect.as_deref(), "connect"),
            ),
        };
        Some(Sandbox {
            no_network: sandbox.network == Network::None,
            read,
            write,
            bind,
            connect,
            best_effort: sandbox.enforce == Hold::BestEffort,
        })
    }

    fn allowed_ports(&mut self, ports: Option<&[PortRef]>, key: &str) -> Option<Vec<u16>> {
        let ports = ports?;
        let mut numbers = Vec::with_capacity(ports.len());
        for (i, port) in ports.iter().enumerate() {
            match port {
                PortRef::Number(n) => numbers.extend(u16::try_from(n.get())),
                PortRef::Name(name) => match self.ports.get(name.as_str()) {
                    Some(port) => numbers.push(*port),
                    None => self.wrong(
                        &format!("/runtime/native/sandbox/tcp/{key}/{i}"),
                        format!("there is no port `{name}`"),
                        "declare it in `runtime.ports`, or write its number",
                    ),
                },
            }
        }
        Some(numbers)
    }

    /// The capabilities that a native module keeps.
    fn capabilities(&mut self) -> u64 {
        let native = self.module.runtime.native.as_ref();
        let Some(native) = native.filter(|_| self.mode == Mode::Native) else {
            return 0;
        };
        let mut kept = 0;
        for (i, name) in native.cap_add.iter().enumerate() {
            match capability::number(name.as_str()) {
                Some(number) => kept |= 1_u64 << number,
                None => self.wrong(
                    &format!("/runtime/native/cap_add/{i}"),
                    format!("there is no capability `{name}`"),
                    "capabilities(7) lists them: NET_BIND_SERVICE, IPC_LOCK, ...",
                ),
            }
        }
        kept
    }

    fn wrong(&mut self, pointer: &str, what: String, help: &str) {
        let origin = &self.module.origin;
        let mut problem = Problem::of_file(ProblemKind::Invalid, &origin.file, what);
        problem.pointer = format!("{}{pointer}", origin.pointer);
        problem.help = Some(help.to_owned());
        self.problems.push(problem);
    }

    fn command(&mut self, command: &Command, pointer: &str) -> Option<Vec<String>> {
        self.words(command.words().iter(), pointer)
    }

    fn words<'t>(
        &mut self,
        words: impl Iterator<Item = &'t Text>,
        pointer: &str,
    ) -> Option<Vec<String>> {
        let read = |(i, word)| self.text(word, &format!("{pointer}/{i}"));
        let read: Vec<Option<String>> = words.enumerate().map(read).collect();
        read.into_iter().collect()
    }

    fn text(&mut self, text: &Text, pointer: &str) -> Option<String> {
        let scope = Scope {
            ports: &self.ports,
            env: &self.env,
            name: self.module.name.as_str(),
            dir: &self.dir,
            data: &self.data,
            logs: &self.logs,
            gpus: &self.gpus,
        };
        match text.expand(&scope) {
            Ok(expanded) => Some(expanded),
            Err(why) => {
                let origin = &self.module.origin;
                let problem = Problem::of_file(ProblemKind::Invalid, &origin.file, why);
                self.problems.push(Problem {
                    line: text.pos().line,
                    column: text.pos().column,
                    pointer: format!("{}{pointer}", origin.pointer),
                    help: Some("a variable of `pass_env` has to be set where lair is started, or by `--set`".to_owned()),
                    ..problem
                });
                None
            }
        }
    }

    fn absolute(&self, path: &str) -> PathBuf {
        let joined = self.module.origin.dir.join(path);
        let whole = std::path::absolute(&joined).unwrap_or_else(|_| Path::new("/").join(joined));
        whole.components().collect()
    }
}
