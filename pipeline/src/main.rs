//! The executable `nice-knovvu`; its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nice_knovvu::run()
}
