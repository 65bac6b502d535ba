//! GPUs are asked for, given by name, and proven to be back: faults X8 and D4, with a driver made up by the test.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Driver, GIB, cards};
use lair::WaitFor;
use lair::actors::status::Gpu;
use lair::manifests::launch::Launch;
use lair::resources::{Card, GpuReport};
use std::time::Duration;
use support::{Lair, asker, sh};

const SLEEP: &str = "exec sleep 1000";
/// A port that answers from the start on, so that the start is over at once.
const READY: &str = "readiness: { command: [/bin/true], interval: 50ms }";

async fn with(driver: &Driver, name: &str) -> Lair {
    let nvml = driver.nvml();
    Lair::start_with(name, |options| options.config.gpu.nvml = nvml).await
}

fn gpu(ask: &str) -> String {
    format!("  resources: {{ gpu: {ask} }}\n  stop: {{ grace: 1s }}")
}

async fn report(lair: &Lair) -> GpuReport {
    lair.handle.gpus().await.expect("a report")
}

async fn card(lair: &Lair, n: usize) -> Card {
    report(lair).await.gpus.remove(n)
}

fn env(lair: &Lair, name: &str, variable: &str) -> Option<String> {
    match &lair.view(name).plan.launch {
        Launch::Native(native) => native.env.get(variable).cloned(),
        Launch::Container(_) => None,
    }
}

fn proc(state: &str, lines: &[(usize, i32, u64)]) -> String {
    let lines = lines
        .iter()
        .map(|(gpu, pid, bytes)| format!("proc {gpu} {pid} {bytes}\n"));
    state.to_owned() + &lines.collect::<String>()
}

/// X8
#[tokio::test]
async fn a_driver_that_is_absent_or_fails_is_told_and_touches_nothing_else() {
    let driver = Driver::with("fail 999\n");
    let lair = with(&driver, "x8").await;
    let told = report(&lair).await;
    assert!(!told.available && told.gpus.is_empty());
    assert!(told.reason.is_some_and(|why| !why.is_empty()));
    lair.sh("plain", SLEEP, "").await;
    assert_eq!(lair.wait("plain", WaitFor::Ready).await.resources.gpu, []);
    let refused = lair
        .load(&sh("m", SLEEP, &gpu("{ count: 1 }")))
        .await
        .expect_err("no GPU");
    assert_eq!(refused.code, "mode_unavailable");
    assert!(
        refused
            .message
            .contains("a GPU is required, and none can be seen"),
        "{refused}"
    );
    let wish = gpu("{ count: 1, required: false }");
    lair.sh("wish", SLEEP, &wish).await;
    assert_eq!(lair.wait("wish", WaitFor::Ready).await.resources.gpu, []);
    assert_eq!(
        env(&lair, "wish", "CUDA_VISIBLE_DEVICES").as_deref(),
        Some("")
    );
    // It works again, and is asked again.
    driver.set(&cards(1));
    assert!(report(&lair).await.available);
    lair.end().await;

    let lair = Lair::start_with("x8-absent", |options| {
        let path = "/nonexistent/libnvidia-ml.so.1".try_into().expect("a path");
        options.config.gpu.nvml = lair::manifests::nvml::Nvml::At(path);
    })
    .await;
    let told = report(&lair).await;
    assert!(told.reason.is_some_and(|why| why.contains("/nonexistent")));
    lair.sh("plain", SLEEP, "").await;
    lair.wait("plain", WaitFor::Ready).await;
    lair.end().await;
}

