//! Finding the places, once, at the runtime's start.
//!
//! With v2 no group may have both processes and limits below it, so lair's own group will do only where it is the
//! root, or was given to lair as a whole (systemd's `Delegate=yes`, a container): lair then moves into a leaf of it.
//! Elsewhere the nearest group above is taken in which lair may make groups with the controllers. What counts is the
//! keeper's group, which is lair's own except below systemd: see `scope`.

use super::{Cgroups, Limit, Seat, remove, scope};
use rustix::fs::{Access, AtFlags, CWD, accessat, getxattr};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where lair itself goes when a whole group was given to it.
pub(super) const LEAF: &str = "lair-self";

/// Attempts at emptying a group whose members may start new ones.
const MOVES: usize = 8;

/// What the kernel says of a process.
struct Seen {
    mounts: Result<String, String>,
    groups: Result<String, String>,
}

/// One hierarchy, as this process sees it.
struct Hierarchy {
    mount: PathBuf,
    own: PathBuf,
}

impl Seen {
    fn of(process: &str) -> Seen {
        Seen {
            mounts: read("/proc/self/mountinfo"),
            groups: read(format!("/proc/{process}/cgroup")),
        }
    }
}

/// The folders to be made, and those that a look for leftovers passes by.
struct Names<'a> {
    own: String,
    former: &'a [String],
}

impl Cgroups {
    /// Looks for the places of the runtime with this name, whose modules this keeper starts, and makes its v2 folder.
    /// What `former` lives made is left for their modules to be taken over with.
    #[must_use]
    pub fn find(instance: &str, keeper: i32, former: &[String]) -> Self {
        let names = Names {
            own: format!("lair-{instance}"),
            former,
        };
        let own = Seen::of("self");
        if let Ok(found) = hierarchy(&own, "cgroup2", None) {
            move_out(&found, keeper);
        }
        let seen = Seen::of(&keeper.to_string());
        let seen = if seen.groups.is_ok() { seen } else { own };
        let unified = hierarchy(&seen, "cgroup2", None).and_then(|found| settle(&found, &names));
        let seats = Limit::ALL.map(|limit| match hierarchy(&seen, "cgroup", Some(limit)) {
            Ok(v1) => below_v1(&v1, &names).map(Seat::V1),
            Err(_) => within(unified.as_deref(), limit),
        });
        Cgroups {
            unified,
            seats,
            former: former.to_vec(),
        }
    }
}

/// Has systemd give the keeper a scope of its own where lair's group is a whole service.
fn move_out(lair: &Hierarchy, keeper: i32) {
    let place =
        || hierarchy(&Seen::of(&keeper.to_string()), "cgroup2", None).map(|found| found.own);
    let together = place().is_ok_and(|group| group == lair.own);
    let given = is_given(&lair.own, &lair.mount) || scope::is_users(&lair.own);
    if !together || !scope::is_service(&lair.own) || !given {
        return;
    }
    match scope::enter(keeper, &lair.own, || place().ok()) {
        Ok(name) => tracing::info!(scope = name, "modules have a scope of their own"),
        Err(why) => tracing::warn!(
            "systemd gives modules no scope of their own ({why}): if lair is killed while they have limits, \
             systemd can't start it again until they have ended"
        ),
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
fn hierarchy(seen: &Seen, kind: &str, limit: Option<Limit>) -> Result<Hierarchy, String> {
    let controller = limit.map(Limit::controller);
    let mounts = seen.mounts.as_ref().map_err(String::clone)?;
    let (root, mount) = mounts
        .lines()
        .find_map(|line| mounted(line, kind, controller))
        .ok_or_else(|| match controller {
            Some(name) => format!("no cgroup-v1 hierarchy has the controller {name}"),
            None => "no cgroup-v2 hierarchy is mounted".to_owned(),
        })?;
    let groups = seen.groups.as_ref().map_err(String::clone)?;
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

fn below_v1(v1: &Hierarchy, names: &Names<'_>) -> Result<PathBuf, String> {
    let refused = |why| format!("lair may make no groups here: {why}");
    may_write(&v1.own).map_err(refused)?;
    sweep(&v1.own, names.former);
    Ok(v1.own.join(&names.own))
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
fn settle(v2: &Hierarchy, names: &Names<'_>) -> Result<PathBuf, String> {
    let offered = count(&v2.mount.join("cgroup.controllers"));
    if offered > 0 && is_given(&v2.own, &v2.mount) {
        leave(&v2.own);
    }
    let mut best = make(&v2.own, names)?;
    for above in v2.own.ancestors() {
        give(above, &v2.mount);
        let dir = make(above, names).unwrap_or_else(|_| best.clone());
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

fn make(above: &Path, names: &Names<'_>) -> Result<PathBuf, String> {
    let dir = above.join(&names.own);
    // Moving a process takes the right to write to the list of the group above both places.
    may_write(&above.join("cgroup.procs"))
        .map_err(|why| format!("lair may make no groups here: {why}"))?;
    sweep(above, names.former);
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
    let given = contained || marked("user.delegate") || marked("trusted.delegate");
    given || scope::is_ours(group)
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

/// Removes what runtimes left that were killed: `lair-<pid>-<serial>` of a process that is gone, except where the
/// kernel's counts are still to be read.
fn sweep(above: &Path, former: &[String]) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix("lair-"))
            .filter(|instance| former.iter().all(|name| name != instance))
            .and_then(|instance| instance.split_once('-'))
            .filter(|(_, serial)| serial.parse::<u32>().is_ok())
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}
