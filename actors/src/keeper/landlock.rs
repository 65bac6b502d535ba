//! Landlock rulesets, made before the child exists: it only has to enter them (landlock(7)).
//!
//! Owns nothing; a ruleset is a descriptor. Promises: every right that the running kernel knows is taken away unless a
//! rule gives it back; a path that has to be there and is not makes no ruleset.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::confine::{Files, Landlock};

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// What can be asked of something that is no folder.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
const READ: u64 = EXECUTE | READ_FILE | READ_DIR;

const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;
/// No signals to processes outside.
const SCOPE_SIGNAL: u64 = 1 << 1;

const RULE_PATH: i32 = 1;
const RULE_PORT: i32 = 2;

/// What any program may use: no secrets and no state in it.
const DEVICES: [&CStr; 5] = [
    c"/dev/null",
    c"/dev/zero",
    c"/dev/full",
    c"/dev/random",
    c"/dev/urandom",
];

#[repr(C)]
struct RulesetAttr {
    files: u64,
    net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathAttr {
    allowed: u64,
    parent: RawFd,
}

#[repr(C)]
struct PortAttr {
    allowed: u64,
    port: u64,
}

/// The version of the kernel's Landlock; 0 where it has none, or it is switched off.
#[must_use]
pub fn landlock_abi() -> u32 {
    // SAFETY: with no attributes and this flag the call only answers.
    let answer = unsafe {
        let nothing = std::ptr::null::<RulesetAttr>();
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, 1_u32)
    };
    u32::try_from(answer).unwrap_or(0)
}

/// The rights over files that this version knows.
fn known(abi: u32) -> u64 {
    let bits = match abi {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// Makes a ruleset.
pub(super) fn ruleset(rules: &Landlock) -> io::Result<OwnedFd> {
    let abi = landlock_abi();
    if abi < rules.needs() {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let bind = rules.bind.as_ref().map_or(0, |_| BIND_TCP);
    let connect = rules.connect.as_ref().map_or(0, |_| CONNECT_TCP);
    let attr = RulesetAttr {
        files: rules.files.as_ref().map_or(0, |_| known(abi)),
        net: bind | connect,
        scoped: if abi >= 6 { SCOPE_SIGNAL } else { 0 },
    };
    let size: usize = match abi {
        ..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: the structure is at least `size` bytes long; on success the descriptor is new and owned by nobody else.
    let made = unsafe {
        let attr = std::ptr::from_ref(&attr);
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, attr, size, 0_u32);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    if let Some(files) = &rules.files {
        allow_files(&made, files, known(abi))?;
    }
    for (ports, right) in [(&rules.bind, BIND_TCP), (&rules.connect, CONNECT_TCP)] {
        for port in ports.iter().flatten() {
            let attr = PortAttr {
                allowed: right,
                port: u64::from(*port),
            };
            add(&made, RULE_PORT, std::ptr::from_ref(&attr).cast())?;
        }
    }
    Ok(made)
}

fn allow_files(ruleset: &OwnedFd, files: &Files, known: u64) -> io::Result<()> {
    for path in &files.system {
        match allow(ruleset, path, READ) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    for path in DEVICES {
        match allow(ruleset, path, READ_FILE | WRITE_FILE) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    let each = |paths: &[CString], rights| {
        paths
            .iter()
            .try_for_each(|path| allow(ruleset, path, rights))
    };
    each(&files.read, READ)?;
    each(&files.write, known)
}

fn allow(ruleset: &OwnedFd, path: &CStr, rights: u64) -> io::Result<()> {
    // SAFETY: the path is a C string; on success the descriptor is new and owned by nobody else.
    let place = unsafe {
        match libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) {
            fd if fd < 0 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode)
        == rustix::fs::FileType::Directory;
    let attr = PathAttr {
        allowed: if folder { rights } else { rights & OF_FILES },
        parent: place.as_raw_fd(),
    };
    add(ruleset, RULE_PATH, std::ptr::from_ref(&attr).cast())
}

fn add(ruleset: &OwnedFd, kind: i32, rule: *const libc::c_void) -> io::Result<()> {
    // SAFETY: `rule` points to the structure that belongs to `kind`, alive during the call.
    let answer = unsafe {
        let ruleset = ruleset.as_raw_fd();
        libc::syscall(libc::SYS_landlock_add_rule, ruleset, kind, rule, 0_u32)
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
