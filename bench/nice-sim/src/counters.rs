//! What the simulation saw: answers per endpoint, the densest window of playback requests, and violations.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::{Millis, millis};

/// Violations kept; a client that breaks a rule in a loop shall not fill the memory.
const VIOLATIONS_KEPT: usize = 1000;

#[derive(Debug, Default)]
struct Seen {
    answers: BTreeMap<&'static str, BTreeMap<u16, u64>>,
    violations: Vec<String>,
    playback: VecDeque<Millis>,
    playback_peak: usize,
    media_bytes: u64,
}

/// The counters of one simulation.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Seen>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, endpoint: &'static str, status: u16) {
        *self.lock().answers.entry(endpoint).or_default().entry(status).or_default() += 1;
    }

    /// Counts a request to media playback, refused or not.
    pub(crate) fn playback_asked(&self, now: Millis, window: Duration) {
        let mut seen = self.lock();
        seen.playback.push_back(now);
        while seen.playback.front().is_some_and(|first| *first <= now - millis(window)) {
            seen.playback.pop_front();
        }
        seen.playback_peak = seen.playback_peak.max(seen.playback.len());
    }

    /// Counts bytes of media handed to the socket.
    pub(crate) fn media_sent(&self, bytes: u64) {
        self.lock().media_bytes += bytes;
    }

    /// Notes that a client did what it must never do.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        let mut seen = self.lock();
        if seen.violations.len() < VIOLATIONS_KEPT {
            seen.violations.push(what.into());
        }
    }

    pub(crate) fn answers(&self) -> BTreeMap<String, BTreeMap<u16, u64>> {
        self.lock().answers.iter().map(|(endpoint, by_status)| ((*endpoint).to_owned(), by_status.clone())).collect()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(crate) fn playback_peak(&self) -> usize {
        self.lock().playback_peak
    }

    pub(crate) fn media_bytes(&self) -> u64 {
        self.lock().media_bytes
    }
}