/// D4
#[tokio::test]
async fn a_demand_that_no_gpu_meets_is_refused_with_what_is_missing() {
    let driver = Driver::with(&format!("gpu GPU-0 {0} {1}\n", 8 * GIB, 3 * GIB));
    let lair = with(&driver, "d4").await;
    for (ask, why) in [
        ("{ count: 2 }", "2 GPU wanted; 1 here"),
        (
            "{ count: 1, vram: 6GiB }",
            "0 of them with enough free memory",
        ),
        (
            "{ devices: [GPU-7] }",
            "GPU GPU-7 is required, and not here",
        ),
    ] {
        let refused = lair.load(&sh("m", SLEEP, &gpu(ask))).await.expect_err(ask);
        assert_eq!(refused.code, "mode_unavailable");
        assert!(refused.message.contains(why), "{refused}");
    }
    lair.end().await;
}

#[tokio::test]
async fn each_process_on_a_gpu_has_an_owner_ours_by_module_and_strangers_by_name() {
    let driver = Driver::cards(1);
    let lair = with(&driver, "owners").await;
    lair.sh(
        "m",
        SLEEP,
        &gpu("{ count: 1, vram: 4GiB, required: false }"),
    )
    .await;
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    let is_sleep =
        || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
    support::eventually("the shell has become sleep", is_sleep).await;
    let stranger = i32::try_from(std::process::id()).expect("a pid");
    let used = format!("gpu GPU-0 {} {}\n", 8 * GIB, 3 * GIB);
    driver.set(&proc(&used, &[(0, pid, GIB), (0, stranger, 2 * GIB)]));
    let card = card(&lair, 0).await;
    let owner = |pid| {
        card.processes
            .iter()
            .find(|p| p.pid == pid)
            .expect("a process")
    };
    let (ours, theirs) = (owner(pid), owner(stranger));
    assert_eq!(
        (ours.owner.as_str(), ours.module.as_deref(), ours.run),
        ("module", Some("m"), Some(1))
    );
    assert_eq!(
        (ours.memory, ours.name.as_deref()),
        (Some(GIB), Some("sleep"))
    );
    assert_eq!((theirs.owner.as_str(), &theirs.module), ("stranger", &None));
    let comm = std::fs::read_to_string("/proc/self/comm").expect("a name");
    assert_eq!(theirs.name.as_deref(), Some(comm.trim()));
    assert_eq!(card.memory.strangers, Some(2 * GIB));
    // 8 - 2 of strangers - the 4 that it declared.
    assert_eq!(card.memory.room, Some(2 * GIB as i64));
    let share = &card.modules[0];
    assert_eq!((share.module.as_str(), share.vram), ("m", Some(4 * GIB)));
    lair.until("m", "on its GPU", |m| {
        m.resources.gpu
            == [Gpu {
                uuid: "GPU-0".into(),
                vram: Some(4 * GIB),
                memory: Some(GIB),
                in_use: Some(true),
            }]
    })
    .await;
    driver.set(&cards(1));
    lair.end().await;
}

#[tokio::test]
async fn a_gpu_is_one_modules_alone_and_the_next_one_gets_another() {
    let driver = Driver::cards(2);
    let lair = with(&driver, "alone").await;
    let ask = gpu("{ count: 1, required: false }");
    for name in ["a", "b"] {
        lair.sh(name, SLEEP, &ask).await;
        lair.wait(name, WaitFor::Ready).await;
    }
    let given = |name: &str| env(&lair, name, "CUDA_VISIBLE_DEVICES").expect("a list");
    assert_eq!([given("a"), given("b")], ["GPU-0", "GPU-1"]);
    assert_eq!(
        env(&lair, "a", "CUDA_DEVICE_ORDER").as_deref(),
        Some("PCI_BUS_ID")
    );
    // What runs keeps what it was given, whoever asks for the same file again.
    let again = lair.load(&sh("b", SLEEP, &ask)).await.expect("the same");
    assert_eq!(again[0].1, lair::actors::messages::Loaded::Same);

    lair.load(&sh("c", SLEEP, &gpu("{ devices: [1], required: false }")))
        .await
        .expect("a load");
    let refused = lair.handle.start("c", asker()).await.expect_err("taken");
    assert_eq!(refused.code, "overcommitted");
    assert_eq!(
        refused.message,
        "`c` doesn't fit: it asks for GPU GPU-1 alone: b has it alone"
    );
    assert_eq!(
        refused.help.as_deref(),
        Some("stop b to make room, then start it again")
    );
    assert_eq!(lair.status("c").run, 0);
    lair.stop("b").await;
    lair.handle
        .start("c", asker())
        .await
        .expect("there is room");
    lair.wait("c", WaitFor::Ready).await;
    lair.end().await;
}

