//! Erasure: takes out of Knovvu everything of a conversation, on an operator's word or when its retention is over.
//!
//! # Contract
//! The order is tombstone, recordings, rows, messages. The row goes after the recordings, for it says where they lie;
//! where that is not this process's store, nothing goes, and the error says what to do.
//! What another process began to write before the tombstone stood may appear after all that; so an erasure stays
//! pending for six hours, and is looked at again until then.
//!
//! Retention leaves no tombstones: what ended before its horizon is not imported in any case.
//!
//! # After a crash
//! A pending erasure is begun again by the next look of any process that has the recording store. Every step may be
//! repeated, and several may work on one at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, ErasedRows, Erasure, RecordingLocation, Tombstone};
use flow::StageError;
use jiff::{SignedDuration, Timestamp};
use model::{ConversationKey, ObjectKey, Retention, System, TenantId};
use queue::Queue;
use recordings::RecordingStore;
use runtime::{Clock, chance, crash};
use tracing::{error, info, warn};

use crate::metrics::Metrics;
use crate::tenants::Tenants;

/// Time between two looks at what is pending.
const LOOK: Duration = Duration::from_secs(300);

/// Time between two sweeps of what is beyond the retention.
const SWEEP: Duration = Duration::from_secs(3600);

/// How far the catalog's clock and ours may be apart: by a wrong one, retention would take what is to be kept.
const MOST_APART: SignedDuration = SignedDuration::from_hours(1);

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
    /// Versions of objects, or files; none where no row told where recordings would lie, and none were looked for.
    pub objects: Option<u64>,
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
        let row = self.catalog.conversation(key).await?;
        // NICE may have corrected the start since.
        let starts = erasure.started_at.into_iter().chain(row.as_ref().map(|row| row.started_at));
        let places: Vec<_> = row.iter().flat_map(|row| &row.recordings).map(RecordingLocation::from).collect();
        let objects = self.remove_recordings(key, starts, &places).await?;
        crash::point("erasure_objects_gone");
        let rows = self.catalog.erase_rows(key).await?;
        let messages =
            self.queue.forget(key).await.map_err(|error| StageError::transient(System::Queue, error.to_string()))?;
        Ok(ErasureReport { tombstone: erasure.tombstone, rows, objects, messages })
    }

    /// Erases the recordings of a conversation, by its starts and by what the rows say of their places, and counts
    /// them; none where no start is known and the store cannot look. Nothing is erased, and the error is permanent,
    /// where one of them lies elsewhere: its row is all that tells where.
    async fn remove_recordings(
        &self,
        key: &ConversationKey,
        starts: impl IntoIterator<Item = Timestamp>,
        places: &[RecordingLocation],
    ) -> Result<Option<u64>, StageError> {
        // Recordings of one day lie in one folder.
        let folder = |started_at| (ObjectKey::folder_of(key, started_at), started_at);
        let mut folders: BTreeMap<String, Timestamp> = starts.into_iter().map(folder).collect();
        for RecordingLocation { bucket, object_key } in places {
            let day = ObjectKey::day_of(key, object_key)
                .ok_or_else(|| StageError::permanent("a recording's row names the place of another conversation"))?;
            if !self.recordings.keeps(bucket, object_key).await? {
                let own = self.recordings.bucket();
                return Err(StageError::permanent(format!(
                    "recordings lie in {bucket}, and [recordings] names {own}: run `erase` with the settings of that \
                     store, or, if they were moved, correct `bucket` in their rows"
                )));
            }
            folders.extend([folder(day)]);
        }
        if folders.is_empty() {
            return Ok(self.recordings.erase_of_any_day(key).await?);
        }
        let mut objects = 0;
        for started_at in folders.into_values() {
            objects += self.recordings.erase(key, started_at).await?;
        }
        Ok(Some(objects))
    }

    /// Looks at pending erasures and at the retention, now and then, until it is dropped. Neither waits for the other:
    /// a first sweep may take hours.
    pub async fn run(self) {
        tokio::join!(now_and_then(LOOK, || self.look_again()), now_and_then(SWEEP, || self.expire()));
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
        if report.rows != ErasedRows::default() || report.objects > Some(0) {
            info!(tombstone = %report.tombstone, objects = report.objects, "erased what was left, or has appeared since");
        }
        let finished = self.catalog.finish_erasure(erasure, self.clock.now()).await?;
        if finished {
            self.metrics.conversations_erased.with_label_values(&["operator"]).inc();
            info!(tombstone = %erasure.tombstone, "erasure finished, the id is forgotten");
        }
        Ok(finished)
    }

    /// Erases what is beyond the retention of its tenant.
    pub async fn expire(&self) {
        let now = self.clock.now();
        match self.catalog.clock(now).await {
            Ok(theirs) if now.duration_since(theirs).abs() > MOST_APART => {
                let remedy = "nothing is erased by the retention, correct the clocks";
                return error!(%now, catalog_now = %theirs, remedy, "the catalog's clock and ours differ by more than an hour");
            }
            Ok(_) => {}
            Err(error) => return warn!(%error, "the catalog's clock not read, will retry"),
        }
        let retentions = match self.tenants.retentions().await {
            Ok(retentions) => retentions,
            Err(error) => return warn!(%error, "retention not read, will retry"),
        };
        let mut complete = true;
        for (tenant, retention) in retentions {
            match self.expire_in_turn(&tenant, retention).await {
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

    /// The tenant's retention, unless another process sees to it just now: its gauge tells then.
    async fn expire_in_turn(&self, tenant: &TenantId, retention: Retention) -> Result<bool, StageError> {
        match self.catalog.retention_turn(tenant).await? {
            Some(_turn) => self.expire_tenant(tenant, retention).await,
            None => Ok(true),
        }
    }

    /// False where not all is erased: those conversations stay as they are, and the next sweep tries again.
    async fn expire_tenant(&self, tenant: &TenantId, retention: Retention) -> Result<bool, StageError> {
        let (mut erased, mut whole, mut after) = (0, true, None);
        // By what is wrong: there are few buckets, and many conversations.
        let mut elsewhere = BTreeMap::<String, u64>::new();
        loop {
            let now = self.clock.now();
            let batch = self.catalog.expired(tenant, retention, now, after.as_ref(), BATCH).await?;
            let mut gone = Vec::with_capacity(batch.len());
            let mut withstood = false;
            for expired in &batch {
                match self.remove_recordings(&expired.key(), [expired.started_at], &expired.recordings).await {
                    Ok(_) => gone.push(expired.external_id),
                    Err(StageError::Permanent { reason }) => *elsewhere.entry(reason).or_default() += 1,
                    Err(error) => {
                        withstood = true;
                        warn!(%tenant, %error, "recordings beyond the retention not erased, will retry");
                    }
                }
            }
            let count = self.catalog.expire_rows(tenant, retention, now, &gone).await?;
            self.metrics.conversations_erased.with_label_values(&["retention"]).inc_by(count);
            erased += count;
            // Fewer rows than recordings: the retention became longer meanwhile, or another process was faster.
            whole &= !withstood && count == gone.len() as u64;
            // The store may be down: no use in asking it for every conversation.
            if batch.is_empty() || withstood && gone.is_empty() {
                break;
            }
            after = batch.into_iter().last();
        }
        if erased > 0 {
            info!(%tenant, count = erased, "conversations beyond the retention erased");
        }
        for (reason, conversations) in &elsewhere {
            warn!(%tenant, count = conversations, reason, "conversations beyond the retention stay");
        }
        Ok(whole && elsewhere.is_empty())
    }
}

/// Does it again and again, with a pause between: not all processes at the same moment.
async fn now_and_then<F: Future<Output = ()>>(pause: Duration, look: impl Fn() -> F) {
    loop {
        look().await;
        tokio::time::sleep(pause.mul_f64(chance::range(0.8..1.2))).await;
    }
}

#[cfg(test)]
mod tests;
