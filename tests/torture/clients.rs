//! Those who ask lair for random things while it is killed, and one who notes every end that it tells of.

use super::dice::Dice;
use super::world::{CONTAINERS, NATIVES, PATIENCE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What lair said of the end of a run, wherever it said it: event, dossier or status.
pub type Told = BTreeMap<(String, u64), Vec<Value>>;

pub struct Shared {
    dir: PathBuf,
    names: Vec<String>,
    pub over: AtomicBool,
    pub pause: AtomicBool,
    /// Clients that do nothing because of `pause`.
    pub idle: AtomicU64,
    pub asked: AtomicU64,
    pub answered: AtomicU64,
    pub refused: Mutex<BTreeMap<String, u64>>,
    /// What must not be: a connection that lives and says nothing, a bug.
    pub wrong: Mutex<Vec<String>>,
    pub told: Mutex<Told>,
    pub events: AtomicU64,
    pub gaps: AtomicU64,
}

impl Shared {
    pub fn new(dir: PathBuf, names: Vec<String>) -> Arc<Shared> {
        Arc::new(Shared {
            dir,
            names,
            over: AtomicBool::new(false),
            pause: AtomicBool::new(false),
            idle: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: Mutex::default(),
            wrong: Mutex::default(),
            told: Mutex::default(),
            events: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
        })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn connect(&self) -> Option<Line> {
        let stream = UnixStream::connect(self.dir.join("run/lair.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let reader = BufReader::new(stream.try_clone().ok()?);
        Some(Line { stream, reader })
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().expect("a list").push(what);
    }

    pub fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Requests whose answers nobody waits for.
    pub fn fire(&self, dice: &mut Dice) {
        let Some(mut line) = self.connect() else {
            return;
        };
        for _ in 0..3 {
            let (method, params) = self.request(dice);
            self.asked.fetch_add(1, Ordering::Relaxed);
            line.send(method, &params);
        }
    }

    fn request(&self, dice: &mut Dice) -> (&'static str, Value) {
        let contained = dice.once_in(12);
        let name = match contained {
            true => &self.names[NATIVES + dice.below(CONTAINERS as u64) as usize],
            false => &self.names[dice.below(NATIVES as u64) as usize],
        };
        let path = self.dir.join("modules").join(format!("{name}.yaml"));
        let named = json!({ "name": name });
        match dice.below(100) {
            0..30 => ("module.start", named),
            30..42 => ("module.stop", named),
            42..60 => ("module.restart", named),
            60..67 => ("module.kill", named),
            67..78 => ("module.status", named),
            78..82 => ("module.list", json!({})),
            82..90 => ("logs.read", json!({ "name": name, "lines": 50 })),
            90..94 => ("module.unload", named),
            _ => ("module.load", json!({ "path": path.to_str() })),
        }
    }

    fn note(&self, reply: &Value, asked: &str) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let Some(code) = reply["error"]["data"]["code"].as_str() else {
            if reply.get("result").is_none() {
                self.wrong(format!("{asked}: neither result nor error: {reply}"));
            }
            return;
        };
        if code == "internal" {
            self.wrong(format!("{asked}: {reply}"));
        }
        *self
            .refused
            .lock()
            .expect("a map")
            .entry(code.to_owned())
            .or_default() += 1;
    }

    /// A client's whole life.
    pub fn ask_at_random(&self, mut dice: Dice) {
        let mut line = None;
        while !self.over() {
            if self.pause.load(Ordering::Relaxed) {
                self.idle.fetch_add(1, Ordering::SeqCst);
                while self.pause.load(Ordering::Relaxed) && !self.over() {
                    std::thread::sleep(Duration::from_millis(10));
                }
                self.idle.fetch_sub(1, Ordering::SeqCst);
            }
            dice.sleep(Duration::from_millis(500));
            let Some(to) = line.as_mut() else {
                line = self.connect();
                continue;
            };
            let (method, params) = self.request(&mut dice);
            self.asked.fetch_add(1, Ordering::Relaxed);
            match to.call(method, &params) {
                Reply::Said(reply) => self.note(&reply, method),
                Reply::Gone => line = None,
                Reply::Mute => {
                    self.wrong(format!("{method} {params}: no answer"));
                    line = None;
                }
            }
        }
    }

    /// Follows the events of all lives by number, and keeps the ends of runs.
    pub fn listen(&self) {
        let mut next = 1;
        while !self.over() {
            std::thread::sleep(Duration::from_millis(5));
            let Some(mut line) = self.connect() else {
                continue;
            };
            let _ = line
                .stream
                .set_read_timeout(Some(Duration::from_millis(500)));
            line.send("events.subscribe", &json!({ "from_seq": next }));
            let mut text = String::new();
            while !self.over() {
                match line.reader.read_line(&mut text) {
                    Ok(0) => break,
                    Ok(_) => {
                        let said: Value = serde_json::from_str(&text).unwrap_or_default();
                        text.clear();
                        if said.get("error").is_some() {
                            self.wrong(format!("events.subscribe {next}: {said}"));
                            break;
                        }
                        self.hear(&said["params"], &mut next);
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        }
    }

    fn hear(&self, said: &Value, next: &mut u64) {
        if said.get("gap").is_some() {
            self.gaps.fetch_add(1, Ordering::Relaxed);
        }
        let event = &said["event"];
        let Some(seq) = event["seq"].as_u64() else {
            return;
        };
        if seq < *next {
            self.wrong(format!("event {seq} came after {}", *next - 1));
        }
        *next = seq + 1;
        self.events.fetch_add(1, Ordering::Relaxed);
        if event["type"] == "module.exited" {
            let name = event["name"].as_str().unwrap_or_default().to_owned();
            let run = event["run"].as_u64().unwrap_or_default();
            let exit = event["exit"].clone();
            let mut told = self.told.lock().expect("a map");
            told.entry((name, run)).or_default().push(exit);
        }
    }
}

/// A connection that may end at any time.
pub struct Line {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

pub enum Reply {
    Said(Value),
    Gone,
    Mute,
}

impl Line {
    fn send(&mut self, method: &str, params: &Value) -> bool {
        let mut request = json!({ "jsonrpc": "2.0", "id": 1, "method": method });
        if !params.is_null() {
            request["params"] = params.clone();
        }
        writeln!(self.stream, "{request}").is_ok()
    }

    pub fn call(&mut self, method: &str, params: &Value) -> Reply {
        if !self.send(method, params) {
            return Reply::Gone;
        }
        let mut text = String::new();
        match self.reader.read_line(&mut text) {
            Ok(0) => Reply::Gone,
            Ok(_) => serde_json::from_str(&text).map_or(Reply::Gone, Reply::Said),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Reply::Mute,
            Err(_) => Reply::Gone,
        }
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Option<Value> {
        match self.call(method, &params) {
            Reply::Said(reply) => Some(reply),
            Reply::Gone | Reply::Mute => None,
        }
    }
}
