//! How items pass the stages: one task each from the first stage to the acknowledgement, N items at a time, retry in
//! place, and for each stage a span in the log, and one per attempt in the item's trace.
//!
//! # Contract
//! An item holds its place from the moment at which it is taken from its origin until it is settled. So the stages run
//! one after the other in its own task: nothing lies between them, and a slow stage bounds what is taken.
//!
//! # After a crash
//! The task of an item holds its [`Delivery`]. Whatever dies, the item comes again.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use model::{ContactEvent, System};
use prometheus::IntGauge;
use runtime::{TraceSpan, task, traces::SpanKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span, debug, error, warn};

use super::retry::{Intervals, MAX_RETRY_AFTER};
use super::settle::{finish, settle_done};
use super::traced;
use super::{Again, Delivery, FlowContext, FlowMetrics, Outcome, Stage, StageError};

/// Items, each with its way through the stages so far. Nobody works on them before [`FlowExt::settle`].
pub struct Flow<T>(BoxStream<'static, Journey<T>>);

/// The way of one item through the stages so far.
struct Journey<T> {
    lost: CancellationToken,
    trace: TraceSpan,
    /// None where a stage settled the item.
    work: BoxFuture<'static, Option<Delivery<T>>>,
}

/// Runs stages over a stream of deliveries.
pub trait FlowExt<In: Send + 'static>: Sized {
    /// The flow that the next stage is added to.
    fn into_flow(self) -> Flow<In>;

    /// Runs `stage` over the stream. While a system is away that every call needs, the item waits for it in place and
    /// is worked on again. After another transient error, or when NICE is not ready, it goes back to its origin with a
    /// delay, and holds no worker meanwhile.
    fn through<S: Stage<In>>(self, stage: S, context: &FlowContext) -> Flow<S::Out>
    where
        In: Again,
    {
        let stage = Arc::new(stage);
        self.into_flow().then(S::NAME, context, move |delivery, context| {
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
        self.into_flow().then(S::NAME, context, move |delivery, context| {
            let stage = stage.clone();
            async move { process_insisting(&*stage, delivery, &context).await }
        })
    }

    /// Takes the items, so many at a time, each in a task of its own through all stages, and acknowledges those that
    /// arrive here. When it is dropped, what is under way ends.
    fn settle(self, context: &FlowContext) -> impl Future<Output = ()> + Send {
        let (concurrency, metrics) = (context.concurrency, context.metrics.clone());
        assert!(concurrency > 0, "a flow that works on nothing at a time would stand still without a word");
        let begun = self.into_flow().0.map(move |journey| journey.begin(metrics.clone()));
        begun.buffer_unordered(concurrency).for_each(|ended| {
            if ended.is_err_and(|error| error.is_panic()) {
                error!("the task of an item panicked outside its stages, the item will come again");
            }
            std::future::ready(())
        })
    }
}

impl<T: Send + 'static, S: Stream<Item = Delivery<T>> + Send + 'static> FlowExt<T> for S {
    fn into_flow(self) -> Flow<T> {
        let begins = |delivery: Delivery<T>| Journey {
            lost: delivery.lost(),
            trace: delivery.trace.clone(),
            work: std::future::ready(Some(delivery)).boxed(),
        };
        Flow(self.map(begins).boxed())
    }
}

impl<T: Send + 'static> FlowExt<T> for Flow<T> {
    fn into_flow(self) -> Self {
        self
    }
}

impl<In: Send + 'static> Flow<In> {
    /// Each item passes this stage, too.
    fn then<Out, Work, Working>(self, name: &'static str, context: &FlowContext, work: Work) -> Flow<Out>
    where
        Out: Send + 'static,
        Work: Fn(Delivery<In>, Arc<FlowContext>) -> Working + Send + Sync + 'static,
        Working: Future<Output = Option<Delivery<Out>>> + Send + 'static,
    {
        // One for the stage: an item that had its own would pay for a dozen handles.
        let (context, work) = (Arc::new(context.clone()), Arc::new(work));
        let passes = move |Journey { lost, trace, work: before }: Journey<In>| {
            let (context, work) = (context.clone(), work.clone());
            let next = async move {
                let delivery = before.await?;
                let span = span(name, &delivery);
                let visit = StageVisit::begin(name, &delivery, context.clone());
                visit.spent(|| work(delivery, context)).instrument(span).await
            };
            Journey { lost, trace, work: next.boxed() }
        };
        Flow(self.0.map(passes).boxed())
    }
}

impl<T: Send + 'static> Journey<T> {
    /// Starts the task of the item, so that the work spreads over the cores.
    fn begin(self, metrics: FlowMetrics) -> AbortOnDropHandle<()> {
        let Self { lost, trace, work } = self;
        task::spawn("item", async move {
            let arrived = trace.scope(async move {
                match lost.is_cancelled() {
                    // The first stage tells of it, and does nothing.
                    true => work.await,
                    false => lost.run_until_cancelled(work).await.flatten(),
                }
            });
            let arrived = arrived.await;
            if let Some(delivery) = arrived {
                settle_done(delivery.take().1, "settled", &metrics).await;
            }
        })
    }
}

/// The span of an item at a stage, whole from the start: a field that is added later costs more than all others.
fn span<T>(stage: &'static str, delivery: &Delivery<T>) -> Span {
    let trace_id = delivery.trace.trace_id();
    tracing::info_span!("conversation", conversation.id = %delivery.event.conversation, stage, trace_id)
}

/// An item at a stage. When its origin takes it back, the work is dropped wherever it is: this tells where it was.
struct StageVisit {
    stage: &'static str,
    lost: CancellationToken,
    context: Arc<FlowContext>,
    since: Instant,
    is_over: bool,
}

impl StageVisit {
    fn begin<T>(stage: &'static str, delivery: &Delivery<T>, context: Arc<FlowContext>) -> Self {
        Self { stage, lost: delivery.lost(), context, since: Instant::now(), is_over: false }
    }

    /// Does the work, unless the item was taken back before.
    async fn spent<Out, Working>(mut self, work: impl FnOnce() -> Working) -> Option<Out>
    where
        Working: Future<Output = Option<Out>>,
    {
        if self.lost.is_cancelled() {
            return None;
        }
        let done = work().await;
        self.is_over = true;
        done
    }
}

impl Drop for StageVisit {
    fn drop(&mut self) {
        if !self.is_over && self.lost.is_cancelled() {
            warn!("the queue has taken the item back, its work ends");
            self.context.metrics.stage_finished(self.stage, "handed_back", self.since.elapsed());
        }
    }
}

/// Counts an item as being at a stage until it is dropped, also while it waits there for a system that is away.
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
) -> (Result<Outcome<S::Out>, StageError>, Duration) {
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
    let _in_flight = InFlightCount::of(S::NAME, context);
    loop {
        let spare = item.again();
        let (result, took) = attempt(stage, &delivery.event, item).await;
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
    let _in_flight = InFlightCount::of(S::NAME, context);
    loop {
        let (result, took) = attempt(stage, &delivery.event, item.clone()).await;
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
