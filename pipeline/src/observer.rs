//! What the process last saw of the queue and the catalog.
//!
//! Every question has a time limit, all of them are asked side by side, and a system that is known to be away is not
//! asked at all: so whoever wants to know how it stands gets an answer within that limit, whatever is away. What a
//! question did not bring stands as it was last seen, with its age.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{
    AnalysisCounts, Catalog, CatalogError, ConversationCounts, DeadLetterGroup, HeldReading, KnownService, RunKind,
    RunState,
};
use flow::Outside;
use jiff::Timestamp;
use model::{ApiFamily, System, TenantId};
use queue::{Backlog, Queue};
use quota::{Budgets, Usage};
use runtime::{Clock, Outage, outage::Say};
use tracing::warn;

/// Groups of dead letters that are looked at: the largest ones.
const MOST_GROUPS: usize = 20;

/// Services that are looked at: a large installation has some dozens.
const MOST_SERVICES: usize = 500;

/// Runs looked through for the last comparison that came to its end.
const LOOKED_BACK: usize = 30;

/// Looks at the queue and the catalog; clones share what was seen.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) outside: Outside,
    /// Whose figures are looked at; none where the process serves every tenant.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) clock: Clock,
    pub(crate) seen: Sightings,
}

/// What was last seen; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Sightings {
    latest: Arc<Mutex<Latest>>,
    outage: Arc<Mutex<Outage>>,
}

/// The last answer to each question.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latest {
    /// When the last look began.
    pub(crate) at: Option<Timestamp>,
    pub(crate) backlog: Seen<Backlog>,
    pub(crate) counts: Seen<ConversationCounts>,
    pub(crate) analysis: Seen<Option<AnalysisCounts>>,
    pub(crate) groups: Seen<Vec<DeadLetterGroup>>,
    pub(crate) services: Seen<Vec<KnownService>>,
    pub(crate) figures: Seen<TenantFigures>,
    pub(crate) budgets: Seen<Vec<(ApiFamily, Usage)>>,
}

/// An answer and its time; none before the first one.
#[derive(Debug, Clone)]
pub(crate) struct Seen<T>(pub(crate) Option<(T, Timestamp)>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Seen<T> {
    /// The answer.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(answer, _)| answer)
    }

    /// How old it is.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        let at = self.0.as_ref().map_or(now, |(_, at)| *at);
        Duration::try_from(now.duration_since(at)).unwrap_or_default()
    }

    /// The answer, if it is not older than the look that began then.
    pub(crate) fn since(&self, look: Timestamp) -> Option<&T> {
        self.0.as_ref().filter(|(_, at)| *at >= look).map(|(answer, _)| answer)
    }
}

/// What the catalog keeps of one tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct TenantFigures {
    pub(crate) agents_active: usize,
    pub(crate) agents_inactive: usize,
    pub(crate) agents_read_at: Option<Timestamp>,
    pub(crate) agents_held: Option<HeldReading>,
    pub(crate) poll_watermark: Option<Timestamp>,
    /// When the last comparison came to its end.
    pub(crate) reconciled_at: Option<Timestamp>,
}

impl Sightings {
    /// What was last seen.
    pub(crate) fn latest(&self) -> Latest {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer {
    /// Asks what is shown all the time, and returns what is known within `patience`.
    pub(crate) async fn look(&self, patience: Duration) -> Latest {
        let begun = self.clock.now();
        let (backlog, counts, analysis, budgets) = tokio::join!(
            self.answer(System::Queue, patience, self.queue.backlog()),
            self.answer(System::Catalog, patience, self.catalog.counts()),
            self.answer(System::Catalog, patience, self.catalog.analysis_counts()),
            self.answer(System::Catalog, patience, self.usages()),
        );
        if backlog.is_some() && counts.is_some() {
            self.seen.outage.lock().unwrap_or_else(PoisonError::into_inner).over();
        }
        let mut latest = self.seen.lock();
        // An older look may end later.
        latest.at = latest.at.max(Some(begun));
        note(&mut latest.backlog, backlog, begun);
        note(&mut latest.counts, counts, begun);
        note(&mut latest.analysis, analysis, begun);
        note(&mut latest.budgets, budgets, begun);
        Latest { at: Some(begun), ..latest.clone() }
    }

    /// The same with what only a person asks for, and what is read from more rows.
    pub(crate) async fn look_closely(&self, patience: Duration) -> Latest {
        let begun = self.clock.now();
        let (_, groups, services, figures) = tokio::join!(
            self.look(patience),
            self.answer(System::Catalog, patience, self.catalog.dead_letter_groups(MOST_GROUPS)),
            self.answer(System::Catalog, patience, self.catalog.services(begun, MOST_SERVICES)),
            self.answer(System::Catalog, patience, self.figures()),
        );
        let mut latest = self.seen.lock();
        note(&mut latest.groups, groups, begun);
        note(&mut latest.services, services, begun);
        note(&mut latest.figures, figures, begun);
        Latest { at: Some(begun), ..latest.clone() }
    }

    async fn figures(&self) -> Result<TenantFigures, CatalogError> {
        let Some(tenant) = &self.tenant else { return Ok(TenantFigures::default()) };
        let (agents, read_at, standing, memory, runs) = tokio::try_join!(
            self.catalog.agents(tenant),
            self.catalog.agents_read_at(tenant),
            self.catalog.group_standing(tenant),
            self.catalog.producer_memory(tenant),
            self.catalog.runs(tenant, RunKind::Reconciliation, LOOKED_BACK),
        )?;
        let agents_active = agents.iter().filter(|agent| agent.is_active()).count();
        let done = runs.into_iter().find(|run| run.state == RunState::Done);
        Ok(TenantFigures {
            agents_active,
            agents_inactive: agents.len() - agents_active,
            agents_read_at: read_at,
            agents_held: standing.held,
            poll_watermark: memory.poll_watermark,
            reconciled_at: done.as_ref().and_then(|run| run.finished_at),
        })
    }

    async fn usages(&self) -> Result<Vec<(ApiFamily, Usage)>, quota::StoreError> {
        let Some(tenant) = &self.tenant else { return Ok(Vec::new()) };
        let mut usages = Vec::new();
        for family in [ApiFamily::Acd, ApiFamily::MediaPlayback] {
            usages.push((family, self.budgets.usage(tenant, family).await?));
        }
        Ok(usages)
    }

    /// What a system answers in time; one that is known to be away is not asked.
    async fn answer<T, E: std::fmt::Display>(
        &self,
        system: System,
        patience: Duration,
        question: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        if self.outside.is_down(system) {
            return None;
        }
        let reason = match tokio::time::timeout(patience, question).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        // Several questions fail together, and again in some seconds.
        let mut outage = self.seen.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if outage.failed(self.clock.now()) != Say::Nothing {
            warn!(%system, reason, "does not report its state, will ask again");
        }
        None
    }
}

fn note<T>(slot: &mut Seen<T>, answer: Option<T>, at: Timestamp) {
    if let Some(answer) = answer
        && slot.0.as_ref().is_none_or(|(_, seen)| *seen <= at)
    {
        slot.0 = Some((answer, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_answer_is_not_of_this_look() {
        let at = |seconds| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(seconds);
        let mut seen = Seen::default();
        assert_eq!(seen.get(), None);
        note(&mut seen, Some(7), at(10));
        note(&mut seen, None, at(20));
        assert_eq!((seen.get(), seen.since(at(10)), seen.since(at(20))), (Some(&7), Some(&7), None));
    }
}
