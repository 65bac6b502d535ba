//! Runs one module under an embedded lair and shows each step: load, watch, ask, list, stop, proof.
//!
//! `quickstart MANIFEST [--ask QUESTION]`; `examples/llama/run` and `examples/hello/run` call it.

#![allow(clippy::print_stdout, reason = "showing is what this program is for")]

use lair::actors::files::Folder;
use lair::actors::files::read::{Entry, Follower, LogReader, Query};
use lair::actors::status::ModuleStatus;
use lair::manifests::config::RuntimeConfig;
use lair::supervision::{NoticeKind, Origin, Seq};
use lair::{Folders, LoadOptions, ManifestSource, Runtime, RuntimeHandle, RuntimeOptions, WaitFor};
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    // Modules are children of the keeper, which is this program started once more.
    lair::hijack();
    let mut args = std::env::args().skip(1);
    let (manifest, question) = match (args.next(), args.next(), args.next(), args.next()) {
        (Some(manifest), None, _, _) => (manifest, None),
        (Some(manifest), Some(flag), Some(text), None) if flag == "--ask" => (manifest, Some(text)),
        _ => {
            eprintln!("usage: quickstart MANIFEST [--ask QUESTION]");
            return ExitCode::from(2);
        }
    };
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let shown = match tokio {
        Ok(tokio) => tokio.block_on(show(Path::new(&manifest), question.as_deref())),
        Err(e) => Err(e.into()),
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("quickstart: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn show(manifest: &Path, question: Option<&str>) -> Outcome<()> {
    let home = PathBuf::from(
        std::env::var("XDG_STATE_HOME")
            .or_else(|_| std::env::var("HOME").map(|h| h + "/.local/state"))?,
    )
    .join("lair/quickstart");
    let runtime = Runtime::start(RuntimeOptions::new(
        RuntimeConfig::default(),
        Folders::below(&home),
    ))
    .await?;
    let shown = live(runtime.handle(), manifest, question).await;
    // Also after a failure: nothing that was started is left behind.
    let report = runtime.shutdown(Duration::from_secs(15)).await;
    shown?;
    title("lair ends");
    println!(
        "modules that had to be killed: {}, that are left: {}",
        report.killed.len(),
        report.remaining.len()
    );
    Ok(())
}

async fn live(lair: &RuntimeHandle, manifest: &Path, question: Option<&str>) -> Outcome<()> {
    let me = || Origin::Requested {
        peer: "quickstart".into(),
    };

    title(&format!("load {}", manifest.display()));
    let loaded = lair
        .load(
            ManifestSource::File(fs::canonicalize(manifest)?),
            LoadOptions::default(),
            me(),
        )
        .await?;
    let name = loaded
        .first()
        .ok_or("the manifest has no module")?
        .0
        .clone();
    for step in lair.explain(&name)? {
        println!("{step}");
    }

    title("start, and watch it until it is healthy");
    let begun = Instant::now();
    let before = lair
        .events(Seq(0), usize::MAX)
        .notices
        .last()
        .map_or(Seq(0), |n| n.seq);
    Folder::open_or_create(lair.log_dir(), &name)
        .map_err(|fault| format!("its log folder: {fault:?}"))?;
    let log = Follower::new(
        LogReader::open(lair.log_dir(), &name)?,
        Query::default(),
        None,
    )?;
    let mut watch = Watch {
        begun,
        seen: before,
        log,
    };
    lair.start(&name, me()).await?;
    let healthy = lair.wait(&name, WaitFor::Healthy, Some(Duration::from_secs(1800)));
    tokio::pin!(healthy);
    let status = loop {
        tokio::select! {
            ended = &mut healthy => break ended,
            () = tokio::time::sleep(Duration::from_millis(20)) => watch.look(lair, &name)?,
        }
    };
    watch.look(lair, &name)?;
    let status = status?;
    println!(
        "healthy after {:.2} s, pid {}",
        begun.elapsed().as_secs_f64(),
        status.pid.unwrap_or(0)
    );

    if let Some(question) = question {
        let port = status
            .ports
            .first()
            .ok_or("the manifest declares no port to ask at")?
            .port;
        ask(port, question)?;
    }

    title("ps");
    ps(&lair.list().1);

    title("its last log lines");
    let query = Query {
        tail: Some(5),
        ..Query::default()
    };
    for entry in LogReader::open(lair.log_dir(), &name)?.entries(query)? {
        println!("{}", line(&entry?));
    }
    println!("(all of them: {})", status.logs.dir);

    title("stop");
    let tree = tree_of(status.pid.ok_or("it has no pid")?);
    let asked = Instant::now();
    lair.stop(&name, None, me()).await?;
    let stopped = lair
        .wait(&name, WaitFor::Stopped, Some(Duration::from_secs(30)))
        .await?;
    watch.look(lair, &name)?;
    prove(&stopped, &tree, asked.elapsed())
}

/// Events and output, printed as they come.
struct Watch {
    begun: Instant,
    seen: Seq,
    log: Follower,
}

impl Watch {
    fn look(&mut self, lair: &RuntimeHandle, name: &str) -> Outcome<()> {
        let at = self.begun.elapsed().as_secs_f64();
        for notice in lair.events(self.seen, 100).notices {
            self.seen = notice.seq;
            if notice.id.as_str() == name {
                println!("{at:7.2} s  event   {}", phase(&notice.kind));
            }
        }
        for entry in self.log.look()?.entries {
            println!("{at:7.2} s  {}", line(&entry));
        }
        Ok(())
    }
}

/// `running`, `health state=healthy probe=startup`: the event's JSON, for people.
fn phase(kind: &NoticeKind) -> String {
    fn words(value: &serde_json::Value, into: &mut String) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields.iter().filter(|(_, v)| !v.is_null()) {
                    into.push_str(&format!(" {key}"));
                    if !value.is_object() {
                        into.push('=');
                    }
                    words(value, into);
                }
            }
            serde_json::Value::String(text) => into.push_str(text),
            other => into.push_str(&other.to_string()),
        }
    }
    let mut text = String::new();
    words(&serde_json::to_value(kind).unwrap_or_default(), &mut text);
    text.trim_start().to_owned()
}

