//! Family F of the fault matrix, end to end: probes of real modules, slow loads and stuck ones, and what they say of
//! themselves.

#[path = "support/machine.rs"]
mod machine;
mod support;

use lair::WaitFor;
use lair::actors::fault::{ActorKind, Fault};
use lair::actors::status::ModuleStatus;
use lair::actors::view::HealthWord;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::{Lair, is_alive, processes_with, word};

impl Lair {
    fn heard(&self, name: &str, which: &str) -> usize {
        self.notices(name)
            .iter()
            .filter(|n| word(&n.kind) == which)
            .count()
    }

    fn file(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }
}

fn reason(status: &ModuleStatus) -> String {
    status.health.reason.clone().unwrap_or_default()
}

/// A probe as a script; `more` are its thresholds.
fn probe(kind: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!("    {kind}: {{ command: [/bin/sh, -c, {script}], {more} }}")
}

fn health(probes: &[String]) -> String {
    format!("  health:\n{}", probes.join("\n"))
}

const FOREVER: &str = "exec sleep 1000";

// F1
#[tokio::test]
async fn a_flapping_probe_moves_readiness_only_at_its_thresholds() {
    let lair = Lair::start("flap").await;
    // Successes and failures in turn, never three alike in a row, then three failures, then three successes.
    let counter = lair.file("n");
    let script = format!(
        "n=$(cat {counter} 2>/dev/null || echo 0); n=$((n+1)); echo $n > {counter}
         case $n in 1|2|4|5|7|8) exit 0;; 3|6|9) exit 1;; 10|11|12) exit 0;; 13|14) exit 1;; 15) exit 0;;
         16|17|18) exit 1;; *) exit 0;; esac"
    );
    let more = "interval: 50ms, timeout: 5s, failures: 3, successes: 3";
    lair.sh("m", FOREVER, &health(&[probe("readiness", &script, more)]))
        .await;
    lair.until("m", "ready, not, and again", |_| {
        lair.heard("m", "ready") == 2
    })
    .await;
    assert_eq!(lair.heard("m", "not_ready"), 1);
    let asked: u32 = std::fs::read_to_string(&counter)
        .expect("a count")
        .trim()
        .parse()
        .expect("a number");
    assert!(
        (21..24).contains(&asked),
        "ready again with the {asked}st answer"
    );
    lair.end().await;
}

// F2
#[tokio::test]
async fn a_hanging_command_times_out_alone_and_is_gone_with_all_it_started() {
    let lair = Lair::start("hang").await;
    let mark = format!("HANGING_{}", std::process::id());
    let script = format!(
        "export {mark}=1; echo go >> {}; sleep 1000 & sleep 1000",
        lair.file("asked")
    );
    let more = "interval: 50ms, timeout: 200ms, failures: 2";
    lair.sh("m", FOREVER, &health(&[probe("liveness", &script, more)]))
        .await;
    let sick = lair
        .until("m", "unhealthy", |s| {
            s.health.state == HealthWord::Unhealthy
        })
        .await;
    assert!(reason(&sick).contains("200 ms"), "{}", reason(&sick));
    assert_eq!(sick.state, "running", "reported, and nothing else");
    let asked = std::fs::read_to_string(lair.file("asked"))
        .expect("asked")
        .lines()
        .count();
    // One shell and its two sleepers at most: never two probes at once.
    assert!(processes_with(&mark).len() <= 3, "{asked} asked");
    lair.stop("m").await;
    lair.until("m", "cleared", |_| processes_with(&mark).is_empty())
        .await;
    lair.end().await;
}

// F2
#[tokio::test]
async fn a_listener_that_never_answers_fails_by_time() {
    let lair = Lair::start("silent").await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let more = format!(
        "    liveness: {{ http: {{ port: {port} }}, interval: 50ms, timeout: 150ms, failures: 2 }}"
    );
    lair.sh("m", FOREVER, &health(&[more])).await;
    let sick = lair
        .until("m", "unhealthy", |s| {
            s.health.state == HealthWord::Unhealthy
        })
        .await;
    assert!(
        reason(&sick).contains("did not answer within 150 ms"),
        "{}",
        reason(&sick)
    );
    lair.end().await;
}

