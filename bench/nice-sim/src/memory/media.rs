//! Which bytes were handed out, and their hashes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::lock;
use crate::{clock::Millis, recording::Recording};

/// Each version of each medium that was handed out to its end, and when it last was; the last one last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served(Arc<Mutex<HashMap<String, Versions>>>);

/// Versions of a medium, each with a time.
type Versions = Vec<(u32, Millis)>;

impl Served {
    /// Notes that a version of a medium was handed out to its end.
    pub(crate) fn note(&self, name: &str, version: u32, now: Millis) {
        let mut served = lock(&self.0);
        let versions = served.entry(name.to_owned()).or_default();
        versions.retain(|(other, _)| *other != version);
        versions.push((version, now));
    }

    /// The versions of a medium that were handed out to their ends, each with the beginning of the last such answer; the
    /// last one last.
    pub(crate) fn of(&self, name: &str) -> Versions {
        lock(&self.0).get(name).cloned().unwrap_or_default()
    }
}

/// The hashes computed so far: a recording of gibibytes is generated once.
#[derive(Debug, Default)]
pub(crate) struct Hashes(Mutex<HashMap<Recording, String>>);

impl Hashes {
    /// The hash of a recording, in lower-case hex.
    pub(crate) fn sha256(&self, recording: Recording) -> String {
        let known = lock(&self.0).get(&recording).cloned();
        known.unwrap_or_else(|| {
            let sha256 = recording.sha256();
            lock(&self.0).insert(recording, sha256.clone());
            sha256
        })
    }
}
