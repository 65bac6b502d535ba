//! What every container engine must do at its seam, told once and run for each on the real engine.

mod support;

use lair::actors::backend::container::cli::Cli;
use lair::actors::backend::container::docker::Docker;
use lair::actors::backend::container::engine::{
    ConnectionEnd, ContainerState, CreateSpec, Engine, Network, Publish,
};
use lair::actors::backend::container::fault::{EngineFault, EngineFaultKind};
use lair::actors::backend::container::feed::Feed;
use lair::actors::backend::container::podman::Podman;
use lair::actors::backend::{CommandOutcome, Streams};
use lair::supervision::ExitStatus;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use support::engines::{Kind, image};
use support::{SOON, eventually};

/// An engine and the containers of one story, which are gone when it ends.
struct On {
    engine: Arc<dyn Engine>,
    kind: Kind,
    story: String,
}

impl On {
    fn labels(&self) -> BTreeMap<String, String> {
        [("lair.test.story".to_owned(), self.story.clone())].into()
    }

    fn name(&self, n: &str) -> String {
        format!("{}-{n}", self.story)
    }

    /// `sh -c SCRIPT` in the tiny image, as strict as can be.
    fn spec(&self, n: &str, script: &str) -> CreateSpec {
        CreateSpec {
            name: self.name(n),
            image: image("base"),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            tmpfs: vec!["/tmp".into()],
            user: Some("nobody".into()),
            read_only: true,
            no_new_privileges: true,
            pids: Some(64),
            memory: Some(64 << 20),
            cpu_milli: Some(1500),
            nofile: Some(256),
            labels: self.labels(),
            log_bytes: 1 << 20,
            ..CreateSpec::default()
        }
    }

    async fn create(&self, spec: CreateSpec) -> String {
        let made = self.engine.create(Arc::new(spec)).await;
        made.unwrap_or_else(|e| panic!("create: {e}"))
    }

    /// Creates, attaches, starts.
    async fn up(&self, spec: CreateSpec) -> (String, Streams) {
        let id = self.create(spec).await;
        let (feed, streams) = Feed::new().expect("pipes");
        self.engine.attach(&id, feed).await.expect("attached");
        self.engine.start(&id).await.expect("started");
        (id, streams)
    }

    async fn state(&self, id: &str) -> ContainerState {
        let facts = self.engine.inspect(id).await.expect("an answer");
        facts.expect("a container").state
    }

    /// Waits for its end by the engine's word and returns the exit code.
    async fn end(&self, id: &str) -> i64 {
        tokio::time::timeout(SOON, self.engine.wait(id))
            .await
            .expect("an end in time")
            .expect("an end");
        let look = async {
            loop {
                let facts = self.engine.inspect(id).await.expect("an answer");
                if let Some(code) = facts.expect("a container").exit_code {
                    return code;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, look).await.expect("a code")
    }
}

impl Drop for On {
    fn drop(&mut self) {
        let label = format!("label=lair.test.story={}", self.story);
        let left = self.kind.cli(&["ps", "-aq", "--filter", &label]);
        for id in left.split_whitespace() {
            // Without a timeout of 0 Podman asks it to stop, for ten seconds.
            let zero: &[&str] = match self.kind {
                Kind::Podman => &["rm", "-f", "-t", "0", id],
                Kind::Docker => &["rm", "-f", id],
            };
            self.kind.cli(zero);
        }
    }
}

async fn read_all(fd: OwnedFd) -> Vec<u8> {
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).expect("a pipe");
    let mut bytes = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut pipe, &mut bytes);
    tokio::time::timeout(SOON * 2, read)
        .await
        .expect("an end of the stream")
        .expect("bytes");
    bytes
}

async fn both(streams: Streams) -> (Vec<u8>, Vec<u8>) {
    let (out, err) = (streams.stdout.expect("out"), streams.stderr.expect("err"));
    tokio::join!(read_all(out), read_all(err))
}

fn kind_of<T>(answer: Result<T, EngineFault>) -> Option<EngineFaultKind> {
    answer.err().map(|fault| fault.kind)
}

