//! The rate budget that all processes of a tenant share, kept in the table `rate_leases`.
//!
//! In: a wish to send a request. Out: a grant, or the time at which to come again. A process takes leases: some grants
//! at once, as many as are waited for, each to be used within a moment (`USABLE_AT_LEAST`). Where requests come fast
//! it takes more than that, so that the database is asked a few times a second and not for each of them; but never
//! more than a share of the limit, so that others have theirs.
//!
//! # After a crash
//! A lease is committed before its first grant is used. It counts until a whole window after the last moment at
//! which it could be used, so that whoever comes next, on any machine, counts it too. Each side measures with a clock
//! of its own: the database by its own, the process by a monotonic one from before it asked. The two are never
//! compared.
//!
//! # Without the database
//! Nothing is sent without a grant: the wish fails within seconds, and is repeated like any request that failed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{Database, DatabaseError};
use crate::clients::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use crate::clients::quota::{Line, Patience, Rate, no_room};
use crate::flow::{Metrics, task};
use crate::model::TenantId;

/// Grants are used at once or thrown away: what is kept longer would count for longer.
const USABLE_AT_LEAST: Duration = Duration::from_millis(500);

/// However slow the database, a lease is not held for longer.
const USABLE_AT_MOST: Duration = Duration::from_secs(10);

/// The part of its window that a lease may be usable for: of a window of five minutes, a second.
const USABLE_SHARE: u32 = 300;

/// One process takes at most this part of the limit at a time.
const LEASE_SHARE: i64 = 8;

/// Asked more often than this, a process takes more at a time.
const BUSY_INTERVAL: Duration = Duration::from_millis(250);

/// Asked less often than this, it takes no more than is waited for.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// The database answers within this time, or it counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failure, nobody asks again for so long.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// The longest time between two questions for room: another process may have returned some.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Leases of which the database shall still learn how they were used; older ones end by themselves.
const MOST_SPENT: usize = 64;

const TAKE: &str = "select lease, granted, room_in_secs from take_rate_lease($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const AVAILABLE: &str = "
    select greatest($3::bigint - coalesce(sum(grants), 0), 0)::bigint from rate_leases
    where tenant_id = $1 and family = $2 and counts_until >= clock_timestamp()";

/// The budgets of one tenant, shared with every other process that has one on the same database.
#[derive(Debug)]
pub struct SharedQuota {
    acd: Arc<Budget>,
    media_playback: Arc<Budget>,
    patience: Patience,
    metrics: Metrics,
}

impl SharedQuota {
    /// The budgets of this tenant.
    pub fn new(
        database: Database,
        tenant: TenantId,
        acd: Rate,
        media_playback: Rate,
        patience: Patience,
        metrics: Metrics,
    ) -> Self {
        let budget = |family, rate| Arc::new(Budget::new(database.clone(), tenant.clone(), family, rate));
        Self {
            acd: budget(ApiFamily::Acd, acd),
            media_playback: budget(ApiFamily::MediaPlayback, media_playback),
            patience,
            metrics,
        }
    }

    /// How many requests all processes together may send at this moment.
    pub async fn available(&self, family: ApiFamily) -> Result<usize, DatabaseError> {
        self.budget(family).available().await
    }

    fn budget(&self, family: ApiFamily) -> &Arc<Budget> {
        match family {
            ApiFamily::Acd => &self.acd,
            ApiFamily::MediaPlayback => &self.media_playback,
        }
    }
}

#[async_trait]
impl Quota for SharedQuota {
    async fn admit(&self, family: ApiFamily, _class: QuotaClass) -> Result<(), NiceError> {
        let since = Instant::now();
        self.budget(family).admit(since, self.patience).await?;
        let waited = since.elapsed().as_secs_f64();
        self.metrics.quota_wait.with_label_values(&[family.as_str()]).inc_by(waited);
        Ok(())
    }
}

/// One family's budget as this process sees it.
#[derive(Debug)]
struct Budget {
    database: Database,
    tenant: TenantId,
    family: ApiFamily,
    rate: Rate,
    line: Line,
    pool: Mutex<Pool>,
    /// Requests that wait for a grant now.
    waiting: AtomicI64,
    /// Whoever asks the database holds it.
    turn: tokio::sync::Mutex<()>,
    /// Returns what is left of a lease.
    returning: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What is in hand.
#[derive(Debug)]
struct Pool {
    lease: Option<Lease>,
    /// Leases that are over, of which the database was not told yet.
    spent: VecDeque<Lease>,
    closed: Option<Closed>,
    asked_at: Option<Instant>,
    /// Grants to take beyond those that are waited for.
    ahead: i64,
    /// How long the next lease shall be usable.
    usable: Duration,
}

/// Some grants.
#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    left: i64,
    used: i64,
    last_use: Instant,
    usable_until: Instant,
}

