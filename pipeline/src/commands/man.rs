//! `man`: the man pages, from the command line's own description.

use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::command_error::CommandError;
use crate::output;

/// Writes a page for the program and one for each command.
pub(crate) fn man(dir: &Path) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::failed(format!("{}: {error}; name a directory that this user may write to", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    output::line(format!("the man pages are in {}: man nice-knovvu", dir.display()));
    Ok(())
}
