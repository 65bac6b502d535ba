//! GPUs in containers, on engines as they are and with a driver, a CDI specification and a hook made up by the tests: a container
//! has the GPU that it was given, or it does not run.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Driver, GIB};
use lair::WaitFor;
use lair::actors::backend::container::find::EnginePlaces;
use lair::actors::view::HealthWord;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use support::contained::{OwnEngine, end, places, sh, start, up};
use support::engines::Kind;
use support::{Home, Lair};

/// Says what it has, and stays.
const LOOK: &str = "echo gpu=$LAIR_FAKE_GPU nvidia=$NVIDIA_VISIBLE_DEVICES order=$CUDA_DEVICE_ORDER; [ -c /dev/fakegpu0 ] && echo node; exec sleep 1000";
const ONE: &str = "  resources: { gpu: { count: 1 } }\n  health: { readiness: { command: [/bin/true], interval: 50ms } }\n  restart: { policy: permanent }";

/// A machine with one GPU that no other has.
struct Machine {
    driver: Driver,
    uuid: String,
}

impl Machine {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let uuid = format!("GPU-lair-test-{}-{n}", std::process::id());
        let driver = Driver::with(&format!("gpu {uuid} {} 0\n", 8 * GIB));
        Machine { driver, uuid }
    }

    async fn lair(&self, story: &str, places: EnginePlaces) -> Lair {
        let nvml = self.driver.nvml();
        Lair::start_with(story, |options| {
            options.config.gpu.nvml = nvml;
            options.engines = Some(places);
        })
        .await
    }

    /// The GPU has this process on it.
    fn uses(&self, pid: Option<i32>) {
        let process = pid.map(|pid| format!("proc 0 {pid} {GIB}\n"));
        let gpu = format!("gpu {} {} 0\n", self.uuid, 8 * GIB);
        self.driver.set(&(gpu + &process.unwrap_or_default()));
    }
}

/// A specification as `nvidia-ctk` writes one, of this GPU: a variable and a device node that does no harm.
struct Specification(PathBuf);

impl Specification {
    fn of(machine: &Machine) -> Self {
        // Podman 4 looks nowhere else but in /etc/cdi.
        let dir = Path::new("/var/run/cdi");
        std::fs::create_dir_all(dir).expect("only root can make a CDI specification");
        let device = serde_json::json!({
            "name": machine.uuid,
            "containerEdits": {
                "env": [format!("LAIR_FAKE_GPU={}", machine.uuid)],
                "deviceNodes": [{ "path": "/dev/fakegpu0", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3, "permissions": "rw" }],
            },
        });
        let all = serde_json::json!({ "cdiVersion": "0.3.0", "kind": "nvidia.com/gpu", "devices": [device] });
        let path = dir.join(format!("{}.json", machine.uuid));
        std::fs::write(&path, all.to_string()).expect("a specification");
        Specification(path)
    }
}

impl Drop for Specification {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // Only where nobody else has one.
        let _ = std::fs::remove_dir("/var/run/cdi");
    }
}

fn by_command(program: PathBuf) -> EnginePlaces {
    EnginePlaces {
        cli: vec![program],
        ..EnginePlaces::default()
    }
}

async fn says(lair: &Lair, line: &str) {
    let what = format!("it says {line}");
    let so = || String::from_utf8_lossy(&lair.output("m", "stdout")).contains(line);
    support::eventually(&what, so).await;
}

async fn it_has_its_gpu_and_others_have_none(story: &str, places: EnginePlaces) {
    let machine = Machine::new();
    let _specification = Specification::of(&machine);
    let lair = machine.lair(story, places).await;
    let pid = up(&lair, "m", &sh("m", LOOK, ONE)).await;
    says(&lair, &format!("gpu={}", machine.uuid)).await;
    says(&lair, "order=PCI_BUS_ID\nnode\n").await;
    // The driver's list decides whether it is on it.
    let lacks = |s: &lair::actors::status::ModuleStatus| {
        let reason = s.health.reason.as_deref().unwrap_or_default();
        reason.starts_with("gpu-not-in-use")
    };
    lair.until("m", "not on its GPU", lacks).await;
    machine.uses(Some(pid));
    let on = |s: &lair::actors::status::ModuleStatus| s.health.state == HealthWord::Healthy;
    let status = lair.until("m", "on its GPU", on).await;
    assert_eq!(status.resources.gpu[0].uuid, machine.uuid);
    assert_eq!(status.resources.gpu[0].in_use, Some(true));
    let owner = lair.handle.gpus().await.expect("a report").gpus.remove(0);
    assert_eq!(owner.processes[0].module.as_deref(), Some("m"));

    up(&lair, "plain", &sh("plain", LOOK, "")).await;
    // It says no more before it rests: what it has said is whole.
    support::eventually("it has looked", || {
        lair.output("plain", "stdout").ends_with(b"order=\n")
    })
    .await;
    let other = String::from_utf8_lossy(&lair.output("plain", "stdout")).into_owned();
    assert_eq!(other, "gpu= nvidia=void order=\n", "no variable, no node");
    machine.uses(None);
    end(lair, |args| Kind::Podman.cli(args)).await;
}

