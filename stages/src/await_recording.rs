//! Stage 5, await recording: lets a conversation pass once its recording is likely there.
//!
//! # Contract
//! NICE is not asked before the time that the calls before this one took ([`RecordingDelays`]), so that most are asked
//! for once. The message waits meanwhile and holds no worker; neither an attempt nor a look is counted. A call that
//! ended long ago passes at once, and so does a recheck. No call waits longer than the learned delay; after a look that
//! found nothing it waits at most a tenth of that. A few are looked at early, for it may have become shorter.

use std::sync::Arc;

use flow::{Outcome, Stage, StageError};
use model::ContactEvent;

use crate::readiness::RecordingDelays;
use crate::tenants::Tenant;

/// Holds back what comes too early.
pub struct AwaitRecording {
    /// Knows when.
    pub readiness: RecordingDelays,
}

impl Stage<Arc<Tenant>> for AwaitRecording {
    const NAME: &'static str = "await_recording";
    type Out = Arc<Tenant>;

    async fn process(&self, event: &ContactEvent, tenant: Arc<Tenant>) -> Result<Outcome<Arc<Tenant>>, StageError> {
        if event.recheck {
            return Ok(Outcome::Next(tenant));
        }
        match self.readiness.wait(event).await {
            None => Ok(Outcome::Next(tenant)),
            Some(retry_after) => {
                Err(StageError::Early { reason: "the recording is not likely there yet", retry_after })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flow::{
        FlowExt,
        testing::{Fate, Fates, event},
    };
    use futures::stream;
    use jiff::SignedDuration;

    use super::*;
    use crate::readiness::Bounds;
    use crate::source::test_nice::settings_of;
    use crate::tenants::Tenants;
    use crate::testing::TestFlow;

    #[tokio::test]
    async fn what_comes_too_early_goes_back_to_the_queue_and_what_is_due_passes() {
        let flow = TestFlow::new(4);
        let context = &flow.context;
        // The guess is what counts before anything is learned.
        let bounds = Bounds { share: 0.99, guess: Duration::from_secs(1800), longest: Duration::from_secs(24 * 3600) };
        let (catalog, clock) = (context.catalog.clone(), context.flow.clock.clone());
        let readiness = RecordingDelays::new(bounds, catalog, clock, context.metrics.clone());
        let (mut early, mut due) = (event(1), event(2));
        let now = context.flow.clock.now();
        (early.ended_at, early.queued_at) = (Some(now - SignedDuration::from_secs(60)), Some(now));
        (due.ended_at, due.queued_at) = (Some(now - SignedDuration::from_secs(1800)), Some(now));
        let fates = Fates::default();
        let settings = Arc::new(settings_of("http://127.0.0.1:1".parse().unwrap()));
        let tenants = Tenants::new(settings, Arc::new(|_| Arc::new(model::Unmetered)), context.metrics.clone());
        let tenant = tenants.get(&early.tenant).await.unwrap();
        let deliveries = [&early, &due].map(|event| flow.delivery(&fates, event.clone()).with(tenant.clone()));
        let stage = AwaitRecording { readiness };
        stream::iter(deliveries).through(stage, &context.flow).settle(&context.flow).await;
        let mut fates = fates.all();
        fates.sort_by_key(|(id, _)| *id);
        let delay = Duration::from_secs(1740);
        let waits = ContactEvent {
            busy_secs: 1740,
            deferrals: 1,
            awaited_millis: 1_740_000,
            due_at: Some(now + delay),
            ..early
        };
        assert_eq!(fates, [(1, Fate::Deferred { event: waits, delay }), (2, Fate::Acked { shelved: 0 })]);
        assert_eq!(flow.finished("await_recording", "not_ready"), 1);
    }
}