async fn a_life_from_create_to_remove(on: On) {
    let (id, streams) = on.up(on.spec("a", "echo out; echo err >&2; exit 7")).await;
    assert_eq!(on.end(&id).await, 7);
    let (out, err) = both(streams).await;
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    on.engine.remove(&id).await.expect("removed");
    assert!(on.engine.inspect(&id).await.expect("an answer").is_none());
    on.engine.remove(&id).await.expect("gone already is fine");
    on.engine
        .signal(&id, 9)
        .await
        .expect("gone already is fine");
    on.engine.wait(&id).await.expect("gone already is fine");
}

/// L1, L2: what it says comes as it was said, odd bytes and all.
async fn every_byte_comes_as_it_was_said(on: On) {
    let mut spec = on.spec("a", "");
    (spec.image, spec.command) = (image("lines"), vec!["3".into()]);
    let (id, streams) = on.up(spec).await;
    let (out, err) = both(streams).await;
    assert_eq!(on.end(&id).await, 3);
    let mut want = b"out 1\nout 2\npartial, no newline yet... and its end\nprogress 10%\rprogress 50%\rprogress 100%\n".to_vec();
    want.extend_from_slice(b"\x1b[31mred\x1b[0m text\nbytes that are not UTF-8: \xff\xfe\x80 end\na NUL here: \0 end\n\n");
    want.extend_from_slice(&[b'a'; 16384]);
    want.extend_from_slice(b"|16384\n");
    want.extend_from_slice(&[b'b'; 100_000]);
    want.extend_from_slice(b"|100000\nCRLF line\r\nlast line without newline");
    assert!(out == want, "{} bytes came of {}", out.len(), want.len());
    assert_eq!(err, b"err 1\nerr 2\n");
}

/// L3: nothing is lost under flood, and a reader that is late holds it up instead.
async fn a_flood_is_complete(on: On) {
    let mut spec = on.spec("a", "");
    (spec.image, spec.command) = (image("flood"), vec!["60000".into(), "120".into()]);
    let (id, streams) = on.up(spec).await;
    // Far more than all buffers on the way: it can't end before somebody reads.
    assert_ne!(on.state(&id).await, ContainerState::Exited);
    let (out, err) = both(streams).await;
    assert_eq!(on.end(&id).await, 0);
    let lines = out.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    for (n, line) in lines.clone().take(60_000).enumerate() {
        assert!(
            line.starts_with(format!("{} x", n + 1).as_bytes()),
            "line {n}"
        );
    }
    assert_eq!((lines.count(), err.len()), (60_001, 0));
}

/// Least privilege, by the word of those inside: no capability, no new ones, a read-only root, no network but a loopback.
async fn it_is_locked_up_by_the_word_of_those_inside(on: On) {
    let look = "grep -E '^(NoNewPrivs|CapEff|CapBnd|Seccomp):' /proc/self/status; id -u; touch /x 2>/dev/null && echo wrote; touch /tmp/x && echo tmp; \
                ls /sys/class/net; ls -d /run/*.sock /var/run/*.sock /run/podman 2>/dev/null; ulimit -n; ls /proc | grep -c '^[0-9]'; exit 0";
    let (_, streams) = on.up(on.spec("a", look)).await;
    let (out, err) = both(streams).await;
    let out = String::from_utf8_lossy(&out).replace('\t', " ");
    let words: Vec<&str> = out.lines().collect();
    let zero = "0000000000000000";
    assert_eq!(
        words[..7],
        [
            format!("CapEff: {zero}").as_str(),
            format!("CapBnd: {zero}").as_str(),
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "65534",
            "tmp",
            "lo"
        ],
        "{out} {}",
        String::from_utf8_lossy(&err)
    );
    assert_eq!(words[7], "256", "no socket of an engine; descriptors");
    assert!(
        words[8].parse::<u32>().expect("a number") < 8,
        "it sees its own processes only"
    );
}

