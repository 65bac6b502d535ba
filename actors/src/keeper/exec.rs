//! From a spec to a running program, in one vfork.
//!
//! Owns the child's stack and the few things that must be undone before exec because the keeper changed them for
//! itself. Promises that a start either executed the program or says at which stage it failed, with nothing left
//! running. Everything that needs memory is laid out here, before the child exists.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::clone::{self, Vfork};
use super::enter::child;
use super::family::MARKER_NAME;
use super::landlock;
use super::restrict::Ready;
use super::spec::{SpawnFault, SpawnSpec, Stage};

/// The descriptor at which a child finds its readiness pipe.
pub(super) const READY_FD: RawFd = 3;

/// What the kernel's own `execvp` searches when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

const STACK_SIZE: usize = 64 * 1024;

/// What the keeper changed for itself and no child may inherit.
pub(super) struct Undo {
    /// The limit on descriptors before the keeper raised its own.
    pub(super) nofile: Option<libc::rlimit>,
    /// The text of `oom_score_adj` before the keeper lowered its own.
    pub(super) oom_score: Option<CString>,
}

/// Starts children.
pub(super) struct Launcher {
    stack: *mut c_void,
    undo: Undo,
    /// Low descriptors at which a child finds its ends of the streams; `/dev/null` between two starts.
    /// The fourth is the Landlock ruleset's.
    slots: [OwnedFd; 4],
    /// Whether the kernel can cut a shared descriptor table down in the child (Linux 5.9).
    can_cut: Cell<bool>,
}

/// A child that runs, and our ends of its streams: stdout, stderr, readiness.
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) streams: Vec<OwnedFd>,
}

/// Everything the child needs, laid out before it exists.
pub(super) struct Plan<'a> {
    pub(super) spec: &'a SpawnSpec,
    pub(super) undo: &'a Undo,
    pub(super) programs: Vec<CString>,
    pub(super) argv: Vec<*const c_char>,
    pub(super) env: Vec<*const c_char>,
    pub(super) cgroup_files: Vec<CString>,
    pub(super) clear_groups: bool,
    /// The table is shared with the keeper's; everything from here on is left out of the child's own copy.
    pub(super) cut: Option<u32>,
    pub(super) outputs: [RawFd; 2],
    pub(super) ready: Option<RawFd>,
    pub(super) restrict: Ready,
    pub(super) failure: Cell<Option<SpawnFault>>,
}

