//! The data extractions that clients have begun.

use std::sync::Mutex;

use super::lock;
use crate::clock::Millis;

/// Jobs kept; the oldest go first.
const KEPT: usize = 1000;

/// The jobs so far.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    last_call: Option<Millis>,
    jobs: Vec<Job>,
}

/// One extraction.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) from: Millis,
    pub(crate) to: Millis,
    pub(crate) ends_at: Millis,
}

/// The column sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Seven,
    Ten,
}

impl Jobs {
    /// Every job that is kept.
    pub(crate) fn all(&self) -> Vec<Job> {
        lock(&self.0).jobs.clone()
    }

    /// A job by its id.
    pub(crate) fn find(&self, id: &str) -> Option<Job> {
        lock(&self.0).jobs.iter().find(|job| job.id == id).cloned()
    }

    /// Whether a job may begin now: none runs, and nobody has asked within `pace`.
    pub(crate) fn may_begin(&self, now: Millis, pace: Millis) -> bool {
        let mut state = lock(&self.0);
        let too_soon = state.last_call.replace(now).is_some_and(|last| now < last + pace);
        !too_soon && state.jobs.iter().all(|job| now >= job.ends_at)
    }

    /// Begins a job, which is made from its number.
    pub(crate) fn begin(&self, job: impl FnOnce(u64) -> Job) -> Job {
        let mut state = lock(&self.0);
        state.begun += 1;
        let job = job(state.begun);
        if state.jobs.len() == KEPT {
            state.jobs.remove(0);
        }
        state.jobs.push(job.clone());
        job
    }
}
