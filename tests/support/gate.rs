//! A socket between lair and an engine that others use as well: it can be held, cut and let go, and the engine stays.

use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They reach the engine.
    Open,
    /// They are taken and nothing comes back: the engine is frozen. What is connected goes on.
    Held,
    /// They are refused, and what is connected is cut: the engine is gone.
    Shut,
}

/// The socket. Gone with its value.
pub struct Gateway {
    pub socket: PathBuf,
    gate: watch::Sender<Gate>,
    task: JoinHandle<()>,
}

impl Gateway {
    pub fn before(engine: &Path, socket: PathBuf) -> Gateway {
        let (gate, _) = watch::channel(Gate::Open);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (engine, seen) = (engine.to_owned(), gate.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, engine.clone(), seen.subscribe()));
            }
        });
        Gateway { socket, gate, task }
    }

    pub fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut near: UnixStream, engine: PathBuf, mut gate: watch::Receiver<Gate>) {
    let Ok(now) = gate.wait_for(|g| *g != Gate::Held).await.map(|g| *g) else {
        return;
    };
    if now == Gate::Shut {
        return;
    }
    let Ok(mut far) = UnixStream::connect(engine).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = gate.wait_for(|g| *g == Gate::Shut) => {}
    }
}
