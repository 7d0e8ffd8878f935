//! Publishes that await their own confirm.
//!
//! A channel carries one message at a time. The library tells which message a confirm or a returned message belongs
//! to by counting, and with several in flight on a channel it may take one for another: a message that no queue took
//! would then count as stored. So there are as many channels as messages in flight, opened when first needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use model::Lane;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::amqp::code;
use super::connection::Link;
use super::topology::{PublishRoute, Topology};
use crate::QueueError;

/// Messages in flight: enough that the quorum's disk syncs are shared by many, few enough that the channels cost the
/// broker little.
const IN_FLIGHT: usize = 64;

/// How long a publish may take, with the wait for a connection. The caller repeats it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Written to disk before it is confirmed.
const PERSISTENT: u8 = 2;

/// Publishes messages, and waits for the confirm of each.
pub(super) struct Publisher {
    link: Link,
    topology: Arc<Topology>,
    slots: Semaphore,
    /// Channels with nothing in flight; at most as many as slots.
    idle: Mutex<Vec<Channel>>,
}

impl Publisher {
    /// A publisher over a connection of its own.
    pub(super) fn new(link: Link, topology: Arc<Topology>) -> Self {
        Self { link, topology, slots: Semaphore::new(IN_FLIGHT), idle: Mutex::default() }
    }

    /// The connection.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Puts a message on a lane after a delay. An error after the message was sent leaves open whether it is stored.
    pub(super) async fn publish(&self, lane: Lane, body: &[u8], delay: Duration) -> Result<(), QueueError> {
        self.publish_until(lane, body, delay, Instant::now() + PUBLISH_TIMEOUT).await
    }

    /// The same, and a message that was sent is waited for until a later moment: one that a broker short of memory
    /// has not read yet is stored when that is over, and another beside it would be a second one.
    pub(super) async fn publish_until(
        &self,
        lane: Lane,
        body: &[u8],
        delay: Duration,
        confirmed_by: Instant,
    ) -> Result<(), QueueError> {
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let confirmed_by = confirmed_by.max(deadline);
        let route = self.topology.route(lane, delay);
        let Ok(_slot) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(self.not_sent());
        };
        let channel = timeout_at(deadline, self.channel()).await.map_err(|_| self.not_sent())??;
        // A channel whose publish ends in any other way than by its confirm is dropped, and with it closed.
        let confirmation = match timeout_at(confirmed_by, send(&channel, route, body)).await {
            Ok(Ok(confirmation)) => confirmation,
            Ok(Err(error)) => {
                if code(&error) == Some(404) {
                    self.declare_again(deadline).await;
                }
                return Err(QueueError(format!("publish failed, it is unknown whether it is stored: {error}")));
            }
            Err(_) => return Err(self.not_confirmed()),
        };
        self.idle().push(channel);
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                self.declare_again(deadline).await;
                Err(QueueError("no queue took the message: what is missing is declared again".to_owned()))
            }
            Confirmation::Nack(None) => Err(QueueError("the broker refused the message: the queue is full".to_owned())),
            Confirmation::NotRequested => Err(QueueError("the broker gives no confirms".to_owned())),
        }
    }

    /// A channel with nothing in flight, on the present connection.
    async fn channel(&self) -> Result<Channel, QueueError> {
        let connection = self.link.unblocked().await?;
        while let Some(channel) = self.take_idle() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let opened = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>(channel)
        };
        opened.await.map_err(|error| QueueError(format!("not published: {error}")))
    }

    fn take_idle(&self) -> Option<Channel> {
        self.idle().pop()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares everything again after a queue or an exchange was found missing.
    async fn declare_again(&self, deadline: Instant) {
        let declared = async {
            let connection = self.link.connection().await?;
            self.topology.declare_again(&connection).await.map_err(QueueError::from)
        };
        if let Ok(Err(error)) = timeout_at(deadline, declared).await {
            warn!(%error, "nothing declared");
        }
    }

    fn not_sent(&self) -> QueueError {
        let trouble = self.link.trouble().unwrap_or_else(|| "too many messages wait for their confirm".to_owned());
        QueueError(format!("not published within {PUBLISH_TIMEOUT:?}: {trouble}"))
    }

    fn not_confirmed(&self) -> QueueError {
        let trouble = self.link.trouble().unwrap_or_else(|| "the broker does not answer".to_owned());
        QueueError(format!(
            "no confirm in time, it is unknown whether the message is stored, and repeating it is \
             harmless: {trouble}"
        ))
    }
}

async fn send(channel: &Channel, route: PublishRoute, body: &[u8]) -> Result<Confirmation, lapin::Error> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type("application/json".into());
    channel.basic_publish(route.exchange, route.key, options, body, properties).await?.await
}
