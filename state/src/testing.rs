//! A local state for the tests of the embedded doors, and what a crash leaves of it.

#![allow(clippy::unwrap_used, clippy::new_without_default, reason = "a test fails loudly")]

use std::path::Path;

use crate::{State, StateOptions};
use tempfile::TempDir;

/// A local state in a directory of its own.
pub struct TestState {
    /// The state.
    pub state: State,
    dir: TempDir,
}

impl TestState {
    /// An empty one.
    pub fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    /// The state after a crash: what the disk holds at this moment is what a killed process leaves behind.
    pub fn crashed(&self) -> Self {
        let left_behind = tempfile::tempdir().unwrap();
        copy(self.dir.path(), left_behind.path());
        Self::open(left_behind)
    }

    fn open(dir: TempDir) -> Self {
        Self { state: open(dir.path()), dir }
    }
}

/// Opens a state that is not damaged.
pub fn open(dir: &Path) -> State {
    let opened = State::open(dir, StateOptions::default()).unwrap();
    assert_eq!(opened.set_aside, None, "the state is not damaged");
    opened.state
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
