//! Stories about real children of a real keeper, each named for a promise.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod endings;
mod families;
mod lives;
mod scale;
mod surroundings;

use std::ffi::CString;
use std::future::Future;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lair_actors::keeper::{DeathPolicy, ExitNote, KeeperOptions, SpawnSpec, SpawnedChild};

const DEADLINE: Duration = Duration::from_secs(20);

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/keeper")
}

fn options() -> KeeperOptions {
    KeeperOptions {
        program: program(),
        ..KeeperOptions::new()
    }
}

fn keep_at(path: &Path) -> KeeperOptions {
    KeeperOptions {
        socket_path: Some(path.to_owned()),
        policy: DeathPolicy::Keep,
        ..options()
    }
}

/// A directory of this test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("lair-keeper-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run<F: Future>(story: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), story).await })
        .expect("the story took too long")
}

fn command(argv: &[&str]) -> SpawnSpec {
    SpawnSpec::new(argv, [("PATH", "/usr/bin:/bin")]).unwrap()
}

fn shell(script: &str) -> SpawnSpec {
    command(&["sh", "-c", script])
}

async fn exit_of(child: &mut SpawnedChild) -> ExitNote {
    (&mut child.exit).await.expect("every exit is told")
}

/// Everything until the end of the stream.
async fn words(stream: OwnedFd) -> String {
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(stream).unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut pipe, &mut text)
        .await
        .unwrap();
    text
}

/// The first line, without waiting for the end.
async fn line(stream: &OwnedFd) -> String {
    let pipe =
        tokio::net::unix::pipe::Receiver::from_owned_fd(stream.try_clone().unwrap()).unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(pipe));
    lines
        .next_line()
        .await
        .unwrap()
        .expect("a line before the end")
}

/// Waits for a level, not for an edge.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn state(pid: i32) -> Option<char> {
    let mut text = String::new();
    std::fs::File::open(format!("/proc/{pid}/stat"))
        .ok()?
        .read_to_string(&mut text)
        .ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

fn is_gone(pid: i32) -> bool {
    state(pid).is_none_or(|state| state == 'Z')
}

fn children_of(parent: i32) -> usize {
    let ppid = |pid: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(") ")?
            .1
            .split(' ')
            .nth(1)?
            .parse::<i32>()
            .ok()
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().and_then(ppid) == Some(parent))
        .count()
}

fn fds_of(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}
