//! clone3(2) in vfork style, with a stack of its own and, where asked, straight into a control group.
//!
//! Owns nothing. libc has no wrapper for it: the child returns from the system call on another stack, so what follows
//! the call must not use the old one. Joining a group by writing to it instead can cost tens of milliseconds: the
//! kernel then waits until no thread of the machine is in the middle of a fork.

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::RawFd;

/// What a child is made with.
pub(super) struct Vfork {
    /// Lowest address of its stack, 16-byte aligned.
    pub(super) stack: *mut c_void,
    /// Length of the stack, a multiple of 16.
    pub(super) size: usize,
    /// Share the descriptor table.
    pub(super) share_files: bool,
    /// The v2 group to be born in.
    pub(super) group: Option<RawFd>,
}

/// Starts `entry(argument)` in a child that shares our memory; returns its pid once it has executed a program or ended.
///
/// # Errors
/// What clone3 says; `ENOSYS` also on machines for which there is no code here.
///
/// # Safety
/// The stack is used by nobody else; `entry` does not return, allocate or panic; `argument` lives until this returns.
pub(super) unsafe fn vfork(
    how: &Vfork,
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> io::Result<i32> {
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | if how.share_files {
            libc::CLONE_FILES
        } else {
            0
        };
    let into = how.group.map_or(0, |_| INTO_CGROUP);
    let mut arguments = CloneArgs {
        flags: u64::from(flags.unsigned_abs()) | into,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: how.stack.addr() as u64,
        stack_size: how.size as u64,
        cgroup: how.group.map_or(0, |fd| u64::from(fd.unsigned_abs())),
        ..CloneArgs::default()
    };
    // SAFETY: as this function's; the kernel reads `arguments` before it returns.
    let result = unsafe { raw(&mut arguments, entry, argument) };
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) => Err(io::Error::from_raw_os_error(-errno)),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `CLONE_INTO_CGROUP` (Linux 5.7), which does not fit libc's `c_int`.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of clone3(2), up to the field for the group.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[cfg(target_arch = "x86_64")]
unsafe fn raw(
    arguments: &mut CloneArgs,
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: the child leaves this frame at once by the call, on its own stack, and never comes back.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn raw(
    arguments: &mut CloneArgs,
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: the child leaves this frame at once by the call, on its own stack, and never comes back.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") arguments => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") argument,
            in("x21") entry,
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn raw(
    _arguments: &mut CloneArgs,
    _entry: extern "C" fn(*mut c_void) -> c_int,
    _argument: *mut c_void,
) -> c_long {
    -c_long::from(libc::ENOSYS)
}
