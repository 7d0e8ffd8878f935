//! Doors that another program lends to a service in its own process.

use std::sync::Arc;

use catalog::Catalog;
use model::System;
use nice::Network;
use queue::Queue;
use quota::Stores;
use recordings::RecordingStore;
use runtime::Clock;
use stages::tenants::SettingsSource;
use state::StateOptions;

use super::{Leases, Monitors, Nice, OpenDoors, Service, SharedDoors, Wanted, local};
use crate::command_error::CommandError;
use crate::config::Config;
use crate::lease::LeaseServer;

/// Everything outside of a service.
#[derive(Clone)]
pub struct LentDoors {
    /// The time.
    pub clock: Clock,
    /// The Knovvu database.
    pub catalog: Arc<dyn Catalog>,
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// Where recordings are kept.
    pub recordings: Arc<dyn RecordingStore>,
    /// The NICE settings of all tenants.
    pub settings: Arc<dyn SettingsSource>,
    /// The rate budgets that all processes share.
    pub budgets: Arc<dyn Stores>,
    /// The right to be a tenant's producer.
    pub leases: Arc<dyn LeaseServer>,
    /// The way to NICE.
    pub network: Network,
}

/// What the world lends, and the local state of a producer, which is the service's own.
pub(crate) async fn lent(config: &Config, service: Service, world: LentDoors) -> Result<OpenDoors, CommandError> {
    let LentDoors { clock, catalog, queue, recordings, settings, budgets, leases, network } = world;
    let metrics = super::metrics(config, Wanted::Service(service));
    let options = StateOptions { inline_commits: true, clock: clock.clone(), ..StateOptions::default() };
    let state = match service.produces() {
        true => Some(local::open_state(config, options, &metrics).await?.state),
        false => None,
    };
    let nice = Nice::asking(config, settings, budgets, network, &clock, &metrics);
    let recordings = service.consumes().then_some(recordings);
    Ok(OpenDoors {
        state,
        shared: SharedDoors { catalog, queue, recordings, on_server: System::SHARED.to_vec() },
        leases: Leases::Lent(leases),
        nice,
        monitors: Monitors::new(&clock, &metrics),
        metrics,
        clock,
        wake: Arc::default(),
    })
}
