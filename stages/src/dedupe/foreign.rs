//! What another producer of the tenant has found: this one's processed-id log knows nothing of it.
//!
//! In: found events. Out: the same, each with whether its call needs no message any more: because it came through, was
//! set aside or erased, or is on its way. Asked only of calls that may have ended before this producer's turn and that
//! the log does not know, many at a time. So an ordinary day costs nothing, and a takeover no reading of a whole week.
//!
//! What the other producer put on the queue in its last moments may have no line in the timeline yet: such a call gets
//! a second message, which the consumers see has no effect.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, ContactId};
use state::ProcessedLog;

use crate::Context;
use crate::source::FoundEvent;
use crate::source::compare::Compare;

/// Events that are asked of at a time, at most.
const TOGETHER: usize = 256;

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
    /// Says of each event whether its call needs no message any more.
    pub(super) fn told(
        self,
        found: impl Stream<Item = FoundEvent> + Send + 'static,
        processed: ProcessedLog,
        context: Context,
    ) -> impl Stream<Item = (FoundEvent, bool)> + Send + 'static {
        let asking = Arc::new((self, processed, context));
        let together = found.ready_chunks(TOGETHER).then(move |found| {
            let asking = asking.clone();
            async move { asking.0.tell(found, &asking.1, &asking.2).await }
        });
        together.flat_map(stream::iter)
    }

    /// The same of some events. Asks until there is an answer; when the service drains first, they are handed back.
    async fn tell(
        &self,
        found: Vec<FoundEvent>,
        processed: &ProcessedLog,
        context: &Context,
    ) -> Vec<(FoundEvent, bool)> {
        let unknown = found.iter().filter(|found| self.concerns(found) && !is_in(processed, &found.event));
        let unknown: Vec<ContactEvent> = unknown.map(|found| found.event.clone()).collect();
        let Some(known) = self.known(&unknown, context).await else { return Vec::new() };
        let tell = |found: FoundEvent| {
            let is_known = self.concerns(&found) && known.contains(&found.event.conversation);
            (found, is_known)
        };
        found.into_iter().map(tell).collect()
    }

    /// Whether another producer may have found it. A replay has asked a moment ago.
    fn concerns(&self, found: &FoundEvent) -> bool {
        let is_old = |ended_at: Timestamp| ended_at.duration_since(self.before) < MARGIN;
        !super::is_replay(&found.event) && found.event.ended_at.is_none_or(is_old)
    }

    /// Those of these events whose calls need no message any more.
    async fn known(&self, events: &[ContactEvent], context: &Context) -> Option<HashSet<ContactId>> {
        let failed = "what another producer found is not known";
        let statuses = context.flow.insist(failed, || self.compare.compare(events)).await?;
        let known = events.iter().zip(statuses).filter(|(_, status)| !status.needs_a_message());
        Some(known.map(|(event, _)| event.conversation).collect())
    }
}

fn is_in(processed: &ProcessedLog, event: &ContactEvent) -> bool {
    processed.contains(&event.key().digest())
}
