//! The child's side of the vfork, up to the program's first instruction.
//!
//! It runs on the keeper's memory while the keeper is suspended: raw system calls only, no allocation, no panic,
//! and one word written (its failure) that the keeper reads once the child is gone. Owns nothing; its descriptors
//! are close-on-exec or meant for the program.

use std::ffi::{CStr, c_int, c_long, c_void};

use super::exec::{Plan, READY_FD};
use super::spec::{SpawnFault, Stage};

/// What `clone` calls in the child; returns only if nothing was executed.
pub(super) extern "C" fn child(argument: *mut c_void) -> c_int {
    // SAFETY: clone hands over the pointer that `vfork` made from a live reference; the keeper is suspended.
    let plan = unsafe { &*argument.cast::<Plan<'_>>() };
    let Err(fault) = enter(plan);
    plan.failure.set(Some(fault));
    // SAFETY: ends this process without running anything of the keeper's.
    unsafe { libc::syscall(libc::SYS_exit_group, 127) };
    127
}

/// The order matters: groups and raised limits need the privileges that are dropped after them.
fn enter(plan: &Plan<'_>) -> Result<std::convert::Infallible, SpawnFault> {
    // SAFETY (this function and those it calls): plain system calls; every pointer comes from `plan`, which
    // lives on, unchanged, in the suspended keeper.
    unsafe {
        // First of all: until then every change to a descriptor would be a change to the keeper's.
        if let Some(first) = plan.cut {
            let cut = libc::CLOSE_RANGE_UNSHARE;
            step(
                Stage::Clone,
                libc::syscall(libc::SYS_close_range, first, u32::MAX, cut),
            )?;
        }
        step(Stage::Session, libc::syscall(libc::SYS_setsid))?;
        connect_streams(plan)?;
        for file in &plan.cgroup_files {
            write_file(Stage::EnterLimits, file, b"0")?;
        }
        set_limits(plan)?;
        if let Some(mask) = plan.spec.umask {
            libc::syscall(libc::SYS_umask, mask);
        }
        if let Some(dir) = &plan.spec.workdir {
            step(
                Stage::ChangeDir,
                libc::syscall(libc::SYS_chdir, dir.as_ptr()),
            )?;
        }
        plan.restrict.leave_network()?;
        drop_privileges(plan)?;
        let none = 0_u64;
        let size = size_of::<u64>();
        let nowhere = std::ptr::null_mut::<c_void>();
        step(
            Stage::Exec,
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const none,
                nowhere,
                size,
            ),
        )?;
        plan.restrict.restrict_files()?;
        Err(SpawnFault {
            stage: Stage::Exec,
            errno: execute(plan),
        })
    }
}

pub(super) fn step(stage: Stage, result: c_long) -> Result<c_long, SpawnFault> {
    if result < 0 {
        Err(SpawnFault {
            stage,
            errno: errno(),
        })
    } else {
        Ok(result)
    }
}

pub(super) fn errno() -> c_int {
    // SAFETY: the location is this thread's; the suspended keeper does not look at it.
    unsafe { *libc::__errno_location() }
}

/// Standard input stays the keeper's own, `/dev/null`. The sources are never 0 to 3: the keeper occupies those.
unsafe fn connect_streams(plan: &Plan<'_>) -> Result<(), SpawnFault> {
    let wanted = plan
        .outputs
        .iter()
        .copied()
        .zip(1..)
        .chain(plan.ready.map(|fd| (fd, READY_FD)));
    for (from, to) in wanted {
        step(Stage::Streams, unsafe {
            libc::syscall(libc::SYS_dup3, from, to, 0)
        })?;
    }
    Ok(())
}

pub(super) unsafe fn write_file(stage: Stage, path: &CStr, text: &[u8]) -> Result<(), SpawnFault> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    unsafe {
        let file = step(
            stage,
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0),
        )?;
        step(
            stage,
            libc::syscall(libc::SYS_write, file, text.as_ptr(), text.len()),
        )?;
        libc::syscall(libc::SYS_close, file);
    }
    Ok(())
}

unsafe fn set_limits(plan: &Plan<'_>) -> Result<(), SpawnFault> {
    if let Some(score) = &plan.undo.oom_score {
        unsafe {
            write_file(
                Stage::Rlimits,
                c"/proc/self/oom_score_adj",
                score.as_bytes(),
            )?
        };
    }
    let nowhere = std::ptr::null_mut::<c_void>();
    if let Some(limit) = &plan.undo.nofile {
        let from = std::ptr::from_ref(limit);
        step(Stage::Rlimits, unsafe {
            libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, from, nowhere)
        })?;
    }
    for limit in &plan.spec.rlimits {
        let value = [limit.soft, limit.hard];
        step(Stage::Rlimits, unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                limit.resource,
                value.as_ptr(),
                nowhere,
            )
        })?;
    }
    Ok(())
}

unsafe fn drop_privileges(plan: &Plan<'_>) -> Result<(), SpawnFault> {
    let stage = Stage::DropPrivileges;
    unsafe {
        if let Some(groups) = &plan.spec.groups {
            step(
                stage,
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
            )?;
        } else if plan.clear_groups {
            step(
                stage,
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
            )?;
        }
        if let Some(gid) = plan.spec.gid {
            step(stage, libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        }
        plan.restrict.hold_capabilities()?;
        if let Some(uid) = plan.spec.uid {
            step(stage, libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        }
        if plan.spec.no_new_privs {
            step(
                stage,
                libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            )?;
        }
        plan.restrict.drop_capabilities()
    }
}

/// As `execvp` searches, except that a text without an interpreter is an error: lair never guesses a shell.
unsafe fn execute(plan: &Plan<'_>) -> c_int {
    let mut denied = None;
    let mut last = libc::ENOENT;
    for program in &plan.programs {
        unsafe {
            libc::syscall(
                libc::SYS_execve,
                program.as_ptr(),
                plan.argv.as_ptr(),
                plan.env.as_ptr(),
            )
        };
        last = errno();
        match last {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => denied = Some(last),
            _ => return last,
        }
    }
    denied.unwrap_or(if plan.programs.len() > 1 {
        libc::ENOENT
    } else {
        last
    })
}
