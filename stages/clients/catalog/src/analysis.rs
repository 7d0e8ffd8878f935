//! The queue of conversations that await their analysis.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use model::ConversationKey;
use serde::{Deserialize, Serialize};

use crate::CatalogError;

/// The queue of conversations that await their analysis.
#[async_trait]
pub trait AnalysisQueue: Send + Sync + 'static {
    /// The analysis queue, oldest first: `limit` conversations after the first `skip`.
    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError>;

    /// How the entries of the analysis queue stand; none where nothing keeps account of them.
    async fn analysis_counts(&self) -> Result<Option<AnalysisCounts>, CatalogError> {
        Ok(None)
    }

    /// Removes entries of the analysis queue that were finished so long ago; how many.
    async fn prune_analysis(&self, _older_than: Duration) -> Result<u64, CatalogError> {
        Ok(0)
    }
}

/// A conversation that awaits its analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnalysisEntry {
    /// The conversation.
    pub key: ConversationKey,
    /// When it entered the queue.
    pub enqueued_at: Timestamp,
}

/// How the entries of the analysis queue stand, each counted up to [`Self::MOST`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnalysisCounts {
    /// Wait for a worker.
    pub waiting: u64,
    /// A worker has them.
    pub claimed: u64,
    /// Lie on the shelf.
    pub failed: u64,
}

impl AnalysisCounts {
    /// Beyond it nobody wants to know more, and counting would cost the database something.
    pub const MOST: u64 = 10_000;
}
