//! Servers that mean harm, over real sockets, and commands that leave something behind, as real processes.

use crate::support::FakeHandle;
use lair_actors::backend::{BoxFuture, ChildExit, ChildHandle, CommandOutcome, Tree};
use lair_actors::probe::{Look, look};
use lair_manifests::launch::ProbeAction;
use lair_supervision::ProbeOutcome::{CouldNotRun, Failure, Success, TimedOut};
use lair_supervision::{ExitStatus, Scope};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_millis(600);

/// Serves one connection with `talk`, after the request has been read.
fn server(talk: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        talk(stream);
    });
    port
}

fn http(port: u16, expect: Option<u16>) -> ProbeAction {
    ProbeAction::Http {
        address: "127.0.0.1".into(),
        port,
        path: "/health".into(),
        expect,
    }
}

async fn ask(action: ProbeAction) -> Look {
    let handle = Arc::new(FakeHandle::new([]));
    let begun = Instant::now();
    let look = look(&action, handle, TIMEOUT).await;
    assert!(begun.elapsed() < 5 * TIMEOUT, "{look:?}");
    look
}

fn answers(head: &'static str) -> u16 {
    server(move |mut stream| {
        let _ = write!(stream, "HTTP/1.1 {head}\r\ncontent-length: 2\r\n\r\nok");
    })
}

#[tokio::test]
async fn the_status_decides_and_the_evidence_says_it() {
    let port = answers("503 Loading");
    let look = ask(http(port, None)).await;
    assert_eq!(look.outcome, Failure);
    let said = format!("GET http://127.0.0.1:{port}/health answered 503 in ");
    assert!(look.evidence().starts_with(&said), "{}", look.evidence());
    assert!(look.evidence().ends_with(" ms"));
    assert_eq!(ask(http(answers("204 No"), None)).await.outcome, Success);
    assert_eq!(
        ask(http(answers("200 OK"), Some(200))).await.outcome,
        Success
    );
    assert_eq!(
        ask(http(answers("204 No"), Some(200))).await.outcome,
        Failure
    );
    assert_eq!(
        ask(http(answers("503 No"), Some(503))).await.outcome,
        Success
    );
}

/// F5
#[tokio::test]
async fn headers_at_a_byte_a_moment_run_into_the_timeout() {
    let port = server(|mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nx-slow: "
            .iter()
            .chain([b'x'; 500].iter())
        {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let look = ask(http(port, None)).await;
    assert_eq!(look.outcome, TimedOut);
    assert!(look.evidence().contains("did not answer within 600 ms"));
}

/// F5
#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let port = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(ask(http(port, None)).await.outcome, Failure);
}

/// F5
#[tokio::test]
async fn of_a_huge_body_little_is_read_and_the_status_counts() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let port = server(move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
        while stream.write_all(&[b'x'; 65536]).is_ok() {
            counted.fetch_add(65536, Ordering::SeqCst);
        }
    });
    assert_eq!(ask(http(port, None)).await.outcome, Success);
    // What the kernel's buffers took is not ours to count: far from a gibibyte is what matters.
    assert!(sent.load(Ordering::SeqCst) < 64 << 20);
}

/// F5
#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let from = server(move |mut stream| {
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n"
        );
    });
    let look = ask(http(from, None)).await;
    assert_eq!(look.outcome, Success);
    assert!(look.said.ends_with("answered 302"));
    assert!(elsewhere.accept().is_err(), "nobody came");
}

/// F5
#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure() {
    let port = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    });
    let look = ask(http(port, None)).await;
    assert_eq!(look.outcome, Failure);
    assert!(look.said.ends_with("answered 200 and broke off"));
    assert_eq!(ask(http(server(drop), None)).await.outcome, Failure);
    let nonsense = server(|mut stream| {
        let _ = stream.write_all(b"-ERR unknown command\r\n\r\n");
    });
    assert_eq!(ask(http(nonsense, None)).await.outcome, Failure);
}

/// F2, F5
#[tokio::test]
async fn silence_times_out_for_http_and_is_enough_for_tcp() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    assert_eq!(ask(http(port, None)).await.outcome, TimedOut);
    let tcp = |port| ProbeAction::Tcp {
        address: "127.0.0.1".into(),
        port,
    };
    assert_eq!(ask(tcp(port)).await.outcome, Success);
    drop(silent);
    let look = ask(tcp(port)).await;
    assert_eq!(look.outcome, Failure);
    assert_eq!(
        look.said,
        format!("connecting to 127.0.0.1:{port} was refused")
    );
}

#[tokio::test]
async fn a_name_is_not_looked_up_anywhere() {
    let action = ProbeAction::Tcp {
        address: "localhost".into(),
        port: 1,
    };
    assert_eq!(ask(action).await.outcome, CouldNotRun);
}

/// Runs commands as real processes in a group of their own, as a backend does: the group never outlives the answer.
struct Processes;

impl ChildHandle for Processes {
    fn signal(&self, _signal: i32, _scope: Scope) {}
    fn kill(&self) {}
    fn exit(&self) -> BoxFuture<ChildExit> {
        Box::pin(std::future::pending())
    }
    fn run(&self, argv: Vec<String>, timeout: Duration) -> BoxFuture<CommandOutcome> {
        let work = tokio::task::spawn_blocking(move || run(&argv, timeout));
        Box::pin(async move { work.await.unwrap() })
    }
    fn tree(&self) -> Tree {
        Tree::None
    }
    fn release(&self) {}
}

fn run(argv: &[String], timeout: Duration) -> CommandOutcome {
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .process_group(0)
        .stdout(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return CommandOutcome::CouldNotRun(error.to_string()),
    };
    let deadline = Instant::now() + timeout;
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    loop {
        let status = child.try_wait().unwrap();
        if status.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
        return match status {
            None => CommandOutcome::TimedOut,
            Some(status) => CommandOutcome::Ended {
                status: status.code().map_or_else(
                    || ExitStatus::Signal(status.signal().unwrap_or(0)),
                    ExitStatus::Code,
                ),
                output: Vec::new(),
            },
        };
    }
}

/// F2, F3, F4
#[tokio::test]
async fn real_commands_fail_hang_and_are_missing_each_in_their_own_way() {
    let sh = |script: &str| ProbeAction::Command(["sh", "-c", script].map(String::from).into());
    let ask = async |action: ProbeAction| look(&action, Arc::new(Processes), TIMEOUT).await;
    assert_eq!(ask(sh("exit 0")).await.outcome, Success);
    let failed = ask(sh("sleep 1000 & exit 3")).await;
    assert_eq!(
        (failed.outcome, failed.said.as_str()),
        (Failure, "`sh` exited with 3")
    );
    assert_eq!(ask(sh("exec sleep 1000")).await.outcome, TimedOut);
    let killed = ask(sh("kill -9 $$")).await;
    assert_eq!(killed.said, "`sh` was ended by signal 9");
    let missing = ProbeAction::Command(vec!["/nonexistent".into()]);
    assert_eq!(ask(missing).await.outcome, CouldNotRun);
}
