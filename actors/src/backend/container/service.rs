//! Podman's API service, started by lair where only the program is there.
//!
//! Owns: one child process. Promises: it serves a socket of lair's own and ends with lair: at once when it is dropped,
//! a minute after the last question when lair was killed. Never: starts a second one beside a first that lives.

use super::fault::{EngineFault, EngineFaultKind};
use super::pause;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// It ends by itself after this long without a question; lair asks each second while it holds a container.
const IDLE_S: u32 = 60;
/// Longest time until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(20);

/// What to start, and where it shall listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOrder {
    /// Podman's program.
    pub program: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// Where it is started: a folder of lair's own, made if it is not there. Containers' monitors inherit it, and write into it
    /// (conmon an empty file `oom`).
    pub folder: PathBuf,
}

/// A folder to start an engine's programs in: Podman starts nothing any more once the folder is gone that it was started in, and
/// lair's own may be. `/` where it can't be made.
pub(super) fn own_folder(folder: &Path) -> &Path {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    match made {
        Ok(()) => folder,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "no folder to start an engine's programs in");
            Path::new("/")
        }
    }
}

/// The service, if it was started.
pub(super) struct Service {
    order: ServiceOrder,
    child: Mutex<Option<Running>>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    pub fn new(order: ServiceOrder) -> Self {
        let child = Mutex::new(None);
        Service { order, child }
    }

    pub fn socket(&self) -> &PathBuf {
        &self.order.socket
    }

    /// A connection to it; starts it if it does not listen.
    pub async fn connect(&self) -> Result<UnixStream, EngineFault> {
        let mut child = self.child.lock().await;
        let socket = &self.order.socket;
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Ok(stream);
        }
        // One that does not listen any more is on its way out.
        *child = None;
        *child = Some(self.start()?);
        let listens = async {
            loop {
                if let Ok(stream) = UnixStream::connect(socket).await {
                    return Some(stream);
                }
                if let Some(running) = child.as_mut()
                    && !matches!(running.0.try_wait(), Ok(None))
                {
                    return None;
                }
                pause(LOOK).await;
            }
        };
        match tokio::time::timeout(LISTENS_WITHIN, listens).await {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) | Err(_) => {
                *child = None;
                let what = "`podman system service` was started and does not listen; `podman info` may say why";
                Err(EngineFault::new(EngineFaultKind::Unreachable, what))
            }
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "an engine's service is no module: nobody supervises it, and it ends by itself"
    )]
    fn start(&self) -> Result<Running, EngineFault> {
        let _ = std::fs::remove_file(&self.order.socket);
        let child = Command::new(&self.order.program)
            .args(["system", "service", "--time"])
            .arg(IDLE_S.to_string())
            .arg(format!("unix://{}", self.order.socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(own_folder(&self.order.folder))
            // The terminal's signals are lair's to hear.
            .process_group(0)
            .spawn();
        child
            .map(Running)
            .map_err(|e| EngineFault::of_io("start `podman system service`", &e))
    }
}
