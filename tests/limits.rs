//! Limits that hold: memory, processors and processes of native modules, on cgroup v1 and v2 alike. `tests/run v2` runs
//! the same stories in a machine that has nothing but v2, once as a plain group and once as a systemd service.

mod face;
mod support;

use lair::WaitFor;
use lair::actors::backend::Tree;
use lair::actors::status::ModuleStatus;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Lair, SOON, asker, eventually, is_alive, sh};

const MIB: u64 = 1 << 20;

/// Somebody without rights.
const NOBODY: u32 = 65_534;

/// The control group of a process for a controller, as the kernel tells it: its folder, and whether it is v2.
fn group(pid: i32, controller: &str) -> (PathBuf, bool) {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    let of = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    match of(&|c| c.split(',').any(|c| c == controller)) {
        Some(path) => (
            Path::new("/sys/fs/cgroup").join(controller).join(path),
            false,
        ),
        None => {
            let path = of(&str::is_empty).expect("a v2 group");
            (Path::new("/sys/fs/cgroup").join(path), true)
        }
    }
}

fn kernel(dir: &Path, file: &str) -> String {
    let text = fs::read_to_string(dir.join(file));
    text.unwrap_or_else(|e| panic!("{}/{file}: {e}", dir.display()))
        .trim()
        .to_owned()
}

/// Starts somebody who has done nothing wrong.
async fn bystander(lair: &Lair) -> i32 {
    lair.sh("bystander", "exec sleep 1000", "").await;
    let up = lair.wait("bystander", WaitFor::Ready).await;
    up.pid.expect("a pid")
}

/// What is said of a module that was over its limit, and what is left of it.
async fn check_out_of_memory(lair: &Lair, name: &str) {
    let down = lair.wait(name, WaitFor::Exited).await;
    let exit = down.exit.clone().expect("an exit");
    assert_eq!(exit.oom, Some(true), "{down:#?}");
    assert_eq!(down.state, "failed");
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.code, "crashed");
    assert!(reason.message.contains("for lack of memory"), "{reason:?}");
    assert!(reason.message.contains("limit is 32MiB"), "{reason:?}");
    let next = reason.next_step.expect("a next step");
    assert!(next.contains("runtime.resources.memory"), "{next}");
    assert_eq!(
        lair.processes_of(name),
        Vec::<i32>::new(),
        "killed as a whole"
    );
}

const EATER_LIMIT: &str =
    "  resources: { memory: { limit: 32MiB, enforce: required } }\n  stop: { grace: 1000s }";

#[tokio::test]
async fn a_module_over_its_memory_limit_is_killed_whole_and_said_to_have_run_out_of_memory() {
    let lair = Lair::start("oom").await;
    let bystander = bystander(&lair).await;
    // The one that eats is the leader; its helper has done nothing, and would outlive it.
    lair.sh("eater", "sleep 1000 & exec tail /dev/zero", EATER_LIMIT)
        .await;
    check_out_of_memory(&lair, "eater").await;
    assert!(is_alive(bystander), "somebody else was killed");
    assert_eq!(lair.status("bystander").state, "running");
    lair.end().await;
}

#[tokio::test]
async fn a_helper_that_eats_all_memory_takes_its_whole_module_along_and_nobody_else() {
    let lair = Lair::start("oom-child").await;
    let bystander = bystander(&lair).await;
    let script = "tail /dev/zero; echo went on; exec sleep 1000";
    lair.sh("eater", script, EATER_LIMIT).await;
    check_out_of_memory(&lair, "eater").await;
    assert!(is_alive(bystander), "somebody else was killed");
    // It can be started again, and gets a limit of its own again.
    lair.handle.start("eater", asker()).await.expect("a start");
    lair.until("eater", "ended again", |s| s.run == 2 && s.exit.is_some())
        .await;
    check_out_of_memory(&lair, "eater").await;
    lair.end().await;
}

#[tokio::test]
async fn a_module_within_its_limit_that_is_killed_is_not_said_to_have_run_out_of_memory() {
    let lair = Lair::start("no-oom").await;
    let limit = "  resources: { memory: 64MiB }";
    lair.sh("m", "exec sleep 1000", limit).await;
    let up = lair.wait("m", WaitFor::Ready).await;
    support::signal(up.pid.expect("a pid"), libc::SIGKILL);
    let down = lair.wait("m", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.oom), (Some(9), Some(false)));
    lair.end().await;
}

