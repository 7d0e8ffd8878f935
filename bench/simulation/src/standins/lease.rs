//! The lease of a tenant's producer, as a lock of the database's: held by a connection, until that ends.
//!
//! A process that dies lets go of it at once. One that is suspended, or hears nothing of the database, keeps others
//! waiting until the database holds it for gone; it learns of its loss sooner than that, or when it goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::TenantId;
use tokio::sync::Notify;

use super::session::{Connection, Heartbeat, Session};
use super::{Kind, Link, lock};

/// How often a waiting producer tries; with jitter between half and all of it.
const RETRY: Duration = Duration::from_secs(3);

/// The leases of all tenants' producers; clones share them.
#[derive(Debug, Clone)]
pub struct Leases {
    holders: Arc<Mutex<BTreeMap<TenantId, Arc<Session>>>>,
    heartbeat: Heartbeat,
    changed: Arc<Notify>,
}

impl Leases {
    /// Nobody holds any. A holder whose machine is silent keeps its lease for `dead_after`.
    pub fn new(dead_after: Duration) -> Self {
        let client = Duration::from_secs(8).min(dead_after);
        let heartbeat = Heartbeat { interval: Duration::from_secs(3).min(client), client, server: dead_after };
        Self { holders: Arc::default(), heartbeat, changed: Arc::default() }
    }

    /// A machine's way to the lease of one tenant.
    pub fn of(&self, tenant: TenantId, link: Link) -> LeaseOf {
        LeaseOf { leases: self.clone(), tenant, link }
    }

    /// Whether somebody holds the tenant's lease, as the database sees it.
    pub fn is_held(&self, tenant: &TenantId) -> bool {
        lock(&self.holders).get(tenant).is_some_and(|holder| !holder.is_over())
    }

    fn take(&self, tenant: &TenantId, session: &Arc<Session>) -> bool {
        let mut holders = lock(&self.holders);
        if session.is_over() || holders.get(tenant).is_some_and(|holder| !holder.is_over()) {
            return false;
        }
        holders.insert(tenant.clone(), session.clone());
        true
    }
}

/// A machine's way to the lease of one tenant.
#[derive(Debug, Clone)]
pub struct LeaseOf {
    leases: Leases,
    tenant: TenantId,
    link: Link,
}

impl LeaseOf {
    /// Waits for the lease, as long as it takes.
    pub async fn hold(&self) -> Held {
        loop {
            if let Ok(Some(held)) = self.try_hold().await {
                return held;
            }
            tokio::time::sleep(self.link.jittered(RETRY)).await;
        }
    }

    /// Takes the lease if it is free.
    pub async fn try_hold(&self) -> Result<Option<Held>, String> {
        // What was taken without our knowing ends with this connection.
        let connection = Connection::open(&self.link, self.leases.heartbeat, self.leases.changed.clone());
        let take = async { self.leases.take(&self.tenant, connection.session()) };
        let taken = self.link.call(Kind::Change, take).await.map_err(|unanswered| format!("lease: {unanswered}"))?;
        Ok(taken.then_some(Held(connection)))
    }
}

/// The lease, until this is dropped or the connection is lost.
#[derive(Debug)]
pub struct Held(Connection);

impl Held {
    /// Returns once the holder has learned that the lease is lost.
    pub async fn lost(&self) {
        self.0.lost().cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::FutureExt;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;
    use crate::standins::{Condition, LinkOptions, Weather};

    const DEAD_AFTER: Duration = Duration::from_secs(30);

    fn acme() -> TenantId {
        "acme".parse().unwrap()
    }

    fn link(weather: &Weather, machine: u32, killed: &Arc<AtomicBool>) -> Link {
        let killed = killed.clone();
        let is_killed = move || killed.load(Ordering::SeqCst);
        Link::new(weather.clone(), machine, machine.into(), LinkOptions::default(), is_killed)
    }

    struct World {
        weather: Weather,
        killed: [Arc<AtomicBool>; 2],
        leases: Leases,
        ways: [LeaseOf; 2],
    }

    fn world() -> World {
        let (weather, leases) = (Weather::clear(), Leases::new(DEAD_AFTER));
        let killed: [Arc<AtomicBool>; 2] = Default::default();
        let ways = [0, 1].map(|at| leases.of(acme(), link(&weather, at as u32, &killed[at])));
        World { weather, killed, leases, ways }
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_holds_it_and_each_tenant_has_its_own() {
        let World { weather, killed, leases, ways: [one, other] } = world();
        let held = one.hold().await;
        assert!(other.try_hold().await.unwrap().is_none());
        let else_ = leases.of("else".parse().unwrap(), link(&weather, 7, &killed[0]));
        assert!(else_.try_hold().await.unwrap().is_some());
        let waiting = tokio::spawn(async move { other.hold().await });
        sleep(Duration::from_secs(600)).await;
        assert!(!waiting.is_finished() && held.lost().now_or_never().is_none(), "kept alive");
        drop(held);
        let _later = timeout(RETRY * 2, waiting).await.unwrap().unwrap();
        assert!(one.try_hold().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_dies_lets_go_at_once() {
        let World { killed, ways: [one, other], .. } = world();
        let held = one.hold().await;
        killed[0].store(true, Ordering::SeqCst);
        drop(held);
        assert!(other.try_hold().await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_cut_off_learns_of_the_loss_before_another_takes_it() {
        let World { weather, ways: [one, other], .. } = world();
        let held = one.hold().await;
        let spell = weather.begin_for(0, Condition::Silent);
        let (since, waiting) = (Instant::now(), tokio::spawn(async move { other.hold().await }));
        held.lost().await;
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
        drop(held);
        assert!(!waiting.is_finished(), "the database has not heard that it is over");
        let _later = waiting.await.unwrap();
        assert!(since.elapsed() >= DEAD_AFTER - Duration::from_secs(3), "{:?}", since.elapsed());
        drop(spell);
        assert!(one.try_hold().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_silence_costs_nothing_and_a_broken_connection_the_lease() {
        let World { weather, ways: [one, _], .. } = world();
        let held = one.hold().await;
        let spell = weather.begin(Condition::Silent);
        sleep(Duration::from_secs(4)).await;
        drop(spell);
        sleep(Duration::from_secs(60)).await;
        assert!(held.lost().now_or_never().is_none());
        let _away = weather.begin(Condition::Away);
        timeout(Duration::from_secs(4), held.lost()).await.unwrap();
        assert!(one.try_hold().await.unwrap_err().contains("refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_holder_believes_in_its_lease_until_it_has_asked() {
        let World { leases, weather, killed, ways: [_, other] } = world();
        // It gives no sign of life for so long.
        let heartbeat = Heartbeat { interval: Duration::from_secs(120), ..leases.heartbeat };
        let suspended = Leases { heartbeat, ..leases.clone() };
        let one = suspended.of(acme(), link(&weather, 0, &killed[0]));
        let (since, held) = (Instant::now(), one.hold().await);
        let later = other.hold().await;
        assert!((30..40).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        assert!(held.lost().now_or_never().is_none(), "two believe that they hold it");
        held.lost().await;
        assert!(since.elapsed() > Duration::from_secs(120) && leases.is_held(&acme()));
        drop(held);
        assert!(leases.is_held(&acme()), "it is the other's");
        drop(later);
        assert!(!leases.is_held(&acme()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_for_a_moment_has_lost_every_lease() {
        let World { weather, ways: [one, other], .. } = world();
        let held = one.hold().await;
        drop(weather.begin(Condition::Away));
        timeout(Duration::from_secs(4), held.lost()).await.unwrap();
        assert!(other.try_hold().await.unwrap().is_some());
    }
}
