//! Finding the places, once, at the runtime's start.
//!
//! With v2 no group may have both processes and limits below it, so lair's own group will do only where it is the
//! root, or was given to lair as a whole (systemd's `Delegate=yes`, a container): lair then moves into a leaf of it.
//! Elsewhere the nearest group above is taken in which lair may make groups with the controllers.

use super::{Cgroups, Limit, Seat, remove};
use rustix::fs::{Access, AtFlags, CWD, accessat, getxattr};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where lair itself goes when a whole group was given to it.
const LEAF: &str = "lair-self";

/// Attempts at emptying a group whose members may start new ones.
const MOVES: usize = 8;

/// One hierarchy, as this process sees it.
struct Hierarchy {
    mount: PathBuf,
    own: PathBuf,
}

impl Cgroups {
    /// Looks for the places of the runtime with this name, and makes its v2 folder.
    #[must_use]
    pub fn find(instance: &str) -> Self {
        let name = format!("lair-{instance}");
        let unified = hierarchy("cgroup2", None).and_then(|found| settle(&found, &name));
        let seats = Limit::ALL.map(|limit| match hierarchy("cgroup", Some(limit)) {
            Ok(v1) => below_v1(&v1, &name).map(Seat::V1),
            Err(_) => within(unified.as_deref(), limit),
        });
        Cgroups { unified, seats }
    }
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {}", path.display(), words(&e)))
}

pub(super) fn words(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Where a hierarchy is mounted, and which of its groups this process is in.
fn hierarchy(kind: &str, limit: Option<Limit>) -> Result<Hierarchy, String> {
    let controller = limit.map(Limit::controller);
    let mounts = read("/proc/self/mountinfo")?;
    let (root, mount) = mounts
        .lines()
        .find_map(|line| mounted(line, kind, controller))
        .ok_or_else(|| match controller {
            Some(name) => format!("no cgroup-v1 hierarchy has the controller {name}"),
            None => "no cgroup-v2 hierarchy is mounted".to_owned(),
        })?;
    let groups = read("/proc/self/cgroup")?;
    let own = groups
        .lines()
        .find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            match controller {
                None => controllers.is_empty(),
                Some(name) => controllers.split(',').any(|c| c == name),
            }
            .then_some(path)
        })
        .ok_or("this process is in no group of the hierarchy")?;
    // A container may see only its own part of the hierarchy.
    let inside = Path::new(own).strip_prefix(root).unwrap_or(Path::new(own));
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    let own = if inside.as_os_str().is_empty() {
        mount.clone()
    } else {
        mount.join(inside)
    };
    Ok(Hierarchy { mount, own })
}

/// Root and place of a mount of this kind, from a line of mountinfo (proc(5)).
fn mounted<'a>(line: &'a str, kind: &str, controller: Option<&str>) -> Option<(&'a str, PathBuf)> {
    let (place, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let is_kind = system.next()? == kind;
    let options = system.nth(1)?;
    let has = controller.is_none_or(|name| options.split(',').any(|o| o == name));
    let mut place = place.split(' ').skip(3);
    let (root, at) = (place.next()?, place.next()?);
    (is_kind && has).then(|| (root, PathBuf::from(at)))
}

/// Whether this process may write here, by the rights that count for the kernel.
fn may_write(path: &Path) -> Result<(), String> {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)
        .map_err(|e| format!("{}: {}", path.display(), words(&e.into())))
}

fn below_v1(v1: &Hierarchy, name: &str) -> Result<PathBuf, String> {
    let refused = |why| format!("lair may make no groups here: {why}");
    may_write(&v1.own).map_err(refused)?;
    sweep(&v1.own);
    Ok(v1.own.join(name))
}

/// Whether the v2 folder gives its groups this controller.
fn within(folder: Result<&Path, &String>, limit: Limit) -> Result<Seat, String> {
    let folder = folder.map_err(String::clone)?;
    if has(&folder.join("cgroup.subtree_control"), limit) {
        return Ok(Seat::Unified);
    }
    let above = folder.parent().unwrap_or(folder).display();
    let controller = limit.controller();
    Err(format!(
        "lair was not given the controller {controller} in {above}, nor in any group above"
    ))
}

