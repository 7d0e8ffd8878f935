//! The timeline: written in the background, for people.
//!
//! Hops gather for a second and go in one statement whose commit waits for no disk: a crash of the server may take
//! the last ones along, and nothing else. What gathers of one conversation is a visit, and one row. Whoever reads the
//! timeline here sees what was recorded here before.
//!
//! Programs of before wrote a row for each hop, to the table `timeline`. What stands there is read until it is old.

use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use database::Database;
use jiff::Timestamp;
use model::{ConversationKey, Hop, INTEGRATION_TYPE};
use runtime::{chance, task};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_postgres::{Row, types::ToSql};
use tokio_util::task::AbortOnDropHandle;

use super::{
    PostgresCatalog,
    rows::{Keys, index, unreadable},
    text,
    tombstones::Tombstones,
};
use crate::{CatalogError, Timelines};

#[async_trait]
impl Timelines for PostgresCatalog {
    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        self.inner.timeline.record(key, hop);
    }

    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError> {
        self.inner.timeline.of(key).await
    }

    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError> {
        self.inner.timeline.last_of(keys).await
    }

    async fn flush(&self) {
        self.inner.timeline.flush().await;
    }
}

/// Hops that wait for the database; during an outage those beyond it are left out.
const BUFFER: usize = 4096;

/// The most hops in one statement.
const MOST: usize = 512;

/// How long a hop waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// How long one waits for hops to be written: nothing else depends on them, and a process has five seconds after its
/// grace.
const FLUSHING: Duration = Duration::from_secs(3);

/// How often old hops are looked for.
const PRUNING: Duration = Duration::from_secs(600);

/// How many go at a time, so that no statement is long and no lock is held for long.
const BITE: i64 = 2000;

/// Between two bites.
const CHEWING: Duration = Duration::from_millis(100);

/// Nothing of a conversation that was erased. The setting lasts for this statement's commit only.
const INSERT: &str = "
    insert into timeline_visits (tenant_id, integration_type, external_id, last_at, hops)
    select v.tenant_id, $3, v.external_id, v.last_at, v.hops::json
    from unnest($1::text[], $2::text[], $4::timestamptz[], $5::text[], $6::bytea[])
        with ordinality as v (tenant_id, external_id, last_at, hops, tombstone, n)
    where (select set_config('synchronous_commit', 'off', true)) = 'off'
        and not exists (select from erasures e where e.tenant_id = v.tenant_id and e.digest = v.tombstone)
    order by v.n";

const VISITS: &str = "
    select hops::text from timeline_visits
    where tenant_id = $1 and integration_type = $2 and external_id = $3
    order by id";

const LAST_VISITS: &str = "
    select a.n, v.hops::text
    from unnest($1::text[], $2::text[]) with ordinality as a (tenant_id, external_id, n)
    cross join lateral (
        select * from timeline_visits t
        where t.tenant_id = a.tenant_id and t.external_id = a.external_id and t.integration_type = $3
        order by t.last_at desc, t.id desc
        limit 1
    ) v";

/// Of programs of before.
const SELECT: &str = "
    select at, stage, outcome, attempt, took_millis, detail from timeline
    where tenant_id = $1 and integration_type = $2 and external_id = $3
    order by at, id";

/// Of programs of before.
const LAST_HOPS: &str = "
    select a.n, h.at, h.stage, h.outcome, h.attempt, h.took_millis, h.detail
    from unnest($1::text[], $2::text[]) with ordinality as a (tenant_id, external_id, n)
    cross join lateral (
        select * from timeline t
        where t.tenant_id = a.tenant_id and t.external_id = a.external_id and t.integration_type = $3
        order by t.at desc, t.id desc
        limit 1
    ) h";

/// Ids ascend with time, near enough: the oldest are at the head of a table.
const DELETES: [&str; 2] = [
    "
    delete from timeline_visits using (select id, last_at from timeline_visits order by id limit $1) as oldest
    where timeline_visits.id = oldest.id and oldest.last_at < now() - interval '30 days'",
    "
    delete from timeline using (select id, at from timeline order by id limit $1) as oldest
    where timeline.id = oldest.id and oldest.at < now() - interval '30 days'",
];