/// What is in force is read back from the engine.
async fn what_is_in_force_is_told(on: On) {
    let (id, _streams) = on.up(on.spec("a", "exec sleep 1000")).await;
    let facts = on
        .engine
        .inspect(&id)
        .await
        .expect("an answer")
        .expect("it");
    let now = facts.applied;
    assert_eq!(facts.state, ContainerState::Running);
    assert_eq!(facts.name, on.name("a"));
    assert!(facts.pid.is_some_and(support::is_alive));
    assert_eq!(facts.labels.get("lair.test.story"), Some(&on.story));
    assert_eq!(
        (now.user.as_deref(), now.capabilities),
        (Some("nobody"), Some(vec![]))
    );
    assert_eq!(
        (now.no_new_privileges, now.read_only, now.privileged),
        (Some(true), Some(true), Some(false))
    );
    assert_eq!(
        (now.pids, now.memory, now.cpu_milli),
        (Some(64), Some(64 << 20), Some(1500))
    );
    assert_eq!(
        (now.network.as_deref(), now.ports),
        (Some("none"), Some(vec![]))
    );
    assert!(
        matches!(now.restart.as_deref(), Some("no" | "")),
        "{:?}",
        now.restart
    );
}

async fn start_and_signals_may_come_twice(on: On) {
    let (id, _streams) = on
        .up(on.spec("a", "trap 'exit 4' TERM; while :; do sleep 0.05; done"))
        .await;
    on.engine.start(&id).await.expect("started already is fine");
    on.engine
        .signal(&id, libc::SIGTERM)
        .await
        .expect("a signal");
    on.engine
        .signal(&id, libc::SIGTERM)
        .await
        .expect("a signal");
    assert_eq!(on.end(&id).await, 4);
    on.engine
        .signal(&id, libc::SIGTERM)
        .await
        .expect("ended already is fine");
}

/// G6: a container that is frozen can be thawed, and removed as it is.
async fn one_that_is_frozen_can_be_removed(on: On) {
    let (id, _streams) = on.up(on.spec("a", "exec sleep 1000")).await;
    on.engine.pause(&id).await.expect("paused");
    assert_eq!(on.state(&id).await, ContainerState::Paused);
    on.engine.unpause(&id).await.expect("thawed");
    on.engine
        .unpause(&id)
        .await
        .expect("thawed already is fine");
    assert_eq!(on.state(&id).await, ContainerState::Running);
    on.engine.pause(&id).await.expect("paused");
    on.engine.remove(&id).await.expect("removed");
    assert!(on.engine.inspect(&id).await.expect("an answer").is_none());
}

async fn a_command_inside_has_its_output_and_code(on: On) {
    let mut spec = on.spec("a", "exec sleep 1000");
    spec.env.insert("ASKED".into(), "yes".into());
    let (id, _streams) = on.up(spec).await;
    let run = async |script: &str, timeout| {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        on.engine
            .exec(&id, argv, "LAIR_EXEC=here".into(), timeout)
            .await
    };
    let ended = |code, output: &str| CommandOutcome::Ended {
        status: ExitStatus::Code(code),
        output: output.as_bytes().to_vec(),
    };
    let said = run("echo $ASKED $LAIR_EXEC; id -u; exit 3", SOON).await;
    assert_eq!(said, ended(3, "yes here\n65534\n"));
    let CommandOutcome::Ended { output, .. } = run("yes | head -c 200000", SOON).await else {
        panic!("it ended")
    };
    assert_eq!(output.len(), 64 << 10);
    assert_eq!(
        run("sleep 1000", Duration::from_millis(300)).await,
        CommandOutcome::TimedOut
    );
    let none = on
        .engine
        .exec(&id, vec!["/nope".into()], "A=b".into(), SOON)
        .await;
    assert!(matches!(none, CommandOutcome::CouldNotRun(_)), "{none:?}");
}

