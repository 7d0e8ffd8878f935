//! The programs of the machine: where they are, and what to do where they are not.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many seconds a command of a server may take.
const COMMAND_SECONDS: &str = "120";

/// The oldest PostgreSQL that the product is for.
const OLDEST_POSTGRESQL: u32 = 13;

/// Whom a server runs as.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user of PostgreSQL where this process is root, whom PostgreSQL refuses; else none, to run it as oneself.
pub(crate) fn postgres_user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    });
    Some(user.unwrap_or_else(|| missing("the user postgres", "postgresql")))
}

/// The directory of the newest PostgreSQL's programs.
pub(crate) fn postgresql() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let programs = numbers
        .filter(|version| *version >= OLDEST_POSTGRESQL)
        .map(|version| (version, PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists());
    let newest = programs.max_by_key(|(version, _)| *version);
    newest.unwrap_or_else(|| missing("/usr/lib/postgresql/*/bin/initdb", "postgresql")).1
}

/// A program at a fixed place.
pub(crate) fn at(path: &'static str, package: &str) -> &'static Path {
    let path = Path::new(path);
    if path.exists() { path } else { missing(&path.display().to_string(), package) }
}

/// A command that ends soon by itself, or is killed.
pub(crate) fn short(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", COMMAND_SECONDS]).arg(program).stdin(Stdio::null()).current_dir("/");
    command
}

/// Has a command run as that user.
pub(crate) fn run_as(command: &mut Command, user: Option<User>) -> &mut Command {
    match user {
        Some(User { uid, gid }) => command.uid(uid).gid(gid),
        None => command,
    }
}

/// What the command printed, or why it failed.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{command:?}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn missing(what: &str, package: &str) -> ! {
    panic!("{what} is missing, of the package {package}; run ./test, which installs it")
}
