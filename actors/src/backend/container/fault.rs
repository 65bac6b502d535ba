//! What an engine can get wrong, as a closed set with stable codes.
//!
//! Owns: the kinds and the reading of an engine's words. Promises: one line, bounded, whatever the engine sent. Never:
//! hands an engine's body on as it came.

use lair_supervision::{StartFault, StartStage};
use std::fmt;

/// Longest reason that is kept, in bytes.
const LONGEST: usize = 240;

/// What an engine got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineFaultKind {
    /// No socket, connection refused, or cut.
    Unreachable,
    /// Its socket may not be used by this user.
    Denied,
    /// No answer within the call's deadline.
    TimedOut,
    /// An answer that can't be read: not HTTP, not JSON, of a wrong type, or without end.
    Nonsense,
    /// The image is not here.
    NoSuchImage,
    /// The image could not be fetched.
    PullFailed,
    /// There is no such container.
    NoSuchContainer,
    /// Another container has the name.
    NameTaken,
    /// The host's port is taken.
    PortTaken,
    /// A device can't be had.
    NoSuchDevice,
    /// A bind mount's source is not there.
    NoSuchMount,
    /// The image has no such program, or it can't be executed.
    NoSuchCommand,
    /// The engine may not set a limit.
    LimitRefused,
    /// The engine has no init to put before the program.
    NoInit,
    /// This engine has no way to do it.
    Unsupported,
    /// Anything else that it refused.
    Refused,
}

impl EngineFaultKind {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            EngineFaultKind::Unreachable => "engine_unreachable",
            EngineFaultKind::Denied => "engine_denied",
            EngineFaultKind::TimedOut => "engine_timed_out",
            EngineFaultKind::Nonsense => "engine_nonsense",
            EngineFaultKind::NoSuchImage => "image_missing",
            EngineFaultKind::PullFailed => "image_pull_failed",
            EngineFaultKind::NoSuchContainer => "container_missing",
            EngineFaultKind::NameTaken => "container_name_taken",
            EngineFaultKind::PortTaken => "port_taken",
            EngineFaultKind::NoSuchDevice => "device_missing",
            EngineFaultKind::NoSuchMount => "mount_missing",
            EngineFaultKind::NoSuchCommand => "command_missing",
            EngineFaultKind::LimitRefused => "limit_refused",
            EngineFaultKind::NoInit => "init_missing",
            EngineFaultKind::Unsupported => "engine_unsupported",
            EngineFaultKind::Refused => "engine_refused",
        }
    }

    /// Whether the same call may succeed later, with nothing changed in the manifest.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            EngineFaultKind::Unreachable
                | EngineFaultKind::TimedOut
                | EngineFaultKind::Nonsense
                | EngineFaultKind::PullFailed
                | EngineFaultKind::NameTaken
                | EngineFaultKind::PortTaken
                | EngineFaultKind::Refused
        )
    }

    /// Whether it says nothing about the container: the engine is away.
    #[must_use]
    pub fn is_absence(self) -> bool {
        matches!(
            self,
            EngineFaultKind::Unreachable
                | EngineFaultKind::Denied
                | EngineFaultKind::TimedOut
                | EngineFaultKind::Nonsense
        )
    }

    fn errno(self) -> Option<i32> {
        match self {
            EngineFaultKind::Unreachable => Some(libc::ECONNREFUSED),
            EngineFaultKind::Denied => Some(libc::EACCES),
            EngineFaultKind::TimedOut => Some(libc::ETIMEDOUT),
            EngineFaultKind::PortTaken => Some(libc::EADDRINUSE),
            EngineFaultKind::NoSuchImage
            | EngineFaultKind::NoSuchCommand
            | EngineFaultKind::NoSuchMount => Some(libc::ENOENT),
            EngineFaultKind::NoSuchDevice => Some(libc::ENODEV),
            EngineFaultKind::NameTaken => Some(libc::EEXIST),
            _ => None,
        }
    }
}

/// One fault of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFault {
    /// Which.
    pub kind: EngineFaultKind,
    /// One line, without a trailing period.
    pub reason: String,
}

impl EngineFault {
    /// A fault with a reason, which is cut to one bounded line.
    #[must_use]
    pub fn new(kind: EngineFaultKind, reason: &str) -> Self {
        EngineFault {
            kind,
            reason: one_line(reason),
        }
    }

