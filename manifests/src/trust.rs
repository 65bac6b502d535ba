//! Whether a native module is trusted to run as a process of this user.
//!
//! Owns: the rules, of which any that matches is enough: the digest of the manifest, a signature over it, the folder
//! where it lies. Promises: decides from facts alone; every refusal names the rule and the line of the configuration
//! that would allow it. Never: opens a file; see [`crate::source::read_manifest`] for the facts.

use crate::decode::{Sink, View};
use crate::record::record;
use crate::words::{AbsolutePath, Line, ModuleId};
use minisign_verify::{PublicKey, Signature};
use std::fmt;
use std::path::{Path, PathBuf};

/// The answer: trusted, or why not.
pub type TrustDecision = Result<(), Distrust>;

/// Why a module is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrust {
    /// The rule that was not met: `trust.native` of the configuration, or `trust.default`, which holds without it.
    pub rule: &'static str,
    /// A sentence fragment.
    pub message: String,
    /// What to change, or the line of the configuration that would allow it.
    pub allow: String,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.allow)
    }
}

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
        /// A folder whose files are trusted, if they and all folders above them are written by trusted users alone.
        path: Option<AbsolutePath> = None,
        /// A minisign public key: manifests that it has signed are trusted.
        key: Option<Line> = None,
    }
}

/// 64 hex digits.
pub type Sha256Hex = crate::words::Digest;

fn shape(rule: &TrustRule, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    let by_digest = rule.name.is_some() || rule.sha256.is_some();
    let kinds = [by_digest, rule.path.is_some(), rule.key.is_some()];
    let whole = rule.name.is_some() == rule.sha256.is_some();
    if !whole || kinds.iter().filter(|k| **k).count() != 1 {
        let help = "one of `{ name, sha256 }`, `{ path }`, `{ key }`";
        return view.invalid_help(sink, "this is no rule of trust", help);
    }
    if let Some(key) = &rule.key
        && PublicKey::from_base64(key.as_str()).is_err()
    {
        let help = "the second line of a `minisign.pub` file: 56 characters that begin with RW";
        return view.invalid_help(sink, "this is no minisign public key", help);
    }
    Some(())
}

/// What is known of a manifest's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its absolute path, as named.
    pub path: PathBuf,
    /// The user who owns it.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Its mode bits.
    pub mode: u32,
    /// Whether an access list says who may write to it.
    pub acl: bool,
    /// Every folder and link from `/` to it.
    pub way: Vec<Step>,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

/// One folder or link on the way to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: StepKind,
    /// The user who owns it.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Its mode bits.
    pub mode: u32,
    /// Whether an access list says who may write to it.
    pub acl: bool,
}

/// What a step on the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A folder.
    Folder,
    /// A symbolic link that was followed.
    Link,
}

/// What a manifest shows for itself.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'e> {
    /// The module's name.
    pub name: &'e str,
    /// SHA-256 of the text, lower-case hex.
    pub digest: &'e str,
    /// The text itself: what a signature is over.
    pub text: &'e [u8],
    /// Its file; nothing for a text that came another way.
    pub file: Option<&'e FileFacts>,
    /// The text of its minisign signature, or why there is none.
    pub signature: Result<&'e str, &'e str>,
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
    /// Over the bridge: text, without a file.
    Bridge,
}

/// Decides whether a native module is trusted.
///
/// # Errors
/// Why not, and what would change that.
pub fn decide(trust: Option<&Trust>, scope: TrustScope<'_>, shown: &Evidence<'_>) -> TrustDecision {
    if let Some(trust) = trust {
        return by_rules(trust, scope, shown);
    }
    let refuse = |rule, message: String| Err(distrust(rule, message, shown));
    match (scope, shown.file) {
        (TrustScope::Bridge, _) => refuse(
            DEFAULT,
            "a manifest that came over the bridge is not trusted to run natively".to_owned(),
        ),
        (_, None) => refuse(
            DEFAULT,
            "a manifest without a file is not trusted to run natively".to_owned(),
        ),
        (TrustScope::Foreground { uid }, Some(file)) => {
            owned(file, uid).map_err(|w| w.distrust(DEFAULT, shown))
        }
        (TrustScope::Daemon { uid, modules }, Some(file)) => {
            if !inside(&file.path, modules) {
                let folder = modules.display();
                return refuse(
                    DEFAULT,
                    format!("the daemon trusts manifests in {folder} only"),
                );
            }
            owned(file, uid).map_err(|w| w.distrust(DEFAULT, shown))
        }
    }
}

/// The rule that holds without a `trust:` key.
const DEFAULT: &str = "trust.default";

