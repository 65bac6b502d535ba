//! Signals that wait while nobody could take them.

use std::io;

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