enum Message {
    Hop(PendingHop),
    Flush(oneshot::Sender<()>),
}

/// A hop, and the tombstone that would keep it out.
struct PendingHop {
    key: ConversationKey,
    tombstone: Vec<u8>,
    hop: Hop,
}

/// The way to the task that writes.
pub(super) struct Timeline {
    database: Database,
    sender: mpsc::Sender<Message>,
    tombstones: Arc<Tombstones>,
    left_out: AtomicU64,
    _writer: AbortOnDropHandle<()>,
    _pruner: AbortOnDropHandle<()>,
}

impl Timeline {
    /// Starts to write and to prune.
    pub(super) fn start(database: &Database, tombstones: Arc<Tombstones>) -> Self {
        let (sender, receiver) = mpsc::channel(BUFFER);
        Self {
            database: database.clone(),
            sender,
            tombstones,
            left_out: AtomicU64::new(0),
            _writer: task::spawn("timeline", write_all(database.clone(), receiver)),
            _pruner: task::spawn("timeline pruning", prune(database.clone())),
        }
    }

    /// Takes a hop, or leaves it out when too many wait.
    pub(super) fn record(&self, key: &ConversationKey, hop: Hop) {
        let told = PendingHop { key: key.clone(), tombstone: self.tombstones.of(key), hop };
        if self.sender.try_send(Message::Hop(told)).is_ok() {
            return;
        }
        let left_out = self.left_out.fetch_add(1, Ordering::Relaxed) + 1;
        if left_out.is_power_of_two() {
            tracing::warn!(count = left_out, "timeline: the database does not keep up, hops are left out");
        }
    }

    /// How many hops were left out so far.
    #[cfg(test)]
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Returns when all that was recorded before is written, or could not be in time.
    pub(super) async fn flush(&self) {
        let written = async {
            let (done, flushed) = oneshot::channel();
            if self.sender.send(Message::Flush(done)).await.is_ok() {
                // An error means that the task has ended with all it had.
                drop(flushed.await);
            }
        };
        if tokio::time::timeout(FLUSHING, written).await.is_err() {
            tracing::warn!("timeline: the last hops are not written yet");
        }
    }

    /// The hops of a conversation, oldest first.
    pub(super) async fn of(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError> {
        self.flush().await;
        let (tenant, external_id) = (key.tenant.as_str(), key.external_id.to_string());
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenant, &INTEGRATION_TYPE, &external_id];
        let mut hops = Vec::new();
        for row in self.database.query("read timeline", SELECT, &parameters).await? {
            hops.push(hop(&row, 0).map_err(unreadable)?);
        }
        for row in self.database.query("read timeline", VISITS, &parameters).await? {
            hops.extend(hops_of(&row, 0)?);
        }
        // Visits of several processes overlap. Hops of one moment stay in the order in which they were recorded.
        hops.sort_by_key(|hop| hop.at);
        Ok(hops)
    }

