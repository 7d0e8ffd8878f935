//! The executable `nice-knovvu`; all of it stands in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nice_knovvu::run()
}
