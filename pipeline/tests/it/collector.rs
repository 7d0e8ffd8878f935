//! A small collector of traces: takes OTLP over HTTP, and keeps what it was sent.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message;

use crate::harness::PATIENCE;

/// A span as it arrived, and the service that sent it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) service: String,
    pub(crate) span: opentelemetry_proto::tonic::trace::v1::Span,
}

impl Received {
    /// An attribute as text.
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.span.attributes, key)
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    Some(match value {
        AnyValue { value: Some(Value::StringValue(text)) } => text,
        AnyValue { value: Some(Value::IntValue(number)) } => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// What the collector asks its senders for.
pub(crate) const AUTHORIZATION: &str = "Bearer canary-collector-token";

/// A collector that runs for as long as its test.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    spans: Arc<Mutex<Vec<Received>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<Received>>>::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(spans.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, spans }
    }

    pub(crate) fn spans(&self) -> Vec<Received> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans, once they satisfy a test.
    pub(crate) async fn until(&self, satisfied: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let begun = Instant::now();
        loop {
            let spans = self.spans();
            if satisfied(&spans) {
                return spans;
            }
            assert!(begun.elapsed() < PATIENCE, "{} spans came, and not those", spans.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn take(
    State(kept): State<Arc<Mutex<Vec<Received>>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    if headers.get("authorization").is_none_or(|given| given != AUTHORIZATION) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if headers.get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    for group in request.resource_spans {
        let resource = group.resource.unwrap_or_default();
        let service = attribute(&resource.attributes, "service.name").ok_or(StatusCode::BAD_REQUEST)?;
        let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        kept.lock().unwrap().extend(spans.map(|span| Received { service: service.clone(), span }));
    }
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}