#[tokio::test]
async fn a_gpu_is_shared_by_declared_memory_up_to_what_strangers_and_reserve_leave() {
    let driver = Driver::with(&format!("gpu GPU-0 {} {}\n", 8 * GIB, GIB));
    let nvml = driver.nvml();
    let lair = Lair::start_with("shared", |options| {
        options.config.gpu.nvml = nvml;
        let text = "runtime:\n  gpu: { reserve: 1GiB }\n";
        let source = lair::manifests::Source::of_text("c", text, std::path::Path::new("/"));
        let config = lair::manifests::parse_config(&source).expect("a configuration");
        options.config.gpu.reserve = config.gpu.reserve;
    })
    .await;
    let share = |vram: &str| gpu(&format!("{{ count: 1, vram: {vram}, required: false }}"));
    lair.sh("a", SLEEP, &share("3GiB")).await;
    lair.sh("b", SLEEP, &share("2GiB")).await;
    lair.load(&sh("c", SLEEP, &share("2GiB")))
        .await
        .expect("a load");
    let refused = lair.handle.start("c", asker()).await.expect_err("too much");
    assert_eq!(
        refused.message,
        "`c` doesn't fit: it asks for 2GiB of memory of GPU GPU-0: capacity 8GiB - reserve 1GiB - strangers 1GiB - a 3GiB - b 2GiB = 1GiB"
    );
    assert_eq!(
        refused.help.as_deref(),
        Some("stop b to make room, then start it again")
    );
    lair.end().await;
}

#[tokio::test]
async fn a_module_that_requires_a_gpu_and_is_not_on_it_is_unhealthy_until_it_is() {
    let driver = Driver::cards(1);
    let lair = with(&driver, "required").await;
    let more = format!("{}\n  health: {{ {READY} }}", gpu("{ count: 1 }"));
    lair.sh("m", SLEEP, &more).await;
    let status = lair
        .until("m", "found missing", |m| {
            let reason = m.health.reason.as_deref().unwrap_or_default();
            reason.starts_with("gpu-not-in-use: ")
        })
        .await;
    assert_eq!(
        status.health.state,
        lair::actors::view::HealthWord::Unhealthy
    );
    assert_eq!(
        status.state, "running",
        "by default it is told, and left alone"
    );
    assert!(lair.count("m", "health") > 0);
    let pid = status.pid.expect("a pid");
    driver.set(&proc(&cards(1), &[(0, pid, GIB)]));
    lair.until("m", "on it", |m| {
        m.health.state == lair::actors::view::HealthWord::Healthy
    })
    .await;
    driver.set(&cards(1));
    lair.end().await;
}

#[tokio::test]
async fn where_a_failed_liveness_restarts_so_does_a_gpu_that_is_not_used() {
    let driver = Driver::cards(1);
    let lair = with(&driver, "restarts").await;
    let live = "liveness: { command: [/bin/true], on_failure: restart }";
    let restart = "restart: { policy: on-failure, max: 1, within: 1h, backoff: { first: 10ms } }";
    let ask = gpu("{ count: 1 }");
    lair.sh(
        "m",
        SLEEP,
        &format!("{ask}\n  health: {{ {READY}, {live} }}\n  {restart}"),
    )
    .await;
    let down = lair.until("m", "given up", |m| m.state == "failed").await;
    assert_eq!(down.run, 2);
    assert_eq!(down.reason.expect("a reason").code, "gave_up");
    lair.end().await;
}

