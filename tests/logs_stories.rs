//! Family E of the fault matrix, end to end: a real module, its pipes, the pump, the files, the notices.

#[path = "support/machine.rs"]
mod machine;
mod support;

use lair::WaitFor;
use lair::actors::fault::{ActorKind, Fault};
use lair::supervision::NoticeKind;
use machine::{Disk, bytes_below, segments};
use std::os::unix::fs::symlink;
use support::{Lair, is_alive, word};

/// Small segments that stay as they are.
fn small(max_size: &str, max_files: u32) -> String {
    format!("  logs: {{ max_size: {max_size}, max_files: {max_files}, compress: false }}")
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|w| w.parse().ok())
        .expect("pages");
    pages * 4096
}

impl Lair {
    fn heard(&self, name: &str, which: &str) -> usize {
        self.notices(name)
            .iter()
            .filter(|n| word(&n.kind) == which)
            .count()
    }

    async fn fault(&self, which: ActorKind, id: Option<&str>) {
        let id = id.map(lair::supervision::ChildId::new);
        let fault = Fault::PanicActor { which, id };
        self.handle
            .inject(fault, "story", support::asker())
            .await
            .expect("an open gate");
    }
}

// E1
#[tokio::test]
async fn a_flood_on_both_streams_stays_within_its_files_and_every_byte_is_counted() {
    if !machine::is_alone() {
        let name = "a_flood_on_both_streams_stays_within_its_files_and_every_byte_is_counted";
        return machine::run_alone(name, |_| {});
    }
    let lair = Lair::start("flood").await;
    let before = resident();
    let flood = "yes out | head -c 50000000 & yes err | head -c 50000000 >&2; wait";
    lair.sh("m", flood, &small("4MiB", 3)).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.exit.expect("an exit").code, Some(0));
    assert_eq!((down.logs.bytes, down.logs.dropped), (100_000_000, 0));
    let dir = lair.handle.log_dir().join("m");
    assert!(segments(&dir).len() <= 3, "{:?}", segments(&dir));
    assert!(bytes_below(&dir) <= 3 * (4 << 20));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    lair.end().await;
}

// E2
#[tokio::test]
async fn an_endless_line_is_split_and_delays_no_other_module() {
    let lair = Lair::start("endless").await;
    lair.sh(
        "long",
        "head -c 30000000 /dev/zero | tr '\\0' z; exec sleep 1000",
        &small("64MiB", 8),
    )
    .await;
    lair.sh("other", "echo hello; exec sleep 1000", "").await;
    lair.until("other", "heard", |s| s.logs.bytes == 6).await;
    lair.until("long", "through", |s| s.logs.bytes == 30_000_000)
        .await;
    lair.stop("long").await;
    let got = lair.output("long", "stdout");
    // The end of the last piece is no newline of the module's.
    let zs = got.iter().filter(|b| **b == b'z').count();
    assert_eq!((zs, got.len() - zs), (30_000_000, 0));
    lair.end().await;
}

// E3
#[tokio::test]
async fn bytes_that_are_no_text_are_kept_as_they_are() {
    let lair = Lair::start("bytes").await;
    let script = r"printf 'a\000b\377\376\033[31mred\rback\n\n\303(\n'";
    lair.sh("m", script, "").await;
    lair.wait("m", WaitFor::Stopped).await;
    let want = b"a\0b\xff\xfe\x1b[31mred\rback\n\n\xc3(\n";
    assert_eq!(lair.output("m", "stdout"), want);
    lair.end().await;
}

// E4
#[tokio::test]
async fn a_last_line_without_newline_is_in_the_file_before_exited_is_published() {
    let lair = Lair::start("last").await;
    lair.load(&support::sh("m", "printf x", &small("1MiB", 100)))
        .await
        .expect("loaded");
    for run in 1..=20 {
        let mut newest = lair.handle.newest_event();
        lair.handle
            .start("m", support::asker())
            .await
            .expect("a start");
        loop {
            newest.mark_unchanged();
            if lair.heard("m", "exited") == run {
                break;
            }
            newest.changed().await.expect("a runtime");
        }
        assert_eq!(lair.output("m", "stdout"), vec![b'x'; run]);
        lair.wait("m", WaitFor::Stopped).await;
    }
    lair.end().await;
}

