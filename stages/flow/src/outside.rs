//! The health of the outside systems that every call needs.
//!
//! Each system is asked every few seconds, and at once after a request to it failed. One question without an answer
//! says nothing; after the second one the system counts as down, and after one answer as up. While one is down, no new
//! call begins, and calls under way wait in place: NICE is not asked for what could not be stored. Those who wait are
//! woken when the system is up again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use model::System;
use runtime::{Clock, Outage, chance, outage::Say};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

/// Time between two questions to a system that answers.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// And to one that does not.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long a system may take to answer one.
const PATIENCE: Duration = Duration::from_millis(2500);

/// A question to a system; the error says why it did not answer, without a secret.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Whether a system answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemHealth {
    /// It answered when it was last asked, or nobody asks it.
    Up,
    /// It does not answer.
    Down {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: String,
    },
}

/// The health of every system; clones share it.
#[derive(Clone)]
pub struct Outside {
    inner: Arc<Inner>,
}

struct Inner {
    watched: [WatchedSystem; 3],
    clock: Clock,
}

struct WatchedSystem {
    system: System,
    /// Whether anybody asks it: one on the local disk needs no asking.
    is_asked: AtomicBool,
    health: Mutex<SystemHealth>,
    /// Wakes those who wait for it, in the order in which they came.
    changed: Notify,
    /// How many wait for it in place.
    waiting: AtomicU64,
    /// What the log says of its failures.
    outage: Mutex<Outage>,
    suspected: Notify,
}

impl Outside {
    /// All systems count as up until somebody has asked them.
    pub fn new(clock: Clock) -> Self {
        let watched = System::SHARED.map(|system| WatchedSystem {
            system,
            is_asked: AtomicBool::new(false),
            health: Mutex::new(SystemHealth::Up),
            changed: Notify::new(),
            waiting: AtomicU64::new(0),
            outage: Mutex::default(),
            suspected: Notify::new(),
        });
        Self { inner: Arc::new(Inner { watched, clock }) }
    }

    /// Asks a system again and again, until it is dropped.
    pub async fn watch(self, system: System, probe: Probe) {
        let Some(watched) = self.of(system) else { return };
        watched.is_asked.store(true, Ordering::Relaxed);
        let mut silent = 0_u32;
        loop {
            let answer = timeout(PATIENCE, probe()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            match answer {
                Ok(()) => silent = 0,
                Err(_) => silent = silent.saturating_add(1),
            }
            self.note(watched, silent, answer.err());
            match silent {
                0 => {
                    drop(timeout(LOOK_EVERY, watched.suspected.notified()).await);
                }
                _ => sleep(LOOK_AGAIN.mul_f64(chance::range(0.75..1.25))).await,
            }
        }
    }

    fn note(&self, watched: &WatchedSystem, silent: u32, why: Option<String>) {
        let (system, now) = (watched.system, self.inner.clock.now());
        let mut health = watched.health();
        match (&mut *health, why) {
            (SystemHealth::Down { since, .. }, None) => {
                let (secs, failed) = (now.duration_since(*since).as_secs_f64(), watched.outage().over());
                info!(%system, away_secs = secs, count = failed.map(|over| over.count), "answers again");
                *health = SystemHealth::Up;
                drop(health);
                watched.changed.notify_waiters();
            }
            (SystemHealth::Up, Some(reason)) if silent >= 2 => {
                let count = watched.waiting();
                error!(%system, reason, count, "does not answer; calls wait for it, and none is given up");
                watched.outage().failed(now);
                *health = SystemHealth::Down { since: now, why: reason };
            }
            (SystemHealth::Down { why, .. }, Some(reason)) => {
                if let Say::GoesOn { .. } = watched.outage().failed(now) {
                    warn!(%system, reason, count = watched.waiting(), "still does not answer; so many calls wait here");
                }
                *why = reason;
            }
            (SystemHealth::Up, _) => {
                if let Some(over) = watched.outage().over_if_quiet(now) {
                    info!(%system, count = over.count, "works again");
                }
            }
        }
    }

    /// A request to the system failed: it is asked at once whether it answers. The log tells of the first such failure,
    /// and then once a minute.
    pub fn failed(&self, system: System, reason: &str) {
        let Some(watched) = self.of(system) else { return };
        watched.suspected.notify_one();
        if *watched.health() != SystemHealth::Up {
            return;
        }
        match watched.outage().failed(self.inner.clock.now()) {
            Say::Begins => warn!(%system, reason, "failed for a call, which waits for it"),
            Say::GoesOn { count } => warn!(%system, reason, count, "goes on failing"),
            Say::Nothing => {}
        }
    }

    /// How many calls wait for a system in place.
    pub fn waiting(&self, system: System) -> u64 {
        self.of(system).map_or(0, WatchedSystem::waiting)
    }

    /// The health of each system that is asked.
    pub fn health(&self) -> Vec<(System, SystemHealth)> {
        let asked = self.inner.watched.iter().filter(|watched| watched.is_asked.load(Ordering::Relaxed));
        asked.map(|watched| (watched.system, watched.health().clone())).collect()
    }

    /// Whether a system is down.
    pub fn is_down(&self, system: System) -> bool {
        self.of(system).is_some_and(|watched| *watched.health() != SystemHealth::Up)
    }

    /// WaitCount until every system is up, but not longer than `patience`; false if one is still down.
    pub async fn wait_until_up(&self, patience: Duration) -> bool {
        let all = futures::future::join_all(self.inner.watched.iter().map(until_up));
        let _waits: Vec<_> =
            self.inner.watched.iter().filter(|one| *one.health() != SystemHealth::Up).map(WaitCount::new).collect();
        timeout(patience, all).await.is_ok()
    }

    /// The pause before a request to the system is repeated: `delay` where it answers others, and as long as it is
    /// away, but not longer than `patience`. Who waits is woken when it is back.
    pub async fn pause(&self, system: System, delay: Duration, patience: Duration) {
        let begun = Instant::now();
        let watched = self.of(system);
        let _waits = watched.map(WaitCount::new);
        let is_asked = watched.is_some_and(|watched| watched.is_asked.load(Ordering::Relaxed));
        // Time enough for the questions that find out whether it is away.
        let least = if is_asked { 3 * LOOK_AGAIN } else { Duration::ZERO };
        sleep(delay.max(least).min(patience)).await;
        if let Some(watched) = watched {
            // Over in time, or it is asked once more all the same.
            drop(timeout(patience.saturating_sub(begun.elapsed()), until_up(watched)).await);
        }
    }

    fn of(&self, system: System) -> Option<&WatchedSystem> {
        self.inner.watched.iter().find(|watched| watched.system == system)
    }
}

/// Counts who waits for a system, for as long as it lives.
struct WaitCount<'a>(&'a AtomicU64);

