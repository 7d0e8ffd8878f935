//! The queue of conversations that await their analysis.

use std::time::Duration;

use async_trait::async_trait;
use model::INTEGRATION_TYPE;

use super::{
    PostgresCatalog,
    rows::{key, saturated, unreadable},
};
use crate::{AnalysisCounts, AnalysisEntry, AnalysisQueue, CatalogError};

const ANALYSIS_QUEUE: &str = "
    select c.tenant_id, c.external_id, q.enqueued_at
    from (
        select conversation_id, enqueued_at from analysis_queue where claimed_at is null
        order by enqueued_at, conversation_id offset $1 limit $2
    ) q
    join conversations c on c.id = q.conversation_id
    where c.integration_type = $3
    order by q.enqueued_at, q.conversation_id";

/// Each by an index of its own, and no further than anybody wants to know. Fresh claims are few.
const ANALYSIS_COUNTS: &str = "
    select
        (select count(*) from (select from analysis_queue where claimed_at is null limit $1) bounded),
        (select count(*) from (
            select from analysis_queue
            where claimed_at is not null and finished_at is null and failed_at is null limit $1
        ) bounded),
        (select count(*) from (select from analysis_queue where failed_at is not null limit $1) bounded)";

const PRUNE_ANALYSIS: &str = "select prune_analysis(make_interval(secs => $1), $2)";

/// How many finished entries of the analysis go at a time.
const PRUNED: i32 = 2000;

#[async_trait]
impl AnalysisQueue for PostgresCatalog {
    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError> {
        let (skip, limit) = (saturated(skip), saturated(limit));
        let rows = self.query("list analysis queue", ANALYSIS_QUEUE, &[&skip, &limit, &INTEGRATION_TYPE]).await?;
        rows.iter()
            .map(|row| Ok(AnalysisEntry { key: key(row)?, enqueued_at: row.try_get(2).map_err(unreadable)? }))
            .collect()
    }

    async fn analysis_counts(&self) -> Result<Option<AnalysisCounts>, CatalogError> {
        let most = saturated(AnalysisCounts::MOST);
        let rows = self.query("count the analysis queue", ANALYSIS_COUNTS, &[&most]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let count = |column: usize| -> Result<u64, CatalogError> {
            u64::try_from(row.try_get::<_, i64>(column).map_err(unreadable)?).map_err(unreadable)
        };
        Ok(Some(AnalysisCounts { waiting: count(0)?, claimed: count(1)?, failed: count(2)? }))
    }

    async fn prune_analysis(&self, older_than: Duration) -> Result<u64, CatalogError> {
        let (age, mut pruned) = (older_than.as_secs_f64(), 0);
        loop {
            let rows = self.query("prune the analysis queue", PRUNE_ANALYSIS, &[&age, &PRUNED]).await?;
            let bite: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(unreadable)?;
            pruned += u64::try_from(bite).unwrap_or_default();
            if bite < i64::from(PRUNED) {
                return Ok(pruned);
            }
        }
    }
}
