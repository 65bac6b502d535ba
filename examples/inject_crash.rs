//! Rehearsing a crash: a scripted module, a clock that stands still, and a fault on purpose, in thirty lines.
//!
//! `cargo run --example inject_crash`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use lair::supervision::ChildId;
use lair::testing::{Fault, Simulation};
use std::time::Duration;

const MANIFEST: &str = r#"
name: engine
category: service
version: 0.1.0
description: is never run here
runtime:
  modes: [native]
  native: { command: [/bin/sh] }
  restart: { policy: on-failure, max: 3, within: 1m, backoff: { first: 10s } }
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let lair = Simulation::builder().seed(1).faults().start().await?;
    lair.load(MANIFEST).await?;
    lair.start("engine").await?;
    let id = ChildId::new("engine");
    let fault = Fault::CrashChild { id, signal: 11 };
    lair.handle()
        .inject(fault, "drill", Simulation::origin())
        .await?;
    lair.settle().await;
    println!("{}", lair.handle().status("engine")?.state); // backoff
    lair.advance(Duration::from_secs(15)).await; // takes no time
    println!("{}", lair.handle().status("engine")?.state); // running
    for notice in lair.notices() {
        println!(
            "{:>9.3} s {:?} {:?}",
            notice.at.0.as_secs_f64(),
            notice.origin,
            notice.kind
        );
    }
    lair.check()?;
    Ok(())
}
