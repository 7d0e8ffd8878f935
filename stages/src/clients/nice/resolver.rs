//! Names of media hosts, resolved once per connection to public addresses only.
//!
//! A listed name may still lead inside: by mistake, or by somebody who controls its zone. The addresses that pass
//! here are the ones that are connected to, so nothing can change between check and use. One address that is not
//! public refuses the name altogether.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::media_hosts::MediaHost;
use super::net;

/// Resolves as the system does, and refuses what leads inside.
pub(super) struct GuardedResolver {
    /// `localhost` is listed with its port, so it may be this machine, and must be.
    localhost: bool,
}

impl GuardedResolver {
    /// The guard for these hosts.
    pub(super) fn new(hosts: &[MediaHost]) -> Self {
        Self { localhost: hosts.iter().any(MediaHost::is_localhost) }
    }

    fn admit(&self, name: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ResolveError> {
        let here = self.localhost && name.eq_ignore_ascii_case("localhost");
        let fits = |address: &SocketAddr| if here { address.ip().is_loopback() } else { net::is_public(address.ip()) };
        if addresses.is_empty() {
            Err(ResolveError::Unknown)
        } else if addresses.iter().all(fits) {
            Ok(addresses)
        } else {
            Err(ResolveError::Inside)
        }
    }
}

/// Why a name is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    /// No address.
    #[error("the media host has no address")]
    Unknown,
    /// Private, loopback, link-local, metadata, or otherwise not of the public internet.
    #[error("the media host leads to a private address")]
    Inside,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Self { localhost: self.localhost };
        Box::pin(async move {
            let name = name.as_str();
            let found = tokio::net::lookup_host((name, 0)).await.map_err(|_| ResolveError::Unknown)?;
            let addresses = guard.admit(name, found.collect())?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether a request failed because its host leads inside.
pub(super) fn leads_inside(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.downcast_ref::<ResolveError>() == Some(&ResolveError::Inside) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(hosts: &[&str], name: &str, addresses: &[&str]) -> Result<usize, ResolveError> {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect::<Vec<_>>();
        let addresses = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        GuardedResolver::new(&hosts).admit(name, addresses).map(|addresses| addresses.len())
    }

    #[test]
    fn a_name_that_leads_inside_is_refused() {
        let hosts = ["*.amazonaws.com"];
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["52.216.1.1", "52.216.1.2"]), Ok(2));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["169.254.169.254"]), Err(ResolveError::Inside));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["52.216.1.1", "10.0.0.1"]), Err(ResolveError::Inside));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["::ffff:127.0.0.1"]), Err(ResolveError::Inside));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &[]), Err(ResolveError::Unknown));
    }

    #[test]
    fn localhost_is_this_machine_only_where_it_is_listed() {
        assert_eq!(admit(&["*.amazonaws.com"], "localhost", &["127.0.0.1"]), Err(ResolveError::Inside));
        assert_eq!(admit(&["127.0.0.1:9000"], "localhost", &["127.0.0.1"]), Err(ResolveError::Inside));
        assert_eq!(admit(&["localhost:9000"], "localhost", &["127.0.0.1", "::1"]), Ok(2));
        assert_eq!(admit(&["localhost:9000"], "localhost", &["52.216.1.1"]), Err(ResolveError::Inside));
        assert_eq!(admit(&["localhost:9000"], "a.example", &["127.0.0.1"]), Err(ResolveError::Inside));
    }
}
