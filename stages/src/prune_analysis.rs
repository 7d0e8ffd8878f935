//! Housekeeping of the analysis queue: finished entries go once they are old enough.
//!
//! # After a crash
//! The next round goes on, in any process; several may prune at the same time.

use std::sync::Arc;
use std::time::Duration;

use catalog::AnalysisQueue;
use runtime::chance;
use tracing::{info, warn};

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(3600);

/// Removes finished entries older than `keep`, now and then, until it is dropped.
pub async fn prune_analysis(catalog: Arc<dyn AnalysisQueue>, keep: Duration) {
    loop {
        match catalog.prune_analysis(keep).await {
            Ok(0) => {}
            Ok(pruned) => info!(count = pruned, "finished entries of the analysis queue removed"),
            Err(error) => warn!(%error, "analysis queue not pruned, will retry"),
        }
        // Not all processes at the same moment.
        tokio::time::sleep(ROUND.mul_f64(chance::range(0.8..1.2))).await;
    }
}
