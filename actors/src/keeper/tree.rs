//! Ends: reaping, the proof that a tree is gone, signals to trees, and killing until nothing is left.
//!
//! Every process of a child's tree descends from the keeper, which is its sub-reaper. It belongs to the child
//! that is among its ancestors, else to the one whose session or marker it carries. With a v2 group the group
//! says it instead. Numbers that are not unreaped children of ours are signalled through a verified pidfd only.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::cgroup;
use super::children::Entry;
use super::family::{self, Census, Stat};
use super::serve::{Keeper, Phase};
use super::spec::{ChildKey, ProcessId, Scope};

/// Time between two attempts at a tree that does not end.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// Looks at one tree in one attempt; a tree that outruns this is met again after a pause.
const KILL_PASSES: usize = 16;

/// A scan of all processes may take this part of the keeper's time, so that many exits cost few scans.
const SCAN_SHARE: u32 = 3;

/// When the slow work is to be done.
#[derive(Default)]
pub(super) struct Rounds {
    kill_at: Option<Instant>,
    scan_at: Option<Instant>,
    scanned: Option<(Instant, Duration)>,
}

/// Which marks lead to which child.
struct Marks<'a> {
    sessions: HashMap<i32, ChildKey>,
    markers: HashMap<&'a [u8], ChildKey>,
}

