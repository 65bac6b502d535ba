//! What a module asks of its log, and what can go wrong with it.

use std::fmt;
use std::time::Duration;

/// How much of a module's output is kept, and in which shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    /// A segment is closed before it grows beyond this many bytes.
    pub max_size: u64,
    /// Segments kept over all runs of the module, the current one included; at least 1.
    pub max_files: usize,
    /// Closed segments older than this are deleted.
    pub max_age: Option<Duration>,
    /// Whether closed segments become `.zst`.
    pub compress: bool,
    /// The shape of the files.
    pub format: LogFormat,
}

/// The shape of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LogFormat {
    /// One file; each line is a record with time, stream and mark.
    #[default]
    Cri,
    /// One file per stream, the bytes as the module wrote them.
    Raw,
}

/// Whose bytes these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamName {
    /// The module's standard output.
    Stdout,
    /// The module's standard error.
    Stderr,
    /// lair's own remarks, which no module can write.
    Lair,
}

/// What a failing disk cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Bytes of the module that are in no file.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
}

/// Why bytes could not be written where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFault {
    /// A symbolic link stood where a file or the folder of the module belongs.
    LinkRefused {
        /// The name of the link, below the log folder.
        name: String,
    },
    /// Something that is not a plain file with one name stood at a segment's name.
    NotAFile {
        /// The name, below the log folder.
        name: String,
    },
    /// The open segment was renamed, removed or replaced behind our back.
    Vanished {
        /// The name at which it was expected, below the log folder.
        name: String,
    },
    /// The kernel refused an operation.
    Io {
        /// What was tried.
        operation: &'static str,
        /// The error number.
        errno: i32,
    },
    /// A chunk made the pump's own work panic again and again, and was given up.
    Bug,
}

// -----------------------------------------------------------------------------

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            max_size: 16 << 20,
            max_files: 8,
            max_age: None,
            compress: true,
            format: LogFormat::Cri,
        }
    }
}

impl StreamName {
    /// The word that stands in records and file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Lair => "lair",
        }
    }

    /// The stream that a word names.
    pub fn from_word(word: &[u8]) -> Option<Self> {
        match word {
            b"stdout" => Some(Self::Stdout),
            b"stderr" => Some(Self::Stderr),
            b"lair" => Some(Self::Lair),
            _ => None,
        }
    }
}

impl Tally {
    /// Adds another loss to this one.
    pub fn add(&mut self, more: Tally) {
        self.bytes += more.bytes;
        self.lines += more.lines;
    }

    /// Whether nothing was lost.
    pub fn is_zero(&self) -> bool {
        self.bytes == 0 && self.lines == 0
    }
}

impl LogFault {
    /// The fault of a refused system call.
    pub fn io(operation: &'static str, errno: rustix::io::Errno) -> Self {
        Self::Io {
            operation,
            errno: errno.raw_os_error(),
        }
    }
}

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkRefused { name } => write!(f, "refused to follow the link {name}"),
            Self::NotAFile { name } => write!(f, "refused to write to {name}: not a plain file"),
            Self::Vanished { name } => write!(f, "log file {name} was moved or removed"),
            Self::Io { operation, errno } => {
                let cause = std::io::Error::from_raw_os_error(*errno);
                write!(f, "failed to {operation} a log file: {cause}")
            }
            Self::Bug => f.write_str("gave up a chunk that made the log pump panic"),
        }
    }
}

impl std::error::Error for LogFault {}
