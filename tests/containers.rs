//! Modules in containers on the real engines, through the runtime: what an engine does wrong, and what a module may not do.

mod support;

use lair::actors::backend::CommandOutcome;
use lair::actors::backend::container::container_name;
use lair::actors::backend::container::find::EnginePlaces;
use lair::supervision::{DownReason, NoticeKind, Phase, StartStage};
use lair::{Folders, WaitFor};
use support::engines::{Kind, image};
use support::gate::{Gate, Gateway};
use support::{Home, Lair, SOON, asker, eventually};

/// A runtime and an engine with a gate before it.
struct Story {
    lair: Lair,
    kind: Kind,
    gateway: Gateway,
    gate: Home,
}

impl Story {
    async fn on(kind: Kind, name: &str) -> Story {
        let gate = Home::new("gate");
        let gateway = Gateway::before(&kind.socket(), gate.path().join("engine.sock"));
        let mut places = EnginePlaces::default();
        match kind {
            Kind::Podman => places.podman.push(gateway.socket.clone()),
            Kind::Docker => places.docker.push(gateway.socket.clone()),
        }
        let lair = Lair::start_with(name, |o| o.engines = Some(places)).await;
        Story {
            lair,
            kind,
            gateway,
            gate,
        }
    }

    /// Loads and starts `name` with `image` and more keys below `container:` (flow style) and below `runtime:`.
    async fn start(&self, name: &str, of: &str, container: &str, more: &str) {
        let image = image(of);
        let manifest = format!(
            "name: {name}\nruntime:\n  container: {{ image: '{image}', {container} }}\n  stop: {{ grace: 2s }}\n{more}"
        );
        self.lair.load(&manifest).await.expect("a load");
        self.lair
            .handle
            .start(name, asker())
            .await
            .expect("a start");
    }

    async fn up(&self, name: &str) {
        self.start(name, "base", "command: [sleep, '1000']", "")
            .await;
        self.lair.until(name, "up", |s| s.state == "running").await;
    }

    /// What the engine calls the module's container.
    fn container(&self, name: &str) -> String {
        let state = Folders::below(self.lair.home.path()).state;
        let instance = std::fs::read_to_string(state.join("instance")).expect("an instance");
        container_name(instance.trim(), name)
    }

    fn containers(&self) -> String {
        let prefix = self.container("");
        self.kind.cli(&[
            "ps",
            "-a",
            "--format",
            "{{.Names}}",
            "--filter",
            &format!("name={prefix}"),
        ])
    }

