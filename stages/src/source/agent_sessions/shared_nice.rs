//! The tenant's NICE, as all of its listeners share it.
//!
//! Joins draw on the rate budget: few run at a time, and they are spread. Once NICE has refused several in a row, or is
//! in trouble, all of them pause. Long polls cost nothing of the budget and do not wait for each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flow::StageError;
use model::{AgentId, QuotaClass};
use nice::{Feed, Join, REFUSED_DELAY, SessionId};
use prometheus::IntGauge;
use runtime::chance;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::AgentSessions;
use crate::source::list_error::wait_asked;
use crate::tenants::Tenant;

/// Joins under way at a time.
const JOINS: usize = 8;

/// So many refused joins in a row are no matter of one agent: all joins pause.
const REFUSALS: u32 = 3;

/// What each joined agent adds to the span over which failed polls are sent again: at most a hundred a second, should
/// all of them fail at once.
const SPREAD: Duration = Duration::from_millis(10);

/// The shortest time between two warnings about listeners: thousands of them may meet the same trouble.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// What all listeners of the tenant share.
pub(super) struct SharedNice {
    pub(super) source: AgentSessions,
    joins: Semaphore,
    pub(super) pace: Mutex<JoinPace>,
    warned_at: Mutex<Option<Instant>>,
}

/// When the next join may begin, and how many in a row NICE has refused.
pub(super) struct JoinPace {
    pub(super) next: Instant,
    refusals: u32,
}

impl SharedNice {
    pub(super) fn new(source: AgentSessions) -> Self {
        let pace = Mutex::new(JoinPace { next: Instant::now(), refusals: 0 });
        Self { source, joins: Semaphore::new(JOINS), pace, warned_at: Mutex::default() }
    }

    /// Joins an agent's session when it is its turn.
    pub(super) async fn join(&self, agent: AgentId) -> Result<Join, StageError> {
        let Ok(_permit) = self.joins.acquire().await else { return Ok(Join::Absent) };
        self.turn().await;
        let joined = match self.tenant().await {
            Ok(tenant) => tenant.nice.for_class(QuotaClass::Agents).join_session(agent).await.map_err(StageError::from),
            Err(error) => Err(error),
        };
        self.note(&joined);
        joined
    }

    /// Waits until a join may begin.
    async fn turn(&self) {
        loop {
            let now = Instant::now();
            let at = {
                let mut pace = self.pace();
                if pace.next <= now {
                    pace.next = now + self.source.join_interval;
                    return;
                }
                pace.next
            };
            sleep_until(at).await;
        }
    }

    /// Draws the conclusions of a join for those that follow.
    pub(super) fn note(&self, joined: &Result<Join, StageError>) {
        let mut pace = self.pace();
        let pause = match joined {
            Ok(_) => {
                pace.refusals = 0;
                return;
            }
            Err(error) if is_refusal(error) => {
                pace.refusals += 1;
                if pace.refusals < REFUSALS { Duration::ZERO } else { REFUSED_DELAY }
            }
            // A matter of this agent.
            Err(
                StageError::Permanent { .. }
                | StageError::SetAside { .. }
                | StageError::NotReady { .. }
                | StageError::Unknown { .. },
            ) => Duration::ZERO,
            Err(error) => self.source.context.flow.retry.error_delay_min.max(wait_asked(error)),
        };
        pace.next = pace.next.max(Instant::now() + pause);
    }

    fn pace(&self) -> MutexGuard<'_, JoinPace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a session's next events.
    pub(super) async fn poll(&self, session: &SessionId) -> Result<Feed, StageError> {
        Ok(self.tenant().await?.nice.session_events(session).await?)
    }

    async fn tenant(&self) -> Result<Arc<Tenant>, StageError> {
        self.source.tenants.get(&self.source.tenant).await
    }

    /// Counts what failed and will be tried again, and says so now and then.
    pub(super) fn failed(&self, what: &'static str, error: &StageError, began: Instant) {
        self.source.context.metrics.flow.stage_finished("source", "retry", began.elapsed());
        let now = Instant::now();
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            *warned_at = Some(now);
            warn!(%error, "{what}, will retry");
        } else {
            debug!(%error, "{what}, will retry");
        }
    }

    /// A wait that is another for each listener, so that thousands of them do not come back together.
    pub(super) fn spread(&self) -> Duration {
        let joined = self.source.context.metrics.agent_sessions.with_label_values(&["joined"]).get();
        SPREAD.mul_f64(joined.max(0) as f64 * chance::range(0.0..1.0))
    }

    /// Counts an agent in this state until the value is dropped.
    pub(super) fn counted(&self, state: &str) -> GaugeGuard {
        let gauge = self.source.context.metrics.agent_sessions.with_label_values(&[state]);
        gauge.inc();
        GaugeGuard(gauge)
    }
}

/// One agent in a gauge.
pub(super) struct GaugeGuard(IntGauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Whether NICE refused us: what only a person can mend waits longer than what heals.
fn is_refusal(error: &StageError) -> bool {
    matches!(error, StageError::Transient { retry_after: Some(wait), .. } if *wait == REFUSED_DELAY)
}