// F3
#[tokio::test]
async fn what_a_probe_leaves_in_the_background_is_removed_with_it() {
    let lair = Lair::start("leak").await;
    let mark = format!("LEAKED_{}", std::process::id());
    let script = format!("export {mark}=1; sleep 1000 & setsid sleep 1000 & exit 1");
    let more = "interval: 50ms, timeout: 5s, failures: 2";
    lair.sh("m", FOREVER, &health(&[probe("liveness", &script, more)]))
        .await;
    lair.until("m", "unhealthy", |s| {
        s.health.state == HealthWord::Unhealthy
    })
    .await;
    let up = lair.status("m");
    lair.stop("m").await;
    lair.until("m", "cleared", |_| processes_with(&mark).is_empty())
        .await;
    assert!(!is_alive(up.pid.expect("a pid")));
    lair.end().await;
}

// F4
#[tokio::test]
async fn a_probe_that_cannot_run_changes_nothing_and_is_seen() {
    let lair = Lair::start("missing").await;
    let missing = "    liveness: { command: [/nowhere/at/all], interval: 50ms, failures: 1, on_failure: restart }";
    lair.sh("m", FOREVER, &health(&[missing.into()])).await;
    let seen = lair
        .until("m", "seen", |s| reason(s).contains("/nowhere/at/all"))
        .await;
    assert_eq!(
        (seen.state.as_str(), seen.health.state),
        ("running", HealthWord::Unknown)
    );
    assert_eq!(lair.story("m").matches("stopping").count(), 0);
    lair.end().await;
}

// F5
#[tokio::test]
async fn hostile_answers_cost_bounded_time_and_no_redirect_is_followed() {
    let lair = Lair::start("hostile").await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = elsewhere.local_addr().expect("an address");
    let cases = [
        ("slow", "slow", HealthWord::Unhealthy),
        ("endless", "endless", HealthWord::Healthy),
        ("reset", "reset", HealthWord::Unhealthy),
        ("redirect", "redirect", HealthWord::Healthy),
        ("noise", "noise", HealthWord::Unhealthy),
    ];
    for (name, how, _) in cases {
        let port = hostile(how, other.to_string());
        let more = format!(
            "    liveness: {{ http: {{ port: {port} }}, interval: 50ms, timeout: 1s, failures: 1 }}"
        );
        lair.sh(name, FOREVER, &health(&[more])).await;
    }
    for (name, _, want) in cases {
        lair.until(name, "judged", |s| s.health.state == want).await;
    }
    elsewhere.set_nonblocking(true).expect("set");
    assert!(elsewhere.accept().is_err(), "the redirect was followed");
    lair.end().await;
}

/// A server that answers each connection badly; it lives as long as the test's process.
fn hostile(how: &'static str, elsewhere: String) -> u16 {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let elsewhere = elsewhere.clone();
            std::thread::spawn(move || -> std::io::Result<()> {
                let _ = peer.read(&mut [0; 1024])?;
                match how {
                    "slow" => loop {
                        peer.write_all(b"H")?;
                        std::thread::sleep(Duration::from_millis(300));
                    },
                    "endless" => {
                        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")?;
                        loop {
                            peer.write_all(&[b'x'; 65536])?;
                        }
                    }
                    "reset" => peer.write_all(b"HTTP/1.1 200"),
                    "redirect" => write!(
                        peer,
                        "HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
                    ),
                    _ => peer.write_all(&[0xff; 4096]),
                }
            });
        }
    });
    port
}

