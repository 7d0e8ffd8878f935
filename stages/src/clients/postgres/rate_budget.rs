//! The rate budget that all processes of a tenant share, kept in the tables `rate_budgets` and `rate_leases`.
//!
//! In: a wish to send a request, of a class. Out: a grant, or the time at which to come again. A process takes leases:
//! some grants at once, as many as are waited for, each to be used within a moment (`USABLE_AT_LEAST`). Where requests
//! come fast it takes more than that, so that the database is asked a few times a second and not for each of them;
//! but never more than a share of the limit, so that others have theirs.
//!
//! Each class takes leases of its own. What it may have is decided by the database, in one function for all processes:
//! whether a live call waits anywhere, the share and the even pace of the classes that have time, and what NICE's
//! refusals taught.
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
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{Database, DatabaseError};
use crate::clients::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use crate::clients::quota::{IN_FRONT, Lines, Patience, Rate, Shares, Usage, Waiters, no_room, no_share};
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

const TAKE: &str = "
    select lease, granted, room_in_secs, limit_now
    from take_rate_lease_of_class($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const REFUSED: &str = "select closed_secs, limit_now from note_rate_refusal($1, $2, $3, $4, $5, $6)";

const STANDING: &str = "
    select floor(rate_limit_grown($3, $4, lowered_to, closed_until, clock_timestamp()))::bigint,
           extract(epoch from closed_until - clock_timestamp())::double precision
    from rate_budgets where tenant_id = $1 and family = $2";

const USED: &str = "
    select class, sum(grants)::bigint from rate_leases
    where tenant_id = $1 and family = $2 and counts_until >= clock_timestamp() group by class";

/// The budgets of one tenant, shared with every other process that has one on the same database.
#[derive(Debug)]
pub struct SharedQuota {
    acd: Family,
    media_playback: Family,
    patience: Patience,
    metrics: Metrics,
}

impl SharedQuota {
    /// The budgets of this tenant.
    pub fn new(
        database: Database,
        tenant: TenantId,
        acd: Shares,
        media_playback: Shares,
        patience: Patience,
        metrics: Metrics,
    ) -> Self {
        let family = |family, shares| Family::new(&database, &tenant, family, shares);
        Self {
            acd: family(ApiFamily::Acd, acd),
            media_playback: family(ApiFamily::MediaPlayback, media_playback),
            patience,
            metrics,
        }
    }

    /// How a family's budget stands, over all processes.
    pub async fn usage(&self, family: ApiFamily) -> Result<Usage, DatabaseError> {
        self.family(family).account.usage().await
    }

    fn family(&self, family: ApiFamily) -> &Family {
        match family {
            ApiFamily::Acd => &self.acd,
            ApiFamily::MediaPlayback => &self.media_playback,
        }
    }
}

#[async_trait]
impl Quota for SharedQuota {
    async fn admit(&self, family: ApiFamily, class: QuotaClass) -> Result<(), NiceError> {
        let since = Instant::now();
        let admitted = self.family(family).lane(class).admit(since, self.patience).await;
        self.metrics.quota_asked(family.as_str(), class.as_str(), since.elapsed(), admitted.is_ok());
        admitted
    }

    async fn refused(&self, family: ApiFamily, retry_after: Option<Duration>) {
        self.metrics.quota_refusals.with_label_values(&[family.as_str()]).inc();
        self.family(family).refused(retry_after).await;
    }
}

/// One family's budget as this process sees it.
#[derive(Debug)]
struct Family {
    account: Arc<Account>,
    lanes: [Arc<Lane>; QuotaClass::ALL.len()],
}

/// What all classes of a family have in common.
#[derive(Debug)]
struct Account {
    database: Database,
    tenant: TenantId,
    family: ApiFamily,
    shares: Shares,
    lines: Lines,
    waiters: Waiters,
    /// The limit as the database told it last.
    limit_now: AtomicU32,
}

/// One class's part of it.
#[derive(Debug)]
struct Lane {
    account: Arc<Account>,
    class: QuotaClass,
    pool: Mutex<Pool>,
    /// Requests that wait for a grant now.
    waiting: AtomicI64,
    /// Whoever asks the database holds it.
    turn: tokio::sync::Mutex<()>,
    /// Of a paced class, the one that has more patience holds it.
    front: tokio::sync::Semaphore,
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
    at: Instant,
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
    limit_now: i64,
}

impl Family {
    fn new(database: &Database, tenant: &TenantId, family: ApiFamily, shares: Shares) -> Self {
        let account = Arc::new(Account {
            database: database.clone(),
            tenant: tenant.clone(),
            family,
            shares,
            lines: Lines::default(),
            waiters: Waiters::default(),
            limit_now: AtomicU32::new(shares.rate().limit),
        });
        let lanes = QuotaClass::ALL.map(|class| Arc::new(Lane::new(&account, class)));
        Self { account, lanes }
    }

    fn lane(&self, class: QuotaClass) -> &Arc<Lane> {
        &self.lanes[class as usize]
    }

    /// Closes the budget for all processes; what this one has in hand is not used.
    async fn refused(&self, retry_after: Option<Duration>) {
        let family = self.account.family.as_str();
        match self.account.note_refusal(retry_after).await {
            Ok((closed_for, limit_now)) => {
                let limit = self.account.shares.rate().limit;
                warn!(family, limit, limit_now, "NICE refused a request that is within the limit, going slower");
                let until = Instant::now() + closed_for;
                self.lanes.iter().for_each(|lane| lane.pool().close(until));
            }
            Err(error) => warn!(family, %error, "a refusal is not noted, the other processes do not learn of it"),
        }
    }
}

impl Account {
    /// Tells all processes that NICE refused a request. For how long the budget is closed, and its limit from then on.
    async fn note_refusal(&self, retry_after: Option<Duration>) -> Result<(Duration, i64), DatabaseError> {
        let what = "note of a refusal";
        let most = i64::from(self.shares.rate().limit);
        let counted = self.shares.rate().counted_for().as_secs_f64();
        let asked = retry_after.map(|asked| asked.as_secs_f64());
        let jitter: f64 = rand::random_range(1.0..1.5);
        let noted = self.database.run(what, |client| async move {
            let note = client.prepare_cached(REFUSED).await?;
            let values: [&(dyn ToSql + Sync); 6] =
                [&self.tenant.as_str(), &self.family.as_str(), &most, &counted, &asked, &jitter];
            let row = client.query_one(&note, &values).await?;
            Ok((Duration::try_from_secs_f64(row.try_get(0)?).unwrap_or_default(), row.try_get(1)?))
        });
        let noted = tokio::time::timeout(ANSWER_TIMEOUT, noted).await.map_err(|_| late(what))?;
        if let Ok((_, limit_now)) = &noted {
            self.limit_is(*limit_now);
        }
        noted
    }

    async fn usage(&self) -> Result<Usage, DatabaseError> {
        let most = i64::from(self.shares.rate().limit);
        let counted = self.shares.rate().counted_for().as_secs_f64();
        let (standing, used) = self
            .database
            .run("look at the rate budget", |client| async move {
                let (tenant, family) = (self.tenant.as_str(), self.family.as_str());
                let standing = client.prepare_cached(STANDING).await?;
                let standing = client.query_opt(&standing, &[&tenant, &family, &most, &counted]).await?;
                let used = client.prepare_cached(USED).await?;
                Ok((standing, client.query(&used, &[&tenant, &family]).await?))
            })
            .await?;
        let limit_now: Option<i64> = standing.as_ref().and_then(|row| row.get(0));
        let closed_secs: Option<f64> = standing.as_ref().and_then(|row| row.get(1));
        let used_by = |class: QuotaClass| {
            let row = used.iter().find(|row| row.get::<_, &str>(0) == class.as_str());
            (class, row.map_or(0, |row| usize::try_from(row.get::<_, i64>(1)).unwrap_or_default()))
        };
        Ok(Usage {
            limit: usize::try_from(most).unwrap_or_default(),
            limit_now: usize::try_from(limit_now.unwrap_or(most).max(1)).unwrap_or_default(),
            by_class: QuotaClass::ALL.map(used_by).into_iter().filter(|(_, used)| *used > 0).collect(),
            closed_for: closed_secs.and_then(|secs| Duration::try_from_secs_f64(secs).ok()).filter(|by| !by.is_zero()),
        })
    }

    fn limit_is(&self, limit_now: i64) {
        self.limit_now.store(u32::try_from(limit_now).unwrap_or(1).max(1), Ordering::Relaxed);
    }

    fn spacing(&self, class: QuotaClass) -> Duration {
        self.shares.spacing(class, self.limit_now.load(Ordering::Relaxed))
    }
}

fn late(what: &'static str) -> DatabaseError {
    DatabaseError::Unreachable { what, cause: "no answer in time".to_owned() }
}

impl Lane {
    fn new(account: &Arc<Account>, class: QuotaClass) -> Self {
        let pool = Pool {
            lease: None,
            spent: VecDeque::new(),
            closed: None,
            asked_at: None,
            ahead: 0,
            usable: usable_at_least(account.shares.rate()),
        };
        Self {
            account: account.clone(),
            class,
            pool: Mutex::new(pool),
            waiting: AtomicI64::new(0),
            turn: tokio::sync::Mutex::default(),
            front: tokio::sync::Semaphore::new(IN_FRONT as usize),
            returning: Mutex::default(),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a grant, for as long as it takes or the patience lasts.
    async fn admit(self: &Arc<Self>, since: Instant, patience: Patience) -> Result<(), NiceError> {
        let Account { family, shares, lines, waiters, .. } = &*self.account;
        if shares.most(self.class, shares.rate().limit) == 0 {
            return Err(no_share(*family));
        }
        if waiters.before(self.class) == 0 && self.pool().spend(Instant::now()) {
            return Ok(());
        }
        let _first = waiters.enter(self.class);
        let _waiting = Waiting::new(&self.waiting);
        let front = if self.class.is_bulk() { self.front.try_acquire().ok() } else { None };
        let patience = match &front {
            Some(_) => patience.in_front(self.account.spacing(self.class)),
            None => patience,
        };
        loop {
            let left = waiters.left();
            let before = u32::try_from(waiters.before(self.class)).unwrap_or(u32::MAX);
            let wait = if before > 0 {
                self.account.spacing(self.class).saturating_mul(before)
            } else {
                match self.look().await {
                    Look::Granted => return Ok(()),
                    Look::Closed(Why::Failed(what)) => return Err(NiceError::Quota { what, retry_after: None }),
                    Look::Closed(Why::Full { room_at }) => room_at.saturating_duration_since(Instant::now()),
                    // The lease was over before it came.
                    Look::Ask => continue,
                }
            };
            if !patience.lasts(since, wait) {
                let spacing = self.account.spacing(self.class);
                return Err(no_room(*family, lines.join(self.class, wait, spacing)));
            }
            let asleep = tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP));
            match before {
                0 => asleep.await,
                _ => tokio::select! {
                    () = asleep => {}
                    () = left => {}
                },
            }
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
        let rate = self.account.shares.rate();
        let waiting = self.waiting.load(Ordering::Relaxed);
        // Who has time takes nothing ahead: it would be lost to the even pace.
        let most = match self.class.is_bulk() {
            true => waiting.max(1),
            false => (i64::from(rate.limit) / LEASE_SHARE).max(1),
        };
        let (wanted, usable, spent) = self.pool().prepare(waiting, most, Instant::now());
        let taken = self.take(wanted, usable, &spent).await;
        let mut pool = self.pool();
        match taken {
            Ok(taken) => {
                self.account.limit_is(taken.limit_now);
                pool.spent.drain(..spent.len());
                pool.keep(&taken, usable, usable_at_least(rate));
                if taken.granted > waiting || (taken.granted > 0 && pool.lease.is_none()) {
                    self.return_rest_after(taken.asked_at + usable);
                }
            }
            Err(error) => {
                let why = Why::Failed(format!("rate budget: {error}"));
                let at = Instant::now();
                pool.closed = Some(Closed { at, until: at + FAILED_FOR, why });
            }
        }
    }

    /// Gives back what nobody used of a lease by then.
    fn return_rest_after(self: &Arc<Self>, over: Instant) {
        let lane = Arc::downgrade(self);
        let returning = task::spawn("return_rate_lease", async move {
            tokio::time::sleep_until(over).await;
            let Some(lane) = lane.upgrade() else { return };
            let _turn = lane.turn.lock().await;
            let spent = lane.pool().unused(Instant::now());
            if spent.is_empty() {
                return;
            }
            match lane.take(0, Duration::ZERO, &spent).await {
                Ok(_) => drop(lane.pool().spent.drain(..spent.len())),
                Err(error) => debug!(%error, "the rest of a lease is not returned, it counts until it ends"),
            }
        });
        *self.returning.lock().unwrap_or_else(PoisonError::into_inner) = Some(returning);
    }

    /// Takes up to `wanted` grants, and tells how earlier leases were used. Repeatable: a lease of which the answer
    /// was lost counts for nothing sent, and ends by itself.
    async fn take(&self, wanted: i64, usable: Duration, spent: &[Lease]) -> Result<Taken, DatabaseError> {
        let what = "take of the rate budget";
        let Account { database, tenant, family, shares, .. } = &*self.account;
        let (most, reserve) = (i64::from(shares.rate().limit), shares.live_reserve());
        let (counted, usable) = (shares.rate().counted_for().as_secs_f64(), usable.as_secs_f64());
        let ids: &Vec<i64> = &spent.iter().map(|lease| lease.id).collect();
        let used: &Vec<i64> = &spent.iter().map(|lease| lease.used).collect();
        let taken = database.run(what, |client| async move {
            let take = client.prepare_cached(TAKE).await?;
            // What follows is counted from before the statement is sent, and by the database from after it came.
            let asked_at = Instant::now();
            let ago = |lease: &Lease| asked_at.saturating_duration_since(lease.last_use).as_secs_f64();
            let secs_ago: Vec<f64> = spent.iter().map(ago).collect();
            let (tenant, family, class) = (tenant.as_str(), family.as_str(), self.class.as_str());
            let values: [&(dyn ToSql + Sync); 11] =
                [&tenant, &family, &class, &most, &reserve, &counted, &usable, &wanted, ids, used, &secs_ago];
            let row = client.query_one(&take, &values).await?;
            let room_in: f64 = row.try_get("room_in_secs")?;
            Ok(Taken {
                asked_at,
                lease: row.try_get("lease")?,
                granted: row.try_get("granted")?,
                room_in: Duration::try_from_secs_f64(room_in).unwrap_or_default(),
                limit_now: row.try_get("limit_now")?,
            })
        });
        tokio::time::timeout(ANSWER_TIMEOUT, taken).await.map_err(|_| late(what))?
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

    /// Nothing is used before then: NICE refused a request.
    fn close(&mut self, until: Instant) {
        self.retire();
        self.closed = Some(Closed { at: Instant::now(), until, why: Why::Full { room_at: until } });
    }

    /// Whether NICE refused a request since the database was asked: nothing else closes meanwhile.
    fn is_closed_since(&self, asked_at: Instant) -> bool {
        let closed = self.closed.as_ref().filter(|closed| matches!(closed.why, Why::Full { .. }));
        closed.is_some_and(|closed| closed.at > asked_at)
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
                let closed = self.is_closed_since(taken.asked_at);
                self.lease = Some(Lease { id, left: taken.granted, used: 0, last_use, usable_until });
                if closed {
                    // It was on its way when NICE refused a request: nothing of it leaves into the pause.
                    self.retire();
                } else {
                    self.closed = None;
                }
            }
            None if self.is_closed_since(taken.asked_at) => {}
            None => {
                let until = now + taken.room_in.clamp(Duration::from_millis(1), LONGEST_SLEEP);
                self.closed = Some(Closed { at: now, until, why: Why::Full { room_at: now + taken.room_in } });
            }
        }
    }
}

#[cfg(test)]
mod tests;
