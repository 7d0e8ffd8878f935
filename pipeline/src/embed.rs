//! A service in the process of another program, which lends it all doors: for a simulation of the whole.
//!
//! It is the service of the executable, started by the same function. Its settings are a text in the form of the
//! settings file; what they say of the kinds and addresses of servers is not looked at. Only the local state of a
//! producer is its own, in `[state] dir`. Nothing listens: the admin pages and the webhook are handed over.

use std::sync::Arc;

use axum::Router;
use catalog::Catalog;
use nice::Network;
use queue::Queue;
use quota::Stores;
use recordings::RecordingStore;
use runtime::Clock;
use stages::tenants::SettingsSource;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Need};
use crate::doors;
use crate::doors::Doors;
use crate::service;
use crate::service::Front;

pub use crate::lease::{LeaseServer, LentLease};
pub use crate::service::Service;

/// Everything outside of a service.
#[derive(Clone)]
pub struct World {
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

/// The admin pages of a running service, as `[admin] listen` would serve them.
pub struct AdminPages {
    /// What answers.
    pub router: Router,
    /// The bearer token of `/api/v1`.
    pub token: String,
}

/// What a running service answers in the program that it runs in.
pub struct Handed {
    /// The admin pages.
    pub admin: AdminPages,
    /// The webhook, as `[events] webhook_listen` would serve it; none where the settings do not switch it on.
    pub webhook: Option<Router>,
}

/// A service whose doors are open.
pub struct Embedded {
    config: Config,
    service: Service,
    doors: Doors,
}

impl Embedded {
    /// Reads the settings and opens the local state. The error says what to mend.
    pub async fn open(settings: &str, service: Service, world: World) -> Result<Self, String> {
        let need = match service {
            Service::Run => Need::Service,
            Service::Producer => Need::Producer,
            Service::Consumer => Need::Consumer,
        };
        let none: [(&str, &str); 0] = [];
        let config = Config::from_text(settings, "settings", none, need).map_err(|error| error.to_string())?;
        let doors = doors::lent(&config, service, world).await.map_err(|failure| failure.message().to_owned())?;
        Ok(Self { config, service, doors })
    }

    /// Runs until `stopping` is set, and ends as the executable does on SIGTERM. `handed` receives what the service
    /// answers once it does.
    pub async fn run(self, handed: oneshot::Sender<Handed>, stopping: CancellationToken) -> Result<(), String> {
        let (hand, taken) = oneshot::channel::<service::Handed>();
        let handing = async {
            if let Ok(service::Handed { pages, webhook }) = taken.await {
                let admin = AdminPages { router: pages.router, token: pages.token };
                // Who does not want it has dropped the other end.
                drop(handed.send(Handed { admin, webhook }));
            }
        };
        let serving = service::serve_until(&self.config, self.service, self.doors, Front::Hands(hand), stopping);
        let (served, ()) = tokio::join!(serving, handing);
        served.map_err(|failure| failure.message().to_owned())
    }
}
