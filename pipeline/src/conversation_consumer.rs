//! Conversation Consumer: takes conversations off the queue and makes each ready for analysis.
//!
//! ```text
//!   queue ─► dequeue ─► await recording ─► fetch metadata ─► download recording ─► persist ─► upload ─► ready, ack
//! ```

use std::sync::Arc;

use flow::{FairShare, FlowContext, FlowExt};
use queue::{Queue, QueueError};
use recordings::RecordingStore;
use stages::{
    Context,
    await_recording::AwaitRecording,
    dequeue::{SkipFinal, dequeue},
    download_recording::DownloadRecording,
    fetch_metadata::FetchMetadata,
    persist::Persist,
    readiness::RecordingDelays,
    tenants::Tenants,
    upload::Upload,
};

use crate::config::Config;
use crate::doors;
use crate::doors::OpenDoors;

/// What the service needs.
pub(crate) struct ConversationConsumer {
    /// The way to every tenant's NICE.
    pub(crate) tenants: Arc<Tenants>,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// The recording store.
    pub(crate) recordings: Arc<dyn RecordingStore>,
    /// When a call's recording is likely there.
    pub(crate) readiness: RecordingDelays,
    /// The machinery.
    pub(crate) context: Context,
}

impl ConversationConsumer {
    /// The consumer on opened doors; none where the process has no recording store.
    pub(crate) fn new(config: &Config, doors: &OpenDoors, context: &Context) -> Option<Self> {
        let (catalog, clock) = (doors.shared.catalog.clone(), doors.clock.clone());
        Some(Self {
            tenants: doors.nice.consumer.clone(),
            queue: doors.shared.queue.clone(),
            recordings: doors.shared.recordings.clone()?,
            readiness: RecordingDelays::new(doors::first_look(config), catalog, clock, doors.metrics.clone()),
            context: context.clone(),
        })
    }

    /// Runs until the service drains and everything under way is settled. `failed` learns of an error that ends
    /// the queue.
    pub(crate) async fn run(self, failed: impl Fn(QueueError) + Send + 'static) {
        let Self { tenants, queue, recordings, readiness, context } = self;
        let catalog = context.catalog.clone();
        let (retry, clock) = (context.flow.retry.clone(), context.flow.clock.clone());

        let skip_final = SkipFinal {
            tenants,
            catalog: catalog.clone(),
            blame: context.flow.blame.clone(),
            retry: retry.clone(),
            clock: clock.clone(),
        };
        let await_recording = AwaitRecording { readiness: readiness.clone() };
        let fetch_metadata = FetchMetadata {
            agents: catalog.clone(),
            conversations: catalog.clone(),
            retry: retry.clone(),
            clock: clock.clone(),
        };
        let download_recording = DownloadRecording {
            agents: catalog.clone(),
            conversations: catalog.clone(),
            retry,
            readiness: readiness.clone(),
            metrics: context.metrics.clone(),
        };
        let persist = Persist { catalog: catalog.clone() };
        let upload = Upload { store: recordings, catalog, clock, metrics: context.metrics.clone() };

        let share = FairShare::new(context.flow.concurrency);
        let dequeued = dequeue(&*queue, &share, &context, failed);
        // Of several tenants more calls are under way than of one.
        let flow = FlowContext { concurrency: FairShare::all(context.flow.concurrency), ..context.flow };
        dequeued
            .through(skip_final, &flow)
            .through(await_recording, &flow)
            .through(fetch_metadata, &flow)
            .through(download_recording, &flow)
            .through(persist, &flow)
            .through(upload, &flow)
            .settle(&flow)
            .await;
        readiness.flush().await;
    }
}
