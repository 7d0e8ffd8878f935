//! The embedded queue passes the door's suite, and keeps its own promises.

use std::path::Path;

use state::{State, StateOptions};
use tempfile::TempDir;

use super::*;
use crate::clients::queue::conformance::{Subject, queue_checks};

struct Embedded {
    dir: TempDir,
    state: State,
    queue: EmbeddedQueue,
}

impl Embedded {
    fn open(dir: TempDir) -> Self {
        let opened = State::open(dir.path(), StateOptions::default()).unwrap();
        assert_eq!(opened.set_aside, None, "the state is not damaged");
        let queue = EmbeddedQueue::open(opened.state.store(), Clock::system()).unwrap();
        Self { dir, state: opened.state, queue }
    }
}

impl Subject for Embedded {
    async fn fresh() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    /// What the disk holds at this moment is what a killed process leaves behind.
    async fn crash(self) -> Self {
        let left_behind = tempfile::tempdir().unwrap();
        copy(self.dir.path(), left_behind.path());
        drop(self.state);
        Self::open(left_behind)
    }
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

queue_checks!(Embedded);
