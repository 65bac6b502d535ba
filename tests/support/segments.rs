//! A module's log files, read as one account while lair writes, compresses and removes them.
//!
//! Owns: nothing. Promises: each segment is there once, whole and decoded, oldest first; what a compression in progress
//! or a kill left beside it is no segment. Never: waits, or takes a name for a segment that is none of lair's.

use lair::actors::files::SegmentName;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// All segments in a module's folder, which may not be there yet. The newest of a run may end in the middle of a record.
pub fn read(dir: &Path) -> Vec<(SegmentName, Vec<u8>)> {
    let opened = opened(dir);
    opened
        .into_iter()
        .map(|(name, file)| (name, decoded(name, file)))
        .collect()
}

/// What is open outlives its name. One that was renamed or removed after the listing makes the listing old, and nothing else.
fn opened(dir: &Path) -> Vec<(SegmentName, File)> {
    loop {
        let open = |name: SegmentName| Ok((name, File::open(dir.join(name.to_string()))?));
        let all: io::Result<Vec<_>> = names(dir).into_iter().map(open).collect();
        match all {
            Ok(all) => return all,
            Err(fault) if fault.kind() == ErrorKind::NotFound => {}
            Err(fault) => panic!("{}: {fault}", dir.display()),
        }
    }
}

/// A segment in both forms is the compressed one: that gets its name when it is whole, and the other goes next.
fn names(dir: &Path) -> Vec<SegmentName> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| SegmentName::parse(e.file_name().as_encoded_bytes()));
    let mut forms: BTreeMap<SegmentName, bool> = BTreeMap::new();
    for name in names {
        *forms.entry(name.with_zst(false)).or_default() |= name.zst;
    }
    let form = |(name, zst): (SegmentName, bool)| name.with_zst(zst);
    forms.into_iter().map(form).collect()
}

fn decoded(name: SegmentName, mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("a segment");
    match name.zst {
        true => zstd::decode_all(&bytes[..]).expect("a whole segment"),
        false => bytes,
    }
}