#[tokio::test]
async fn gpu_memory_that_is_not_back_after_a_stop_is_named_and_stays_in_the_account() {
    let driver = Driver::cards(1);
    let lair = with(&driver, "leftover").await;
    lair.sh("m", SLEEP, &gpu("{ count: 1, vram: 5GiB }")).await;
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    driver.set(&proc(&cards(1), &[(0, pid, 2 * GIB)]));
    assert_eq!(
        card(&lair, 0).await.processes[0].module.as_deref(),
        Some("m")
    );
    let down = lair.stop("m").await;
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.code, "stop_incomplete");
    assert_eq!(
        reason.evidence,
        [format!("GPU GPU-0: pid {pid} still has 2GiB")]
    );
    let left = card(&lair, 0).await;
    assert_eq!(
        (left.processes[0].owner.as_str(), left.processes[0].run),
        ("left_behind", Some(1))
    );
    assert!(left.modules[0].left_behind);
    lair.load(&sh(
        "n",
        SLEEP,
        &gpu("{ count: 1, vram: 4GiB, required: false }"),
    ))
    .await
    .expect("a load");
    let refused = lair.handle.start("n", asker()).await.expect_err("held");
    assert!(
        refused.message.contains("- m 5GiB (left behind)"),
        "{refused}"
    );

    // It is back: the module itself may start, and its clean stop returns the claim.
    driver.set(&cards(1));
    lair.handle.start("m", asker()).await.expect("a start");
    lair.wait("m", WaitFor::Ready).await;
    assert_eq!(lair.stop("m").await.state, "stopped");
    lair.handle
        .start("n", asker())
        .await
        .expect("there is room");
    lair.end().await;
}

#[tokio::test]
async fn gpu_memory_that_comes_back_a_moment_later_is_waited_for() {
    let driver = Driver::cards(1);
    let lair = with(&driver, "moment").await;
    lair.sh("m", SLEEP, &gpu("{ count: 1, required: false }"))
        .await;
    let pid = lair.wait("m", WaitFor::Ready).await.pid.expect("a pid");
    driver.set(&proc(&cards(1), &[(0, pid, GIB)]));
    assert_eq!(
        card(&lair, 0).await.processes[0].module.as_deref(),
        Some("m")
    );
    lair.handle.stop("m", None, asker()).await.expect("a stop");
    support::eventually("the process is gone", || !support::is_alive(pid)).await;
    let early = lair
        .handle
        .wait("m", WaitFor::Stopped, Some(Duration::from_millis(500)))
        .await;
    assert_eq!(early.expect_err("its memory is not back").code, "timeout");
    driver.set(&cards(1));
    let down = lair.wait("m", WaitFor::Stopped).await;
    assert_eq!(
        (down.state.as_str(), down.reason.map(|r| r.code)),
        ("stopped", None)
    );
    lair.end().await;
}

#[tokio::test]
async fn a_driver_that_hangs_holds_nobody_up() {
    let driver = Driver::cards(1);
    let lair = with(&driver, "hangs").await;
    let ask = gpu("{ count: 1, required: false }");
    lair.sh("m", SLEEP, &ask).await;
    lair.wait("m", WaitFor::Ready).await;
    driver.set(&format!("{}hang\n", cards(1)));
    let told = report(&lair).await;
    assert_eq!(
        told.reason.as_deref(),
        Some("the driver does not answer within 5s")
    );
    // Status, other modules, and the next question go on.
    let asked = std::time::Instant::now();
    assert_eq!(lair.status("m").state, "running");
    assert!(asked.elapsed() < Duration::from_secs(1));
    lair.sh("plain", SLEEP, "").await;
    lair.wait("plain", WaitFor::Ready).await;
    driver.set(&cards(1));
    assert!(report(&lair).await.available);
    lair.end().await;
}
