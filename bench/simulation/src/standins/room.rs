//! All servers together, and a machine's doors to them.

use std::sync::Arc;
use std::time::Duration;

use catalog::Catalog;
use model::TenantId;
use queue::Queue;
use quota::Stores;
use recordings::RecordingStore;
use runtime::Clock;
use stages::tenants::SettingsSource;

use super::budgets::SharedBudgets;
use super::catalog::SharedCatalog;
use super::lease::{LeaseOf, Leases};
use super::queue::Broker;
use super::recording_store::MemoryStore;
use super::settings::SharedSettings;
use super::{Link, LinkOptions, Weather};

/// How long servers hold a machine for alive that gives no sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The database, which keeps a lease for so long.
    pub database: Duration,
    /// The broker, which keeps messages for so long.
    pub broker: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { database: Duration::from_secs(30), broker: Duration::from_secs(20) }
    }
}

/// The servers that all machines share.
#[derive(Clone)]
pub struct ServerRoom {
    /// The catalog, in the database.
    pub catalog: SharedCatalog,
    /// The rate budgets, in the database.
    pub budgets: SharedBudgets,
    /// The tenants' settings, in the database.
    pub settings: SharedSettings,
    /// The producers' leases, in the database.
    pub leases: Leases,
    /// The broker.
    pub broker: Broker,
    /// The recording store.
    pub store: MemoryStore,
    /// The weather between the machines and the database.
    pub database_weather: Weather,
    /// The weather between the machines and the broker.
    pub broker_weather: Weather,
    /// The weather between the machines and the recording store.
    pub store_weather: Weather,
}

/// One life of a machine, from a start to an end of its process.
#[derive(Clone)]
pub struct Life {
    /// Which machine it is, for the weather.
    pub machine: u32,
    /// Draws what happens on its links.
    pub seed: u64,
    /// Whether its process is dead.
    pub is_killed: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// A machine's doors to the servers.
#[derive(Clone)]
pub struct Doors {
    /// To the catalog.
    pub catalog: Arc<dyn Catalog>,
    /// To the rate budgets.
    pub budgets: Arc<dyn Stores>,
    /// To the tenants' settings.
    pub settings: Arc<dyn SettingsSource>,
    /// To the queue.
    pub queue: Arc<dyn Queue>,
    /// To the recording store.
    pub store: Arc<dyn RecordingStore>,
    leases: Leases,
    lease_link: Link,
}

impl ServerRoom {
    /// Empty servers, all by one clock of theirs. The weather is clear.
    pub fn open(clock: Clock, seed: u64, patience: Patience) -> anyhow::Result<Self> {
        let settings = SharedSettings::new();
        Ok(Self {
            catalog: SharedCatalog::open(clock.clone(), settings.clone(), seed)?,
            budgets: SharedBudgets::new(clock),
            settings,
            leases: Leases::new(patience.database),
            broker: Broker::new(patience.broker),
            store: MemoryStore::new("recordings"),
            database_weather: Weather::clear(),
            broker_weather: Weather::clear(),
            store_weather: Weather::clear(),
        })
    }

    /// The doors that a machine has for one life.
    pub fn doors(&self, life: &Life) -> Doors {
        let mut links = 0;
        let mut link = |weather: &Weather, options: LinkOptions| {
            links += 1;
            let is_killed = life.is_killed.clone();
            // Each link draws for itself.
            let seed = life.seed.rotate_left(links * 11) ^ u64::from(links);
            Link::new(weather.clone(), life.machine, seed, options, move || is_killed())
        };
        let mut database = || link(&self.database_weather, LinkOptions::database());
        let catalog = Arc::new(self.catalog.through(database()));
        let settings = Arc::new(self.settings.through(database()));
        let budgets = Arc::new(self.budgets.through(link(&self.database_weather, LinkOptions::default())));
        let lease_link = link(&self.database_weather, LinkOptions::default());
        let queue = Arc::new(self.broker.through(link(&self.broker_weather, LinkOptions::broker())));
        let store = Arc::new(self.store.through(link(&self.store_weather, LinkOptions::default())));
        Doors { catalog, budgets, settings, queue, store, leases: self.leases.clone(), lease_link }
    }
}

impl Doors {
    /// The way to the lease of a tenant's producer.
    pub fn lease(&self, tenant: TenantId) -> LeaseOf {
        self.leases.of(tenant, self.lease_link.clone())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::standins::Condition;

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_leaves_the_other_servers_alone() {
        let start: Timestamp = "2026-04-01T00:00:00Z".parse().unwrap();
        let room = ServerRoom::open(Clock::fixed(start), 1, Patience::default()).unwrap();
        let life = |machine| Life { machine, seed: 7, is_killed: Arc::new(|| false) };
        let [doors, others] = [1, 2].map(|machine| room.doors(&life(machine)));
        let acme: TenantId = "acme".parse().unwrap();
        let _spell = room.database_weather.begin_for(1, Condition::Away);
        assert!(doors.catalog.check().await.is_err());
        assert!(doors.settings.nice_settings(&acme).await.is_err());
        assert!(doors.budgets.account(&acme).await.is_err());
        assert!(doors.lease(acme.clone()).try_hold().await.is_err());
        doors.queue.check().await.unwrap();
        doors.store.check().await.unwrap();
        others.catalog.check().await.unwrap();
        assert!(others.lease(acme).try_hold().await.unwrap().is_some());
    }
}
