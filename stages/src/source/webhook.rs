//! Stage 1, source: events that a NICE Studio script posts to us.
//!
//! `POST /nice/events/contact-ended`, `Authorization: Bearer {secret}`, at most 32 KiB of JSON with a `contactId`.
//!
//! | answer | when |
//! |---|---|
//! | 202 | the event is durable on disk |
//! | 400 | the body is malformed: it will be refused every time |
//! | 401 | no or another secret |
//! | 408 | the body came too slowly |
//! | 413 | the body is longer than 32 KiB |
//! | 503 | the event cannot be made durable now; `Retry-After` says when to try again |
//!
//! # After a crash
//! An event that was answered with 202 stands in the inbox until the dedupe has settled it.

use std::sync::Arc;
use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{
        Request, StatusCode,
        header::{AUTHORIZATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use jiff::Timestamp;
use model::{AgentId, ContactEvent, ContactId, EventSource, TenantId, text::bare_json};
use runtime::crash;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use state::Inbox;
use subtle::ConstantTimeEq;
use tracing::{debug, error};

use crate::metrics::Metrics;

mod inbox;

pub use self::inbox::drain;

/// Studio's own limit of a script's data.
const MAX_BODY: usize = 32 * 1024;

/// A sender gets this long for its whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a sender is asked to wait when the disk or the inbox is full.
const RETRY_AFTER_SECS: &str = "30";

/// The receiver: answers posts and lays events into the inbox.
#[derive(Clone)]
pub struct Receiver {
    inbox: Inbox,
    tenant: TenantId,
    /// Compared as digests: equal in length whatever was sent.
    secret: [u8; 32],
    metrics: Metrics,
    /// Whether events are taken now.
    open: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Receiver {
    /// A receiver for one tenant.
    pub fn new(inbox: Inbox, tenant: TenantId, secret: &SecretString, metrics: Metrics) -> Self {
        Self { inbox, tenant, secret: Sha256::digest(secret.expose_secret()).into(), metrics, open: Arc::new(|| true) }
    }

    /// Takes events only while `open` says so; 503 otherwise, so that the sender turns to another receiver.
    pub fn only_while(self, open: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), ..self }
    }

    /// The routes, to be served by [`crate::serve`].
    pub fn router(self) -> Router {
        Router::new().route("/nice/events/contact-ended", post(receive)).with_state(Arc::new(self))
    }

    fn knows(&self, request: &Request<Body>) -> bool {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(token.trim()).into();
        scheme.eq_ignore_ascii_case("bearer") & bool::from(digest.ct_eq(&self.secret))
    }

    async fn take(&self, request: Request<Body>) -> Result<(), WebhookError> {
        if !self.knows(&request) {
            return Err(WebhookError::Unauthorized);
        }
        if !(self.open)() {
            return Err(WebhookError::Unavailable);
        }
        let declared = request.headers().get(axum::http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
        if declared.is_some_and(|length: u64| length > MAX_BODY as u64) {
            return Err(WebhookError::TooLarge);
        }
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY);
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body,
            // The only other cause is a sender that hung up, and it reads no answer.
            Ok(Err(_)) => return Err(WebhookError::TooLarge),
            Err(_) => return Err(WebhookError::TooSlow),
        };
        let event = parse(&body, &self.tenant).map_err(WebhookError::Malformed)?;
        self.inbox.push(&event.encode()).await.map_err(|error| {
            error!(%error, "webhook event not stored");
            WebhookError::Unavailable
        })?;
        crash::point("webhook_stored");
        debug!(conversation.id = %event.conversation, "webhook event stored");
        Ok(())
    }
}

enum WebhookError {
    Malformed(String),
    Unauthorized,
    TooSlow,
    TooLarge,
    Unavailable,
}

impl IntoResponse for WebhookError {
    fn into_response(self) -> Response {
        match self {
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, why).into_response(),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]).into_response(),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, [("connection", "close")]).into_response(),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, [("connection", "close")]).into_response(),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECS)]).into_response(),
        }
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request<Body>) -> Response {
    let answer = match receiver.take(request).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => refusal.into_response(),
    };
    receiver.metrics.webhook_requests.with_label_values(&[answer.status().as_str()]).inc();
    answer
}

