//! What the stories share: a real runtime in a folder of its own, modules in three words, waits with a deadline.
//!
//! Waits are level-triggered: they look at published truth after every event, never after a sleep.
#![allow(dead_code, reason = "each story uses its own part")]

pub mod contained;
pub mod engines;
pub mod fake_engine;
pub mod gate;
pub mod promises;
pub mod segments;

use lair::actors::backend::Tree;
use lair::actors::backend::container::find::EnginePlaces;
use lair::actors::messages::{Answer, DrainReport, Loaded};
use lair::actors::status::ModuleStatus;
use lair::actors::view::View;
use lair::supervision::{Notice, NoticeKind, Origin, Seq};
use lair::{
    Folders, LoadOptions, ManifestSource, Refused, Runtime, RuntimeHandle, RuntimeOptions, WaitFor,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes on two busy cores.
pub const SOON: Duration = Duration::from_secs(20);

/// Environment variable that marks the processes of one story.
const STORY: &str = "LAIR_STORY";

/// A folder that is gone when the test ends well; kept for a look when it panics.
pub struct Home(PathBuf);

impl Home {
    pub fn new(name: &str) -> Self {
        let unique = format!("lair-test-{name}-{}-{:x}", std::process::id(), fastish());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Home(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn fastish() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32
}

/// A real runtime: real keeper, real processes.
pub struct Lair {
    pub home: Home,
    pub runtime: Runtime,
    pub handle: RuntimeHandle,
}

pub fn asker() -> Origin {
    Origin::Requested {
        peer: "test".into(),
    }
}

impl Lair {
    pub async fn start(name: &str) -> Lair {
        Self::start_with(name, |_| {}).await
    }

    /// Options can be changed before the start.
    pub async fn start_with(name: &str, change: impl FnOnce(&mut RuntimeOptions)) -> Lair {
        let home = Home::new(name);
        let mut options = RuntimeOptions::new(Default::default(), Folders::below(home.path()));
        options.keeper = PathBuf::from(env!("CARGO_BIN_EXE_lair"));
        // Whatever engines this machine has are no business of a story that does not bring its own.
        options.engines = Some(EnginePlaces::default());
        change(&mut options);
        let runtime = Runtime::start(options).await.expect("a runtime");
        let handle = runtime.handle().clone();
        Lair {
            home,
            runtime,
            handle,
        }
    }

    /// Loads a manifest's text as trusted.
    pub async fn load(&self, manifest: &str) -> Result<Vec<(String, Loaded)>, Refused> {
        let dir = Some(self.home.path().to_owned());
        let source = ManifestSource::Text {
            text: manifest.to_owned(),
            dir,
            trusted: true,
        };
        let options = LoadOptions {
            env: [(STORY.to_owned(), self.mark())].into(),
            ..LoadOptions::default()
        };
        self.handle.load(source, options, asker()).await
    }

    /// What every process of this story has in its environment, besides lair's own marker.
    fn mark(&self) -> String {
        self.home.path().display().to_string()
    }

    /// Live processes of this story, whoever their parent is now.
    pub fn processes(&self) -> Vec<i32> {
        marked(&self.mark())
    }

    /// Does something still carry lair's marker of this module?
    pub fn processes_of(&self, name: &str) -> Vec<i32> {
        let of = |pid: &i32| {
            let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            env.split(|b| *b == 0)
                .filter_map(|v| v.strip_prefix(b"LAIR_MARKER="))
                .any(|v| String::from_utf8_lossy(v).contains(&format!(":{name}.")))
        };
        self.processes().into_iter().filter(of).collect()
    }

    /// Loads and starts `/bin/sh -c SCRIPT` as module `name`, with `more` below `runtime:` (two spaces deep).
    pub async fn sh(&self, name: &str, script: &str, more: &str) -> Answer {
        self.load(&sh(name, script, more))
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        self.handle.start(name, asker()).await.expect("a start")
    }

    pub fn status(&self, name: &str) -> ModuleStatus {
        self.handle.status(name).expect("a status")
    }

    pub fn view(&self, name: &str) -> Arc<View> {
        self.handle.view(name).expect("a view")
    }

    pub async fn wait(&self, name: &str, what: WaitFor) -> ModuleStatus {
        self.handle
            .wait(name, what, Some(SOON))
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until the published status satisfies `so`.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        so: impl Fn(&ModuleStatus) -> bool,
    ) -> ModuleStatus {
        let mut newest = self.handle.newest_event();
        let look = async {
            loop {
                newest.mark_unchanged();
                let status = self.status(name);
                if so(&status) {
                    return status;
                }
                // Facts (usage, log bytes) change without an event; a tick is enough for them.
                let _ = tokio::time::timeout(Duration::from_millis(20), newest.changed()).await;
            }
        };
        match tokio::time::timeout(SOON, look).await {
            Ok(status) => status,
            Err(_) => panic!("{name}: not {what} in time: {:#?}", self.status(name)),
        }
    }

    pub async fn stop(&self, name: &str) -> ModuleStatus {
        self.handle.stop(name, None, asker()).await.expect("a stop");
        self.wait(name, WaitFor::Stopped).await
    }

    /// All notices of one module so far.
    pub fn notices(&self, name: &str) -> Vec<Arc<Notice>> {
        let all = self.handle.events(Seq(0), usize::MAX).notices;
        all.into_iter().filter(|n| n.id.as_str() == name).collect()
    }

    /// Words of all notices of one module: `starting#1 running#1 ...`.
    pub fn story(&self, name: &str) -> String {
        let words: Vec<String> = self
            .notices(name)
            .iter()
            .map(|n| format!("{}#{}", word(&n.kind), n.inc))
            .collect();
        words.join(" ")
    }

    /// The module's bytes on one stream (`stdout`, `stderr`, `lair`), all runs, put together again from the records.
    pub fn output(&self, name: &str, stream: &str) -> Vec<u8> {
        read_stream(&self.handle.log_dir().join(name), stream)
    }

    /// How often this was told of the module so far: `running`, `exited`, ...
    pub fn count(&self, name: &str, what: &str) -> usize {
        let told = self.notices(name);
        told.iter().filter(|n| word(&n.kind) == what).count()
    }

    /// Ends everything and checks that nothing is left and that every promise was kept.
    pub async fn end(self) -> DrainReport {
        let (keeper, mark) = (self.keeper(), self.mark());
        let cgroup = self.cgroup();
        let Lair {
            home,
            runtime,
            handle,
        } = self;
        let report = runtime.shutdown(SOON).await;
        assert!(report.remaining.is_empty(), "left over: {report:?}");
        assert_eq!(marked(&mark), Vec::<i32>::new(), "I1: left over");
        assert!(
            keeper.is_none_or(|pid| !is_alive(pid)),
            "I1: the keeper stayed"
        );
        assert!(
            cgroup.is_none_or(|at| !at.exists()),
            "I1: its cgroups stayed"
        );
        promises::check(&handle);
        drop(home);
        report
    }

    /// The folder of this runtime's tracking cgroups, if there is one.
    fn cgroup(&self) -> Option<PathBuf> {
        let all = self.handle.list().1.into_iter();
        // Those of containers are their engine's.
        let mut names = all.filter(|m| m.mode == "native");
        names.find_map(|m| match self.view(&m.name).handle.as_ref()?.tree() {
            Tree::Cgroup(at) => at.parent().map(Path::to_owned),
            Tree::Descendants(_) | Tree::None => None,
        })
    }

    /// The keeper's process, if there is one.
    pub fn keeper(&self) -> Option<i32> {
        let pid = self.handle.info()["keeper_pid"].as_i64()?;
        i32::try_from(pid).ok()
    }
}

/// A manifest for `/bin/sh -c SCRIPT`.
pub fn sh(name: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!(
        "name: {name}\ncategory: service\nversion: 1.0.0\ndescription: a test\nruntime:\n  modes: [native]\n  native: {{ command: [/bin/sh, -c, {script}] }}\n{more}\n"
    )
}

pub fn word(kind: &NoticeKind) -> String {
    let value = serde_json::to_value(kind).expect("a notice");
    match value {
        serde_json::Value::String(word) => word,
        serde_json::Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

/// Puts a stream together from CRI records, oldest run and segment first.
pub fn read_stream(dir: &Path, stream: &str) -> Vec<u8> {
    let segments = segments::read(dir);
    let newest = segments.len().saturating_sub(1);
    let mut bytes = Vec::new();
    for (at, (name, raw)) in segments.iter().enumerate() {
        let whole = match at == newest {
            // The last record may still be on its way.
            true => raw.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1),
            false => raw.len(),
        };
        for line in raw[..whole].split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let record = lair::actors::files::parse_record(line);
            let record =
                record.unwrap_or_else(|| panic!("{name}: {:?}", String::from_utf8_lossy(line)));
            if record.stream.as_str() == stream {
                bytes.extend_from_slice(record.bytes);
                if !record.partial {
                    bytes.push(b'\n');
                }
            }
        }
    }
    bytes
}

fn marked(mark: &str) -> Vec<i32> {
    processes_with(&format!("{STORY}={mark}\0"))
}

/// Waits until it is so. Looks again and again: for what the machine tells nobody of.
pub async fn eventually(what: &str, so: impl Fn() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(SOON, look).await;
    assert!(seen.is_ok(), "not in time: {what}");
}

/// Sends a signal to exactly this process, as a stranger would.
pub fn signal(pid: i32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
    rustix::process::kill_process(pid, signal).expect("a signal sent");
}

/// Live (not zombie) processes whose environment holds this text.
pub fn processes_with(text: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries
        .filter_map(Result::ok)
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            is_alive(*pid) && env.windows(text.len()).any(|w| w == text.as_bytes())
        })
        .collect()
}

/// Does the process exist and is it no zombie?
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|s| {
            s.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}
