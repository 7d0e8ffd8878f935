//! Erasure: takes out of Knovvu everything of a conversation, on an operator's word or when its retention is over.
//!
//! # Contract
//! The order is tombstone, recordings, rows, messages. The row goes after the recordings, for it says where they lie.
//! What another process began to write before the tombstone stood may appear after all that; so an erasure stays
//! pending for [`SETTLED`], and is looked at again until then.
//!
//! Retention leaves no tombstones: what ended before its horizon is not imported in any case.
//!
//! # After a crash
//! A pending erasure is begun again by the next look of any process that has the recording store. Every step may be
//! repeated, and several may work on one at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tracing::{info, warn};

use crate::clients::catalog::{Catalog, ErasedRows, Erasure, Tombstone};
use crate::clients::queue::Queue;
use crate::clients::recording_store::RecordingStore;
use crate::clients::tenants::Tenants;
use crate::flow::{Clock, Metrics, StageError, crash};
use crate::model::{ConversationKey, ObjectKey, Retention, TenantId};

/// How long an erasure is pending: longer than anything takes that was under way when it was asked for. A recording
/// that arrives no faster than it was spoken takes as long as the longest call, four hours.
const SETTLED: SignedDuration = SignedDuration::from_hours(6);

/// Time between two looks at what is pending.
const LOOK: Duration = Duration::from_secs(300);

/// Looks between two sweeps of what is beyond the retention: an hour.
const LOOKS_PER_SWEEP: u32 = 12;

/// Pending erasures, and conversations beyond the retention, that are read at a time: no statement is long.
const BATCH: usize = 100;

/// Erases conversations.
#[derive(Clone)]
pub struct Eraser {
    /// Rows and tombstones.
    pub catalog: Arc<dyn Catalog>,
    /// The recordings.
    pub recordings: Arc<dyn RecordingStore>,
    /// Messages that are under way.
    pub queue: Arc<dyn Queue>,
    /// How long each tenant's conversations are kept.
    pub tenants: Arc<Tenants>,
    /// The time.
    pub clock: Clock,
    /// Counts what is erased.
    pub metrics: Metrics,
}

/// What an erasure has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureReport {
    /// What is left of the conversation.
    pub tombstone: Tombstone,
    /// Rows of the catalog.
    pub rows: ErasedRows,
    /// Versions of objects, or files.
    pub objects: u64,
    /// Messages; none where the queue gives no single message out, and the consumer drops them when they come up.
    pub messages: Option<u64>,
}

impl Eraser {
    /// Erases a conversation and sees to it that it does not come back. Repeating it is harmless, and finishes what an
    /// earlier attempt left.
    pub async fn erase(&self, key: &ConversationKey) -> Result<ErasureReport, StageError> {
        let erasure = self.catalog.begin_erasure(key, self.clock.now()).await?;
        crash::point("erasure_noted");
        let report = self.remove(&erasure).await?;
        let ErasureReport { tombstone, rows, objects, messages } = &report;
        // Without the id: the log is not to tell any more whose call it was.
        info!(
            tenant = %key.tenant,
            %tombstone,
            found = rows.conversation,
            objects,
            dead_letters = rows.dead_letters,
            hops = rows.hops,
            messages,
            "conversation erased"
        );
        Ok(report)
    }

    async fn remove(&self, erasure: &Erasure) -> Result<ErasureReport, StageError> {
        let key = &erasure.key;
        let standing = self.catalog.conversation(key).await?.map(|row| row.started_at);
        // NICE may have corrected the start since; recordings of one day lie in one folder.
        let starts: BTreeMap<String, _> = [erasure.started_at, standing]
            .into_iter()
            .flatten()
            .map(|started_at| (ObjectKey::folder_of(key, started_at), started_at))
            .collect();
        let mut objects = 0;
        for started_at in starts.into_values() {
            objects += self.recordings.erase(key, started_at).await?;
        }
        crash::point("erasure_objects_gone");
        let rows = self.catalog.erase_rows(key).await?;
        let messages = self.queue.forget(key).await.map_err(|error| StageError::transient(error.to_string()))?;
        Ok(ErasureReport { tombstone: erasure.tombstone, rows, objects, messages })
    }