#[tokio::test]
async fn every_limit_is_the_kernels_own_before_the_first_instruction_and_is_read_back() {
    let lair = Lair::start("held").await;
    let limits =
        "  resources: { memory: { limit: 64MiB, enforce: required }, cpus: 0.5, pids: 17 }";
    lair.sh("m", "cat /proc/self/cgroup; exec sleep 1000", limits)
        .await;
    let alone = |s: &ModuleStatus| s.logs.bytes > 0 && s.resources.pids.current == Some(1);
    let up = lair.until("m", "past its words", alone).await;
    let pid = up.pid.expect("a pid");
    let (memory, v2) = group(pid, "memory");
    let (cpu, _) = group(pid, "cpu");
    let (pids, _) = group(pid, "pids");
    for dir in [&memory, &cpu, &pids] {
        assert!(dir.ends_with("m.1"), "{}", dir.display());
    }
    let said = String::from_utf8(lair.output("m", "stdout")).expect("text");
    let now = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    assert_eq!(said, now, "joined before it began");
    // A service's modules are in a scope beside it; what no service manager began keeps them in its own groups.
    let own = fs::read_to_string("/proc/self/cgroup").expect("own groups");
    let place = match own
        .split_once("0::")
        .and_then(|(_, v2)| v2.split_once(".service"))
    {
        Some((service, _)) => format!("0::{service}-modules.scope/"),
        None => "0::".to_owned(),
    };
    assert!(
        now.contains(&place) && !now.contains(".service"),
        "not where this process's place would have it: {now} {own}"
    );
    let by = if v2 { "cgroup-v2" } else { "cgroup-v1" };
    let file = |new: &'static str, old: &'static str| if v2 { new } else { old };
    let bytes = kernel(&memory, file("memory.max", "memory.limit_in_bytes"));
    assert_eq!(bytes, (64 * MIB).to_string());
    if v2 {
        assert_eq!(kernel(&cpu, "cpu.max"), "50000 100000");
        assert_eq!(kernel(&memory, "memory.oom.group"), "1");
    } else {
        assert_eq!(kernel(&cpu, "cpu.cfs_quota_us"), "50000");
        assert_eq!(kernel(&cpu, "cpu.cfs_period_us"), "100000");
    }
    assert_eq!(kernel(&pids, "pids.max"), "17");

    let held = lair.status("m").resources;
    assert_eq!(held.memory.by.as_deref(), Some(by));
    assert!(
        held.memory.enforced && held.cpus.enforced && held.pids.enforced,
        "{held:?}"
    );
    assert_eq!(
        (held.memory.limit, held.pids.limit),
        (Some(64 * MIB), Some(17))
    );
    assert_eq!(held.cpus.limit, Some(0.5));
    let (current, peak) = (held.memory.current, held.memory.peak);
    assert!(
        current > Some(0) && current <= peak && peak <= Some(64 * MIB),
        "{held:?}"
    );
    assert_eq!(lair.count("m", "limit_not_enforced"), 0);

    // What a stranger changes is seen.
    let (changed, value) = (pids.join("pids.max"), "18");
    fs::write(&changed, value).expect("written");
    let seen = lair.status("m").resources.pids;
    assert!(!seen.enforced && seen.by.is_some_and(|why| why.contains("18")));
    lair.stop("m").await;
    for dir in [memory, cpu, pids] {
        eventually("its groups are gone", || !dir.exists()).await;
    }
    lair.end().await;
}

#[tokio::test]
async fn a_module_without_limits_is_in_no_group_but_the_one_that_tells_its_tree() {
    let lair = Lair::start("free").await;
    lair.sh("m", "exec sleep 1000", "").await;
    let up = lair.wait("m", WaitFor::Ready).await;
    let (mine, v2) = group(std::process::id().cast_signed(), "memory");
    let (its, _) = group(up.pid.expect("a pid"), "memory");
    assert!(v2 || mine == its, "{}", its.display());
    let used = up.resources;
    assert!(!used.memory.enforced && used.memory.limit.is_none() && used.memory.by.is_none());
    assert!(!used.cpus.enforced && !used.pids.enforced);
    lair.end().await;
}