async fn each_fault_has_its_kind(on: On) {
    use EngineFaultKind as K;
    let mut spec = on.spec("image", "true");
    spec.image = "lair-test/not-there:1".into();
    assert_eq!(on.engine.find_image(&spec.image).await, Ok(None));
    assert_eq!(
        kind_of(on.engine.create(Arc::new(spec)).await),
        Some(K::NoSuchImage)
    );
    on.create(on.spec("twice", "true")).await;
    let again = on.engine.create(Arc::new(on.spec("twice", "true"))).await;
    assert_eq!(kind_of(again), Some(K::NameTaken));
    let mut spec = on.spec("program", "");
    spec.command = vec!["/no/such".into()];
    let id = on.create(spec).await;
    assert_eq!(on.fails(&id).await, K::NoSuchCommand);
    let mut spec = on.spec("mount", "true");
    spec.mounts
        .push(lair::actors::backend::container::engine::BindMount {
            source: "/no/such/folder".into(),
            target: "/data".into(),
            read_only: false,
        });
    let made = match on.engine.create(Arc::new(spec)).await {
        Ok(id) => Some(on.fails(&id).await),
        refused => kind_of(refused),
    };
    assert_eq!(made, Some(K::NoSuchMount));
    assert!(!std::path::Path::new("/no/such/folder").exists());
    assert_eq!(on.engine.inspect("no-such-container").await, Ok(None));
    assert_eq!(
        kind_of(on.engine.start("no-such-container").await),
        Some(K::NoSuchContainer)
    );
}

impl On {
    /// Its start must fail.
    async fn fails(&self, id: &str) -> EngineFaultKind {
        let (feed, _streams) = Feed::new().expect("pipes");
        let attached = self.engine.attach(id, feed).await;
        let done = match attached {
            Ok(_) => self.engine.start(id).await,
            Err(fault) => Err(fault),
        };
        kind_of(done).expect("a fault")
    }
}

/// D5: ports are published on the loopback address alone, and one that is taken is said to be.
async fn a_port_is_published_on_the_loopback_alone(on: On) {
    let free = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("its address").port()
    };
    let serve = |n: &str, port| {
        let mut spec = on.spec(n, "");
        (spec.image, spec.command) = (image("serve"), vec![]);
        let host_ip = "127.0.0.1".to_owned();
        spec.network = Network::Private(vec![Publish {
            host_ip,
            host_port: port,
            port: 8080,
        }]);
        spec
    };
    let port = free();
    let (id, _streams) = on.up(serve("a", port)).await;
    let published = on
        .engine
        .inspect(&id)
        .await
        .expect("an answer")
        .expect("it")
        .applied
        .ports;
    assert_eq!(published.expect("ports")[0].host_port, port);
    eventually("an answer on its port", || {
        use std::io::{Read, Write};
        let Ok(mut peer) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
            return false;
        };
        let mut text = String::new();
        let _ = peer.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = peer.read_to_string(&mut text);
        text.contains("hello from")
    })
    .await;
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    let at = format!(":{port:04X} 00000000:0000 0A");
    let listeners: Vec<&str> = table.lines().filter(|l| l.contains(&at)).collect();
    assert!(
        listeners.iter().all(|l| l.contains("0100007F:")),
        "{listeners:?}"
    );
    let wide = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    assert!(!wide.contains(&at), "{wide}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().expect("its address").port();
    let id = on.create(serve("b", taken_port)).await;
    assert_eq!(on.fails(&id).await, EngineFaultKind::PortTaken);
}

async fn they_are_listed_by_label_and_counted(on: On) {
    let (id, _streams) = on.up(on.spec("a", "exec sleep 1000")).await;
    let other = on.create(on.spec("b", "true")).await;
    let mut listed = on.engine.list(on.labels()).await.expect("a list");
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(
        listed.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(),
        [id.as_str(), other.as_str()]
    );
    assert_eq!(
        (listed[0].state, listed[1].state),
        (ContainerState::Running, ContainerState::Created)
    );
    assert_eq!(listed[1].name, on.name("b"));
    let none = BTreeMap::from([("lair.test.story".to_owned(), "nobody's".to_owned())]);
    assert_eq!(on.engine.list(none).await, Ok(vec![]));
    let stats = on.engine.stats(&id).await;
    if on.engine.name() == "cli" {
        return assert_eq!(kind_of(stats), Some(EngineFaultKind::Unsupported));
    }
    let stats = stats.expect("numbers");
    assert!(stats.pids == 1 && stats.memory > 0, "{stats:?}");
}

