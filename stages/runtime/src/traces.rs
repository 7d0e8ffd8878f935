//! Traces: spans of OpenTelemetry where a tracer is installed, and nothing at all where none is.
//!
//! A span is a handle that travels with the work: it ends with the last copy of the handle. What a task does within
//! [`TraceSpan::scope`] finds it by [`TraceSpan::current`]. Without a tracer every handle is empty, and each function
//! here returns after one look at a pointer.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::SystemTime;

use futures::future::Either;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{
    FutureExt, SpanBuilder, SpanContext, SpanId, SpanRef, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer,
};
use opentelemetry::{Context, KeyValue, Value};

pub use opentelemetry::trace::SpanKind;

/// What makes spans; set once, at the start of a service that exports them.
static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

thread_local! {
    /// The id that the next trace of this thread gets.
    static WANTED: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// From now on spans are made. Only the first tracer counts.
pub fn install(tracer: BoxedTracer) {
    // A process has one.
    drop(TRACER.set(tracer));
}

/// Whether spans are made in this process.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The id of the trace that begins now, where [`TraceSpan::root`] wants a certain one: for the generator of ids.
pub fn wanted_trace_id() -> Option<TraceId> {
    WANTED.get()
}

/// A handle on a span. The span ends when it is told to, or with its last handle.
#[derive(Debug, Clone, Default)]
pub struct TraceSpan(Option<Context>);

impl TraceSpan {
    /// Begins a trace with this id, which began at `since`.
    pub fn root(id: u128, name: impl Into<Cow<'static, str>>, kind: SpanKind, since: SystemTime) -> Self {
        WANTED.set(Some(TraceId::from(id.max(1))));
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(since);
        let span = Self::begin(builder, &Context::new());
        WANTED.set(None);
        span
    }

    /// Begins a span below one of another process, which its W3C `traceparent` names; none if that is none.
    pub fn below(traceparent: &str, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Option<Self> {
        let remote = parse(traceparent)?;
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        Some(Self::begin(builder, &Context::new().with_remote_span_context(remote)))
    }

    /// Begins a span below this one. An empty one is empty below, too, and one that is not kept stands for all below it:
    /// what nobody will see costs nothing more.
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        match &self.0 {
            Some(parent) if is_kept(parent) => Self::begin(SpanBuilder::from_name(name).with_kind(kind), parent),
            _ => self.clone(),
        }
    }

    /// Begins the span of an HTTP request: below the current one, or a trace of its own. The target is a name of a few,
    /// never a path, for ids and secrets stand there.
    pub fn request(method: &str, target: &str, host: Option<&str>, port: Option<u16>) -> RequestSpan {
        let parent = Context::current();
        if !is_on() || (parent.has_active_span() && !is_kept(&parent)) {
            return RequestSpan(Self(None));
        }
        let mut attributes = vec![KeyValue::new("http.request.method", method.to_owned())];
        attributes.extend(host.map(|host| KeyValue::new("server.address", host.to_owned())));
        attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
        let builder = SpanBuilder::from_name(format!("{method} {target}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes);
        RequestSpan(Self::begin(builder, &parent))
    }

    fn begin(builder: SpanBuilder, parent: &Context) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let span = tracer.build_with_context(builder, parent);
        Self(Some(parent.with_span(span)))
    }

    /// The span within whose [`Self::scope`] the caller is.
    pub fn current() -> Self {
        if !is_on() {
            return Self(None);
        }
        Self(Some(Context::current()).filter(Context::has_active_span))
    }

    fn span(&self) -> Option<SpanRef<'_>> {
        self.0.as_ref().map(TraceContextExt::span)
    }

    /// Adds an attribute, which is made only where there is a span that is kept.
    pub fn attribute<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(span) = self.span().filter(SpanRef::is_recording) {
            span.set_attribute(KeyValue::new(key, value()));
        }
    }

    /// What it is about did not succeed, for this reason; without personal data.
    pub fn failed(&self, kind: impl Into<Cow<'static, str>>, reason: &str) {
        let kind = kind.into();
        self.attribute("error.type", || kind);
        if let Some(span) = self.span() {
            span.set_status(Status::error(reason.to_owned()));
        }
    }

    /// Ends it, whoever else has a handle.
    pub fn end(&self) {
        if let Some(span) = self.span() {
            span.end();
        }
    }

    /// Does the work within it: [`Self::current`] finds it there, and what is requested there stands below it.
    pub fn scope<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }

    /// The W3C `traceparent` that makes others' spans stand below it.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.span()?.span_context().clone();
        let flags = context.trace_flags().to_u8();
        Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    /// The id of its trace, where the trace is kept.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.span()?.span_context().clone();
        context.is_sampled().then(|| context.trace_id().to_string())
    }
}

/// Whether the span of a context is one that is exported.
fn is_kept(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

/// The span of one request. Where it is dropped before an answer came, nobody waited any longer.
#[derive(Debug)]
#[must_use = "what it says of the request is how it ended"]
pub struct RequestSpan(TraceSpan);

impl RequestSpan {
    /// No span: of a request that is none of a conversation's, and of which there are many.
    pub fn none() -> Self {
        Self(TraceSpan::default())
    }

    /// The status of the answer.
    pub fn answered(mut self, status: u16) {
        let span = std::mem::take(&mut self.0);
        span.attribute("http.response.status_code", || i64::from(status));
        if status >= 400 {
            span.failed(status.to_string(), "");
        }
    }

    /// There is no answer, for a reason in a word.
    pub fn failed(mut self, word: &'static str) {
        std::mem::take(&mut self.0).failed(word, "");
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        self.0.failed("timeout", "");
    }
}

/// Reads a W3C `traceparent`, of any version: what later ones add stands behind the four parts.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let fits = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !fits || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8());
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_w3c_says() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = parse(good).expect("it is one");
        assert!(read.is_sampled() && read.is_remote());
        assert_eq!(read.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(read.span_id().to_string(), "b7ad6b7169203331");
        assert!(!parse(&good.replace("-01", "-fe")).expect("other flags are for others").is_sampled());
        assert!(parse(&format!("cc{}-more", &good[2..])).is_some(), "a later version");
        for wrong in [
            "",
            "00",
            &good[..54],
            &format!("{good}-more"),
            &good.replace("00-", "ff-"),
            &good.to_uppercase(),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &good.replace("b7ad", "+7ad"),
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn without_a_tracer_there_is_nothing() {
        let span = TraceSpan::root(7, "source", SpanKind::Internal, SystemTime::UNIX_EPOCH);
        assert!(span.traceparent().is_none() && span.trace_id().is_none());
        span.attribute("never", || -> String { panic!("it is not made") });
        let found = span.scope(async { TraceSpan::current().traceparent() }).await;
        assert_eq!(found, None);
        TraceSpan::request("GET", "token", None, None).answered(200);
        assert!(!is_on());
    }
}
