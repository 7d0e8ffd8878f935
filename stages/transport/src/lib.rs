//! How an HTTPS connection to an outside system is made: what NICE, the recording store and the collector of traces
//! have in common, and the one place for what the settings say of the way to one of them.
//!
//! TLS is ring's and trusts the authorities of the system. There are no redirects, no retries, no cookies and no proxies
//! of the environment: what carries a secret goes to the address of the settings, and nowhere else.
//!
//! It is a crate of its own, so that who makes no such connection is not built with it.

use std::time::Duration;

use model::text::without_mark;
use reqwest::{Certificate, Client, ClientBuilder, redirect, retry};

/// Headers that an answer may have: with those of proxies, firewalls and traces there are sometimes more than the
/// hundred that is usual. Their length is bounded by the transport.
const MAX_HEADERS: usize = 1_000;

/// How long a connection is kept that nobody uses.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// What one system asks of the connections to it.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    connect_timeout: Duration,
    most_idle: usize,
    /// Trusted besides those of the system.
    authorities: Vec<Certificate>,
}

/// A text that should hold certificates holds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no certificate in PEM")]
pub struct NoCertificate;

impl TransportOptions {
    /// How long a connection may take to be made, and how many are kept for each host that nobody uses at the moment.
    pub fn new(connect_timeout: Duration, most_idle: usize) -> Self {
        Self { connect_timeout, most_idle, authorities: Vec::new() }
    }

    /// Trusts the authorities of a PEM file, too.
    pub fn trusting(mut self, pem: &[u8]) -> Result<Self, NoCertificate> {
        let authorities = Certificate::from_pem_bundle(without_mark(pem)).map_err(|_| NoCertificate)?;
        if authorities.is_empty() {
            return Err(NoCertificate);
        }
        self.authorities.extend(authorities);
        Ok(self)
    }

    /// The transport. Its builder is handed out for what only one system needs, such as a resolver of names; timeouts of
    /// answers belong to the requests.
    pub fn builder(self) -> ClientBuilder {
        // Fails only where one is chosen already, and that is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        Client::builder()
            .user_agent(concat!("nice-knovvu/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .http1_max_headers(MAX_HEADERS)
            // A header that is none costs itself, not the answer.
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(self.most_idle)
            .tls_certs_merge(self.authorities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_holds_some_also_behind_a_byte_order_mark() {
        let options = || TransportOptions::new(Duration::from_secs(1), 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        for text in [pem.clone(), format!("\u{feff}{pem}"), format!("{pem}{pem}")] {
            let trusting = options().trusting(text.as_bytes()).unwrap();
            assert_eq!(trusting.authorities.len(), text.matches("BEGIN").count());
            trusting.builder().build().unwrap();
        }
        for none in ["", "no certificate", &key.serialize_pem(), &pem.replace("MII", "!!!")] {
            assert_eq!(options().trusting(none.as_bytes()).unwrap_err(), NoCertificate, "{none}");
        }
        options().builder().build().unwrap();
    }
}
