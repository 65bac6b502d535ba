//! What the stories about the machine share: small disks, a process of one's own, scripts that need a folder.
#![allow(dead_code, reason = "each story uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The variable that tells a test that it runs in a process of its own.
const ALONE: &str = "LAIR_TEST_ALONE";

/// A filesystem of its own, unmounted when dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// `None`, with a word on stderr, where mounting is not allowed.
    pub fn mount(at: &Path, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(at).expect("a folder to mount on");
        let done = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=0750"),
                "tmpfs",
            ])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        if done.is_ok_and(|s| s.success()) {
            return Some(Disk(at.to_owned()));
        }
        skipped("mounting a tmpfs needs privilege");
        None
    }

    pub fn remount(&self, how: &str) {
        let option = format!("remount,{how}");
        let done = Command::new("mount")
            .args(["-o", &option])
            .arg(&self.0)
            .status();
        assert!(done.is_ok_and(|s| s.success()), "cannot remount {how}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A story that can't be told here says why.
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Is this the process that [`alone`] started?
pub fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// The command that runs one test of this file in a process of its own.
pub fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .stdin(Stdio::null());
    command
}

/// Runs one test of this file in a process of its own, and passes when it does.
pub fn run_alone(test: &str, change: impl FnOnce(&mut Command)) {
    let mut command = alone(test);
    change(&mut command);
    let output = command.output().expect("the process");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{test} alone: {}\n{text}",
        output.status
    );
}

/// Waits, looking again and again, until it is so.
pub fn eventually(what: &str, within: Duration, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that is ended when dropped.
pub struct Doomed(pub Child);

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn signal(pid: i32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
    rustix::process::kill_process(pid, signal).expect("sent");
}

/// A cgroup v1 folder of the pids controller, with this limit; `None` where there is no right to one.
pub struct PidsGroup(pub PathBuf);

impl PidsGroup {
    pub fn new(name: &str, max: u32) -> Option<PidsGroup> {
        let base = Path::new("/sys/fs/cgroup/pids");
        let dir = base.join(format!("lair-test-{name}-{}", std::process::id()));
        if std::fs::create_dir(&dir).is_err() {
            skipped("no pids cgroup can be made here");
            return None;
        }
        let group = PidsGroup(dir);
        group.limit(max);
        Some(group)
    }

    pub fn limit(&self, max: u32) {
        std::fs::write(self.0.join("pids.max"), max.to_string()).expect("a limit");
    }

    pub fn join(&self, pid: i32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("joined");
    }

    /// Whether the kernel has refused a process for this limit.
    pub fn was_full(&self) -> bool {
        let events = std::fs::read_to_string(self.0.join("pids.events")).unwrap_or_default();
        !events.is_empty() && !events.starts_with("max 0")
    }

    pub fn members(&self) -> usize {
        let text = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().count()
    }
}

impl Drop for PidsGroup {
    fn drop(&mut self) {
        // Members go back to the root group: the folder of a story that failed can go too.
        let text = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in text.lines() {
            let _ = std::fs::write("/sys/fs/cgroup/pids/cgroup.procs", pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Bytes of all plain files below a folder.
pub fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => bytes_below(&e.path()),
            Ok(m) if m.is_file() => m.len(),
            _ => 0,
        })
        .sum()
}

/// Segments in a module's log folder.
pub fn segments(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|n| n.ends_with(".log") || n.ends_with(".log.zst"))
        .filter(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    names.sort();
    names
}

/// A folder in which nothing can be made or removed, until this is dropped.
pub struct Immutable(PathBuf);

impl Immutable {
    pub fn make(folder: &Path) -> Self {
        chattr("+i", folder);
        Immutable(folder.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(how: &str, folder: &Path) {
    let done = Command::new("chattr").arg(how).arg(folder).status();
    assert!(done.is_ok_and(|s| s.success()), "chattr {how} failed");
}
