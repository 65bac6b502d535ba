//! A command inside a container: by the engine, and ended by the kernel.
//!
//! Owns: the marker by which what a command left behind is found. Promises: nothing that a command started outlives it,
//! where this machine shows the container's processes. Never: keeps more than the first bytes of its output.

use super::cgroup::{belongs, members};
use super::fault::{EngineFault, EngineFaultKind};
use super::{Shared, pause};
use crate::backend::CommandOutcome;
use lair_supervision::ExitStatus;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const VARIABLE: &str = "LAIR_COMMAND";
/// How long what is left of a command may take to vanish.
const VANISH: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

static SERIAL: AtomicU64 = AtomicU64::new(0);

pub(super) async fn run(
    shared: Arc<Shared>,
    id: String,
    group: Option<PathBuf>,
    argv: Vec<String>,
    timeout: Duration,
) -> CommandOutcome {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let marker = format!("{VARIABLE}={}-{serial}", std::process::id());
    let exec = shared.engine.exec(&id, argv, marker.clone(), timeout);
    // On a task of its own: a caller that stops waiting must not leave the command behind.
    let task = tokio::spawn(async move {
        let outcome = exec.await;
        if let Some(group) = group {
            let _ = tokio::time::timeout(VANISH, clear(group, id, marker)).await;
        }
        outcome
    });
    task.await
        .unwrap_or_else(|e| CommandOutcome::CouldNotRun(e.to_string()))
}

/// Kills what carries the marker until nothing does.
async fn clear(group: PathBuf, id: String, marker: String) {
    loop {
        let (group, id, marker) = (group.clone(), id.clone(), marker.clone());
        let look = move || kill_marked(&group, &id, marker.as_bytes());
        if tokio::task::spawn_blocking(look).await.unwrap_or(0) == 0 {
            return;
        }
        pause(LOOK).await;
    }
}

/// How many live processes carried it.
fn kill_marked(group: &std::path::Path, id: &str, marker: &[u8]) -> usize {
    let mut found = 0;
    for pid in members(group) {
        let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|p| pidfd_open(p, PidfdFlags::empty())) else {
            continue;
        };
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if env.split(|b| *b == 0).any(|v| v == marker) && belongs(pid, id) {
            found += 1;
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
    found
}

/// What came of a command that may take so long; one that an engine could not run is no fault of the module's.
pub(super) async fn in_time(
    timeout: Duration,
    command: impl Future<Output = Result<CommandOutcome, EngineFault>>,
) -> CommandOutcome {
    match tokio::time::timeout(timeout, command).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(fault)) => CommandOutcome::CouldNotRun(fault.to_string()),
        Err(_) => CommandOutcome::TimedOut,
    }
}

/// What the code that an engine's API tells of a command means, with its first output.
pub(super) fn outcome(code: i64, output: Vec<u8>) -> CommandOutcome {
    // What a shell says of a program that is not there, or none; the engine's runtime does the same, with a reason.
    let words = String::from_utf8_lossy(&output);
    if matches!(code, 126 | 127) && (words.contains("OCI") || output.is_empty()) {
        let why = EngineFault::of_words(&words, EngineFaultKind::NoSuchCommand);
        return CommandOutcome::CouldNotRun(why.to_string());
    }
    let status = i32::try_from(code).map_or(ExitStatus::Unknown, ExitStatus::Code);
    CommandOutcome::Ended { status, output }
}