// E5
#[tokio::test]
async fn over_many_rotations_every_number_is_there_once_and_in_order() {
    let lair = Lair::start("rotate").await;
    lair.sh(
        "m",
        "seq 1 60000; seq 60001 60010 >&2",
        &small("64KiB", 200),
    )
    .await;
    lair.wait("m", WaitFor::Stopped).await;
    let want: String = (1..=60_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&lair.output("m", "stdout")), want);
    let files = segments(&lair.handle.log_dir().join("m")).len();
    assert!((40..=200).contains(&files), "{files} files");
    lair.end().await;
}

// E5
#[tokio::test]
async fn the_newest_numbers_are_kept_when_older_files_had_to_go() {
    let lair = Lair::start("kept").await;
    lair.sh("m", "seq 1 60000", &small("64KiB", 4)).await;
    lair.wait("m", WaitFor::Stopped).await;
    let got = String::from_utf8(lair.output("m", "stdout")).expect("text");
    let numbers: Vec<u32> = got.lines().map(|l| l.parse().expect("a number")).collect();
    assert_eq!(numbers.last(), Some(&60_000));
    assert!(
        numbers.windows(2).all(|w| w[1] == w[0] + 1),
        "a hole or a double"
    );
    assert!(segments(&lair.handle.log_dir().join("m")).len() <= 4);
    lair.end().await;
}

// E6
#[tokio::test]
async fn a_full_disk_blocks_no_module_and_its_tally_is_told_when_there_is_room_again() {
    let (disk, lair) = on_small_disk("full").await;
    assert!(disk.is_some(), "this test mounts a tmpfs, and could not");
    std::fs::write(lair.home.path().join("logs/filler"), vec![b'f'; 40 << 10]).expect("room");
    lair.sh(
        "m",
        "yes | head -c 1000000; while :; do echo more; sleep 0.05; done",
        &small("1MiB", 8),
    )
    .await;
    lair.until("m", "past the flood", |s| s.logs.bytes > 1_000_000)
        .await;
    lair.until("m", "degraded", |_| lair.heard("m", "log_degraded") == 1)
        .await;
    assert_eq!(lair.status("m").state, "running");
    assert!(lair.status("m").logs.dropped > 0);
    std::fs::remove_file(lair.home.path().join("logs/filler")).expect("room again");
    lair.until("m", "recovered", |_| lair.heard("m", "log_recovered") == 1)
        .await;
    let down = lair.stop("m").await;
    let kept = lair.output("m", "stdout").len() as u64;
    assert_eq!(
        kept + down.logs.dropped,
        down.logs.bytes,
        "every byte is kept or counted"
    );
    let remarks = String::from_utf8_lossy(&lair.output("m", "lair")).into_owned();
    assert!(remarks.contains("dropped bytes="), "{remarks}");
    lair.end().await;
}

async fn on_small_disk(name: &str) -> (Option<Disk>, Lair) {
    let mut disk = None;
    let lair = Lair::start_with(name, |o| disk = Disk::mount(&o.folders.logs, "64k")).await;
    (disk, lair)
}

// E8
#[tokio::test]
async fn a_log_folder_that_vanishes_is_noticed_and_made_again() {
    let lair = Lair::start("vanish").await;
    lair.sh(
        "m",
        "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done",
        "",
    )
    .await;
    lair.until("m", "talking", |s| s.logs.bytes > 10).await;
    let (dir, away) = (
        lair.handle.log_dir().join("m"),
        lair.home.path().join("away"),
    );
    std::fs::rename(&dir, &away).expect("moved");
    let moved = bytes_below(&away);
    lair.until("m", "told", |_| lair.heard("m", "log_degraded") >= 1)
        .await;
    lair.until("m", "written again", |_| {
        !lair.output("m", "stdout").is_empty()
    })
    .await;
    lair.until("m", "recovered", |_| lair.heard("m", "log_recovered") >= 1)
        .await;
    let down = lair.stop("m").await;
    assert_eq!(
        down.exit.expect("an exit").signal,
        Some(15),
        "the module never noticed"
    );
    let (old, new) = (
        support::read_stream(&away, "stdout"),
        lair.output("m", "stdout"),
    );
    assert!(moved > 0 && !old.is_empty());
    let kept = (old.len() + new.len()) as u64;
    assert_eq!(kept + down.logs.dropped, down.logs.bytes);
    lair.end().await;
}

