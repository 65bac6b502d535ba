//! What every backend must do, told once and run for each: the same words, real or simulated.
//!
//! A new backend needs a [`Harness`] and one line at the end of this file.

mod support;

use lair::WaitFor;
use lair::actors::backend::container::find::EnginePlaces;
use lair::actors::backend::container::{ContainerBackend, ContainerOptions};
use lair::actors::backend::native::{NativeBackend, NativeOptions};
use lair::actors::backend::sim::{OnStop, Script, SimBackend};
use lair::actors::backend::{
    Backend, ChildExit, ChildHandle, CommandOutcome, StartOrder, Started, Tree,
};
use lair::actors::clock::SystemClock;
use lair::actors::keeper::{KeeperClient, KeeperOptions};
use lair::actors::root::Backends;
use lair::supervision::{
    Admission, ChildId, ChildIdentity, DownReason, ExitStatus, NoticeKind, Phase, Scope,
    StartFault, StartStage, Tri,
};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::engines::{Kind, image};
use support::gate::{Gate, Gateway};
use support::{Home, Lair, SOON, asker, eventually, is_alive, signal};

/// What not every backend can; the rest is promised by all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Can {
    /// A second stream.
    Stderr,
    /// More output than a pipe holds.
    BigOutput,
    /// Commands in the child's context.
    Commands,
    /// Processes that can be counted on this machine.
    Processes,
}

/// What a child does once it is up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Stays until it is stopped.
    Stays,
    /// Returns this code.
    Exits(i32),
    /// Is ended by this signal.
    Dies(i32),
}

/// A child's whole behaviour. It prints `up`, a newline and then `out`, before anything else.
#[derive(Clone, Debug)]
struct Behaviour {
    out: String,
    err: String,
    /// Bytes printed after all that.
    big: usize,
    then: Then,
    /// The code with which it answers a stop; `None`: it does not.
    on_stop: Result<ExitStatus, Deaf>,
    /// Its program is gone when it is started.
    missing: bool,
    /// Its start takes until [`Harness::let_go`].
    held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Deaf;

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            out: String::new(),
            err: String::new(),
            big: 0,
            then: Then::Stays,
            on_stop: Ok(ExitStatus::Signal(libc::SIGTERM)),
            missing: false,
            held: false,
        }
    }
}

fn then(then: Then) -> Behaviour {
    Behaviour {
        then,
        ..Behaviour::default()
    }
}

fn deaf() -> Behaviour {
    Behaviour {
        on_stop: Err(Deaf),
        ..Behaviour::default()
    }
}

/// One kind of backend, and a runtime on it.
trait Harness: Sized {
    /// What [`Backend::name`] says.
    const NAME: &'static str;
    /// All that it can.
    const CAN: &'static [Can];

    async fn set_up(story: &str) -> Self;
    fn lair(&self) -> &Lair;
    /// A backend beside the runtime's, for stories about the seam itself.
    fn backend(&self) -> Arc<dyn Backend>;
    /// Loads a module that behaves like this.
    async fn load(&self, name: &str, behaviour: &Behaviour);
    /// Processes of one child.
    const OF_ONE: usize = 0;
    /// Signals that can end a child which does nothing about them.
    const DEADLY: &'static [i32] = &[libc::SIGKILL, libc::SIGTERM, libc::SIGSEGV];
    /// Sees to a death that a child can't bring about by itself.
    async fn strike(&self, _name: &str, _signal: i32) {}
    /// Holds starts back from now on.
    fn hold(&self) {}
    /// Lets them go.
    fn let_go(&self) {}
    /// Is it there, by the machine's own word? `None`: the machine does not know of it.
    fn is_there(&self, identity: &ChildIdentity) -> Option<bool>;
    async fn tear_down(self);

    fn can(what: Can) -> bool {
        Self::CAN.contains(&what)
    }

    /// Loads and starts.
    async fn start(&self, name: &str, behaviour: &Behaviour) {
        self.load(name, behaviour).await;
        self.lair()
            .handle
            .start(name, asker())
            .await
            .expect("a start");
    }

    /// Loads, starts and waits for its first word: its answer to signals is settled then.
    async fn up(&self, name: &str, behaviour: &Behaviour) {
        self.start(name, behaviour).await;
        let len = 3 + behaviour.out.len() as u64;
        self.lair()
            .until(name, "up", |s| s.state == "running" && s.logs.bytes >= len)
            .await;
    }

    /// Starts at the seam, without a runtime.
    async fn order(
        &self,
        name: &str,
        inc: u64,
        behaviour: &Behaviour,
    ) -> Result<Started, StartFault> {
        self.load(name, behaviour).await;
        self.again(name, inc).await
    }

    async fn again(&self, name: &str, inc: u64) -> Result<Started, StartFault> {
        let plan = self.lair().view(name).plan.clone();
        let id = ChildId::new(name);
        self.backend().start(StartOrder { id, inc, plan }).await
    }
}

