//! What another producer of the tenant has found: this one's processed-id log knows nothing of it.
//!
//! In: a found event whose id the log does not know. Out: whether the call needs no message any more, because it came
//! through, was set aside or erased, or is on its way. Asked only of calls that may have ended before this producer's
//! turn, so an ordinary day costs nothing, and a takeover no reading of the whole week.
//!
//! What the other producer put on the queue in its last moments may have no line in the timeline yet: such a call gets
//! a second message, which the consumers see has no effect.

use backoff::backoff::Backoff;
use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use crate::flow::FlowContext;
use crate::model::ContactEvent;
use crate::source::compare::{Compare, Verdict};

/// Our clock and NICE's may differ by so much, and the other producer may have worked on for a moment.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// Says what became of calls that another producer may have found.
#[derive(Clone)]
pub struct Foreign {
    /// Asks the catalog, the timeline and the queue.
    pub compare: Compare,
    /// Until then another producer may have worked.
    pub before: Timestamp,
}

impl Foreign {
    /// Whether another producer may have found it.
    pub(super) fn concerns(&self, event: &ContactEvent) -> bool {
        event.ended_at.is_none_or(|ended_at| ended_at.duration_since(self.before) < MARGIN)
    }

    /// Whether the call needs no message any more. Asks until there is an answer; none when the service drains first.
    pub(super) async fn is_known(&self, event: &ContactEvent, context: &FlowContext) -> Option<bool> {
        let mut intervals = context.retry.intervals();
        loop {
            match self.compare.compare(std::slice::from_ref(event)).await {
                Ok(verdicts) => return Some(!matches!(verdicts.first(), Some(Verdict::Missing { .. }) | None)),
                Err(error) => {
                    let delay = intervals.next_backoff().unwrap_or(context.retry.error_delay_max);
                    warn!(%error, delay_secs = delay.as_secs_f64(), "what another producer found is not known, will retry");
                    context.stopping.run_until_cancelled(tokio::time::sleep(delay)).await?;
                }
            }
        }
    }
}