// E9
#[tokio::test]
async fn an_immutable_folder_degrades_the_log_and_leaves_the_module_alone() {
    let lair = Lair::start("immutable").await;
    let script = "while :; do head -c 20000 /dev/zero | tr '\\0' x; echo; sleep 0.02; done";
    lair.sh("m", script, &small("64KiB", 8)).await;
    lair.until("m", "talking", |s| s.logs.bytes > 10).await;
    let folder = lair.handle.log_dir().join("m");
    let held = machine::Immutable::make(&folder);
    lair.until("m", "degraded", |s| {
        lair.heard("m", "log_degraded") == 1 && s.logs.dropped > 0
    })
    .await;
    assert_eq!(lair.status("m").state, "running");
    drop(held);
    lair.until("m", "recovered", |_| lair.heard("m", "log_recovered") == 1)
        .await;
    let down = lair.stop("m").await;
    assert_eq!(down.exit.expect("an exit").signal, Some(15));
    lair.end().await;
}

// E9
#[tokio::test]
async fn on_a_read_only_disk_a_start_fails_by_name_and_works_when_it_can_be_written_again() {
    let (disk, lair) = on_small_disk("readonly").await;
    let disk = disk.expect("this test mounts a tmpfs");
    disk.remount("ro");
    lair.sh("m", "echo x; exec sleep 1000", "").await;
    let down = lair.until("m", "refused", |s| s.state == "failed").await;
    let why = down.reason.expect("a reason");
    let (stage, errno) = (why.stage.as_deref(), why.errno.as_deref());
    assert_eq!(
        (stage, errno),
        (Some("open_logs"), Some("EROFS")),
        "{why:?}"
    );
    disk.remount("rw");
    lair.handle
        .start("m", support::asker())
        .await
        .expect("a start");
    lair.until("m", "talking", |s| s.logs.bytes == 2).await;
    lair.end().await;
}

// E10
#[tokio::test]
async fn a_link_planted_at_the_next_file_is_refused_and_its_victim_untouched() {
    let lair = Lair::start("link").await;
    let victim = lair.home.path().join("victim");
    std::fs::write(&victim, "precious").expect("a victim");
    lair.load(&support::sh("m", "echo out; exec sleep 1000", ""))
        .await
        .expect("loaded");
    let dir = lair.handle.log_dir().join("m");
    std::fs::create_dir_all(&dir).expect("a folder");
    symlink(&victim, dir.join("1.1.log")).expect("planted");
    symlink(&victim, dir.join("1.0.log")).expect("planted");
    lair.handle
        .start("m", support::asker())
        .await
        .expect("a start");
    lair.until("m", "told", |_| lair.heard("m", "log_degraded") >= 1)
        .await;
    lair.until("m", "written", |s| s.logs.bytes == 4).await;
    let down = lair.stop("m").await;
    for link in ["1.0.log", "1.1.log"] {
        let link = dir.join(link);
        if link.is_symlink() {
            std::fs::remove_file(link).expect("removed");
        }
    }
    assert_eq!(std::fs::read_to_string(&victim).expect("there"), "precious");
    // The next name was free: nothing was lost.
    assert_eq!(
        (lair.output("m", "stdout"), down.logs.dropped),
        (b"out\n".to_vec(), 0)
    );
    lair.end().await;
}

// E11
#[tokio::test]
async fn a_module_cannot_forge_lairs_own_records() {
    let lair = Lair::start("forge").await;
    let forged = "2026-01-01T00:00:00.000000000Z lair F exited code=0";
    lair.sh(
        "m",
        &format!("echo '{forged}'; printf 'x\\n{forged}\\n'; exit 3"),
        "",
    )
    .await;
    lair.wait("m", WaitFor::Stopped).await;
    let out = String::from_utf8(lair.output("m", "stdout")).expect("text");
    assert_eq!(out, format!("{forged}\nx\n{forged}\n"));
    let remarks = || String::from_utf8(lair.output("m", "lair")).expect("text");
    lair.until("m", "remarked", |_| remarks().contains("code=3"))
        .await;
    assert!(!remarks().contains("exited code=0"), "{}", remarks());
    lair.end().await;
}

