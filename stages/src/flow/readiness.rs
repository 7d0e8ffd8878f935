//! When a call's recording is likely there: learned from the looks of all consumers, so that most calls need one.
//!
//! In: of each recording that was found, when its call had ended, when it was last looked for in vain, and now. Out:
//! how long after its end a call is looked at first. What is learned is one number for each tenant. It follows the
//! share of recordings that shall be there at the first look: each one that was not there in time makes it longer, each
//! that was there makes it shorter, in such a proportion that it stands still where the shares are as wished.
//!
//! It is a hint. Consumers keep it in the catalog, so that it outlives them and is one for all; where the catalog
//! fails, or a crash forgets the latest looks, calls are looked at a little too early or too late, and none is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, warn};

use self::first_look::FirstLook;
use super::{Clock, Metrics};
use crate::clients::catalog::{Catalog, CatalogError};
use crate::clients::queue;
use crate::model::{ContactEvent, TenantId};

mod first_look;

pub use first_look::Bounds;

/// Time between two readings of what the consumers have learned together.
const READ_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// Time between two writings of what this process has learned.
const WRITE_EVERY: SignedDuration = SignedDuration::from_secs(30);

/// Looks after which it is written earlier.
const MOST_UNWRITTEN: u32 = 100;

/// How long a call waits for the catalog's word; without it, it goes on with what this process knows.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tenants that are remembered; whoever is forgotten is read again from the catalog.
const MOST_TENANTS: usize = 4096;

/// A look may come later than asked for by this share of the delay, where that saves a message's way through the queue;
/// and after one in vain, the next comes no sooner than after this share of it.
const SLACK: f64 = 0.1;

/// That holds up to this multiple of the delay; then only the steps of the settings count, and the deadline.
const SPACED_UP_TO: f64 = 1.5;

/// What is known of every tenant's recordings.
#[derive(Clone)]
pub struct Readiness {
    inner: Arc<Inner>,
}

struct Inner {
    bounds: Bounds,
    catalog: Arc<dyn Catalog>,
    clock: Clock,
    metrics: Metrics,
    tenants: Mutex<BTreeMap<TenantId, Learned>>,
}

/// What is known of a tenant's recordings.
#[derive(Debug, Clone, Copy)]
struct Learned {
    first_look: FirstLook,
    /// None before the first time.
    read_at: Option<Timestamp>,
    written_at: Timestamp,
    /// By what the first look was multiplied since it was written.
    factor: f64,
    /// Looks since then.
    looks: u32,
}

impl Readiness {
    /// Nothing known yet.
    pub fn new(bounds: Bounds, catalog: Arc<dyn Catalog>, clock: Clock, metrics: Metrics) -> Self {
        let tenants = Mutex::default();
        Self { inner: Arc::new(Inner { bounds, catalog, clock, metrics, tenants }) }
    }

    /// How long a call has yet to wait before its first look, or none when it is time. It is asked again after that.
    pub async fn wait(&self, event: &ContactEvent) -> Option<Duration> {
        if self.inner.bounds.is_off() {
            return None;
        }
        let now = self.inner.clock.now();
        let first_look = self.first_look(&event.tenant, now).await?;
        // It had ended when it was queued, whatever the clock or the time zone of the other side says.
        let queued_at = event.queued_at.unwrap_or(now);
        let ended_at = event.ended_at.map_or(queued_at, |ended_at| ended_at.min(queued_at));
        let age = Duration::try_from(now.duration_since(ended_at)).unwrap_or_default();
        let missed = event.looked_at.and_then(|at| Duration::try_from(at.duration_since(ended_at)).ok());
        hold(first_look, age, missed)
    }

    /// Learns from a recording that was found now.
    pub async fn found(&self, tenant: &TenantId, ended_at: Timestamp, missed_at: Option<Timestamp>) {
        if self.inner.bounds.is_off() {
            return;
        }
        let now = self.inner.clock.now();
        let age = |at: Timestamp| at.duration_since(ended_at).as_secs_f64();
        let write = {
            let mut tenants = self.inner.lock();
            let learned = entry(&mut tenants, tenant, now);
            learned.factor *= learned.first_look.learn(self.inner.bounds, now, missed_at.map(age), age(now));
            learned.looks = learned.looks.saturating_add(1);
            let since = now.duration_since(learned.written_at);
            let is_due = learned.looks >= MOST_UNWRITTEN || since >= WRITE_EVERY || since.is_negative();
            is_due.then(|| learned.take(now)).flatten()
        };
        if let Some(change) = write {
            self.write(tenant, change).await;
        }
        self.show();
    }

