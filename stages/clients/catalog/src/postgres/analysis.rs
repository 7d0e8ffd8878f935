//! The queue of conversations that await their analysis.

use std::time::Duration;

use async_trait::async_trait;
use model::INTEGRATION_TYPE;

use super::{ANALYSIS_COUNTS, ANALYSIS_QUEUE, PRUNE_ANALYSIS, PRUNED, PostgresCatalog, key, saturated, unreadable};
use crate::{AnalysisCounts, AnalysisEntry, AnalysisQueue, CatalogError};

#[async_trait]
impl AnalysisQueue for PostgresCatalog {
    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError> {
        let (skip, limit) = (saturated(skip), saturated(limit));
        let rows = self
            .inner
            .database
            .query("list analysis queue", ANALYSIS_QUEUE, &[&skip, &limit, &INTEGRATION_TYPE])
            .await?;
        rows.iter()
            .map(|row| Ok(AnalysisEntry { key: key(row)?, enqueued_at: row.try_get(2).map_err(unreadable)? }))
            .collect()
    }

    async fn analysis_counts(&self) -> Result<Option<AnalysisCounts>, CatalogError> {
        let most = saturated(AnalysisCounts::MOST);
        let rows = self.inner.database.query("count the analysis queue", ANALYSIS_COUNTS, &[&most]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let count = |column: usize| -> Result<u64, CatalogError> {
            u64::try_from(row.try_get::<_, i64>(column).map_err(unreadable)?).map_err(unreadable)
        };
        Ok(Some(AnalysisCounts { waiting: count(0)?, claimed: count(1)?, failed: count(2)? }))
    }

    async fn prune_analysis(&self, older_than: Duration) -> Result<u64, CatalogError> {
        let (age, mut pruned) = (older_than.as_secs_f64(), 0);
        loop {
            let rows = self.inner.database.query("prune the analysis queue", PRUNE_ANALYSIS, &[&age, &PRUNED]).await?;
            let bite: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(unreadable)?;
            pruned += u64::try_from(bite).unwrap_or_default();
            if bite < i64::from(PRUNED) {
                return Ok(pruned);
            }
        }
    }
}
