//! The queue of conversations that await their analysis.

use async_trait::async_trait;

use super::{EmbeddedCatalog, kind};
use crate::{AnalysisEntry, AnalysisQueue, CatalogError};

#[async_trait]
impl AnalysisQueue for EmbeddedCatalog {
    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError> {
        let entries = self.inner.tree.scan_prefix([kind::ANALYSIS]).values().skip(skip).take(limit);
        self.inner.read_all(entries).collect()
    }
}