    /// What kind of fault an engine's words mean. The words are much the same for all engines, for most come from the
    /// same runtimes below them; `otherwise` is what it is if they say nothing known.
    #[must_use]
    pub fn of_words(words: &str, otherwise: EngineFaultKind) -> Self {
        let lower = words.to_ascii_lowercase();
        let says = |any: &[&str]| any.iter().any(|word| lower.contains(word));
        let kind = if says(&["container-init binary", "docker-init"]) {
            EngineFaultKind::NoInit
        } else if says(&["address already in use", "port is already allocated"]) {
            EngineFaultKind::PortTaken
        } else if says(&[
            "is already in use by",
            "name is already in use",
            "already in use by container",
        ]) {
            EngineFaultKind::NameTaken
        } else if says(&["rlimit"]) {
            EngineFaultKind::LimitRefused
        } else if says(&[
            "unresolvable cdi",
            "could not select device driver",
            "no such device",
            "error gathering device information",
        ]) {
            EngineFaultKind::NoSuchDevice
        } else if says(&[
            "no such image",
            "image not known",
            "did not resolve to an alias",
        ]) {
            EngineFaultKind::NoSuchImage
        } else if says(&["no such container", "no container with name or id"]) {
            EngineFaultKind::NoSuchContainer
        } else if says(&["statfs ", "bind source path does not exist"]) {
            EngineFaultKind::NoSuchMount
        } else if says(&[
            "executable file",
            "not found in $path",
            "executable `",
            "exec format error",
        ]) || (says(&["exec", "starting container process"])
            && says(&["no such file or directory", "permission denied"]))
        {
            EngineFaultKind::NoSuchCommand
        } else {
            otherwise
        };
        EngineFault::new(kind, words)
    }

    /// A failed connection or transfer.
    #[must_use]
    pub fn of_io(doing: &str, e: &std::io::Error) -> Self {
        let kind = match e.kind() {
            std::io::ErrorKind::PermissionDenied => EngineFaultKind::Denied,
            std::io::ErrorKind::TimedOut => EngineFaultKind::TimedOut,
            _ => EngineFaultKind::Unreachable,
        };
        let words = e.to_string();
        let words = words.split(" (os error").next().unwrap_or_default();
        EngineFault::new(kind, &format!("cannot {doing}: {words}"))
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// As the reason why a start failed.
    #[must_use]
    pub fn at(self, stage: StartStage) -> StartFault {
        let stage = match self.kind {
            EngineFaultKind::NoSuchImage | EngineFaultKind::PullFailed => StartStage::ResolveImage,
            EngineFaultKind::NoSuchCommand => StartStage::Exec,
            _ => stage,
        };
        StartFault {
            stage,
            errno: self.kind.errno(),
            message: self.to_string(),
            transient: self.kind.is_transient(),
        }
    }
}

impl fmt::Display for EngineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.kind.code())
    }
}

impl std::error::Error for EngineFault {}

/// The first line with something on it, without what is not for people, cut at a character's end.
#[must_use]
pub fn one_line(words: &str) -> String {
    let line = words.lines().map(str::trim).find(|l| !l.is_empty());
    let clean: String = line
        .unwrap_or("no reason given")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let clean = clean.trim_end_matches('.');
    if clean.len() <= LONGEST {
        return clean.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|i| clean.is_char_boundary(*i));
    format!("{}...", &clean[..end.unwrap_or(0)])
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn an_engines_words_are_cut_to_one_bounded_line() {
        let long = format!("\n  \u{7}{}\nsecond line", "ä".repeat(1000));
        let fault = EngineFault::new(EngineFaultKind::Refused, &long);
        assert!(fault.reason.len() <= LONGEST + 3 && fault.reason.starts_with('ä'));
        assert_eq!(
            EngineFault::new(EngineFaultKind::Refused, "").reason,
            "no reason given"
        );
    }

    #[test]
    fn the_words_that_were_seen_are_told_apart() {
        use EngineFaultKind as K;
        let seen = [
            (
                "cannot listen on the TCP port: listen tcp4 127.0.0.1:18333: bind: address already in use",
                K::PortTaken,
            ),
            (
                "driver failed programming external connectivity: Bind for 127.0.0.1:1 failed: port is already allocated",
                K::PortTaken,
            ),
            (
                "creating container storage: the container name \"x\" is already in use by abc",
                K::NameTaken,
            ),
            (
                "Conflict. The container name \"/x\" is already in use by container \"abc\"",
                K::NameTaken,
            ),
            (
                "crun: setrlimit `RLIMIT_NPROC`: Operation not permitted: OCI permission denied",
                K::LimitRefused,
            ),
            (
                "runc create failed: error during container init: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted",
                K::LimitRefused,
            ),
            (
                "setting up CDI devices: unresolvable CDI devices lair.test/gpu=7",
                K::NoSuchDevice,
            ),
            (
                "could not select device driver \"\" with capabilities: [[gpu]]",
                K::NoSuchDevice,
            ),
            ("No such image: nothing:latest", K::NoSuchImage),
            ("statfs /nowhere: no such file or directory", K::NoSuchMount),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /x",
                K::NoSuchMount,
            ),
            (
                "crun: executable file `nope` not found in $PATH: No such file or directory",
                K::NoSuchCommand,
            ),
            (
                "runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
                K::NoSuchCommand,
            ),
            ("something else", K::Refused),
        ];
        for (words, kind) in seen {
            assert_eq!(
                EngineFault::of_words(words, K::Refused).kind,
                kind,
                "{words}"
            );
        }
    }
}
