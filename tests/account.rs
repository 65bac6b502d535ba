//! No overcommitment: what is granted, what is refused with its sum, and what a plan says before.

mod face;
mod support;

use lair::manifests::{Source, parse_config};
use lair::supervision::account::size;
use lair::supervision::{ChildId, Pool};
use lair::{LoadOptions, ManifestSource, RuntimeOptions, WaitFor};
use serde_json::{Value, json};
use std::path::Path;
use support::{Lair, asker, sh};

const SLEEP: &str = "exec sleep 1000";
const MIB: u64 = 1 << 20;

/// As if the configuration had these keys below `memory:`.
fn memory(options: &mut RuntimeOptions, keys: &str) {
    let text = format!("runtime:\n  memory: {{ {keys} }}\n");
    let source = Source::of_text("config.yaml", &text, Path::new("/"));
    options.config.memory = parse_config(&source).expect("a configuration").memory;
}

async fn with(name: &str, keys: &str) -> Lair {
    Lair::start_with(name, |options| memory(options, keys)).await
}

fn limit(limit: &str) -> String {
    format!("  resources: {{ memory: {limit} }}")
}

async fn refused(lair: &Lair, name: &str) -> lair::Refused {
    lair.handle
        .start(name, asker())
        .await
        .expect_err("a refusal")
}

#[tokio::test]
async fn a_start_that_does_not_fit_is_refused_with_its_sum_and_whose_stop_would_make_room() {
    let lair = with("sum", "budget: 100MiB").await;
    lair.sh("small", SLEEP, &limit("30MiB")).await;
    lair.sh("large", SLEEP, &limit("50MiB")).await;
    lair.wait("large", WaitFor::Ready).await;
    lair.load(&sh("m", SLEEP, &limit("40MiB")))
        .await
        .expect("a load");
    let refused = refused(&lair, "m").await;
    assert_eq!(refused.code, "overcommitted");
    assert_eq!(
        refused.message,
        "`m` doesn't fit: it asks for 40MiB of memory: budget 100MiB - large 50MiB - small 30MiB = 20MiB"
    );
    assert_eq!(
        refused.help.as_deref(),
        Some("stop small to make room, then start it again")
    );
    let shortage = &refused.data["shortage"];
    assert_eq!(shortage["short"][0]["sum"]["room"], 20 * MIB);
    assert_eq!(shortage["stop"], json!(["small"]));
    // Nothing was done: no run, no event, no squeeze.
    assert_eq!((lair.status("m").run, lair.count("m", "starting")), (0, 0));
    assert_eq!(lair.status("large").state, "running");
    lair.stop("small").await;
    lair.handle
        .start("m", asker())
        .await
        .expect("there is room now");
    lair.wait("m", WaitFor::Ready).await;
    lair.end().await;
}

#[tokio::test]
async fn more_than_the_machine_has_is_refused_without_any_configuration() {
    let lair = Lair::start("machine").await;
    lair.load(&sh("m", SLEEP, &limit("900TiB")))
        .await
        .expect("a load");
    let refused = refused(&lair, "m").await;
    assert_eq!(refused.code, "overcommitted");
    let total = lair::actors::facts::host().memory_total.expect("a size");
    let sum = format!(
        "it asks for 900TiB of memory: capacity {} - strangers ",
        size(total)
    );
    assert!(refused.message.contains(&sum), "{refused}");
    assert!(
        refused
            .help
            .as_deref()
            .is_some_and(|h| h.starts_with("not even stopping all"))
    );
    lair.end().await;
}

#[tokio::test]
async fn a_restart_keeps_what_was_granted_and_a_proven_end_returns_it() {
    let lair = with("keeps", "budget: 64MiB").await;
    let restart =
        "restart: { policy: always, max: 5, within: 1h, backoff: { first: 1h, cap: 1h } }";
    lair.sh("m", "exit 1", &format!("{}\n  {restart}", limit("48MiB")))
        .await;
    lair.until("m", "waiting", |m| m.state == "backoff").await;
    lair.load(&sh("n", SLEEP, &limit("32MiB")))
        .await
        .expect("a load");
    let message = refused(&lair, "n").await.message;
    assert!(
        message.ends_with("budget 64MiB - m 48MiB = 16MiB"),
        "{message}"
    );
    // A new run of the same module asks for nothing more.
    lair.handle
        .restart("m", None, asker())
        .await
        .expect("a restart");
    lair.until("m", "waiting again", |m| m.run > 1 && m.state == "backoff")
        .await;
    lair.stop("m").await;
    lair.handle
        .start("n", asker())
        .await
        .expect("it is returned");
    let pid = lair.wait("n", WaitFor::Ready).await.pid.expect("a pid");
    assert_eq!(refused(&lair, "m").await.code, "overcommitted");
    // A crash returns it, too.
    support::signal(pid, 9);
    lair.wait("n", WaitFor::Stopped).await;
    lair.handle
        .start("m", asker())
        .await
        .expect("it is returned");
    lair.until("m", "waiting", |m| m.state == "backoff").await;
    lair.end().await;
}

