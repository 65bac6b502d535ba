//! Talking to a lair from Rust: the standard library and `serde_json`, no async runtime.
//!
//! `cargo run --example bridge_client -- /run/lair/lair.sock`
#![allow(clippy::print_stdout, reason = "showing is what an example is for")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

struct Lair {
    reader: BufReader<UnixStream>,
    next: u64,
}

impl Lair {
    fn connect(path: &str) -> std::io::Result<Self> {
        Ok(Lair {
            reader: BufReader::new(UnixStream::connect(path)?),
            next: 1,
        })
    }

    fn line(&mut self) -> Result<Value, Box<dyn std::error::Error>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value, Box<dyn std::error::Error>> {
        let id = self.next;
        self.next += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        writeln!(self.reader.get_mut(), "{request}")?;
        loop {
            let line = self.line()?;
            if line["id"] != id {
                println!("event: {}", line["params"]["event"]["type"]); // came between
            } else if line["error"].is_null() {
                return Ok(line["result"].clone());
            } else {
                return Err(line["error"]["message"].to_string().into());
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name the socket")?;
    let mut lair = Lair::connect(&path)?;
    lair.call("events.subscribe", json!({ "types": ["module."] }))?;
    for module in lair.call("module.list", json!({}))?["modules"]
        .as_array()
        .into_iter()
        .flatten()
    {
        println!("{} is {}", module["name"], module["state"]);
        let name = json!({ "name": module["name"] });
        lair.call("module.start", name.clone())?;
        lair.call(
            "module.wait",
            json!({ "name": module["name"], "for": "ready", "timeout_ms": 10_000 }),
        )?;
        lair.call("module.stop", name)?;
        let status = lair.call(
            "module.wait",
            json!({ "name": module["name"], "for": "stopped" }),
        )?;
        println!("{} ended with {}", status["name"], status["exit"]);
    }
    Ok(())
}
