//! `runtime:` of a manifest: everything that lair acts on.
//!
//! Owns: the keys, their defaults and bounds. Promises: what is read here is fit to be planned, but for facts of the
//! host. Never: holds the Control Layer's business; see [`crate::module`].

use crate::decode::{Decode, Sink, View};
use crate::health::Health;
use crate::numbers::Count;
use crate::park::{Park, Wake};
use crate::problem::ProblemKind;
use crate::record::record;
use crate::resources::{Resources, Sandbox};
use crate::restart::{Restart, Stop};
use crate::text::{Command, Secret, Text};
use crate::units::{DAY, GIB, KIB, MIB, Size, Span};
use crate::words::{
    AbsolutePath, CredentialName, EnvName, Line, ModeWord, PortName, UserName, choice,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

record! {
    /// How the module runs.
    pub struct Runtime checked by crate::check::runtime => ANYWAY {
        /// What it can run as, in order of preference; without it, the blocks below that are given.
        modes: Vec<ModeWord> = Vec::new(),
        /// Which of them is preferred.
        preferred: Option<ModeWord> = None,
        /// As a process.
        native: Option<Native> = None,
        /// In a container.
        container: Option<Container> = None,
        /// Variables whose values are fetched at each start, and kept nowhere else.
        secrets: BTreeMap<EnvName, SecretFrom> = BTreeMap::new(),
        /// TCP ports it serves on.
        ports: BTreeMap<PortName, Port> = BTreeMap::new(),
        /// What if it listens where it did not declare to.
        exposure: OnExposure = OnExposure::Report,
        /// What it may use, and what it needs.
        resources: Resources = Resources::unlimited(),
        /// Whether it came up, serves, lives.
        health: Health = Health::none(),
        /// Whether it is started again.
        restart: Restart = Restart::never(),
        /// How it is stopped.
        stop: Stop = Stop::usual(),
        /// How it lets go of memory that it can do without for a while.
        park: Option<Park> = None,
        /// How it takes that memory again; without it, its next use does that.
        wake: Option<Wake> = None,
        /// Its log files.
        logs: Logs = Logs::usual(),
        /// Which ends are no failure.
        success: Success = Success { codes: vec![Count::of(0)] },
    }
}

impl Runtime {
    /// The modes it can run as: those listed, or else the blocks that are given.
    #[must_use]
    pub fn declared_modes(&self) -> Vec<ModeWord> {
        if !self.modes.is_empty() {
            return self.modes.clone();
        }
        let native = self.native.as_ref().map(|_| "native");
        let container = self.container.as_ref().map(|_| "container");
        let words = [native, container].into_iter().flatten();
        words
            .filter_map(|word| ModeWord::try_from(word).ok())
            .collect()
    }
}

record! {
    /// A process of this machine.
    pub struct Native {
        /// Program and arguments; there is no shell.
        command: Command,
        /// Working directory, relative to the manifest's folder.
        workdir: Text = Text::plain("./"),
        /// Its variables.
        env: BTreeMap<EnvName, Secret> = BTreeMap::new(),
        /// Variables taken from the runtime's own environment; nothing else is inherited.
        pass_env: Vec<EnvName> = Vec::new(),
        /// User to become; only a privileged runtime can.
        user: Option<UserName> = None,
        /// Capabilities it keeps where lair has them; all others are dropped.
        cap_add: Vec<Line> = Vec::new(),
        /// What it may reach.
        sandbox: Option<Sandbox> = None,
    }
}

record! {
    /// Where a secret comes from: one of these.
    pub struct SecretFrom checked by one_source {
        /// A file that its owner alone may read (mode 0600), relative to the manifest's folder; a last newline is left out.
        file: Option<Line> = None,
        /// A credential of the service manager: a file of `$CREDENTIALS_DIRECTORY`.
        credential: Option<CredentialName> = None,
        /// A variable of the runtime's own environment.
        env: Option<EnvName> = None,
    }
}

fn one_source(from: &SecretFrom, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let given = [
        from.file.is_some(),
        from.credential.is_some(),
        from.env.is_some(),
    ];
    if given.iter().filter(|g| **g).count() == 1 {
        return Some(());
    }
    let help = "one of `{ file }`, `{ credential }`, `{ env }`";
    view.invalid_help(sink, "a secret comes from one place", help)
}

record! {
    /// A container of an engine.
    pub struct Container {
        /// Image reference.
        image: Text,
        /// When the image is fetched.
        pull: Pull = Pull::Never,
        /// Arguments after the image's entrypoint.
        command: Vec<Secret> = Vec::new(),
        /// Variables added to the image's.
        env: BTreeMap<EnvName, Secret> = BTreeMap::new(),
        /// Variables taken from the runtime's own environment.
        pass_env: Vec<EnvName> = Vec::new(),
        /// Host folders it sees.
        volumes: Vec<Mount> = Vec::new(),
        /// User inside; without it, the image's.
        user: Option<UserName> = None,
        /// Capabilities; all others are dropped.
        cap_add: Vec<Line> = Vec::new(),
        /// Read-only root, with a tmpfs on /tmp.
        read_only: bool = true,
        /// An init as PID 1.
        init: bool = true,
        /// Which engine.
        engine: Engine = Engine::Auto,
    }
}

choice! {
    /// When an image is fetched.
    pub enum Pull {
        /// Only what is here is run.
        #[default]
        Never = "never",
        /// If it isn't here.
        Missing = "missing",
        /// At each start.
        Always = "always",
    }
}

choice! {
    /// The engines that are spoken to.
    pub enum Engine {
        /// The first that answers.
        #[default]
        Auto = "auto",
        /// Podman.
        Podman = "podman",
        /// Docker.
        Docker = "docker",
        /// A docker-compatible command.
        Cli = "cli",
    }
}

record! {
    /// A host folder seen by a container.
    pub struct Mount {
        /// On the host; relative to the manifest's folder.
        source: Text,
        /// Inside.
        target: AbsolutePath,
        /// Mounted read-only.
        read_only: bool = false,
    }
}

/// A TCP port: `8080`, or `{ port: 8080, expose: lan }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its number.
    pub port: Count<1, 65535>,
    /// Who may reach it.
    pub expose: Expose,
}

