//! One file for a bug report: a tar archive (POSIX ustar), compressed if its name ends in `.zst`.
//!
//! Promises: readable by every tar; for its owner alone. Never: holds a value of a module's environment.

use lair_actors::dossier::Dossier;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const BLOCK: usize = 512;

/// What the files are.
#[must_use]
pub fn readme(d: &Dossier) -> String {
    format!(
        "About run {} of the module {}, put together by lair {} at {}.\n\n\
         why.txt       the page that `lair why` shows\n\
         dossier.json  all of it: plan, command, exit, probes, events, the last lines of its output\n\
         earlier/      the dossiers of the runs before\n\
         runtime.json  version, folders and counters of the runtime\n\
         doctor.json   what the machine offers and lacks\n\n\
         Values of the environment are shown by their names (${{env.NAME}}), what looks like a key as [hidden].\n",
        d.run, d.name, d.lair, d.written_at
    )
}

/// Indented JSON.
#[must_use]
pub fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Writes the archive; everything in it is below `folder`.
///
/// # Errors
/// The file can't be written.
pub fn write(file: &Path, folder: &str, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let tar = tar(folder, files)?;
    let compressed = file.extension().is_some_and(|e| e == "zst");
    let bytes = if compressed {
        zstd::encode_all(&tar[..], 9)?
    } else {
        tar
    };
    write_private(file, &bytes)
}

/// Writes a file that nobody else reads, unless it is there and is read by others already.
///
/// # Errors
/// The file can't be written.
pub fn write_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(bytes)
}

fn tar(folder: &str, files: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.extend_from_slice(&header(&format!("{folder}/{name}"), bytes.len())?);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn header(name: &str, size: usize) -> io::Result<[u8; BLOCK]> {
    let mut h = [0u8; BLOCK];
    if name.len() > 100 || !name.is_ascii() {
        return Err(io::Error::other("a name is too long for a tar archive"));
    }
    let mut put = |at: usize, text: &str| h[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    let seconds = super::time::now_ms().max(0) / 1000;
    put(136, &format!("{seconds:011o}\0"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(h)
}