impl Launcher {
    pub(super) fn new(undo: Undo) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let stack = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if stack == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self {
                stack,
                undo,
                slots: [null()?, null()?, null()?, null()?],
                can_cut: Cell::new(true),
            })
        }
    }

    pub(super) fn launch(&mut self, spec: &SpawnSpec) -> Result<Launched, SpawnFault> {
        let mut ours = Vec::with_capacity(3);
        let mut theirs = Vec::with_capacity(3);
        for _ in 0..2 + usize::from(spec.ready) {
            let (read, write) = pipe().map_err(|fault| at(Stage::Pipes, &fault))?;
            ours.push(read);
            theirs.push(write);
        }
        let ruleset = self.ruleset(spec)?;
        let slots = self.fill(&theirs)?;
        drop(theirs);
        let pid = self.start_in(spec, slots, ruleset);
        self.empty();
        Ok(Launched {
            pid: pid?,
            streams: ours,
        })
    }

    fn start_in(
        &self,
        spec: &SpawnSpec,
        slots: [RawFd; 3],
        ruleset: Option<RawFd>,
    ) -> Result<i32, SpawnFault> {
        let group = birthplace(spec);
        let extra = extra_env(spec);
        let mut plan = Plan {
            spec,
            undo: &self.undo,
            programs: programs(spec),
            argv: pointers(spec.argv.iter()),
            env: pointers(spec.env.iter().chain(&extra)),
            cgroup_files: cgroup_files(spec, group.is_some()),
            // SAFETY: geteuid has no preconditions.
            clear_groups: spec.groups.is_none()
                && spec
                    .uid
                    .is_some_and(|uid| uid != unsafe { libc::geteuid() }),
            cut: self.cut(),
            outputs: [slots[0], slots[1]],
            ready: spec.ready.then_some(slots[2]),
            restrict: Ready::new(&spec.confine, ruleset),
            failure: Cell::new(None),
        };
        if group.is_some() {
            match self.start(&plan, group.as_ref()) {
                // Not born there: joined afterwards, which has its own name for what is wrong.
                Err(fault) if fault.stage == Stage::Clone => {
                    plan.cgroup_files = cgroup_files(spec, false);
                    plan.cut = self.cut();
                }
                other => return other,
            }
        }
        match self.start(&plan, None) {
            Err(fault)
                if fault.stage == Stage::Clone && plan.cut.is_some() && !self.can_cut.get() =>
            {
                plan.cut = None;
                self.start(&plan, None)
            }
            other => other,
        }
    }

    fn start(&self, plan: &Plan<'_>, group: Option<&OwnedFd>) -> Result<i32, SpawnFault> {
        plan.failure.set(None);
        let pid = self
            .vfork(plan, group)
            .map_err(|fault| at(Stage::Clone, &fault))?;
        match plan.failure.get() {
            None => Ok(pid),
            Some(fault) => {
                bury(pid);
                // Only cutting the table down can fail at this stage in the child.
                if fault.stage == Stage::Clone {
                    self.can_cut.set(false);
                }
                Err(fault)
            }
        }
    }

    /// Puts the child's ends into the slots.
    fn fill(&self, theirs: &[OwnedFd]) -> Result<[RawFd; 3], SpawnFault> {
        for (slot, end) in self.slots.iter().zip(theirs) {
            put(end, slot).map_err(|fault| at(Stage::Pipes, &fault))?;
        }
        Ok([0, 1, 2].map(|index| raw(&self.slots, index)))
    }

    /// Makes the child's ruleset and puts it where the child finds it.
    fn ruleset(&self, spec: &SpawnSpec) -> Result<Option<RawFd>, SpawnFault> {
        let Some(rules) = &spec.confine.landlock else {
            return Ok(None);
        };
        let slot = &self.slots[3];
        landlock::ruleset(rules)
            .and_then(|made| put(&made, slot))
            .map_err(|fault| at(Stage::Confine, &fault))?;
        Ok(Some(slot.as_raw_fd()))
    }

    /// Takes the child's ends out again: with one left here, its streams would never end.
    fn empty(&self) {
        for slot in &self.slots {
            // SAFETY: descriptor 0 is the keeper's /dev/null for as long as it lives.
            let null = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
            let _ = put(&null, slot);
        }
    }

    fn cut(&self) -> Option<u32> {
        let highest = self.slots.iter().map(AsRawFd::as_raw_fd).max()?;
        u32::try_from(highest + 1)
            .ok()
            .filter(|_| self.can_cut.get())
    }

    /// Returns once the child has executed its program or has ended.
    fn vfork(&self, plan: &Plan<'_>, group: Option<&OwnedFd>) -> io::Result<i32> {
        // A copy of the table costs more with every child there is; the child cuts a shared one down for itself.
        let how = Vfork {
            stack: self.stack,
            size: STACK_SIZE,
            share_files: plan.cut.is_some(),
            group: group.map(AsRawFd::as_raw_fd),
        };
        let argument = std::ptr::from_ref(plan).cast_mut().cast::<c_void>();
        // SAFETY: the stack is ours, used by nobody else, and free again when this returns, since CLONE_VFORK
        // suspends this only thread until the child is done with our memory. `plan` outlives that by the borrow.
        match unsafe { clone::vfork(&how, child, argument) } {
            Err(fault) if fault.raw_os_error() == Some(libc::ENOSYS) && group.is_none() => {
                self.old_vfork(&how, argument)
            }
            other => other,
        }
    }

    /// Where clone3 is missing or forbidden (seccomp answers ENOSYS).
    fn old_vfork(&self, how: &Vfork, argument: *mut c_void) -> io::Result<i32> {
        let shared = if how.share_files {
            libc::CLONE_FILES
        } else {
            0
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | shared | libc::SIGCHLD;
        // SAFETY: as in `vfork`.
        match unsafe { libc::clone(child, how.stack.byte_add(how.size), flags, argument) } {
            pid if pid < 0 => Err(io::Error::last_os_error()),
            pid => Ok(pid),
        }
    }
}

