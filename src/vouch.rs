//! What vouches for a manifest before it is planned: its checksum, and for native modules the rules of trust.
//!
//! Owns: the gathering of evidence for [`lair_manifests::trust::decide`]. Promises: a checksum that is there is verified,
//! whoever hands the manifest over. Never: decides on trust itself.

use crate::handle::{Inner, Refused};
use lair_manifests::integrity::{Checked, checksum};
use lair_manifests::trust::{self, Evidence};
use lair_manifests::{Source, Stack, TrustDecision, TrustScope, read_signature};

/// Whether the module at `index` may run natively.
///
/// # Errors
/// `checksum_mismatch`: it may not run at all.
pub(crate) fn trusted(
    inner: &Inner,
    source: &Source,
    vouched: bool,
    stack: &Stack,
    index: usize,
) -> Result<TrustDecision, Refused> {
    verify(source, stack, index)?;
    let Some(module) = stack.modules.get(index).filter(|_| !vouched) else {
        return Ok(Ok(()));
    };
    let uid = rustix::process::geteuid().as_raw();
    let modules = inner.folders.config.join("modules");
    let scope = match &source.facts {
        None => TrustScope::Bridge,
        Some(_) if inner.foreground => TrustScope::Foreground { uid },
        Some(_) => TrustScope::Daemon {
            uid,
            modules: &modules,
        },
    };
    let config = inner.config();
    let rules = config.trust.as_ref();
    let wanted = rules.is_some_and(|trust| trust.native.iter().any(|rule| rule.key.is_some()));
    let signature = if wanted {
        let named = module.integrity.as_ref().and_then(|i| i.signature.as_ref());
        read_signature(source, named.map(lair_manifests::words::Note::as_str))
    } else {
        Err("no key is trusted".to_owned())
    };
    let evidence = Evidence {
        name: module.name.as_str(),
        digest: &source.digest,
        text: source.text.as_bytes(),
        file: source.facts.as_ref(),
        signature: signature.as_deref().map_err(String::as_str),
    };
    Ok(trust::decide(rules, scope, &evidence))
}

fn verify(source: &Source, stack: &Stack, index: usize) -> Result<(), Refused> {
    let name = stack.modules.get(index).map_or("", |m| m.name.as_str());
    let message = match checksum(source, stack, index) {
        Checked::Absent | Checked::Right => return Ok(()),
        Checked::Wrong { written, real } => format!(
            "the manifest of `{name}` is not as its `integrity.checksum` says: it says {written}, the file has {real}"
        ),
        Checked::Unknown { .. } => {
            format!("the `integrity.checksum` of `{name}` is no SHA-256, so it can't be verified")
        }
    };
    Err(Refused::new("checksum_mismatch", message)
        .help("get the manifest again from whoever made it; if you changed it yourself, write the new checksum, or leave it out"))
}
