//! The values of secrets, fetched for one start and handed to the keeper or the engine alone.
//!
//! Promises: a value is in no plan, status, event, error or file of lair's; a file that others may read is refused, and
//! no link is followed to one. Never: says more of a value than where it should come from.

use lair_manifests::launch::SecretSource;
use lair_supervision::{StartFault, StartStage};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest value, in bytes: the kernel takes hardly more in one variable.
const MAX_SECRET: u64 = 64 << 10;

/// `NAME=value` of every secret.
pub(super) fn fetch(secrets: &BTreeMap<String, SecretSource>) -> Result<Vec<CString>, StartFault> {
    let fetch = |(name, source): (&String, &SecretSource)| {
        let refuse = |(errno, why): Refusal| {
            let message = format!("cannot have the secret {name}: {why}");
            StartFault {
                stage: StartStage::PrepareDirs,
                errno,
                message,
                transient: errno.is_some_and(super::is_transient),
            }
        };
        let value = value(source).map_err(refuse)?;
        let mut text = format!("{name}=").into_bytes();
        text.extend(value);
        CString::new(text).map_err(|_| refuse((None, "it holds a NUL byte".to_owned())))
    };
    secrets.iter().map(fetch).collect()
}

/// As variables of a container, which are text.
pub(super) fn texts(
    secrets: &BTreeMap<String, SecretSource>,
) -> Result<Vec<(String, String)>, StartFault> {
    let text = |entry: CString| {
        let text = entry.into_string().map_err(|_| StartFault {
            stage: StartStage::PrepareDirs,
            errno: None,
            message: "cannot have a secret: an engine takes text only, and one of them is none"
                .to_owned(),
            transient: false,
        })?;
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        Ok((name.to_owned(), value.to_owned()))
    };
    fetch(secrets)?.into_iter().map(text).collect()
}

/// The system's error number, if there is one, and a sentence fragment.
type Refusal = (Option<i32>, String);

fn value(source: &SecretSource) -> Result<Vec<u8>, Refusal> {
    match source {
        SecretSource::File(path) => read(path, true),
        SecretSource::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or((
                None,
                "lair was started without credentials ($CREDENTIALS_DIRECTORY is not set)"
                    .to_owned(),
            ))?;
            // The service manager keeps that folder from everybody else; the modes in it are its own.
            read(&PathBuf::from(folder).join(name), false)
        }
        SecretSource::Env(name) => {
            use std::os::unix::ffi::OsStringExt;
            let value = std::env::var_os(name);
            let unset = || (None, format!("{name} is not set where lair was started"));
            Ok(value.ok_or_else(unset)?.into_vec())
        }
    }
}

fn read(path: &Path, private: bool) -> Result<Vec<u8>, Refusal> {
    let shown = path.display();
    let failed = |e: io::Error| {
        let words = e.to_string();
        let words = words.split(" (os error").next().unwrap_or_default();
        (e.raw_os_error(), format!("{shown} can't be read: {words}"))
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let stat = fstat(&file).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err((None, format!("{shown} is no regular file")));
    }
    let (mode, owner) = (stat.st_mode & 0o7777, stat.st_uid);
    if private && mode & 0o077 != 0 {
        let why =
            format!("{shown} can be read or written by others (mode {mode:04o}); `chmod 600` it");
        return Err((None, why));
    }
    let me = rustix::process::geteuid().as_raw();
    if private && owner != me && owner != 0 {
        let why = format!("{shown} belongs to user {owner}, not to user {me} or root");
        return Err((None, why));
    }
    let mut bytes = Vec::new();
    let mut bounded = File::from(file).take(MAX_SECRET + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err((None, format!("{shown} is longer than 64 KiB")));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}
