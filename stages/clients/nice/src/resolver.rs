//! Names of media hosts, resolved once per connection to addresses that may be connected to.
//!
//! A listed name may still lead inside: by mistake, or by somebody who controls its zone. The addresses that pass
//! here are the ones that are connected to, so nothing can change between check and use. One address that is not
//! public refuses the name altogether, unless the operator has listed the host as one that leads to a private network.
//! `0.0.0.0` and `::` are what resolvers that filter say for "no address", and are passed over.
//!
//! A refusal is no verdict on the link: what a resolver says now and then is not what it says for good.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::media_hosts::MediaHost;
use super::net;

/// Resolves as the system does, and refuses what leads inside.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    /// `localhost` is listed with its port, so it may be this machine, and must be.
    localhost: bool,
    /// The hosts that may lead to a private network.
    private: Arc<[MediaHost]>,
}

impl GuardedResolver {
    /// The guard for these hosts, of which the second ones may lead to a private network.
    pub(super) fn new(hosts: &[MediaHost], private: &[MediaHost]) -> Self {
        Self { localhost: hosts.iter().any(MediaHost::is_localhost), private: private.into() }
    }

    fn admit(&self, name: &str, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ResolveError> {
        addresses.retain(|address| !net::is_no_address(address.ip()));
        if addresses.is_empty() {
            return Err(ResolveError::Unknown);
        }
        if self.localhost && name.eq_ignore_ascii_case("localhost") {
            let here = addresses.iter().all(|address| address.ip().is_loopback());
            return if here { Ok(addresses) } else { Err(ResolveError::Forbidden) };
        }
        let mut private = false;
        for address in &addresses {
            match address.ip() {
                ip if net::is_public(ip) => {}
                ip if net::is_private_network(ip) => private = true,
                _ => return Err(ResolveError::Forbidden),
            }
        }
        if private && !self.private.iter().any(|entry| entry.names(name)) {
            return Err(ResolveError::Private);
        }
        Ok(addresses)
    }
}

/// Why a name is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    /// No address.
    #[error("the media host has no address")]
    Unknown,
    /// An address of a private network, and the host is not listed as one that leads there.
    #[error("the media host leads to a private address")]
    Private,
    /// This machine, the link, metadata, or otherwise an address that nothing makes fit.
    #[error("the media host leads to a reserved address")]
    Forbidden,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found = tokio::net::lookup_host((name, 0)).await.map_err(|_| ResolveError::Unknown)?;
            let addresses = guard.admit(name, found.collect())?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Why a request's host was not connected to, where it was the name that failed.
pub(super) fn refusal(error: &reqwest::Error) -> Option<ResolveError> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<ResolveError>() {
            return Some(*refusal);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(hosts: &[&str]) -> Vec<MediaHost> {
        hosts.iter().map(|host| host.parse().unwrap()).collect()
    }

    fn admit_of(hosts: &[&str], private: &[&str], name: &str, addresses: &[&str]) -> Result<usize, ResolveError> {
        let addresses = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        GuardedResolver::new(&list(hosts), &list(private)).admit(name, addresses).map(|addresses| addresses.len())
    }

    fn admit(hosts: &[&str], name: &str, addresses: &[&str]) -> Result<usize, ResolveError> {
        admit_of(hosts, &[], name, addresses)
    }

    #[test]
    fn a_name_that_leads_inside_is_refused() {
        let hosts = ["*.amazonaws.com"];
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["52.216.1.1", "52.216.1.2"]), Ok(2));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["169.254.169.254"]), Err(ResolveError::Forbidden));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["10.0.0.5"]), Err(ResolveError::Private));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["52.216.1.1", "10.0.0.1"]), Err(ResolveError::Private));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &["::ffff:127.0.0.1"]), Err(ResolveError::Forbidden));
        assert_eq!(admit(&hosts, "a.amazonaws.com", &[]), Err(ResolveError::Unknown));
    }

    #[test]
    fn the_unspecified_address_means_that_there_is_none() {
        let hosts = ["*.amazonaws.com"];
        for none in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert_eq!(admit(&hosts, "a.amazonaws.com", &[none]), Err(ResolveError::Unknown), "{none}");
            assert_eq!(admit(&hosts, "a.amazonaws.com", &[none, "52.216.1.1"]), Ok(1), "{none}");
        }
    }

    #[test]
    fn a_host_that_is_listed_so_may_lead_to_a_private_network_and_no_further() {
        let (hosts, private) = (["*.amazonaws.com", "files.example.com:8443"], ["*.vpce.amazonaws.com"]);
        let admit = |name: &str, addresses: &[&str]| admit_of(&hosts, &private, name, addresses);
        assert_eq!(admit("b.vpce.amazonaws.com", &["10.0.0.5", "192.168.7.7"]), Ok(2));
        assert_eq!(admit("B.VPCE.amazonaws.com", &["fd12::1"]), Ok(1));
        assert_eq!(admit("b.vpce.amazonaws.com", &["52.216.1.1"]), Ok(1));
        assert_eq!(admit("vpce.amazonaws.com", &["10.0.0.5"]), Err(ResolveError::Private));
        assert_eq!(admit("b.s3.amazonaws.com", &["10.0.0.5"]), Err(ResolveError::Private));
        assert_eq!(admit("evilvpce.amazonaws.com", &["10.0.0.5"]), Err(ResolveError::Private));
        for never in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1", "192.0.2.1"] {
            assert_eq!(admit("b.vpce.amazonaws.com", &["10.0.0.5", never]), Err(ResolveError::Forbidden), "{never}");
        }
        let named = admit_of(&hosts, &["files.example.com:8443"], "files.example.com", &["10.0.0.5"]);
        assert_eq!(named, Ok(1));
    }

    #[test]
    fn localhost_is_this_machine_only_where_it_is_listed() {
        assert_eq!(admit(&["*.amazonaws.com"], "localhost", &["127.0.0.1"]), Err(ResolveError::Forbidden));
        assert_eq!(admit(&["127.0.0.1:9000"], "localhost", &["127.0.0.1"]), Err(ResolveError::Forbidden));
        assert_eq!(admit(&["localhost:9000"], "localhost", &["127.0.0.1", "::1"]), Ok(2));
        assert_eq!(admit(&["localhost:9000"], "localhost", &["52.216.1.1"]), Err(ResolveError::Forbidden));
        assert_eq!(admit(&["localhost:9000"], "a.example", &["127.0.0.1"]), Err(ResolveError::Forbidden));
    }
}