fn has(list: &Path, limit: Limit) -> bool {
    let text = fs::read_to_string(list).unwrap_or_default();
    text.split_whitespace().any(|c| c == limit.controller())
}

fn count(list: &Path) -> usize {
    let given = Limit::ALL.iter().filter(|limit| has(list, **limit));
    given.count()
}

/// Makes the v2 folder where the most controllers can be had; without any it still tells who belongs to whom.
fn settle(v2: &Hierarchy, name: &str) -> Result<PathBuf, String> {
    let offered = count(&v2.mount.join("cgroup.controllers"));
    if offered > 0 && is_given(&v2.own, &v2.mount) {
        leave(&v2.own);
    }
    let mut best = make(&v2.own, name)?;
    for above in v2.own.ancestors() {
        give(above, &v2.mount);
        let dir = make(above, name).unwrap_or_else(|_| best.clone());
        if dir != best {
            let better =
                count(&dir.join("cgroup.controllers")) > count(&best.join("cgroup.controllers"));
            let worse = if better {
                std::mem::replace(&mut best, dir)
            } else {
                dir
            };
            remove(&worse);
        }
        if above == v2.mount || count(&best.join("cgroup.controllers")) >= offered || holds(above) {
            break;
        }
    }
    for limit in Limit::ALL {
        enable(&best, limit);
    }
    Ok(best)
}

/// Whether leaving this group would mean escaping from what somebody set for it: its limits, or its unit.
fn holds(group: &Path) -> bool {
    let unit = group.extension().is_some_and(|kind| kind == "service");
    let limited = |file: &str| {
        fs::read_to_string(group.join(file)).is_ok_and(|text| !text.starts_with("max"))
    };
    unit || ["memory.max", "cpu.max", "pids.max"]
        .into_iter()
        .any(limited)
}

fn make(above: &Path, name: &str) -> Result<PathBuf, String> {
    let dir = above.join(name);
    // Moving a process takes the right to write to the list of the group above both places.
    may_write(&above.join("cgroup.procs"))
        .map_err(|why| format!("lair may make no groups here: {why}"))?;
    sweep(above);
    match fs::create_dir(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make {}: {}", dir.display(), words(&e)))
        }
        Ok(()) | Err(_) => Ok(dir),
    }
}

fn is_root(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

/// Whether a group was given to lair as a whole: by systemd, or as all that a container sees.
fn is_given(group: &Path, mount: &Path) -> bool {
    let marked = |name: &str| {
        let mut value = [0; 8];
        getxattr(group, name, &mut value[..])
            .is_ok_and(|length| value.starts_with(b"1") && length == 1)
    };
    let contained = group == mount && !is_root(group);
    contained || marked("user.delegate") || marked("trusted.delegate")
}

/// Passes the controllers on, where that is lair's to do.
fn give(group: &Path, mount: &Path) {
    if is_root(group) || is_given(group, mount) {
        for limit in Limit::ALL {
            enable(group, limit);
        }
    }
}

/// Refused where the group has processes, or has not got the controller itself: what came of it is read.
fn enable(group: &Path, limit: Limit) {
    let list = group.join("cgroup.subtree_control");
    if !has(&list, limit) && has(&group.join("cgroup.controllers"), limit) {
        let _ = fs::write(list, format!("+{}", limit.controller()));
    }
}

/// Moves everything that is in a group into a leaf of it.
fn leave(group: &Path) {
    let leaf = group.join(LEAF);
    if fs::create_dir_all(&leaf).is_err() {
        return;
    }
    for _ in 0..MOVES {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        if members.is_empty() {
            break;
        }
        for pid in members.lines() {
            // Gone by now, or not to be moved: the group then can't pass its controllers on, and that is told.
            let _ = fs::write(leaf.join("cgroup.procs"), pid);
        }
    }
    let _ = fs::remove_dir(&leaf);
}

/// Removes what runtimes left that were killed: `lair-<pid>-<serial>` of a process that is gone.
fn sweep(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix("lair-")?.split_once('-'))
            .filter(|(_, serial)| serial.parse::<u32>().is_ok())
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}
