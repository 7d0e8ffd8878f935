//! A partition that this member has: what was read of it, and how far that is settled.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};
use std::time::Duration;

use model::{Lane, SettleError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ledger::{PartitionLease, Progress};
use super::log::{Partition, TopicRecord};
use super::topics::TopicRole;
use super::window::{Hand, UnsettledWindow};

/// A partition that this member has, until it gives or loses it.
pub(super) struct OwnedPartition {
    /// The partition.
    pub partition: Partition,
    /// What its topic is for.
    pub role: TopicRole,
    /// How it was when it was taken.
    pub lease: PartitionLease,
    window: Mutex<UnsettledWindow>,
    begun: AtomicI64,
    /// Before this offset lies what backfill waits for.
    catch_up_to: AtomicI64,
    /// Set once it is for another: nothing more of it is handed out.
    is_for_another: AtomicBool,
    /// Set once it is given or lost: nothing of it settles any more.
    ended: CancellationToken,
    /// A record was handed out or settled.
    changed: Notify,
}

impl OwnedPartition {
    /// Nothing of it is read yet.
    pub(super) fn new(lease: PartitionLease, role: TopicRole) -> Self {
        Self {
            partition: lease.partition.clone(),
            role,
            window: Mutex::new(UnsettledWindow::new(lease.next)),
            begun: AtomicI64::new(lease.next),
            // Until it is known what lies there.
            catch_up_to: AtomicI64::new(if role == TopicRole::Lane(Lane::Live) { i64::MAX } else { 0 }),
            is_for_another: AtomicBool::new(false),
            lease,
            ended: CancellationToken::new(),
            changed: Notify::new(),
        }
    }

    /// What was read and is not settled.
    pub(super) fn window(&self) -> MutexGuard<'_, UnsettledWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Progress {
        let next = self.window().settled_to();
        let begun = self.begun.load(Ordering::SeqCst).max(next);
        Progress { partition: self.partition.clone(), epoch: self.lease.epoch, next, begun }
    }

    /// Whether a crash while this record is in hand would be counted already.
    pub(super) fn has_begun(&self, offset: i64) -> bool {
        offset < self.begun.load(Ordering::SeqCst)
    }

    /// From now on a crash counts for every record before `offset`, once that is in the ledger.
    pub(super) fn begin_up_to(&self, offset: i64) {
        self.begun.fetch_max(offset, Ordering::SeqCst);
    }

    /// It is known what lies there; nothing, where it cannot be read.
    pub(super) fn found(&self, end: Option<i64>) {
        let is_live = self.role == TopicRole::Lane(Lane::Live);
        self.catch_up_to.store(end.filter(|_| is_live).unwrap_or_default(), Ordering::SeqCst);
    }

    /// What lies before `end` is read before any backfill is handed out.
    pub(super) fn catch_up_to(&self, end: i64) {
        self.catch_up_to.fetch_max(end, Ordering::SeqCst);
    }

    /// Whether backfill waits for something that is not read yet.
    pub(super) fn is_behind(&self) -> bool {
        self.is_ours() && self.window().read_to() < self.catch_up_to.load(Ordering::SeqCst)
    }

    /// Nothing more of it is handed out.
    pub(super) fn hand_out_no_more(&self) {
        self.is_for_another.store(true, Ordering::SeqCst);
    }

    fn is_ours(&self) -> bool {
        !self.has_ended() && !self.is_for_another.load(Ordering::SeqCst)
    }

    /// A record goes out; none if it does not wait here any more. The token ends when it is taken back.
    pub(super) fn hand_out(&self, record: &TopicRecord) -> Option<CancellationToken> {
        if !self.is_ours() {
            return None;
        }
        let lost = self.ended.child_token();
        let hand = Hand { record: record.clone(), since: tokio::time::Instant::now(), lost: lost.clone() };
        let is_ours = self.window().begin(hand);
        self.changed.notify_waiters();
        is_ours.then_some(lost)
    }

    /// A record that was handed out waits again. False if it does not belong here any more.
    pub(super) fn take_back(&self, offset: i64) -> bool {
        !self.has_ended() && self.window().give_back(offset)
    }

    /// A record is done with.
    pub(super) fn settle(&self, offset: i64) -> Result<(), SettleError> {
        if self.has_ended() {
            return Err(SettleError("another consumer has the partition now, and the message comes again".to_owned()));
        }
        let is_settled = self.window().settle(offset);
        self.changed.notify_waiters();
        match is_settled {
            true => Ok(()),
            false => Err(SettleError("the message was taken back, and comes again".to_owned())),
        }
    }

    /// The oldest record, if it keeps the commit back too long.
    pub(super) fn holding_up(&self, longest: Duration, gap: i64) -> Option<Hand> {
        self.window().holding_up(longest, gap)
    }

    /// Nothing of it settles any more; who works on a record of it learns that.
    pub(super) fn end(&self) {
        self.ended.cancel();
        self.changed.notify_waiters();
    }

    /// Whether it was given or lost.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until fewer than `most` records wait to be handed out.
    pub(super) async fn room(&self, most: usize) {
        self.until(|window| window.waiting() < most).await;
    }

    /// Waits until everything that was read is settled.
    pub(super) async fn all_settled(&self) {
        self.until(|window| window.waiting() + window.in_hand() == 0).await;
    }

    async fn until(&self, is_so: impl Fn(&UnsettledWindow) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_so(&self.window()) {
                return;
            }
            changed.await;
        }
    }
}
