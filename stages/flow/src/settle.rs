//! What becomes of an item that a stage has worked on: it passes on, is acknowledged, comes again later, or is set
//! aside.

use std::time::Duration;

use jiff::Timestamp;
use model::{DeadLetter, System, Trouble};
use runtime::crash;
use tracing::{debug, warn};

use super::blame::{Failure, Fault};
use super::record::{Ending, RECHECK_GIVEN_UP};
use super::traced;
use super::{Deferral, Delivery, FlowContext, FlowMetrics, Outcome, StageError};

/// Of a call that has no recording, for good.
const NO_RECORDING: &str = "no_recording";

/// Passes on what a stage made of an item, or settles it.
pub(super) async fn finish<Out>(
    stage: &'static str,
    result: Result<Outcome<Out>, StageError>,
    took: Duration,
    delivery: Delivery,
    context: &FlowContext,
) -> Option<Delivery<Out>> {
    match result {
        Ok(Outcome::Next(item)) => {
            context.blame.passed(stage, &delivery.event.key(), context.clock.now());
            context.tell(&delivery.event, Ending { stage, outcome: "ok", detail: None, took }).await;
            debug!("stage done");
            Some(delivery.with(item))
        }
        Ok(Outcome::Done(reason)) => {
            traced::done(&delivery.trace, reason);
            settle(stage, Ok(reason), took, delivery, context).await;
            None
        }
        Err(error) => {
            traced::failed(&delivery.trace, &error);
            settle(stage, Err(error), took, delivery, context).await;
            None
        }
    }
}

/// Settles an item of which nothing is passed on: why nothing remains to be done, or what failed.
async fn settle(
    stage: &'static str,
    result: Result<&'static str, StageError>,
    took: Duration,
    delivery: Delivery,
    context: &FlowContext,
) {
    let now = context.clock.now();
    let key = delivery.event.key();
    let ending = |outcome, detail| Ending { stage, outcome, detail, took };
    match result {
        Ok(reason) => {
            context.blame.answered(stage, &key.tenant);
            context.tell(&delivery.event, ending("done", Some(reason))).await;
            context.metrics.conversations_done.with_label_values(&[reason]).inc();
            if reason == NO_RECORDING {
                context.metrics.call_finished(key.tenant.as_str(), reason);
            }
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
        Err(StageError::Busy { reason, waits_for, retry_after }) => {
            context.tell_of_waiting(&delivery.event, stage, &reason, retry_after, took).await;
            debug!(reason, delay_secs = retry_after.as_secs_f64(), "waits for its turn");
            defer(delivery, Deferral::Busy(waits_for), retry_after, now).await;
        }
        Err(StageError::Transient { system, reason, retry_after }) => {
            let before = delivery.event.troubles.of(stage, system, now);
            let fault = match context.outside.is_down(system) {
                true => Fault::System,
                false => {
                    let failure = Failure { system, reason: &reason, before: before.map(|trouble| trouble.at) };
                    context.blame.failed(stage, &key, failure, now)
                }
            };
            let trouble = match before {
                Some(before) => before.again(fault == Fault::Call, now),
                None => Trouble::first(stage, system, now),
            };
            if context.retry.errors_given_up(&trouble, fault, now) {
                let reason = format!("gave up after {} attempts: {reason}", trouble.times);
                // What is wrong with the call itself waits for a person.
                let cause = Some(system).filter(|system| *system != System::Call);
                return dead_letter(delivery, stage, reason, cause, took, context).await;
            }
            let delay = context.retry.error_delay(&trouble, fault, retry_after);
            context.tell(&delivery.event, ending("retry", Some(&reason))).await;
            let attempt = delivery.event.attempt;
            // Of a system that fails for all, one line a minute tells; what fails for one call is said of that call.
            match system {
                System::Call => {
                    warn!(%system, reason, attempt, delay_secs = delay.as_secs_f64(), "stage failed, will retry");
                }
                _ => debug!(%system, reason, attempt, delay_secs = delay.as_secs_f64(), "stage failed, will retry"),
            }
            defer(delivery, Deferral::Error(trouble), delay, now).await;
        }
        Err(StageError::Permanent { reason }) => dead_letter(delivery, stage, reason, None, took, context).await,
        Err(StageError::SetAside { system, reason }) => {
            dead_letter(delivery, stage, reason, Some(system), took, context).await;
        }
    }
}

pub(super) async fn settle_done(delivery: Delivery, why: &str, metrics: &FlowMetrics) {
    if let Err(error) = delivery.ack().await {
        metrics.stage_items.with_label_values(&["dequeue", "handed_back"]).inc();
        warn!(%error, reason = why, "acknowledgement failed, the item will come again");
        return;
    }
    crash::point("message_acked");
}

async fn defer(delivery: Delivery, reason: Deferral, delay: Duration, now: Timestamp) {
    match delivery.defer(reason, delay, now).await {
        Ok(()) => crash::point("message_deferred"),
        Err(error) => warn!(%error, "deferral failed, the item will come again"),
    }
}

/// Sets an item aside with its reason, and the system whose failures were too many, if that is why.
async fn dead_letter(
    delivery: Delivery,
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
