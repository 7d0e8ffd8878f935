//! Where the cluster is, and whether one may speak to it in clear.

use std::sync::Arc;

use fluvio::FluvioClusterConfig;
use fluvio::config::{ConfigFile, TlsPolicy};
use fluvio_socket::ClientConfig;
use model::http::is_loopback_host;

use super::super::{FluvioError, FluvioOptions};
use crate::QueueError;

/// Where the cluster's controller is, and how its machines are spoken to.
#[derive(Debug, Clone)]
pub(super) struct ClusterTarget {
    config: Arc<FluvioClusterConfig>,
    client: String,
}

impl ClusterTarget {
    /// Reads the profile where one is to be used, and with it the certificates that it names.
    pub(super) fn of(options: &FluvioOptions) -> Result<Self, FluvioError> {
        match &options.address {
            Some(address) => Self::with(plain(address)?, &options.service),
            None => {
                let file = ConfigFile::load(None);
                let file = file.map_err(|error| no_profile(format!("no configuration of Fluvio: {error}")))?;
                Self::in_file(&file, options.profile.as_deref(), &options.service)
            }
        }
    }

    /// What a profile says, or the current one.
    pub(super) fn in_file(file: &ConfigFile, profile: Option<&str>, client: &str) -> Result<Self, FluvioError> {
        let config = match profile {
            Some(name) => {
                let found = file.config().cluster_with_profile(name);
                found.ok_or_else(|| no_profile(format!("there is no profile {name:?} with a cluster")))?
            }
            None => {
                let current = file.config().current_cluster();
                current.map_err(|error| no_profile(format!("no current profile: {error}")))?
            }
        };
        if config.tls == TlsPolicy::Disabled && !is_loopback(&config.endpoint) {
            return Err(FluvioError::Profile(format!(
                "its cluster at {} would be spoken to in clear; beyond this machine it needs TLS, `tls_policy` \
                 \"verified\"",
                config.endpoint
            )));
        }
        Self::with(config.clone(), client)
    }

    fn with(config: FluvioClusterConfig, client: &str) -> Result<Self, FluvioError> {
        let target = Self { config: Arc::new(config), client: client.to_owned() };
        // Makes the certificates known now, and not when the first connection is made.
        target.client_config().map_err(FluvioError::Profile)?;
        Ok(target)
    }

    /// Whether whoever answers need not show who it is.
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.config.tls, TlsPolicy::Anonymous)
    }

    /// Whether brokers are reached at the addresses that they have inside of their network.
    pub(super) fn uses_local_addresses(&self) -> bool {
        self.config.use_spu_local_address
    }

    /// How to connect to the controller.
    pub(super) fn controller(&self) -> Result<ClientConfig, QueueError> {
        self.client_config().map_err(QueueError)
    }

    /// How to connect to a broker: `name` is what its certificate is for, before the domain of the cluster.
    pub(super) fn broker(&self, name: &str, address: &str) -> Result<ClientConfig, QueueError> {
        if self.config.tls == TlsPolicy::Disabled && !is_loopback(address) {
            return Err(QueueError(format!(
                "the broker {name} is at {address}, and would be spoken to in clear; beyond this machine name a \
                 [queue] profile with TLS"
            )));
        }
        let mut config = self.controller()?.with_prefix_sni_domain(name);
        config.set_addr(address.to_owned());
        Ok(config)
    }

    fn client_config(&self) -> Result<ClientConfig, String> {
        let config = ClientConfig::try_from((*self.config).clone());
        let mut config = config.map_err(|error| format!("its TLS cannot be used: {error:#}"))?;
        config.set_client_id(self.client.clone());
        Ok(config)
    }
}

/// An address is spoken to in clear: nothing says which certificate to expect.
fn plain(address: &str) -> Result<FluvioClusterConfig, FluvioError> {
    let wrong = |what: &str| Err(FluvioError::Address(format!("{what}: {address:?}")));
    let Some((host, port)) = address.rsplit_once(':') else { return wrong("no port") };
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host.is_empty() || !host.chars().all(is_host) {
        return wrong("no host name or address");
    }
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return wrong("not a port");
    }
    if !is_loopback_host(host) {
        return Err(FluvioError::Address(format!(
            "{address} would be spoken to in clear; beyond this machine name a [queue] profile with TLS instead"
        )));
    }
    Ok(FluvioClusterConfig::new(address))
}

fn no_profile(what: String) -> FluvioError {
    FluvioError::Profile(format!("{what}; make one with `fluvio profile add`"))
}

fn is_loopback(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _)| is_loopback_host(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> FluvioOptions {
        FluvioOptions {
            address: Some(address.to_owned()),
            profile: None,
            prefix: "nice-knovvu".to_owned(),
            partitions: 1,
            replication: 1,
            delays: Vec::new(),
            service: "test".to_owned(),
        }
    }

    #[test]
    fn an_address_is_host_and_port_of_this_machine() {
        for address in ["127.0.0.1:9003", "localhost:9003", "[::1]:9003"] {
            options(address).validate().unwrap();
        }
        for address in ["", "localhost", "localhost:", "localhost:0", "localhost:99999", ":9003", "a b:9003"] {
            let error = options(address).validate().unwrap_err();
            assert!(matches!(error, FluvioError::Address(_)), "{address}: {error}");
        }
    }

    #[test]
    fn beyond_this_machine_nothing_goes_in_clear() {
        for address in ["10.0.0.1:9003", "fluvio.example.com:9003", "[2001:db8::1]:9003"] {
            let error = options(address).validate().unwrap_err().to_string();
            assert!(error.starts_with("[queue] fluvio:") && error.contains("profile with TLS"), "{error}");
        }
        let target = ClusterTarget::of(&options("127.0.0.1:9003")).unwrap();
        target.broker("main", "127.0.0.1:9005").unwrap();
        let error = target.broker("main", "10.0.0.1:9005").unwrap_err().to_string();
        assert!(error.contains("profile with TLS"), "{error}");
    }
}