// -- native ----------------------------------------------------------------------------------------------------------

struct Native {
    lair: Lair,
    keeper: KeeperClient,
    backend: Arc<NativeBackend>,
}

impl Harness for Native {
    const NAME: &'static str = "native";
    const OF_ONE: usize = 1;
    const CAN: &'static [Can] = &[Can::Stderr, Can::BigOutput, Can::Commands, Can::Processes];

    async fn set_up(story: &str) -> Self {
        let lair = Lair::start(story).await;
        let mut options = KeeperOptions::new();
        options.program = PathBuf::from(env!("CARGO_BIN_EXE_lair"));
        let keeper = KeeperClient::launch(options).await.expect("a keeper");
        let options = NativeOptions {
            instance: format!("{}-seam", std::process::id()),
            run_dir: lair.home.path().join("seam"),
        };
        let backend = Arc::new(NativeBackend::new(keeper.clone(), options));
        Native {
            lair,
            keeper,
            backend,
        }
    }

    fn lair(&self) -> &Lair {
        &self.lair
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    async fn load(&self, name: &str, b: &Behaviour) {
        let trap = match b.on_stop {
            Ok(ExitStatus::Code(code)) => format!("trap 'exit {code}' TERM; "),
            Ok(_) => String::new(),
            Err(Deaf) => "trap '' TERM; ".to_owned(),
        };
        let last = match (b.then, b.on_stop) {
            (Then::Exits(code), _) => format!("exit {code}"),
            (Then::Dies(signal), _) => format!("kill -{signal} $$"),
            (Then::Stays, Ok(ExitStatus::Code(_))) => "while :; do sleep 0.02; done".to_owned(),
            (Then::Stays, _) => "exec sleep 1000".to_owned(),
        };
        let big = match b.big {
            0 => String::new(),
            n => format!("head -c {n} /dev/zero | tr '\\0' x; "),
        };
        let script = format!(
            "{trap}printf 'up\\n{}'; printf '{}' >&2; {big}{last}",
            b.out, b.err
        );
        let program = self.lair.home.path().join(format!("{name}.sh"));
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a program");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
        self.lair
            .load(&manifest(name, &program.display().to_string()))
            .await
            .expect("a load");
        if b.missing {
            std::fs::remove_file(&program).expect("removed");
        }
    }

    fn hold(&self) {
        signal(self.lair.keeper().expect("a keeper"), libc::SIGSTOP);
        signal(self.keeper.keeper().pid, libc::SIGSTOP);
    }

    fn let_go(&self) {
        signal(self.lair.keeper().expect("a keeper"), libc::SIGCONT);
        signal(self.keeper.keeper().pid, libc::SIGCONT);
    }

    fn is_there(&self, identity: &ChildIdentity) -> Option<bool> {
        match identity {
            ChildIdentity::Native { pid, .. } => Some(is_alive(*pid)),
            ChildIdentity::Container { .. } | ChildIdentity::Sim { .. } => None,
        }
    }

    async fn tear_down(self) {
        self.keeper.shutdown().await;
        self.lair.end().await;
    }
}

fn manifest(name: &str, program: &str) -> String {
    format!(
        "name: {name}\nruntime:\n  native: {{ command: ['{program}'] }}\n  stop: {{ grace: 300ms }}\n"
    )
}

// -- sim -------------------------------------------------------------------------------------------------------------

struct Sim {
    lair: Lair,
    backend: Arc<SimBackend>,
}

impl Harness for Sim {
    const NAME: &'static str = "sim";
    const CAN: &'static [Can] = &[];

    async fn set_up(story: &str) -> Self {
        let clock = SystemClock::start();
        let backend = SimBackend::new(clock.clone());
        let backends = Backends {
            native: Some(backend.clone()),
            container: std::collections::BTreeMap::new(),
        };
        let lair = Lair::start_with(story, |o| o.simulated = Some((clock, backends))).await;
        Sim { lair, backend }
    }

