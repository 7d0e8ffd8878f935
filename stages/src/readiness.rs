//! When a call's recording is likely there: learned from the looks of all consumers, so that most calls need one.
//!
//! In: of each recording that was found, when its call had ended, when it was last looked for in vain, and now. Out:
//! how long after its end a call is looked at first. What is learned is a delay for each tenant, from a first guess on.
//! A recording that was not there in time makes the delay longer, one that was there makes it shorter. The steps are such
//! that the delay stops changing when the wanted share of recordings is there at the first look. An incident of NICE is no
//! evidence, and a few calls are looked at early to learn whether it may be shorter.
//!
//! It is a hint. Consumers keep it in the catalog, so that it outlives them and is one for all; where the catalog
//! fails, or a crash forgets the latest looks, calls are looked at a little too early or too late, and none is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{CatalogError, FirstLooks, LearnedDelay, Lessons};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, ContactId, TenantId};
use runtime::Clock;
use tracing::{debug, warn};

use self::first_look::{FirstLook, Lesson};
use crate::metrics::Metrics;

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

/// While little is known, the next look comes no sooner than after this share of the call's age, up to that multiple of
/// the delay: the first guess may be far too short, and then every call would be looked at in all the steps.
const SPACED_YOUNG: f64 = 0.5;
const SPACED_YOUNG_UP_TO: f64 = 6.0;

/// What is known of every tenant's recordings.
#[derive(Clone)]
pub struct RecordingDelays {
    inner: Arc<Inner>,
}

struct Inner {
    bounds: Bounds,
    catalog: Arc<dyn FirstLooks>,
    clock: Clock,
    metrics: Metrics,
    tenants: Mutex<BTreeMap<TenantId, Learned>>,
}

/// What is known of a tenant's recordings.
#[derive(Debug, Clone)]
struct Learned {
    first_look: FirstLook,
    /// None before the first time.
    read_at: Option<Timestamp>,
    written_at: Timestamp,
    /// By what the first look was multiplied since it was written.
    factor: f64,
    /// Whether early looks have made it shorter since then.
    shortened: bool,
    /// Looks since then.
    looks: u32,
}

impl RecordingDelays {
    /// Nothing known yet.
    pub fn new(bounds: Bounds, catalog: Arc<dyn FirstLooks>, clock: Clock, metrics: Metrics) -> Self {
        let tenants = Mutex::default();
        Self { inner: Arc::new(Inner { bounds, catalog, clock, metrics, tenants }) }
    }