#[tokio::test]
async fn what_a_probe_uses_counts_for_its_module() {
    let lair = Lair::start("probe").await;
    let seen = lair.home.path().join("seen");
    let look = format!(
        "cat /proc/self/cgroup > {0}.new; mv {0}.new {0}",
        seen.display()
    );
    let more = format!(
        "  resources: {{ memory: 64MiB }}\n  health: {{ liveness: {{ command: [/bin/sh, -c, {look:?}], interval: 100ms, timeout: 10s }} }}"
    );
    lair.sh("m", "exec sleep 1000", &more).await;
    eventually("a probe", || seen.exists()).await;
    let groups = fs::read_to_string(&seen).expect("its groups");
    let (memory, v2) = group(lair.status("m").pid.expect("a pid"), "memory");
    let wanted = if v2 { "/m.1/probe-" } else { "/m.1" };
    let line = groups.lines().find(|l| v2 || l.contains(":memory:"));
    assert!(
        line.is_some_and(|l| l.contains(wanted)),
        "{groups} {memory:?}"
    );
    lair.end().await;
}

#[tokio::test]
async fn a_module_that_is_held_still_uses_nothing_and_can_be_stopped_as_ever() {
    let lair = Lair::start("still").await;
    lair.sh("m", "while :; do :; done", "").await;
    let up = lair.wait("m", WaitFor::Ready).await;
    let pid = up.pid.expect("a pid");
    eventually("it is busy", || ticks(pid) > 2).await;
    let handle = lair.view("m").handle.clone().expect("a grip");
    handle.freeze(true).await.expect("held still");
    let Tree::Cgroup(group) = handle.tree() else {
        panic!("its tree is told by no group")
    };
    let frozen = || kernel(&group, "cgroup.events").contains("frozen 1");
    eventually("it is still", frozen).await;
    let before = ticks(pid);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ticks(pid), before);
    handle.freeze(false).await.expect("let go");
    eventually("it goes on", || ticks(pid) > before).await;
    handle.freeze(true).await.expect("held still");
    drop(handle);
    let down = lair.stop("m").await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.killed_after_grace), (Some(15), false));
    lair.end().await;
}

// X3
#[tokio::test]
async fn a_fork_bomb_stays_within_its_limit_of_processes_and_a_stop_leaves_nothing_of_it() {
    let lair = Lair::start("bomb").await;
    let bystander = bystander(&lair).await;
    // The crowd is deaf to everything but KILL, so that something is there to be ended when the bomb has burnt out.
    let script = "trap '' TERM; for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; f() { f | f & }; f; exec sleep 1000";
    let more = "  resources: { pids: 40 }\n  stop: { grace: 300ms }";
    lair.sh("bomb", script, more).await;
    let up = lair.wait("bomb", WaitFor::Ready).await;
    let (group, _) = group(up.pid.expect("a pid"), "pids");
    let refused = || !kernel(&group, "pids.events").starts_with("max 0");
    eventually("at its limit", refused).await;
    let full = lair.status("bomb");
    assert!(full.resources.pids.enforced, "{full:#?}");
    assert!(full.resources.pids.current <= Some(40), "{full:#?}");
    assert!(full.resources.pids.current > Some(8), "{full:#?}");
    if group.join("pids.peak").exists() {
        assert_eq!(kernel(&group, "pids.peak"), "40");
    }
    let down = lair.stop("bomb").await;
    let left = down.reason.map(|r| r.evidence).unwrap_or_default();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(lair.processes_of("bomb"), Vec::<i32>::new());
    assert!(is_alive(bystander));
    eventually("its group is gone", || !group.exists()).await;
    lair.end().await;
}

/// CPU time of one process, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields = stat.rsplit_once(") ").expect("its fields").1;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    number(11) + number(12)
}

#[tokio::test]
async fn a_share_of_a_processor_is_all_that_a_busy_module_gets() {
    let lair = Lair::start("cpu").await;
    let busy = "while :; do :; done";
    let begun = Instant::now();
    lair.sh("bounded", busy, "  resources: { cpus: 0.05 }")
        .await;
    lair.sh("free", busy, "").await;
    let pid = |s: ModuleStatus| s.pid.expect("a pid");
    let bounded = pid(lair.wait("bounded", WaitFor::Ready).await);
    let free = pid(lair.wait("free", WaitFor::Ready).await);
    eventually("the free one is busy", || ticks(free) > 150).await;
    let used = ticks(bounded);
    let wall = begun.elapsed();
    // A twentieth of the time that has passed, a period more, in hundredths of a second.
    let allowed = u64::try_from(wall.as_millis()).expect("short") / 200 + 10;
    assert!(used <= allowed, "{used} of {allowed} ticks in {wall:?}");
    assert!(ticks(free) > 2 * used, "{used} {}", ticks(free));
    let status = lair.status("bounded").resources.cpus;
    assert!(status.enforced, "{status:?}");
    lair.end().await;
}