    /// Looks at pending erasures and at the retention, now and then, until it is dropped.
    pub async fn run(self) {
        let mut looks = 0_u32;
        loop {
            self.look_again().await;
            if looks.is_multiple_of(LOOKS_PER_SWEEP) {
                self.expire().await;
            }
            looks = looks.wrapping_add(1);
            // Not all processes at the same moment.
            tokio::time::sleep(LOOK.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    /// Removes what has appeared of conversations whose erasure is pending, and ends the erasures that are old enough.
    pub async fn look_again(&self) {
        let (mut after, mut pending) = (None, 0);
        loop {
            let page = match self.catalog.pending_erasures(after, BATCH).await {
                Ok(page) => page,
                Err(error) => return warn!(%error, "pending erasures not read, will retry"),
            };
            let Some(last) = page.last() else { break };
            after = Some(last.tombstone);
            for erasure in &page {
                match self.look_at(erasure).await {
                    Ok(true) => {}
                    Ok(false) => pending += 1,
                    Err(error) => {
                        pending += 1;
                        warn!(tombstone = %erasure.tombstone, %error, "erasure not finished, will retry");
                    }
                }
            }
        }
        self.metrics.erasures_pending.set(pending);
    }

    /// True once the erasure is not pending any more.
    async fn look_at(&self, erasure: &Erasure) -> Result<bool, StageError> {
        let report = self.remove(erasure).await?;
        if report.rows != ErasedRows::default() || report.objects > 0 {
            info!(tombstone = %report.tombstone, objects = report.objects, "erased what was left, or has appeared since");
        }
        if self.clock.now().duration_since(erasure.asked_at) < SETTLED {
            return Ok(false);
        }
        if self.catalog.finish_erasure(erasure).await? {
            self.metrics.conversations_erased.with_label_values(&["operator"]).inc();
            info!(tombstone = %erasure.tombstone, "erasure finished, the id is forgotten");
        }
        Ok(true)
    }

    /// Erases what is beyond the retention of its tenant.
    pub async fn expire(&self) {
        let retentions = match self.tenants.retentions().await {
            Ok(retentions) => retentions,
            Err(error) => return warn!(%error, "retention not read, will retry"),
        };
        let mut complete = true;
        for (tenant, retention) in retentions {
            match self.expire_tenant(&tenant, retention).await {
                Ok(whole) => complete &= whole,
                Err(error) => {
                    complete = false;
                    warn!(%tenant, %error, "conversations beyond the retention not erased, will retry");
                }
            }
        }
        if complete {
            self.metrics.retention_last_sweep.set(self.clock.now().as_second() as f64);
        }
    }

    /// False where recordings withstood: those conversations stay as they are, and the next sweep tries again.
    async fn expire_tenant(&self, tenant: &TenantId, retention: Retention) -> Result<bool, StageError> {
        let mut erased = 0;
        loop {
            let now = self.clock.now();
            let batch = self.catalog.expired(tenant, retention, now, BATCH).await?;
            let mut gone = Vec::with_capacity(batch.len());
            for expired in &batch {
                match self.recordings.erase(&expired.key(), expired.started_at).await {
                    Ok(_) => gone.push(expired.external_id),
                    Err(error) => warn!(%tenant, %error, "recordings beyond the retention not erased, will retry"),
                }
            }
            let count = self.catalog.expire_rows(tenant, retention, now, &gone).await?;
            self.metrics.conversations_erased.with_label_values(&["retention"]).inc_by(count);
            erased += count;
            if gone.is_empty() || count == 0 {
                if erased > 0 {
                    info!(%tenant, erased, "conversations beyond the retention erased");
                }
                return Ok(gone.len() == batch.len());
            }
        }
    }
}

#[cfg(test)]
mod tests;
