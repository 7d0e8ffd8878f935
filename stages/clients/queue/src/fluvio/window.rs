//! The records of a partition that were read and are not settled: up to where all is settled, and who holds one long.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::TopicRecord;

/// A record that is worked on.
#[derive(Debug, Clone)]
pub(super) struct Hand {
    /// The record.
    pub record: TopicRecord,
    /// Since when.
    pub since: Instant,
    /// Ends when it is taken back.
    pub lost: CancellationToken,
}

/// Where a record that is not settled is.
#[derive(Debug)]
enum RecordPlace {
    Waiting,
    InHand(Hand),
}

/// The window. Records may settle in any order.
#[derive(Debug)]
pub(super) struct UnsettledWindow {
    unsettled: BTreeMap<i64, RecordPlace>,
    read_to: i64,
    in_hand: usize,
}

impl UnsettledWindow {
    /// Nothing is read yet; everything before `next` is settled.
    pub(super) fn new(next: i64) -> Self {
        Self { unsettled: BTreeMap::new(), read_to: next, in_hand: 0 }
    }

    /// The offset up to which everything is settled.
    pub(super) fn settled_to(&self) -> i64 {
        self.unsettled.keys().next().copied().unwrap_or(self.read_to)
    }

    /// The offset from which on nothing was read.
    pub(super) fn read_to(&self) -> i64 {
        self.read_to
    }

    /// What lies before `offset` is not read.
    pub(super) fn skip_to(&mut self, offset: i64) {
        self.read_to = self.read_to.max(offset);
    }

    /// A record was read, and waits.
    pub(super) fn add(&mut self, offset: i64) {
        self.unsettled.insert(offset, RecordPlace::Waiting);
        self.read_to = self.read_to.max(offset + 1);
    }

    /// A record that waits is handed out. False if it does not wait here any more.
    pub(super) fn begin(&mut self, hand: Hand) -> bool {
        match self.unsettled.get_mut(&hand.record.offset) {
            Some(place @ RecordPlace::Waiting) => {
                *place = RecordPlace::InHand(hand);
                self.in_hand += 1;
                true
            }
            _ => false,
        }
    }

    /// A record is handed back, and waits again. False if it is settled meanwhile.
    pub(super) fn give_back(&mut self, offset: i64) -> bool {
        match self.unsettled.get_mut(&offset) {
            Some(place @ RecordPlace::InHand(_)) => {
                *place = RecordPlace::Waiting;
                self.in_hand -= 1;
                true
            }
            _ => false,
        }
    }

    /// A record is done with. False if it was already.
    pub(super) fn settle(&mut self, offset: i64) -> bool {
        match self.unsettled.remove(&offset) {
            Some(RecordPlace::InHand(_)) => {
                self.in_hand -= 1;
                true
            }
            Some(RecordPlace::Waiting) => true,
            None => false,
        }
    }

    /// Records that nobody works on.
    pub(super) fn waiting(&self) -> usize {
        self.unsettled.len() - self.in_hand
    }

    /// Records that are worked on.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// The oldest record, if it keeps the commit back too long: it has been worked on for `longest`, or `gap` offsets
    /// were read after it.
    pub(super) fn holding_up(&self, longest: Duration, gap: i64) -> Option<Hand> {
        let (offset, RecordPlace::InHand(hand)) = self.unsettled.first_key_value()? else { return None };
        let is_overdue = hand.since.elapsed() >= longest || self.read_to - offset > gap;
        is_overdue.then(|| hand.clone())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn hand(offset: i64) -> Hand {
        let record = TopicRecord { offset, key: Bytes::new(), body: Bytes::new() };
        Hand { record, since: Instant::now(), lost: CancellationToken::new() }
    }

    #[test]
    fn the_commit_goes_up_to_the_oldest_record_that_is_not_settled() {
        let mut window = UnsettledWindow::new(10);
        assert_eq!((window.settled_to(), window.read_to()), (10, 10));
        for offset in [10, 11, 14] {
            window.add(offset);
        }
        assert!(window.begin(hand(10)) && window.begin(hand(11)));
        assert!(window.settle(11));
        assert_eq!((window.settled_to(), window.waiting(), window.in_hand()), (10, 1, 1));
        assert!(window.settle(10) && !window.settle(10));
        assert_eq!(window.settled_to(), 14, "there may be gaps");
        assert!(window.settle(14));
        assert_eq!(window.settled_to(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_holds_the_commit_up_by_its_time_or_by_what_was_read_after_it() {
        let mut window = UnsettledWindow::new(0);
        window.add(0);
        assert!(window.holding_up(Duration::ZERO, 0).is_none(), "it only waits");
        window.begin(hand(0));
        let longest = Duration::from_secs(60);
        assert!(window.holding_up(longest, 10).is_none());
        for offset in 1..=10 {
            window.add(offset);
        }
        assert!(window.holding_up(longest, 10).is_some());
        assert!(window.holding_up(longest, 11).is_none());
        tokio::time::advance(longest).await;
        assert_eq!(window.holding_up(longest, 11).unwrap().record.offset, 0);
    }

    proptest! {
        /// Whatever the order: nothing unsettled lies before the commit, and at the end it is behind the last record.
        #[test]
        fn no_order_of_settling_commits_what_is_not_settled(order in Just((0..40i64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut window = UnsettledWindow::new(0);
            (0..40).for_each(|offset| window.add(offset));
            let mut left: std::collections::BTreeSet<i64> = (0..40).collect();
            for offset in order {
                window.begin(hand(offset));
                prop_assert!(window.settle(offset));
                left.remove(&offset);
                prop_assert_eq!(window.settled_to(), left.first().copied().unwrap_or(40));
            }
        }
    }
}
