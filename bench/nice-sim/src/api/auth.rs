//! Tokens: the OAuth password grant, the UserHub's access-key call, and the refresh of both.

use std::{collections::HashMap, time::Duration};

use axum::{http::header, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    ask::{self, Ask},
    reply::{Answer, server_error},
};
use crate::{
    clock::{self, millis},
    service::Service,
};

/// How long a refresh token lives: a working day.
const REFRESH_TTL: Duration = Duration::from_secs(8 * 3600);

/// Answers the token paths.
pub(crate) fn answer(service: &Service, ask: &Ask) -> (&'static str, Response) {
    let path = ask.path.to_lowercase();
    let endpoint = match path.as_str() {
        "/auth/token" => "token",
        "/authentication/v1/token/access-key" => "access-key-token",
        "/public/user/refresh" => "refresh",
        _ => return ("unknown", Answer::gateway(404, "no Route matched with those values").plain()),
    };
    if ask.method != axum::http::Method::POST {
        return (endpoint, Answer::Empty(405).plain());
    }
    if let Some(error) = server_error(service, "auth") {
        return (endpoint, error);
    }
    let answer = match endpoint {
        "token" => oauth(service, ask),
        "access-key-token" => access_key(service, ask),
        _ => refresh(service, ask),
    };
    (endpoint, answer.plain())
}

/// Flow A: form or JSON, client secret in a Basic header or in the form.
fn oauth(service: &Service, ask: &Ask) -> Answer {
    let tenant = &service.config.tenant;
    let form = body_fields(ask);
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let (id, secret) = basic(ask).unwrap_or_else(|| (field("client_id").to_owned(), field("client_secret").to_owned()));
    let refreshing = field("grant_type") == "refresh_token";
    if refused(service) {
        return oauth_error("invalid_grant", "bad credentials");
    }
    if id != tenant.client_id || (secret != tenant.client_secret && !(refreshing && secret.is_empty())) {
        return oauth_error("invalid_client", "client authentication failed");
    }
    match field("grant_type") {
        "password" if field("username") == tenant.access_key_id && field("password") == tenant.access_key_secret => {
            Answer::Json(200, issue(service))
        }
        "password" => oauth_error("invalid_grant", "bad credentials"),
        "refresh_token" if service.tokens.take_refresh(field("refresh_token"), service.now()) => {
            Answer::Json(200, issue(service))
        }
        "refresh_token" => oauth_error("invalid_grant", "refresh token is not in force"),
        _ => Answer::Json(400, json!({ "error": "unsupported_grant_type", "errorDescription": "use password" })),
    }
}

/// Flow B: the access key alone.
fn access_key(service: &Service, ask: &Ask) -> Answer {
    if refused(service) {
        return unauthorized(service, ask);
    }
    let tenant = &service.config.tenant;
    let body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
    if body["accessKeyId"] == tenant.access_key_id.as_str()
        && body["accessKeySecret"] == tenant.access_key_secret.as_str()
    {
        return Answer::Json(200, issue(service));
    }
    unauthorized(service, ask)
}

/// The refresh of flow B, whose answer has names of its own.
fn refresh(service: &Service, ask: &Ask) -> Answer {
    let body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
    if refused(service) || !service.tokens.take_refresh(body["token"].as_str().unwrap_or_default(), service.now()) {
        return unauthorized(service, ask);
    }
    let issued = issue(service);
    Answer::Json(
        200,
        json!({
            "token": issued["access_token"],
            "refreshToken": issued["refresh_token"],
            "tokenExpirationTimeSec": issued["expires_in"],
            "refreshTokenExpirationTimeSec": REFRESH_TTL.as_secs(),
        }),
    )
}

/// The 401 of the UserHub and of the APIs behind it.
pub(crate) fn unauthorized(service: &Service, ask: &Ask) -> Answer {
    let timestamp = clock::write(service.now());
    let (error, message) = ("Unauthorized", "the token or key is missing, unknown or expired");
    Answer::Json(
        401,
        json!({ "timestamp": timestamp, "status": 401, "error": error, "message": message, "path": ask.path }),
    )
}

/// Whether the request has a token in force; a fault may revoke it at this very moment.
pub(crate) fn authorized(service: &Service, ask: &Ask) -> bool {
    let Some(token) = ask.bearer() else { return false };
    if service.faults.strikes("token revoked", |faults| faults.token_revoked) {
        service.tokens.revoke(token);
    }
    service.tokens.valid(token, service.now())
}

/// Whether the service user's key is refused now.
fn refused(service: &Service) -> bool {
    service.faults.strikes("key refused", |faults| faults.keys_refused)
}

fn oauth_error(error: &str, description: &str) -> Answer {
    Answer::Json(401, json!({ "error": error, "errorDescription": description }))
}

fn basic(ask: &Ask) -> Option<(String, String)> {
    let (scheme, encoded) = ask.header(header::AUTHORIZATION)?.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded).ok()).flatten()?;
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

fn body_fields(ask: &Ask) -> HashMap<String, String> {
    let content_type = ask.header(header::CONTENT_TYPE).unwrap_or_default();
    if content_type.starts_with("application/x-www-form-urlencoded") {
        return ask::pairs(&String::from_utf8_lossy(&ask.body)).into_iter().collect();
    }
    serde_json::from_slice(&ask.body).unwrap_or_default()
}

/// Issues an access token and a refresh token.
fn issue(service: &Service) -> Value {
    let tenant = &service.config.tenant;
    let now = service.now();
    let serial = service.tokens.next_serial(now);
    let expires_in = tenant.token_ttl.as_secs();
    // The APIs look at the token's own end, by their own clocks.
    let issued_at = now + service.faults.current().token_clock_millis;
    let claims = json!({
        "sub": "user:11e7aaaa-0000-4000-8000-0242ac110002",
        "iss": service.base,
        "aud": tenant.client_id,
        "tenantId": tenant.tenant_id,
        "tenant": "simulated",
        "userId": "11e7aaaa-0000-4000-8000-0242ac110002",
        "icBUId": tenant.business_unit_id,
        "icAgentId": "900000",
        "icClusterId": "C42",
        "area": "na1",
        "name": "Service User",
        "iat": issued_at / 1000,
        "exp": issued_at / 1000 + expires_in as i64,
        "jti": serial,
    });
    let access = sign(&claims, service.link_key);
    let refresh = hex::encode(Sha256::digest(format!("refresh {serial} {}", service.link_key)));
    let ends = [issued_at + millis(tenant.token_ttl), now + millis(REFRESH_TTL)];
    service.tokens.insert([&access, &refresh], ends);
    let as_text = tenant.expires_in_as_string;
    json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": if as_text { json!(expires_in.to_string()) } else { json!(expires_in) },
        "refresh_token": refresh,
        "id_token": access,
    })
}

/// A token in the form of a JWT (HS256).
fn sign(claims: &Value, key: u64) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = hmac(&key.to_be_bytes(), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// HMAC-SHA-256 with a key no longer than a block.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    let pad = |byte: u8| -> Vec<u8> { (0..BLOCK).map(|at| key.get(at).copied().unwrap_or(0) ^ byte).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5C)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_matches_the_standard() {
        assert_eq!(
            hex::encode(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
