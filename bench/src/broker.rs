//! What the benchmarks themselves do with RabbitMQ: declare queues, fill them, and see how many messages wait.

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};

/// Messages on their way at a time while a queue is filled.
const UNCONFIRMED: usize = 512;

/// A connection of the benchmark's own.
pub(crate) struct Broker {
    /// The channel lives as long as it.
    _connection: Connection,
    channel: Channel,
}

impl Broker {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.context("reach RabbitMQ")?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { _connection: connection, channel })
    }

    /// Declares a quorum queue, as the daemon's own are.
    pub(crate) async fn declare(&self, queue: &str) -> anyhow::Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(())
    }

    /// How many messages wait in a queue, without those that are being worked on.
    pub(crate) async fn depth(&self, queue: &str) -> anyhow::Result<usize> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        Ok(queue.message_count() as usize)
    }

    /// Hands a message to the broker; the answer is the confirm, which need not be awaited.
    pub(crate) async fn publish(&self, queue: &str, body: &[u8]) -> anyhow::Result<PublisherConfirm> {
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("text/plain".into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        Ok(self.channel.basic_publish("".into(), queue.into(), options, body, properties).await?)
    }

    /// Fills a queue; returns when every message is confirmed.
    pub(crate) async fn fill(&self, queue: &str, bodies: &[Vec<u8>]) -> anyhow::Result<()> {
        let mut unconfirmed = VecDeque::with_capacity(UNCONFIRMED);
        for body in bodies {
            if unconfirmed.len() == UNCONFIRMED {
                confirmed(unconfirmed.pop_front()).await?;
            }
            unconfirmed.push_back(self.publish(queue, body).await?);
        }
        while !unconfirmed.is_empty() {
            confirmed(unconfirmed.pop_front()).await?;
        }
        Ok(())
    }
}

async fn confirmed(confirm: Option<PublisherConfirm>) -> anyhow::Result<()> {
    let Some(confirm) = confirm else { return Ok(()) };
    let confirmation = confirm.await?;
    // A message that no queue takes is returned, and acked.
    ensure!(confirmation.is_ack() && confirmation.take_message().is_none(), "the broker refused a message");
    Ok(())
}
