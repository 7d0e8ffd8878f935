//! A service in the process of another program, which lends it all doors: for a simulation of the whole.
//!
//! It is the service of the executable, started by the same function. Its settings are a text in the form of the
//! settings file; what they say of the kinds and addresses of servers is not looked at. Only the local state of a
//! producer is its own, in `[state] dir`. Nothing listens: the admin pages and the webhook are handed over.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use crate::admin::AdminPages;
pub use crate::doors::Service;
pub use crate::doors::lent::LentDoors;
pub use crate::lease::{LeaseServer, LentLease};
pub use crate::service::ServiceRoutes;

use crate::config::{Config, Need};
use crate::doors::OpenDoors;
use crate::doors::lent::lent;
use crate::service::{self, Front};

/// A service whose doors are open.
pub struct Embedded {
    config: Config,
    service: Service,
    doors: OpenDoors,
}

impl Embedded {
    /// Reads the settings and opens the local state. The error says what to mend.
    pub async fn open(settings: &str, service: Service, world: LentDoors) -> Result<Self, String> {
        let need = match service {
            Service::Run => Need::Service,
            Service::Producer => Need::Producer,
            Service::Consumer => Need::Consumer,
        };
        let none: [(&str, &str); 0] = [];
        let config = Config::from_text(settings, "settings", none, need).map_err(|error| error.to_string())?;
        let doors = lent(&config, service, world).await.map_err(|failure| failure.message().to_owned())?;
        Ok(Self { config, service, doors })
    }

    /// Runs until `stopping` is set, and ends as the executable does on SIGTERM. `routes` receives what the service
    /// answers once it does.
    pub async fn run(self, routes: oneshot::Sender<ServiceRoutes>, stopping: CancellationToken) -> Result<(), String> {
        let front = Front::Hands(routes);
        let served = service::serve_until(&self.config, self.service, self.doors, front, stopping).await;
        served.map_err(|failure| failure.message().to_owned())
    }
}
