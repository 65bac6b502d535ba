//! What the child takes from itself before it executes: network, capabilities, files.
//!
//! Runs on the keeper's memory, like all of [`super::enter`]: raw system calls, no allocation, no panic.

use std::ffi::{CString, c_long, c_ulong, c_void};
use std::os::fd::RawFd;

use super::confine::{Confine, OwnNetwork};
use super::enter::{errno, step, write_file};
use super::spec::{SpawnFault, Stage};

const STAGE: Stage = Stage::Confine;

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// What was laid out for it before the child existed.
pub(super) struct Ready {
    capabilities: Option<u64>,
    network: OwnNetwork,
    /// Maps of a user namespace in which the child stays who it is.
    users: CString,
    groups: CString,
    /// The Landlock ruleset, below the cut of the descriptor table.
    pub(super) ruleset: Option<RawFd>,
}

impl Ready {
    pub(super) fn new(confine: &Confine, ruleset: Option<RawFd>) -> Self {
        let own = confine.network != OwnNetwork::No;
        let map = |id: u32| {
            let text = if own {
                format!("{id} {id} 1")
            } else {
                String::new()
            };
            CString::new(text).unwrap_or_default()
        };
        // SAFETY: neither call has preconditions.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self {
            capabilities: confine.capabilities,
            network: confine.network,
            users: map(uid),
            groups: map(gid),
            ruleset,
        }
    }

    /// A network of its own, while the child still has the right to one.
    ///
    /// # Safety
    /// As for [`super::enter`].
    pub(super) unsafe fn leave_network(&self) -> Result<(), SpawnFault> {
        if self.network == OwnNetwork::No {
            return Ok(());
        }
        unsafe {
            if libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNET) < 0 {
                // Without the right to it: as the root of a user namespace, which anybody may have where they are on.
                let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
                if libc::syscall(libc::SYS_unshare, flags) < 0 {
                    return match self.network {
                        OwnNetwork::Required => Err(SpawnFault {
                            stage: STAGE,
                            errno: errno(),
                        }),
                        OwnNetwork::No | OwnNetwork::IfPossible => Ok(()),
                    };
                }
                write_file(STAGE, c"/proc/self/setgroups", b"deny")?;
                write_file(STAGE, c"/proc/self/uid_map", self.users.as_bytes())?;
                write_file(STAGE, c"/proc/self/gid_map", self.groups.as_bytes())?;
            }
            raise_loopback();
        }
        Ok(())
    }

    /// Before the user changes: what is kept must outlive that.
    ///
    /// # Safety
    /// As for [`super::enter`].
    pub(super) unsafe fn hold_capabilities(&self) -> Result<(), SpawnFault> {
        if self.capabilities.is_none_or(|kept| kept == 0) {
            return Ok(());
        }
        unsafe { prctl(libc::PR_SET_KEEPCAPS, 1, 0) }
    }

    /// After the user changed. With `no_new_privs` nothing brings a capability back: not a program's owner, not its
    /// file's capabilities, not being root.
    ///
    /// # Safety
    /// As for [`super::enter`].
    pub(super) unsafe fn drop_capabilities(&self) -> Result<(), SpawnFault> {
        let Some(kept) = self.capabilities else {
            return Ok(());
        };
        let half = |shift: u32| (kept >> shift) as u32;
        let header = [CAPABILITY_VERSION, 0];
        // Effective, permitted, inheritable; first of the lower, then of the upper 32.
        let sets = [half(0), half(0), half(0), half(32), half(32), half(32)];
        unsafe {
            step(
                STAGE,
                libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()),
            )?;
            for number in 0..64_u32 {
                if kept >> number & 1 == 1 {
                    let raise = libc::PR_CAP_AMBIENT_RAISE as c_ulong;
                    prctl(libc::PR_CAP_AMBIENT, raise, c_ulong::from(number))?;
                }
            }
        }
        Ok(())
    }

    /// The last step before the program: it needs `no_new_privs`.
    ///
    /// # Safety
    /// As for [`super::enter`].
    pub(super) unsafe fn restrict_files(&self) -> Result<(), SpawnFault> {
        if let Some(ruleset) = self.ruleset {
            step(STAGE, unsafe {
                libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32)
            })?;
        }
        Ok(())
    }
}

unsafe fn prctl(what: i32, first: c_ulong, second: c_ulong) -> Result<(), SpawnFault> {
    step(STAGE, unsafe {
        libc::syscall(libc::SYS_prctl, what, first, second, 0_usize, 0_usize)
    })?;
    Ok(())
}

/// `struct ifreq`, as far as flags go.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// A module that talks to itself over 127.0.0.1 should not notice. Failing, it merely does.
unsafe fn raise_loopback() {
    let mut name = [0; 16];
    name[0] = b'l';
    name[1] = b'o';
    let up = Interface {
        name,
        flags: (libc::IFF_UP | libc::IFF_RUNNING) as i16,
        rest: [0; 22],
    };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    unsafe {
        let socket: c_long = libc::syscall(libc::SYS_socket, libc::AF_INET, kind, 0);
        if socket >= 0 {
            let request = std::ptr::from_ref(&up).cast::<c_void>();
            libc::syscall(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, request);
            libc::syscall(libc::SYS_close, socket);
        }
    }
}