/// Why the database need not be asked for a while.
#[derive(Debug, Clone)]
struct Closed {
    until: Instant,
    why: Why,
}

#[derive(Debug, Clone)]
enum Why {
    /// There is no room before a time.
    Full {
        /// Then.
        room_at: Instant,
    },
    /// It could not be asked.
    Failed(String),
}

/// A grant, or what stands in its way.
enum Look {
    Granted,
    Closed(Why),
    Ask,
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicI64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the database answers.
struct Taken {
    asked_at: Instant,
    lease: Option<i64>,
    granted: i64,
    room_in: Duration,
}

impl Budget {
    fn new(database: Database, tenant: TenantId, family: ApiFamily, rate: Rate) -> Self {
        let pool = Pool {
            lease: None,
            spent: VecDeque::new(),
            closed: None,
            asked_at: None,
            ahead: 0,
            usable: usable_at_least(rate),
        };
        Self {
            database,
            tenant,
            family,
            rate,
            line: Line::default(),
            pool: Mutex::new(pool),
            waiting: AtomicI64::new(0),
            turn: tokio::sync::Mutex::default(),
            returning: Mutex::default(),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a grant, for as long as it takes or the patience lasts.
    async fn admit(self: &Arc<Self>, since: Instant, patience: Patience) -> Result<(), NiceError> {
        if self.pool().spend(Instant::now()) {
            return Ok(());
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let room_at = match self.look().await {
                Look::Granted => return Ok(()),
                Look::Closed(Why::Failed(what)) => return Err(NiceError::Quota { what, retry_after: None }),
                Look::Closed(Why::Full { room_at }) => room_at,
                // The lease was over before it came.
                Look::Ask => continue,
            };
            let wait = room_at.saturating_duration_since(Instant::now());
            if !patience.lasts(since, wait) {
                return Err(no_room(self.family, self.line.join(wait, self.rate.spacing())));
            }
            tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)).await;
        }
    }

    /// What there is, after the database was asked if need be. One asks for all who wait.
    async fn look(self: &Arc<Self>) -> Look {
        let _turn = self.turn.lock().await;
        let look = self.pool().look(Instant::now());
        if !matches!(look, Look::Ask) {
            return look;
        }
        self.ask().await;
        self.pool().look(Instant::now())
    }

    /// Takes a lease for all who wait, and notes what came of it.
    async fn ask(self: &Arc<Self>) {
        let most = (i64::from(self.rate.limit) / LEASE_SHARE).max(1);
        let waiting = self.waiting.load(Ordering::Relaxed);
        let (wanted, usable, spent) = self.pool().prepare(waiting, most, Instant::now());
        let taken = self.take(wanted, usable, &spent).await;
        let mut pool = self.pool();
        match taken {
            Ok(taken) => {
                pool.spent.drain(..spent.len());
                pool.keep(&taken, usable, usable_at_least(self.rate));
                if taken.granted > waiting {
                    self.return_rest_after(taken.asked_at + usable);
                }
            }
            Err(error) => {
                let why = Why::Failed(format!("rate budget: {error}"));
                pool.closed = Some(Closed { until: Instant::now() + FAILED_FOR, why });
            }
        }
    }

    /// Gives back what nobody used of a lease by then.
    fn return_rest_after(self: &Arc<Self>, over: Instant) {
        let budget = Arc::downgrade(self);
        let returning = task::spawn("return_rate_lease", async move {
            tokio::time::sleep_until(over).await;
            let Some(budget) = budget.upgrade() else { return };
            let _turn = budget.turn.lock().await;
            let spent = budget.pool().unused(Instant::now());
            if spent.is_empty() {
                return;
            }
            match budget.take(0, Duration::ZERO, &spent).await {
                Ok(_) => drop(budget.pool().spent.drain(..spent.len())),
                Err(error) => debug!(%error, "the rest of a lease is not returned, it counts until it ends"),
            }
        });
        *self.returning.lock().unwrap_or_else(PoisonError::into_inner) = Some(returning);
    }

