//! Traces on their way to a collector: OTLP over HTTP, in protobuf.
//!
//! A span that ends goes into a queue with a bound; one task sends what is there, a batch at a time, and tries again
//! for a while. Nobody waits for it: what finds no place, or does not reach the collector in time, is lost and counted.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::retry_after::longest_retry_after;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor,
};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use runtime::{Clock, chance, task, traces};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};
use transport::TransportOptions;

use crate::command_error::CommandError;
use crate::config::{CollectorHeaders, TracesConfig};

/// Spans that wait to be sent: some megabytes, and half a minute of a service that works as fast as NICE lets it.
const WAITING: usize = 4096;

/// Spans of one request.
const BATCH: usize = 512;

/// How long a batch gathers.
const LINGER: Duration = Duration::from_secs(2);

/// Between two looks at the spans that wait, while a batch gathers: a task that each span woke would cost more than the
/// span itself. What ends meanwhile finds place among those that wait.
const LOOK: Duration = Duration::from_millis(50);

/// How long the collector may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a batch is tried again: a collector that restarts loses nothing.
const TRIED: Duration = Duration::from_secs(60);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A collector that stays away is told of once in this time.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How long the end of a service waits for the last batch.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The most of an answer that is read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Spans that a collector has taken, since the start.
static EXPORTED: AtomicU64 = AtomicU64::new(0);

/// Spans that were lost, since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Spans that a collector has taken and spans that were lost, since the start.
pub(crate) fn counts() -> (u64, u64) {
    (EXPORTED.load(Ordering::Relaxed), DROPPED.load(Ordering::Relaxed))
}

fn lost(spans: u64) {
    DROPPED.fetch_add(spans, Ordering::Relaxed);
}

/// The task that sends spans. It ends with this.
#[must_use = "spans are lost once it is dropped"]
pub(crate) struct TraceExport {
    ending: CancellationToken,
    sending: AbortOnDropHandle<()>,
}

impl TraceExport {
    /// Sends what is left, for two seconds at most.
    pub(crate) async fn end(self) {
        self.ending.cancel();
        // What is not sent by then is lost, with the process.
        drop(tokio::time::timeout(LAST_WORDS, self.sending).await);
    }
}

/// Begins to make and send spans where the settings name a collector.
pub(crate) fn start(config: &TracesConfig, service: &str) -> Result<Option<TraceExport>, CommandError> {
    let Some(endpoint) = &config.endpoint else { return Ok(None) };
    let CollectorHeaders(headers) = config.headers.clone().unwrap_or_default();
    let collector = Collector { client: client(config.ca_file.as_deref())?, url: endpoint.signal(), headers };
    let (spans, waiting) = mpsc::channel(WAITING);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(WaitingSpans(spans))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample))))
        .with_id_generator(WantedIds(RandomIdGenerator::default()))
        .build();
    // It is kept by the process, and the provider with it.
    traces::install(BoxedTracer::new(Box::new(provider.tracer("nice-knovvu"))));
    let ending = CancellationToken::new();
    let resource = ResourceAttributesWithSchema::from(&resource(config.service_name.as_deref(), service));
    let sender = Sender { collector, resource, trouble: None };
    info!(endpoint = endpoint.signal().host_str(), "conversations are traced");
    Ok(Some(TraceExport { sending: task::spawn("traces", sender.run(waiting, ending.clone())), ending }))
}

/// Who made the spans. Each start of a process is an instance.
fn resource(named: Option<&str>, service: &str) -> Resource {
    let name = match (named, service) {
        (Some(named), _) => named.to_owned(),
        (None, "run") => "nice-knovvu".to_owned(),
        (None, service) => format!("nice-knovvu-{service}"),
    };
    let instance = format!("{:016x}", chance::random::<u64>());
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", name),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build()
}