#[tokio::test]
async fn a_container_of_podmans_has_its_gpu_by_cdi_and_others_have_none() {
    let by = places(Kind::Podman, Kind::Podman.socket());
    it_has_its_gpu_and_others_have_none("gpu-podman", by).await;
}

#[tokio::test]
async fn a_container_of_podmans_command_has_its_gpu_by_cdi_and_others_have_none() {
    let by = by_command(Kind::Podman.program());
    it_has_its_gpu_and_others_have_none("gpu-podman-command", by).await;
}

/// Podman under Docker's name takes `--gpus` and leaves it out.
#[tokio::test]
async fn podman_under_dockers_name_is_known_and_hands_the_gpu_in() {
    let home = Home::new("gpu-name");
    let program = home.path().join("docker");
    std::os::unix::fs::symlink(Kind::Podman.program(), &program).expect("a link");
    it_has_its_gpu_and_others_have_none("gpu-docker-is-podman", by_command(program)).await;
}

async fn without_its_gpu_it_does_not_run(
    story: &str,
    places: EnginePlaces,
    (code, step): (&str, &str),
    ask: impl Fn(&[&str]) -> String,
) {
    let machine = Machine::new();
    let lair = machine.lair(story, places).await;
    start(&lair, "m", &sh("m", LOOK, ONE)).await;
    let down = lair.wait("m", WaitFor::Stopped).await;
    let reason = down.reason.expect("a reason");
    assert_eq!(reason.code, "start_failed", "{reason:?}");
    let words = serde_json::to_string(&reason).expect("a reason");
    assert!(words.contains(code) && words.contains(step), "{words}");
    assert_eq!(lair.count("m", "starting"), 1, "trying again can't help");
    assert_eq!(lair.output("m", "stdout"), b"", "it never ran");
    let report = lair.handle.gpus().await.expect("a report");
    assert!(report.gpus[0].modules.is_empty(), "its claim is back");
    end(lair, ask).await;
}

const CDI: (&str, &str) = ("device_missing", "nvidia-ctk cdi generate");
const HOOK: (&str, &str) = ("device_missing", "nvidia-ctk runtime configure");

#[tokio::test]
async fn without_a_cdi_specification_podman_starts_nothing_and_the_next_step_is_said() {
    let kind = Kind::Podman;
    let by = places(kind, kind.socket());
    without_its_gpu_it_does_not_run("no-cdi", by, CDI, |a| kind.cli(a)).await;
    let by = by_command(kind.program());
    without_its_gpu_it_does_not_run("no-cdi-command", by, CDI, |a| kind.cli(a)).await;
}

#[tokio::test]
async fn without_nvidias_hook_docker_starts_nothing_and_the_next_step_is_said() {
    let kind = Kind::Docker;
    let by = places(kind, kind.socket());
    without_its_gpu_it_does_not_run("no-hook", by, HOOK, |a| kind.cli(a)).await;
    let by = by_command(kind.program());
    without_its_gpu_it_does_not_run("no-hook-command", by, HOOK, |a| kind.cli(a)).await;
}

/// There a request for devices is taken, and left out.
#[tokio::test]
async fn podman_behind_a_docker_socket_starts_nothing_with_a_gpu() {
    let by = places(Kind::Docker, Kind::Podman.socket());
    let told = ("engine_unsupported", "CONTAINER_HOST");
    let ask = |args: &[&str]| Kind::Podman.cli(args);
    without_its_gpu_it_does_not_run("podman-as-docker", by, told, ask).await;
}

/// A Docker of its own that finds NVIDIA's hook, which writes down the variables of the container that it is called for.
#[tokio::test]
async fn docker_calls_nvidias_hook_for_the_gpu_that_was_given_and_for_no_other_container() {
    let home = Home::new("gpu-hook");
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    let called = home.path().join("called");
    let hook = bin.join("nvidia-container-runtime-hook");
    let text = format!("#!/bin/sh\necho \"$1\" >>{}\n", called.display());
    std::fs::write(&hook, text).expect("a hook");
    std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).expect("a mode");
    let path = std::env::var("PATH").expect("a path");
    let with = |command: &mut Command| {
        command.env("PATH", format!("{}:{path}", bin.display()));
    };
    let docker = OwnEngine::start_with(Kind::Docker, home.path(), with);
    let machine = Machine::new();
    let by = places(Kind::Docker, docker.socket());
    let lair = machine.lair("gpu-docker", by).await;
    up(&lair, "plain", &sh("plain", LOOK, "")).await;
    let plain = String::from_utf8_lossy(&lair.output("plain", "stdout")).into_owned();
    assert_eq!(plain, "gpu= nvidia=void order=\n");
    assert!(!called.exists(), "nobody asked for a GPU");
    let pid = up(&lair, "m", &sh("m", LOOK, ONE)).await;
    machine.uses(Some(pid));
    says(&lair, &format!("nvidia={} order=PCI_BUS_ID", machine.uuid)).await;
    let said = std::fs::read_to_string(&called).expect("it was called");
    assert_eq!(said, "prestart\n");
    let on = |s: &lair::actors::status::ModuleStatus| s.health.state == HealthWord::Healthy;
    lair.until("m", "on its GPU", on).await;
    machine.uses(None);
    end(lair, |args| docker.ask(args)).await;
}
