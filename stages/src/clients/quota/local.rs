//! The budget in the local state, for a process that has its tenant to itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use state::{Grant, Permission, RateWindow, Share, Terms};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::restraint::{Refusal, Restraint};
use super::{IN_FRONT, Lines, Patience, Shares, Usage, Waiters, no_room, no_share};
use crate::clients::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use crate::flow::Metrics;

/// The longest single sleep, in case the wall clock jumps.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Who goes first and was sent away still waits: for so long after it no bulk is sent in its place, at least.
const AWAY_AT_LEAST: Duration = Duration::from_secs(2);

/// And at most: it may have found room elsewhere.
const AWAY_AT_MOST: Duration = Duration::from_secs(30);

/// The classes that share what the reserve leaves, a bit for each.
const BULK: u8 = 1 << QuotaClass::Reconciliation as u8 | 1 << QuotaClass::Backfill as u8;

/// One family's budget.
#[derive(Debug)]
struct Account {
    family: ApiFamily,
    window: RateWindow,
    shares: Shares,
    restraint: Mutex<Option<Restraint>>,
    lines: Lines,
    waiters: Waiters,
    /// Who waits for room, one of each class, first come first served.
    turns: [tokio::sync::Mutex<()>; QuotaClass::ALL.len()],
    /// Until then one that goes first and was sent away counts as waiting.
    away_until: Mutex<Option<Instant>>,
}

/// The budgets of both API families, one for the whole process.
#[derive(Debug, Clone)]
pub struct LocalLedger {
    accounts: Arc<[Account; 2]>,
    metrics: Metrics,
}

impl LocalLedger {
    /// A ledger over two windows of the local state.
    pub fn new(acd: (RateWindow, Shares), media_playback: (RateWindow, Shares), metrics: Metrics) -> Self {
        let account = |family, (window, shares): (RateWindow, Shares)| {
            let restraint = window.note().and_then(|note| serde_json::from_slice(&note).ok());
            Account {
                family,
                window,
                shares,
                restraint: Mutex::new(restraint),
                lines: Lines::default(),
                waiters: Waiters::default(),
                turns: Default::default(),
                away_until: Mutex::default(),
            }
        };
        let accounts = [account(ApiFamily::Acd, acd), account(ApiFamily::MediaPlayback, media_playback)];
        Self { accounts: Arc::new(accounts), metrics }
    }

    /// How a family's budget stands.
    pub fn usage(&self, family: ApiFamily) -> Usage {
        self.account(family).usage()
    }

    /// What each class may have of a family's limit.
    pub fn shares(&self, family: ApiFamily) -> Shares {
        self.account(family).shares
    }

    fn account(&self, family: ApiFamily) -> &Account {
        match family {
            ApiFamily::Acd => &self.accounts[0],
            ApiFamily::MediaPlayback => &self.accounts[1],
        }
    }
}

/// The way to a ledger of those who have so much patience.
#[derive(Debug)]
pub struct LocalQuota {
    ledger: LocalLedger,
    patience: Patience,
}

impl LocalQuota {
    /// A way to this ledger.
    pub fn new(ledger: LocalLedger, patience: Patience) -> Self {
        Self { ledger, patience }
    }
}

#[async_trait]
impl Quota for LocalQuota {
    async fn admit(&self, family: ApiFamily, class: QuotaClass) -> Result<(), NiceError> {
        let since = Instant::now();
        let admitted = self.ledger.account(family).admit(class, self.patience, since).await;
        self.ledger.metrics.quota_asked(family.as_str(), class.as_str(), since.elapsed(), admitted.is_ok());
        admitted
    }

    async fn refused(&self, family: ApiFamily, retry_after: Option<Duration>) {
        self.ledger.metrics.quota_refusals.with_label_values(&[family.as_str()]).inc();
        self.ledger.account(family).refused(retry_after).await;
    }
}

impl Account {
    async fn admit(&self, class: QuotaClass, patience: Patience, since: Instant) -> Result<(), NiceError> {
        if self.shares.most(class, self.shares.rate().limit) == 0 {
            return Err(no_share(self.family));
        }
        let grant = self.take(class, patience, since).await?;
        grant.commit().await.map_err(failed)
    }

    /// Takes a grant, in the order of classes and of coming; it is not yet durable.
    async fn take(&self, class: QuotaClass, patience: Patience, since: Instant) -> Result<Grant, NiceError> {
        let _waiting = self.waiters.enter(class);
        let (_turn, patience) = self.turn(class, patience, since).await?;
        loop {
            let left = self.waiters.left();
            let room_in = match self.waiters.before(class) {
                0 => match self.look(class)? {
                    Permission::Granted(grant) => return Ok(grant),
                    Permission::RetryAt(at) => self.until(at),
                },
                before => {
                    let theirs = u32::try_from(before).unwrap_or(u32::MAX);
                    self.room_in(class).saturating_add(self.spacing(class).saturating_mul(theirs))
                }
            };
            if !patience.lasts(since, room_in) {
                return Err(self.send_away(class, room_in));
            }
            let asleep = tokio::time::sleep(room_in.clamp(Duration::from_millis(1), LONGEST_SLEEP));
            tokio::select! {
                () = asleep => {}
                () = left => {}
            }
        }
    }

