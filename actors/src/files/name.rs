//! Names: of modules, and of the segments of their logs.
//!
//! `<run>.<segment>.log` (cri) or `<run>.<segment>.<stream>.log` (raw), with `.zst`
//! behind it once compressed. Anything else in a module's folder is not ours and is
//! never touched.

use std::fmt;
use std::io;
use std::path::Path;

use super::folder::Folder;
use super::policy::StreamName;

/// One log file: which part of which run's output it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// The run, counted over the module's life on this machine.
    pub run: u64,
    /// The segment within the run, from 0.
    pub segment: u64,
    /// The stream, for raw files only.
    pub stream: Option<StreamName>,
    /// Whether it is compressed.
    pub zst: bool,
}

/// Why a module's name cannot be the name of a log folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameFault(pub String);

/// The name of the link to the newest segment.
pub(crate) const CURRENT: &str = "current.log";
/// How the name of a run's dossier ends.
pub(crate) const DOSSIER: &str = ".dossier.json";
/// What a compression in progress is called, behind the segment's name.
pub(crate) const TMP: &str = ".zst.tmp";

/// Accepts `[a-z0-9][a-z0-9._-]{0,62}` without `..`.
pub fn check_module_name(name: &str) -> Result<(), NameFault> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && plain(bytes[0])
        && bytes
            .iter()
            .all(|&c| plain(c) || matches!(c, b'.' | b'_' | b'-'))
        && !name.contains("..");
    if good {
        Ok(())
    } else {
        Err(NameFault(name.to_owned()))
    }
}

/// The highest run of a module that has a log file or a dossier on disk; 0 if there is none.
pub fn last_run(log_dir: &Path, module: &str) -> io::Result<u64> {
    check_module_name(module).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    match Folder::open(log_dir, module) {
        Ok(folder) => {
            let logged = folder.segments()?.iter().map(|s| s.run).max();
            Ok(logged.max(folder.dossiers()?.last().copied()).unwrap_or(0))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

// -----------------------------------------------------------------------------

impl SegmentName {
    /// Reads a file name; `None` if it is not one of ours.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let (name, zst) = match name.strip_suffix(b".zst") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let name = name.strip_suffix(b".log")?;
        let mut parts = name.split(|&c| c == b'.');
        let run = decimal(parts.next()?)?;
        let segment = decimal(parts.next()?)?;
        let stream = match parts.next() {
            Some(word) => Some(StreamName::from_word(word)?),
            None => None,
        };
        let parsed = Self {
            run,
            segment,
            stream,
            zst,
        };
        parts.next().is_none().then_some(parsed)
    }

    /// The same segment, compressed or not.
    pub fn with_zst(self, zst: bool) -> Self {
        Self { zst, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.segment)?;
        if let Some(stream) = self.stream {
            write!(f, ".{}", stream.as_str())?;
        }
        f.write_str(if self.zst { ".log.zst" } else { ".log" })
    }
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} cannot name a log folder", self.0)
    }
}

impl std::error::Error for NameFault {}

/// The run that a dossier's file name tells of.
pub(crate) fn dossier_run(name: &[u8]) -> Option<u64> {
    decimal(name.strip_suffix(DOSSIER.as_bytes())?)
}

/// A canonical decimal number: no sign, no leading zero, so that each has one name.
fn decimal(word: &[u8]) -> Option<u64> {
    let canonical = !word.is_empty()
        && word.iter().all(u8::is_ascii_digit)
        && (word.len() == 1 || word[0] != b'0');
    if !canonical {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_segment_name_is_read_back_as_it_was_written() {
        for stream in [None, Some(StreamName::Stdout), Some(StreamName::Lair)] {
            for zst in [false, true] {
                let name = SegmentName {
                    run: 12,
                    segment: 0,
                    stream,
                    zst,
                };
                assert_eq!(SegmentName::parse(name.to_string().as_bytes()), Some(name));
            }
        }
    }

    #[test]
    fn a_strangers_file_is_not_a_segment() {
        for name in [
            "01.0.log",
            "1.log",
            "1.0.log.zst.tmp",
            "current.log",
            "1.0.x.log",
            "+1.0.log",
            "1.0",
        ] {
            assert_eq!(SegmentName::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_module_name_cannot_leave_the_log_folder() {
        assert!(check_module_name("llama.cpp").is_ok());
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "-a",
            "a..b",
            "a\0",
            &"a".repeat(64),
        ] {
            assert!(check_module_name(name).is_err(), "{name:?}");
        }
    }
}
