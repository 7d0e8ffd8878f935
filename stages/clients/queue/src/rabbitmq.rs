//! The queue of production: RabbitMQ.
//!
//! In: messages, confirmed by the broker once they are on the disks of a quorum. Out: deliveries that are
//! acknowledged, deferred through a delay step, or come again.
//!
//! - [`topology`]: the exchanges and queues, declared whenever a connection is made.
//! - [`connection`]: a connection that is made again when it is lost.
//! - [`publisher`]: publishes that await their own confirm.
//! - [`deliveries`]: live before backfill, and one suspect at a time; [`session`]: as the broker sends them.
//! - [`suspects`]: which of them processes have died over.
//! - [`settle`]: acknowledge, defer, hand back; [`ownership`]: for as long as a message is ours.
//! - [`amqp`]: what the broker's refusals mean.
//!
//! # After a crash
//! What was confirmed is delivered; what was not settled is delivered again. A crash of us, of the broker or of the
//! line between repeats messages, and never loses one. Two connections are kept, one to publish and one to consume:
//! a broker that is short of memory or disk blocks the publishing one only, and acknowledgements go on.
//!
//! # The delivery limit
//! A quorum queue counts the deliveries that come back, and cannot tell who is to blame: a shutdown, a connection that
//! was cut, a consumer that was too slow, a restart of its own. Nobody is condemned by that count. A message that came
//! back often goes from its lane to `{prefix}.dead`, where suspects are taken one at a time, and only one that
//! [`topology::PROBATION`] processes died over is over the limit (see [`suspects`]). One that comes through is an
//! ordinary message again.
//!
//! # A broker that is short of memory or disk
//! It says so to whom publishes, and reads nothing from that connection until it is over. Meanwhile nothing is taken
//! from it ([`deliveries`]), and what has to be deferred waits for some minutes and is then handed back ([`settle`]).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connection::{Link, Role};
use futures::stream::BoxStream;
use model::Lane;
use publisher::Publisher;
use secrecy::{ExposeSecret, SecretString};
use settle::DeliveryCounters;
use suspects::SuspectMarks;
use tokio::time::timeout;
use topology::Topology;
use tracing::{debug, warn};

use super::{Backlog, Destination, Queue, QueueDelivery, QueueError};
use crate::QueueMetrics;

mod amqp;
mod connection;
mod deliveries;
mod ownership;
mod publisher;
mod session;
mod settle;
mod suspects;
mod topology;

/// How long the answer may take to whoever asks how the queue is.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of a process may wait for the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one question to the broker may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings `[queue]` of RabbitMQ.
#[derive(Debug, Clone)]
pub struct RabbitOptions {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: SecretString,
    /// What the names of all exchanges and queues begin with.
    pub prefix: String,
    /// Delays that must exist exactly; others are rounded up to the next step.
    pub delays: Vec<Duration>,
    /// Certificates (PEM) that are trusted besides those of the system, for `amqps`.
    pub ca: Option<String>,
    /// The name of the service, as the broker's operators see it.
    pub service: String,
}

impl RabbitOptions {
    /// Whether the settings can be used at all; connects to nothing.
    pub fn validate(&self) -> Result<(), RabbitError> {
        connection::parse(self.url.expose_secret())?;
        Topology::new(&self.prefix, &self.delays).map(|_| ())
    }
}

/// Why the broker cannot be used. The texts name the setting and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RabbitError {
    /// The URL is none.
    #[error("[queue] url: {0}; write amqps://user:password@host:port/vhost")]
    Url(String),
    /// The prefix cannot begin a queue's name.
    #[error("[queue] prefix: 1 to 100 letters, digits, '.', '-' and '_', and not beginning with \"amq.\"")]
    Prefix,
    /// Nothing answers.
    #[error("[queue] url: the broker at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The broker does not let us in.
    #[error("[queue] url: the broker at {address} refuses the user or the password")]
    Login {
        /// Host and port.
        address: String,
    },
    /// The virtual host does not exist, or is not for this user.
    #[error("[queue] url: the broker at {address} refuses the virtual host: {reason}")]
    VirtualHost {
        /// Host and port.
        address: String,
        /// The broker's words.
        reason: String,
    },
    /// The user may not do what is needed.
    #[error("[queue] url: the user needs the permissions configure, write and read on {name}: {reason}")]
    Forbidden {
        /// The exchange or queue.
        name: String,
        /// The broker's words.
        reason: String,
    },
    /// Something of this name exists and is not what is needed.
    #[error(
        "{name} exists and differs from what is needed: delete it once it is empty, or choose another [queue] \
         prefix ({reason})"
    )]
    Differs {
        /// The exchange or queue.
        name: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker answered with another error, or not in time.
    #[error("the broker did not do what was asked: {0}")]
    Failed(String),
}