// E12
#[tokio::test]
async fn a_panic_of_the_log_actor_or_the_pump_under_a_flood_loses_and_doubles_nothing() {
    let lair = Lair::start_with("panic", |o| o.faults = true).await;
    lair.sh("m", "seq 1 2000000", &small("64MiB", 8)).await;
    lair.until("m", "talking", |s| s.logs.bytes > 0).await;
    for which in [
        ActorKind::Log,
        ActorKind::Pump,
        ActorKind::Log,
        ActorKind::Pump,
    ] {
        lair.fault(which, None).await;
    }
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(down.exit.expect("an exit").code, Some(0), "no broken pipe");
    let want: Vec<u8> = (1..=2_000_000)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    assert!(
        lair.output("m", "stdout") == want,
        "a byte is missing or double"
    );
    assert_eq!(down.logs.dropped, 0);
    lair.end().await;
}

// E12
#[tokio::test]
async fn what_was_in_the_pipe_when_a_modules_owner_died_is_kept_or_counted() {
    let lair = Lair::start_with("owner", |o| o.faults = true).await;
    lair.sh("m", "seq 1 300000; sleep 1000", &small("64MiB", 8))
        .await;
    lair.until("m", "talking", |s| s.logs.bytes > 0).await;
    lair.fault(ActorKind::Module, Some("m")).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    let exited = lair.notices("m").into_iter().find_map(|n| match &n.kind {
        NoticeKind::Exited { evidence, .. } => Some(evidence.clone()),
        _ => None,
    });
    let kept = lair.output("m", "stdout");
    let text = String::from_utf8(kept.clone()).expect("text");
    for (n, line) in text.lines().enumerate().take(text.lines().count() - 1) {
        assert_eq!(line, (n + 1).to_string(), "a hole or a double");
    }
    assert_eq!(kept.len() as u64 + down.logs.dropped, down.logs.bytes);
    assert_eq!(exited.expect("an exit").log_dropped, down.logs.dropped);
    lair.end().await;
}

// E12
#[tokio::test]
async fn a_module_that_ends_while_the_log_actor_is_dead_leaves_no_open_file() {
    let lair = Lair::start_with("gone", |o| o.faults = true).await;
    let dir = lair.handle.log_dir().join("m");
    let dir = dir.to_str().expect("text").to_owned();
    for _ in 0..10 {
        lair.sh("m", "echo x; exec sleep 1000", "").await;
        lair.until("m", "talking", |s| s.logs.bytes == 2).await;
        let _ = lair.handle.kill("m", None, support::asker()).await;
        lair.fault(ActorKind::Log, None).await;
        lair.wait("m", WaitFor::Stopped).await;
    }
    lair.until("m", "closed", |_| open_below(&dir) == 0).await;
    lair.end().await;
}

fn open_below(dir: &str) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").expect("fds").flatten();
    fds.filter_map(|e| std::fs::read_link(e.path()).ok())
        .filter(|to| to.to_string_lossy().starts_with(dir) && to.extension().is_some())
        .count()
}

// E13
#[tokio::test]
async fn a_stream_closed_early_costs_nothing_while_the_other_goes_on() {
    let lair = Lair::start("closed").await;
    lair.sh(
        "m",
        "exec >&-; n=0; while [ $n -lt 50 ]; do n=$((n+1)); echo $n >&2; sleep 0.02; done",
        "",
    )
    .await;
    let before = thread_time("lair-log-pump");
    let down = lair.wait("m", WaitFor::Stopped).await;
    let spent = thread_time("lair-log-pump").saturating_sub(before);
    assert_eq!(down.exit.expect("an exit").code, Some(0));
    let want: String = (1..=50).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&lair.output("m", "stderr")), want);
    // Fifty lines in more than a second: a busy loop would take all of it (100 ticks). Other stories' pumps count too.
    assert!(
        spent < 100 || !is_alive(std::process::id().cast_signed()),
        "{spent} ticks"
    );
    lair.end().await;
}

/// CPU ticks of this process's threads of one name.
fn thread_time(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task")
        .expect("tasks")
        .flatten();
    tasks
        .filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok())
        .filter(|stat| stat.contains(&format!("({name})")))
        .filter_map(|stat| {
            let words: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            Some(words[11].parse::<u64>().ok()? + words[12].parse::<u64>().ok()?)
        })
        .sum()
}