// F6
#[tokio::test]
async fn a_module_that_is_stopping_is_neither_ready_nor_unhealthy() {
    let lair = Lair::start("stopping").await;
    let more = "interval: 50ms, timeout: 1s, failures: 1";
    let good = lair.file("good");
    std::fs::write(&good, "").expect("a file");
    let script = format!("test -e {good}");
    let probes = [
        probe("readiness", &script, more),
        probe("liveness", &script, &format!("{more}, on_failure: restart")),
    ];
    // It takes its time to stop, and from then on its probes would fail.
    let slow = format!("trap 'rm -f {good}; sleep 1; exit 0' TERM; while :; do sleep 0.05; done");
    lair.sh("m", &slow, &health(&probes)).await;
    lair.until("m", "healthy", |s| {
        s.ready && s.health.state == HealthWord::Healthy
    })
    .await;
    lair.handle
        .stop("m", None, support::asker())
        .await
        .expect("a stop");
    let stopping = lair.status("m");
    assert_eq!(
        (stopping.state.as_str(), stopping.ready),
        ("stopping", false)
    );
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.state, "stopped");
    let sick = |n: &std::sync::Arc<lair::supervision::Notice>| {
        serde_json::to_string(&n.kind).is_ok_and(|t| t.contains("unhealthy"))
    };
    assert!(!lair.notices("m").iter().any(sick), "{}", lair.story("m"));
    lair.end().await;
}

// F7
#[tokio::test]
async fn liveness_is_silent_until_startup_has_succeeded() {
    let lair = Lair::start("gate").await;
    let (up, asked) = (lair.file("up"), lair.file("asked"));
    let more = "interval: 50ms, timeout: 1s, failures: 1";
    let probes = [
        probe("startup", &format!("test -e {up}"), "interval: 50ms"),
        probe(
            "liveness",
            &format!("echo >> {asked}; exit 1"),
            &format!("{more}, on_failure: restart"),
        ),
    ];
    lair.sh("m", FOREVER, &health(&probes)).await;
    lair.until("m", "asked", |s| reason(s).contains("exited with 1"))
        .await;
    assert_eq!(lair.status("m").state, "running");
    assert!(
        !std::path::Path::new(&asked).exists(),
        "liveness was asked before startup had passed"
    );
    std::fs::write(&up, "").expect("up");
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.reason.expect("a reason").code, "unhealthy");
    lair.end().await;
}

// F8
#[tokio::test]
async fn probes_go_on_after_the_health_actor_died_and_nothing_false_is_said() {
    let lair = Lair::start_with("prober", |o| o.faults = true).await;
    let (good, asked) = (lair.file("good"), lair.file("asked"));
    std::fs::write(&good, "").expect("good");
    let script = format!("echo >> {asked}; test -e {good}");
    let more = "interval: 50ms, timeout: 5s, failures: 2";
    let probes = [
        probe("readiness", &script, more),
        probe("liveness", &script, more),
    ];
    lair.sh("m", FOREVER, &health(&probes)).await;
    lair.until("m", "healthy", |s| {
        s.ready && s.health.state == HealthWord::Healthy
    })
    .await;
    for _ in 0..5 {
        let fault = Fault::PanicActor {
            which: ActorKind::Health,
            id: None,
        };
        lair.handle
            .inject(fault, "story", support::asker())
            .await
            .expect("an open gate");
        let before = lines(&asked);
        assert_eq!(lair.status("m").state, "running");
        lair.until("m", "asked again", |_| lines(&asked) > before + 2)
            .await;
    }
    assert_eq!(
        (lair.heard("m", "ready"), lair.heard("m", "not_ready")),
        (1, 0)
    );
    assert_eq!(lair.heard("m", "health"), 1, "{}", lair.story("m"));
    std::fs::remove_file(&good).expect("bad");
    lair.until("m", "judged", |s| {
        !s.ready && s.health.state == HealthWord::Unhealthy
    })
    .await;
    lair.end().await;
}

fn lines(file: &str) -> usize {
    std::fs::read_to_string(file).map_or(0, |t| t.lines().count())
}

