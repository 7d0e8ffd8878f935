//! Where the tenant's APIs are: overridden in the settings, else discovered from the issuer, else guessed from the
//! token as NICE's own clients do.

use std::sync::Arc;
use std::time::Duration;

use model::http;
use reqwest::Url;

use super::api::Api;
use super::cached::{Cached, Fetched};
use super::endpoint::Endpoint;
use super::http::{ApiAnswer, parse};
use super::token::{STALE_FOR, spared};
use super::wire::identity::{self, Claims, Configuration};
use super::{NiceError, NiceSettings, Timeouts, net};

/// The roots that discovery found; each may be missing from NICE's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Roots {
    acd: Option<Url>,
    facade: Option<Url>,
}

/// The tenant's roots.
pub(super) struct Discovery {
    settings: Arc<NiceSettings>,
    roots: Cached<Roots>,
}

/// A tenant moves between clusters rarely, and the old roots answer for a while.
const FRESH: Duration = Duration::from_secs(3600);

/// A guess is used only until discovery may be tried again.
const GUESS_FRESH: Duration = Duration::from_secs(60);

impl Discovery {
    /// Nothing discovered yet.
    pub(super) fn new(settings: Arc<NiceSettings>, timeouts: &Timeouts) -> Self {
        Self { settings, roots: Cached::new(timeouts.renewal_delay) }
    }

    /// The root of the ACD API.
    pub(super) async fn acd(&self, api: &Api) -> Result<Url, NiceError> {
        if let Some(url) = &self.settings.acd_url {
            return Ok(url.clone());
        }
        self.roots(api).await?.acd.ok_or_else(|| NiceError::transient("discovery: NICE names no ACD root"))
    }

    /// The root of media playback.
    pub(super) async fn facade(&self, api: &Api) -> Result<Url, NiceError> {
        if let Some(url) = &self.settings.facade_url {
            return Ok(url.clone());
        }
        self.roots(api).await?.facade.ok_or_else(|| NiceError::transient("discovery: NICE names no area and domain"))
    }

    /// Whether a link leads to one of the roots that are known by now.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        let held = self.roots.peek();
        let found = held.as_ref().map(|held| &held.value);
        let acd = self.settings.acd_url.as_ref().or_else(|| found?.acd.as_ref());
        let facade = self.settings.facade_url.as_ref().or_else(|| found?.facade.as_ref());
        let bare = url.username().is_empty() && url.password().is_none();
        bare && [acd, facade].into_iter().flatten().any(|root| root.origin() == url.origin())
    }

    async fn roots(&self, api: &Api) -> Result<Roots, NiceError> {
        let held = self.roots.get(|| async { self.discover(api).await.map_err(spared) }).await?;
        Ok(held.value.clone())
    }

    async fn discover(&self, api: &Api) -> Result<Fetched<Roots>, NiceError> {
        let token = api.tokens.current(&api.http).await?;
        let claims = &token.value.claims;
        match self.ask(api, claims).await {
            Ok(configuration) => {
                let value = assemble(&configuration, claims, &self.settings.issuer);
                Ok(Fetched { value, fresh_for: FRESH, valid_for: STALE_FOR })
            }
            // Roots that were discovered before are better than a guess.
            Err(error) if self.roots.peek().is_some() => Err(error),
            Err(error) => {
                let guess = guess(claims, &self.settings.issuer);
                if guess == Roots::default() {
                    return Err(error);
                }
                tracing::warn!(%error, "discovery failed, the roots are guessed from the token");
                Ok(Fetched { value: guess, fresh_for: GUESS_FRESH, valid_for: GUESS_FRESH })
            }
        }
    }

    async fn ask(&self, api: &Api, claims: &Claims) -> Result<Configuration, NiceError> {
        let mut url = net::below(&self.settings.issuer, &[".well-known", "cxone-configuration"]);
        if let Some(tenant) = &claims.tenant_id {
            url.query_pairs_mut().append_pair("tenantId", tenant);
        }
        match api.http.send(Endpoint::Discovery, api.http.get(url)).await?.answer(Endpoint::Discovery)? {
            ApiAnswer::Body(body) => parse(Endpoint::Discovery, body, identity::configuration).await,
            ApiAnswer::Nothing | ApiAnswer::NotFound => {
                Err(NiceError::transient("discovery: the issuer does not know the tenant"))
            }
        }
    }
}

/// The roots that a configuration names; what it leaves out is guessed.
fn assemble(configuration: &Configuration, claims: &Claims, issuer: &Url) -> Roots {
    let guess = guess(claims, issuer);
    let named =
        configuration.api_endpoint.as_deref().and_then(|url| Url::parse(url).ok()).filter(http::carries_secrets);
    let area = configuration.area.as_ref().or(claims.area.as_ref());
    let facade = match (area, &configuration.domain) {
        (Some(area), Some(domain)) => Url::parse(&format!("https://api-{area}.{domain}")).ok(),
        _ => None,
    };
    Roots { acd: named.or(guess.acd), facade: facade.or(guess.facade) }
}

/// The commercial cloud's domain; of others the guess would lead astray.
const CLOUD: &str = ".niceincontact.com";

/// The roots by NICE's naming habit. Only for an issuer in NICE's commercial cloud: a token goes there.
fn guess(claims: &Claims, issuer: &Url) -> Roots {
    let host = issuer.host_str().unwrap_or_default();
    if issuer.scheme() != "https" || !host.ends_with(CLOUD) || host.starts_with("cxone-gov.") {
        return Roots::default();
    }
    let root = |label: &Option<String>, domain: &str| {
        label.as_ref().and_then(|label| Url::parse(&format!("https://api-{label}{domain}")).ok())
    };
    Roots { acd: root(&claims.cluster, ".nice-incontact.com"), facade: root(&claims.area, CLOUD) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { tenant_id: Some("t".into()), area: Some("uk1".into()), cluster: Some("l36".into()) }
    }

    fn shown(roots: &Roots) -> (Option<&str>, Option<&str>) {
        (roots.acd.as_ref().map(Url::as_str), roots.facade.as_ref().map(Url::as_str))
    }

    #[test]
    fn the_configuration_names_the_roots() {
        let found = Configuration {
            api_endpoint: Some("https://api-c42.nice-incontact.com".into()),
            area: Some("na1".into()),
            domain: Some("niceincontact.com".into()),
        };
        let roots = assemble(&found, &Claims::default(), &Url::parse("https://issuer.example").unwrap());
        let expected = ("https://api-c42.nice-incontact.com/", "https://api-na1.niceincontact.com/");
        assert_eq!(shown(&roots), (Some(expected.0), Some(expected.1)));
    }

    #[test]
    fn a_root_in_clear_is_not_taken() {
        let found = Configuration { api_endpoint: Some("http://api.example".into()), ..Default::default() };
        let roots = assemble(&found, &claims(), &Url::parse("https://issuer.example").unwrap());
        assert_eq!(shown(&roots), (None, None));
    }

    #[test]
    fn the_guess_is_for_the_commercial_cloud_only() {
        let roots = guess(&claims(), &Url::parse("https://cxone.niceincontact.com").unwrap());
        let expected = ("https://api-l36.nice-incontact.com/", "https://api-uk1.niceincontact.com/");
        assert_eq!(shown(&roots), (Some(expected.0), Some(expected.1)));
        for issuer in [
            "https://cxone-gov.niceincontact.com",
            "https://niceincontact.com.evil.example",
            "https://evilniceincontact.com",
            "http://127.0.0.1:9",
        ] {
            assert_eq!(guess(&claims(), &Url::parse(issuer).unwrap()), Roots::default(), "{issuer}");
        }
    }
}