    /// Writes what is left: at the end of the consumer.
    pub async fn flush(&self) {
        let now = self.inner.clock.now();
        let changes: Vec<_> = {
            let mut tenants = self.inner.lock();
            let changes = tenants.iter_mut().map(|(tenant, learned)| (tenant.clone(), learned.take(now)));
            changes.filter_map(|(tenant, change)| Some((tenant, change?))).collect()
        };
        for (tenant, change) in changes {
            self.write(&tenant, change).await;
        }
    }

    /// The tenant's delay, read again from the catalog now and then; none before anything is learned.
    async fn first_look(&self, tenant: &TenantId, now: Timestamp) -> Option<Duration> {
        let read = {
            let mut tenants = self.inner.lock();
            let learned = entry(&mut tenants, tenant, now);
            let since = learned.read_at.map(|read_at| now.duration_since(read_at));
            let is_due = since.is_none_or(|since| since >= READ_EVERY || since.is_negative());
            if is_due && learned.read_at.is_some() {
                // One caller reads; at the first time all do, for nothing is known before.
                learned.read_at = Some(now);
            }
            is_due
        };
        if read {
            let stored = self.asked(self.inner.catalog.readiness(tenant)).await;
            let mut tenants = self.inner.lock();
            let learned = entry(&mut tenants, tenant, now);
            learned.read_at = Some(now);
            if let Some(Some(stored)) = stored {
                learned.first_look.replace(self.inner.bounds, stored.mul_f64(learned.factor));
            }
        }
        self.inner.lock().get(tenant).and_then(|learned| learned.first_look.delay())
    }

    async fn write(&self, tenant: &TenantId, change: Change) {
        let Change { factor, first_look } = change;
        let stored = self.asked(self.inner.catalog.note_readiness(tenant, factor, first_look)).await;
        let mut tenants = self.inner.lock();
        let Some(learned) = tenants.get_mut(tenant) else { return };
        match stored {
            Some(stored) => learned.first_look.replace(self.inner.bounds, stored.mul_f64(learned.factor)),
            // Once more at the next time; the catalog takes it as often as it comes.
            None => learned.factor *= factor,
        }
    }

    /// What the catalog says, or nothing: a failing catalog stops no call here.
    async fn asked<T>(&self, question: impl Future<Output = Result<T, CatalogError>>) -> Option<T> {
        match tokio::time::timeout(PATIENCE, question).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                warn!(%error, "learned delay neither read nor written, will retry");
                None
            }
            Err(_) => {
                debug!("the catalog does not say the learned delay in time");
                None
            }
        }
    }

    fn show(&self) {
        let tenants = self.inner.lock();
        let longest = tenants.values().filter_map(|learned| learned.first_look.delay()).max();
        self.inner.metrics.recording_first_look.set(longest.unwrap_or_default().as_secs_f64());
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Learned>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a call of this age waits that was last looked for in vain at the age `missed`.
fn hold(first_look: Duration, age: Duration, missed: Option<Duration>) -> Option<Duration> {
    let slack = first_look.mul_f64(SLACK);
    let again = missed.filter(|missed| *missed < first_look.mul_f64(SPACED_UP_TO)).map(|missed| missed + slack);
    let left = again.unwrap_or_default().max(first_look).checked_sub(age).filter(|left| !left.is_zero())?;
    Some(queue::hop(left, slack))
}

/// What a process tells the catalog.
#[derive(Debug, Clone, Copy)]
struct Change {
    factor: f64,
    first_look: Duration,
}

impl Learned {
    /// What is to be written, if anything has changed.
    fn take(&mut self, now: Timestamp) -> Option<Change> {
        (self.written_at, self.looks) = (now, 0);
        let factor = std::mem::replace(&mut self.factor, 1.0);
        let changed = (factor - 1.0).abs() > f64::EPSILON;
        changed.then(|| Change { factor, first_look: self.first_look.exact() })
    }
}

/// What is known of a tenant, from now on if not yet. Where it becomes too many, one of them is forgotten.
fn entry<'a>(tenants: &'a mut BTreeMap<TenantId, Learned>, tenant: &TenantId, now: Timestamp) -> &'a mut Learned {
    if tenants.len() >= MOST_TENANTS && !tenants.contains_key(tenant) {
        tenants.pop_first();
    }
    tenants.entry(tenant.clone()).or_insert_with(|| Learned {
        first_look: FirstLook::default(),
        read_at: None,
        written_at: now,
        factor: 1.0,
        looks: 0,
    })
}

#[cfg(test)]
mod tests;
