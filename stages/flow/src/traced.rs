//! The spans of an item: of the attempt as a whole, begun where the item is taken, and of each stage below it.
//!
//! A wait between two attempts holds no span open: each attempt has its own, in the one trace of its conversation.

use std::borrow::Cow;
use std::time::SystemTime;

use jiff::Timestamp;
use model::ContactEvent;
use runtime::{TraceSpan, traces, traces::SpanKind};

use super::{Outcome, StageError};

/// Begins the trace of a conversation that was just found.
pub fn found(event: &ContactEvent, now: Timestamp) -> TraceSpan {
    if !traces::is_on() {
        return TraceSpan::default();
    }
    let span = TraceSpan::root(event.key().trace_id(), "source", SpanKind::Internal, SystemTime::from(now));
    span.attribute("source", || event.source.as_str());
    named(span, event)
}

/// Begins the span of an attempt on a message: below the one that sent it, or a trace where nobody has begun one.
pub fn received(event: &ContactEvent, name: impl Into<Cow<'static, str>>, now: Timestamp) -> TraceSpan {
    let (name, sender) = (name.into(), event.traceparent.as_deref());
    let span = sender.and_then(|sender| TraceSpan::below(sender, name.clone(), SpanKind::Consumer));
    let root = || TraceSpan::root(event.key().trace_id(), name, SpanKind::Consumer, SystemTime::from(now));
    let span = span.unwrap_or_else(root);
    span.attribute("attempt", || i64::from(event.attempt));
    named(span, event)
}

fn named(span: TraceSpan, event: &ContactEvent) -> TraceSpan {
    span.attribute("conversation.id", || event.conversation.to_string());
    span.attribute("tenant", || event.tenant.to_string());
    span
}

/// Ends the span of a stage.
pub(super) fn ended<T>(span: &TraceSpan, result: &Result<Outcome<T>, StageError>) {
    match result {
        Ok(Outcome::Next(_)) => {}
        Ok(Outcome::Done(reason)) => done(span, reason),
        Err(error) => failed(span, error),
    }
    span.end();
}

/// Nothing remains to be done.
pub(super) fn done(span: &TraceSpan, reason: &'static str) {
    span.attribute("outcome", || "done");
    span.attribute("reason", || reason);
}

/// A wait is none of the failures.
pub(super) fn failed(span: &TraceSpan, error: &StageError) {
    if !traces::is_on() {
        return;
    }
    let outcome = match error {
        StageError::Transient { system, .. } => {
            span.attribute("system", || system.as_str());
            "retry"
        }
        StageError::Busy { .. } => "busy",
        StageError::Early { .. } | StageError::NotReady { .. } | StageError::Unknown { .. } => "not_ready",
        StageError::SetAside { .. } | StageError::Permanent { .. } => "dead_letter",
    };
    span.attribute("outcome", || outcome);
    match outcome {
        "busy" | "not_ready" => span.attribute("reason", || error.to_string()),
        _ => span.failed(outcome, &error.to_string()),
    }
}