/// Runs a story's inside below strace, which does something to each write to the module's first log file.
fn run_traced(test: &str, inject: &str) -> bool {
    let home = support::Home::new("traced");
    let logs = home.path().join("logs");
    let inside = machine::alone(test);
    let mut strace = std::process::Command::new("strace");
    strace
        .args([
            "-f",
            "--seccomp-bpf",
            "-o",
            "/dev/null",
            "-e",
            "trace=write",
            "-e",
        ])
        .arg(format!("inject=write:{inject}"))
        .arg("-P")
        .arg(logs.join("m/1.0.log"))
        .arg(inside.get_program())
        .args(inside.get_args())
        .env("LAIR_TEST_ALONE", "1")
        .env("LAIR_TEST_LOGS", &logs);
    match strace.output() {
        Ok(output) => {
            let text =
                String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
            true
        }
        Err(_) => {
            machine::skipped("there is no strace");
            false
        }
    }
}

async fn on_traced_logs(name: &str) -> Lair {
    let logs = std::env::var_os("LAIR_TEST_LOGS").expect("the outer story's folder");
    Lair::start_with(name, |o| o.folders.logs = logs.into()).await
}

// E7
#[tokio::test]
async fn a_write_that_fails_once_costs_at_most_what_is_counted_and_the_stream_goes_on() {
    if !machine::is_alone() {
        let name = "a_write_that_fails_once_costs_at_most_what_is_counted_and_the_stream_goes_on";
        run_traced(name, "error=EIO:when=20..22");
        return;
    }
    let lair = on_traced_logs("eio").await;
    lair.sh(
        "m",
        "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done",
        "",
    )
    .await;
    lair.until("m", "told", |_| lair.heard("m", "log_degraded") >= 1)
        .await;
    lair.until("m", "recovered", |_| lair.heard("m", "log_recovered") >= 1)
        .await;
    let bytes = lair.status("m").logs.bytes;
    lair.until("m", "going on", |s| s.logs.bytes > bytes + 20)
        .await;
    let down = lair.stop("m").await;
    let kept = lair.output("m", "stdout");
    assert_eq!(kept.len() as u64 + down.logs.dropped, down.logs.bytes);
    let text = String::from_utf8(kept).expect("text");
    let numbers: Vec<u32> = text
        .lines()
        .map(|l| l.parse().expect("whole lines"))
        .collect();
    assert!(
        numbers.windows(2).all(|w| w[1] > w[0]),
        "nothing twice: {numbers:?}"
    );
    lair.end().await;
}

// E14
#[tokio::test]
async fn a_slow_disk_costs_neither_memory_nor_the_runtimes_answers() {
    if !machine::is_alone() {
        let name = "a_slow_disk_costs_neither_memory_nor_the_runtimes_answers";
        run_traced(name, "delay_exit=200000");
        return;
    }
    let lair = on_traced_logs("slow").await;
    let before = resident();
    lair.sh("m", "yes", &small("1GiB", 8)).await;
    lair.sh("other", "exec sleep 1000", "").await;
    lair.until("m", "flooding", |s| s.logs.bytes > 300_000)
        .await;
    let asked = std::time::Instant::now();
    assert_eq!(lair.status("m").state, "running");
    lair.stop("other").await;
    assert!(asked.elapsed().as_secs() < 2, "{:?}", asked.elapsed());
    assert!(resident().saturating_sub(before) < 32 << 20);
    let down = lair.stop("m").await;
    let kept = lair.output("m", "stdout").len() as u64;
    assert_eq!(kept + down.logs.dropped, down.logs.bytes);
    lair.end().await;
}

/// What the stories say of files is worth what their reader is: it must not take what is being made for what is there.
#[test]
fn the_stories_own_reader_takes_each_segment_once_and_whole() {
    let home = support::Home::new("reader");
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(home.path().join(name), bytes).expect("a file");
    };
    let record = |text: &str| format!("2026-01-01T00:00:00.000000000Z stdout F {text}\n");
    let packed = |text: &str| zstd::encode_all(record(text).as_bytes(), 1).expect("packed");
    put("1.0.log", record("a").as_bytes());
    // Half of what is to replace it.
    put("1.0.log.zst.tmp", &packed("a")[..8]);
    // The moment between the new name and the old one's end.
    put("1.1.log", record("b").as_bytes());
    put("1.1.log.zst", &packed("b"));
    put("1.dossier.json", b"{}");
    put(
        "2.0.log",
        format!("{}2026-01-01T00", record("c")).as_bytes(),
    );
    assert_eq!(support::read_stream(home.path(), "stdout"), b"a\nb\nc\n");
}
