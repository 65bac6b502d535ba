//! One follower of an engine's events for all its containers.
//!
//! Owns: the command while somebody waits. Promises: who waits is woken when its container has died, and now and then without
//! a reason, so that an event that was missed costs seconds and no more. Never: says how a container ended.

use super::program::{Flavour, Program};
use crate::backend::container::pause;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::broadcast;

/// Longest event that is read.
const MAX_LINE: u64 = 64 << 10;
/// Between two follower commands, and between two looks at whether anybody still waits.
const AGAIN: Duration = Duration::from_secs(2);

/// Tells of deaths: a line that holds the container's id.
#[derive(Clone)]
pub(super) struct Follower {
    program: Program,
    lines: broadcast::Sender<Arc<str>>,
    runs: Arc<Mutex<bool>>,
}

impl Follower {
    pub fn new(program: Program) -> Self {
        Follower {
            program,
            lines: broadcast::Sender::new(1024),
            runs: Arc::default(),
        }
    }

    /// From now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<str>> {
        let lines = self.lines.subscribe();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *runs, true) {
            tokio::spawn(self.clone().follow());
        }
        lines
    }

    /// Something was seen of this container without an event.
    pub fn wake(&self, id: &str) {
        let _ = self.lines.send(id.into());
    }

    /// Follows until nobody waits any more.
    async fn follow(self) {
        loop {
            self.follow_once().await;
            // Whoever missed something meanwhile looks again.
            self.wake("");
            pause(AGAIN).await;
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            if self.lines.receiver_count() == 0 {
                *runs = false;
                return;
            }
        }
    }

    async fn follow_once(&self) {
        let filter = match self.program.flavour {
            Flavour::Podman => "event=died",
            Flavour::Docker | Flavour::Other => "event=die",
        };
        let args = ["events", "--format", "{{json .}}", "--filter", filter];
        let Ok(mut child) = self
            .program
            .spawn(args, Stdio::piped(), Stdio::null(), false)
        else {
            return;
        };
        let Some(mut lines) = child.stdout.take().map(BufReader::new) else {
            return;
        };
        let mut line = Vec::new();
        while self.lines.receiver_count() > 0 {
            line.clear();
            let mut bounded = (&mut lines).take(MAX_LINE);
            match tokio::time::timeout(AGAIN, bounded.read_until(b'\n', &mut line)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => self.wake(&String::from_utf8_lossy(&line)),
                // Part of a line may be lost with the timeout; what is looked for in it is looked for without it as well.
                Err(_) => {}
            }
        }
    }
}
