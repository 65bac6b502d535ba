//! The ledger: what the next life of lair must know of this one's modules and can't ask the keeper.
//!
//! Owns `<run>/ledger`: one JSON object a line, appended in one write each. Promises: what is loaded and what is wanted
//! of it is written before it is started; an unreadable ledger is put aside and told of, never fatal; entries of an
//! earlier boot are discarded. Never: waits for a disk. A line must outlive lair, not the machine: after a power cut
//! nothing of what it speaks of is left, and the boot's id in its first line says so. Hence no sync for each line, only
//! for the file as a whole, when it is written anew.
//!
//! Who a child is, how it ended and what it printed is not here: the keeper, its parent, can't be wrong about that.

mod line;
mod read;

pub use line::{Mark, Standing};
pub use read::{Known, Remembered};

use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ChildId, Seq};
use line::{Head, Line};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name in the run folder.
pub const NAME: &str = "ledger";

/// Where an unreadable one is put.
pub const ASIDE: &str = "ledger.unreadable";

/// A ledger this much longer than when it was written anew is written anew.
const GROWTH: u64 = 4 << 20;

/// Names of lives that are kept: the keeper, while it lives, knows all that count.
const LIVES: usize = 64;

/// Event numbers reserved at a time: a kill makes a gap of at most this many.
const SEQS: u64 = 1024;

/// The ledger of a running lair. Its faults are told once; it is then out of use, and an adoption less complete.
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    grown: u64,
    seqs: Seq,
    lives: Vec<String>,
    line: Vec<u8>,
}

impl Ledger {
    /// Reads what the last life left in this folder, and begins a new ledger with the same content. `lives` are the names
    /// that processes of this runtime's modules carry now: its own, and those of earlier lives that the keeper knows.
    ///
    /// # Errors
    /// The folder can't be written to.
    pub fn open(run: &Path, mut lives: Vec<String>) -> io::Result<(Ledger, Remembered)> {
        let path = run.join(NAME);
        let remembered = read::read(&path, &boot_id());
        if remembered.ignored.is_some() {
            let _ = fs::rename(&path, run.join(ASIDE));
        }
        // What an earlier life left may not be ended yet when this one ends.
        let older = remembered.lives.iter().filter(|life| !lives.contains(life));
        let older: Vec<String> = older.cloned().collect();
        lives.extend(older);
        lives.truncate(LIVES);
        let mut ledger = Ledger {
            path,
            file: None,
            grown: 0,
            seqs: Seq(remembered.newest.0 + SEQS),
            lives,
            line: Vec::new(),
        };
        let known = remembered.modules.iter().map(|(id, known)| {
            let plan = known.plan.to_kept().unwrap_or_default();
            (id.clone(), plan, known.mark.clone())
        });
        ledger.write_anew(known.collect())?;
        Ok((ledger, remembered))
    }

    /// A module is known from now on, under this plan.
    pub fn loaded(&mut self, plan: &LaunchPlan) {
        let id = plan.spec.id.clone();
        match plan.to_kept() {
            Ok(plan) => self.append(&Line::Load { id, plan }),
            Err(e) => tracing::warn!(module = %id, error = %e, "not in the ledger"),
        }
    }

    /// A module is no longer known.
    pub fn unloaded(&mut self, id: &ChildId) {
        self.append(&Line::Unload { id: id.clone() });
    }

    /// Where a module stands, if that has changed: to be written before it is acted on.
    pub fn stands(&mut self, id: &ChildId, mark: &Mark) {
        self.append(&Line::Mark {
            id: id.clone(),
            mark: mark.clone(),
        });
    }

    /// Events up to this one were told; a next life goes on above.
    pub fn told(&mut self, newest: Seq) {
        if newest >= self.seqs {
            self.seqs = Seq(newest.0 + SEQS);
            self.append(&Line::Seq { to: self.seqs });
        }
    }

    /// Is it time for [`Ledger::compact`]?
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.grown > GROWTH
    }

    /// Writes it anew with nothing but what counts.
    pub fn compact<'a>(&mut self, known: impl Iterator<Item = (&'a LaunchPlan, Mark)>) {
        let known = known.filter_map(|(plan, mark)| {
            Some((plan.spec.id.clone(), plan.to_kept().ok()?, Some(mark)))
        });
        if let Err(e) = self.write_anew(known.collect()) {
            tracing::warn!(path = %self.path.display(), error = %e, "the ledger can't be written anew; it grows on");
            self.grown = 0;
        }
    }

    /// All went down as it should: there is nothing to tell a next life.
    pub fn erase(&mut self) {
        self.file = None;
        let _ = fs::remove_file(&self.path);
    }

    fn append(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, line)
            .map_err(io::Error::from)
            .and_then(|()| {
                self.line.push(b'\n');
                file.write_all(&self.line)
            });
        self.grown += self.line.len() as u64;
        if let Err(e) = written {
            tracing::error!(path = %self.path.display(), error = %e, "the ledger can't be written: a next life will know less");
            // Half a line in front of others would make them unreadable.
            self.file = None;
        }
    }

    /// Write-new, sync, rename, sync the folder.
    fn write_anew(
        &mut self,
        known: Vec<(ChildId, serde_json::Value, Option<Mark>)>,
    ) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
        let fd = openat(CWD, &fresh, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(fd);
        let mut text = Vec::new();
        let mut put = |line: &Line| {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
            io::Result::Ok(())
        };
        put(&Line::Head(Head::of(boot_id(), self.lives.clone())))?;
        put(&Line::Seq { to: self.seqs })?;
        for (id, plan, mark) in known {
            put(&Line::Load {
                id: id.clone(),
                plan,
            })?;
            if let Some(mark) = mark {
                put(&Line::Mark { id, mark })?;
            }
        }
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        (self.file, self.grown) = (Some(file), 0);
        Ok(())
    }
}

/// This boot of this machine; empty where the kernel doesn't say.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