/// Lets somebody without rights have the folder.
fn give_away(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        if entry.path().is_dir() {
            give_away(&entry.path());
        }
        chown(entry.path(), Some(NOBODY), Some(NOBODY)).expect("given");
    }
    chown(dir, Some(NOBODY), Some(NOBODY)).expect("given");
}

fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// The daemon, however it is to be started, once it answers.
fn serve(mut lair: face::Lair, mut command: Command) -> face::Lair {
    let log = fs::File::create(lair.dir.join("serve.log")).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    lair.daemon = Some(command.stderr(log).spawn().expect("serve"));
    face::until("it answers", SOON, || {
        UnixStream::connect(lair.socket()).is_ok()
    });
    lair
}

/// What lair answers to nobody: code, stdout, stderr.
fn ask(lair: &face::Lair, args: &[&str]) -> (Option<i32>, String, String) {
    let out = as_nobody(&mut lair.command(args)).output().expect("lair");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// Starts `m`; its status.
fn started(lair: &face::Lair) -> Value {
    let said = ask(lair, &["start", "m", "--wait"]);
    let (_, status, _) = ask(lair, &["status", "m", "-o", "json"]);
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    assert_eq!(
        status["state"],
        "running",
        "{said:?} {status} {}",
        lair.log()
    );
    status
}

/// A group in each hierarchy that was given to somebody without other rights.
struct Given(Vec<PathBuf>);

impl Given {
    fn make() -> Self {
        let name = format!("lair-test-given-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let mut given = Given(Vec::new());
        let v1 = ["memory", "cpu", "pids"].map(|c| root.join(c));
        for dir in v1.into_iter().filter(|dir| dir.is_dir()) {
            given.add(dir.join(&name));
        }
        let unified = [root.join("unified"), root.to_owned()];
        let mut unified = unified.into_iter();
        let v2 = unified.find(|dir| dir.join("cgroup.controllers").exists());
        let above = v2.expect("cgroup v2").join(&name);
        given.add(above.clone());
        let offered = kernel(&above, "cgroup.controllers");
        for controller in ["memory", "cpu", "pids"] {
            if offered.split(' ').any(|c| c == controller) {
                fs::write(
                    above.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )
                .expect("passed on");
            }
        }
        // Whoever lives in a v2 group can't limit what is below it.
        given.0.pop();
        given.add(above.join("own"));
        given
    }

    fn add(&mut self, dir: PathBuf) {
        fs::create_dir(&dir).expect("a group");
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "tasks"] {
            let path = dir.join(file);
            if path.exists() {
                chown(&path, Some(NOBODY), Some(NOBODY)).expect("given");
            }
        }
        self.0.push(dir);
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = fs::remove_dir(dir);
            if dir.ends_with("own") {
                let _ = dir.parent().map(fs::remove_dir);
            }
        }
    }
}

#[test]
fn a_user_to_whom_groups_were_given_has_limits_that_hold() {
    let lair = face::Lair::folder();
    let more =
        "\n  resources: { memory: { limit: 64MiB, enforce: required }, cpus: 0.5, pids: 50 }\n";
    lair.module("m", face::SLEEPER, more);
    give_away(&lair.dir);
    let given = Given::make();
    let lists = given.0.iter().map(|dir| dir.join("cgroup.procs"));
    let lists: Vec<String> = lists.map(|list| list.display().to_string()).collect();
    let user = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups");
    let join = format!(
        "for list in {}; do echo 0 > $list || exit 9; done; exec setpriv {user} \"$@\"",
        lists.join(" ")
    );
    let told = lair.command(&[]);
    let told = told
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &join, "sh", face::LAIR, "serve"])
        .envs(told);
    let lair = serve(lair, command);
    let status = started(&lair);
    for limit in ["memory", "cpus", "pids"] {
        let held = &status["resources"][limit];
        assert_eq!(held["enforced"], true, "{limit}: {status} {}", lair.log());
    }
    let pid = status["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    let (memory, _) = group(pid.expect("a pid"), "memory");
    ask(&lair, &["stop", "m", "--wait"]);
    face::until("its group is gone", SOON, || !memory.exists());
    drop(lair);
    let nested = |dir: &PathBuf| {
        let entries = fs::read_dir(dir).expect("a group").flatten();
        entries.filter(|e| e.path().is_dir()).count()
    };
    assert_eq!(given.0.iter().map(nested).sum::<usize>(), 0, "lair's own");
}

