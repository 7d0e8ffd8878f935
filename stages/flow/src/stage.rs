//! A stage, and how it is run: its own task, N items at a time, a bounded channel to the next stage, retry, a
//! span per item, metrics, the timeline and dead letters.
//!
//! # After a crash
//! A stage holds its item's [`Delivery`] until the next one has it. Whatever dies, the item comes again.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use futures::{FutureExt, Stream, StreamExt};
use jiff::Timestamp;
use model::{DeadLetter, System, Trouble};
use prometheus::IntGauge;
use runtime::{Clock, crash, task};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, warn};

use super::blame::Verdict;
use super::record::{Ending, RECHECK_GIVEN_UP};
use super::retry::Intervals;
use super::{
    Again, Blame, Deferral, Delivery, FlowMetrics, Freshness, Journal, Outcome, Outside, RetryPolicy, StageError,
};

/// One step from item to item: a struct that holds its clients, and one function.
pub trait Stage<In>: Send + Sync + 'static {
    /// The one name of the stage, in metrics, logs, timeline and dead letters.
    const NAME: &'static str;
    /// The next stage's item.
    type Out: Send + 'static;

    /// Works on one item. May be repeated for the same item at any time, so its effects must be repeatable.
    fn process(&self, item: In) -> impl Future<Output = Result<Outcome<Self::Out>, StageError>> + Send;
}

/// What the machinery needs besides the stage.
#[derive(Clone)]
pub struct FlowContext {
    /// The time.
    pub clock: Clock,
    /// Every metric.
    pub metrics: FlowMetrics,
    /// Takes dead letters and the timeline.
    pub journal: Arc<dyn Journal>,
    /// Delays and deadlines.
    pub retry: RetryPolicy,
    /// How the systems stand that every call needs.
    pub outside: Outside,
    /// What became of other calls lately.
    pub blame: Blame,
    /// The calls that the consumer is working on.
    pub freshness: Freshness,
    /// Items a stage works on at a time.
    pub concurrency: usize,
    /// Set when the service drains: work that is repeated in place ends.
    pub stopping: CancellationToken,
}