/// The first v2 group of a spec, open, to be born in.
fn birthplace(spec: &SpawnSpec) -> Option<OwnedFd> {
    let group = spec.cgroups.iter().find(|group| group.unified)?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is a C string; on success the descriptor is new and owned by nobody else.
    unsafe {
        match libc::open(group.path.as_ptr(), flags) {
            fd if fd < 0 => None,
            fd => Some(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn at(stage: Stage, fault: &io::Error) -> SpawnFault {
    SpawnFault {
        stage,
        errno: fault.raw_os_error().unwrap_or(libc::EIO),
    }
}

fn raw(fds: &[OwnedFd], index: usize) -> RawFd {
    fds.get(index).map_or(-1, AsRawFd::as_raw_fd)
}

/// A descriptor that leads nowhere, above those that programs know by number.
fn null() -> io::Result<OwnedFd> {
    // SAFETY: descriptor 0 is the keeper's /dev/null; on success the new one is owned by nobody else.
    unsafe {
        match libc::fcntl(0, libc::F_DUPFD_CLOEXEC, READY_FD + 1) {
            fd if fd < 0 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn put(from: &impl AsRawFd, slot: &OwnedFd) -> io::Result<()> {
    // SAFETY: both are open; what the slot led to before is closed by the kernel in the same step.
    match unsafe { libc::dup3(from.as_raw_fd(), slot.as_raw_fd(), libc::O_CLOEXEC) } {
        fd if fd < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The reading end does not block; the writing end is the child's and must.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the array has room for the two descriptors; on success both are new and owned by nobody else.
    let (read, write) = unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    };
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

fn pointers<'a>(texts: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    texts
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

fn extra_env(spec: &SpawnSpec) -> Vec<CString> {
    let mut extra = Vec::new();
    if !spec.marker.is_empty() {
        let entry = [MARKER_NAME.as_bytes(), b"=", spec.marker.as_bytes()].concat();
        extra.extend(CString::new(entry).ok());
    }
    if spec.ready {
        extra.extend(CString::new(format!("LAIR_READY_FD={READY_FD}")).ok());
    }
    extra
}

/// What is joined by writing: all groups, or all but the one to be born in.
fn cgroup_files(spec: &SpawnSpec, born: bool) -> Vec<CString> {
    let mut born = born;
    let file = |dir: &CString| CString::new([dir.as_bytes(), b"/cgroup.procs"].concat()).ok();
    spec.cgroups
        .iter()
        .filter(|group| !(group.unified && std::mem::take(&mut born)))
        .filter_map(|group| file(&group.path))
        .collect()
}

/// What to try, in order; the child itself tries, so that the answers are those its own user gets.
fn programs(spec: &SpawnSpec) -> Vec<CString> {
    let Some(program) = spec.argv.first() else {
        return Vec::new();
    };
    if program.as_bytes().contains(&b'/') {
        return vec![program.clone()];
    }
    let path = spec
        .env
        .iter()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    path.unwrap_or(DEFAULT_PATH)
        .split(|byte| *byte == b':')
        .filter_map(|dir| {
            let dir = if dir.is_empty() { b"." } else { dir };
            CString::new([dir, b"/", program.as_bytes()].concat()).ok()
        })
        .collect()
}

/// Reaps a child that did not execute anything.
fn bury(pid: i32) {
    loop {
        // SAFETY: a null status is allowed; the child is ours and unreaped.
        let rc = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        if rc == pid || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return;
        }
    }
}