/// The way to the collector: one connection, since one batch is sent at a time.
fn client(ca_file: Option<&Path>) -> Result<Client, CommandError> {
    let cannot = |why: &str| CommandError::usage(format!("[traces] ca_file: {why}"));
    let mut options = TransportOptions::new(PATIENCE, 1);
    if let Some(file) = ca_file {
        let unusable = |why: &dyn std::fmt::Display| cannot(&format!("{}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
        options = options.trusting(&pem).map_err(|error| unusable(&error))?;
    }
    options.builder().timeout(PATIENCE).build().map_err(|_| cannot("the HTTPS transport cannot be set up"))
}

/// A conversation's trace has the id that the conversation gives it.
#[derive(Debug)]
struct WantedIds(RandomIdGenerator);

impl IdGenerator for WantedIds {
    fn new_trace_id(&self) -> TraceId {
        traces::wanted_trace_id().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// The spans that have ended and wait to be sent.
#[derive(Debug)]
struct WaitingSpans(mpsc::Sender<SpanData>);

impl SpanProcessor for WaitingSpans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            lost(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Who takes the spans.
struct Collector {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

/// Why a batch was not taken.
struct Refusal {
    why: String,
    /// The least pause before the same batch may be taken; none where it never is.
    again: Option<Duration>,
}

impl Collector {
    /// Sends a batch, and says how many of its spans were refused.
    async fn take(&self, batch: Bytes) -> Result<u64, Refusal> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(batch);
        let unreachable =
            |error: reqwest::Error| Refusal { why: error.without_url().to_string(), again: Some(Duration::ZERO) };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        if answer.status().is_success() {
            return Ok(rejected(answer).await);
        }
        let asked = answer.headers().get_all(RETRY_AFTER).iter().map(HeaderValue::as_bytes);
        let asked = longest_retry_after(asked, Clock::system().now()).unwrap_or_default();
        let again = matches!(status, 429 | 502 | 503 | 504).then_some(asked);
        Err(Refusal { why: format!("it answered {status}"), again })
    }
}

/// How many spans an answer says were not taken; one that cannot be read says nothing.
async fn rejected(mut answer: Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return 0;
        }
        body.extend_from_slice(&chunk);
    }
    let read = ExportTraceServiceResponse::decode(body.as_slice()).ok();
    let rejected = read.and_then(|answer| answer.partial_success).map_or(0, |partial| partial.rejected_spans);
    u64::try_from(rejected).unwrap_or_default()
}

/// Fills a batch from the spans that wait.
fn take_waiting(waiting: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    while batch.len() < BATCH
        && let Ok(span) = waiting.try_recv()
    {
        batch.push(span);
    }
}

/// Sends batches, and tells of a collector that does not take them.
struct Sender {
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    /// When it was last told that the collector takes nothing, and how many spans were lost by then.
    trouble: Option<(Instant, u64)>,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<SpanData>, ending: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(1..) = ending.run_until_cancelled(waiting.recv_many(&mut batch, BATCH)).await {
            let gathered = Instant::now() + LINGER;
            while batch.len() < BATCH && Instant::now() < gathered {
                if ending.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                    break;
                }
                take_waiting(&mut waiting, &mut batch);
            }
            self.send(std::mem::take(&mut batch), &ending).await;
        }
        loop {
            take_waiting(&mut waiting, &mut batch);
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch), &ending).await;
        }
    }

    /// Sends a batch, again and again for a while; at the end of the service once.
    async fn send(&mut self, batch: Vec<SpanData>, ending: &CancellationToken) {
        let count = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let (begun, mut pause) = (Instant::now(), Duration::from_secs(1));
        loop {
            let refusal = match self.collector.take(body.clone()).await {
                Ok(rejected) => {
                    lost(rejected.min(count));
                    EXPORTED.fetch_add(count.saturating_sub(rejected), Ordering::Relaxed);
                    return self.taken();
                }
                Err(refusal) => refusal,
            };
            let wait = refusal.again.map(|asked| asked.max(pause));
            let wait = wait.filter(|wait| begun.elapsed() + *wait <= TRIED && !ending.is_cancelled());
            if wait.is_none() {
                lost(count);
            }
            self.refused(&refusal.why);
            let Some(wait) = wait else { return };
            // At the end of the service it is tried once more, at once.
            ending.run_until_cancelled(tokio::time::sleep(wait)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn taken(&mut self) {
        if self.trouble.take().is_some() {
            info!("the collector takes traces again");
        }
    }

    fn refused(&mut self, why: &str) {
        let (now, (_, dropped)) = (Instant::now(), counts());
        let told_at = self.trouble.map(|(at, _)| at);
        if told_at.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
            return;
        }
        let before = self.trouble.map_or(dropped, |(_, before)| before);
        let count = dropped.saturating_sub(before);
        warn!(error = why, count, "the collector does not take traces, will retry; spans are lost meanwhile");
        self.trouble = Some((now, dropped));
    }
}

#[cfg(test)]
mod tests;
