//! The rate budget of one tenant towards NICE: what every such budget has in common, and the one in the local state.
//!
//! A limit of `150/5m` means: never more than 150 requests in any 5 minutes. Each request's time and class are durable
//! before the request leaves, so that a crash does not spend the window twice.
//!
//! # Who goes first
//! All draw on the one budget, in the order of [`QuotaClass`]. Live calls, their retries and the group's agents may
//! have all of it. Reconciliation and backfill together have the share that `live_reserve` leaves, one request at a
//! time, evenly: so a live call that finds the window full waits for one of theirs to leave it, not for a whole
//! window. They have none while one of the others waits. Among live calls, retries and agents the order holds within a
//! process only: between processes none but reconciliation and backfill yields.
//!
//! # Others on the same quota
//! A 429 says that somebody else takes of it. The budget closes for a moment and goes on with less, as
//! `restraint` tells.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::nice::{ApiFamily, NiceError, QuotaClass};

mod local;
mod restraint;

pub use local::{LocalLedger, LocalQuota};

/// A limit: never more than so many requests in any span of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests, at least one.
    pub limit: u32,
    /// The span.
    pub window: Duration,
}

/// NICE counts a request when it arrives, we when it leaves: one that was under way for longer may arrive together
/// with a later one.
const UNDER_WAY: Duration = Duration::from_millis(250);

impl Rate {
    /// How long a request counts: the span, and what two requests may differ in on their way. A short span is not
    /// stretched by more than a quarter.
    pub fn counted_for(&self) -> Duration {
        self.window + UNDER_WAY.min(self.window / 4)
    }

    /// The time between two requests that are spread evenly.
    pub(super) fn spacing(&self) -> Duration {
        self.window / self.limit.max(1)
    }
}

/// What each class may have of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    rate: Rate,
    live_reserve: f64,
}

/// What a share may be off by in floating point: 1 − 0.9 is less than a tenth.
const ROUNDING: f64 = 1e-9;

/// Of an even request's spacing, this part may be made up for when it comes late.
const SLACK_SHARE: u32 = 4;

/// However fast the pace: timers and commits are no finer.
const SLACK_AT_LEAST: Duration = Duration::from_millis(100);

impl Shares {
    /// `live_reserve`, from 0 to 1, is the part that backfill may never take.
    pub fn new(rate: Rate, live_reserve: f64) -> Self {
        Self { rate, live_reserve: live_reserve.clamp(0.0, 1.0) }
    }

    /// The limit they are shares of.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The part that backfill may never take.
    pub fn live_reserve(&self) -> f64 {
        self.live_reserve
    }

    /// The most requests of the class in a window that has `most` of all classes. Reconciliation and backfill have
    /// theirs together. A reserve of everything leaves backfill none; the nightly comparison always has one.
    pub fn most(&self, class: QuotaClass, most: u32) -> u32 {
        let left = f64::from(most) * (1.0 - self.live_reserve) + ROUNDING;
        match class {
            QuotaClass::Live | QuotaClass::Retry | QuotaClass::Agents => most,
            QuotaClass::Backfill if self.live_reserve >= 1.0 => 0,
            QuotaClass::Reconciliation | QuotaClass::Backfill => (left as u32).clamp(1, most.max(1)),
        }
    }

    /// The time between two requests of the class that are spread evenly.
    pub fn spacing(&self, class: QuotaClass, most: u32) -> Duration {
        self.rate.counted_for() / self.most(class, most).max(1)
    }

    /// How much earlier than its even place a request may come.
    pub(super) fn slack(spacing: Duration) -> Duration {
        (spacing / SLACK_SHARE).max(SLACK_AT_LEAST)
    }

    /// The requests a second that the class can count on while nobody else takes of the quota, and no class that goes
    /// before it has much to do.
    pub fn pace(&self, class: QuotaClass) -> f64 {
        f64::from(self.most(class, self.rate.limit)) / self.rate.counted_for().as_secs_f64()
    }
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// The most requests in a window, by the settings.
    pub limit: usize,
    /// The most that NICE lets us have at present, as far as its refusals tell.
    pub limit_now: usize,
    /// Requests of the present window, of each class that has any.
    pub by_class: Vec<(QuotaClass, usize)>,
    /// For so long nothing is sent: NICE refused a request.
    pub closed_for: Option<Duration>,
}

impl Usage {
    /// Requests of the present window.
    pub fn used(&self) -> usize {
        self.by_class.iter().map(|(_, used)| used).sum()
    }

    /// How many requests may leave at this moment.
    pub fn available(&self) -> usize {
        match self.closed_for {
            Some(_) => 0,
            None => self.limit_now.saturating_sub(self.used()),
        }
    }
}

/// How long a request may wait in place for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For as long as it takes: who asks has nothing else to do.
    Endless,
    /// For so long; then it is told when to come again, and whoever asked is free for other tenants' requests.
    UpTo(Duration),
}

/// Who has all the time may wait in place for so long, so many of them at a time: few of a consumer's workers, and
/// enough that the next place finds a taker although a queue brings messages back in bursts.
const LONGEST_IN_FRONT: Duration = Duration::from_secs(10);
pub(super) const IN_FRONT: u32 = 4;

impl Patience {
    /// What a worker of the consumer has, which holds a conversation that can wait on the queue as well.
    pub const WORKER: Self = Self::UpTo(Duration::from_secs(2));