#[tokio::test]
async fn a_failed_start_and_an_unload_return_what_was_granted() {
    let lair = with("returned", "budget: 64MiB").await;
    let manifest = "name: m\nruntime:\n  native: { command: [/bin/true], workdir: /nonexistent }\n  resources: { memory: 64MiB }\n";
    lair.load(manifest).await.expect("a load");
    for _ in 0..2 {
        lair.handle.start("m", asker()).await.expect("granted");
        lair.until("m", "failed", |m| m.state == "failed").await;
    }
    lair.handle.unload("m", asker()).await.expect("an unload");
    lair.sh("n", SLEEP, &limit("64MiB")).await;
    lair.wait("n", WaitFor::Ready).await;
    lair.end().await;
}

#[tokio::test]
async fn a_module_without_a_limit_counts_for_what_it_is_seen_to_use() {
    let lair = with("measured", "budget: 200MiB").await;
    let hog = "exec perl -e '$| = 1; my $x = chr(1) x (96 << 20); print qq(full\\n); sleep 1000'";
    lair.sh(
        "hog",
        hog,
        "  health: { startup: { log: { pattern: full }, interval: 50ms } }",
    )
    .await;
    lair.wait("hog", WaitFor::Ready).await;
    lair.load(&sh("m", SLEEP, &limit("128MiB")))
        .await
        .expect("a load");
    let refused = refused(&lair, "m").await;
    let sum = &refused.data["shortage"]["short"][0]["sum"];
    let charge = &sum["charges"][0];
    let seen = charge["seen"].as_u64().expect("a measure");
    assert_eq!(
        (&charge["id"], &charge["declared"]),
        (&json!("hog"), &Value::Null)
    );
    assert!((96 * MIB..200 * MIB).contains(&seen), "{seen}");
    assert_eq!(
        sum["room"].as_u64(),
        Some(200 * MIB - seen),
        "the sum adds up"
    );
    assert!(refused.message.contains(" (measured) = "), "{refused}");
    // And where nothing is left by the rules, a module without a limit is refused as well.
    lair.stop("hog").await;
    lair.sh("full", SLEEP, &limit("200MiB")).await;
    let message = self::refused(&lair, "hog").await.message;
    assert_eq!(
        message,
        "`hog` doesn't fit: it declares no memory limit, and nothing is left: budget 200MiB - full 200MiB = 0B"
    );
    lair.end().await;
}

#[tokio::test]
async fn many_who_ask_at_once_get_no_more_than_there_is() {
    let lair = with("crowd", "budget: 100MiB").await;
    let names: Vec<String> = (0..12).map(|n| format!("m{n}")).collect();
    for name in &names {
        lair.load(&sh(name, SLEEP, &limit("30MiB")))
            .await
            .expect("a load");
    }
    let asked = names.iter().map(|name| {
        let (handle, name) = (lair.handle.clone(), name.clone());
        tokio::spawn(async move { handle.start(&name, asker()).await.is_ok() })
    });
    let mut granted = 0;
    for asked in asked.collect::<Vec<_>>() {
        granted += usize::from(asked.await.expect("an answer"));
    }
    assert_eq!(granted, 3, "three times 30 fit into 100");
    lair.end().await;
}

#[tokio::test]
async fn a_plan_tells_mode_limits_ports_and_the_sums_and_changes_nothing() {
    let lair = with("plan", "budget: 100MiB, reserve: 1MiB").await;
    lair.sh("a", SLEEP, &limit("40MiB")).await;
    let more = "  resources: { memory: 50MiB, cpus: 1.5, pids: 64 }\n  ports: { api: 18123 }";
    let source = |text: String| ManifestSource::Text {
        text,
        dir: None,
        trusted: true,
    };
    let plan = async |text| {
        lair.handle
            .plan(source(text), LoadOptions::default())
            .await
            .expect("a plan")
    };
    let told = plan(sh("b", SLEEP, more)).await;
    let b = &told.modules[0];
    assert!(told.pending && told.fits);
    assert_eq!((b.change.as_str(), b.mode.as_str()), ("load", "native"));
    assert!(
        b.explanation
            .iter()
            .any(|line| line.starts_with("choice: native")),
        "{:?}",
        b.explanation
    );
    assert_eq!(
        (b.limits.memory, b.limits.cpu_milli, b.limits.pids),
        (Some(50 * MIB), Some(1500), Some(64))
    );
    assert_eq!(
        (b.ports[0].port, b.ports[0].held_by.as_ref()),
        (18123, None)
    );
    let sum = &told.sums[0];
    assert_eq!(sum.before.text, "budget 100MiB - a 40MiB = 60MiB");
    assert_eq!(sum.after.text, "budget 100MiB - a 40MiB - b 50MiB = 10MiB");
    assert_eq!(
        lair.handle
            .status("b")
            .expect_err("nothing was loaded")
            .code,
        "unknown_module"
    );

    // Two modules of a file are judged one after the other.
    let stack = format!(
        "modules:\n  - {}\n  - {}\n",
        entry("b", "50MiB"),
        entry("c", "20MiB")
    );
    let told = plan(stack).await;
    assert!(!told.fits);
    let refused = told.modules[1].refused.as_ref().expect("c doesn't fit");
    assert_eq!(refused.code, "overcommitted");
    assert!(
        refused
            .message
            .ends_with("budget 100MiB - a 40MiB - b 50MiB = 10MiB"),
        "{}",
        refused.message
    );
    lair.end().await;
}

