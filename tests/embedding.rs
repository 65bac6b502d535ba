//! N1 to N4: lair inside somebody else's program.

#[path = "support/machine.rs"]
mod machine;
mod support;

use lair::supervision::{ChildId, ExitStatus, NoticeKind, StartStage};
use lair::testing::{ActorKind, Fault, OnStop, Script, Simulation};
use lair::{Folders, Runtime, RuntimeOptions, WaitFor};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{Home, Lair, processes_with, sh};

// N1
#[tokio::test]
async fn the_hosts_own_children_are_left_to_the_host() {
    let lair = Lair::start("host").await;
    let mut children: Vec<std::process::Child> = (0..10)
        .map(|n| {
            let script = format!("read x; exit {}", 40 + n);
            let mut command = std::process::Command::new("/bin/sh");
            command
                .args(["-c", &script])
                .stdin(std::process::Stdio::piped());
            command.spawn().expect("a child of the host's")
        })
        .collect();
    for n in 0..10 {
        lair.sh("m", &format!("exit {n}"), "").await;
        lair.wait("m", WaitFor::Stopped).await;
    }
    lair.sh("up", "exec sleep 1000", "").await;
    for child in &mut children {
        drop(child.stdin.take());
    }
    for (n, mut child) in (0..).zip(children) {
        let status = tokio::task::spawn_blocking(move || child.wait()).await;
        let code = status
            .expect("waited")
            .expect("its status is the host's")
            .code();
        assert_eq!(code, Some(40 + n));
    }
    lair.wait("up", WaitFor::Ready).await;
    lair.end().await;
}

/// A runtime with one running module, marked in its environment.
async fn marked(home: &Home, mark: &str) -> Runtime {
    let mut options = RuntimeOptions::new(Default::default(), Folders::below(home.path()));
    options.keeper = PathBuf::from(env!("CARGO_BIN_EXE_lair"));
    options.orphan_grace = Duration::from_millis(200);
    let runtime = Runtime::start(options).await.expect("a runtime");
    let script = format!("trap '' TERM; export {mark}=1; setsid sleep 1000 & exec sleep 1000");
    let source = lair::ManifestSource::Text {
        text: sh("m", &script, ""),
        dir: None,
        trusted: true,
    };
    let handle = runtime.handle();
    handle
        .load(source, Default::default(), support::asker())
        .await
        .expect("loaded");
    handle.start("m", support::asker()).await.expect("a start");
    let ready = handle.wait("m", WaitFor::Ready, Some(support::SOON)).await;
    assert_eq!(ready.expect("up").state, "running");
    support::eventually("both are there", || processes_with(mark).len() >= 2).await;
    runtime
}

// N2
#[tokio::test]
async fn dropping_runtime_and_handles_inside_a_runtime_leaves_no_orphan() {
    let home = Home::new("dropped");
    let mark = format!("DROPPED_IN_{}", std::process::id());
    let runtime = marked(&home, &mark).await;
    let keeper = runtime.handle().info()["keeper_pid"]
        .as_i64()
        .expect("a keeper");
    let kept = runtime.handle().clone();
    drop(runtime);
    assert_eq!(processes_with(&mark).len(), 2, "a handle still wants it");
    drop(kept);
    support::eventually("all are gone", || processes_with(&mark).is_empty()).await;
    let keeper = i32::try_from(keeper).expect("a pid");
    support::eventually("the keeper is gone", || !support::is_alive(keeper)).await;
}

// N2
#[test]
fn dropping_runtime_and_handles_after_their_runtime_has_ended_leaves_no_orphan() {
    let home = Home::new("dropped-out");
    let mark = format!("DROPPED_OUT_{}", std::process::id());
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("tokio");
    let runtime = tokio.block_on(marked(&home, &mark));
    drop(tokio);
    drop(runtime);
    machine::eventually("all are gone", support::SOON, || {
        processes_with(&mark).is_empty()
    });
}

// N2
#[test]
fn a_host_that_is_killed_leaves_no_orphan() {
    if machine::is_alone() {
        let mark = std::env::var("LAIR_TEST_MARK").expect("a mark");
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio");
        let home = Home::new("killed");
        let _runtime = tokio.block_on(marked(&home, &mark));
        machine::signal(std::process::id().cast_signed(), libc::SIGKILL);
        return;
    }
    let mark = format!("KILLED_{}", std::process::id());
    let mut inside = machine::alone("a_host_that_is_killed_leaves_no_orphan");
    let ended = inside
        .env("LAIR_TEST_MARK", &mark)
        .stdout(std::process::Stdio::null())
        .status();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(ended.expect("an end").signal(), Some(libc::SIGKILL));
    machine::eventually("all are gone", support::SOON, || {
        processes_with(&mark).is_empty()
    });
}

// N3
#[tokio::test(flavor = "current_thread")]
async fn on_a_hosts_only_thread_with_slow_tasks_everything_is_right_if_later() {
    let lair = Lair::start("single").await;
    let busy = tokio::spawn(async {
        loop {
            // A host's task that holds the only thread.
            std::thread::sleep(Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
    });
    let probe = "  health: { liveness: { command: [\"true\"], interval: 100ms, timeout: 1s, failures: 1, on_failure: restart } }";
    lair.sh("m", "seq 1 1000; exec sleep 1000", probe).await;
    lair.sh("code", "exit 7", "").await;
    let down = lair.wait("code", WaitFor::Stopped).await;
    assert_eq!(down.exit.expect("an exit").code, Some(7));
    lair.wait("m", WaitFor::Healthy).await;
    let later = Instant::now() + Duration::from_secs(2);
    lair.until("m", "probed for a while", |_| Instant::now() > later)
        .await;
    let down = lair.stop("m").await;
    assert_eq!(
        (down.state.as_str(), down.restarts.count),
        ("stopped", 0),
        "{}",
        lair.story("m")
    );
    let want: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&lair.output("m", "stdout")), want);
    busy.abort();
    lair.end().await;
}