// F9
#[tokio::test]
async fn a_host_that_slept_kills_nothing_for_deadlines_it_missed_itself() {
    if !machine::is_alone() {
        return outlive_a_sleep().await;
    }
    let lair = Lair::start("asleep").await;
    let more = "interval: 100ms, timeout: 600ms, failures: 1, on_failure: restart";
    let probes = [
        probe(
            "readiness",
            "sleep 0.2",
            "interval: 100ms, timeout: 600ms, failures: 1",
        ),
        probe("liveness", "sleep 0.2", more),
    ];
    lair.sh("m", FOREVER, &health(&probes)).await;
    // A watchdog that nobody could hear while lair slept.
    let ping = r#"import os,socket,time
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.connect(os.environ["NOTIFY_SOCKET"])
while 1: s.send(b"WATCHDOG=1"); time.sleep(.05)"#;
    let watchdog = "  health: { liveness: { notify: true, interval: 100ms, timeout: 500ms, failures: 1, on_failure: restart } }";
    std::fs::write(lair.file("ping.py"), ping).expect("a script");
    lair.sh(
        "dog",
        &format!("exec python3 {}", lair.file("ping.py")),
        watchdog,
    )
    .await;
    lair.until("m", "healthy", |s| s.health.state == HealthWord::Healthy)
        .await;
    lair.until("dog", "healthy", |s| s.health.state == HealthWord::Healthy)
        .await;
    let out = std::env::var("LAIR_TEST_OUT").expect("a place to say so");
    let keeper = lair.keeper().expect("a keeper").to_string();
    std::fs::write(format!("{out}/new"), keeper).expect("said");
    std::fs::rename(format!("{out}/new"), format!("{out}/healthy")).expect("said");
    let woken = format!("{out}/woken");
    lair.until("m", "woken", |_| std::path::Path::new(&woken).exists())
        .await;
    // Several rounds of probes after the sleep.
    let checked = lair.status("m").health.checked;
    lair.until("m", "asked again", |s| s.health.checked > checked)
        .await;
    for name in ["m", "dog"] {
        let again = Instant::now() + Duration::from_secs(2);
        lair.until(name, "asked for a while", |_| Instant::now() > again)
            .await;
        let story = lair.story(name);
        assert!(
            !story.contains("stopping") && !story.contains("not_ready"),
            "{name}: {story}"
        );
    }
    lair.end().await;
}

