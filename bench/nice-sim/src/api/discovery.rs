//! The two discovery documents. Both are public, and every root in them is this port.

use axum::response::Response;
use serde_json::json;

use super::{
    ask::Ask,
    reply::{Answer, server_error},
};
use crate::service::Service;

/// Answers `/.well-known/…`.
pub(crate) fn answer(service: &Service, ask: &Ask) -> (&'static str, Response) {
    let base = &service.base;
    let (endpoint, document) = match ask.part(1).as_str() {
        "openid-configuration" => (
            "openid-configuration",
            json!({
                "issuer": base,
                "authorization_endpoint": format!("{base}/auth/authorize"),
                "token_endpoint": format!("{base}/auth/token"),
                "end_session_endpoint": format!("{base}/auth/logout"),
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "scopes_supported": ["openid"],
                "id_token_signing_alg_values_supported": ["HS256"],
            }),
        ),
        "cxone-configuration" => {
            let tenant = &service.config.tenant.tenant_id;
            if ask.param("tenantId").is_some_and(|asked| asked != tenant) {
                return ("cxone-configuration", Answer::gateway(404, "tenant not found").plain());
            }
            (
                "cxone-configuration",
                json!({
                    "private": false,
                    "api_endpoint": base,
                    "auth_endpoint": base,
                    "ui_endpoint": base,
                    "area": "na1",
                    "cluster": "C42",
                    "domain": "simulated.invalid",
                    "acdDomain": "simulated.invalid",
                    "uhDomain": "simulated.invalid",
                    "tenantId": tenant,
                }),
            )
        }
        _ => return ("unknown", Answer::Empty(404).plain()),
    };
    (endpoint, server_error(service, "discovery").unwrap_or_else(|| Answer::Json(200, document).plain()))
}
