//! Becoming another program, and the signals that wait meanwhile because nobody could take them.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Holds these signals back in this thread, or lets them come: a program that becomes another one (execve(2)) keeps what
/// it holds back, while its handlers are gone and the default of most signals is the end.
///
/// # Errors
/// A number that is no signal.
pub fn hold_back(signals: &[i32], held: bool) -> io::Result<()> {
    let how = if held {
        libc::SIG_BLOCK
    } else {
        libc::SIG_UNBLOCK
    };
    // SAFETY: the set is a local, made empty before it is used; the old one is not asked for.
    let errno = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            if libc::sigaddset(&raw mut set, *signal) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    if errno == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(errno))
    }
}

/// Becomes this program: returns only with the reason why not. Unlike std's `exec` it leaves SIGPIPE ignored, so that
/// none is the end of a process whose other threads hold nothing back (execve(2): what is ignored stays so).
#[must_use]
pub fn become_program(program: &Path, args: &[OsString]) -> io::Error {
    let words = std::iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str));
    let words: Result<Vec<CString>, _> = words.map(|word| CString::new(word.as_bytes())).collect();
    let Ok(words) = words else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let Some(path) = words.first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    // SAFETY: each pointer is to a string that lives until the call returns, and the last one is null.
    unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
    io::Error::last_os_error()
}