impl FlowContext {
    /// A machinery of its own, that knows nothing yet and runs until it is told to stop.
    pub fn new(
        clock: Clock,
        metrics: FlowMetrics,
        journal: Arc<dyn Journal>,
        retry: RetryPolicy,
        concurrency: usize,
    ) -> Self {
        Self {
            outside: Outside::new(clock.clone()),
            blame: Blame::new(metrics.clone()),
            clock,
            metrics,
            journal,
            retry,
            freshness: Freshness::default(),
            concurrency,
            stopping: CancellationToken::new(),
        }
    }
}

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
    Work: Fn(Delivery<In>, FlowContext) -> Working + Send + Sync + 'static,
    Working: Future<Output = Option<Delivery<Out>>> + Send + 'static,
{
    let context = context.clone();
    let concurrency = context.concurrency;
    task::stream(name, concurrency, move |sender| async move {
        let waited = context.metrics.stage_wait.with_label_values(&[name]);
        let work_on = |delivery: Delivery<In>| {
            let span =
                tracing::info_span!("conversation", conversation.id = %delivery.event.conversation, stage = name);
            // A task for each item, so that the work spreads over the cores.
            let (lost, metrics, since) = (delivery.lost(), context.metrics.clone(), Instant::now());
            let working = work(delivery, context.clone());
            let until_lost = async move {
                let finished = lost.run_until_cancelled(working).await;
                if finished.is_none() {
                    warn!("the queue has taken the item back, its work ends");
                    metrics.stage_finished(name, "handed_back", since.elapsed());
                }
                finished.flatten()
            };
            task::spawn(name, until_lost.instrument(span))
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
struct InFlight(IntGauge);

impl InFlight {
    fn of(stage: &str, context: &FlowContext) -> Self {
        let in_flight = context.metrics.stage_in_flight.with_label_values(&[stage]);
        in_flight.inc();
        Self(in_flight)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Works on an item once. A panic is a permanent error of this item; the worker lives on.
async fn attempt<In, S: Stage<In>>(
    stage: &S,
    item: In,
    context: &FlowContext,
) -> (Result<Outcome<S::Out>, StageError>, Duration) {
    let _in_flight = InFlight::of(S::NAME, context);
    let since = Instant::now();
    let result = AssertUnwindSafe(stage.process(item)).catch_unwind().await;
    let result = result.unwrap_or_else(|_| Err(StageError::permanent(format!("{} panicked", S::NAME))));
    (result, since.elapsed())
}

/// How long an item waits in place for a system that is away. A broker ends the delivery of who holds a message for half
/// an hour.
const HELD_IN_PLACE: Duration = Duration::from_secs(600);

/// Where the system answers others, an item is repeated in place so often: it may be the item, after all.
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
        let (result, took) = attempt(stage, item, context).await;
        let failed = match &result {
            Err(StageError::Transient { system, reason, .. }) if system.is_shared() => Some((*system, reason)),
            _ => None,
        };
        let (Some((system, reason)), Some(spare)) = (failed, spare) else {
            return finish::<_, S>(result, took, delivery, context).await;
        };
        context.outside.suspect(system);
        let left = HELD_IN_PLACE.saturating_sub(begun.elapsed());
        if left.is_zero() || (repeated == REPEATED_IN_PLACE && !context.outside.is_away(system)) {
            return finish::<_, S>(result, took, delivery, context).await;
        }
        warn!(%system, reason, "stage failed, waits in place");
        context.metrics.stage_finished(S::NAME, "retry", took);
        if !wait_in_place(system, &mut intervals, left, context).await {
            context.metrics.stage_finished(S::NAME, "handed_back", took);
            return None;
        }
        if !context.outside.is_away(system) {
            repeated += 1;
        }
        item = spare;
    }
}

/// The pause before an attempt in place; false when the service drains. Who waits for a system is woken when it is back.
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
        let (result, took) = attempt(stage, item.clone(), context).await;
        let (outcome, system, reason, retry_after) = match result {
            Err(StageError::Transient { system, reason, retry_after }) => ("retry", system, reason, retry_after),
            Err(StageError::Busy { reason, retry_after }) => ("busy", System::Nice, reason, Some(retry_after)),
            result => return finish::<_, S>(result, took, delivery, context).await,
        };
        context.metrics.stage_finished(S::NAME, outcome, took);
        warn!(%system, reason, "stage failed, will retry");
        let goes_on = match system.is_shared() {
            true => {
                context.outside.suspect(system);
                wait_in_place(system, &mut intervals, HELD_IN_PLACE, context).await
            }
            false => {
                let delay = intervals.next_backoff().unwrap_or(context.retry.error_delay_max);
                let delay = delay.max(retry_after.unwrap_or_default().min(super::retry::MAX_RETRY_AFTER));
                context.stopping.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
            }
        };
        if !goes_on {
            context.metrics.stage_finished(S::NAME, "handed_back", took);
            return None;
        }
    }
}

/// Settles what a stage made of an item, or passes it on.
async fn finish<In, S: Stage<In>>(
    result: Result<Outcome<S::Out>, StageError>,
    took: Duration,
    delivery: Delivery<()>,
    context: &FlowContext,
) -> Option<Delivery<S::Out>> {
    let now = context.clock.now();
    let (key, stage) = (delivery.event.key(), S::NAME);
    let ending = |outcome, detail| Ending { stage, outcome, detail, took };
    match result {
        Ok(Outcome::Next(item)) => {
            context.blame.passed(stage, &key, now);
            context.tell(&delivery.event, ending("ok", None)).await;
            debug!("stage done");
            return Some(delivery.with(item));
        }
        Ok(Outcome::Done(reason)) => {
            context.blame.answered(stage, &key.tenant);
            context.tell(&delivery.event, ending("done", Some(reason))).await;
            context.metrics.conversations_done.with_label_values(&[reason]).inc();
            debug!(reason, "nothing remains to be done");
            settle_done(delivery, reason, &context.metrics).await;
        }
        Err(error @ (StageError::NotReady { reason } | StageError::Unknown { reason })) => {
            context.blame.answered(stage, &key.tenant);
            let deferral = match error {
                StageError::Unknown { .. } => Deferral::Unknown,
                _ => Deferral::NotReady,
            };
            let delay = context.retry.not_ready_delay(&delivery.event);
            context.tell(&delivery.event, ending("not_ready", Some(reason))).await;
            debug!(reason, delay_secs = delay.as_secs_f64(), "not ready yet");
            defer(delivery, deferral, delay, now).await;
        }
        Err(StageError::Early { reason, retry_after }) => {
            context.tell(&delivery.event, ending("not_ready", Some(reason))).await;
            debug!(reason, delay_secs = retry_after.as_secs_f64(), "too early");
            defer(delivery, Deferral::Early, retry_after, now).await;
        }
        Err(StageError::Busy { reason, retry_after }) => {
            context.tell_of_waiting(&delivery.event, stage, &reason, retry_after, took).await;
            debug!(reason, delay_secs = retry_after.as_secs_f64(), "waits for its turn");
            defer(delivery, Deferral::Busy, retry_after, now).await;
        }
        Err(StageError::Transient { system, reason, retry_after }) => {
            let before = delivery.event.troubles.of(stage, system, now);
            let verdict = match context.outside.is_away(system) {
                true => Verdict::System,
                false => context.blame.failed(stage, &key, system, before.map(|trouble| trouble.at), now),
            };
            let trouble = match before {
                Some(before) => before.again(verdict == Verdict::Call, now),
                None => Trouble::first(stage, system, now),
            };
            if context.retry.errors_given_up(&trouble, verdict, now) {
                let reason = format!("gave up after {} attempts: {reason}", trouble.times);
                // What is wrong with the call itself waits for a person.
                let cause = Some(system).filter(|system| *system != System::Call);
                dead_letter(delivery, stage, reason, cause, took, context).await;
                return None;
            }
            let delay = context.retry.error_delay(&trouble, verdict, retry_after);
            context.tell(&delivery.event, ending("retry", Some(&reason))).await;
            let attempt = delivery.event.attempt;
            warn!(%system, reason, attempt, delay_secs = delay.as_secs_f64(), "stage failed, will retry");
            defer(delivery, Deferral::Error(trouble), delay, now).await;
        }
        Err(StageError::Permanent { reason }) => dead_letter(delivery, stage, reason, None, took, context).await,
        Err(StageError::SetAside { system, reason }) => {
            dead_letter(delivery, stage, reason, Some(system), took, context).await;
        }
    }
    None
}

async fn settle_done(delivery: Delivery<()>, why: &str, metrics: &FlowMetrics) {
    if let Err(error) = delivery.ack().await {
        metrics.stage_items.with_label_values(&["dequeue", "handed_back"]).inc();
        warn!(%error, reason = why, "acknowledgement failed, the item will come again");
        return;
    }
    crash::point("message_acked");
}

async fn defer(delivery: Delivery<()>, reason: Deferral, delay: Duration, now: Timestamp) {
    match delivery.defer(reason, delay, now).await {
        Ok(()) => crash::point("message_deferred"),
        Err(error) => warn!(%error, "deferral failed, the item will come again"),
    }
}

/// Sets an item aside with its reason, and the system whose failures were too many, if that is why.
async fn dead_letter(
    delivery: Delivery<()>,
    stage: &'static str,
    reason: String,
    cause: Option<System>,
    took: Duration,
    context: &FlowContext,
) {
    if delivery.event.recheck {
        context.give_recheck_up(&delivery.event, stage, &reason, took).await;
        return settle_done(delivery, RECHECK_GIVEN_UP, &context.metrics).await;
    }
    let mut letter = DeadLetter::of_event(&delivery.event, stage, &reason, context.clock.now());
    if let Some(system) = cause {
        letter = letter.caused_by(system, &delivery.event);
    }
    if let Err(error) = context.shelve(stage, letter).await {
        warn!(%error, reason, "dead letter not written, the item will come again");
        return defer(delivery, Deferral::AsItIs, context.retry.error_delay_max, context.clock.now()).await;
    }
    context.tell(&delivery.event, Ending { stage, outcome: "dead_letter", detail: Some(&reason), took }).await;
    settle_done(delivery, "dead letter", &context.metrics).await;
}

#[cfg(test)]
mod tests;