impl<'a> WaitCount<'a> {
    fn new(watched: &'a WatchedSystem) -> Self {
        watched.waiting.fetch_add(1, Ordering::Relaxed);
        Self(&watched.waiting)
    }
}

impl Drop for WaitCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WatchedSystem {
    fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, SystemHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until_up(watched: &WatchedSystem) {
    loop {
        let mut changed = std::pin::pin!(watched.changed.notified());
        // Before the look, so that a change after it is not missed.
        changed.as_mut().enable();
        if *watched.health() == SystemHealth::Up {
            return;
        }
        changed.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use runtime::task;

    struct Rig {
        outside: Outside,
        answers: Arc<AtomicBool>,
        asked: Arc<AtomicU32>,
        _watching: tokio_util::task::AbortOnDropHandle<()>,
    }

    fn rig() -> Rig {
        let outside = Outside::new(Clock::system());
        let (answers, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let probe: Probe = {
            let (answers, asked) = (answers.clone(), asked.clone());
            Arc::new(move || {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answers.load(Ordering::SeqCst).then_some(()).ok_or("refused".to_owned());
                Box::pin(std::future::ready(answer))
            })
        };
        let _watching = task::spawn("watch", outside.clone().watch(System::Catalog, probe));
        Rig { outside, answers, asked, _watching }
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_is_away_after_two_questions_and_who_waits_is_woken_when_it_is_back() {
        let rig = rig();
        sleep(Duration::from_secs(60)).await;
        assert!(rig.outside.wait_until_up(Duration::ZERO).await);
        rig.answers.store(false, Ordering::SeqCst);
        sleep(Duration::from_secs(8)).await;
        assert!(rig.outside.is_down(System::Catalog) && !rig.outside.is_down(System::Queue));
        assert!(!rig.outside.wait_until_up(Duration::from_secs(3)).await);
        let waits = rig.outside.clone();
        let waiting = task::spawn("wait", async move {
            let begun = Instant::now();
            waits.pause(System::Catalog, Duration::from_secs(1), Duration::from_secs(3600)).await;
            begun.elapsed()
        });
        sleep(Duration::from_secs(600)).await;
        rig.answers.store(true, Ordering::SeqCst);
        let waited = waiting.await.unwrap();
        assert!(waited >= Duration::from_secs(600) && waited < Duration::from_secs(602), "{waited:?}");
        assert!(!rig.outside.is_down(System::Catalog));
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_without_an_answer_says_nothing() {
        let rig = rig();
        sleep(Duration::from_secs(1)).await;
        let before = rig.asked.load(Ordering::SeqCst);
        rig.answers.store(false, Ordering::SeqCst);
        rig.outside.failed(System::Catalog, "a cut connection");
        sleep(Duration::from_millis(100)).await;
        assert_eq!(rig.asked.load(Ordering::SeqCst), before + 1, "it is asked at once");
        assert!(!rig.outside.is_down(System::Catalog));
        rig.answers.store(true, Ordering::SeqCst);
        sleep(Duration::from_secs(60)).await;
        assert!(!rig.outside.is_down(System::Catalog));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_before_a_system_that_answers_others_is_the_delay() {
        let rig = rig();
        let begun = Instant::now();
        rig.outside.pause(System::Catalog, Duration::from_secs(7), Duration::from_secs(600)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
        rig.outside.pause(System::Nice, Duration::from_secs(7), Duration::from_secs(5)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(12));
    }
}
