//! Everything that happens, as one hash: two runs of a seed are the same run if their hashes are.
//!
//! The last lines are kept for whoever looks at a run that failed; a file may take all of them.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Lines that are kept in memory.
const KEPT: usize = 400;

/// The journal of a run; clones write to the same one.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    begun: Instant,
    hash: Sha256,
    lines: u64,
    last: VecDeque<String>,
    file: Option<std::io::BufWriter<std::fs::File>>,
}

impl Journal {
    /// A journal that begins now. `file` takes every line.
    pub fn new(file: Option<std::fs::File>) -> Self {
        let file = file.map(std::io::BufWriter::new);
        let inner = Inner { begun: Instant::now(), hash: Sha256::new(), lines: 0, last: VecDeque::new(), file };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Notes what happens now.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let at = inner.begun.elapsed();
        let line = format!("{:>12.3} {what}", at.as_secs_f64());
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        inner.lines += 1;
        if let Some(file) = &mut inner.file {
            // A journal that cannot be written is of no consequence for the run.
            drop(writeln!(file, "{line}"));
        }
        if inner.last.len() == KEPT {
            inner.last.pop_front();
        }
        inner.last.push_back(line);
    }

    /// The hash of all lines so far, and how many they are.
    pub fn hash(&self) -> (String, u64) {
        let inner = self.inner();
        let hash = inner.hash.clone().finalize();
        (hash.iter().map(|byte| format!("{byte:02x}")).collect(), inner.lines)
    }

    /// The last lines.
    pub fn last(&self) -> Vec<String> {
        self.inner().last.iter().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
