//! Memory that only the start needed.
//!
//! Promises: what is given back is read again from the program's file when it is needed; nothing that was ever written
//! to is touched. Never called by a library's user: the allocator is the whole program's.

use procfs::process::{MMPermissions, MMapPath, Process};
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
        let written = map.extension.map.get("Anonymous").is_none_or(|n| *n > 0);
        if !is_program || written || map.perms.contains(MMPermissions::WRITE) {
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

#[cfg(test)]
mod tests {
    use super::give_back;

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
