//! The directory of one server, and the guard that ends the server with the test process.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::programs::User;

/// Kills and removes; see there.
const GUARD: &str = include_str!("guard.sh");

/// A server's directory. Dropping it ends the server and removes it.
pub(crate) struct Home {
    path: PathBuf,
    owner: Option<User>,
    guard: Child,
}

impl Home {
    /// An empty directory, with its guard. `owner` is whom its files belong to, if not to this process's user.
    pub(crate) fn new(server: &str, owner: Option<User>) -> Self {
        let prefix = format!("test-{server}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a directory can be made");
        // As /proc tells it: without symbolic links.
        let path = dir.path().canonicalize().expect("the directory is there");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            // Whoever reads the output of the tests to its end must not wait for the guard.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests, and then the guard does its work.
            .process_group(0)
            .spawn()
            .expect("`sh` can be started");
        let home = Self { path, owner, guard };
        // From here on the guard removes it.
        let _kept = dir.keep();
        home.give(&home.path);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory in it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        self.give(&path);
        path
    }

    /// A new file in it, that only its owner may read.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)))
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if let Some(User { uid, gid }) = self.owner {
            chown(path, Some(uid), Some(gid)).unwrap_or_else(|error| panic!("give {}: {error}", path.display()));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It kills and removes within a moment, and gives up after half a minute.
        if let Err(error) = self.guard.wait() {
            eprintln!("the guard of {}: {error}", self.path.display());
        }
    }
}