    /// The last hop of each of these conversations.
    async fn last_of(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError> {
        self.flush().await;
        let mut hops = vec![None; keys.len()];
        let keys = Keys::of(keys.iter());
        let parameters: [&(dyn ToSql + Sync); 3] = [&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE];
        for row in self.database.query("read last hops", LAST_HOPS, &parameters).await? {
            if let Some(last) = hops.get_mut(index(&row)) {
                *last = Some(hop(&row, 1).map_err(unreadable)?);
            }
        }
        for row in self.database.query("read last hops", LAST_VISITS, &parameters).await? {
            let visit = hops_of(&row, 1)?.pop();
            if let Some(last) = hops.get_mut(index(&row)) {
                let before: Option<Timestamp> = last.as_ref().map(|hop: &Hop| hop.at);
                *last = visit.filter(|hop| before.is_none_or(|before| before <= hop.at)).or(last.take());
            }
        }
        Ok(hops)
    }
}

/// A hop whose columns begin at `first`.
fn hop(row: &Row, first: usize) -> Result<Hop, tokio_postgres::Error> {
    Ok(Hop {
        at: row.try_get(first)?,
        stage: row.try_get(first + 1)?,
        outcome: row.try_get(first + 2)?,
        attempt: u32::try_from(row.try_get::<_, i64>(first + 3)?).unwrap_or(u32::MAX),
        took_millis: u64::try_from(row.try_get::<_, i64>(first + 4)?).unwrap_or_default(),
        detail: row.try_get(first + 5)?,
    })
}

/// The hops of a visit.
fn hops_of(row: &Row, column: usize) -> Result<Vec<Hop>, CatalogError> {
    let hops: &str = row.try_get(column).map_err(unreadable)?;
    serde_json::from_str(hops).map_err(unreadable)
}

/// The hops that gathered of one conversation.
struct PendingVisit {
    tombstone: Vec<u8>,
    hops: Vec<Hop>,
}

/// The visits that these hops make, by conversation.
fn visits(hops: &mut Vec<PendingHop>) -> BTreeMap<ConversationKey, PendingVisit> {
    let mut visits = BTreeMap::new();
    for PendingHop { key, tombstone, hop } in hops.drain(..) {
        let detail = hop.detail.as_deref().map(text::text);
        let hop = Hop { detail, ..hop };
        visits.entry(key).or_insert_with(|| PendingVisit { tombstone, hops: Vec::new() }).hops.push(hop);
    }
    // The last one is the latest, also where a clock was set back.
    visits.values_mut().for_each(|visit: &mut PendingVisit| visit.hops.sort_by_key(|hop| hop.at));
    visits
}

async fn write_all(database: Database, mut receiver: mpsc::Receiver<Message>) {
    let (mut inbox, mut hops, mut flushes) = (Vec::with_capacity(MOST), Vec::with_capacity(MOST), Vec::new());
    let mut due = Instant::now();
    loop {
        let has_hops = !hops.is_empty();
        let is_due = tokio::select! {
            biased;
            // First: under a load that never rests there is always something to take.
            () = tokio::time::sleep_until(due), if has_hops => true,
            taken = receiver.recv_many(&mut inbox, MOST - hops.len()) => {
                if taken == 0 {
                    return write(&database, &mut hops).await;
                }
                false
            }
        };
        for message in inbox.drain(..) {
            match message {
                Message::Hop(told) => hops.push(told),
                Message::Flush(done) => flushes.push(done),
            }
        }
        if !has_hops {
            due = Instant::now() + GATHERING;
        }
        if is_due || hops.len() >= MOST || !flushes.is_empty() {
            write(&database, &mut hops).await;
            for done in flushes.drain(..) {
                done.send(()).ok();
            }
        }
    }
}

/// Writes these hops; a failure is logged, and they are gone.
async fn write(database: &Database, hops: &mut Vec<PendingHop>) {
    if hops.is_empty() {
        return;
    }
    let count = hops.len();
    let visits = visits(hops);
    let keys = Keys::of(visits.keys());
    let last_ats: Vec<_> = visits.values().map(|visit| visit.hops.last().map(|hop| hop.at)).collect();
    let tombstones: Vec<_> = visits.values().map(|visit| &visit.tombstone).collect();
    let texts: Result<Vec<_>, _> = visits.values().map(|visit| serde_json::to_string(&visit.hops)).collect();
    let written = match texts {
        Ok(texts) => {
            let parameters: [&(dyn ToSql + Sync); 6] =
                [&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &last_ats, &texts, &tombstones];
            database.query("write timeline", INSERT, &parameters).await.map(drop).map_err(CatalogError::from)
        }
        Err(error) => Err(unreadable(error)),
    };
    if let Err(error) = written {
        tracing::warn!(%error, count, "timeline not written");
    }
}

/// Removes old hops, for as long as the catalog is open.
async fn prune(database: Database) {
    loop {
        // Not all processes at the same moment.
        tokio::time::sleep(PRUNING.mul_f64(chance::range(0.5..1.5))).await;
        if let Err(error) = prune_now(&database).await {
            tracing::warn!(%error, "timeline not pruned");
        }
    }
}

/// Removes all old hops, bite by bite.
pub(super) async fn prune_now(database: &Database) -> Result<(), CatalogError> {
    for delete in DELETES {
        while database.execute("prune timeline", delete, &[&BITE]).await? > 0 {
            tokio::time::sleep(CHEWING).await;
        }
    }
    Ok(())
}
