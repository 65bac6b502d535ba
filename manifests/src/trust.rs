//! Whether a native module is trusted to run as a process of this user.
//!
//! Owns: the rule. Promises: decides from facts alone; every refusal is a sentence with a next step. Never: opens a
//! file; see [`crate::source::read_manifest`] for the facts.

use crate::decode::{Sink, View};
use crate::record::record;
use crate::words::{AbsolutePath, Line, ModuleId};
use std::path::{Path, PathBuf};

/// The answer: trusted, or why not.
pub type TrustDecision = Result<(), String>;

record! {
    /// Which modules are trusted.
    pub struct Trust {
        /// Native ones; any rule that matches is enough.
        native: Vec<TrustRule> = Vec::new(),
    }
}

record! {
    /// One rule: a name with the SHA-256 of its manifest, a folder, or a key.
    pub struct TrustRule checked by shape {
        /// The module's name; with `sha256`.
        name: Option<ModuleId> = None,
        /// SHA-256 of the manifest file, 64 hex digits.
        sha256: Option<Sha256Hex> = None,
        /// A folder whose files are trusted, if they and it belong to a trusted user.
        path: Option<AbsolutePath> = None,
        /// A minisign public key. Not supported yet: nothing is trusted by it.
        key: Option<Line> = None,
    }
}

/// 64 hex digits.
pub type Sha256Hex = crate::words::Digest;

fn shape(rule: &TrustRule, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let by_digest = rule.name.is_some() || rule.sha256.is_some();
    let kinds = [by_digest, rule.path.is_some(), rule.key.is_some()];
    let whole = rule.name.is_some() == rule.sha256.is_some();
    if whole && kinds.iter().filter(|k| **k).count() == 1 {
        return Some(());
    }
    let help = "one of `{ name, sha256 }`, `{ path }`, `{ key }`";
    view.invalid_help(sink, "this is no rule of trust", help)
}

/// What is known of a manifest's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its absolute path.
    pub path: PathBuf,
    /// The user who owns it.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Its mode bits.
    pub mode: u32,
    /// Owner, group and mode of the folder it lies in, links resolved.
    pub folder: Option<(u32, u32, u32)>,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

/// Who asks, and how the manifest came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustScope<'s> {
    /// `lair run` and `lair up` in the foreground, by a user.
    Foreground {
        /// The invoking user.
        uid: u32,
    },
    /// The daemon, from a file.
    Daemon {
        /// The daemon's user.
        uid: u32,
        /// `<its config folder>/modules`.
        modules: &'s Path,
    },
    /// Over the bridge: text, without a file; the digest of the text.
    Bridge {
        /// SHA-256 of the text, lower-case hex.
        digest: &'s str,
    },
}

/// Decides whether a native module is trusted.
///
/// # Errors
/// Why not, and what would change that.
pub fn decide(
    trust: Option<&Trust>,
    scope: TrustScope<'_>,
    name: &str,
    file: Option<&FileFacts>,
) -> TrustDecision {
    if let Some(trust) = trust {
        return by_rules(trust, scope, name, file);
    }
    match (scope, file) {
        (TrustScope::Bridge { .. }, _) => Err(
            "a manifest that came over the bridge is not trusted to run natively; name it in `runtime.trust.native`".to_owned(),
        ),
        (_, None) => Err("a manifest without a file is not trusted to run natively".to_owned()),
        (TrustScope::Foreground { uid }, Some(file)) => owned(file, uid),
        (TrustScope::Daemon { uid, modules }, Some(file)) => {
            if !inside(&file.path, modules) {
                return Err(format!(
                    "the daemon trusts manifests in {} only; put it there, or name it in `runtime.trust.native`",
                    modules.display()
                ));
            }
            owned(file, uid)
        }
    }
}

fn by_rules(
    trust: &Trust,
    scope: TrustScope<'_>,
    name: &str,
    file: Option<&FileFacts>,
) -> TrustDecision {
    let uid = match scope {
        TrustScope::Foreground { uid } | TrustScope::Daemon { uid, .. } => Some(uid),
        TrustScope::Bridge { .. } => None,
    };
    let digest = match scope {
        TrustScope::Bridge { digest } => Some(digest),
        _ => file.map(|f| f.sha256.as_str()),
    };
    let mut why = "no rule of `runtime.trust.native` matches it".to_owned();
    for rule in &trust.native {
        if let (Some(wanted), Some(sha256)) = (&rule.name, &rule.sha256)
            && wanted.as_str() == name
        {
            match digest {
                Some(digest) if sha256.as_str().eq_ignore_ascii_case(digest) => return Ok(()),
                _ => why = "its manifest is not the one that `runtime.trust.native` names: the SHA-256 differs".to_owned(),
            }
        }
        if let (Some(folder), Some(file), Some(uid)) = (&rule.path, file, uid)
            && inside(&file.path, Path::new(folder.as_str()))
        {
            match owned(file, uid) {
                Ok(()) => return Ok(()),
                Err(reason) => why = reason,
            }
        }
        if rule.key.is_some() {
            why.push_str("; trust by key (minisign) is not supported yet");
        }
    }
    Err(why)
}

fn inside(path: &Path, folder: &Path) -> bool {
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    path.is_absolute() && !climbs && path.starts_with(folder)
}

/// Owned by the user or root, file and folder, and nobody else can write.
fn owned(file: &FileFacts, uid: u32) -> TrustDecision {
    let path = file.path.display();
    let trusted = |owner: u32| owner == uid || owner == 0;
    if !trusted(file.owner) {
        return Err(format!(
            "{path} belongs to user {}, not to user {uid} or root",
            file.owner
        ));
    }
    if writable(file.owner, file.group, file.mode) {
        return Err(format!("{path} can be written by others; `chmod go-w` it"));
    }
    match file.folder {
        None => Err(format!("the folder of {path} can't be looked at")),
        Some((owner, _, _)) if !trusted(owner) => Err(format!(
            "the folder of {path} belongs to user {owner}, not to user {uid} or root"
        )),
        Some((owner, group, mode)) if writable(owner, group, mode) && mode & 0o1000 == 0 => Err(
            format!("the folder of {path} can be written by others; `chmod go-w` it"),
        ),
        Some(_) => Ok(()),
    }
}

/// Whether others can write. A group with its owner's number is that user's own (user private groups, umask 002).
fn writable(owner: u32, group: u32, mode: u32) -> bool {
    mode & 0o002 != 0 || (mode & 0o020 != 0 && group != owner)
}
