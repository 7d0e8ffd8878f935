//! Deliveries that the broker took back while they were worked on.

use futures::StreamExt;
use model::{ContactEvent, EventSource};
use test_servers::RabbitMq;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn event(number: u64) -> ContactEvent {
    let conversation = format!("69880000{number:04}").parse().unwrap();
    ContactEvent::new("acme".parse().unwrap(), conversation, EventSource::Poll)
}

async fn next(deliveries: &mut BoxStream<'static, Result<QueueDelivery, QueueError>>) -> QueueDelivery {
    timeout(PATIENCE, deliveries.next()).await.expect("it comes again").unwrap().unwrap()
}

#[tokio::test]
async fn a_delivery_that_outlasts_the_patience_of_the_broker_is_not_doubled_by_its_deferral() {
    let broker = RabbitMq::start().await;
    for setting in ["consumer_timeout, 2000", "channel_tick_interval, 500"] {
        broker.ctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]).await;
    }
    let rabbit = Rabbit::open(options(broker.url())).await;
    rabbit.queue.publish(Lane::Live, event(1).encode().into()).await.unwrap();
    let mut deliveries = rabbit.queue.deliveries(2);
    let slow = next(&mut deliveries).await;
    let again = next(&mut deliveries).await;
    assert_eq!(slow.body, again.body);
    let error = slow.settle.defer(&event(1), Duration::from_secs(3600)).await.unwrap_err();
    again.settle.ack().await.unwrap();
    assert_eq!(rabbit.queue.backlog().await.unwrap(), Backlog::default());
    assert!(error.to_string().contains("already handed it out again"), "{error}");
}
