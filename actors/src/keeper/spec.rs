//! The words both ends of the keeper's socket speak: what to start, how it ended, where it failed.
//!
//! Plain data. Text is held as C strings, so that a value that exists can always reach `execve`.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::confine::Confine;

/// Names one child for as long as its keeper remembers it; never reused by one keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildKey(pub u64);

/// A process and the moment it began: what must match before anything is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process's number.
    pub pid: i32,
    /// Clock ticks since boot at its start (field 22 of `/proc/PID/stat`); 0 when it could not be read.
    pub start_ticks: u64,
}

/// One resource limit, as `setrlimit` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_…` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is no limit.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is no limit.
    pub hard: u64,
}

/// A control group directory that the child joins before its first instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupDir {
    /// Absolute path of the directory.
    pub path: CString,
    /// Whether it is a v2 group, which then is the proof of the tree's end (`cgroup.events`).
    pub unified: bool,
    /// Whether the keeper removes it, with what is nested in it, once the child is forgotten.
    pub ours: bool,
}

/// Everything about a child to be started. The environment is built from nothing; the keeper adds
/// `LAIR_MARKER` (when a marker is given) and `LAIR_READY_FD` (when readiness is asked for), nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnSpec {
    /// Program and arguments; a program without a slash is searched in the `PATH` of `env`.
    pub argv: Vec<CString>,
    /// `NAME=value` entries, the whole environment.
    pub env: Vec<CString>,
    /// Where the child starts; the keeper's own directory (`/`) when absent.
    pub workdir: Option<CString>,
    /// User to become.
    pub uid: Option<u32>,
    /// Group to become.
    pub gid: Option<u32>,
    /// Supplementary groups to set; untouched when absent.
    pub groups: Option<Vec<u32>>,
    /// Limits to set, in order.
    pub rlimits: Vec<Rlimit>,
    /// File mode creation mask; the keeper's own (022) when absent.
    pub umask: Option<u32>,
    /// Forbid the gain of privileges by exec.
    pub no_new_privs: bool,
    /// The polite signal, sent when the runtime dies under [`DeathPolicy::Kill`].
    pub stop_signal: i32,
    /// Control groups to join, in order.
    pub cgroups: Vec<CgroupDir>,
    /// Value of `LAIR_MARKER`, by which escaped descendants are recognised; empty for none.
    pub marker: CString,
    /// Give the child a readiness pipe as descriptor 3 (it writes a newline when ready).
    pub ready: bool,
    /// What it may still do.
    pub confine: Confine,
}

/// Why a [`SpawnSpec`] could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecFault {
    /// No program was named.
    NoProgram,
    /// A text holds a NUL byte, which no program can be given.
    NulInText,
    /// An environment name is empty or holds `=`.
    BadName,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The child itself.
    Leader,
    /// The child's process group.
    Group,
    /// Every process of its tree.
    All,
}

/// What the keeper does when its runtime's connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathPolicy {
    /// Keep the children and wait for the next runtime at the socket path.
    Keep,
    /// Stop signal, grace, KILL for all trees, then end.
    Kill {
        /// Time between the stop signal and KILL.
        grace_ms: u32,
    },
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The request itself: malformed, too large, or its key is taken.
    Request = 0,
    /// Making the streams.
    Pipes = 1,
    /// Making the process.
    Clone = 2,
    /// Starting its session.
    Session = 3,
    /// Connecting its standard streams.
    Streams = 4,
    /// Joining a control group.
    EnterLimits = 5,
    /// Setting a resource limit.
    Rlimits = 6,
    /// Changing to its working directory.
    ChangeDir = 7,
    /// Becoming its user and groups, and giving up privileges.
    DropPrivileges = 8,
    /// Executing the program.
    Exec = 9,
    /// Bringing the streams over to the runtime; the child, if it ran, was killed.
    Handover = 10,
    /// The keeper died, so it is not known whether the child was started.
    KeeperGone = 11,
    /// Taking from it what it may not do: capabilities, network, files.
    Confine = 12,
}