/// L3: what the engine kept can be read back later.
async fn the_engines_own_log_has_both_streams(on: On) {
    let (id, streams) = on
        .up(on.spec("a", "echo one; echo two >&2; printf three"))
        .await;
    both(streams).await;
    on.end(&id).await;
    let (feed, kept) = Feed::new().expect("pipes");
    let handing_on = on.engine.logs(&id, None, feed).await.expect("a log");
    let ((out, err), whole) = tokio::join!(both(kept), async {
        handing_on
            .await
            .is_ok_and(|ended| ended.end == ConnectionEnd::Whole)
    });
    assert!(whole, "it ended as it should");
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (&b"one\nthree"[..], &b"two\n"[..])
    );
}

async fn it_says_who_it_is(on: On) {
    let info = on.engine.info().await.expect("an answer");
    on.engine.ping().await.expect("a sign of life");
    assert!(
        info.version.starts_with(|c: char| c.is_ascii_digit()),
        "{info:?}"
    );
    assert!(!info.rootless);
    let facts = on
        .engine
        .find_image(&image("serve"))
        .await
        .expect("an answer")
        .expect("it");
    assert!(facts.id.len() >= 64, "{}", facts.id);
    assert_eq!(facts.exposed, [8080]);
    let check = facts.healthcheck.expect("its health check");
    assert_eq!((check.argv[0].as_str(), check.retries), ("/bin/wget", 2));
    assert_eq!(
        (check.interval, check.timeout, check.start_period),
        (
            Duration::from_secs(1),
            Duration::from_secs(2),
            Duration::from_secs(2)
        )
    );
    let redis = on
        .engine
        .find_image(&image("redis"))
        .await
        .expect("an answer")
        .expect("it");
    assert_eq!(redis.user, "nobody");
}

macro_rules! engines {
    ($($engine:ident: $kind:expr, $make:expr;)*) => { engines!(@each [$($engine: $kind, $make;)*]
        a_life_from_create_to_remove
        every_byte_comes_as_it_was_said
        a_flood_is_complete
        it_is_locked_up_by_the_word_of_those_inside
        what_is_in_force_is_told
        start_and_signals_may_come_twice
        one_that_is_frozen_can_be_removed
        a_command_inside_has_its_output_and_code
        each_fault_has_its_kind
        a_port_is_published_on_the_loopback_alone
        they_are_listed_by_label_and_counted
        the_engines_own_log_has_both_streams
        it_says_who_it_is
    ); };
    (@each [] $($story:ident)*) => {};
    (@each [$engine:ident: $kind:expr, $make:expr; $($more:tt)*] $($story:ident)*) => {
        mod $engine {
            $(#[tokio::test]
            async fn $story() {
                let (engine, kind) = ($make, $kind);
                let story = format!("engines-{}-{}-{}", std::process::id(), stringify!($engine), stringify!($story));
                super::$story(super::On { engine, kind, story }).await;
            })*
        }
        engines!(@each [$($more)*] $($story)*);
    };
}

fn docker() -> Arc<dyn Engine> {
    Arc::new(Docker::at(&Kind::Docker.socket()))
}

fn podman() -> Arc<dyn Engine> {
    Arc::new(Podman::at(&Kind::Podman.socket()))
}

fn cli(kind: Kind) -> Arc<dyn Engine> {
    Arc::new(Cli::of(&[kind.program()]))
}

engines! {
    podman: super::Kind::Podman, super::podman();
    docker: super::Kind::Docker, super::docker();
    cli_podman: super::Kind::Podman, super::cli(super::Kind::Podman);
    cli_docker: super::Kind::Docker, super::cli(super::Kind::Docker);
}
