//! How a stage is run: its own task, N items at a time, a bounded channel to the next stage, retry in place, a span
//! per item in the log, and one per attempt in its trace.
//!
//! # After a crash
//! A stage holds its item's [`Delivery`] until the next one has it. Whatever dies, the item comes again.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use futures::{FutureExt, Stream, StreamExt};
use model::{ContactEvent, System};
use prometheus::IntGauge;
use runtime::{TraceSpan, task, traces::SpanKind};
use tokio::time::Instant;
use tracing::{Instrument, debug, warn};

use super::retry::{Intervals, MAX_RETRY_AFTER};
use super::settle::{finish, settle_done};
use super::traced;
use super::{Again, Delivery, FlowContext, Outcome, Stage, StageError};

/// A stream of deliveries that ends its tasks when it is dropped.
pub type Flow<T> = futures::stream::BoxStream<'static, Delivery<T>>;

/// Runs stages over a stream of deliveries.
pub trait FlowExt<In: Send + 'static>: Stream<Item = Delivery<In>> + Sized + Send + 'static {
    /// Runs `stage` over the stream. While a system is away that every call needs, the item waits for it in place and
    /// is worked on again. After another transient error, or when NICE is not ready, it goes back to its origin with a
    /// delay, and holds no worker meanwhile.
    fn through<S: Stage<In>>(self, stage: S, context: &FlowContext) -> Flow<S::Out>
    where
        In: Again,
    {
        let stage = Arc::new(stage);
        run(self, S::NAME, context, move |delivery, context| {
            let stage = stage.clone();
            async move { process_once(&*stage, delivery, &context).await }
        })
    }

    /// Runs `stage` over the stream. After a transient error the item is repeated in place until it succeeds or
    /// the service drains: for work that everything else waits for.
    fn insist<S: Stage<In>>(self, stage: S, context: &FlowContext) -> Flow<S::Out>
    where
        In: Clone + Sync,
    {
        let stage = Arc::new(stage);
        run(self, S::NAME, context, move |delivery, context| {
            let stage = stage.clone();
            async move { process_insisting(&*stage, delivery, &context).await }
        })
    }

    /// Ends the flow: acknowledges every item that arrives here.
    fn settle(self, context: &FlowContext) -> impl Future<Output = ()> + Send {
        let metrics = context.metrics.clone();
        self.for_each_concurrent(context.concurrency, move |delivery| {
            let metrics = metrics.clone();
            async move {
                settle_done(delivery.take().1, "settled", &metrics).await;
            }
        })
    }
}

impl<In: Send + 'static, S: Stream<Item = Delivery<In>> + Sized + Send + 'static> FlowExt<In> for S {}

/// Starts the task of a stage. Its channel holds as many items as the stage works on at a time, so that a slow
/// next stage stops this one soon.
fn run<In, Out, Work, Working>(
    items: impl Stream<Item = Delivery<In>> + Send + 'static,
    name: &'static str,
    context: &FlowContext,
    work: Work,
) -> Flow<Out>
where
    In: Send + 'static,
    Out: Send + 'static,
    Work: Fn(Delivery<In>, Arc<FlowContext>) -> Working + Send + Sync + 'static,
    Working: Future<Output = Option<Delivery<Out>>> + Send + 'static,
{
    // One for the stage: an item that had its own would pay for a dozen handles.
    let context = Arc::new(context.clone());
    let concurrency = context.concurrency;
    task::stream(name, concurrency, move |sender| async move {
        let waited = context.metrics.stage_wait.with_label_values(&[name]);
        let work_on = |delivery: Delivery<In>| {
            let (event, trace) = (&delivery.event, delivery.trace.clone());
            let trace_id = tracing::field::Empty;
            let span =
                tracing::info_span!("conversation", conversation.id = %event.conversation, stage = name, trace_id);
            if let Some(id) = trace.trace_id() {
                span.record("trace_id", id);
            }
            // A task for each item, so that the work spreads over the cores.
            let (lost, since) = (delivery.lost(), Instant::now());
            let working = work(delivery, context.clone());
            let context = context.clone();
            let until_lost = async move {
                let finished = lost.run_until_cancelled(working).await;
                if finished.is_none() {
                    warn!("the queue has taken the item back, its work ends");
                    context.metrics.stage_finished(name, "handed_back", since.elapsed());
                }
                finished.flatten()
            };
            task::spawn(name, trace.scope(until_lost).instrument(span))
        };
        let mut finished = std::pin::pin!(items.map(work_on).buffer_unordered(concurrency));
        while let Some(outcome) = finished.next().await {
            let Ok(Some(delivery)) = outcome else { continue };
            let since = Instant::now();
            if sender.send(delivery).await.is_err() {
                break;
            }
            waited.inc_by(since.elapsed().as_secs_f64());
        }
    })
    .boxed()
}