fn entry(name: &str, memory: &str) -> String {
    format!(
        "{{ name: {name}, runtime: {{ native: {{ command: [/bin/sleep, \"1000\"] }}, resources: {{ memory: {memory} }} }} }}"
    )
}

#[test]
fn plan_and_start_say_by_their_exit_codes_what_fits_and_what_would_change() {
    let lair = face::Lair::folder();
    let config = lair.dir.join("config.yaml");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, text + "  memory: { budget: 64MiB }\n").expect("a configuration");
    let small = lair.module("small", face::SLEEPER, "  resources: { memory: 48MiB }\n");
    let large = lair.module("large", face::SLEEPER, "  resources: { memory: 32MiB }\n");
    let word = |path: &Path| path.display().to_string();
    // Without a daemon, as this user would run it.
    let (code, page) = lair.ask(&["plan", &word(&small)]);
    assert_eq!(code, 8, "{page}");
    assert!(page.contains("small would be loaded and started"), "{page}");
    assert!(
        page.contains(
            "  before: budget 64MiB = 64MiB\n   after: budget 64MiB - small 48MiB = 16MiB\n"
        ),
        "{page}"
    );

    let lair = lair.serve(&[]);
    assert_eq!(lair.ask(&["plan", &word(&small)]).0, 8);
    assert_eq!(lair.ask(&["start", "small", "--wait=ready"]).0, 0);
    let (code, page) = lair.ask(&["plan", &word(&small)]);
    assert_eq!(code, 0, "{page}");
    assert!(page.contains("small nothing changes"), "{page}");
    let (code, page) = lair.ask(&["plan", &word(&large)]);
    assert_eq!(code, 5, "{page}");
    assert!(
        page.contains("large 32MiB")
            || page.contains(
                "it asks for 32MiB of memory: budget 64MiB - small 48MiB = 16MiB [overcommitted]"
            ),
        "{page}"
    );
    let (code, json) = lair.ask(&["plan", &word(&large), "-o", "json"]);
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (
            code,
            &report["fits"],
            &report["modules"][0]["refused"]["code"]
        ),
        (5, &json!(false), &json!("overcommitted"))
    );
    let over = lair
        .connect()
        .ok("runtime.plan", json!({ "path": word(&large) }));
    assert_eq!(
        over["modules"], report["modules"],
        "the bridge says the same"
    );

    let out = lair.lair(&["start", "large"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(5), "{said}");
    assert!(
        said.contains("error[overcommitted]: `large` doesn't fit"),
        "{said}"
    );
    assert!(said.contains("help: stop small to make room"), "{said}");
    let (code, page) = lair.ask(&["gpus"]);
    assert_eq!(code, 0);
    assert!(
        page.starts_with("no GPU can be seen: ") || page.starts_with("GPU"),
        "{page}"
    );
    let gpus = lair.connect().ok("runtime.gpus", json!({}));
    assert!(gpus["available"].is_boolean(), "{gpus}");
}

#[tokio::test]
async fn the_account_knows_the_claims_of_those_that_run_and_of_no_other() {
    let lair = with("known", "budget: 1GiB").await;
    let granted = || lair.handle.account().granted(&Pool::Memory);
    lair.sh("a", SLEEP, &limit("256MiB")).await;
    lair.sh("b", SLEEP, &limit("512MiB")).await;
    assert_eq!(granted(), 768 * MIB);
    lair.stop("a").await;
    assert_eq!(granted(), 512 * MIB);
    assert!(lair.handle.account().held(&ChildId::new("b")).is_some());
    lair.stop("b").await;
    assert_eq!(granted(), 0);
    lair.end().await;
}
