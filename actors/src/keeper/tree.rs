//! Ends: reaping, and the proof that a tree is gone.
//!
//! Every process of a child's tree descends from the keeper, which is its sub-reaper. It belongs to the child
//! that is among its ancestors, else to the one whose session or marker it carries. With a v2 group the group
//! says it instead.

#![allow(
    clippy::disallowed_methods,
    reason = "the keeper has no runtime above it: its rounds are timed by its own clock"
)]

use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::cgroup;
use super::children::Entry;
use super::family::{self, Census, Stat};
use super::serve::Keeper;
use super::spec::ChildKey;

/// A scan of all processes may take this part of the keeper's time, so that many exits cost few scans.
const SCAN_SHARE: u32 = 3;

/// A group may call itself populated for a moment after its last process was reaped (Linux 6.19 unlinks late), and
/// nothing wakes the keeper then: it looks once more.
const RECHECK: Duration = Duration::from_millis(10);

/// Ends taken in one turn, before requests are looked at again: while many are asked to stop, those not yet asked come
/// before those already dead, and nobody waits behind a thousand funerals.
const REAPED: usize = 8;

/// When the slow work is to be done.
#[derive(Default)]
pub(super) struct Rounds {
    /// There may be ends that were not taken yet.
    pub(super) unreaped: bool,
    pub(super) kill_at: Option<Instant>,
    scan_at: Option<Instant>,
    recheck_at: Option<Instant>,
    scanned: Option<(Instant, Duration)>,
    trees: Option<Rc<Trees>>,
}

/// The living processes of each tree, without the children themselves.
pub(super) type Trees = HashMap<ChildKey, Vec<Stat>>;

/// Which marks lead to which child.
pub(super) struct Marks<'a> {
    sessions: HashMap<i32, ChildKey>,
    markers: HashMap<&'a [u8], ChildKey>,
}

impl Keeper {
    pub(super) fn next_round(&self) -> Option<Instant> {
        [
            self.rounds.kill_at,
            self.rounds.scan_at,
            self.rounds.recheck_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes the exits there are, as many as one turn may.
    pub(super) fn reap(&mut self) {
        let mut taken = 0;
        while taken < REAPED {
            let mut status = 0;
            // SAFETY: a pointer to a local; every child of this process is the keeper's to reap.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            taken += 1;
            self.children.reaped(pid, status);
        }
        self.rounds.unreaped = taken == REAPED;
        if taken > 0 {
            self.settle(true);
        }
    }

    /// Finds out which trees are gone, where that is cheap; the rest is left to a scan.
    fn settle(&mut self, again: bool) {
        let lingering = self.children.lingering();
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
                Some(false) if again => self.rounds.recheck_at = Some(Instant::now() + RECHECK),
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
        if self.rounds.recheck_at.is_some_and(|at| at <= start) {
            self.rounds.recheck_at = None;
            self.settle(false);
        }
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

    /// All trees at once, scanned at most once in a turn: a thousand signals in one turn cost one scan.
    pub(super) fn trees(&mut self) -> Rc<Trees> {
        if let Some(trees) = &self.rounds.trees {
            return Rc::clone(trees);
        }
        let census = self.census();
        let marks = self.marks();
        let mut trees = Trees::new();
        for stat in census.values().filter(|stat| !stat.dead) {
            if let Some(key) = self.owner(&census, &marks, stat.process.pid) {
                trees.entry(key).or_default().push(*stat);
            }
        }
        let trees = Rc::new(trees);
        self.rounds.trees = Some(Rc::clone(&trees));
        trees
    }

    /// What was seen in one turn is not believed in the next.
    pub(super) fn end_turn(&mut self) {
        self.rounds.trees = None;
    }

    /// Everything but the children themselves, whose place is known.
    pub(super) fn census(&self) -> Census {
        family::census_where(|pid| self.children.leader(pid).is_none())
    }

    pub(super) fn marks(&self) -> Marks<'_> {
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
    pub(super) fn owner(&self, census: &Census, marks: &Marks<'_>, pid: i32) -> Option<ChildKey> {
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
}

/// Whether this process has any child, dead or alive.
pub(super) fn has_children() -> bool {
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
