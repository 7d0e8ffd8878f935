use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use model::{Settle, SettleError};

use super::*;
use crate::testing::event;
use crate::{Deferral, Delivery};

/// A queue that takes a deferral, or does it and loses the confirm.
#[derive(Clone, Default)]
struct Broker {
    messages: Arc<Mutex<VecDeque<ContactEvent>>>,
    acked: Arc<AtomicU32>,
}

struct Unsettled {
    broker: Broker,
    message: Option<ContactEvent>,
    confirms: bool,
}

#[async_trait]
impl Settle for Unsettled {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.message = None;
        self.broker.acked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, _: Duration) -> Result<(), SettleError> {
        self.broker.put(event.clone());
        match self.confirms {
            true => self.message = None,
            false => return Err(SettleError("no confirm".to_owned())),
        }
        Ok(())
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.broker.put(message);
        }
    }
}

impl Broker {
    fn put(&self, message: ContactEvent) {
        self.messages.lock().unwrap().push_back(message);
    }

    /// Hands one message out, which is deferred unless it is known as a copy.
    async fn hand_out(&self, copies: &Copies, confirms: bool) -> bool {
        let message = self.messages.lock().unwrap().pop_front().unwrap();
        let settle = Box::new(Unsettled { broker: self.clone(), message: Some(message.clone()), confirms });
        let (CopyCheck::First(in_hand) | CopyCheck::Waits(in_hand)) = copies.admit(&message).await else {
            settle.ack().await.unwrap();
            return false;
        };
        let mut delivery = Delivery::new(message, settle);
        delivery.hold(in_hand);
        let now = "2026-04-01T17:00:00Z".parse().unwrap();
        drop(delivery.defer(Deferral::NotReady, Duration::from_secs(60), now).await);
        true
    }

    fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }
}

fn queued(id: u64) -> ContactEvent {
    let mut event = event(id);
    event.queued_at = Some("2026-04-01T16:40:00Z".parse().unwrap());
    event.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    event
}

fn put_off(event: &ContactEvent) -> PutOff<'_> {
    PutOff { event, until: jiff::Timestamp::UNIX_EPOCH, is_due: true, waits_for: None }
}

#[tokio::test]
async fn a_broker_that_loses_confirms_does_not_multiply_a_message() {
    let (broker, copies) = (Broker::default(), Copies::default());
    broker.put(queued(1));
    let mut worked_on = 0;
    for round in 0..3000 {
        // Three of four deferrals are done twice.
        worked_on += usize::from(broker.hand_out(&copies, round % 4 == 0).await);
        assert!(broker.count() <= 12, "{} copies after {round} deliveries", broker.count());
    }
    assert!(worked_on > 1000, "its line goes on: {worked_on}");
    // The broker is well again: what is left is one message.
    for _ in 0..40 {
        broker.hand_out(&copies, true).await;
    }
    assert_eq!(broker.count(), 1);
}

#[tokio::test]
async fn a_message_is_never_taken_for_a_copy_of_another() {
    let copies = Copies::default();
    let first = queued(1);
    let deferred = ContactEvent { deferrals: 3, ..first.clone() };
    let CopyCheck::First(in_hand) = copies.admit(&first).await else { panic!("nothing is known yet") };
    in_hand.deferred(&put_off(&deferred));
    drop(in_hand);
    assert!(matches!(copies.admit(&first).await, CopyCheck::Copy));
    assert!(matches!(copies.admit(&ContactEvent { deferrals: 2, ..first.clone() }).await, CopyCheck::Copy));
    let replayed_at = Some("2026-04-01T16:50:00Z".parse().unwrap());
    for other in [
        deferred,
        ContactEvent { queued_at: replayed_at, ..first.clone() },
        ContactEvent { traceparent: None, ..first.clone() },
        ContactEvent { recheck: true, ..first.clone() },
        queued(2),
    ] {
        assert!(matches!(copies.admit(&other).await, CopyCheck::First(_)), "{other:?}");
    }
    assert!(copies.lock().in_hand.is_empty(), "nothing is left of what ended");
}

#[tokio::test(start_paused = true)]
async fn one_of_a_line_is_in_hand_at_a_time_and_nobody_waits_for_long() {
    let copies = Copies::default();
    let event = queued(1);
    let CopyCheck::First(first) = copies.admit(&event).await else { panic!("nothing is known yet") };
    let began = tokio::time::Instant::now();
    let CopyCheck::Waits(second) = copies.admit(&event).await else { panic!("one is in hand") };
    assert_eq!(began.elapsed(), PATIENCE);
    // A deferral of the one that waits is remembered, too.
    second.deferred(&put_off(&ContactEvent { deferrals: 1, ..event.clone() }));
    drop(second);
    assert!(matches!(copies.admit(&event).await, CopyCheck::Copy));
    let third = ContactEvent { deferrals: 1, ..event };
    let (turn, ()) = tokio::join!(copies.admit(&third), async {
        tokio::time::sleep(PATIENCE / 2).await;
        drop(first);
    });
    assert!(matches!(turn, CopyCheck::First(_)), "its turn has come");
    drop(turn);
    assert!(copies.lock().in_hand.is_empty());
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let copies = Copies::default();
    for id in 1..=REMEMBERED + 10 {
        let line = Line::of(&[&id.to_string()]);
        copies.confirm(line, 1);
        copies.confirm(line, 2);
    }
    let state = copies.lock();
    assert_eq!((state.confirmed.len(), state.order.len()), (REMEMBERED, REMEMBERED));
}