fn line(entry: &Entry) -> String {
    let text = String::from_utf8_lossy(&entry.bytes);
    let stream = format!("{:?}", entry.stream).to_lowercase();
    format!("{stream:7} {}", text.trim_end())
}

/// One question, as any OpenAI client would ask it.
fn ask(port: u16, question: &str) -> Outcome<()> {
    title(&format!("ask http://127.0.0.1:{port}/v1/chat/completions"));
    let body = serde_json::json!({ "messages": [{ "role": "user", "content": question }], "max_tokens": 64, "temperature": 0.2, "seed": 1, "stop": ["Question:"] });
    let answer = post(port, "/v1/chat/completions", &body.to_string())?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let text = answer
        .pointer("/choices/0/message/content")
        .and_then(|t| t.as_str())
        .ok_or("there is no answer in the reply")?;
    println!("> {question}\n{}", text.trim());
    let number = |pointer: &str| {
        answer
            .pointer(pointer)
            .and_then(serde_json::Value::as_f64)
            .unwrap_or(0.0)
    };
    println!(
        "({} tokens, {:.1} tokens per second; prompt {:.1} tokens per second)",
        number("/timings/predicted_n"),
        number("/timings/predicted_per_second"),
        number("/timings/prompt_per_second"),
    );
    Ok(())
}

fn post(port: u16, path: &str, body: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .ok_or("the reply is not HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!(
            "the server answered: {}",
            head.lines().next().unwrap_or_default()
        )
        .into()),
    }
}

fn ps(modules: &[ModuleStatus]) {
    println!(
        "{:12} {:8} {:9} {:>4} {:>7} {:>9} {:>9}  PORTS",
        "NAME", "STATE", "HEALTH", "RUN", "PID", "MEMORY", "CPU"
    );
    for m in modules {
        let health = format!("{:?}", m.health.state).to_lowercase();
        let pid = m.pid.map_or_else(|| "-".into(), |p| p.to_string());
        let memory = m
            .resources
            .memory
            .current
            .map_or_else(|| "-".into(), |b| format!("{} MiB", b >> 20));
        let cpu = m
            .resources
            .cpu_ms
            .map_or_else(|| "-".into(), |ms| format!("{ms} ms"));
        let ports: Vec<_> = m
            .ports
            .iter()
            .map(|p| format!("{}={}:{}", p.name, p.address, p.port))
            .collect();
        println!(
            "{:12} {:8} {health:9} {:>4} {pid:>7} {memory:>9} {cpu:>9}  {}",
            m.name,
            m.state,
            m.run,
            ports.join(" ")
        );
    }
}

/// The processes of the tree: pid and start time, which together name one process for good.
fn tree_of(leader: i32) -> Vec<(i32, String)> {
    let mut tree = vec![leader];
    let mut at = 0;
    while let Some(pid) = tree.get(at) {
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        tree.extend(
            children
                .split_whitespace()
                .filter_map(|p| p.parse::<i32>().ok()),
        );
        at += 1;
    }
    tree.into_iter()
        .filter_map(|pid| Some((pid, started(pid)?)))
        .collect()
}

fn started(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|s| (*s).to_owned()))?
}

fn prove(status: &ModuleStatus, tree: &[(i32, String)], took: Duration) -> Outcome<()> {
    title("proof");
    let exit = status
        .exit
        .as_ref()
        .map(serde_json::to_string)
        .transpose()?;
    println!(
        "state      {} in {:.2} s, exit {}",
        status.state,
        took.as_secs_f64(),
        exit.unwrap_or_default()
    );
    let left: Vec<_> = tree
        .iter()
        .filter(|(pid, born)| started(*pid).as_ref() == Some(born))
        .map(|(pid, _)| *pid)
        .collect();
    let pids: Vec<_> = tree.iter().map(|(pid, _)| pid.to_string()).collect();
    println!(
        "processes  {} were there ({}), {} are left",
        tree.len(),
        pids.join(" "),
        left.len()
    );
    let mut taken = Vec::new();
    for port in &status.ports {
        let free = TcpListener::bind((port.address.as_str(), port.port)).is_ok();
        println!(
            "port       {} is {}",
            port.port,
            if free { "free" } else { "still taken" }
        );
        if !free {
            taken.push(port.port);
        }
    }
    if status.state == "stopped" && left.is_empty() && taken.is_empty() {
        return Ok(());
    }
    Err(format!(
        "it is {}, pids {left:?} and ports {taken:?} are left",
        status.state
    )
    .into())
}

fn title(text: &str) {
    println!("\n== {text}");
}