/// The body of a post. Only `contactId` is mandatory; unknown fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Post {
    #[serde(default)]
    event_type: Option<String>,
    contact_id: serde_json::Value,
    #[serde(default)]
    master_contact_id: Option<serde_json::Value>,
    #[serde(default)]
    agent_id: Option<serde_json::Value>,
    #[serde(default)]
    ended_at: Option<String>,
}

/// Reads a post; the error names the field and the remedy, never the content.
pub fn parse(body: &[u8], tenant: &TenantId) -> Result<ContactEvent, String> {
    let post: Post = serde_json::from_slice(bare_json(body)).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            "the body must be a JSON object with a contactId, and texts where texts are due".to_owned()
        }
        _ => format!("the body is not JSON (line {}, column {})", error.line(), error.column()),
    })?;
    if post.event_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("ContactEnded")) {
        return Err("eventType: send \"ContactEnded\", or leave it out".to_owned());
    }
    let id: ContactId = id("contactId", &post.contact_id)?;
    let mut event = ContactEvent::new(tenant.clone(), id, EventSource::Webhook);
    event.master = optional_id("masterContactId", post.master_contact_id.as_ref())?;
    event.agent = optional_id::<AgentId>("agentId", post.agent_id.as_ref())?;
    if let Some(text) = post.ended_at.filter(|text| !text.is_empty()) {
        let time: Timestamp =
            text.parse().map_err(|_| "endedAt: send an ISO 8601 time, such as 2026-04-01T16:34:25Z".to_owned())?;
        event.ended_at = Some(time);
    }
    Ok(event)
}

fn id<T: std::str::FromStr>(field: &str, value: &serde_json::Value) -> Result<T, String> {
    let text = match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        _ => None,
    };
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{field}: send 1 to 19 digits, above zero, as a text or an integer"))
}

/// An id that a script had no value for comes as null or as an empty text.
fn optional_id<T: std::str::FromStr>(field: &str, value: Option<&serde_json::Value>) -> Result<Option<T>, String> {
    match value {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => id(field, value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantId {
        "acme".parse().unwrap()
    }

    #[test]
    fn ids_come_as_texts_or_integers() {
        let text = parse(br#"{"contactId":"698800000001","agentId":"","masterContactId":null}"#, &tenant()).unwrap();
        let number = parse(br#"{"contactId":698800000001,"agentId":7,"skillId":{"any":1}}"#, &tenant()).unwrap();
        assert_eq!(text.conversation, number.conversation);
        assert_eq!((text.agent, number.agent.map(AgentId::get)), (None, Some(7)));
    }

    #[test]
    fn what_lies_around_a_post_does_no_harm() {
        for body in [&b"\xef\xbb\xbf{\"contactId\":7}"[..], b"\r\n{\"contactId\":7}\r\n", b"{\"contactId\":7}\0"] {
            let event = parse(body, &tenant()).unwrap();
            assert_eq!(event.conversation.get(), 7, "{body:?}");
        }
        for body in [&b"{\"contactId\":7"[..], b"{\"contactId\":7}{}", b"{\"contactId\":7\0}", b"\xef\xbb\xbf"] {
            assert!(parse(body, &tenant()).unwrap_err().contains("JSON"), "{body:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_not_the_content() {
        for (body, field) in [
            ("", "JSON"),
            ("[]", "contactId"),
            ("{}", "contactId"),
            (r#"{"contactId":null}"#, "contactId"),
            (r#"{"contactId":0}"#, "contactId"),
            (r#"{"contactId":-5}"#, "contactId"),
            (r#"{"contactId":1.5}"#, "contactId"),
            (r#"{"contactId":"../x"}"#, "contactId"),
            (r#"{"contactId":" 1"}"#, "contactId"),
            (r#"{"contactId":99999999999999999999}"#, "contactId"),
            (r#"{"contactId":1,"agentId":"x"}"#, "agentId"),
            (r#"{"contactId":1,"masterContactId":true}"#, "masterContactId"),
            (r#"{"contactId":1,"endedAt":"yesterday"}"#, "endedAt"),
            (r#"{"contactId":1,"endedAt":5}"#, "contactId"),
            (r#"{"contactId":1,"eventType":"AgentMoved"}"#, "eventType"),
        ] {
            let why = parse(body.as_bytes(), &tenant()).unwrap_err();
            assert!(why.contains(field), "{body}: {why}");
            assert!(!why.contains("../x") && !why.contains("yesterday"));
        }
    }
}
