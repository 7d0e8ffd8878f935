//! How a lane is called in a trace.

use runtime::{TraceSpan, traces, traces::SpanKind};

/// Where messages go: what kind of broker it is, and the name of the lane there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The kind of broker, by the conventions of OpenTelemetry where they know it.
    pub system: &'static str,
    /// The name of a queue or topic.
    pub name: String,
}

impl Destination {
    /// The span of sending a message, below another one; nothing where that is nothing.
    pub fn sending(&self, trace: &TraceSpan) -> TraceSpan {
        if !traces::is_on() {
            return TraceSpan::default();
        }
        let span = trace.child(format!("send {}", self.name), SpanKind::Producer);
        self.describe(&span, "send");
        span
    }

    /// Says of a span what is done with the message there: `send` or `process`.
    pub fn describe(&self, span: &TraceSpan, operation: &'static str) {
        span.attribute("messaging.system", || self.system);
        span.attribute("messaging.destination.name", || self.name.clone());
        span.attribute("messaging.operation.name", || operation);
        span.attribute("messaging.operation.type", || operation);
    }
}