/// Small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn time(&mut self, up_to_ms: u64) -> Duration {
        Duration::from_millis(self.roll(up_to_ms))
    }

    fn script(&mut self) -> Script {
        let status = [
            ExitStatus::Code(0),
            ExitStatus::Code(1),
            ExitStatus::Signal(11),
        ][self.roll(3) as usize];
        Script {
            spawn_after: self.time(3000),
            exit_after: (self.roll(2) == 0).then(|| (self.time(20_000), status)),
            on_stop: match self.roll(3) {
                0 => OnStop::Ignore,
                _ => OnStop::Exit(self.time(3000), ExitStatus::Signal(15)),
            },
            answers: (0..self.roll(5)).map(|n| (n % 3 == 2).into()).collect(),
            ..Script::default()
        }
    }

    fn manifest(&mut self, name: &str) -> (String, &'static str) {
        let policy = ["never", "on-failure", "always"][self.roll(3) as usize];
        let restart = format!(
            "  restart: {{ policy: {policy}, max: 3, within: 1m, settle: 10s }}\n  stop: {{ grace: 2s }}\n"
        );
        let probe = "{ command: [look], interval: 5s, failures: 2 }";
        let live = "{ command: [look], interval: 5s, failures: 2, on_failure: restart }";
        let health = match self.roll(3) {
            0 => format!("  health: {{ readiness: {probe} }}"),
            1 => format!("  health: {{ liveness: {live} }}"),
            _ => String::new(),
        };
        (sh(name, "never run", &(restart + &health)), policy)
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One history: random scripts, requests, faults and times. Returns its notices as text.
async fn history(seed: u64, panics: bool) -> String {
    let mut dice = Dice(seed);
    let mut builder = Simulation::builder().seed(seed).faults();
    for name in NAMES {
        builder = builder.script(name, dice.script());
    }
    let sim = builder.start().await.expect("a simulation");
    let mut policies = Vec::new();
    for name in NAMES {
        let (manifest, policy) = dice.manifest(name);
        sim.load(&manifest).await.expect("loaded");
        policies.push(policy);
    }
    let mut asked = [0_u64; 3];
    for _ in 0..25 {
        act(&sim, &mut dice, &mut asked, panics).await;
        sim.advance(dice.time(8000)).await;
        sim.check()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    let notices = sim.notices();
    for ((name, policy), asked) in NAMES.iter().zip(policies).zip(asked) {
        let of_it = notices.iter().filter(|n| n.id.as_str() == *name);
        let starts = of_it.filter(|n| n.kind == NoticeKind::Starting).count() as u64;
        let allowed = if policy == "never" { asked } else { u64::MAX };
        assert!(
            starts <= allowed,
            "I4, seed {seed}: {name} was started {starts} times"
        );
    }
    let (handle, backend) = (sim.handle().clone(), sim.backend().clone());
    let report = sim.shutdown(Duration::from_secs(5)).await;
    assert!(report.remaining.is_empty(), "seed {seed}: {report:?}");
    assert_eq!(backend.alive(), 0, "I1, seed {seed}");
    let all = handle.events(lair::supervision::Seq(0), usize::MAX).notices;
    lair::testing::check(&all).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    serde_json::to_string(&all).expect("text")
}

async fn act(sim: &Simulation, dice: &mut Dice, asked: &mut [u64; 3], panics: bool) {
    let which = dice.roll(3) as usize;
    let (name, lair, me) = (NAMES[which], sim.handle(), Simulation::origin());
    let id = ChildId::new(name);
    let inject = |fault| async { drop(lair.inject(fault, "history", Simulation::origin()).await) };
    match dice.roll(if panics { 11 } else { 9 }) {
        0..=2 => {
            asked[which] += 1;
            let _ = lair.start(name, me).await;
        }
        3 => drop(lair.stop(name, None, me).await),
        4 => drop(lair.stop(name, Some(dice.time(3000)), me).await),
        5 => {
            asked[which] += 1;
            let _ = lair.restart(name, None, me).await;
        }
        6 => drop(lair.kill(name, None, me).await),
        7 => inject(Fault::CrashChild { id, signal: 11 }).await,
        8 => {
            let errno = [libc::ENOENT, libc::EAGAIN][dice.roll(2) as usize];
            inject(Fault::FailNextSpawn {
                id,
                stage: StartStage::Exec,
                errno,
            })
            .await;
        }
        9 => {
            inject(Fault::PanicActor {
                which: ActorKind::Module,
                id: Some(id),
            })
            .await
        }
        _ => {
            let which = [ActorKind::Health, ActorKind::Log][dice.roll(2) as usize];
            inject(Fault::PanicActor { which, id: None }).await;
        }
    }
}

// N4
#[tokio::test(flavor = "current_thread")]
async fn a_thousand_seeded_histories_break_no_promise() {
    for seed in 0..1000 {
        history(seed, false).await;
    }
}

// N4, O64
#[tokio::test(flavor = "current_thread")]
async fn histories_in_which_actors_panic_break_no_promise_either() {
    for seed in 1000..1100 {
        history(seed, true).await;
    }
}

// N4
#[tokio::test(flavor = "current_thread")]
async fn the_same_seed_gives_the_same_notices() {
    for seed in 0..20 {
        let first = history(seed, false).await;
        assert_eq!(first, history(seed, false).await, "seed {seed}");
        assert!(first.len() > 1000, "seed {seed} tells something");
    }
}
