//! How modules end, and what lair says about it: faults A1 to A10.

mod support;

use lair::WaitFor;
use lair::supervision::{NoticeKind, Phase, StartFault};
use lair::{LoadOptions, ManifestSource};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use support::{Lair, eventually, is_alive, signal};

/// A1
#[tokio::test]
async fn a_module_that_completes_stays_down() {
    let lair = Lair::start("a1").await;
    lair.sh("m", "exit 0", "").await;
    let down = lair.wait("m", WaitFor::Exited).await;
    assert_eq!(down.state, "stopped");
    assert_eq!(down.exit.as_ref().expect("an exit").code, Some(0));
    // Down means: no timer is armed that could start it, and nobody else may.
    assert!(matches!(lair.view("m").child.phase, Phase::Down(_)));
    assert_eq!(down.restarts.next_at, None);
    lair.sh("other", "exec sleep 1000", "").await;
    lair.stop("other").await;
    assert_eq!(
        lair.story("m"),
        "loaded#0 starting#1 running#1 ready#1 exited#1 down#1"
    );
    lair.end().await;
}

/// A2
#[tokio::test]
async fn codes_and_signals_are_never_mixed_up() {
    let lair = Lair::start("a2").await;
    for code in [0, 1, 125, 126, 127, 137, 255] {
        let name = format!("code-{code}");
        lair.sh(&name, &format!("exit {code}"), "").await;
        let down = lair.wait(&name, WaitFor::Exited).await;
        let exit = down.exit.expect("an exit");
        assert_eq!(
            (exit.code, exit.signal, exit.unknown),
            (Some(code), None, None)
        );
        assert_eq!(
            told(&lair, &name),
            lair::supervision::ExitStatus::Code(code)
        );
    }
    lair.sh("killed", "kill -KILL $$", "").await;
    let down = lair.wait("killed", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(
        told(&lair, "killed"),
        lair::supervision::ExitStatus::Signal(9)
    );
    let code = lair.status("code-137").reason.expect("a reason").message;
    let killed = lair.status("killed").reason.expect("a reason").message;
    assert_ne!(code, killed);
    lair.end().await;
}

fn told(lair: &Lair, name: &str) -> lair::supervision::ExitStatus {
    let notices = lair.notices(name);
    let status = notices.iter().find_map(|n| match &n.kind {
        NoticeKind::Exited { status, .. } => Some(*status),
        _ => None,
    });
    status.expect("an exit was told")
}

/// A3
#[tokio::test]
async fn a_strangers_kill_is_a_crash_that_was_not_ours() {
    let lair = Lair::start("a3").await;
    lair.sh("m", "exec sleep 1000", "").await;
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    signal(pid, libc::SIGKILL);
    let down = lair.wait("m", WaitFor::Exited).await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.signal, exit.by_us), (Some(9), None));
    assert_eq!(exit.oom, None, "nobody could tell");
    assert_eq!(down.state, "failed");
    assert_eq!(down.reason.expect("a reason").code, "crashed");
    assert_eq!(down.origin, "observed");
    assert!(lair.view("m").child.is_down());
    assert_eq!(lair.count("m", "starting"), 1);
    lair.end().await;
}

/// A4
#[tokio::test]
async fn signals_that_dump_core_are_told_by_number() {
    let lair = Lair::start("a4").await;
    for (name, number) in [
        ("segv", libc::SIGSEGV),
        ("abrt", libc::SIGABRT),
        ("bus", libc::SIGBUS),
    ] {
        lair.sh(name, &format!("ulimit -c 0; kill -{number} $$"), "")
            .await;
        let down = lair.wait(name, WaitFor::Exited).await;
        assert_eq!(down.exit.expect("an exit").signal, Some(number));
        let view = lair.view(name);
        let evidence = &view.child.last_exit.as_ref().expect("an exit").evidence;
        assert_ne!(evidence.core, Some(true), "no core was allowed");
    }
    lair.end().await;
}

/// A5
#[tokio::test]
async fn two_hundred_instant_ends_are_two_hundred_lives() {
    let lair = Lair::start("a5").await;
    lair.load(&support::sh("m", "exit 0", ""))
        .await
        .expect("a load");
    let mut took = Vec::new();
    for run in 1..=200 {
        let began = Instant::now();
        lair.handle
            .start("m", support::asker())
            .await
            .expect("a start");
        let down = lair.wait("m", WaitFor::Stopped).await;
        assert_eq!((down.run, down.state.as_str()), (run, "stopped"));
        took.push(began.elapsed());
    }
    assert_eq!(
        (lair.count("m", "running"), lair.count("m", "exited")),
        (200, 200)
    );
    let mean = |part: &[Duration]| part.iter().sum::<Duration>() / 100;
    let (first, last) = (mean(&took[..100]), mean(&took[100..]));
    assert!(
        last < first * 4 + Duration::from_millis(20),
        "{first:?} grew to {last:?}"
    );
    lair.end().await;
}

