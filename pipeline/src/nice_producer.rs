//! Nice Producer: finds conversations that ended, and puts each on the queue once.
//!
//! ```text
//!   poll ──────┐
//!   webhook ───┴─► dedupe ─► enqueue ─► (claim committed, source told)
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll, StreamExt};
use stages::clients::queue::Queue;
use stages::dedupe::dedupe;
use stages::enqueue::Enqueue;
use stages::flow::{FlowContext, FlowExt};
use stages::source::poll::{self, Poll};
use stages::source::{Found, webhook};
use state::{Inbox, ProcessedLog};

/// What the service needs.
pub(crate) struct NiceProducer {
    /// The poll of completed contacts, unless it is switched off.
    pub(crate) poll: Option<Poll>,
    /// What the webhook receiver has taken, if it is switched on or was.
    pub(crate) inbox: Inbox,
    /// The dedupe's memory.
    pub(crate) processed: ProcessedLog,
    /// How far that memory reaches.
    pub(crate) retention: Duration,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// The machinery.
    pub(crate) context: FlowContext,
}

impl NiceProducer {
    /// Runs until the service drains and everything under way is settled.
    pub(crate) async fn run(self) {
        let context = self.context;
        let mut sources: SelectAll<BoxStream<'static, Found>> = SelectAll::new();
        sources.push(webhook::drain(self.inbox, &context).boxed());
        if let Some(poll) = self.poll {
            sources.push(poll::poll(poll).boxed());
        }

        dedupe(sources, self.processed, self.retention, &context)
            .insist(Enqueue { queue: self.queue, clock: context.clock.clone() }, &context)
            .settle(&context)
            .await;
    }
}