choice! {
    /// Who may reach a port.
    pub enum Expose {
        /// This machine: 127.0.0.1.
        #[default]
        Local = "local",
        /// Everybody who reaches this machine: 0.0.0.0.
        Lan = "lan",
    }
}

choice! {
    /// What if a module listens where it did not declare to.
    pub enum OnExposure {
        /// An event and its status say so.
        #[default]
        Report = "report",
        /// It is stopped as well.
        Enforce = "enforce",
    }
}

choice! {
    /// The protocols a port can have.
    pub enum Protocol {
        /// TCP.
        #[default]
        Tcp = "tcp",
    }
}

record! {
    /// The long form of a port.
    pub struct LongPort {
        /// Its number.
        port: Count<1, 65535>,
        /// Its protocol.
        protocol: Protocol = Protocol::Tcp,
        /// Who may reach it.
        expose: Expose = Expose::Local,
    }
}

impl Decode for Port {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        if view.is_map() {
            let LongPort { port, expose, .. } = LongPort::decode(view, sink)?;
            return Some(Port { port, expose });
        }
        Count::decode(view, sink).map(|port| Port {
            port,
            expose: Expose::Local,
        })
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let (short, long) = (
            Count::<1, 65535>::json_schema(g),
            g.subschema_for::<LongPort>(),
        );
        json_schema!({ "oneOf": [short, long] })
    }
}

choice! {
    /// How output is kept.
    pub enum LogFormat {
        /// One record a line: time, stream, `P` or `F`, bytes.
        #[default]
        Cri = "cri",
        /// The bytes alone, one file a stream.
        Raw = "raw",
    }
}

record! {
    /// Its log files.
    pub struct Logs {
        /// A file is closed at this size.
        max_size: Size<{ 4 * KIB }, { 64 * GIB }> = Size::bytes(16 * MIB),
        /// Files kept, of all runs.
        max_files: Count<1, 10_000> = Count::of(8),
        /// Closed files older than this are deleted.
        max_age: Span<1000, { 3650 * DAY }> = Span::millis(30 * DAY),
        /// Closed files are compressed.
        compress: bool = true,
        /// How output is kept.
        format: LogFormat = LogFormat::Cri,
    }
}

impl Logs {
    fn usual() -> Self {
        Logs {
            max_size: Size::bytes(16 * MIB),
            max_files: Count::of(8),
            max_age: Span::millis(30 * DAY),
            compress: true,
            format: LogFormat::Cri,
        }
    }
}

record! {
    /// Which ends are no failure.
    pub struct Success checked by success {
        /// Exit codes.
        codes: Vec<Count<0, 255>> = vec![Count::of(0)],
    }
}

fn success(success: &Success, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let codes = &success.codes;
    if codes.is_empty() {
        let what = "at least one exit code is wanted";
        view.fault(sink, ProblemKind::Invalid, &["codes"], what, None);
        return None;
    }
    if let Some(i) = (0..codes.len()).find(|&i| codes[..i].contains(&codes[i])) {
        let below = ["codes", &i.to_string()];
        view.fault(
            sink,
            ProblemKind::Duplicate,
            &below,
            "this exit code stands twice",
            None,
        );
        return None;
    }
    Some(())
}