/// Counts an item as worked on until it is dropped.
struct InFlightCount(IntGauge);

impl InFlightCount {
    fn of(stage: &str, context: &FlowContext) -> Self {
        let in_flight = context.metrics.stage_in_flight.with_label_values(&[stage]);
        in_flight.inc();
        Self(in_flight)
    }
}

impl Drop for InFlightCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Works on an item once. A panic is a permanent error of this item; the worker lives on.
async fn attempt<In, S: Stage<In>>(
    stage: &S,
    event: &ContactEvent,
    item: In,
    context: &FlowContext,
) -> (Result<Outcome<S::Out>, StageError>, Duration) {
    let _in_flight = InFlightCount::of(S::NAME, context);
    let (since, span) = (Instant::now(), TraceSpan::current().child(S::NAME, SpanKind::Internal));
    let result = span.scope(AssertUnwindSafe(stage.process(event, item)).catch_unwind()).await;
    let result = result.unwrap_or_else(|_| Err(StageError::permanent(format!("{} panicked", S::NAME))));
    traced::ended(&span, &result);
    (result, since.elapsed())
}

/// How long an item waits in place for a system that is down. A broker takes back a message that is held for half an
/// hour.
const HELD_IN_PLACE: Duration = Duration::from_secs(600);

/// How many times an item is repeated in place while the system answers others: the item itself may be the reason.
const REPEATED_IN_PLACE: u32 = 2;

/// Between two attempts in place there are never more than so many seconds, where the system answers others.
const LONGEST_IN_PLACE: Duration = Duration::from_secs(10);

async fn process_once<In: Again, S: Stage<In>>(
    stage: &S,
    delivery: Delivery<In>,
    context: &FlowContext,
) -> Option<Delivery<S::Out>> {
    let (mut item, delivery) = delivery.take();
    let (begun, mut repeated, mut intervals) = (Instant::now(), 0, context.retry.intervals());
    loop {
        let spare = item.again();
        let (result, took) = attempt(stage, &delivery.event, item, context).await;
        let failed = match &result {
            Err(StageError::Transient { system, reason, .. }) if system.is_shared() => Some((*system, reason)),
            _ => None,
        };
        let (Some((system, reason)), Some(spare)) = (failed, spare) else {
            return finish(S::NAME, result, took, delivery, context).await;
        };
        context.outside.failed(system, reason);
        let left = HELD_IN_PLACE.saturating_sub(begun.elapsed());
        if left.is_zero() || (repeated == REPEATED_IN_PLACE && !context.outside.is_down(system)) {
            return finish(S::NAME, result, took, delivery, context).await;
        }
        debug!(%system, reason, "stage failed, waits in place");
        context.metrics.stage_finished(S::NAME, "retry", took);
        if !wait_in_place(system, &mut intervals, left, context).await {
            context.metrics.stage_finished(S::NAME, "handed_back", took);
            return None;
        }
        if !context.outside.is_down(system) {
            repeated += 1;
        }
        item = spare;
    }
}

/// The pause before an attempt in place; false when the service drains. Who waits for a system is woken when it is
/// back.
async fn wait_in_place(system: System, intervals: &mut Intervals, patience: Duration, context: &FlowContext) -> bool {
    let delay = intervals.next_backoff().unwrap_or(LONGEST_IN_PLACE).min(LONGEST_IN_PLACE);
    context.stopping.run_until_cancelled(context.outside.pause(system, delay, patience)).await.is_some()
}

async fn process_insisting<In: Clone, S: Stage<In>>(
    stage: &S,
    delivery: Delivery<In>,
    context: &FlowContext,
) -> Option<Delivery<S::Out>> {
    let (item, delivery) = delivery.take();
    let mut intervals = context.retry.intervals();
    loop {
        let (result, took) = attempt(stage, &delivery.event, item.clone(), context).await;
        let (outcome, system, reason, retry_after) = match result {
            Err(StageError::Transient { system, reason, retry_after }) => ("retry", system, reason, retry_after),
            Err(StageError::Busy { reason, retry_after, .. }) => ("busy", System::Nice, reason, Some(retry_after)),
            result => return finish(S::NAME, result, took, delivery, context).await,
        };
        context.metrics.stage_finished(S::NAME, outcome, took);
        debug!(%system, reason, "stage failed, will retry");
        let goes_on = match system.is_shared() {
            true => {
                context.outside.failed(system, &reason);
                wait_in_place(system, &mut intervals, HELD_IN_PLACE, context).await
            }
            false => {
                let delay = intervals.next_backoff().unwrap_or(context.retry.error_delay_max);
                let delay = delay.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
                context.stopping.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
            }
        };
        if !goes_on {
            context.metrics.stage_finished(S::NAME, "handed_back", took);
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