#[test]
fn without_rights_a_limit_is_said_not_to_hold_and_why_and_what_must_hold_is_refused() {
    let lair = face::Lair::folder();
    let more = "\n  resources: { memory: 64MiB, cpus: 0.5, pids: 50 }\n";
    lair.module("m", face::SLEEPER, more);
    let strict = "\n  resources: { memory: { limit: 64MiB, enforce: required } }\n";
    let strict = lair.module("strict", face::SLEEPER, strict);
    give_away(&lair.dir);
    let (code, _, said) = ask(&lair, &["run", strict.to_str().expect("a path")]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("limit_unenforceable"), "{said}");
    assert!(said.contains("Permission denied"), "the reason: {said}");
    fs::remove_file(strict).expect("removed");

    let mut command = lair.command(&["serve"]);
    as_nobody(&mut command);
    let lair = serve(lair, command);
    let status = started(&lair);
    for limit in ["memory", "cpus", "pids"] {
        let held = &status["resources"][limit];
        assert_eq!(held["enforced"], false, "{limit}: {status}");
        let why = held["by"].as_str().unwrap_or_default();
        assert!(why.contains("Permission denied"), "{limit}: {why}");
    }
    let told = lair.log().matches("module.limit_not_enforced").count();
    assert_eq!(told, 3, "{}", lair.log());
    let (_, doctor, _) = ask(&lair, &["doctor"]);
    assert!(doctor.contains("memory limits"), "{doctor}");
    assert!(doctor.contains("not enforced"), "{doctor}");
}

// R3
#[test]
fn a_module_that_ran_out_of_memory_while_lair_was_away_is_ended_whole_by_the_next_lair() {
    let lair = face::Lair::folder();
    let go = lair.dir.join("go");
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; tail /dev/zero; exec sleep 1000",
        go.display()
    );
    let more = "\n  resources: { memory: { limit: 32MiB, enforce: required }, pids: 50 }\n";
    lair.module("m", &script, more);
    let mut lair = lair.serve(&["--start"]);
    lair.until_state("m", "running");
    let pid = lair.status("m")["pid"].as_i64();
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    let (memory, v2) = group(pid, "memory");
    lair.kill();
    fs::write(&go, "").expect("a sign");
    face::until("the kernel has killed", SOON, || match v2 {
        true => !is_alive(pid),
        false => kernel(&memory, "memory.oom_control").contains("oom_kill 1"),
    });
    assert_eq!(is_alive(pid), !v2, "version 1 leaves the leader alone");
    let lair = lair.serve(&[]);
    lair.until_state("m", "failed");
    let status = lair.status("m");
    assert_eq!(status["exit"]["oom"], true, "{status}");
    assert!(!is_alive(pid));
    face::until("its group is gone", SOON, || !memory.exists());
}

#[test]
fn doctor_says_what_holds_each_limit_here() {
    let lair = face::Lair::folder().serve(&[]);
    let (_, doctor) = lair.ask(&["doctor"]);
    for what in ["memory limits", "CPU limits", "process limits"] {
        let line = doctor.lines().find(|l| l.contains(what));
        let line = line.unwrap_or_else(|| panic!("no {what}: {doctor}"));
        assert!(line.contains("held by cgroup-v"), "{line}");
    }
}

#[test]
fn lair_is_spared_when_memory_runs_out_where_it_may_say_so_and_its_modules_never_are() {
    let lair = face::Lair::folder();
    lair.module("m", face::SLEEPER, "");
    let lair = lair.serve(&["--start"]);
    lair.until_state("m", "running");
    let score = |pid: &dyn std::fmt::Display| {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        text.expect("a score")
            .trim()
            .parse::<i32>()
            .expect("a number")
    };
    let try_it = "echo -900 > /proc/self/oom_score_adj";
    let allowed = Command::new("/bin/sh")
        .args(["-c", try_it])
        .stderr(Stdio::null())
        .status()
        .expect("a shell")
        .success();
    let wanted = if allowed { -900 } else { score(&"self") };
    assert_eq!(score(&lair.pid()), wanted);
    assert_eq!(score(&lair.status("m")["pid"]), 0);
}

#[tokio::test]
async fn what_must_hold_and_does_is_started() {
    let lair = Lair::start("required").await;
    let strict = "  resources: { memory: { limit: 1GiB, enforce: required } }";
    lair.load(&sh("m", "exec sleep 1000", strict))
        .await
        .expect("loaded");
    lair.handle.start("m", asker()).await.expect("a start");
    let up = lair.wait("m", WaitFor::Ready).await;
    assert!(up.resources.memory.enforced, "{up:#?}");
    lair.end().await;
}
