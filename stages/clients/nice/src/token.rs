//! The bearer token: asked for once for all callers, renewed in time, dropped when NICE refuses it.
//!
//! Nothing that goes wrong here condemns a conversation: a wrong secret, a moved endpoint or an odd answer is
//! [`NiceError::Refused`] (a person must look) or transient, never permanent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use model::http;
use reqwest::{RequestBuilder, Url, header::HeaderValue};
use secrecy::ExposeSecret;

use super::cached::{Cached, CachedValue, Fetched};
use super::endpoint::Endpoint;
use super::http::{ApiAnswer, Http, parse};
use super::wire::{identity, identity::Claims};
use super::{Auth, NiceError, NiceSettings, Timeouts, net};
use crate::NiceMetrics;

/// A token in use.
pub(super) struct Token {
    bearer: HeaderValue,
    /// What it says of us.
    pub(super) claims: Claims,
    /// Whose limits its requests count against: the issuer and NICE's name of the tenant, where it says so.
    pub(super) account: Option<String>,
    /// Whether NICE has taken it once, and whether it was counted as never taken.
    taken: AtomicBool,
    counted: AtomicBool,
}

impl Token {
    /// The header that carries it.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// NICE has taken it: refused later, it was revoked, and another will do.
    pub(super) fn mark_taken(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// True once for a token that is refused and was never taken.
    pub(super) fn is_first_refusal(&self) -> bool {
        !self.taken.load(Ordering::Relaxed) && !self.counted.swap(true, Ordering::Relaxed)
    }
}

/// The tenant's token and where it is asked for.
pub(super) struct Tokens {
    settings: Arc<NiceSettings>,
    metrics: NiceMetrics,
    endpoint: Cached<Url>,
    token: Cached<Token>,
}

/// NICE's own clients renew so long before the end.
const RENEWED_BEFORE: u64 = 300;

/// What a token is good for where NICE does not say: well below the hour that is usual.
const UNSAID_LIFETIME: u64 = 600;

/// A longer life is not believed.
const MAX_LIFETIME: u64 = 24 * 3600;

/// Where tokens are issued does not change within a day's work, but may over a long run.
const ENDPOINT_FRESH: Duration = Duration::from_secs(3600);

/// What was discovered stays in use for so long while discovery fails.
pub(super) const STALE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

impl Tokens {
    /// No token yet.
    pub(super) fn new(settings: Arc<NiceSettings>, metrics: NiceMetrics, timeouts: &Timeouts) -> Self {
        let delay = timeouts.renewal_delay;
        Self { settings, metrics, endpoint: Cached::new(delay), token: Cached::new(delay) }
    }

    /// The token to use now.
    pub(super) async fn current(&self, http: &Http) -> Result<Arc<CachedValue<Token>>, NiceError> {
        self.token.get(|| async { self.request(http).await.map_err(spared) }).await
    }

    /// Drops this very token after a 401; false when a newer one would be refused as well.
    pub(super) fn reject(&self, token: &CachedValue<Token>) -> bool {
        self.token.drop_value(token)
    }

    /// Notes that a fresh token was refused too.
    pub(super) fn settle(&self) {
        self.token.settle();
    }

    async fn request(&self, http: &Http) -> Result<Fetched<Token>, NiceError> {
        let request = self.prepare(http).await?;
        self.metrics.token_renewals.inc();
        let body = match http.send(Endpoint::Token, request).await?.answer(Endpoint::Token)? {
            ApiAnswer::Body(body) => body,
            ApiAnswer::Nothing | ApiAnswer::NotFound => {
                return Err(NiceError::refused("token: NICE has no such endpoint"));
            }
        };
        let issued = parse(Endpoint::Token, body, identity::token).await?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", issued.access_token.expose_secret()))
            .map_err(|_| NiceError::transient("token: NICE issued one that no header can carry"))?;
        bearer.set_sensitive(true);
        let (fresh_for, valid_for) = lifetime(issued.expires_in_secs);
        Ok(Fetched {
            value: Token {
                bearer,
                account: account(&self.settings.issuer, &issued.claims),
                claims: issued.claims,
                taken: AtomicBool::new(false),
                counted: AtomicBool::new(false),
            },
            fresh_for,
            valid_for,
        })
    }

