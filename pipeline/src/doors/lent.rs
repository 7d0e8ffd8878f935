//! Doors that another program lends to a service in its own process.

use std::sync::Arc;

use flow::{Blame, Freshness, Outside};
use stages::metrics::Metrics;
use state::StateOptions;

use super::{Doors, Local, Nice, local};
use crate::config::Config;
use crate::embed::World;
use crate::failure::Failure;
use crate::service::Service;

/// What the world lends, and the local state of a producer, which is the service's own.
pub(crate) async fn lent(config: &Config, service: Service, world: World) -> Result<Doors, Failure> {
    let World { clock, catalog, queue, recordings, settings, budgets, leases, network } = world;
    let metrics = Metrics::new();
    let options = StateOptions { inline_commits: true, clock: clock.clone(), ..StateOptions::default() };
    let local = match service.produces() {
        true => Some(Local { state: local::open_state(config, options, &metrics).await?.state }),
        false => None,
    };
    let nice = Nice::asking(config, settings, budgets, network, &clock, &metrics);
    let (outside, blame) = (Outside::new(clock.clone()), Blame::new(metrics.flow.clone()));
    Ok(Doors {
        local,
        database: None,
        leases: Some(leases),
        catalog,
        catalog_on_server: true,
        queue,
        queue_on_server: true,
        recordings: service.consumes().then_some(recordings),
        store_on_server: true,
        nice,
        metrics,
        clock,
        freshness: Freshness::default(),
        outside,
        blame,
        wake: Arc::default(),
    })
}
