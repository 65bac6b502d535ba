//! Every example of `lair VERB --help`, run as it is written, against a daemon that has the modules it speaks of.

mod face;

use clap::CommandFactory;
use face::{Lair, until};
use lair::cli::args::Cli;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything here takes on two busy cores.
const SOON: Duration = Duration::from_secs(90);

/// The daemon's folder `modules` has the examples' files, and is where they are run: the daemon trusts it.
struct Stage {
    lair: Lair,
}

/// How an example ends.
enum Ends {
    /// By itself, with one of these codes.
    With(&'static [i32]),
    /// By TERM, after it has printed this.
    AfterTerm(&'static str),
    /// By the key `q`, on a terminal that shows this.
    ByKey(&'static str),
}

impl Stage {
    fn new() -> Stage {
        let lair = Lair::folder();
        let redis = "echo WARN of redis >&2; exec sleep 1000";
        lair.module("redis", redis, "");
        lair.module("qdrant", face::SLEEPER, "");
        lair.module("llama", "echo model $MODEL threads $1", "");
        let indented = face::manifest("web", face::SLEEPER, "").replace('\n', "\n    ");
        fs::write(
            lair.dir.join("stack.yaml"),
            format!("modules:\n  - {indented}\n"),
        )
        .expect("stack");
        fs::create_dir(lair.dir.join("bin")).expect("folder");
        std::os::unix::fs::symlink(face::LAIR, lair.dir.join("bin/lair")).expect("program");
        let lair = lair.serve(&["--allow-faults"]);
        // Later than the daemon, for it is a file for `up`.
        fs::rename(
            lair.dir.join("stack.yaml"),
            lair.dir.join("modules/stack.yaml"),
        )
        .expect("stack");
        Stage { lair }
    }

    /// redis runs, has run before, and everything that examples name is loaded; whatever the last one did.
    fn set(&self) {
        until("redis and the others are there", SOON, || {
            let line = "lair unload web; lair load redis.yaml qdrant.yaml && lair thaw redis; lair restart redis --wait=ready --timeout 10s";
            self.shell(line).status().expect("shell").success()
        });
    }

    /// A line as somebody types it; what belongs to the machine is the stage's.
    fn shell(&self, line: &str) -> Command {
        let here = self.lair.dir.display();
        let line = line
            .replace("/etc/lair/config.yaml", &format!("{here}/own/config.yaml"))
            .replace("/etc/bash_completion.d/", &format!("{here}/"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-c", &line])
            .current_dir(self.lair.dir.join("modules"))
            .env("PATH", format!("{here}/bin:{path}"))
            .env("LAIR_CONFIG", self.lair.dir.join("config.yaml"))
            .env_remove("LAIR_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn play(&self, line: &str) {
        match ends(line) {
            Ends::With(codes) => {
                let mut command = self.shell(line);
                let out = command
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .output();
                let out = out.expect("shell");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let said = text(&out.stderr);
                let can = !said.contains("no control group of version 2");
                let code = out.status.code().unwrap_or(-1);
                assert!(
                    codes.contains(&code) || !can,
                    "`{line}` ends with {code}:\n{}{said}{}",
                    text(&out.stdout),
                    self.lair.log()
                );
            }
            Ends::AfterTerm(wanted) => {
                let mut command = self.shell(&format!("exec {line}"));
                command.env("LAIR_CONFIG", self.lair.dir.join(config(line)));
                let mut shown = Shown::start(command);
                shown.until(line, wanted);
                let pid = shown.child.id().to_string();
                let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
                assert!(sent.expect("kill").success());
                let code = shown.end(line).code();
                assert!(
                    matches!(code, Some(0) | None),
                    "`{line}` ends with {code:?}"
                );
            }
            Ends::ByKey(wanted) => {
                let tmux = Tmux {
                    stage: self,
                    socket: line.replace(' ', "-"),
                };
                let window = format!("{line}; echo ended with $?; read -r _");
                tmux.does(&format!(
                    "-f /dev/null new-session -d -x 80 -y 24 '{window}'"
                ));
                let shows = |wanted: &str| {
                    until(&format!("`{line}` shows {wanted:?}"), SOON, || {
                        tmux.does("capture-pane -p").contains(wanted)
                    });
                };
                shows(wanted);
                tmux.does("send-keys q");
                shows("ended with 0");
            }
        }
    }
}

/// A terminal, as long as this lives.
struct Tmux<'a> {
    stage: &'a Stage,
    socket: String,
}

impl Tmux<'_> {
    fn does(&self, words: &str) -> String {
        let mut command = self
            .stage
            .shell(&format!("tmux -u -S ../{} {words}", self.socket));
        let out = command.env_remove("TMUX").stdout(Stdio::piped()).output();
        let out = out.expect("tmux; tests/checks/machine installs it");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.does("kill-server");
    }
}

/// A program whose output is read as it comes.
struct Shown {
    child: Child,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Shown {
    fn start(mut command: Command) -> Shown {
        let (mut from, to) = std::io::pipe().expect("pipe");
        command.stdout(to.try_clone().expect("pipe")).stderr(to);
        let child = command.spawn().expect("shell");
        drop(command);
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = text.clone();
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut some) {
                kept.lock().expect("text").extend_from_slice(&some[..n]);
            }
        });
        Shown { child, text }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("text")).into_owned()
    }

    fn until(&mut self, line: &str, wanted: &str) {
        until(&format!("`{line}` shows {wanted:?}"), SOON, || {
            let ended = self.child.try_wait().expect("wait");
            assert!(
                ended.is_none(),
                "`{line}` ends with {ended:?}: {}",
                self.text()
            );
            self.text().contains(wanted)
        });
    }

    fn end(&mut self, line: &str) -> ExitStatus {
        let mut status = None;
        until(&format!("the end of `{line}`"), SOON, || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("status")
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ends(line: &str) -> Ends {
    let words: Vec<&str> = line.split(' ').collect();
    match words[1..] {
        ["serve", ..] => Ends::AfterTerm("lair serves"),
        ["up", ref rest @ ..] if !rest.contains(&"-d") => Ends::AfterTerm("web | hello"),
        ["logs", ..] if line.contains(" -f") => Ends::AfterTerm("WARN of redis"),
        ["events", ..] if line.contains(" -f") => Ends::AfterTerm("\"redis\""),
        ["top"] | ["--color", "never", "top"] => Ends::ByKey("redis"),
        // Something would change, which is what it was asked.
        ["plan", ..] => Ends::With(&[0, 8]),
        _ => Ends::With(&[0]),
    }
}

/// Who is a daemon itself has folders of its own.
fn config(line: &str) -> &'static str {
    match line.split(' ').nth(1) {
        Some("up" | "serve") => "own/config.yaml",
        _ => "config.yaml",
    }
}

/// What has to be so for an example beyond what always is.
fn before(line: &str) -> &'static str {
    match line.split(' ').nth(1) {
        Some("unload") => "lair stop redis --wait",
        Some("down") => "lair up -d stack.yaml",
        Some("chaos") => "lair chaos --seed 3 --for 2s --print > drill.jsonl",
        _ => "true",
    }
}

fn examples() -> Vec<String> {
    let mut all = Vec::new();
    for verb in Cli::command()
        .get_subcommands()
        .filter(|v| !v.is_hide_set())
    {
        let help = verb
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let lines = help
            .lines()
            .map(str::trim)
            .filter(|l| l.starts_with("lair "));
        let of_it: Vec<String> = lines.map(str::to_owned).collect();
        assert!(!of_it.is_empty(), "{} has no example", verb.get_name());
        all.extend(of_it);
    }
    all
}

fn play(which: impl Fn(&str) -> bool) {
    let stage = Stage::new();
    let own = stage.lair.dir.join("own");
    fs::create_dir(&own).expect("folder");
    let text = fs::read_to_string(stage.lair.dir.join("config.yaml")).expect("config");
    let text = text.replace(
        &stage.lair.dir.display().to_string(),
        &own.display().to_string(),
    );
    fs::write(own.join("config.yaml"), text).expect("config");
    let chosen: Vec<String> = examples().into_iter().filter(|l| which(l)).collect();
    assert!(!chosen.is_empty());
    for line in chosen {
        stage.set();
        let ready = stage.shell(before(&line)).status().expect("shell");
        assert!(ready.success(), "before `{line}`");
        stage.play(&line);
    }
}

fn breaks(line: &str) -> bool {
    line.starts_with("lair inject ") || line.starts_with("lair chaos ")
}

#[test]
fn every_example_of_help_works_as_it_is_written() {
    play(|line| !breaks(line));
}

#[test]
fn every_example_of_breaking_things_works_as_it_is_written() {
    play(breaks);
}
