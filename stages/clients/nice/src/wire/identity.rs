//! Tokens, what they say of us, and where NICE is.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use secrecy::SecretString;

use super::ShapeError;
use super::lenient::{self, Object};

/// A token as it was issued.
#[derive(Debug)]
pub struct IssuedToken {
    /// The bearer token.
    pub access_token: SecretString,
    /// How long it is good for, where NICE says so.
    pub expires_in_secs: Option<u64>,
    /// What it says of us.
    pub claims: Claims,
}

/// The claims that discovery needs; each is a plain word, since it becomes part of a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// The tenant, by which the configuration is asked for.
    pub tenant_id: Option<String>,
    /// The region.
    pub area: Option<String>,
    /// The ACD cluster.
    pub cluster: Option<String>,
}

/// Where a tenant's APIs are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The root of the ACD API.
    pub api_endpoint: Option<String>,
    /// The region.
    pub area: Option<String>,
    /// The domain of the façade.
    pub domain: Option<String>,
}

/// NICE's tokens have 1 to 2 KiB, and a header line must bear it.
const MAX_TOKEN: usize = 16 * 1024;

/// Reads the answer of a token endpoint.
pub fn token(body: &[u8]) -> Result<IssuedToken, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let word = |names: &[&str]| {
        let token = object.value(names).and_then(lenient::scalar)?;
        Some(token.trim().to_owned()).filter(|token| is_token(token))
    };
    let access = word(&["access_token", "accessToken"]).ok_or(ShapeError::Shape("no access token"))?;
    let mut claims = claims(&access);
    if let Some(identity) = word(&["id_token", "idToken"]) {
        let more = self::claims(&identity);
        claims.tenant_id = claims.tenant_id.or(more.tenant_id);
        claims.area = claims.area.or(more.area);
        claims.cluster = claims.cluster.or(more.cluster);
    }
    let names = &["expires_in", "expiresIn"];
    let whole = object.integer(names).and_then(|seconds| u64::try_from(seconds).ok());
    let expires_in = whole.or_else(|| object.seconds(names).map(|life| life.as_secs()));
    Ok(IssuedToken {
        access_token: SecretString::from(access),
        expires_in_secs: expires_in.filter(|seconds| *seconds > 0),
        claims,
    })
}

/// Visible ASCII of a bearable length: anything else could not stand in a header.
fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

/// Reads the claims of a JSON Web Token without verifying it: it came from its issuer over TLS, and all that
/// follows from it is where the same token is sent next.
pub fn claims(token: &str) -> Claims {
    let read = || {
        let payload = token.split('.').nth(1)?;
        let bytes = BASE64_URL.decode(payload).ok()?;
        let text = lenient::document(&bytes).ok()?;
        let object = Object::parse(&text).ok()?;
        Some(Claims {
            tenant_id: plain(&object, "tenantId"),
            area: plain(&object, "area").map(|area| area.to_ascii_lowercase()),
            cluster: plain(&object, "icClusterId").map(|cluster| cluster.to_ascii_lowercase()),
        })
    };
    read().unwrap_or_default()
}

/// The URL alphabet, padded or not.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A word of letters, digits and inner `-`: safe as a label of a host name.
fn plain(object: &Object<'_>, name: &str) -> Option<String> {
    object.text(&[name]).filter(|word| {
        (1..=63).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !word.starts_with('-')
            && !word.ends_with('-')
    })
}

/// Reads the token endpoint out of the OpenID configuration.
pub fn token_endpoint(body: &[u8]) -> Result<String, ShapeError> {
    let text = lenient::document(body)?;
    Object::parse(&text)?.text(&["token_endpoint"]).ok_or(ShapeError::Shape("no token endpoint"))
}

/// Reads the CXone configuration of a tenant.
pub fn configuration(body: &[u8]) -> Result<Configuration, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let domain = object.text(&["domain"]).filter(|domain| {
        domain.len() <= 253
            && domain.split('.').count() >= 2
            && domain.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    });
    Ok(Configuration {
        api_endpoint: object.text(&["api_endpoint"]),
        area: plain(&object, "area").map(|area| area.to_ascii_lowercase()),
        domain: domain.map(|domain| domain.to_ascii_lowercase()),
    })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
