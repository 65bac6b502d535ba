//! Footprints as files: one a module, `<state>/footprints/<module>.json`.
//!
//! Owns: reading and replacing them. Promises: a reader sees the old file or the new one; no link is followed; a file that is
//! none of ours is put aside under another name, with a word in lair's log, and never in anybody's way. Never: syncs: after a
//! power cut a footprint is learned again.

use super::learn::{FORM, Learned};
use crate::files::check_module_name;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A longer file is none of ours.
const LONGEST: u64 = 64 << 10;
/// Modules that are remembered; those that ran longest ago are forgotten first.
pub const MOST: usize = 4096;

/// The folder.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// In this state folder. Nothing is made yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Store(state.join("footprints"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    /// The modules that have a file. Where there are too many, the oldest go.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let Ok(all) = fs::read_dir(&self.0) else {
            return BTreeSet::new();
        };
        let mut found: Vec<(i64, String)> = all
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let name = name.strip_suffix(".json")?.to_owned();
                check_module_name(&name).ok()?;
                Some((entry.metadata().ok()?.mtime(), name))
            })
            .collect();
        found.sort_unstable();
        let surplus = found.len().saturating_sub(MOST);
        for (_, name) in found.drain(..surplus) {
            let _ = fs::remove_file(self.path(&name));
        }
        found.into_iter().map(|(_, name)| name).collect()
    }

    /// What was learned of a module; nothing, where there is no file or none of ours.
    #[must_use]
    pub fn read(&self, name: &str) -> Learned {
        let empty = Learned {
            format: FORM.to_owned(),
            name: name.to_owned(),
            versions: Vec::new(),
        };
        if check_module_name(name).is_err() {
            return empty;
        }
        match self.try_read(name) {
            Ok(learned) => learned,
            Err(e) if e.kind() == io::ErrorKind::NotFound => empty,
            Err(e) => {
                let path = self.path(name);
                let aside = path.with_extension("json.aside");
                let moved = fs::rename(&path, &aside);
                tracing::warn!(
                    module = %name,
                    file = %path.display(),
                    put_aside = moved.is_ok(),
                    "what was learned of it can't be read, and is learned anew: {e}"
                );
                empty
            }
        }
    }

    fn try_read(&self, name: &str) -> io::Result<Learned> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::open(self.path(name), flags, Mode::empty())?);
        let meta = file.metadata()?;
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if !meta.is_file() || meta.len() > LONGEST {
            return Err(wrong("it is no file, or too long"));
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        let learned: Learned = serde_json::from_slice(&text)?;
        if learned.format != FORM || learned.name != name {
            return Err(wrong("it is of another form, or of another module"));
        }
        Ok(learned)
    }

    /// Puts a new file in the place of the old one.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn write(&self, learned: &Learned) -> io::Result<()> {
        check_module_name(&learned.name).map_err(io::Error::other)?;
        let text = serde_json::to_vec(learned)?;
        let tmp = self.0.join(format!(".{}.tmp", learned.name));
        let create = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(&tmp, flags, Mode::from_raw_mode(0o600))
        };
        let _ = fs::remove_file(&tmp);
        let file = match create() {
            Err(rustix::io::Errno::NOENT) => {
                let mut folder = DirBuilder::new();
                folder.recursive(true).mode(0o700).create(&self.0)?;
                create()?
            }
            other => other?,
        };
        let done = File::from(file)
            .write_all(&text)
            .and_then(|()| fs::rename(&tmp, self.path(&learned.name)));
        if done.is_err() {
            let _ = fs::remove_file(&tmp);
        }
        done
    }
}

#[cfg(test)]
mod test {
    use super::super::learn::{Figures, Key};
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = format!("lair-footprints-{name}-{}", std::process::id());
            let dir = std::env::temp_dir().join(dir);
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(dir.join("footprints")).expect("a folder");
            Folder(dir)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join("footprints").join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn learned(name: &str) -> Learned {
        let mut learned = Learned {
            format: FORM.to_owned(),
            name: name.to_owned(),
            versions: Vec::new(),
        };
        learned.take(&Key::default(), "1.0.0", Figures::default());
        learned
    }

    #[test]
    fn what_is_written_is_read_again_and_replaced_whole() {
        let folder = Folder::new("replace");
        let store = Store::new(&folder.0);
        assert!(store.read("m").versions.is_empty());
        store.write(&learned("m")).expect("written");
        assert_eq!(store.read("m"), learned("m"));
        let mut more = learned("m");
        more.take(&Key::default(), "1.0.1", Figures::default());
        store.write(&more).expect("written");
        assert_eq!(store.read("m"), more);
        assert_eq!(store.names(), BTreeSet::from(["m".to_owned()]));
        assert_eq!(
            fs::read_dir(folder.0.join("footprints"))
                .expect("there")
                .count(),
            1
        );
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_put_aside_and_learning_begins_anew() {
        let folder = Folder::new("aside");
        let store = Store::new(&folder.0);
        let other = serde_json::to_vec(&learned("other")).expect("text");
        let newer = br#"{"format":"lair-footprint/9","name":"m","versions":[]}"#;
        let cases: [&[u8]; 5] = [b"", b"\xff\x00garbage", b"[1,2]", &other, newer];
        for text in cases {
            fs::write(folder.file("m.json"), text).expect("written");
            assert!(store.read("m").versions.is_empty());
            assert!(!folder.file("m.json").exists());
            assert_eq!(fs::read(folder.file("m.json.aside")).expect("aside"), text);
            store.write(&learned("m")).expect("written");
            assert_eq!(store.read("m"), learned("m"));
        }
        // Neither a link nor a pipe is read.
        fs::remove_file(folder.file("m.json")).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", folder.file("m.json")).expect("a link");
        assert!(store.read("m").versions.is_empty());
        fs::write(folder.file("m.json"), vec![b' '; 65 << 10]).expect("written");
        assert!(store.read("m").versions.is_empty());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_no_name() {
        let folder = Folder::new("names");
        let store = Store::new(&folder.0);
        assert!(store.read("../x").versions.is_empty());
        assert!(store.write(&learned("../x")).is_err());
    }
}