/// A6
#[tokio::test]
async fn what_cannot_be_executed_says_why() {
    let lair = Lair::start("a6").await;
    let (plain, script) = (Permissions::from_mode(0o644), Permissions::from_mode(0o755));
    // Each was fit to be executed when it was loaded.
    let file = lair.home.path().join("gone");
    load_program(&lair, "gone", "#!/bin/sh\n").await;
    std::fs::remove_file(&file).expect("removed");
    load_program(&lair, "plain", "#!/bin/sh\n").await;
    std::fs::set_permissions(lair.home.path().join("plain"), plain).expect("a mode");
    load_program(&lair, "text", "no magic here\n").await;
    load_program(&lair, "lost", "#!/no/such/interpreter\n").await;
    load_program(&lair, "busy", "#!/bin/sh\n").await;
    let busy = lair.home.path().join("busy");
    let writer = std::fs::OpenOptions::new()
        .append(true)
        .open(&busy)
        .expect("open for writing");
    for (name, errno, transient) in [
        ("gone", "ENOENT", false),
        ("plain", "EACCES", false),
        ("text", "ENOEXEC", false),
        ("lost", "ENOENT", false),
        ("busy", "ETXTBSY", true),
    ] {
        lair.handle
            .start(name, support::asker())
            .await
            .expect("a start");
        let down = lair.wait(name, WaitFor::Stopped).await;
        let reason = down.reason.expect("a reason");
        let (code, stage, told) = (reason.code, reason.stage, reason.errno);
        assert_eq!(
            (code.as_str(), stage.as_deref(), told.as_deref()),
            ("start_failed", Some("exec"), Some(errno)),
            "{name}"
        );
        assert_eq!(down.state, "failed");
        assert!(
            down.exit.is_none(),
            "no exit is invented for what never ran"
        );
        assert_eq!(fault(&lair, name).transient, transient, "{name}");
        assert_eq!(lair.processes_of(name), Vec::<i32>::new());
    }
    // The writer goes: the next start is as good as any.
    drop(writer);
    std::fs::set_permissions(&busy, script).expect("a mode");
    lair.handle
        .start("busy", support::asker())
        .await
        .expect("a start");
    assert_eq!(
        lair.wait("busy", WaitFor::Stopped)
            .await
            .exit
            .expect("an exit")
            .code,
        Some(0)
    );
    lair.end().await;
}

/// A6
#[tokio::test]
async fn arguments_that_are_too_long_are_a_failed_start() {
    let lair = Lair::start("a6-long").await;
    // One argument more than the kernel takes (MAX_ARG_STRLEN, 128 KiB), and too many of them (ARG_MAX).
    for (name, arguments) in [
        ("one", vec!["x".repeat(140_000)]),
        ("many", vec!["x".repeat(100_000); 100]),
    ] {
        let options = LoadOptions {
            args: arguments,
            ..LoadOptions::default()
        };
        let source = ManifestSource::Text {
            text: support::sh(name, "exit 0", ""),
            dir: Some(lair.home.path().to_owned()),
            trusted: true,
        };
        lair.handle
            .load(source, options, support::asker())
            .await
            .expect("a load");
        lair.handle
            .start(name, support::asker())
            .await
            .expect("a start");
        let down = lair.wait(name, WaitFor::Stopped).await;
        let reason = down.reason.expect("a reason");
        assert_eq!(
            (reason.code.as_str(), reason.errno.as_deref()),
            ("start_failed", Some("E2BIG")),
            "{name}: {reason:?}"
        );
        assert!(!fault(&lair, name).transient);
    }
    lair.end().await;
}

/// Loads an executable file of this content as a module of the same name.
async fn load_program(lair: &Lair, name: &str, content: &str) {
    let path = lair.home.path().join(name);
    std::fs::write(&path, content).expect("a program");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
    let program = path.display();
    let manifest = format!("name: {name}\nruntime:\n  native: {{ command: ['{program}'] }}\n");
    lair.load(&manifest).await.expect("a load");
}

fn fault(lair: &Lair, name: &str) -> StartFault {
    let notices = lair.notices(name);
    let mut faults = notices.iter().filter_map(|n| match &n.kind {
        NoticeKind::StartFailed { fault } => Some(fault.clone()),
        _ => None,
    });
    faults.next_back().expect("a fault was told")
}

