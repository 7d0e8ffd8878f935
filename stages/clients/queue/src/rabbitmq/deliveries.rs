//! Deliveries: live before backfill, one suspect at a time, and on through every loss of the connection.
//!
//! A reader's messages come from a [`session`](super::session); when one is over, another begins.
//!
//! While the broker takes no messages, none is taken from it: most would have to be deferred, and could not. What is
//! here waits for a moment and is then handed back, and the flow goes on when the broker says so.
//!
//! Suspects come one at a time, each marked as begun (see [`super::suspects`]). One that a process has died over is
//! worked on alone, so that the next death is not a neighbour's doing.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{info, warn};

use super::amqp::code;
use super::session::{Interrupted, SHORT_TROUBLE, Session};
use super::settle::HeldMessage;
use super::{ANSWER_TIMEOUT, Inner, RabbitError};
use crate::retry::{intervals, pause};
use crate::{QueueDelivery, QueueError};

/// How long a suspect that a process has died over waits for its neighbours to be settled, to be worked on alone.
const ALONE_WITHIN: Duration = Duration::from_secs(60);

/// The deliveries of a queue. `prefetch` is the most that are unsettled at a time.
pub(super) fn deliveries(queue: Arc<Inner>, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
    let reader = DeliveryReader { queue, prefetch, room: Arc::new(Semaphore::new(prefetch)), session: None };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        let delivery = reader.delivery().await;
        let reader = delivery.is_ok().then_some(reader);
        Some((delivery, reader))
    })
    .boxed()
}

struct DeliveryReader {
    queue: Arc<Inner>,
    prefetch: usize,
    room: Arc<Semaphore>,
    session: Option<Session>,
}

impl DeliveryReader {
    /// The next message that may be worked on.
    async fn delivery(&mut self) -> Result<QueueDelivery, QueueError> {
        let room = self.room.clone().acquire_owned().await;
        let mut permit = room.map_err(|_| QueueError("nobody reads any more".to_owned()))?;
        loop {
            // What a suspect that was not begun after all had for itself.
            if let Some(one) = permit.split(1) {
                permit = one;
            }
            let held = self.next().await?;
            let record = held.suspicion().map(|suspicion| suspicion.record);
            if let Some(record) = record.filter(|record| !record.is_over_limit()) {
                if record.deaths > 0 {
                    permit = self.alone(permit).await;
                }
                match held.begin(&self.queue).await {
                    Ok(()) => {}
                    Err(error @ RabbitError::Forbidden { .. }) => {
                        warn!(%error, "a suspect cannot be marked, and will not be given up if it ends processes");
                    }
                    Err(error) => {
                        warn!(%error, "a suspect cannot be marked, it will come again");
                        continue;
                    }
                }
            }
            if held.is_ours() {
                return Ok(held.deliver(self.queue.clone(), permit));
            }
        }
    }

    /// All the room there is, once those who have some are done; or what there was, if they take long.
    async fn alone(&self, mut permit: OwnedSemaphorePermit) -> OwnedSemaphorePermit {
        let others = u32::try_from(self.prefetch.saturating_sub(permit.num_permits())).unwrap_or(u32::MAX);
        if let Ok(Ok(others)) = timeout(ALONE_WITHIN, self.room.clone().acquire_many_owned(others)).await {
            permit.merge(others);
        }
        permit
    }

    /// The next message, through as many sessions as it takes.
    async fn next(&mut self) -> Result<HeldMessage, QueueError> {
        let mut intervals = intervals();
        loop {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => self.open().await?,
            };
            let publishing = self.queue.publisher.link();
            let arrival = tokio::select! {
                biased;
                () = publishing.troubled() => None,
                arrival = session.next() => Some(arrival),
            };
            match arrival {
                Some(Ok(held)) => {
                    self.session = Some(session);
                    return Ok(held);
                }
                Some(Err(Interrupted(reason))) => {
                    warn!(reason, "deliveries interrupted, beginning again");
                    drop(session);
                    pause(&mut intervals).await;
                }
                None => match timeout(SHORT_TROUBLE, publishing.unblocked()).await {
                    Ok(passed) => {
                        passed?;
                        self.session = Some(session);
                    }
                    Err(_) => {
                        info!("no deliveries are taken until the broker takes messages");
                        drop(session);
                    }
                },
            }
        }
    }

    async fn open(&self) -> Result<Session, QueueError> {
        let mut intervals = intervals();
        loop {
            self.queue.publisher.link().unblocked().await?;
            let connection = self.queue.consuming.connection().await?;
            let opening = Session::open(&connection, &self.queue, self.prefetch);
            match timeout(ANSWER_TIMEOUT, opening).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) if code(&error) == Some(404) => {
                    if let Err(error) = self.queue.topology.declare_again(&connection).await {
                        warn!(%error, "nothing declared");
                    }
                }
                Ok(Err(error)) => warn!(%error, "no deliveries, will try again"),
                Err(_) => warn!("no deliveries: the broker does not answer, will try again"),
            }
            pause(&mut intervals).await;
        }
    }
}