    fn lair(&self) -> &Lair {
        &self.lair
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    async fn load(&self, name: &str, b: &Behaviour) {
        let gone = StartFault {
            stage: StartStage::Exec,
            errno: Some(libc::ENOENT),
            message: "scripted".into(),
            transient: false,
        };
        let script = Script {
            spawn_after: Duration::from_millis(if b.held { 300 } else { 0 }),
            fail: b.missing.then_some(gone).into_iter().collect(),
            exit_after: match b.then {
                Then::Stays => None,
                Then::Exits(code) => Some((Duration::from_millis(5), ExitStatus::Code(code))),
                Then::Dies(signal) => Some((Duration::from_millis(5), ExitStatus::Signal(signal))),
            },
            on_stop: match b.on_stop {
                Ok(status) => OnStop::Exit(Duration::from_millis(1), status),
                Err(Deaf) => OnStop::Ignore,
            },
            output: format!("up\n{}", b.out).into_bytes(),
            answers: Vec::new(),
        };
        self.backend.script(name, script);
        self.lair
            .load(&manifest(name, "/bin/true"))
            .await
            .expect("a load");
    }

    fn is_there(&self, _: &ChildIdentity) -> Option<bool> {
        None
    }

    async fn tear_down(self) {
        self.lair.end().await;
    }
}

// -- containers ------------------------------------------------------------------------------------------------------

/// One engine, by the socket that all tests share, with a gate before it.
struct Contained<const ENGINE: u8> {
    lair: Lair,
    gateway: Gateway,
    backend: Arc<ContainerBackend>,
}

const ENGINES: [&str; 3] = ["podman", "docker", "cli"];
type Podman = Contained<0>;
type Docker = Contained<1>;
type Cli = Contained<2>;

/// Docker's command, which asks the engine through the gate.
fn command_for(gate: &Path) -> PathBuf {
    let program = gate.with_file_name("docker");
    let docker = Kind::Docker.program();
    let text = format!(
        "#!/bin/sh\nexport DOCKER_HOST=unix://{}\nexec /usr/bin/docker \"$@\"\n",
        gate.display()
    );
    assert!(docker.exists(), "{}", docker.display());
    std::fs::write(&program, text).expect("a program");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
    program
}

impl<const ENGINE: u8> Harness for Contained<ENGINE> {
    const NAME: &'static str = ENGINES[ENGINE as usize];
    const CAN: &'static [Can] = &[Can::Stderr, Can::BigOutput, Can::Commands, Can::Processes];
    // The engine's init and the program.
    const OF_ONE: usize = 2;
    // The kernel keeps all others from the first process of a namespace that does not handle them.
    const DEADLY: &'static [i32] = &[libc::SIGKILL, libc::SIGSEGV];

    async fn set_up(story: &str) -> Self {
        let kind = if ENGINE == 0 {
            Kind::Podman
        } else {
            Kind::Docker
        };
        let home = Home::new("gate");
        let gateway = Gateway::before(&kind.socket(), home.path().join("engine.sock"));
        let mut places = EnginePlaces::default();
        match kind {
            Kind::Podman => places.podman.push(gateway.socket.clone()),
            Kind::Docker if ENGINE == 2 => places.cli.push(command_for(&gateway.socket)),
            Kind::Docker => places.docker.push(gateway.socket.clone()),
        }
        let engines = places.engines();
        let engine = engines.iter().find(|e| e.name() == Self::NAME).expect("it");
        let options = ContainerOptions {
            mark: None,
            instance: format!("seam{:x}{story}", std::process::id()),
            pull_within: SOON,
        };
        let backend = Arc::new(ContainerBackend::new(engine.clone(), options));
        std::mem::forget(home); // the gate's socket lies in it; Lair's own home is checked and removed
        let lair = Lair::start_with(story, |o| o.engines = Some(places)).await;
        Contained {
            lair,
            gateway,
            backend,
        }
    }