    /// Whether somebody who has waited since `since` would wait for `wait` more.
    pub(super) fn lasts(self, since: Instant, wait: Duration) -> bool {
        match self {
            Self::Endless => true,
            Self::UpTo(longest) => since.elapsed() + wait <= longest,
        }
    }

    /// The patience of those at the front of a paced line: the next places shall not pass for want of a taker.
    pub(super) fn in_front(self, spacing: Duration) -> Self {
        match self {
            Self::UpTo(longest) if longest > Duration::ZERO => {
                Self::UpTo(longest.max((spacing.saturating_mul(IN_FRONT) + spacing / 2).min(LONGEST_IN_FRONT)))
            }
            patience => patience,
        }
    }
}

/// Nobody is sent away for longer: who waits sees by then whether there is more room than expected.
const LONGEST_ABSENCE: Duration = Duration::from_secs(3600);

/// A bulk request is sent away for so many places of its class at most, and within these bounds: a few messages a
/// second come and go then for a backfill of any length, since it keeps few of them on the queue.
const PLACES_AWAY: u32 = 20;
const SHORTEST_BULK_ABSENCE: Duration = Duration::from_secs(1);
const LONGEST_BULK_ABSENCE: Duration = Duration::from_secs(30);

/// The line of those who were sent away: each is told a later time than the one before, so that they do not come
/// back together.
#[derive(Debug, Default)]
pub(super) struct Line {
    end: Mutex<Option<End>>,
}

/// The end of a line.
#[derive(Debug, Clone, Copy)]
struct End {
    /// The last turn that was told.
    turn: Instant,
    /// The time between two turns of it.
    spacing: Duration,
}

impl End {
    /// The end of the same line at this pace: one of before a faster pace would keep everybody away for as long as
    /// the slower one takes.
    fn at_pace(self, spacing: Duration, now: Instant) -> Self {
        if spacing >= self.spacing {
            return Self { spacing, ..self };
        }
        let left = self.turn.saturating_duration_since(now);
        let turn = self.turn.min(now) + left.mul_f64(spacing.as_secs_f64() / self.spacing.as_secs_f64());
        Self { turn, spacing }
    }
}

impl Line {
    /// When the next one in line shall come again: not before there is room, and `spacing` after the one before. The
    /// end of a long line comes spread over the last part, `spread`, of the longest absence.
    fn join(&self, room_in: Duration, spacing: Duration, longest: Duration, spread: f64) -> Duration {
        let now = Instant::now();
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *end = end.map(|end| end.at_pace(spacing, now));
        let turn = (now + room_in).max(end.map_or(now, |end| end.turn + spacing));
        let wait = turn.saturating_duration_since(now);
        if wait > longest {
            return longest.mul_f64(rand::random_range(1.0 - spread..1.0));
        }
        *end = Some(End { turn, spacing });
        wait
    }
}

/// One line for those that go first and one for those that have time, however long the other is.
#[derive(Debug, Default)]
pub(super) struct Lines {
    first: Line,
    bulk: Line,
}

impl Lines {
    /// When one of the class shall come again. Those that have time come again soon: their places are spread evenly,
    /// and one that passes for want of a taker is lost, while a queue may bring a message back as late as after the
    /// double of what it was asked for.
    pub(super) fn join(&self, class: QuotaClass, room_in: Duration, spacing: Duration) -> Duration {
        match class.is_bulk() {
            true => {
                let longest = spacing.saturating_mul(PLACES_AWAY).clamp(SHORTEST_BULK_ABSENCE, LONGEST_BULK_ABSENCE);
                // Over all the steps that a queue has, or they would come in bursts.
                self.bulk.join(room_in, spacing, longest, 0.9)
            }
            false => self.first.join(room_in, spacing, LONGEST_ABSENCE, 0.5),
        }
    }
}

/// Who waits in this process, by class.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    counts: [AtomicUsize; QuotaClass::ALL.len()],
    left: Notify,
}

/// Counts one who waits, for as long as it lives.
pub(super) struct Waiting<'a> {
    waiters: &'a Waiters,
    class: QuotaClass,
}

impl Waiters {
    pub(super) fn enter(&self, class: QuotaClass) -> Waiting<'_> {
        self.counts[class as usize].fetch_add(1, Ordering::SeqCst);
        Waiting { waiters: self, class }
    }

    /// How many of the class wait.
    pub(super) fn count(&self, class: QuotaClass) -> usize {
        self.counts[class as usize].load(Ordering::SeqCst)
    }

    /// How many wait that go before this class.
    pub(super) fn before(&self, class: QuotaClass) -> usize {
        self.counts[..class as usize].iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// Resolves once somebody waits no longer.
    pub(super) fn left(&self) -> Notified<'_> {
        self.left.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiters.counts[self.class as usize].fetch_sub(1, Ordering::SeqCst);
        self.waiters.left.notify_waiters();
    }
}

/// Why a request that is sent away for `wait` was not admitted.
pub(super) fn no_room(family: ApiFamily, wait: Duration) -> NiceError {
    NiceError::Quota { what: format!("the {} budget has no room", family.as_str()), retry_after: Some(wait) }
}

/// Why a request of a class that may have nothing was not admitted.
pub(super) fn no_share(family: ApiFamily) -> NiceError {
    let what = format!("[limits] live_reserve = 1 leaves backfill nothing of the {} budget: lower it", family.as_str());
    NiceError::Quota { what, retry_after: Some(LONGEST_ABSENCE) }
}

#[cfg(test)]
mod tests;
