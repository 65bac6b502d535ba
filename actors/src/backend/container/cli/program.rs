//! One run of an engine's command.
//!
//! Owns: the child process until it has ended. Promises: what it prints is read with a bound; dropping the future ends it; its
//! words become a fault of the closed set. Never: a shell, never a secret among its arguments.

use crate::backend::container::fault::{EngineFault, EngineFaultKind};
use crate::backend::container::service::own_folder;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Bytes of an answer. The longest honest one is what all containers of this lair look like.
const MAX_ANSWER: usize = 8 << 20;
/// Bytes of complaints that are kept.
const MAX_WORDS: usize = 16 << 10;

/// Which command it is: they differ in details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Podman,
    Docker,
    /// nerdctl, and whatever else takes Docker's words.
    Other,
}

/// An engine's command.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub path: PathBuf,
    pub flavour: Flavour,
    /// Where it is started.
    pub folder: PathBuf,
}

/// What one run left.
pub(super) struct Done {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub words: String,
}

impl Program {
    pub fn new(path: &Path, folder: PathBuf) -> Self {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        let flavour = match name.as_deref() {
            Some(name) if name.starts_with("podman") => Flavour::Podman,
            Some(name) if name.starts_with("docker") => Flavour::Docker,
            _ => Flavour::Other,
        };
        Program {
            path: path.to_owned(),
            flavour,
            folder,
        }
    }

    /// Starts it. It ends when its handle is dropped.
    pub fn spawn<I, S>(
        &self,
        args: I,
        out: Stdio,
        err: Stdio,
        input: bool,
    ) -> Result<Child, EngineFault>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new(&self.path);
        command
            .args(args)
            .stdin(if input { Stdio::piped() } else { Stdio::null() })
            .stdout(out)
            .stderr(err)
            .current_dir(own_folder(&self.folder))
            // The terminal's signals are lair's to hear.
            .process_group(0)
            .kill_on_drop(true);
        // The wrapper of `docker build`'s and others' hints has no place in what is read.
        command.env("DOCKER_CLI_HINTS", "false");
        let doing = format!("run {}", self.path.display());
        command.spawn().map_err(|e| EngineFault::of_io(&doing, &e))
    }

    /// Runs it to its end, with `input` on its standard input.
    pub async fn run(&self, args: &[&str], input: Option<&[u8]>) -> Result<Done, EngineFault> {
        let mut child = self.spawn(args, Stdio::piped(), Stdio::piped(), input.is_some())?;
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                let _ = stdin.write_all(input).await;
            }
        };
        let (_, out, words) = tokio::join!(feed, keep(out, MAX_ANSWER), keep(err, MAX_WORDS));
        if out.len() >= MAX_ANSWER {
            let what = format!("its answer is longer than {MAX_ANSWER} bytes");
            return Err(EngineFault::new(EngineFaultKind::Nonsense, &what));
        }
        let status = child
            .wait()
            .await
            .map_err(|e| EngineFault::of_io("wait for its command", &e))?;
        Ok(Done {
            status,
            out,
            words: String::from_utf8_lossy(&words).into_owned(),
        })
    }

    /// Runs it and takes what it printed, if it succeeded.
    pub async fn ask(&self, args: &[&str]) -> Result<Vec<u8>, EngineFault> {
        let done = self.run(args, None).await?;
        done.good(EngineFaultKind::Refused)
    }
}

impl Done {
    pub fn good(self, otherwise: EngineFaultKind) -> Result<Vec<u8>, EngineFault> {
        match self.status.success() {
            true => Ok(self.out),
            false => Err(fault(&self.words, otherwise)),
        }
    }
}

/// The first bytes of a stream; the rest is read and dropped, up to where it must be nonsense.
pub(super) async fn keep<R: AsyncRead + Unpin>(source: Option<R>, most: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(source) = source else { return kept };
    let mut head = source.take(most as u64);
    let _ = head.read_to_end(&mut kept).await;
    if kept.len() < MAX_ANSWER {
        let mut rest = head.into_inner();
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
    kept
}

/// What a command's complaint means.
pub(super) fn fault(words: &str, otherwise: EngineFaultKind) -> EngineFault {
    let lower = words.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|word| lower.contains(word));
    let line = complaint(words);
    if says(&["permission denied while trying to connect"]) {
        return EngineFault::new(EngineFaultKind::Denied, line);
    }
    if says(&[
        "cannot connect to the docker daemon",
        "is the docker daemon running",
        "unable to connect to podman",
        "connection refused",
        "rootless containerd not running",
    ]) {
        return EngineFault::new(EngineFaultKind::Unreachable, line);
    }
    EngineFault::of_words(line, otherwise)
}

/// The line that says what went wrong, among warnings and hints.
fn complaint(words: &str) -> &str {
    let lines = || words.lines().filter(|l| !l.trim().is_empty());
    let starts = |l: &&str| l.trim_start().starts_with("Error");
    let errors = |l: &&str| l.to_ascii_lowercase().contains("error");
    let first = lines().find(starts).or_else(|| lines().find(errors));
    let line = first.or_else(|| lines().next_back()).unwrap_or("").trim();
    let prefixes = ["Error response from daemon: ", "Error: "];
    prefixes
        .iter()
        .find_map(|p| line.strip_prefix(p))
        .unwrap_or(line)
}