impl Keeper {
    pub(super) fn next_round(&self) -> Option<Instant> {
        [self.rounds.kill_at, self.rounds.scan_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes every exit there is.
    pub(super) fn reap(&mut self) {
        let mut any = false;
        loop {
            let mut status = 0;
            // SAFETY: a pointer to a local; every child of this process is the keeper's to reap.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            any = true;
            self.children.reaped(pid, status);
        }
        if any {
            self.settle();
        }
    }

    /// Finds out which trees are gone, where that is cheap; the rest is left to a scan.
    fn settle(&mut self) {
        let lingering: Vec<ChildKey> = self
            .children
            .iter()
            .filter(|(_, entry)| entry.lingers())
            .map(|(key, _)| key)
            .collect();
        let mut orphans = None;
        for key in lingering {
            let grouped = self
                .children
                .get(key)
                .and_then(Entry::unified)
                .map(cgroup::is_empty);
            let empty = match grouped {
                Some(Some(empty)) => Some(empty),
                _ if !*orphans.get_or_insert_with(|| self.may_have_orphans()) => Some(true),
                _ => None,
            };
            match empty {
                Some(true) => self.children.emptied(key),
                Some(false) => {}
                None => self.plan_scan(),
            }
        }
    }

    /// Whether any child of this process may be something else than a child that it started.
    fn may_have_orphans(&self) -> bool {
        match family::own_children(self.itself.pid) {
            Some(pids) => pids
                .into_iter()
                .any(|pid| self.children.leader(pid).is_none()),
            None => has_children(),
        }
    }

    fn plan_scan(&mut self) {
        let now = Instant::now();
        let earliest = self
            .rounds
            .scanned
            .map_or(now, |(at, cost)| at + cost * SCAN_SHARE);
        self.rounds.scan_at.get_or_insert(earliest.max(now));
    }

    /// One scan for all trees whose end is not proven.
    pub(super) fn settle_slowly(&mut self) {
        let start = Instant::now();
        if self.rounds.scan_at.is_none_or(|at| at > start) {
            return;
        }
        self.rounds.scan_at = None;
        let census = self.census();
        let marks = self.marks();
        let living: HashSet<ChildKey> = census
            .values()
            .filter(|stat| !stat.dead)
            .filter_map(|stat| self.owner(&census, &marks, stat.process.pid))
            .collect();
        let gone: Vec<ChildKey> = self
            .children
            .iter()
            .filter(|(key, entry)| entry.lingers() && !living.contains(key))
            .filter(|(_, entry)| {
                entry
                    .unified()
                    .is_none_or(|group| cgroup::is_empty(group).is_none())
            })
            .map(|(key, _)| key)
            .collect();
        gone.into_iter().for_each(|key| self.children.emptied(key));
        let end = Instant::now();
        self.rounds.scanned = Some((end, end - start));
    }

    /// Everything but the children themselves, whose place is known.
    fn census(&self) -> Census {
        family::census_where(|pid| self.children.leader(pid).is_none())
    }

    fn marks(&self) -> Marks<'_> {
        let mut marks = Marks {
            sessions: HashMap::new(),
            markers: HashMap::new(),
        };
        for (key, entry) in self.children.iter().filter(|(_, entry)| !entry.empty) {
            marks.sessions.insert(entry.process.pid, key);
            if !entry.marker.is_empty() {
                marks.markers.insert(entry.marker.as_bytes(), key);
            }
        }
        marks
    }

    /// Whose tree a process belongs to.
    fn owner(&self, census: &Census, marks: &Marks<'_>, pid: i32) -> Option<ChildKey> {
        let mut strangers = Vec::new();
        for at in family::lineage(census, pid) {
            if let Some(key) = self.children.leader(at) {
                return Some(key);
            }
            if at == self.itself.pid {
                let by_session = |at: &i32| marks.sessions.get(&census.get(at)?.session).copied();
                let by_marker = |at: &i32| {
                    marks
                        .markers
                        .get(family::marker_of(*at)?.as_slice())
                        .copied()
                };
                return strangers
                    .iter()
                    .find_map(by_session)
                    .or_else(|| strangers.iter().find_map(by_marker));
            }
            strangers.push(at);
        }
        None
    }

    // -----------------------------------------------------------------------------------------------------

    /// Sends a signal; what is gone is no error.
    pub(super) fn signal(&mut self, key: ChildKey, signal: i32, scope: Scope) -> Result<(), i32> {
        let Some(entry) = self.children.get(key) else {
            return Ok(());
        };
        let (pid, alive) = (entry.process.pid, entry.status.is_none());
        let follow = signal == entry.stop_signal || family::wants_continue(signal);
        match scope {
            Scope::Leader if alive => kill_own(pid, signal, follow),
            Scope::Leader => Ok(()),
            Scope::Group if alive => kill_own(-pid, signal, follow),
            Scope::Group => self.signal_members(key, signal, follow, |stat| stat.group == pid),
            Scope::All => {
                let own = if alive {
                    kill_own(pid, signal, follow)
                } else {
                    Ok(())
                };
                own.and(self.signal_members(key, signal, follow, |_| true))
            }
        }
    }

    /// Signals what belongs to the tree, but not the child itself.
    fn signal_members(
        &self,
        key: ChildKey,
        signal: i32,
        follow: bool,
        wanted: impl Fn(&Stat) -> bool,
    ) -> Result<(), i32> {
        let mut result = Ok(());
        for process in self.members(key, wanted) {
            match family::signal_verified(process, signal, follow) {
                Err(fault) if fault.raw_os_error() != Some(libc::ESRCH) => {
                    result = Err(fault.raw_os_error().unwrap_or(libc::EIO));
                }
                Ok(()) | Err(_) => {}
            }
        }
        result
    }

    fn members(&self, key: ChildKey, wanted: impl Fn(&Stat) -> bool) -> Vec<ProcessId> {
        let grouped = self.children.get(key).and_then(Entry::unified);
        let listed = grouped.map(cgroup::members).filter(|pids| !pids.is_empty());
        if let (Some(group), Some(pids)) = (grouped, listed) {
            let found: Vec<Stat> = pids.into_iter().filter_map(family::stat).collect();
            // Read again: a number that was reused meanwhile is no member of the group any more.
            let still: HashSet<i32> = cgroup::members(group).into_iter().collect();
            let other = |stat: &Stat| self.children.leader(stat.process.pid).is_none();
            let member =
                |stat: &Stat| still.contains(&stat.process.pid) && other(stat) && wanted(stat);
            return found
                .into_iter()
                .filter(|stat| member(stat))
                .map(|stat| stat.process)
                .collect();
        }
        let census = self.census();
        let marks = self.marks();
        let belongs = |stat: &Stat| self.owner(&census, &marks, stat.process.pid) == Some(key);
        census
            .values()
            .filter(|stat| !stat.dead && wanted(stat) && belongs(stat))
            .map(|stat| stat.process)
            .collect()
    }

    /// The runtime is gone for good: asks every tree to stop.
    pub(super) fn stop_all(&mut self, grace_ms: u32) {
        self.phase = Phase::Stopping {
            deadline: Instant::now() + Duration::from_millis(grace_ms.into()),
        };
        let stops: Vec<(ChildKey, i32)> = self
            .children
            .iter()
            .map(|(key, entry)| (key, entry.stop_signal))
            .collect();
        for (key, signal) in stops {
            // What cannot be asked is killed after the grace.
            let _ = self.signal(key, signal, Scope::All);
        }
    }

    // -----------------------------------------------------------------------------------------------------

    pub(super) fn begin_kill(&mut self, key: ChildKey) {
        if let Some(entry) = self.children.get_mut(key).filter(|entry| !entry.empty) {
            entry.killing = true;
            self.rounds.kill_at = Some(Instant::now());
        }
    }

    /// Whether nothing of anything is left. On the way there, moves on from asking to killing.
    pub(super) fn nothing_left(&mut self) -> bool {
        if self.children.iter().any(|(_, entry)| !entry.empty) {
            return false;
        }
        if has_children() {
            // Strays that belong to no tree: they end with the keeper.
            self.phase = Phase::Ending;
            self.rounds.kill_at.get_or_insert_with(Instant::now);
            return false;
        }
        let groups = self.children.iter().flat_map(|(_, entry)| &entry.cgroups);
        groups.filter(|group| group.ours).for_each(cgroup::remove);
        true
    }

    /// One attempt at every tree that is to be killed.
    pub(super) fn kill_round(&mut self) {
        let now = Instant::now();
        if matches!(self.phase, Phase::Stopping { deadline } if deadline <= now) {
            self.phase = Phase::Ending;
        }
        let ending = self.phase == Phase::Ending;
        if ending {
            self.children
                .iter_mut()
                .for_each(|(_, entry)| entry.killing = !entry.empty);
            self.rounds.kill_at.get_or_insert(now);
        }
        if self.rounds.kill_at.is_none_or(|at| at > now) {
            return;
        }
        let targets: HashSet<ChildKey> = self
            .children
            .iter()
            .filter(|(_, entry)| entry.killing)
            .map(|(key, _)| key)
            .collect();
        let by_scan: HashSet<ChildKey> = targets
            .iter()
            .copied()
            .filter(|key| !self.kill_group(*key))
            .collect();
        let strays = ending && targets.is_empty() && has_children();
        if !by_scan.is_empty() || strays {
            self.kill_scanned(&by_scan, strays);
        }
        self.rounds.kill_at = (!targets.is_empty() || ending).then(|| Instant::now() + KILL_PAUSE);
    }

    /// Kills by the v2 group, if there is one and the kernel can.
    fn kill_group(&self, key: ChildKey) -> bool {
        let Some(entry) = self.children.get(key) else {
            return true;
        };
        let killed = entry
            .unified()
            .is_some_and(|group| cgroup::kill(group).is_ok());
        if killed && entry.status.is_none() {
            // It may have left the group.
            let _ = kill_own(entry.process.pid, libc::SIGKILL, false);
        }
        killed
    }

    /// The children are stopped first, so that they start nothing new, and killed last, so that their descendants
    /// can still be told by descent.
    fn kill_scanned(&self, keys: &HashSet<ChildKey>, strays: bool) {
        let leaders = |signal| {
            for (_, entry) in self
                .children
                .iter()
                .filter(|(key, entry)| keys.contains(key) && entry.status.is_none())
            {
                let _ = kill_own(entry.process.pid, signal, false);
            }
        };
        leaders(libc::SIGSTOP);
        let marks = self.marks();
        let mut killed = HashSet::new();
        for _ in 0..KILL_PASSES {
            let census = self.census();
            let doomed = |stat: &Stat| {
                let pid = stat.process.pid;
                let stray = strays
                    && pid != self.itself.pid
                    && family::descends(&census, pid, self.itself.pid);
                stray
                    || self
                        .owner(&census, &marks, pid)
                        .is_some_and(|key| keys.contains(&key))
            };
            let found: Vec<ProcessId> = census
                .values()
                .filter(|stat| !stat.dead && doomed(stat))
                .map(|stat| stat.process)
                .collect();
            let fresh: Vec<ProcessId> = found
                .into_iter()
                .filter(|process| killed.insert(*process))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for process in fresh {
                // What cannot be killed is met again in the next round.
                let _ = family::signal_verified(process, libc::SIGKILL, false);
            }
        }
        leaders(libc::SIGKILL);
    }
}

/// Whether this process has any child, dead or alive.
fn has_children() -> bool {
    // SAFETY: a null result is allowed, and WNOWAIT leaves every child as it is.
    let rc = unsafe {
        libc::waitid(
            libc::P_ALL,
            0,
            std::ptr::null_mut(),
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
        )
    };
    rc == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ECHILD)
}

/// Signals an unreaped child of ours, or its group: until it is reaped its number is nobody else's.
fn kill_own(target: i32, signal: i32, follow: bool) -> Result<(), i32> {
    debug_assert!(
        target.unsigned_abs() > 1,
        "a child's number is never 0 or 1"
    );
    if target.unsigned_abs() <= 1 {
        return Err(libc::EINVAL);
    }
    // SAFETY: no memory is involved.
    let sent = unsafe { libc::kill(target, signal) };
    let errno = io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO);
    if sent != 0 && errno != libc::ESRCH {
        return Err(errno);
    }
    if follow {
        // SAFETY: as above.
        unsafe { libc::kill(target, libc::SIGCONT) };
    }
    Ok(())
}
