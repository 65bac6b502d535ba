//! Memory that only the start needed.
//!
//! Promises: what is given back is read again from the program's file when it is needed; nothing that was ever written
//! to is touched. Never called by a library's user: the allocator is the whole program's.

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};
use rustix::mm::{Advice, madvise};

/// Gives the heap's free pages back to the system, and drops the program's own pages from this process: those that it
/// still needs come back from the page cache when they are touched (madvise(2), MADV_DONTNEED).
pub fn give_back() {
    // SAFETY: takes no pointer; it locks the allocator as any other call of it does (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let maps = Process::myself().and_then(|me| me.smaps());
    for map in maps.into_iter().flatten() {
        let is_program = matches!(&map.pathname, MMapPath::Path(path) if *path == program);
        if !is_program || !is_unwritten(&map) {
            continue;
        }
        let (from, to) = map.address;
        let Ok(len) = usize::try_from(to - from) else {
            continue;
        };
        // SAFETY: a private mapping of a file, not writable and without a page of its own, holds the file's bytes and
        // nothing else; a page that is dropped has the same bytes when it is next touched.
        let done = unsafe { madvise(from as *mut _, len, Advice::LinuxDontNeed) };
        if let Err(error) = done {
            tracing::debug!(%error, "pages of the program are not given back");
        }
    }
}

/// No page of it is this process's own, in memory or swapped out, and none can become so. Tables that the loader fills in
/// and then protects lie in a mapping of the same file, and may all be in swap where memory is short.
fn is_unwritten(map: &MemoryMap) -> bool {
    let own = ["Anonymous", "Swap"].map(|kind| map.extension.map.get(kind));
    own == [Some(&0); 2] && !map.perms.contains(MMPermissions::WRITE)
}

#[cfg(test)]
mod tests {
    use super::{give_back, is_unwritten};
    use procfs::FromBufRead;
    use procfs::process::MemoryMaps;

    #[test]
    fn a_mapping_with_a_page_that_was_written_is_left_alone_wherever_that_is() {
        let map = |perms: &str, anonymous: u64, swap: &str| {
            format!(
                "7f0000000000-7f0000004000 {perms} 00000000 08:01 7 /usr/bin/lair\n\
                 Rss: 4 kB\nAnonymous: {anonymous} kB\n{swap}VmFlags: rd mr mw me\n"
            )
        };
        for (text, unwritten) in [
            (map("r-xp", 0, "Swap: 0 kB\n"), true),
            (map("r--p", 8, "Swap: 0 kB\n"), false),
            (map("r--p", 0, "Swap: 8 kB\n"), false),
            (map("r--p", 0, ""), false),
            (map("rw-p", 0, "Swap: 0 kB\n"), false),
        ] {
            let maps = MemoryMaps::from_buf_read(text.as_bytes()).expect("maps");
            let all: Vec<bool> = maps.iter().map(is_unwritten).collect();
            assert_eq!(all, [unwritten], "{text}");
        }
    }

    fn resident_file() -> u64 {
        let status = procfs::process::Process::myself().and_then(|me| me.status());
        status.expect("status").rssfile.expect("kB of files")
    }

    #[test]
    fn what_was_given_back_is_there_again_when_it_is_needed() {
        let before = resident_file();
        give_back();
        let after = resident_file();
        assert!(after < before, "{before} kB before, {after} kB after");
        // Goes through code and constants that were just dropped.
        let text = format!("{:?} {}", std::env::args().collect::<Vec<_>>(), 1.5_f64);
        assert!(text.ends_with("1.5"));
    }
}