    /// How long a call has yet to wait before its first look, or none when it is time. It is asked again after that.
    pub async fn wait(&self, event: &ContactEvent) -> Option<Duration> {
        if self.inner.bounds.is_off() {
            return None;
        }
        let now = self.inner.clock.now();
        // An early look that found nothing has told what it was for.
        let chance = if event.looked_at.is_some() { 1.0 } else { chance(event.conversation) };
        let (first_look, is_young) = self.first_look(&event.tenant, chance, now).await?;
        // It had ended when it was queued, whatever the clock or the time zone of the other side says.
        let queued_at = event.queued_at.unwrap_or(now);
        let ended_at = event.ended_at.map_or(queued_at, |ended_at| ended_at.min(queued_at));
        let age = Duration::try_from(now.duration_since(ended_at)).unwrap_or_default();
        let missed = event.looked_at.and_then(|at| Duration::try_from(at.duration_since(ended_at)).ok());
        hold(first_look, is_young, age, missed)
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
            let learned = entry(&mut tenants, tenant, self.inner.bounds, now);
            match learned.first_look.learn(self.inner.bounds, now, missed_at.map(age), age(now)) {
                Lesson::Factor(factor) => learned.factor *= factor,
                Lesson::Shortened => (learned.shortened, learned.factor) = (true, 1.0),
            }
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

    /// Learns from a look that found nothing; `missed_at` is the time of the one before it.
    pub fn missed(&self, tenant: &TenantId, ended_at: Timestamp, missed_at: Option<Timestamp>) {
        if self.inner.bounds.is_off() || missed_at.is_some() {
            return;
        }
        let now = self.inner.clock.now();
        let mut tenants = self.inner.lock();
        let learned = entry(&mut tenants, tenant, self.inner.bounds, now);
        learned.first_look.missed(now.duration_since(ended_at).as_secs_f64());
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

    /// The tenant's delay for a call of this chance, and whether little is known; read again from the catalog now and
    /// then. None where calls are looked at as they come.
    async fn first_look(&self, tenant: &TenantId, chance: f64, now: Timestamp) -> Option<(Duration, bool)> {
        let read = {
            let mut tenants = self.inner.lock();
            let learned = entry(&mut tenants, tenant, self.inner.bounds, now);
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
            let learned = entry(&mut tenants, tenant, self.inner.bounds, now);
            learned.read_at = Some(now);
            if let Some(Some(stored)) = stored {
                learned.go_on_from(self.inner.bounds, stored);
            }
        }
        let tenants = self.inner.lock();
        let first_look = &tenants.get(tenant)?.first_look;
        Some((first_look.delay_of(chance)?, first_look.is_young()))
    }

    async fn write(&self, tenant: &TenantId, lessons: Lessons) {
        let stored = self.asked(self.inner.catalog.note_readiness(tenant, lessons)).await;
        let mut tenants = self.inner.lock();
        let Some(learned) = tenants.get_mut(tenant) else { return };
        match stored {
            Some(stored) => learned.go_on_from(self.inner.bounds, stored),
            // Once more at the next time; the catalog takes it as often as it comes.
            None => {
                learned.factor *= lessons.factor;
                learned.shortened |= lessons.shortened;
            }
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
        for (tenant, learned) in self.inner.lock().iter() {
            let delay = learned.first_look.delay().unwrap_or_default();
            self.inner.metrics.recording_first_look.of(tenant.as_str(), &[]).set(delay.as_secs_f64());
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Learned>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a call of this age waits that was last looked for in vain at the age `missed`.
fn hold(first_look: Duration, is_young: bool, age: Duration, missed: Option<Duration>) -> Option<Duration> {
    let slack = first_look.mul_f64(SLACK);
    let up_to = first_look.mul_f64(if is_young { SPACED_YOUNG_UP_TO } else { SPACED_UP_TO });
    let again = missed.filter(|missed| *missed < up_to);
    let again = again.map(|missed| missed + if is_young { missed.mul_f64(SPACED_YOUNG).max(slack) } else { slack });
    let left = again.unwrap_or_default().max(first_look).checked_sub(age).filter(|left| !left.is_zero())?;
    Some(queue::hop(left, slack))
}

/// A number from 0 to 1 that looks random and is the same for a call in every process, however often it comes.
fn chance(conversation: ContactId) -> f64 {
    // The finish of SplitMix64: neighbouring ids are far apart.
    let mut bits = conversation.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Learned {
    /// What is to be written, if anything has changed.
    fn take(&mut self, now: Timestamp) -> Option<Lessons> {
        (self.written_at, self.looks) = (now, 0);
        let factor = std::mem::replace(&mut self.factor, 1.0);
        let shortened = std::mem::take(&mut self.shortened);
        let changed = shortened || (factor - 1.0).abs() > f64::EPSILON;
        changed.then(|| Lessons { factor, shortened, own: self.first_look.learned() })
    }

    /// Goes on from what stands in the catalog, and from what is not written there yet.
    fn go_on_from(&mut self, bounds: Bounds, stored: LearnedDelay) {
        let own = self.first_look.learned().first_look;
        let first_look = if self.shortened { stored.first_look.min(own) } else { stored.first_look };
        self.first_look.replace(bounds, LearnedDelay { first_look, ..stored }, self.factor);
    }
}

/// What is known of a tenant, from now on if not yet. Where it becomes too many, one of them is forgotten.
fn entry<'a>(
    tenants: &'a mut BTreeMap<TenantId, Learned>,
    tenant: &TenantId,
    bounds: Bounds,
    now: Timestamp,
) -> &'a mut Learned {
    if tenants.len() >= MOST_TENANTS && !tenants.contains_key(tenant) {
        tenants.pop_first();
    }
    tenants.entry(tenant.clone()).or_insert_with(|| Learned {
        first_look: FirstLook::new(bounds),
        read_at: None,
        written_at: now,
        factor: 1.0,
        shortened: false,
        looks: 0,
    })
}

#[cfg(test)]
mod tests;
