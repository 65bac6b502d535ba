//! Which processes belong to a tree.

use crate::backend::Tree;
use procfs::process::{Process, Stat, StatFlags, all_processes};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folders below a module's cgroup that are looked into; a module that makes more of them hides processes from people,
/// not from the kernel.
const MAX_CGROUPS: usize = 1024;
/// Steps from a process to its ancestors before it counts as a stranger.
const MAX_DEPTH: usize = 64;

/// One process, as far as kinship goes.
#[derive(Clone, Copy, Debug)]
struct Kin {
    parent: i32,
    session: i32,
}

/// Every live process of the machine with its parent and session, at one moment. One sweep serves any number of trees.
#[derive(Clone, Debug, Default)]
pub struct ProcessTable {
    kin: BTreeMap<i32, Kin>,
    /// Who has whom for a parent, and who is in which session: asked once for each tree.
    children: BTreeMap<i32, Vec<i32>>,
    sessions: BTreeMap<i32, Vec<i32>>,
}

impl ProcessTable {
    /// Reads the whole table: about 15 µs for each process of the machine.
    #[must_use]
    pub fn read() -> Self {
        let Ok(all) = all_processes() else {
            return ProcessTable::default();
        };
        let kin: BTreeMap<i32, Kin> = all
            .flatten()
            .filter_map(|process| process.stat().ok())
            .filter(alive)
            .map(|stat| {
                let kin = Kin {
                    parent: stat.ppid,
                    session: stat.session,
                };
                (stat.pid, kin)
            })
            .collect();
        let mut table = ProcessTable::default();
        for (pid, kin) in &kin {
            table.children.entry(kin.parent).or_default().push(*pid);
            table.sessions.entry(kin.session).or_default().push(*pid);
        }
        table.kin = kin;
        table
    }

    /// `root`, its descendants, and whoever is in its session: descendants that lost their parent stay in that.
    fn family(&self, root: i32) -> Vec<i32> {
        let mut open = self.sessions.get(&root).cloned().unwrap_or_default();
        open.extend(self.kin.contains_key(&root).then_some(root));
        let mut found = BTreeSet::new();
        while let Some(pid) = open.pop() {
            if found.insert(pid) {
                open.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        found.into_iter().collect()
    }
}

/// Neither a zombie nor on its way out.
pub(super) fn alive(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X' | 'x')
}

/// Alive, and not about to end: a kernel closes what a process has open before that is seen to be dead.
pub(crate) fn stays(stat: &Stat) -> bool {
    let ending = stat
        .flags()
        .is_ok_and(|flags| flags.contains(StatFlags::PF_EXITING));
    alive(stat) && !ending
}

/// The live processes of a tree, in order of their numbers.
#[must_use]
pub fn pids(tree: &Tree) -> Vec<i32> {
    match tree {
        Tree::Descendants(_) => pids_in(tree, &ProcessTable::read()),
        Tree::Cgroup(_) | Tree::None => pids_in(tree, &ProcessTable::default()),
    }
}

/// As [`pids`], with a table that was read already.
pub(super) fn pids_in(tree: &Tree, table: &ProcessTable) -> Vec<i32> {
    match tree {
        Tree::Cgroup(folder) => cgroup_pids(folder),
        Tree::Descendants(root) => table.family(*root),
        Tree::None => Vec::new(),
    }
}

/// Does this process belong to the tree? `None`: it is gone or on its way out, or it can't be told.
///
/// Only who lives beyond the question is called a stranger: the kernel takes a process out of its group and its family
/// while it ends, and leaves it to be seen in `/proc` until its parent has heard of it.
#[must_use]
pub fn belongs(pid: i32, tree: &Tree) -> Option<bool> {
    let found = match tree {
        Tree::None => return None,
        Tree::Cgroup(folder) => cgroup_pids(folder).contains(&pid),
        Tree::Descendants(root) => descends(pid, *root)?,
    };
    (found || lives_on(pid)).then_some(found)
}

fn lives_on(pid: i32) -> bool {
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stays(&stat))
}

fn descends(pid: i32, root: i32) -> Option<bool> {
    let mut stat = Process::new(pid).ok()?.stat().ok()?;
    if stat.session == root {
        return Some(true);
    }
    for _ in 0..MAX_DEPTH {
        if stat.pid == root {
            return Some(true);
        }
        if stat.ppid <= 1 {
            return Some(false);
        }
        stat = Process::new(stat.ppid).ok()?.stat().ok()?;
    }
    Some(false)
}

fn cgroup_pids(folder: &Path) -> Vec<i32> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_path_buf()];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        seen += 1;
        if let Ok(text) = std::fs::read_to_string(folder.join("cgroup.procs")) {
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        if seen < MAX_CGROUPS {
            let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            open.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }
    // 0 stands for a process that our pid namespace can't name.
    found.remove(&0);
    found.into_iter().collect()
}
