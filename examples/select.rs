//! Which mode would it be, and why? The choice is a function of what it is given, and explains itself.
//!
//! `cargo run --example select`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use lair::manifests::config::RuntimeConfig;
use lair::manifests::facts::{EngineFacts, ProgramFacts};
use lair::manifests::{HostFacts, Policy, Source, parse_stack, select};

const MANIFEST: &str = r#"
name: engine
category: runtime
version: 0.1.0
description: comes both ways
runtime:
  modes: [container, native]
  container: { image: localhost/engine }
  native: { command: [engine, --serve] }
"#;

fn main() {
    let source = Source::of_text("engine.yaml", MANIFEST, "/srv".as_ref());
    let stack = parse_stack(&source).expect("a manifest");
    let (policy, config) = (Policy::default(), RuntimeConfig::default());
    let usable = Err("the socket is not there".to_owned());
    let engine = EngineFacts {
        name: "podman".into(),
        version: None,
        usable,
    };
    let program = ProgramFacts::Found("/usr/bin/engine".into());
    let hosts = [
        HostFacts {
            program,
            ..HostFacts::default()
        },
        HostFacts {
            engines: vec![engine],
            ..HostFacts::default()
        },
    ];
    for host in hosts {
        match select(
            &stack.modules[0],
            &host,
            &policy,
            &config,
            None,
            true,
            &Ok(()),
        ) {
            Ok(chosen) => println!("{}: {:#?}", chosen.mode.as_str(), chosen.explanation),
            Err(refusal) => println!("none: {refusal}"),
        }
    }
}