fn by_rules(trust: &Trust, scope: TrustScope<'_>, shown: &Evidence<'_>) -> TrustDecision {
    const RULE: &str = "trust.native";
    let mut why = distrust(RULE, "no rule of it matches".to_owned(), shown);
    for rule in &trust.native {
        let refused = match (&rule.name, &rule.sha256, &rule.path, &rule.key) {
            (Some(name), Some(sha256), ..) if name.as_str() == shown.name => {
                if sha256.as_str().eq_ignore_ascii_case(shown.digest) {
                    return Ok(());
                }
                let message = format!(
                    "its manifest is not the one that is named there: the SHA-256 differs ({})",
                    sha256.as_str()
                );
                distrust(RULE, message, shown)
            }
            (.., Some(folder), _) => match by_folder(folder, scope, shown) {
                Some(Ok(())) => return Ok(()),
                Some(Err(wrong)) => wrong.distrust(RULE, shown),
                None => continue,
            },
            (.., Some(key)) => match by_key(key, shown) {
                Ok(()) => return Ok(()),
                Err(message) => distrust(RULE, message, shown),
            },
            _ => continue,
        };
        why = refused;
    }
    Err(why)
}

/// `None`: the rule is not about this file.
fn by_folder(
    folder: &AbsolutePath,
    scope: TrustScope<'_>,
    shown: &Evidence<'_>,
) -> Option<Result<(), Wrong>> {
    let uid = match scope {
        TrustScope::Foreground { uid } | TrustScope::Daemon { uid, .. } => uid,
        TrustScope::Bridge => return None,
    };
    let file = shown.file?;
    inside(&file.path, Path::new(folder.as_str())).then(|| owned(file, uid))
}

fn by_key(key: &Line, shown: &Evidence<'_>) -> Result<(), String> {
    let text = shown
        .signature
        .map_err(|why| format!("it is not signed: {why}"))?;
    let key =
        PublicKey::from_base64(key.as_str()).map_err(|e| format!("the key is no key: {e}"))?;
    let signature = Signature::decode(text)
        .map_err(|e| format!("its signature is no minisign signature: {e}"))?;
    // The old format signs the file itself: as good, and some still write it.
    key.verify(shown.text, &signature, true).map_err(|e| {
        format!("its signature is not by the key that is trusted, or not over this manifest: {e}")
    })
}

fn distrust(rule: &'static str, message: String, shown: &Evidence<'_>) -> Distrust {
    let (name, digest) = (shown.name, shown.digest);
    let allow = format!(
        "to allow exactly this one, add to `runtime.trust.native`: {{ name: {name}, sha256: {digest} }}"
    );
    Distrust {
        rule,
        message,
        allow,
    }
}

fn inside(path: &Path, folder: &Path) -> bool {
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    path.is_absolute() && !climbs && path.starts_with(folder)
}

/// What is wrong with a file's way, and what would mend it.
struct Wrong {
    message: String,
    mend: Option<String>,
}

impl Wrong {
    fn distrust(self, rule: &'static str, shown: &Evidence<'_>) -> Distrust {
        let mut distrust = distrust(rule, self.message, shown);
        if let Some(mend) = self.mend {
            distrust.allow = format!("{mend}, or {}", distrust.allow);
        }
        distrust
    }
}

/// Owned by the user or root, the file and everything that leads to it, and nobody else can write.
fn owned(file: &FileFacts, uid: u32) -> Result<(), Wrong> {
    for step in &file.way {
        // Who may write to a folder can exchange what is in it; where it is sticky, only what is their own.
        let sticky = step.mode & 0o1000 != 0;
        let open = step.kind == StepKind::Folder
            && !sticky
            && writable(step.owner, step.group, step.mode, step.acl);
        let what = match step.kind {
            StepKind::Folder => "the folder",
            StepKind::Link => "the link",
        };
        judge(what, &step.path, step.owner, uid, open)?;
    }
    let open = writable(file.owner, file.group, file.mode, file.acl);
    judge("the file", &file.path, file.owner, uid, open)
}

fn judge(what: &str, path: &Path, owner: u32, uid: u32, open: bool) -> Result<(), Wrong> {
    let path = path.display();
    if owner != uid && owner != 0 {
        let message = format!("{what} {path} belongs to user {owner}, not to user {uid} or root");
        return Err(Wrong {
            message,
            mend: None,
        });
    }
    if open {
        let message = format!("{what} {path} can be written by others");
        let mend = Some(format!(
            "take their right away (`chmod go-w {path}`, `setfacl -b {path}`)"
        ));
        return Err(Wrong { message, mend });
    }
    Ok(())
}

/// Whether others can write. A group with its owner's number is that user's own (user private groups, umask 002),
/// unless an access list says who else is meant by the group's bits.
fn writable(owner: u32, group: u32, mode: u32, acl: bool) -> bool {
    mode & 0o002 != 0 || (mode & 0o020 != 0 && (group != owner || acl))
}
