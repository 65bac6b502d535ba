//! The program `lair`: see `lair --help`, `docs/operating.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The keeper is this program too: it must not go on to the command line.
    lair::hijack();
    lair::actors::keeper::share_one_heap();
    lair::cli::main()
}

/// What runs before the standard library makes itself ready, which reads `/proc/self/maps` and costs more than
/// all that `lair status` asks and prints.
#[cfg(own_entry)]
mod entry {
    use std::ffi::{c_char, c_int};
    use std::panic::catch_unwind;

    /// `exit(3)`'s code for a panic, as the standard library has it.
    const PANICKED: c_int = 101;

    #[allow(unsafe_code, reason = "names that the linker gives (ld(1), --wrap)")]
    unsafe extern "C" {
        fn __real_main(argc: c_int, argv: *const *const c_char) -> c_int;
    }

    /// Called by the C library in `main`'s place.
    #[allow(
        unsafe_code,
        reason = "a name that the linker asks for (ld(1), --wrap)"
    )]
    #[unsafe(no_mangle)]
    extern "C" fn __wrap_main(argc: c_int, argv: *const *const c_char) -> c_int {
        // A reader that leaves is an error to the writer, as the standard library has it.
        // SAFETY: there is one thread, and no memory is involved.
        #[allow(unsafe_code, reason = "signal(2) in a program of one thread")]
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        }
        match catch_unwind(lair::cli::at_once) {
            Ok(Some(code)) => code.into(),
            // SAFETY: the arguments are those the C library called with.
            #[allow(unsafe_code, reason = "the C library's call, passed on")]
            Ok(None) => unsafe { __real_main(argc, argv) },
            Err(_) => PANICKED,
        }
    }
}
