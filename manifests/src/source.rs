//! A text to be read, and how it comes from a file.
//!
//! Owns: what is opened and how much of it is read. Promises: bounded time: a FIFO, a device, a folder, a loop of links
//! and a file that is too long are refused by name. Never: follows what a file says to another file.

use crate::problem::{Problem, ProblemKind};
use crate::trust::FileFacts;
use crate::walk::{Walked, has_acl, walk};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest file with one module, in bytes; also of a configuration.
pub const MAX_MODULE: usize = 1 << 20;
/// Longest stack, in bytes.
pub const MAX_STACK: usize = 16 << 20;
/// Longest signature file, in bytes.
const MAX_SIGNATURE: u64 = 4 << 10;

/// A text to be read.
#[derive(Clone)]
pub struct Source {
    /// Its name, for people.
    pub name: Arc<str>,
    /// The text.
    pub text: String,
    /// The folder that relative paths in it start from.
    pub dir: PathBuf,
    /// SHA-256 of the text, lower-case hex.
    pub digest: Arc<str>,
    /// Whose file it is; nothing for a text that came another way.
    pub facts: Option<FileFacts>,
}

impl Source {
    /// A text that is no file: of the bridge, or a test.
    #[must_use]
    pub fn of_text(name: &str, text: &str, dir: &Path) -> Self {
        Source {
            name: Arc::from(name),
            text: text.to_owned(),
            dir: dir.to_owned(),
            digest: digest(text.as_bytes()),
            facts: None,
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Source");
        shown
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// The system's words, without its number.
fn words(e: &std::io::Error) -> String {
    let words = e.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    words.to_lowercase()
}

fn not_opened(problem: Problem, e: &std::io::Error) -> Problem {
    if e.kind() != std::io::ErrorKind::NotFound {
        return problem;
    }
    problem.with_help(
        "a manifest is wanted here, by its path; a module that is loaded already goes by its name with `lair start NAME`",
    )
}

/// Reads a manifest, a stack or a configuration, at most 16 MiB of it.
///
/// # Errors
/// What kept it from being read, with the file's name.
pub fn read_manifest(path: &Path) -> Result<Source, Problem> {
    let name = path.to_string_lossy();
    let wrong = |what: String| Problem::of_file(ProblemKind::Syntax, &name, what);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Walked { file, way } = walk(&absolute).map_err(|e| {
        not_opened(
            wrong(format!("the file can't be opened: {}", words(&e))),
            &e,
        )
    })?;
    // Of the open file, not of its name: what is read below is what is told of here.
    let meta = file
        .metadata()
        .map_err(|e| wrong(format!("the file can't be looked at: {e}")))?;
    if !meta.is_file() {
        let odd = wrong("this is no regular file".to_owned());
        return Err(if meta.is_dir() {
            odd.with_help("it is a folder: name the manifest in it, as in `FOLDER/manifest.yaml`")
        } else {
            odd
        });
    }
    let acl = has_acl(&file, meta.mode());
    let mut bytes = Vec::new();
    let read = file.take(MAX_STACK as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| wrong(format!("the file can't be read: {e}")))?;
    if bytes.len() > MAX_STACK {
        return Err(too_large(&name, MAX_STACK));
    }
    let digest = digest(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| wrong("the file is not UTF-8".to_owned()))?;
    let dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let facts = FileFacts {
        path: absolute,
        owner: meta.uid(),
        group: meta.gid(),
        mode: meta.mode(),
        acl,
        way,
        sha256: digest.to_string(),
    };
    Ok(Source {
        name: Arc::from(&*name),
        text,
        dir,
        digest,
        facts: Some(facts),
    })
}

/// Reads the signature of a manifest's file: what `named` says, relative to the manifest's folder, or else the file's
/// name with `.minisig` behind it, as minisign(1) writes it.
///
/// # Errors
/// Why there is none, as a sentence fragment.
pub fn read_signature(source: &Source, named: Option<&str>) -> Result<String, String> {
    let facts = source.facts.as_ref().ok_or("it is no file")?;
    let path = match named.filter(|n| !n.is_empty()) {
        Some(named) => source.dir.join(named),
        None => {
            let mut path = facts.path.clone().into_os_string();
            path.push(".minisig");
            PathBuf::from(path)
        }
    };
    let shown = path.display().to_string();
    let text = read_small(&path).map_err(|e| format!("{shown} can't be read: {e}"))?;
    text.ok_or(format!("{shown} is no signature"))
}

/// `None`: longer than any signature, no regular file, or no text.
fn read_small(path: &Path) -> std::io::Result<Option<String>> {
    let Walked { file, .. } = walk(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes)?;
    let fits = bytes.len() as u64 <= MAX_SIGNATURE;
    Ok(String::from_utf8(bytes).ok().filter(|_| fits))
}

pub(crate) fn too_large(name: &str, limit: usize) -> Problem {
    let what = format!("longer than {}", crate::units::show_size(limit as u64));
    Problem::of_file(ProblemKind::TooLarge, name, what)
}

pub(crate) fn digest(bytes: &[u8]) -> Arc<str> {
    use std::fmt::Write;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Arc::from(hex)
}