    /// Waits until nobody of the class is in front. A paced class has some in front, who have more patience, as long as
    /// any of it are there.
    async fn turn(
        &self,
        class: QuotaClass,
        patience: Patience,
        since: Instant,
    ) -> Result<(tokio::sync::MutexGuard<'_, ()>, Patience), NiceError> {
        let turn = &self.turns[class as usize];
        let spacing = self.spacing(class);
        let in_front = if class.is_bulk() { patience.in_front(spacing) } else { patience };
        if let Ok(turn) = turn.try_lock() {
            return Ok((turn, in_front));
        }
        let longest = match in_front {
            Patience::Endless => return Ok((turn.lock().await, patience)),
            Patience::UpTo(longest) => longest,
        };
        let ahead = u32::try_from(self.waiters.count(class).saturating_sub(1)).unwrap_or(u32::MAX);
        if class.is_bulk() && (ahead >= IN_FRONT || !in_front.lasts(since, spacing.saturating_mul(ahead))) {
            return Err(self.send_away(class, self.room_in(class) + spacing));
        }
        match tokio::time::timeout_at(since + longest, turn.lock()).await {
            Ok(turn) => Ok((turn, in_front)),
            Err(_) => Err(self.send_away(class, self.room_in(class) + spacing)),
        }
    }

    /// Takes what there is.
    fn look(&self, class: QuotaClass) -> Result<Permission, NiceError> {
        let now = self.window.now();
        match self.closed_until(class, now) {
            Some(until) => Ok(Permission::RetryAt(until)),
            None => self.window.take(&self.terms(class, now)).map_err(failed),
        }
    }

    /// How long until there is room, as far as can be told.
    fn room_in(&self, class: QuotaClass) -> Duration {
        let now = self.window.now();
        let closed = self.closed_until(class, now);
        let full = self.window.room_at(&self.terms(class, now));
        closed.max(full).map_or(Duration::ZERO, |at| self.until(at))
    }

    /// Until when the class has nothing, whatever room there is.
    fn closed_until(&self, class: QuotaClass, now: Timestamp) -> Option<Timestamp> {
        let refused = self.restraint().and_then(|restraint| restraint.closed_until(now));
        let away = class.is_bulk().then(|| *self.away_until()).flatten();
        let away = away.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        refused.max(away.map(|left| now + SignedDuration::try_from(left).unwrap_or_default()))
    }

    fn terms(&self, class: QuotaClass, now: Timestamp) -> Terms {
        let most = self.most(now);
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let rate = self.shares.rate();
        let settling = self.restraint().is_some_and(|restraint| restraint.is_settling(rate, now));
        let share = class.is_bulk().then(|| {
            let spacing = self.shares.spacing(class, most);
            let slack = signed(Shares::slack(spacing));
            Share { classes: BULK, most: self.shares.most(class, most) as usize, spacing: signed(spacing), slack }
        });
        let apart = if settling { signed(rate.counted_for() / most) } else { SignedDuration::ZERO };
        Terms { class: class as u8, most: most as usize, apart, share }
    }

    fn most(&self, now: Timestamp) -> u32 {
        let rate = self.shares.rate();
        self.restraint().map_or(rate.limit.max(1), |restraint| restraint.most(rate, now))
    }

    fn spacing(&self, class: QuotaClass) -> Duration {
        self.shares.spacing(class, self.most(self.window.now()))
    }

    fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.window.now())).unwrap_or_default()
    }

    /// Tells a turn.
    fn send_away(&self, class: QuotaClass, room_in: Duration) -> NiceError {
        let spacing = self.spacing(class);
        if !class.is_bulk() {
            *self.away_until() = Some(Instant::now() + spacing.clamp(AWAY_AT_LEAST, AWAY_AT_MOST));
        }
        no_room(self.family, self.lines.join(class, room_in, spacing))
    }

    async fn refused(&self, retry_after: Option<Duration>) {
        let rate = self.shares.rate();
        let refusal = Refusal {
            now: self.window.now(),
            retry_after,
            granted: self.window.used().iter().sum(),
            latest: self.window.latest(),
            jitter: rand::random_range(1.0..1.5),
        };
        let restraint = {
            let mut restraint = self.restraint_in_time();
            let Some(after) = Restraint::after(restraint.as_ref(), &refusal, rate) else { return };
            *restraint = Some(after);
            after
        };
        let (family, limit_now) = (self.family.as_str(), restraint.most(rate, refusal.now));
        warn!(family, limit = rate.limit, limit_now, "NICE refused a request that is within the limit, going slower");
        let kept = match serde_json::to_vec(&restraint) {
            Ok(note) => self.window.keep_note(&note).await,
            Err(error) => return error!(%error, "the restraint cannot be written, a restart will forget it"),
        };
        if let Err(error) = kept {
            debug!(%error, "the restraint is not kept, a restart will forget it");
        }
    }

    fn usage(&self) -> Usage {
        let now = self.window.now();
        let used = self.window.used();
        let classes = QuotaClass::ALL.into_iter().map(|class| (class, used[class as usize]));
        Usage {
            limit: self.shares.rate().limit as usize,
            limit_now: self.most(now) as usize,
            by_class: classes.filter(|(_, used)| *used > 0).collect(),
            closed_for: self.restraint().and_then(|restraint| restraint.closed_until(now)).map(|at| self.until(at)),
        }
    }

    /// The restraint there is.
    fn restraint(&self) -> Option<Restraint> {
        *self.restraint_in_time()
    }

    /// The same, to be changed. If the clock was set back, it is moved to now once, and kept so.
    fn restraint_in_time(&self) -> MutexGuard<'_, Option<Restraint>> {
        let mut restraint = self.restraint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moved) = restraint.as_ref().and_then(|restraint| restraint.in_time(self.window.now())) {
            *restraint = Some(moved);
            let noted = serde_json::to_vec(&moved).map(|note| self.window.change_note(&note));
            if !matches!(noted, Ok(Ok(()))) {
                debug!("the restraint is not kept, a restart will move it to the clock once more");
            }
        }
        restraint
    }

    fn away_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: state::StateError) -> NiceError {
    NiceError::Quota { what: format!("rate budget: {error}"), retry_after: None }
}