/// A7
#[tokio::test]
async fn what_cannot_be_prepared_fails_at_its_stage() {
    let lair = Lair::start("a7").await;
    let native = |name: &str, more: &str| {
        format!("name: {name}\nruntime:\n  native: {{ command: [/bin/sleep, '1000'], {more} }}\n")
    };
    let gone = lair.home.path().join("gone");
    std::fs::create_dir(&gone).expect("a folder");
    lair.load(&native("dir", "workdir: gone"))
        .await
        .expect("a load");
    std::fs::remove_dir(&gone).expect("removed");
    lair.load(&native("user", "user: nobody-of-that-name"))
        .await
        .expect("a load");
    for (name, stage) in [("dir", "change_dir"), ("user", "drop_privileges")] {
        lair.handle
            .start(name, support::asker())
            .await
            .expect("a start");
        let down = lair.wait(name, WaitFor::Stopped).await;
        let reason = down.reason.expect("a reason");
        assert_eq!(
            (reason.code.as_str(), reason.stage.as_deref()),
            ("start_failed", Some(stage))
        );
        assert_eq!(reason.errno.as_deref(), Some("ENOENT"));
        assert!(!fault(&lair, name).transient);
    }
    assert_eq!(lair.processes(), Vec::<i32>::new());
    lair.end().await;
}

/// A7
#[tokio::test]
async fn a_log_folder_that_cannot_be_written_fails_the_start() {
    let lair = Lair::start("a7-logs").await;
    lair.load(&support::sh("m", "echo x; exec sleep 1000", ""))
        .await
        .expect("a load");
    // A file where the folder should be: this stops root too.
    std::fs::write(lair.handle.log_dir().join("m"), "in the way").expect("a file");
    lair.handle
        .start("m", support::asker())
        .await
        .expect("a start");
    let down = lair.wait("m", WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert_eq!(
        (reason.code.as_str(), reason.stage.as_deref()),
        ("start_failed", Some("open_logs"))
    );
    assert_eq!(lair.processes(), Vec::<i32>::new());
    lair.end().await;
}

/// A8
#[tokio::test]
async fn a_module_that_stopped_itself_is_woken_to_stop() {
    let lair = Lair::start("a8").await;
    lair.sh(
        "m",
        "trap 'exit 7' TERM; echo up; kill -STOP $$; echo woken; while :; do sleep 0.02; done",
        "",
    )
    .await;
    lair.until("m", "printing", |s| s.logs.bytes >= 3).await;
    let pid = lair.status("m").pid.expect("a pid");
    eventually("frozen", || state(pid) == Some('T')).await;
    assert_eq!(lair.status("m").state, "running");
    let began = Instant::now();
    let down = lair.stop("m").await;
    let exit = down.exit.expect("an exit");
    assert_eq!((exit.code, exit.killed_after_grace), (Some(7), false));
    assert_eq!(down.state, "stopped");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "it took the grace"
    );
    lair.end().await;
}

fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A9
#[tokio::test]
async fn five_hundred_unreaped_children_leave_no_zombie() {
    let lair = Lair::start("a9").await;
    let keeper = lair.keeper().expect("a keeper");
    let before = children_of(keeper).len();
    let script = "exec perl -e '$| = 1; for (1..500) { fork or exit } print qq(up\\n); sleep 1000'";
    lair.sh("m", script, "").await;
    lair.until("m", "printing", |s| s.logs.bytes == 3).await;
    let pid = lair.status("m").pid.expect("a pid");
    eventually("500 zombies", || {
        children_of(pid)
            .iter()
            .filter(|p| state(**p) == Some('Z'))
            .count()
            == 500
    })
    .await;
    signal(pid, libc::SIGKILL);
    lair.wait("m", WaitFor::Exited).await;
    eventually("reaped", || children_of(keeper).len() == before).await;
    assert_eq!(lair.status("m").exit.expect("an exit").signal, Some(9));
    assert!(
        children_of(std::process::id() as i32)
            .iter()
            .all(|pid| state(*pid) != Some('Z'))
    );
    lair.end().await;
}

/// Children, dead ones too.
fn children_of(parent: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(Result::ok);
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
        rest.and_then(|r| r.split(' ').nth(1)?.parse().ok()) == Some(parent)
    };
    pids.filter(child).collect()
}

/// A10
#[tokio::test]
async fn twenty_deaths_in_one_instant_are_twenty_exits() {
    let lair = Lair::start("a10").await;
    // Each with a status of its own.
    let signals = [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGUSR1,
    ];
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    for name in &names {
        lair.sh(name, "exec sleep 1000", "").await;
    }
    let mut pids = Vec::new();
    for name in &names {
        let pid = lair.wait(name, WaitFor::Ready).await.pid.expect("a pid");
        pids.push(pid);
    }
    let began = Instant::now();
    for (n, pid) in pids.iter().enumerate() {
        signal(*pid, signals[n % signals.len()]);
    }
    for (n, name) in names.iter().enumerate() {
        let down = lair.wait(name, WaitFor::Exited).await;
        assert_eq!(
            down.exit.expect("an exit").signal,
            Some(signals[n % signals.len()])
        );
        assert_eq!(lair.count(name, "exited"), 1);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    lair.end().await;
}
