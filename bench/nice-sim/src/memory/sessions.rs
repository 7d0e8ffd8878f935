//! The agents' sessions that clients have joined.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use super::lock;
use crate::{
    chance::{derive, word},
    clock::Millis,
};

/// How often a waiting request looks at the schedule, as long as few of them wait.
const TICK: Duration = Duration::from_millis(25);

/// The same in simulated time, where each look would hold up the whole simulation.
const GIVEN_TICK: Duration = Duration::from_secs(1);

/// So many waiting requests are few; the more there are, the less often each of them looks.
const FEW: u32 = 64;

/// Sessions kept; joining over and over shall not fill the memory.
const KEPT: usize = 10_000;

/// The sessions that may ask for their next event.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    /// Requests that wait, on whichever session.
    waiting: u32,
    issued: u64,
    by_id: HashMap<String, Feed>,
}

/// Whose events a session shows, and up to when it has shown them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    pub(crate) agent: i64,
    pub(crate) shown_to: Millis,
    pub(crate) begun: bool,
}

impl Sessions {
    /// Opens a session and gives its id.
    pub(crate) fn open(&self, seed: u64, feed: Feed) -> String {
        let mut open = lock(&self.0);
        if open.by_id.len() >= KEPT {
            open.by_id.clear();
        }
        open.issued += 1;
        let id = format!("{:016x}{:016x}", word(derive(seed, "session"), open.issued), open.issued);
        open.by_id.insert(id.clone(), feed);
        id
    }

    /// What a session shows, while it is open.
    pub(crate) fn get(&self, id: &str) -> Option<Feed> {
        lock(&self.0).by_id.get(id).copied()
    }

    /// Ends a session.
    pub(crate) fn close(&self, id: &str) {
        lock(&self.0).by_id.remove(id);
    }

    /// Waits until it is worth to look again.
    pub(crate) async fn tick(&self, is_given: bool) {
        let waiting = Waiting::new(self);
        let tick = if is_given { GIVEN_TICK } else { TICK * (1 + waiting.count / FEW) };
        tokio::time::sleep(tick).await;
    }
}

/// Counts a request that waits, for as long as it does.
struct Waiting<'a> {
    sessions: &'a Sessions,
    count: u32,
}

impl<'a> Waiting<'a> {
    fn new(sessions: &'a Sessions) -> Self {
        let mut open = lock(&sessions.0);
        open.waiting += 1;
        Self { sessions, count: open.waiting }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.sessions.0).waiting -= 1;
    }
}
