//! Handing over to a new version of the program, while no module notices.
//!
//! Owns: the two ways there are. In place (USR2): this process becomes the program that now stands at its path, with its
//! arguments, under its number. To a successor (`serve --takeover`): this process ends and leaves everything to the one
//! that asked. Promises: a program that does not start is not handed over to; the keeper has orders to keep before
//! anything ends. Never: drains, or lets a destructor end a module.

use super::error::CliError;
use super::host::{Asks, hold_signals};
use crate::RuntimeHandle;
use lair_actors::keeper::become_program;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The file in the run folder by which a successor asks: its process id.
const REQUEST: &str = "takeover";

/// How long an old runtime may take to leave.
const LEAVES_WITHIN: Duration = Duration::from_secs(20);

/// Time between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// The program as it was called, found before anybody replaces it.
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// This one.
    ///
    /// # Errors
    /// The system does not say where it is.
    pub fn this() -> io::Result<Self> {
        Ok(Program {
            path: std::env::current_exe()?,
            // A takeover is over once it has been done.
            args: std::env::args_os()
                .skip(1)
                .filter(|arg| arg != "--takeover")
                .collect(),
        })
    }

    /// Whether what stands at its path now is a program that starts.
    fn check(&self) -> Result<(), String> {
        let named = |e: io::Error| format!("{}: {e}", self.path.display());
        #[allow(
            clippy::disallowed_methods,
            reason = "lair itself, asked for its version: no module"
        )]
        let said = Command::new(&self.path).arg("version").output();
        let said = said.map_err(named)?;
        if said.status.success() {
            return Ok(());
        }
        Err(format!(
            "`{} version` fails: {}",
            self.path.display(),
            said.status
        ))
    }
}

/// What became of a request to hand over.
pub enum HandOver {
    /// Nothing: it goes on as it was, and this is why.
    Refused(String),
    /// A successor has asked for everything: this process is to end at once.
    Leave,
    /// Nothing: meanwhile somebody asked for the end.
    End,
}

/// Becomes the new version, or finds that a successor waits; comes back where neither is so.
pub async fn hand_over(
    handle: &RuntimeHandle,
    program: &Program,
    run: &Path,
    asks: &mut Asks,
) -> HandOver {
    if let Some(successor) = take_request(run) {
        tracing::info!(pid = successor, "handing over to a successor");
        handle.let_go().await;
        return HandOver::Leave;
    }
    if let Err(why) = program.check() {
        return HandOver::Refused(why);
    }
    tracing::info!(program = %program.path.display(), "becoming the program that stands there now");
    // From here until the next one listens a signal would do what it does to any program: most end it.
    let held = hold_signals(true);
    handle.let_go().await;
    if asks.end_is_asked().await {
        // Heard by this life, on another of its threads: the next one would never know.
        handle.hold_on();
        let _ = hold_signals(false);
        return HandOver::End;
    }
    let failed = become_program(&program.path, &program.args);
    let freed = hold_signals(false);
    handle.hold_on();
    if let Some(e) = held.err().or(freed.err()) {
        tracing::error!("signals could not be held back: {e}");
    }
    HandOver::Refused(format!("{}: {failed}", program.path.display()))
}

/// Ends this process at once: what a destructor would end goes on.
pub fn leave() -> ! {
    #[allow(
        clippy::disallowed_methods,
        reason = "destructors would end the modules that are handed over"
    )]
    std::process::exit(0)
}

/// The successor that asks, if one does and lives.
fn take_request(run: &Path) -> Option<i32> {
    let path = run.join(REQUEST);
    let text = fs::read_to_string(&path).ok()?;
    let _ = fs::remove_file(&path);
    let pid: i32 = text.trim().parse().ok()?;
    Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

/// Has the lair that runs on these folders hand over, and waits until it is gone. Without one there is nothing to do.
///
/// # Errors
/// It does not leave.
pub async fn take_over(run: &Path) -> Result<(), CliError> {
    let Some(pid) = holder(run) else {
        return Ok(());
    };
    let refused = |why: String| {
        CliError::new("takeover_failed", why)
            .with_help("stop it with SIGTERM, or see its log; nothing was changed")
    };
    let file = run.join(REQUEST);
    fs::write(&file, format!("{}\n", std::process::id()))
        .map_err(|e| refused(format!("cannot write {}: {e}", file.display())))?;
    let asked = rustix::process::kill_process(pid, rustix::process::Signal::USR2);
    if let Err(errno) = asked {
        let _ = fs::remove_file(&file);
        return Err(refused(format!(
            "cannot signal pid {}: {errno}",
            pid.as_raw_nonzero()
        )));
    }
    let gone = async {
        while holder(run).is_some() {
            pause().await;
        }
    };
    let in_time = tokio::time::timeout(LEAVES_WITHIN, gone).await;
    let _ = fs::remove_file(&file);
    in_time.map_err(|_| {
        refused(format!(
            "the lair with pid {} does not leave",
            pid.as_raw_nonzero()
        ))
    })
}

/// Who holds the lock of these folders.
fn holder(run: &Path) -> Option<rustix::process::Pid> {
    use rustix::fs::{FlockOperation, flock};
    let lock = fs::File::open(run.join("lair.lock")).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return None;
    }
    let text = fs::read_to_string(run.join("lair.lock")).ok()?;
    rustix::process::Pid::from_raw(text.trim().parse().ok()?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "nothing announces the release of a lock; there is no runtime yet whose clock could be used"
)]
async fn pause() {
    tokio::time::sleep(LOOK).await;
}
