//! Families X and M, through the library: a machine that runs out of things, and manifests that mean harm.
//! The daemon's side of X (signals, streams, descriptors of its own) is in `bridge_machine.rs`.

#[path = "support/machine.rs"]
mod machine;
mod support;

use lair::{LoadOptions, ManifestSource, RuntimeHandle, WaitFor};
use machine::{Doomed, PidsGroup};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Lair, asker, sh};

fn nofile(limit: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(limit);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a limit");
}

// X1
#[tokio::test]
async fn without_descriptors_starts_fail_for_now_and_what_runs_goes_on() {
    let name = "without_descriptors_starts_fail_for_now_and_what_runs_goes_on";
    if !machine::is_alone() {
        return machine::run_alone(name, |_| {});
    }
    let lair = Lair::start("nofile").await;
    lair.sh("up", "while :; do echo x; sleep 0.05; done", "")
        .await;
    lair.load(&sh("m", "exec sleep 1000", ""))
        .await
        .expect("loaded");
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let bytes = lair
        .until("up", "talking", |s| s.logs.bytes > 2)
        .await
        .logs
        .bytes;
    nofile(lowest_free());
    lair.handle.start("m", asker()).await.expect("asked");
    let down = lair.until("m", "refused", |s| s.state == "failed").await;
    let why = down.reason.expect("a reason");
    assert_eq!(why.code, "start_failed", "{why:?}");
    assert_eq!(why.errno.as_deref(), Some("EMFILE"), "{why:?}");
    lair.until("up", "going on", |s| s.logs.bytes > bytes + 4)
        .await;
    assert_eq!(lair.status("up").state, "running");
    nofile(before.expect("a limit"));
    lair.handle.start("m", asker()).await.expect("asked again");
    lair.wait("m", WaitFor::Ready).await;
    lair.end().await;
}

fn lowest_free() -> u64 {
    let open = |fd: &u64| Path::new(&format!("/proc/self/fd/{fd}")).exists();
    (0..).find(|fd| !open(fd)).expect("a free number")
}

// X2
#[tokio::test]
async fn without_processes_a_start_fails_for_now_and_comes_by_itself_when_there_is_room() {
    let Some(group) = PidsGroup::new("full", 10_000) else {
        return;
    };
    let lair = Lair::start("nopids").await;
    lair.sh("up", "exec sleep 1000", "").await;
    lair.wait("up", WaitFor::Ready).await;
    let keeper = lair.handle.info()["keeper_pid"].as_i64().expect("a keeper");
    group.join(i32::try_from(keeper).expect("a pid"));
    group.limit(1);
    let patient = "  restart: { policy: on-failure, max: 100, within: 1m, backoff: { first: 200ms, cap: 200ms } }";
    lair.sh("once", "exec sleep 1000", "").await;
    let down = lair.until("once", "refused", |s| s.state == "failed").await;
    let why = down.reason.expect("a reason");
    assert_eq!(
        (why.code.as_str(), why.errno.as_deref()),
        ("start_failed", Some("EAGAIN")),
        "{why:?}"
    );
    lair.sh("m", "exec sleep 1000", patient).await;
    lair.until("m", "waiting", |s| {
        s.state == "backoff" && s.restarts.count >= 2
    })
    .await;
    assert_eq!(lair.status("up").state, "running");
    group.limit(10_000);
    lair.wait("m", WaitFor::Ready).await;
    assert_eq!(
        lair.status("once").state,
        "failed",
        "nobody asked for it again"
    );
    lair.end().await;
}

// X3
#[tokio::test]
async fn a_fork_bomb_stays_within_its_limit_and_a_stop_removes_all_of_it() {
    let group = PidsGroup::new("bomb", 60).expect("this test makes a pids cgroup");
    let lair = Lair::start("bomb").await;
    lair.sh("up", "exec sleep 1000", "").await;
    lair.wait("up", lair::WaitFor::Ready).await;
    let bomb = format!(
        "echo $$ > {}/cgroup.procs; f() {{ f | f & }}; f; exec sleep 1000",
        group.0.display()
    );
    lair.sh("bomb", &bomb, "  stop: { grace: 1s }").await;
    // It burns out by itself sooner or later, so how many are there now proves nothing.
    lair.until("bomb", "full", |_| group.was_full()).await;
    let asked = Instant::now();
    assert_eq!(lair.status("up").state, "running");
    assert!(asked.elapsed() < Duration::from_secs(1));
    let down = lair.stop("bomb").await;
    assert_eq!(down.state, "stopped", "{down:?}");
    assert_eq!(group.members(), 0);
    lair.end().await;
}

