//! Reading what the last life left.

use super::line::{Line, Mark, VERSION};
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ChildId, Seq};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// No honest ledger is longer.
const LONGEST: u64 = 256 << 20;

/// What the last life knew.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Its modules.
    pub modules: BTreeMap<ChildId, Known>,
    /// Under which names its processes run.
    pub lives: Vec<String>,
    /// No event had a higher number.
    pub newest: Seq,
    /// Why the ledger, or a part of it, was not used.
    pub ignored: Option<String>,
}

/// One module that the last life knew.
#[derive(Debug)]
pub struct Known {
    /// Its plan.
    pub plan: LaunchPlan,
    /// Where it stood; `None`: loaded and never started.
    pub mark: Option<Mark>,
}

/// Reads a ledger. None is as good as an empty one; one that can't be used is none, and why is said.
pub(super) fn read(path: &Path, boot: &str) -> Remembered {
    match text_of(path) {
        Ok(None) => Remembered::default(),
        Ok(Some(text)) => understand(&text, boot),
        Err(why) => ignored(why),
    }
}

fn ignored(why: String) -> Remembered {
    Remembered {
        ignored: Some(why),
        ..Remembered::default()
    }
}

/// The text, if there is a file that is ours.
fn text_of(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(format!("it can't be opened: {errno}")),
    };
    let meta = file.metadata().map_err(|e| e.to_string())?;
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_file() {
        return Err("it is no file".into());
    }
    if meta.uid() != me {
        return Err(format!("it belongs to uid {}, not to uid {me}", meta.uid()));
    }
    if meta.len() > LONGEST {
        return Err(format!("it is too long ({} bytes)", meta.len()));
    }
    let mut text = Vec::new();
    let read: io::Result<usize> = file.read_to_end(&mut text);
    read.map_err(|e| format!("it can't be read: {e}"))?;
    Ok(Some(text))
}

fn understand(text: &[u8], boot: &str) -> Remembered {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let lives = match serde_json::from_slice(first) {
        Ok(Line::Head(head)) if head.lair_ledger > VERSION => {
            return ignored(format!(
                "it is of version {}, newer than this lair's {VERSION}",
                head.lair_ledger
            ));
        }
        Ok(Line::Head(head)) if head.boot != boot => {
            // Nothing of what it speaks of can be left: worth no notice.
            return Remembered::default();
        }
        Ok(Line::Head(head)) => head.lives,
        Ok(_) | Err(_) => return ignored("its first line is not a ledger's".into()),
    };
    let mut found = Remembered {
        lives,
        ..Remembered::default()
    };
    for line in lines {
        // The line that a kill cut short says nothing yet.
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        match serde_json::from_slice::<Line>(line) {
            Ok(line) => found.take(line),
            Err(e) => return ignored(format!("a line of it can't be understood: {e}")),
        }
    }
    found
}

/// The variables that modules may be passed from this life's environment.
fn environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Remembered {
    fn take(&mut self, line: Line) {
        match line {
            Line::Head(_) => {}
            Line::Load { id, plan } => match LaunchPlan::from_kept(plan, &environment()) {
                Ok(plan) => {
                    let mark = self.modules.remove(&id).and_then(|known| known.mark);
                    self.modules.insert(id, Known { plan, mark });
                }
                // Another version's plan: the module is known again when somebody loads it.
                Err(e) => {
                    self.modules.remove(&id);
                    self.ignored = Some(format!("the plan of `{id}` can't be understood: {e}"));
                }
            },
            Line::Unload { id } => {
                self.modules.remove(&id);
            }
            Line::Mark { id, mark } => {
                if let Some(known) = self.modules.get_mut(&id) {
                    known.mark = Some(mark);
                }
            }
            Line::Seq { to } => self.newest = self.newest.max(to),
        }
    }
}
