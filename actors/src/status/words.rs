//! Words for the values of the core, in one place.

use crate::files::{Stamp, Stamper};
use lair_supervision::{
    ChildIdentity, ExitEvidence, ExitStatus, ProbeKind, RestartType, StopCause, Tri,
};

/// A wall clock in milliseconds as RFC 3339 UTC with milliseconds.
#[must_use]
pub fn rfc3339(wall_ms: u64) -> String {
    let nanos = i64::try_from(wall_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000);
    let mut stamper = Stamper::new();
    let text = stamper.text(Stamp(nanos));
    format!("{}Z", String::from_utf8_lossy(&text[..23]))
}

/// `pid=4711`, `container=...`.
#[must_use]
pub fn identity_words(identity: &ChildIdentity) -> String {
    match identity {
        ChildIdentity::Native { pid, .. } => format!("pid={pid}"),
        ChildIdentity::Container { engine_id, .. } => format!("container={engine_id}"),
        ChildIdentity::Sim { serial } => format!("sim={serial}"),
    }
}

/// Why something was told to stop.
#[must_use]
pub fn cause_word(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Requested => "requested",
        StopCause::Restart => "restart",
        StopCause::Shutdown => "shutdown",
        StopCause::Unhealthy(ProbeKind::Startup) => "unhealthy (startup)",
        StopCause::Unhealthy(ProbeKind::Readiness) => "unhealthy (readiness)",
        StopCause::Unhealthy(ProbeKind::Liveness) => "unhealthy (liveness)",
        StopCause::NotReadyInTime => "not_ready_in_time",
        StopCause::StartTimedOut => "start_timed_out",
        StopCause::Exposed => "exposure_violated",
        StopCause::OwnerDied => "owner_died",
        StopCause::Group => "group",
        StopCause::GroupGaveUp => "group_gave_up",
    }
}

/// `exited code=0`, `exited signal=9 by_us=9 dropped=17`.
#[must_use]
pub fn exit_words(status: ExitStatus, evidence: &ExitEvidence) -> String {
    let mut words = match status {
        ExitStatus::Code(code) => format!("exited code={code}"),
        ExitStatus::Signal(signal) => format!("exited signal={signal}"),
        ExitStatus::Unknown => "exited unknown".to_owned(),
    };
    if let Some(signal) = evidence.by_us {
        words.push_str(&format!(" by_us={signal}"));
    }
    if evidence.oom == Tri::Yes {
        words.push_str(" oom=yes");
    }
    if evidence.log_dropped > 0 {
        words.push_str(&format!(" dropped={}", evidence.log_dropped));
    }
    for left in &evidence.leftover {
        words.push_str(&format!(" leftover={left:?}"));
    }
    words
}

/// The manifest's word for a restart type.
#[must_use]
pub fn policy_word(restart: RestartType) -> &'static str {
    match restart {
        RestartType::Temporary => "never",
        RestartType::Transient => "on-failure",
        RestartType::Permanent => "always",
    }
}

/// The symbol of an error number (errno(3)), or its number.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::E2BIG => "E2BIG",
        libc::EACCES => "EACCES",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EAGAIN => "EAGAIN",
        libc::EBADF => "EBADF",
        libc::EBUSY => "EBUSY",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EEXIST => "EEXIST",
        libc::EFAULT => "EFAULT",
        libc::EINTR => "EINTR",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::EISDIR => "EISDIR",
        libc::ELIBBAD => "ELIBBAD",
        libc::ELOOP => "ELOOP",
        libc::EMFILE => "EMFILE",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENFILE => "ENFILE",
        libc::ENODEV => "ENODEV",
        libc::ENOENT => "ENOENT",
        libc::ENOEXEC => "ENOEXEC",
        libc::ENOMEM => "ENOMEM",
        libc::ENOSPC => "ENOSPC",
        libc::ENOTDIR => "ENOTDIR",
        libc::EPERM => "EPERM",
        libc::EROFS => "EROFS",
        libc::ESRCH => "ESRCH",
        libc::ETXTBSY => "ETXTBSY",
        other => return other.to_string(),
    };
    name.to_owned()
}