// X4
#[tokio::test]
async fn on_a_starved_machine_nothing_is_killed_for_our_own_lateness() {
    let name = "on_a_starved_machine_nothing_is_killed_for_our_own_lateness";
    if !machine::is_alone() {
        let hogs: Vec<Doomed> = (0..4)
            .map(|_| {
                Doomed(
                    Command::new("/bin/sh")
                        .args(["-c", "while :; do :; done"])
                        .spawn()
                        .expect("a hog"),
                )
            })
            .collect();
        let mut inside = machine::alone(name);
        let mut nice = Command::new("nice");
        nice.args(["-n", "10"])
            .arg(inside.get_program())
            .args(inside.get_args());
        nice.env("LAIR_TEST_ALONE", "1");
        inside = nice;
        let output = inside.output().expect("the process");
        drop(hogs);
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        return;
    }
    let lair = Lair::start("starved").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let probe = format!(
        "  health: {{ liveness: {{ tcp: {{ port: {port} }}, interval: 50ms, timeout: 100ms, failures: 1, on_failure: restart }} }}"
    );
    lair.sh("m", "exec sleep 1000", &probe).await;
    lair.until("m", "healthy", |s| {
        s.health.state == lair::actors::view::HealthWord::Healthy
    })
    .await;
    let later = Instant::now() + Duration::from_secs(4);
    lair.until("m", "probed for a while", |_| Instant::now() > later)
        .await;
    assert_eq!(
        (lair.status("m").state.as_str(), lair.status("m").run),
        ("running", 1),
        "{}",
        lair.story("m")
    );
    drop(listener);
    lair.end().await;
}

const SECRET: &str = "hunter2-not-to-be-seen";

// X7
#[tokio::test]
async fn a_secret_is_in_the_modules_environment_and_nowhere_else() {
    let name = "a_secret_is_in_the_modules_environment_and_nowhere_else";
    if !machine::is_alone() {
        return machine::run_alone(name, |_| {});
    }
    let logged = capture_everything();
    let lair = Lair::start_with("secrets", |o| o.faults = true).await;
    let env = "  restart: { policy: never }\n  health: { liveness: { command: [\"false\"], interval: 50ms } }";
    let with_secret = |name: &str, command: &str| {
        let manifest = sh(name, command, env);
        manifest.replace(
            "  native: { command",
            &format!("  native: {{ env: {{ TOKEN: \"{SECRET}\" }}, command"),
        )
    };
    let knows = format!("test \"$TOKEN\" = {SECRET} && echo known; exec sleep 1000");
    // The value must not be in the command: the module compares it with a file.
    std::fs::write(lair.home.path().join("value"), SECRET).expect("a file");
    let knows = knows.replace(
        SECRET,
        &format!("\"$(cat {}/value)\"", lair.home.path().display()),
    );
    lair.load(&with_secret("m", &knows)).await.expect("loaded");
    lair.handle.start("m", asker()).await.expect("a start");
    lair.until("m", "knowing", |s| s.logs.bytes == 6).await;
    let broken = with_secret("broken", "true").replace("/bin/sh", "/nowhere");
    let refused = lair.load(&broken).await;
    let misspelt = with_secret("typo", "true").replace("restart:", "restrat:");
    let invalid = lair.load(&misspelt).await.expect_err("a misspelt key");
    let mut said = format!("{refused:?} {invalid:?} {invalid}");
    said += &format!("{:?} {:?}", lair.status("m"), lair.notices("m"));
    said += &format!("{:?}", lair.view("m").plan);
    said += &serde_json::to_string(&*lair.view("m").plan).expect("text");
    said += &serde_json::to_string(&lair.status("m")).expect("text");
    said += &format!("{}{}", lair.handle.info(), lair.handle.doctor());
    let source = ManifestSource::Text {
        text: with_secret("x", "true"),
        dir: None,
        trusted: true,
    };
    said += &format!("{:?}", lair.handle.explain("m"));
    let _ = source;
    let keeper = lair.handle.info()["keeper_pid"].as_i64().expect("a keeper");
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{keeper}/{file}")).expect("the keeper's");
        said += &String::from_utf8_lossy(&bytes);
    }
    lair.stop("m").await;
    said += &String::from_utf8_lossy(&logged.lock().expect("the log"));
    assert!(!said.contains(SECRET), "{said}");
    std::fs::remove_file(lair.home.path().join("value")).expect("removed");
    let found = Command::new("grep")
        .args(["-r", "-l", SECRET])
        .arg(lair.home.path())
        .output()
        .expect("grep");
    assert!(
        found.stdout.is_empty(),
        "in {}",
        String::from_utf8_lossy(&found.stdout)
    );
    lair.end().await;
}

