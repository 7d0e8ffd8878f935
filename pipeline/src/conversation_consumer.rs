//! Conversation Consumer: takes conversations off the queue and makes each ready for analysis.
//!
//! ```text
//!   queue ─► dequeue ─► await recording ─► fetch metadata ─► download recording ─► persist ─► upload ─► ready, ack
//! ```

use std::sync::Arc;

use stages::await_recording::AwaitRecording;
use stages::clients::queue::{Queue, QueueError};
use stages::clients::recording_store::RecordingStore;
use stages::clients::tenants::Tenants;
use stages::dequeue::{SkipFinal, dequeue};
use stages::download_recording::DownloadRecording;
use stages::fetch_metadata::FetchMetadata;
use stages::flow::{FairShare, FlowContext, FlowExt, Readiness};
use stages::persist::Persist;
use stages::upload::Upload;

use crate::config::Config;
use crate::doors::{self, Doors};

/// What the service needs.
pub(crate) struct ConversationConsumer {
    /// The way to every tenant's NICE.
    pub(crate) tenants: Arc<Tenants>,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// The recording store.
    pub(crate) recordings: Arc<dyn RecordingStore>,
    /// When a call's recording is likely there.
    pub(crate) readiness: Readiness,
    /// The machinery.
    pub(crate) context: FlowContext,
}

impl ConversationConsumer {
    /// The consumer on opened doors; none where the process has no recording store.
    pub(crate) fn new(config: &Config, doors: &Doors, context: &FlowContext) -> Option<Self> {
        let (catalog, clock) = (doors.catalog.clone(), doors.clock.clone());
        Some(Self {
            tenants: doors.nice.consumer.clone(),
            queue: doors.queue.clone(),
            recordings: doors.recordings.clone()?,
            readiness: Readiness::new(doors::first_look(config), catalog, clock, doors.metrics.clone()),
            context: context.clone(),
        })
    }

    /// Runs until the service drains and everything under way is settled. `failed` learns of an error that ends
    /// the queue.
    pub(crate) async fn run(self, failed: impl Fn(QueueError) + Send + 'static) {
        let Self { tenants, queue, recordings, readiness, context } = self;
        let catalog = context.catalog.clone();
        let (retry, clock) = (context.retry.clone(), context.clock.clone());

        let skip_final = SkipFinal {
            tenants: tenants.clone(),
            catalog: catalog.clone(),
            blame: context.blame.clone(),
            retry: retry.clone(),
            clock: clock.clone(),
        };
        let await_recording = AwaitRecording { readiness: readiness.clone() };
        let fetch_metadata = FetchMetadata {
            tenants: tenants.clone(),
            catalog: catalog.clone(),
            retry: retry.clone(),
            clock: clock.clone(),
        };
        let download_recording = DownloadRecording {
            tenants,
            catalog: catalog.clone(),
            retry,
            readiness: readiness.clone(),
            metrics: context.metrics.clone(),
        };
        let persist = Persist { catalog: catalog.clone() };
        let upload = Upload { store: recordings, catalog, clock, metrics: context.metrics.clone() };

        let share = FairShare::new(context.concurrency);
        let dequeued = dequeue(&*queue, &share, &context, failed);
        // Of several tenants more calls are under way than of one.
        let context = FlowContext { concurrency: FairShare::all(context.concurrency), ..context };
        dequeued
            .through(skip_final, &context)
            .through(await_recording, &context)
            .through(fetch_metadata, &context)
            .through(download_recording, &context)
            .through(persist, &context)
            .through(upload, &context)
            .settle(&context)
            .await;
        readiness.flush().await;
    }
}