    fn lair(&self) -> &Lair {
        &self.lair
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    async fn load(&self, name: &str, b: &Behaviour) {
        let trap = match b.on_stop {
            Ok(ExitStatus::Code(code)) => format!("trap 'exit {code}' TERM; "),
            Ok(_) => String::new(),
            Err(Deaf) => "trap '' TERM; ".to_owned(),
        };
        let last = match (b.then, b.on_stop) {
            (Then::Exits(code), _) => format!("exit {code}"),
            // A fault of its own reaches even a first process. Docker shows a process only once it runs: what ends
            // before the first look is told by its code alone.
            (Then::Dies(libc::SIGSEGV), _) => "sleep 0.5; f() { f; }; f".to_owned(),
            (Then::Stays, Ok(ExitStatus::Code(_))) => "while :; do sleep 0.02; done".to_owned(),
            (Then::Stays | Then::Dies(_), _) => "exec sleep 1000".to_owned(),
        };
        let big = match b.big {
            0 => String::new(),
            n => format!("head -c {n} /dev/zero | tr '\\0' x; "),
        };
        let (out, err) = (&b.out, &b.err);
        let script = format!("{trap}printf 'up\\n{out}'; printf '{err}' >&2; {big}{last}");
        let command = if b.missing {
            serde_json::json!(["/nowhere/program"])
        } else {
            serde_json::json!(["/bin/sh", "-c", script])
        };
        // An init of the engine's tells a signal as a code, and finds out by itself that there is no program.
        let init = !matches!(b.then, Then::Dies(_)) && !b.missing;
        let image = image("base");
        let engine = Self::NAME;
        // An end is told when the engine has confirmed it, and each question to a command costs a process.
        let grace = if ENGINE == 2 { "2s" } else { "300ms" };
        let manifest = format!(
            "name: {name}\nruntime:\n  container: {{ image: '{image}', command: {command}, init: {init}, engine: {engine} }}\n  stop: {{ grace: {grace} }}\n"
        );
        self.lair.load(&manifest).await.expect("a load");
    }

    async fn strike(&self, name: &str, number: i32) {
        if number == libc::SIGKILL {
            let up = self.lair.until(name, "up", |s| s.pid.is_some()).await;
            signal(up.pid.expect("a pid"), number);
        }
    }

    fn hold(&self) {
        self.gateway.set(Gate::Held);
    }

    fn let_go(&self) {
        self.gateway.set(Gate::Open);
    }

    fn is_there(&self, identity: &ChildIdentity) -> Option<bool> {
        match identity {
            ChildIdentity::Container { init_pid, .. } => Some(init_pid.is_some_and(is_alive)),
            ChildIdentity::Native { .. } | ChildIdentity::Sim { .. } => None,
        }
    }

    async fn tear_down(self) {
        assert_eq!(self.backend.settle(SOON).await, 0, "containers left");
        self.lair.end().await;
        let _ = std::fs::remove_dir_all(self.gateway.socket.parent().expect("a folder"));
    }
}

// -- the stories -----------------------------------------------------------------------------------------------------

async fn end_of(handle: &Arc<dyn ChildHandle>) -> ChildExit {
    let exit = tokio::time::timeout(SOON, handle.exit()).await;
    exit.expect("an end in time")
}

/// Waits for the first bytes of a stream.
async fn first_bytes(fd: &OwnedFd) -> Vec<u8> {
    let mut buffer = [0; 64];
    let mut got = Vec::new();
    let look = async {
        while got.is_empty() {
            match rustix::io::read(fd, &mut buffer) {
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(SOON, look)
        .await
        .expect("output in time");
    got
}

async fn it_starts_and_says_who_it_is<H: Harness>() {
    let h = H::set_up("who").await;
    h.up("m", &Behaviour::default()).await;
    let (view, status) = (h.lair().view("m"), h.lair().status("m"));
    assert_eq!(
        (h.backend().name(), status.backend.as_str()),
        (H::NAME, H::NAME)
    );
    let identity = view.child.identity().expect("an identity");
    assert_eq!(h.is_there(identity), H::can(Can::Processes).then_some(true));
    assert_eq!(status.pid.is_some(), H::can(Can::Processes));
    assert_eq!(
        H::can(Can::Processes),
        view.handle.as_ref().expect("a grip").tree() != Tree::None
    );
    h.tear_down().await;
}

async fn a_code_is_kept_as_it_was<H: Harness>() {
    let h = H::set_up("code").await;
    for code in [0, 1, 2, 125, 126, 127, 128, 137, 255] {
        let name = format!("m{code}");
        h.start(&name, &then(Then::Exits(code))).await;
        let status = h.lair().wait(&name, WaitFor::Exited).await;
        let Some(exit) = status.exit.clone() else {
            panic!("no exit: {status:#?}");
        };
        assert_eq!(
            (exit.code, exit.signal, exit.by_us),
            (Some(code), None, None)
        );
    }
    h.tear_down().await;
}

async fn a_signal_is_no_code<H: Harness>() {
    let h = H::set_up("signal").await;
    for &number in H::DEADLY {
        let name = format!("m{number}");
        h.start(&name, &then(Then::Dies(number))).await;
        h.strike(&name, number).await;
        let status = h.lair().wait(&name, WaitFor::Exited).await;
        let Some(exit) = status.exit.clone() else {
            panic!("no exit: {status:#?}");
        };
        assert_eq!(
            (exit.code, exit.signal, exit.by_us),
            (None, Some(number), None)
        );
    }
    h.tear_down().await;
}

async fn success_and_failure_are_told_apart<H: Harness>() {
    let h = H::set_up("success").await;
    h.start("good", &then(Then::Exits(0))).await;
    h.start("bad", &then(Then::Exits(1))).await;
    h.lair().wait("good", WaitFor::Exited).await;
    h.lair().wait("bad", WaitFor::Exited).await;
    assert_eq!(h.lair().status("good").state, "stopped");
    assert_eq!(h.lair().status("bad").state, "failed");
    h.tear_down().await;
}

async fn all_output_is_in_the_files_when_the_end_is_told<H: Harness>() {
    let h = H::set_up("complete").await;
    for round in 0..20 {
        let name = format!("m{round}");
        let out = "line\n".repeat(200);
        h.start(
            &name,
            &Behaviour {
                out: out.replace('\n', "\\n"),
                ..then(Then::Exits(0))
            }
            .scripted::<H>(&out),
        )
        .await;
        // Read at the very moment at which the end is told.
        h.lair()
            .until(&name, "told", |_| h.lair().count(&name, "exited") == 1)
            .await;
        assert_eq!(
            h.lair().output(&name, "stdout"),
            format!("up\n{out}").as_bytes()
        );
    }
    h.tear_down().await;
}

impl Behaviour {
    /// The shell wants its newlines escaped, a script has them as they are.
    fn scripted<H: Harness>(mut self, plain: &str) -> Self {
        if !H::can(Can::Processes) {
            plain.clone_into(&mut self.out);
        }
        self
    }
}

async fn the_last_line_needs_no_newline<H: Harness>() {
    let h = H::set_up("tail").await;
    h.start(
        "m",
        &Behaviour {
            out: "tail".into(),
            ..then(Then::Exits(0))
        },
    )
    .await;
    h.lair().wait("m", WaitFor::Exited).await;
    assert_eq!(h.lair().output("m", "stdout"), b"up\ntail");
    h.tear_down().await;
}

async fn it_stops_when_asked<H: Harness>() {
    let h = H::set_up("stop").await;
    h.up("m", &Behaviour::default()).await;
    let down = h.lair().stop("m").await;
    let exit = down.exit.expect("an exit");
    assert_eq!(
        (exit.signal, exit.by_us, exit.killed_after_grace),
        (Some(15), Some(15), false)
    );
    assert_eq!(
        (down.state.as_str(), down.reason.is_none()),
        ("stopped", true)
    );
    h.tear_down().await;
}

async fn it_may_answer_a_stop_with_a_code<H: Harness>() {
    let h = H::set_up("answer").await;
    h.up(
        "m",
        &Behaviour {
            on_stop: Ok(ExitStatus::Code(5)),
            ..Behaviour::default()
        },
    )
    .await;
    let down = h.lair().stop("m").await;
    assert_eq!(
        (down.exit.expect("an exit").code, down.state.as_str()),
        (Some(5), "stopped")
    );
    h.tear_down().await;
}

async fn one_that_ignores_a_stop_is_killed_after_its_grace<H: Harness>() {
    let h = H::set_up("deaf").await;
    h.up("m", &deaf()).await;
    let began = Instant::now();
    let down = h.lair().stop("m").await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    let exit = down.exit.expect("an exit");
    assert_eq!(
        (exit.signal, exit.by_us, exit.killed_after_grace),
        (Some(9), Some(9), true)
    );
    assert_eq!(down.state, "stopped");
    assert_eq!(
        h.lair().view("m").child.phase,
        Phase::Down(DownReason::Requested)
    );
    h.tear_down().await;
}

async fn a_kill_ends_it_at_once<H: Harness>() {
    let h = H::set_up("kill").await;
    h.up("m", &deaf()).await;
    h.lair()
        .handle
        .kill("m", None, asker())
        .await
        .expect("a kill");
    let down = h.lair().wait("m", WaitFor::Stopped).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.killed_after_grace), (Some(9), false));
    assert_eq!(down.state, "stopped");
    h.tear_down().await;
}

async fn a_signal_alone_is_no_stop<H: Harness>() {
    let h = H::set_up("plain-signal").await;
    h.up("m", &Behaviour::default()).await;
    h.lair()
        .handle
        .kill("m", Some(libc::SIGTERM), asker())
        .await
        .expect("a signal");
    let down = h.lair().wait("m", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.by_us), (Some(15), Some(15)));
    assert_eq!(
        (down.state.as_str(), h.lair().count("m", "stopping")),
        ("failed", 0)
    );
    h.tear_down().await;
}

async fn a_stop_during_the_start_leaves_nothing<H: Harness>() {
    let h = H::set_up("abort").await;
    let held = Behaviour {
        held: true,
        ..Behaviour::default()
    };
    h.load("m", &held).await;
    h.hold();
    h.lair().handle.start("m", asker()).await.expect("a start");
    assert_eq!(h.lair().status("m").state, "starting");
    h.lair()
        .handle
        .stop("m", None, asker())
        .await
        .expect("a stop");
    h.let_go();
    let down = h.lair().wait("m", WaitFor::Stopped).await;
    assert_eq!((down.state.as_str(), down.run), ("stopped", 1));
    assert_eq!(
        h.lair().view("m").child.phase,
        Phase::Down(DownReason::Requested)
    );
    assert_eq!(h.lair().processes(), Vec::<i32>::new());
    h.tear_down().await;
}

async fn a_start_wished_for_again_during_its_end_comes_up<H: Harness>() {
    let h = H::set_up("abort-start").await;
    let held = Behaviour {
        held: true,
        ..Behaviour::default()
    };
    h.load("m", &held).await;
    h.hold();
    for _ in 0..3 {
        h.lair().handle.start("m", asker()).await.expect("a start");
        h.lair()
            .handle
            .stop("m", None, asker())
            .await
            .expect("a stop");
    }
    h.lair().handle.start("m", asker()).await.expect("a start");
    h.let_go();
    let up = h.lair().until("m", "up", |s| s.state == "running").await;
    assert!(up.pid.is_none_or(is_alive));
    h.lair().stop("m").await;
    h.tear_down().await;
}

async fn a_failed_start_says_where_and_why<H: Harness>() {
    let h = H::set_up("fault").await;
    h.start(
        "m",
        &Behaviour {
            missing: true,
            ..Behaviour::default()
        },
    )
    .await;
    let down = h.lair().wait("m", WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert_eq!(
        (reason.code.as_str(), reason.stage.as_deref()),
        ("start_failed", Some("exec"))
    );
    assert_eq!(
        (reason.errno.as_deref(), down.state.as_str()),
        (Some("ENOENT"), "failed")
    );
    assert!(down.exit.is_none() && down.pid.is_none());
    assert_eq!(
        h.lair().story("m"),
        "loaded#0 starting#1 start_failed#1 down#1"
    );
    h.tear_down().await;
}

async fn a_restart_is_told_in_order<H: Harness>() {
    let h = H::set_up("restart").await;
    h.up("m", &Behaviour::default()).await;
    let answer = h
        .lair()
        .handle
        .restart("m", None, asker())
        .await
        .expect("a restart");
    assert_eq!(answer.admission, Admission::Accepted { inc: 2 });
    h.lair()
        .until("m", "up again", |s| s.run == 2 && s.logs.bytes >= 3)
        .await;
    assert_eq!(
        h.lair().story("m"),
        "loaded#0 starting#1 running#1 ready#1 stopping#1 exited#1 starting#2 running#2 ready#2"
    );
    h.tear_down().await;
}

async fn a_second_start_is_somebody_else<H: Harness>() {
    let h = H::set_up("identity").await;
    let mut seen = Vec::new();
    h.load("m", &Behaviour::default()).await;
    for run in 1..=3 {
        h.lair().handle.start("m", asker()).await.expect("a start");
        h.lair()
            .until("m", "up", |s| s.run == run && s.state == "running")
            .await;
        let identity = h
            .lair()
            .view("m")
            .child
            .identity()
            .expect("an identity")
            .clone();
        assert!(!seen.contains(&identity), "{identity:?} of {seen:?}");
        seen.push(identity);
        h.lair().stop("m").await;
    }
    for gone in &seen {
        assert_ne!(h.is_there(gone), Some(true));
    }
    h.tear_down().await;
}

async fn the_end_can_be_asked_for_again<H: Harness>() {
    let h = H::set_up("again").await;
    let started = h
        .order("m", 1, &Behaviour::default())
        .await
        .expect("a start");
    let (early, also) = (started.handle.exit(), started.handle.exit());
    first_bytes(started.streams.stdout.as_ref().expect("a stream")).await;
    started.handle.signal(libc::SIGTERM, Scope::Group);
    let (early, also) = tokio::time::timeout(SOON, async { tokio::join!(early, also) })
        .await
        .expect("an end");
    let late = end_of(&started.handle).await;
    assert!(early == also && also == late, "{early:?} {also:?} {late:?}");
    assert_eq!(
        (late.status, late.by_us),
        (ExitStatus::Signal(15), Some(15))
    );
    assert_eq!((late.oom, late.leftover.len()), (Tri::No, 0));
    started.handle.release();
    assert_eq!(end_of(&started.handle).await, late);
    h.tear_down().await;
}

async fn signals_after_the_end_are_harmless<H: Harness>() {
    let h = H::set_up("late").await;
    let started = h
        .order("m", 1, &then(Then::Exits(7)))
        .await
        .expect("a start");
    let exit = end_of(&started.handle).await;
    started.handle.signal(libc::SIGTERM, Scope::All);
    started.handle.kill();
    assert_eq!(end_of(&started.handle).await, exit);
    assert_eq!((exit.status, exit.by_us), (ExitStatus::Code(7), None));
    started.handle.release();
    started.handle.release();
    h.tear_down().await;
}

async fn dropping_the_grip_ends_it<H: Harness>() {
    let h = H::set_up("drop").await;
    let Started {
        identity,
        streams,
        handle,
        ..
    } = h.order("m", 1, &deaf()).await.expect("a start");
    first_bytes(streams.stdout.as_ref().expect("a stream")).await;
    let exit = handle.exit();
    assert_ne!(h.is_there(&identity), Some(false));
    drop(handle);
    eventually("gone", || h.is_there(&identity) != Some(true)).await;
    eventually("all of it", || h.lair().processes().is_empty()).await;
    // Whoever still waits is told something, and nothing that was not seen.
    let exit = tokio::time::timeout(SOON, exit).await.expect("an answer");
    assert!(
        matches!(exit.status, ExitStatus::Unknown | ExitStatus::Signal(9)),
        "{exit:?}"
    );
    h.tear_down().await;
}

async fn dropping_a_start_leaves_nothing<H: Harness>() {
    let h = H::set_up("drop-start").await;
    let held = Behaviour {
        held: true,
        ..Behaviour::default()
    };
    h.load("m", &held).await;
    h.hold();
    let start = h.again("m", 1);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), start)
            .await
            .is_err(),
        "it was held"
    );
    h.let_go();
    // The next one is behind it, so when this is up the other was made, if it ever was.
    let next = h.again("m", 2).await.expect("a start");
    first_bytes(next.streams.stdout.as_ref().expect("a stream")).await;
    eventually("only the next", || h.lair().processes().len() == H::OF_ONE).await;
    drop(next.handle);
    eventually("nothing", || h.lair().processes().is_empty()).await;
    h.tear_down().await;
}

async fn a_release_forgets<H: Harness>() {
    let h = H::set_up("release").await;
    h.load("m", &then(Then::Exits(0))).await;
    let mut before = 0;
    for inc in 1..=30 {
        let started = h.again("m", inc).await.expect("a start");
        assert_eq!(end_of(&started.handle).await.status, ExitStatus::Code(0));
        started.handle.release();
        drop(started);
        if inc == 10 {
            before = descriptors();
        }
    }
    eventually("no descriptor more", || descriptors() <= before).await;
    h.tear_down().await;
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

async fn big_output_is_complete<H: Harness>() {
    let h = H::set_up("big").await;
    let big = if H::can(Can::BigOutput) { 4 << 20 } else { 0 };
    let out = "y".repeat(60_000);
    h.start(
        "m",
        &Behaviour {
            out: out.clone(),
            big,
            ..then(Then::Exits(0))
        },
    )
    .await;
    h.lair().wait("m", WaitFor::Exited).await;
    let got = h.lair().output("m", "stdout");
    assert_eq!(got.len(), 3 + out.len() + big);
    assert!(got.ends_with(&vec![b'x'; big]));
    assert_eq!(h.lair().status("m").logs.dropped, 0);
    h.tear_down().await;
}

async fn both_streams_are_kept_apart<H: Harness>() {
    let h = H::set_up("streams").await;
    let b = Behaviour {
        out: "to out".into(),
        err: "to err".into(),
        ..then(Then::Exits(0))
    };
    h.start("m", &b).await;
    h.lair().wait("m", WaitFor::Exited).await;
    assert_eq!(h.lair().output("m", "stdout"), b"up\nto out");
    let err: &[u8] = if H::can(Can::Stderr) { b"to err" } else { b"" };
    assert_eq!(h.lair().output("m", "stderr"), err);
    h.tear_down().await;
}

async fn a_command_runs_beside_it_if_the_backend_can<H: Harness>() {
    let h = H::set_up("command").await;
    h.up("m", &Behaviour::default()).await;
    let grip = h.lair().view("m").handle.clone().expect("a grip");
    let argv = ["/bin/sh", "-c", "echo said; exit 3"]
        .map(str::to_owned)
        .to_vec();
    match grip.run(argv, SOON).await {
        CommandOutcome::Ended { status, output } if H::can(Can::Commands) => {
            assert_eq!(
                (status, output.as_slice()),
                (ExitStatus::Code(3), b"said\n".as_slice())
            );
        }
        CommandOutcome::CouldNotRun(_) if !H::can(Can::Commands) => {}
        other => panic!("{other:?}"),
    }
    drop(grip);
    h.lair().stop("m").await;
    h.tear_down().await;
}

async fn twenty_live_side_by_side<H: Harness>() {
    let h = H::set_up("twenty").await;
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let out = format!("I am {n}");
        h.load(
            name,
            &Behaviour {
                out,
                ..Behaviour::default()
            },
        )
        .await;
    }
    for name in &names {
        h.lair().handle.start(name, asker()).await.expect("a start");
    }
    for (n, name) in names.iter().enumerate() {
        let len = format!("up\nI am {n}").len() as u64;
        h.lair().until(name, "up", |s| s.logs.bytes == len).await;
    }
    for name in &names {
        h.lair()
            .handle
            .stop(name, None, asker())
            .await
            .expect("a stop");
    }
    for (n, name) in names.iter().enumerate() {
        h.lair().wait(name, WaitFor::Stopped).await;
        assert_eq!(
            h.lair().output(name, "stdout"),
            format!("up\nI am {n}").as_bytes()
        );
        assert_eq!(
            (
                h.lair().count(name, "running"),
                h.lair().count(name, "exited")
            ),
            (1, 1)
        );
    }
    h.tear_down().await;
}

async fn what_is_so_already_needs_nothing<H: Harness>() {
    let h = H::set_up("already").await;
    h.load("m", &Behaviour::default()).await;
    let handle = &h.lair().handle;
    let stop = || async {
        handle
            .stop("m", None, asker())
            .await
            .expect("an answer")
            .admission
    };
    let start = || async {
        handle
            .start("m", asker())
            .await
            .expect("an answer")
            .admission
    };
    assert_eq!(stop().await, Admission::AlreadySatisfied { inc: 0 });
    assert_eq!(start().await, Admission::Accepted { inc: 1 });
    assert_eq!(start().await, Admission::AlreadySatisfied { inc: 1 });
    h.lair().until("m", "up", |s| s.state == "running").await;
    assert_eq!(start().await, Admission::AlreadySatisfied { inc: 1 });
    assert_eq!(stop().await, Admission::Accepted { inc: 1 });
    h.lair().wait("m", WaitFor::Stopped).await;
    assert_eq!(stop().await, Admission::AlreadySatisfied { inc: 1 });
    let killed = handle
        .kill("m", None, asker())
        .await
        .expect("an answer")
        .admission;
    assert_eq!(killed, Admission::AlreadySatisfied { inc: 1 });
    assert_eq!(h.lair().count("m", "exited"), 1);
    h.tear_down().await;
}

async fn each_life_ends_exactly_once<H: Harness>() {
    let h = H::set_up("once").await;
    h.load("m", &then(Then::Exits(0))).await;
    for run in 1..=25 {
        h.lair().handle.start("m", asker()).await.expect("a start");
        // Half of them are told to stop just as they end.
        if run % 2 == 0 {
            h.lair()
                .handle
                .stop("m", None, asker())
                .await
                .expect("a stop");
        }
        h.lair().wait("m", WaitFor::Stopped).await;
    }
    assert_eq!(h.lair().count("m", "starting"), 25);
    assert_eq!(
        h.lair().count("m", "running"),
        h.lair().count("m", "exited")
    );
    h.tear_down().await;
}

async fn an_end_has_its_evidence<H: Harness>() {
    let h = H::set_up("evidence").await;
    h.start("m", &then(Then::Exits(0))).await;
    h.lair().wait("m", WaitFor::Exited).await;
    let notices = h.lair().notices("m");
    let told = notices.iter().find_map(|n| match &n.kind {
        NoticeKind::Exited { status, evidence } => Some((*status, evidence.clone())),
        _ => None,
    });
    let (status, evidence) = told.expect("an end was told");
    assert_eq!(
        (status, evidence.by_us, evidence.oom),
        (ExitStatus::Code(0), None, Tri::No)
    );
    assert_eq!(
        (evidence.log_dropped, evidence.leftover.len(), evidence.core),
        (0, 0, Some(false))
    );
    h.tear_down().await;
}

async fn a_drain_ends_all_of_them<H: Harness>() {
    let h = H::set_up("drain").await;
    h.up("good", &Behaviour::default()).await;
    h.up("deaf", &deaf()).await;
    h.start("gone", &then(Then::Exits(0))).await;
    h.lair().wait("gone", WaitFor::Exited).await;
    let report = h
        .lair()
        .handle
        .drain(SOON, asker())
        .await
        .expect("a report");
    assert_eq!(
        (report.stopped, report.remaining.len()),
        (2, 0),
        "{report:?}"
    );
    assert_eq!(report.killed, [ChildId::new("deaf")]);
    let refused = h
        .lair()
        .handle
        .start("good", asker())
        .await
        .expect_err("draining");
    assert_eq!(refused.code, "draining");
    h.tear_down().await;
}

async fn it_can_what_is_written_here<H: Harness>() {
    let h = H::set_up("can").await;
    let can = match H::NAME {
        "sim" => vec![],
        _ => vec![Can::Stderr, Can::BigOutput, Can::Commands, Can::Processes],
    };
    assert_eq!(H::CAN, can, "nothing is left out but by design");
    h.tear_down().await;
}

macro_rules! conforms {
    ($($backend:ident: $harness:ty;)*) => { conforms!(@each [$($backend: $harness;)*]
        it_starts_and_says_who_it_is
        a_code_is_kept_as_it_was
        a_signal_is_no_code
        success_and_failure_are_told_apart
        all_output_is_in_the_files_when_the_end_is_told
        the_last_line_needs_no_newline
        it_stops_when_asked
        it_may_answer_a_stop_with_a_code
        one_that_ignores_a_stop_is_killed_after_its_grace
        a_kill_ends_it_at_once
        a_signal_alone_is_no_stop
        a_stop_during_the_start_leaves_nothing
        a_start_wished_for_again_during_its_end_comes_up
        a_failed_start_says_where_and_why
        a_restart_is_told_in_order
        a_second_start_is_somebody_else
        the_end_can_be_asked_for_again
        signals_after_the_end_are_harmless
        dropping_the_grip_ends_it
        dropping_a_start_leaves_nothing
        a_release_forgets
        big_output_is_complete
        both_streams_are_kept_apart
        a_command_runs_beside_it_if_the_backend_can
        twenty_live_side_by_side
        what_is_so_already_needs_nothing
        each_life_ends_exactly_once
        an_end_has_its_evidence
        a_drain_ends_all_of_them
        it_can_what_is_written_here
    ); };
    (@each [] $($story:ident)*) => {};
    (@each [$backend:ident: $harness:ty; $($more:tt)*] $($story:ident)*) => {
        mod $backend {
            $(#[tokio::test]
            async fn $story() {
                super::$story::<$harness>().await;
            })*
        }
        conforms!(@each [$($more)*] $($story)*);
    };
}

conforms! {
    native: crate::Native;
    sim: crate::Sim;
    podman: crate::Podman;
    docker: crate::Docker;
    cli: crate::Cli;
}