/// All that lair says of itself, at every level.
fn capture_everything() -> std::sync::Arc<std::sync::Mutex<Vec<u8>>> {
    #[derive(Clone)]
    struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink(Default::default());
    let log = sink.0.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    subscriber.with_writer(move || sink.clone()).init();
    log
}

// X9
#[test]
fn an_odd_umask_locale_zone_or_a_removed_folder_change_nothing() {
    let name = "an_odd_umask_locale_zone_or_a_removed_folder_change_nothing";
    if machine::is_alone() {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio");
        return tokio.block_on(in_an_odd_place());
    }
    for umask in ["000", "077", "777"] {
        let gone = support::Home::new("gone");
        let inside = machine::alone(name);
        let mut shell = Command::new("/bin/sh");
        let script = format!("umask {umask}; rmdir \"$PWD\"; exec \"$@\"");
        shell
            .args(["-c", &script, "sh"])
            .arg(inside.get_program())
            .args(inside.get_args());
        shell
            .current_dir(gone.path())
            .env("LAIR_TEST_ALONE", "1")
            .env("LC_ALL", "tr_TR.UTF-8")
            .env("TZ", "Pacific/Chatham");
        let output = shell.output().expect("the process");
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "umask {umask}: {text}");
    }
}

async fn in_an_odd_place() {
    let home = std::path::PathBuf::from(format!("/tmp/lair-odd-{}", std::process::id()));
    // The story's own folder shall be one that can be used, whatever the umask.
    std::fs::create_dir(&home).expect("a folder");
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let folders = lair::Folders::below(&home);
    let mut options = lair::RuntimeOptions::new(Default::default(), folders.clone());
    options.keeper = env!("CARGO_BIN_EXE_lair").into();
    let runtime = lair::Runtime::start(options).await.expect("a runtime");
    let handle: RuntimeHandle = runtime.handle().clone();
    let source = ManifestSource::Text {
        text: sh("m", "umask; pwd; echo $TZ", ""),
        dir: None,
        trusted: true,
    };
    handle
        .load(source, LoadOptions::default(), asker())
        .await
        .expect("loaded");
    handle.start("m", asker()).await.expect("a start");
    let down = handle
        .wait("m", WaitFor::Stopped, Some(support::SOON))
        .await
        .expect("down");
    assert_eq!(down.exit.expect("an exit").code, Some(0));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(
        [&folders.state, &folders.logs, &folders.run].map(|p| mode(p)),
        [0o750, 0o750, 0o700]
    );
    let dir = folders.logs.join("m");
    assert_eq!((mode(&dir), mode(&dir.join("1.0.log"))), (0o750, 0o640));
    let said = String::from_utf8(support::read_stream(&dir, "stdout")).expect("text");
    assert!(said.ends_with("/\nPacific/Chatham\n"), "{said}");
    let started = down.started_at.expect("a time");
    assert!(started.ends_with('Z') && started.len() == 24, "{started}");
    runtime.shutdown(support::SOON).await;
    std::fs::remove_dir_all(home).expect("removed");
}

async fn refused(lair: &Lair, text: &str) -> String {
    let refused = lair.load(text).await.expect_err("refused");
    assert_eq!(refused.code, "invalid_manifest", "{refused}");
    assert!(lair.handle.list().1.is_empty(), "something was loaded");
    refused.message
}

// M1
#[tokio::test]
async fn a_misspelt_key_is_refused_with_its_place_and_what_was_meant() {
    let lair = Lair::start("typo").await;
    let why = refused(&lair, &sh("m", "true", "  restrat: { policy: always }")).await;
    assert!(why.contains("restrat") && why.contains("restart"), "{why}");
    let why = refused(&lair, &sh("m", "true", "  restart: { polcy: always }")).await;
    assert!(why.contains("polcy"), "{why}");
    let why = refused(&lair, &sh("m", "true", "  restart: { policy: permament }")).await;
    assert!(why.contains("did you mean `permanent`"), "{why}");
    lair.end().await;
}

