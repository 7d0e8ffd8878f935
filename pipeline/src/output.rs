//! Results on stdout. A reader that has seen enough (`| head`) is no error, and the work goes on without it.

use std::fmt::Display;
use std::io::Write;

/// Prints a result and a line break.
pub(crate) fn line(text: impl Display) {
    bytes(format!("{text}\n").as_bytes());
}

/// Prints a result as it is.
pub(crate) fn bytes(result: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // Nothing that could be done: the reader is gone, and stderr is for what goes wrong with the work itself.
    drop(stdout.write_all(result).and_then(|()| stdout.flush()));
}
