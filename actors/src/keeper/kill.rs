//! Signals to trees, and killing until nothing is left.
//!
//! Numbers that are not unreaped children of ours are signalled through a verified pidfd only.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use super::cgroup;
use super::children::Entry;
use super::family::{self, Stat};
use super::serve::{Keeper, Phase};
use super::spec::{ChildKey, ProcessId, Scope};
use super::tree::has_children;

/// Time between two attempts at a tree that does not end.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// Looks at one tree in one attempt; a tree that outruns this is met again after a pause.
const KILL_PASSES: usize = 16;

impl Keeper {
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
        &mut self,
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

    fn members(&mut self, key: ChildKey, wanted: impl Fn(&Stat) -> bool) -> Vec<ProcessId> {
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
        let trees = self.trees();
        let members = trees.get(&key).into_iter().flatten();
        members
            .filter(|stat| wanted(stat))
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