// M2
#[tokio::test]
async fn hostile_manifests_are_refused_in_bounded_time_and_leave_nothing_loaded() {
    let lair = Lair::start("hostile").await;
    let asked = Instant::now();
    for name in [
        "../../escape",
        "/etc",
        "a/b",
        "..",
        "",
        "A",
        "x y",
        "é",
        &"x".repeat(64),
    ] {
        refused(&lair, &sh(&format!("{name:?}"), "true", "")).await;
    }
    let one = |name: &str| {
        sh(name, "true", "")
            .replace('\n', "\n    ")
            .trim_end()
            .to_owned()
    };
    let twins = format!("modules:\n  - {}\n  - {}\n", one("twin"), one("twin"));
    refused(&lair, &twins).await;
    let half = format!("modules:\n  - {}\n  - {}\n", one("good"), one("../bad"));
    refused(&lair, &half).await;
    refused(&lair, &format!("name: {}\n", "x".repeat(20 << 20))).await;
    refused(&lair, &"[".repeat(100_000)).await;
    refused(
        &lair,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    )
    .await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert!(!lair.home.path().join("escape").exists());
    lair.end().await;
}

// M2
#[tokio::test]
async fn files_that_are_no_manifests_are_refused_in_bounded_time() {
    let lair = Lair::start("files").await;
    let at = |name: &str| lair.home.path().join(name);
    let fifo = Command::new("mkfifo").arg(at("fifo")).status();
    assert!(fifo.is_ok_and(|s| s.success()));
    std::fs::create_dir(at("folder")).expect("made");
    symlink(at("loop"), at("loop")).expect("planted");
    std::fs::write(at("bytes"), [0xff; 100]).expect("written");
    let big = std::fs::File::create(at("big")).expect("made");
    big.set_len(1 << 40).expect("sparse");
    for name in ["fifo", "folder", "loop", "bytes", "big", "missing"] {
        let load = lair.handle.load(
            ManifestSource::File(at(name)),
            LoadOptions::default(),
            asker(),
        );
        let answer = tokio::time::timeout(Duration::from_secs(10), load)
            .await
            .expect("in time");
        let refused = answer.expect_err(name);
        assert_eq!(refused.code, "invalid_manifest", "{name}: {refused}");
        assert!(refused.message.contains(name), "{refused}");
    }
    assert!(lair.handle.list().1.is_empty());
    lair.end().await;
}

// M2
#[tokio::test]
async fn a_stack_with_one_bad_module_loads_none_of_it() {
    let lair = Lair::start("stack").await;
    let one = |name: &str, program: &str| {
        let text = sh(name, "true", "").replace("/bin/sh", program);
        text.replace('\n', "\n    ").trim_end().to_owned()
    };
    let stack = format!(
        "modules:\n  - {}\n  - {}\n",
        one("good", "/bin/sh"),
        one("bad", "no-such-program")
    );
    let refused = lair
        .load(&stack)
        .await
        .expect_err("a program that is not there");
    assert_eq!(refused.code, "program_missing", "{refused}");
    assert!(lair.handle.list().1.is_empty(), "half a stack was loaded");
    assert!(
        lair.handle
            .events(lair::supervision::Seq(0), 10)
            .notices
            .is_empty()
    );
    lair.end().await;
}

// M3
#[tokio::test]
async fn extremes_are_taken_exactly_or_refused_by_name() {
    let lair = Lair::start("extremes").await;
    let bad = [
        ("stop: { grace: -1s }", "grace"),
        ("stop: { grace: 9223372036854775808s }", "grace"),
        ("stop: { grace: 5 }", "grace"),
        ("restart: { policy: always, max: -1 }", "max"),
        (
            "restart: { policy: always, max: 18446744073709551616 }",
            "max",
        ),
        (
            "restart: { policy: always, backoff: { factor: .nan } }",
            "factor",
        ),
        ("logs: { max_files: 0 }", "max_files"),
        ("logs: { max_size: 1B }", "max_size"),
        ("ports: { api: 0 }", "api"),
        ("ports: { api: 65536 }", "api"),
        ("success: { codes: [256] }", "codes"),
        ("resources: { memory: { limit: 1.5 } }", "limit"),
    ];
    for (line, key) in bad {
        let why = refused(&lair, &sh("m", "true", &format!("  {line}"))).await;
        assert!(why.contains(key), "{line}: {why}");
    }
    let good = "  stop: { grace: 1h }\n  restart: { policy: always, max: 0, within: 30d, backoff: { first: 0s, cap: 1d } }";
    lair.load(&sh("m", "exit 1", good)).await.expect("exactly");
    let spec = lair.view("m").plan.spec.clone();
    assert_eq!(
        (spec.grace, spec.intensity.max),
        (Duration::from_secs(3600), 0)
    );
    lair.handle.start("m", asker()).await.expect("a start");
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(
        (down.run, down.restarts.count),
        (1, 0),
        "no restart allowed means none"
    );
    lair.end().await;
}