/// A start that failed: where, and the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnFault {
    /// The step that failed.
    pub stage: Stage,
    /// The `errno` of that step.
    pub errno: i32,
}

/// How a process ended. An exit with code 137 and a death by signal 9 are different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(i32),
    /// It was killed by a signal.
    Signal {
        /// Which one.
        signal: i32,
        /// Whether the kernel says that a core was dumped.
        core: bool,
    },
    /// It is gone, and nobody can say how.
    Unknown,
}

impl SpawnSpec {
    /// A child with this command line and environment, and nothing else asked for.
    ///
    /// # Errors
    /// When there is no program, or a text cannot be handed to a program.
    pub fn new<A, E, K, V>(argv: A, env: E) -> Result<Self, SpecFault>
    where
        A: IntoIterator<Item: AsRef<OsStr>>,
        E: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let argv = argv
            .into_iter()
            .map(|text| c_text(text.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        if argv.first().is_none_or(|program| program.is_empty()) {
            return Err(SpecFault::NoProgram);
        }
        let env = env
            .into_iter()
            .map(|(name, value)| pair(name.as_ref(), value.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            argv,
            env,
            workdir: None,
            uid: None,
            gid: None,
            groups: None,
            rlimits: Vec::new(),
            umask: None,
            no_new_privs: false,
            stop_signal: libc::SIGTERM,
            cgroups: Vec::new(),
            marker: CString::default(),
            ready: false,
            confine: Confine::default(),
        })
    }

    /// Starts it in `dir`.
    ///
    /// # Errors
    /// When the path holds a NUL byte.
    pub fn in_dir(mut self, dir: &Path) -> Result<Self, SpecFault> {
        self.workdir = Some(c_text(dir.as_os_str())?);
        Ok(self)
    }

    /// Marks its descendants' environment with `marker`.
    ///
    /// # Errors
    /// When the marker holds a NUL byte.
    pub fn marked(mut self, marker: &str) -> Result<Self, SpecFault> {
        self.marker = c_text(OsStr::new(marker))?;
        Ok(self)
    }
}

impl CgroupDir {
    /// A group to join.
    ///
    /// # Errors
    /// When the path holds a NUL byte.
    pub fn new(path: &Path, unified: bool, ours: bool) -> Result<Self, SpecFault> {
        Ok(Self {
            path: c_text(path.as_os_str())?,
            unified,
            ours,
        })
    }
}

fn c_text(text: &OsStr) -> Result<CString, SpecFault> {
    CString::new(text.as_bytes()).map_err(|_| SpecFault::NulInText)
}

fn pair(name: &OsStr, value: &OsStr) -> Result<CString, SpecFault> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(SpecFault::BadName);
    }
    let mut text = name.as_bytes().to_vec();
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    CString::new(text).map_err(|_| SpecFault::NulInText)
}

impl Ending {
    /// Reads a raw wait status.
    #[must_use]
    pub fn from_status(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self::Code(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Self::Signal {
                signal: libc::WTERMSIG(status),
                core: libc::WCOREDUMP(status),
            }
        } else {
            Self::Unknown
        }
    }
}

impl Stage {
    /// Every stage, in the order of its number.
    pub const ALL: [Self; 13] = [
        Self::Request,
        Self::Pipes,
        Self::Clone,
        Self::Session,
        Self::Streams,
        Self::EnterLimits,
        Self::Rlimits,
        Self::ChangeDir,
        Self::DropPrivileges,
        Self::Exec,
        Self::Handover,
        Self::KeeperGone,
        Self::Confine,
    ];

    /// The stage with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for SpawnFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "start failed at {:?}: {}",
            self.stage,
            std::io::Error::from_raw_os_error(self.errno)
        )
    }
}

impl std::error::Error for SpawnFault {}

impl fmt::Display for SpecFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoProgram => "no program named",
            Self::NulInText => "text with a NUL byte",
            Self::BadName => "environment name that is empty or holds =",
        })
    }
}

impl std::error::Error for SpecFault {}