    async fn inside(&self, name: &str, script: &str) -> String {
        let grip = self.lair.view(name).handle.clone().expect("a grip");
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        match grip.run(argv, SOON).await {
            CommandOutcome::Ended { output, .. } => String::from_utf8_lossy(&output).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn end(self) {
        self.gateway.set(Gate::Open);
        let (kind, prefix) = (self.kind, self.container(""));
        self.lair.end().await;
        let filter = format!("name={prefix}");
        let left = kind.cli(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]);
        assert_eq!(left, "", "containers left");
        drop(self.gate);
    }
}

async fn an_engine_that_goes_away_takes_no_module_along(kind: Kind) {
    let s = Story::on(kind, "away").await;
    s.up("m").await;
    for (n, gate) in [Gate::Shut, Gate::Held].into_iter().enumerate() {
        s.gateway.set(gate);
        s.lair
            .until("m", "out of sight", |_| {
                s.lair.count("m", "sight_lost") == n + 1
            })
            .await;
        assert_eq!(s.lair.status("m").state, "running");
        s.gateway.set(Gate::Open);
        s.lair
            .until("m", "seen again", |_| {
                s.lair.count("m", "sight_regained") == n + 1
            })
            .await;
    }
    assert_eq!(
        (s.lair.status("m").run, s.lair.count("m", "exited")),
        (1, 0)
    );
    s.end().await;
}

async fn a_stop_needs_no_engine(kind: Kind) {
    let s = Story::on(kind, "stop-frozen").await;
    s.up("m").await;
    s.gateway.set(Gate::Held);
    let down = s.lair.stop("m").await;
    assert_eq!(down.state, "stopped");
    s.end().await;
}

async fn a_name_that_is_taken_is_reclaimed_from_nobody_but_ourselves(kind: Kind) {
    let s = Story::on(kind, "taken").await;
    let name = s.container("m");
    s.kind.cli(&["create", "--name", &name, &image("base")]);
    s.start("m", "base", "command: [sleep, '1000']", "").await;
    s.lair.wait("m", WaitFor::Stopped).await;
    let phase = s.lair.view("m").child.phase.clone();
    let Phase::Down(DownReason::StartFailed(fault)) = phase else {
        panic!("{phase:?}")
    };
    assert_eq!(fault.stage, StartStage::Create);
    assert!(fault.message.contains(&name), "{}", fault.message);
    assert_eq!(s.containers(), name, "the stranger stays");
    s.kind.cli(&["rm", "-f", &name]);
    let instance = name.split('-').nth(1).expect("an instance").to_owned();
    let label = format!("lair.instance={instance}");
    s.kind.cli(&[
        "create",
        "--name",
        &name,
        "--label",
        &label,
        "--label",
        "lair.module=m",
        &image("base"),
    ]);
    s.lair.handle.start("m", asker()).await.expect("a start");
    s.lair.until("m", "up", |s| s.state == "running").await;
    assert_eq!(s.lair.count("m", "reclaimed"), 1);
    s.end().await;
}

async fn one_that_is_removed_by_hand_is_down_once(kind: Kind) {
    let s = Story::on(kind, "by-hand").await;
    s.up("m").await;
    s.kind.cli(&["rm", "-f", &s.container("m")]);
    let down = s.lair.wait("m", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!(
        (exit.signal.unwrap_or(9), s.lair.count("m", "exited")),
        (9, 1)
    );
    s.end().await;
}

async fn a_container_over_its_memory_limit_says_so(kind: Kind) {
    let s = Story::on(kind, "oom").await;
    let more = "  resources: { memory: { limit: 48MiB } }\n";
    s.start("m", "oom", "init: false", more).await;
    let down = s.lair.wait("m", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.oom), (Some(9), Some(true)));
    s.end().await;
}

async fn a_container_has_nothing_that_was_not_declared(kind: Kind) {
    let s = Story::on(kind, "least").await;
    s.up("m").await;
    let status = s.inside("m", "cat /proc/1/status").await;
    let value = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.expect("a line").trim().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (value("NoNewPrivs:").as_str(), value("Seccomp:").as_str()),
        ("1", "2")
    );
    assert_eq!(
        s.inside("m", "touch /x 2>/dev/null; echo $?").await.trim(),
        "1"
    );
    assert_eq!(s.inside("m", "touch /tmp/x; echo $?").await.trim(), "0");
    assert_eq!(s.inside("m", "ls /sys/class/net").await.trim(), "lo");
    let differs = s
        .lair
        .notices("m")
        .into_iter()
        .find(|n| matches!(n.kind, NoticeKind::Differs { .. }));
    assert!(differs.is_none(), "{differs:?}");
    s.end().await;
}

async fn a_declared_port_is_published_on_loopback_and_asked(kind: Kind) {
    let s = Story::on(kind, "port").await;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
        .port();
    let more = format!(
        "  ports: {{ http: {port} }}\n  health:\n    readiness: {{ http: {{ port: http, path: /health }}, interval: 200ms }}\n"
    );
    s.start("m", "serve", &format!("command: ['{port}', '0']"), &more)
        .await;
    s.lair.until("m", "ready", |s| s.ready).await;
    let network = s.kind.cli(&[
        "inspect",
        "--format",
        "{{json .HostConfig.PortBindings}}",
        &s.container("m"),
    ]);
    assert!(
        network.contains("127.0.0.1") && !network.contains("0.0.0.0"),
        "{network}"
    );
    s.end().await;
}

async fn an_images_own_check_is_run_on_its_schedule(kind: Kind) {
    let s = Story::on(kind, "check").await;
    s.start("m", "unhealthy", "read_only: false", "").await;
    eventually("healthy, then not", || {
        let said: Vec<String> = s
            .lair
            .notices("m")
            .iter()
            .filter_map(|n| match &n.kind {
                NoticeKind::Health { state, .. } => Some(state.clone()),
                _ => None,
            })
            .collect();
        said == ["healthy", "unhealthy"]
    })
    .await;
    assert_eq!(s.lair.status("m").state, "running");
    s.end().await;
}

macro_rules! on_both {
    ($($story:ident)*) => {
        mod podman { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Podman).await; })* }
        mod docker { $(#[tokio::test] async fn $story() { super::$story(super::Kind::Docker).await; })* }
    };
}

on_both! {
    an_engine_that_goes_away_takes_no_module_along
    a_stop_needs_no_engine
    a_name_that_is_taken_is_reclaimed_from_nobody_but_ourselves
    one_that_is_removed_by_hand_is_down_once
    a_container_over_its_memory_limit_says_so
    a_container_has_nothing_that_was_not_declared
    a_declared_port_is_published_on_loopback_and_asked
    an_images_own_check_is_run_on_its_schedule
}
