//! Becoming the keeper: the process-wide settings, made once before anything else.
//!
//! Promises for all time after: descriptors 0 to 2 are `/dev/null` and 3 is the signal descriptor, nothing else
//! was inherited, every signal has its default disposition and is blocked, and descendants' orphans come here.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use super::exec::{READY_FD, Undo};
use super::spec::DeathPolicy;
use super::wire::PROTOCOL_VERSION;

const CONNECTION_FD: RawFd = 4;

/// The most descriptors the keeper allows itself; three per child.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// What the command line asks for: `__keeper keep|GRACE_MS [SOCKET [VERSION]]`.
pub(super) struct Orders {
    pub(super) policy: DeathPolicy,
    pub(super) socket_path: Option<PathBuf>,
    /// The newest protocol it speaks: less than it could, to stand in for an older keeper.
    pub(super) version: u32,
}

/// What the keeper starts with.
pub(super) struct Ground {
    pub(super) connection: OwnedFd,
    pub(super) signals: OwnedFd,
    pub(super) undo: Undo,
}

impl Orders {
    pub(super) fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let policy = args.next()?.into_string().ok()?;
        let policy = match policy.as_str() {
            "keep" => DeathPolicy::Keep,
            grace => DeathPolicy::Kill {
                grace_ms: grace.parse().ok()?,
            },
        };
        let socket_path = args.next().map(PathBuf::from);
        let version = match args.next() {
            Some(number) => number.to_str()?.parse().ok()?,
            None => PROTOCOL_VERSION,
        };
        Some(Self {
            policy,
            socket_path,
            version,
        })
    }
}

/// Settles this process. The connection is expected as standard input.
pub(super) fn settle() -> io::Result<Ground> {
    arrange_descriptors()?;
    let signals = arrange_signals()?;
    // SAFETY: `arrange_descriptors` has just made this descriptor, and nothing else owns it.
    let connection = unsafe { OwnedFd::from_raw_fd(CONNECTION_FD) };
    // SAFETY: system calls without memory of ours but a literal. Failing, each leaves a keeper that is merely
    // less protected: in its launcher's session, or with another name.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"lair-keeper".as_ptr(), 0, 0, 0);
        libc::umask(0o022);
        libc::chdir(c"/".as_ptr());
    }
    // SAFETY: as above, but orphans must come here, or trees could not be told to be gone.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(Ground {
        connection,
        signals,
        undo: Undo {
            nofile: raise_descriptor_limit(),
            oom_score: lower_oom_score(),
        },
    })
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Whatever was inherited, and whichever of 0 to 2 was closed, afterwards every number is accounted for.
fn arrange_descriptors() -> io::Result<()> {
    // SAFETY: this runs before the keeper owns any descriptor, so none that it closes or replaces is in use.
    unsafe {
        check(libc::dup3(0, CONNECTION_FD, libc::O_CLOEXEC))?;
        check(libc::syscall(libc::SYS_close_range, CONNECTION_FD + 1, u32::MAX, 0) as i32)?;
        let null = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
        for standard in 0..3 {
            check(libc::dup2(null, standard))?;
        }
        if null > 2 {
            libc::close(null);
        }
    }
    Ok(())
}

/// Blocking rather than ignoring: an ignored signal would stay ignored in every child, a mask is reset there.
fn arrange_signals() -> io::Result<OwnedFd> {
    // SAFETY: the sets and actions are initialised by the calls that take them; no handler is ever installed.
    unsafe {
        for signal in 1..=64 {
            let flags = if signal == libc::SIGCHLD {
                libc::SA_NOCLDSTOP
            } else {
                0
            };
            // The kernel's structure: handler, flags, restorer, mask. Raw, since the C library keeps two signals
            // to itself, and a launcher may have left even those ignored. KILL and STOP refuse, as they should.
            let action = [libc::SIG_DFL as u64, flags as u64, 0, 0];
            let nowhere = std::ptr::null_mut::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                nowhere,
                size_of::<u64>(),
            );
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const set,
            std::ptr::null_mut(),
        ))?;
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let made = check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        if made != READY_FD {
            check(libc::dup3(made, READY_FD, libc::O_CLOEXEC))?;
            libc::close(made);
        }
        Ok(OwnedFd::from_raw_fd(READY_FD))
    }
}

fn raise_descriptor_limit() -> Option<libc::rlimit> {
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take a pointer to a local structure of the right type.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) != 0 {
            return None;
        }
        let raised = libc::rlimit {
            rlim_cur: before.rlim_max.min(MAX_DESCRIPTORS),
            ..before
        };
        if raised.rlim_cur <= before.rlim_cur
            || libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) != 0
        {
            return None;
        }
    }
    Some(before)
}

/// The keeper should outlive its children when memory runs out; without the right to say so it does not. What spares
/// the keeper, or spared its launcher, spares no child.
fn lower_oom_score() -> Option<CString> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(FILE).ok()?;
    let before: i32 = before.trim_end().parse().ok()?;
    let lowered = before > -900 && std::fs::write(FILE, "-900").is_ok();
    let reset = lowered || before < 0;
    reset.then(|| CString::new(before.max(0).to_string()).ok())?
}