async fn outlive_a_sleep() {
    let out = support::Home::new("sleeper");
    let name = "a_host_that_slept_kills_nothing_for_deadlines_it_missed_itself";
    let mut inside = machine::alone(name);
    inside.env("LAIR_TEST_OUT", out.path());
    inside
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = inside.spawn().expect("a process");
    let pid = child.id().cast_signed();
    machine::eventually("healthy", support::SOON, || {
        out.path().join("healthy").exists() || child.try_wait().is_ok_and(|s| s.is_some())
    });
    let keeper = std::fs::read_to_string(out.path().join("healthy")).expect("its keeper");
    let keeper: i32 = keeper.parse().expect("a pid");
    machine::signal(pid, libc::SIGSTOP);
    machine::signal(keeper, libc::SIGSTOP);
    // The sleep is the fault here, not a synchronisation.
    std::thread::sleep(Duration::from_secs(4));
    // The runtime wakes first: what it had asked of its keeper is late, and that is nobody's failure.
    machine::signal(pid, libc::SIGCONT);
    std::thread::sleep(Duration::from_millis(100));
    machine::signal(keeper, libc::SIGCONT);
    std::fs::write(out.path().join("woken"), "").expect("said");
    let output = child.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

// Startup: stall
#[tokio::test]
async fn a_slow_load_that_prints_reads_or_computes_is_left_alone_and_a_stuck_one_is_ended() {
    let lair = Lair::start("stall").await;
    let stall = "  health: { startup: { fd: true, stall: 2s } }";
    let cases = [
        (
            "prints",
            "n=0; while [ $n -lt 12 ]; do n=$((n+1)); echo $n; sleep 0.5; done",
        ),
        (
            "computes",
            "end=$(($(date +%s) + 6)); while [ $(date +%s) -lt $end ]; do :; done",
        ),
        (
            "reads",
            "n=0; while [ $n -lt 12 ]; do n=$((n+1)); head -c 3000000 /dev/zero > load; cat load > /dev/null; sleep 0.5; done",
        ),
    ];
    for (name, load) in cases {
        let script = format!(
            "cd {}; {load}; eval \"echo >&$LAIR_READY_FD\"; exec sleep 1000",
            lair.file("")
        );
        lair.sh(name, &script, stall).await;
    }
    lair.sh("stuck", "exec sleep 1000", stall).await;
    for (name, _) in cases {
        lair.wait(name, WaitFor::Ready).await;
    }
    let down = lair.wait("stuck", WaitFor::Stopped).await;
    let why = down.reason.expect("a reason");
    assert_eq!(
        (down.state.as_str(), why.code.as_str()),
        ("failed", "not_ready_in_time"),
        "{why:?}"
    );
    lair.end().await;
}

// Startup: descriptor
#[tokio::test]
async fn a_newline_on_the_ready_descriptor_makes_it_ready_and_not_before() {
    let lair = Lair::start("fd").await;
    let go = lair.file("go");
    let script = format!(
        "while ! test -e {go}; do sleep 0.02; done; eval \"echo >&$LAIR_READY_FD\"; exec sleep 1000"
    );
    lair.sh("m", &script, "  health: { ready: fd }").await;
    lair.until("m", "running", |s| s.state == "running").await;
    assert!(!lair.status("m").ready);
    std::fs::write(&go, "").expect("go");
    lair.wait("m", WaitFor::Ready).await;
    assert_eq!(
        lair.story("m"),
        "loaded#0 starting#1 running#1 ready#1 health#1"
    );
    lair.end().await;
}

// Startup: notify
#[tokio::test]
async fn ready_on_the_notify_socket_counts_from_the_module_and_from_no_stranger() {
    let lair = Lair::start("notify").await;
    let go = lair.file("go");
    let say = r#"import os,socket,sys
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.sendto(sys.argv[2].encode(),sys.argv[1])"#;
    std::fs::write(lair.file("say.py"), say).expect("a script");
    let stranger = r#"import fcntl,socket,struct,sys,termios
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.connect(sys.argv[1]);s.send(b"READY=1\nSTATUS=forged")
while struct.unpack("i",fcntl.ioctl(s,termios.TIOCOUTQ,b"\0"*4))[0]: pass
print("taken",flush=True);sys.stdin.read()"#;
    std::fs::write(lair.file("stranger.py"), stranger).expect("a script");
    let tell = format!("python3 {} $NOTIFY_SOCKET", lair.file("say.py"));
    let script = format!(
        "echo $NOTIFY_SOCKET > {sock}.new; mv {sock}.new {sock}; {tell} STATUS=loading
         while ! test -e {go}; do sleep 0.02; done; {tell} READY=1; exec sleep 1000",
        sock = lair.file("sock")
    );
    lair.sh("m", &script, "  health: { startup: { notify: true } }")
        .await;
    lair.until("m", "loading", |_| {
        std::path::Path::new(&lair.file("sock")).exists()
    })
    .await;
    let socket = std::fs::read_to_string(lair.file("sock")).expect("a path");
    let stranger = std::process::Command::new("python3")
        .args([lair.file("stranger.py").as_str(), socket.trim()])
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a stranger");
    let mut stranger = machine::Doomed(stranger);
    // It lives on, and says when its word was taken from the socket.
    let mut heard = stranger.0.stdout.take().expect("its words");
    let taken = tokio::task::spawn_blocking(move || std::io::Read::read(&mut heard, &mut [0; 6]));
    let taken = tokio::time::timeout(support::SOON, taken)
        .await
        .expect("in time");
    assert!(
        taken.is_ok_and(|t| t.is_ok_and(|n| n > 0)),
        "the stranger could not even speak"
    );
    assert!(!lair.status("m").ready, "a stranger was believed");
    let before = now_ms();
    std::fs::write(&go, "").expect("go");
    lair.wait("m", WaitFor::Ready).await;
    let notices = lair.notices("m");
    let ready: Vec<_> = notices
        .iter()
        .filter(|n| word(&n.kind) == "ready")
        .collect();
    assert!(
        ready.len() == 1 && ready[0].wall_ms >= before,
        "a stranger was believed"
    );
    lair.end().await;
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0))
}
