//! The rate budget of one tenant towards NICE, kept in the local state; and what every such budget has in common.
//!
//! A limit of `150/5m` means: never more than 150 requests in any 5 minutes. Each request's time is durable
//! before the request leaves, so that a crash does not spend the window twice.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use state::{Permission, RateWindow};
use tokio::time::Instant;

use super::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use crate::flow::{Clock, Metrics};

/// The longest single sleep, in case the wall clock jumps.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

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

/// How long a request may wait in place for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For as long as it takes: who asks has nothing else to do.
    Endless,
    /// For so long; then it is told when to come again, and whoever asked is free for other tenants' requests.
    UpTo(Duration),
}

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
}

/// Nobody is sent away for longer: who waits sees by then whether there is more room than expected.
const LONGEST_ABSENCE: Duration = Duration::from_secs(3600);

/// The line of those who were sent away: each is told a later time than the one before, so that they do not come
/// back together.
#[derive(Debug, Default)]
pub(super) struct Line {
    last: Mutex<Option<Instant>>,
}

impl Line {
    /// When the next one in line shall come again: not before there is room, and `spacing` after the one before. The
    /// end of a long line comes spread over the last half of the longest absence.
    pub(super) fn join(&self, room_in: Duration, spacing: Duration) -> Duration {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (now + room_in).max(last.map_or(now, |last| last + spacing));
        let wait = turn.saturating_duration_since(now);
        if wait > LONGEST_ABSENCE {
            return LONGEST_ABSENCE.mul_f64(rand::random_range(0.5..1.0));
        }
        *last = Some(turn);
        wait
    }
}

/// Why a request that is sent away for `wait` was not admitted.
pub(super) fn no_room(family: ApiFamily, wait: Duration) -> NiceError {
    NiceError::Quota { what: format!("the {} budget has no room", family.as_str()), retry_after: Some(wait) }
}

/// One family's budget.
#[derive(Debug)]
struct Budget {
    window: RateWindow,
    rate: Rate,
    line: Line,
}

/// The budgets of both API families.
#[derive(Debug)]
pub struct LocalQuota {
    acd: Budget,
    media_playback: Budget,
    patience: Patience,
    clock: Clock,
    metrics: Metrics,
}

impl LocalQuota {
    /// A budget over two windows of the local state.
    pub fn new(
        acd: (RateWindow, Rate),
        media_playback: (RateWindow, Rate),
        patience: Patience,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let budget = |(window, rate)| Budget { window, rate, line: Line::default() };
        Self { acd: budget(acd), media_playback: budget(media_playback), patience, clock, metrics }
    }
}

#[async_trait]
impl Quota for LocalQuota {
    async fn admit(&self, family: ApiFamily, _class: QuotaClass) -> Result<(), NiceError> {
        let budget = match family {
            ApiFamily::Acd => &self.acd,
            ApiFamily::MediaPlayback => &self.media_playback,
        };
        let since = Instant::now();
        loop {
            let permission = budget
                .window
                .try_acquire()
                .await
                .map_err(|error| NiceError::Quota { what: format!("rate budget: {error}"), retry_after: None })?;
            match permission {
                Permission::Granted => {
                    let waited = since.elapsed().as_secs_f64();
                    self.metrics.quota_wait.with_label_values(&[family.as_str()]).inc_by(waited);
                    return Ok(());
                }
                Permission::RetryAt(at) => {
                    let wait = Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default();
                    if !self.patience.lasts(since, wait) {
                        return Err(no_room(family, budget.line.join(wait, budget.rate.spacing())));
                    }
                    tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::clients::test_state::TestState;

    const RATE: Rate = Rate { limit: 2, window: Duration::from_secs(300) };

    fn quota(state: &TestState, patience: Patience) -> LocalQuota {
        let window = |name| {
            let counted_for = SignedDuration::try_from(RATE.counted_for()).unwrap();
            (state.state.rate_window(name, RATE.limit, counted_for).unwrap(), RATE)
        };
        LocalQuota::new(window("acd"), window("media_playback"), patience, Clock::system(), Metrics::new())
    }

    #[tokio::test]
    async fn a_worker_is_not_kept_and_is_told_a_turn_of_its_own() {
        let state = TestState::new();
        let quota = quota(&state, Patience::WORKER);
        for _ in 0..RATE.limit {
            quota.admit(ApiFamily::MediaPlayback, QuotaClass::Live).await.unwrap();
        }
        let mut waits = Vec::new();
        for _ in 0..3 {
            let Err(NiceError::Quota { retry_after: Some(wait), .. }) =
                quota.admit(ApiFamily::MediaPlayback, QuotaClass::Live).await
            else {
                panic!("there is no room")
            };
            waits.push(wait);
        }
        assert!(waits[0] > Duration::from_secs(290) && waits[0] <= RATE.counted_for() + LONGEST_SLEEP, "{waits:?}");
        assert!(waits[1] >= waits[0] + Duration::from_secs(149), "{waits:?}");
        assert!(waits[2] >= waits[1] + Duration::from_secs(149), "{waits:?}");
        quota.admit(ApiFamily::Acd, QuotaClass::Live).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_ends_within_the_hour_and_moves_on() {
        let line = Line::default();
        let spacing = Duration::from_secs(2);
        let waits: Vec<_> = (0..5000).map(|_| line.join(Duration::from_secs(10), spacing)).collect();
        assert_eq!(waits[..2], [Duration::from_secs(10), Duration::from_secs(12)]);
        assert!(waits.iter().all(|wait| *wait <= LONGEST_ABSENCE));
        assert!(waits[2000..].iter().all(|wait| *wait >= LONGEST_ABSENCE / 2));
        tokio::time::advance(LONGEST_ABSENCE * 2).await;
        assert_eq!(line.join(Duration::from_secs(1), spacing), Duration::from_secs(1), "the line was empty again");
    }

    #[test]
    fn a_request_counts_for_its_span_and_a_little_more() {
        assert_eq!(RATE.counted_for(), Duration::from_millis(300_250));
        assert_eq!(Rate { limit: 2, window: Duration::from_millis(400) }.counted_for(), Duration::from_millis(500));
    }
}