    /// Takes up to `wanted` grants, and tells how earlier leases were used. Repeatable: a lease of which the answer
    /// was lost counts for nothing sent, and ends by itself.
    async fn take(&self, wanted: i64, usable: Duration, spent: &[Lease]) -> Result<Taken, DatabaseError> {
        let what = "take of the rate budget";
        let most = i64::from(self.rate.limit);
        let (counted, usable) = (self.rate.counted_for().as_secs_f64(), usable.as_secs_f64());
        let ids: &Vec<i64> = &spent.iter().map(|lease| lease.id).collect();
        let used: &Vec<i64> = &spent.iter().map(|lease| lease.used).collect();
        let taken = self.database.run(what, |client| async move {
            let take = client.prepare_cached(TAKE).await?;
            // What follows is counted from before the statement is sent, and by the database from after it came.
            let asked_at = Instant::now();
            let ago = |lease: &Lease| asked_at.saturating_duration_since(lease.last_use).as_secs_f64();
            let secs_ago: Vec<f64> = spent.iter().map(ago).collect();
            let (tenant, family) = (self.tenant.as_str(), self.family.as_str());
            let values: [&(dyn ToSql + Sync); 9] =
                [&tenant, &family, &most, &counted, &usable, &wanted, ids, used, &secs_ago];
            let row = client.query_one(&take, &values).await?;
            let room_in: f64 = row.try_get("room_in_secs")?;
            Ok(Taken {
                asked_at,
                lease: row.try_get("lease")?,
                granted: row.try_get("granted")?,
                room_in: Duration::try_from_secs_f64(room_in).unwrap_or_default(),
            })
        });
        let late = |_| DatabaseError::Unreachable { what, cause: "no answer in time".to_owned() };
        tokio::time::timeout(ANSWER_TIMEOUT, taken).await.map_err(late)?
    }

    async fn available(&self) -> Result<usize, DatabaseError> {
        let most = i64::from(self.rate.limit);
        let left = self.database.run("look at the rate budget", |client| async move {
            let available = client.prepare_cached(AVAILABLE).await?;
            let values: [&(dyn ToSql + Sync); 3] = [&self.tenant.as_str(), &self.family.as_str(), &most];
            client.query_one(&available, &values).await?.try_get::<_, i64>(0)
        });
        Ok(usize::try_from(left.await?).unwrap_or_default())
    }
}

fn usable_at_least(rate: Rate) -> Duration {
    (rate.window / USABLE_SHARE).clamp(USABLE_AT_LEAST, USABLE_AT_MOST)
}

impl Pool {
    fn look(&mut self, now: Instant) -> Look {
        if self.spend(now) {
            return Look::Granted;
        }
        match &self.closed {
            Some(closed) if now < closed.until => Look::Closed(closed.why.clone()),
            _ => Look::Ask,
        }
    }

    /// Uses a grant, if one is in hand that may still be used.
    fn spend(&mut self, now: Instant) -> bool {
        match &mut self.lease {
            Some(lease) if lease.left > 0 && now < lease.usable_until => {
                lease.left -= 1;
                lease.used += 1;
                lease.last_use = now;
                true
            }
            _ => false,
        }
    }

    /// How many grants to take, how long they shall be usable, and what to tell of earlier leases.
    fn prepare(&mut self, waiting: i64, most: i64, now: Instant) -> (i64, Duration, Vec<Lease>) {
        let gap = self.asked_at.map(|at| now.saturating_duration_since(at));
        self.asked_at = Some(now);
        match self.retire() {
            Some(lease) if lease.left > 0 => self.ahead = self.ahead.min(lease.used),
            Some(lease) if gap.is_some_and(|gap| gap < BUSY_INTERVAL) => {
                self.ahead = self.ahead.saturating_mul(2).max(lease.used).min(most);
            }
            _ if gap.is_none_or(|gap| gap > CALM_INTERVAL) => self.ahead = 0,
            _ => {}
        }
        let wanted = waiting.max(1).saturating_add(self.ahead).min(most);
        (wanted, self.usable, self.spent.iter().copied().collect())
    }

    /// Takes the lease in hand out of use.
    fn retire(&mut self) -> Option<Lease> {
        let lease = self.lease.take()?;
        if self.spent.len() == MOST_SPENT {
            self.spent.pop_front();
        }
        self.spent.push_back(lease);
        Some(lease)
    }

    /// The leases to be told of, if the one in hand is over and something of it is left.
    fn unused(&mut self, now: Instant) -> Vec<Lease> {
        if self.lease.is_some_and(|lease| lease.left > 0 && now >= lease.usable_until) {
            self.retire();
        }
        match self.spent.iter().any(|lease| lease.left > 0) {
            true => self.spent.iter().copied().collect(),
            false => Vec::new(),
        }
    }

    fn keep(&mut self, taken: &Taken, usable: Duration, at_least: Duration) {
        let now = Instant::now();
        // Several answers of such a database fit into the next lease.
        let took = now.saturating_duration_since(taken.asked_at);
        self.usable = (took * 4).clamp(at_least, USABLE_AT_MOST);
        match taken.lease {
            Some(id) => {
                let usable_until = taken.asked_at + usable;
                let last_use = taken.asked_at;
                self.lease = Some(Lease { id, left: taken.granted, used: 0, last_use, usable_until });
                self.closed = None;
            }
            None => {
                let until = now + taken.room_in.clamp(Duration::from_millis(1), LONGEST_SLEEP);
                self.closed = Some(Closed { until, why: Why::Full { room_at: now + taken.room_in } });
            }
        }
    }
}

#[cfg(test)]
mod tests;
