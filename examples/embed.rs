//! Embedding: one module under a supervision tree of your own program, in thirty lines.
//!
//! `cargo run --example embed`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use lair::supervision::Origin;
use lair::{Folders, LoadOptions, ManifestSource, Runtime, RuntimeOptions, WaitFor};
use std::time::Duration;

const MANIFEST: &str = r#"
name: greeter
category: service
version: 0.1.0
description: says hello and waits
runtime:
  modes: [native]
  native: { command: [/bin/sh, -c, "echo hello from a module; exec sleep 1000"] }
  stop: { grace: 2s }
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lair::hijack(); // this program is also the keeper of its modules
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        let home = std::env::temp_dir().join(format!("lair-embed-{}", std::process::id()));
        let options = RuntimeOptions::new(Default::default(), Folders::below(&home));
        let runtime = Runtime::start(options).await?;
        let lair = runtime.handle().clone();
        let me = || Origin::Requested {
            peer: "host".into(),
        };

        let source = ManifestSource::Text {
            text: MANIFEST.into(),
            dir: None,
            trusted: true,
        };
        lair.load(source, LoadOptions::default(), me()).await?;
        lair.start("greeter", me()).await?;
        let status = lair
            .wait("greeter", WaitFor::Ready, Some(Duration::from_secs(5)))
            .await?;
        println!(
            "{} is {} as pid {:?}",
            status.name, status.state, status.pid
        );

        lair.stop("greeter", None, me()).await?;
        let status = lair.wait("greeter", WaitFor::Stopped, None).await?;
        println!("{}", serde_json::to_string_pretty(&status)?);
        println!("{:?}", runtime.shutdown(Duration::from_secs(5)).await);
        std::fs::remove_dir_all(home)?;
        Ok(())
    })
}
