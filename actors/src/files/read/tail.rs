//! Finding where the last N records begin, from the end backwards.
//!
//! Plain segments are read in blocks from their ends; compressed ones can only be read
//! forward, and are, with the places of the last N kept.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memrchr;

use crate::files::{Folder, SegmentName};

use super::query::Query;
use super::segment::{Cursor, Segment, entry};

const BLOCK: u64 = 64 << 10;
/// A line that is longer than this is taken as several.
const LONGEST: usize = 1 << 20;

type Found = (Vec<SegmentName>, Vec<u64>);

/// The segments to read, and from where each, so that the last `count` records of
/// those that fit are given. `first` is where the first of `names` begins.
pub(super) fn find(
    folder: &Folder,
    names: &[SegmentName],
    first: u64,
    query: &Query,
    count: usize,
) -> io::Result<Found> {
    let (mut kept, mut starts, mut missing) = (Vec::new(), Vec::new(), count);
    for (at, &name) in names.iter().enumerate().rev() {
        if missing == 0 {
            break;
        }
        let floor = if at == 0 { first } else { 0 };
        let (start, found) = match folder.read(&name.to_string()) {
            Ok(file) => backwards(&file, name, floor, query, missing)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match Segment::open(folder, name, floor) {
                    Ok(segment) => forwards(segment, query, missing)?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        };
        missing -= found;
        kept.push(name);
        starts.push(if missing == 0 { start } else { floor });
    }
    kept.reverse();
    starts.reverse();
    Ok((kept, starts))
}

/// Where the last `count` records that fit begin, and how many there are.
fn backwards(
    file: &File,
    name: SegmentName,
    floor: u64,
    query: &Query,
    count: usize,
) -> io::Result<(u64, usize)> {
    // `held` are the bytes from `at` up to the oldest line end seen.
    let (mut at, mut found, mut start) = (file.metadata()?.len(), 0, floor);
    let mut held: Vec<u8> = Vec::new();
    while found < count {
        // The line end that ends the last held line is no start of one.
        let body = held.len() - usize::from(held.ends_with(b"\n"));
        let begin = match memrchr(b'\n', &held[..body]) {
            Some(newline) => newline + 1,
            None if at > floor && held.len() < LONGEST => {
                let from = at.saturating_sub(BLOCK).max(floor);
                let mut block = vec![0; usize::try_from(at - from).unwrap_or(0)];
                file.read_exact_at(&mut block, from)?;
                block.extend_from_slice(&held);
                held = block;
                at = from;
                continue;
            }
            None if held.is_empty() => break,
            None => 0,
        };
        let whole = held.ends_with(b"\n");
        let line = &held[begin..held.len() - usize::from(whole)];
        let here = Cursor::at(name, at + begin as u64);
        if query.fits(&entry(line, whole, here, here)) {
            found += 1;
            start = here.offset;
        }
        held.truncate(begin);
    }
    Ok((start, found))
}

fn forwards(mut segment: Segment, query: &Query, count: usize) -> io::Result<(u64, usize)> {
    let mut places = VecDeque::new();
    let begin = segment.offset();
    while let Some(entry) = segment.next(true)? {
        if query.fits(&entry) {
            if places.len() == count {
                places.pop_front();
            }
            places.push_back(entry.here.offset);
        }
    }
    Ok((places.front().copied().unwrap_or(begin), places.len()))
}