impl From<RabbitError> for QueueError {
    fn from(error: RabbitError) -> Self {
        Self(error.to_string())
    }
}

/// A durable queue with delays in RabbitMQ.
#[derive(Clone)]
pub struct RabbitQueue {
    inner: Arc<Inner>,
}

struct Inner {
    topology: Arc<Topology>,
    publisher: Publisher,
    consuming: Link,
    counters: Arc<DeliveryCounters>,
    marks: Arc<SuspectMarks>,
}

impl RabbitQueue {
    /// Connects, and declares what is needed. From then on a lost connection is made again.
    pub async fn connect(options: RabbitOptions, metrics: &QueueMetrics) -> Result<Self, RabbitError> {
        let topology = Arc::new(Topology::new(&options.prefix, &options.delays)?);
        let options = Arc::new(options);
        let marks = Arc::new(SuspectMarks::new(topology.clone()));
        let link = |role| {
            let (options, topology, metrics) = (options.clone(), topology.clone(), metrics.clone());
            Link::start(role, options, topology, metrics, marks.clone())
        };
        let publisher = Publisher::new(link(Role::Publish).await?, topology.clone());
        let consuming = link(Role::Consume).await?;
        let counters = Arc::default();
        Ok(Self { inner: Arc::new(Inner { topology, publisher, consuming, counters, marks }) })
    }

    /// Ends both connections without a word, for good, as the end of the process would.
    #[cfg(test)]
    fn sever(&self) {
        self.inner.publisher.link().sever();
        self.inner.consuming.sever();
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn publish_delayed(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError> {
        self.inner.publisher.publish(lane, &body, delay).await
    }

    fn destination(&self, lane: Lane) -> Destination {
        Destination { system: "rabbitmq", name: self.inner.topology.lane(lane).to_string() }
    }

    fn deliveries(&self, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
        deliveries::deliveries(self.inner.clone(), prefetch)
    }

    /// Ready messages as the broker counts them, and with them what this process was sent and has not begun. What
    /// other processes work on is not known here: `in_flight` is this process alone. Suspects count as live.
    async fn backlog(&self) -> Result<Backlog, QueueError> {
        let counted = async {
            let connection = self.inner.consuming.connection().await?;
            self.inner.topology.count(&connection).await.map_err(QueueError::from)
        };
        let waiting = timeout(QUESTION_TIMEOUT, counted).await.map_err(|_| self.no_answer())??;
        Ok(self.inner.counters.with(waiting))
    }

    /// Whether messages can be published and read.
    async fn check(&self) -> Result<(), QueueError> {
        let checked = async {
            self.inner.publisher.link().unblocked().await?;
            let connection = self.inner.consuming.connection().await?;
            self.inner.topology.check(&connection).await.map_err(QueueError::from)
        };
        timeout(QUESTION_TIMEOUT, checked).await.map_err(|_| self.no_answer())?
    }

    /// Takes the marks at suspects away, and closes both connections: what was written to them is done then, and what
    /// is unsettled comes again. Where the broker does not answer, it does the latter by itself.
    async fn close(&self) {
        let closing = async {
            if let Ok(connection) = self.inner.consuming.connection().await
                && let Err(error) = self.inner.marks.hand_over(&connection).await
            {
                warn!(%error, "marks at suspects not taken away");
            }
            futures::join!(self.inner.publisher.link().close(), self.inner.consuming.close());
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            debug!("connections to the broker not closed in time");
        }
    }
}

impl RabbitQueue {
    fn no_answer(&self) -> QueueError {
        let trouble = self.inner.publisher.link().trouble().or_else(|| self.inner.consuming.trouble());
        QueueError(trouble.unwrap_or_else(|| format!("the broker did not answer within {QUESTION_TIMEOUT:?}")))
    }
}

#[cfg(test)]
mod tests;