    async fn prepare(&self, http: &Http) -> Result<RequestBuilder, NiceError> {
        let settings = &self.settings;
        Ok(match &settings.auth {
            Auth::OAuth { client_id, client_secret, access_key_id, access_key_secret } => {
                let form = [
                    ("grant_type", "password"),
                    ("username", access_key_id.as_str()),
                    ("password", access_key_secret.expose_secret()),
                ];
                let url = self.oauth_endpoint(http).await?;
                http.post(url).basic_auth(client_id, Some(client_secret.expose_secret())).form(&form)
            }
            Auth::AccessKey { access_key_id, access_key_secret } => {
                let root = settings.auth_url.as_ref().unwrap_or(&settings.issuer);
                let key = serde_json::json!({
                    "accessKeyId": access_key_id,
                    "accessKeySecret": access_key_secret.expose_secret(),
                });
                http.post(net::below(root, &["authentication", "v1", "token", "access-key"])).json(&key)
            }
        })
    }

    async fn oauth_endpoint(&self, http: &Http) -> Result<Url, NiceError> {
        if let Some(root) = &self.settings.auth_url {
            return Ok(net::below(root, &["auth", "token"]));
        }
        let endpoint = self.endpoint.get(|| async { self.discover(http).await.map_err(spared) }).await?;
        Ok(endpoint.value.clone())
    }

    async fn discover(&self, http: &Http) -> Result<Fetched<Url>, NiceError> {
        let url = net::below(&self.settings.issuer, &[".well-known", "openid-configuration"]);
        let body = match http.send(Endpoint::Discovery, http.get(url)).await?.answer(Endpoint::Discovery)? {
            ApiAnswer::Body(body) => body,
            ApiAnswer::Nothing | ApiAnswer::NotFound => {
                return Err(NiceError::refused("discovery: the issuer has no OpenID configuration"));
            }
        };
        let endpoint = parse(Endpoint::Discovery, body, identity::token_endpoint).await?;
        let url = Url::parse(&endpoint).ok().filter(http::carries_secrets);
        let value = url.ok_or_else(|| NiceError::refused("discovery: the token endpoint is not https"))?;
        Ok(Fetched { value, fresh_for: ENDPOINT_FRESH, valid_for: STALE_FOR })
    }
}

/// NICE counts requests by its own tenant, whichever key asks.
fn account(issuer: &Url, claims: &Claims) -> Option<String> {
    let tenant = claims.tenant_id.as_ref()?.to_ascii_lowercase();
    let port = issuer.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}{port}/{tenant}", issuer.host_str()?))
}

/// Fresh until five minutes before the end, a short-lived token until half of its life; valid until the end.
fn lifetime(expires_in: Option<u64>) -> (Duration, Duration) {
    let life = expires_in.unwrap_or(UNSAID_LIFETIME).min(MAX_LIFETIME);
    let life = Duration::from_secs(life);
    let fresh = match life.checked_sub(Duration::from_secs(RENEWED_BEFORE)) {
        Some(fresh) if fresh > life / 2 => fresh,
        _ => life / 2,
    };
    (fresh, life)
}

/// An error of ours or of the tenant's setup is no fault of the conversation at hand.
pub(super) fn spared(error: NiceError) -> NiceError {
    match error {
        NiceError::Permanent { what } | NiceError::Odd { what } => NiceError::Refused { what },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_time() {
        let seconds = |expires_in| {
            let (fresh, valid) = lifetime(expires_in);
            (fresh.as_secs_f64(), valid.as_secs_f64())
        };
        assert_eq!(seconds(Some(3_600)), (3_300.0, 3_600.0));
        assert_eq!(seconds(Some(601)), (301.0, 601.0));
        assert_eq!(seconds(Some(600)), (300.0, 600.0));
        assert_eq!(seconds(Some(60)), (30.0, 60.0));
        assert_eq!(seconds(Some(1)), (0.5, 1.0));
        assert_eq!(seconds(None), (300.0, 600.0));
        assert_eq!(seconds(Some(u64::MAX)).1, 86_400.0);
    }

    #[test]
    fn a_wrong_setup_condemns_no_conversation() {
        assert_eq!(spared(NiceError::permanent("400")), NiceError::refused("400"));
        assert_eq!(spared(NiceError::transient("x")), NiceError::transient("x"));
    }
}
