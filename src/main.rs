//! The program `lair`: see `lair --help`, `docs/operating.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The keeper is this program too: it must not go on to the command line.
    lair::hijack();
    lair::actors::keeper::share_one_heap();
    lair::cli::main()
}
