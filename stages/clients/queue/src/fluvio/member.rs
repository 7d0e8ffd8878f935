//! A consumer among others: it says that it lives, comes to its share of the partitions, and commits.
//!
//! A partition that is for another is given with nothing in hand, or with what is in hand taken back after
//! [`GIVE_PATIENCE`]. One that another has taken already is lost at once: what is in hand fails to settle, and its
//! offset is the other's alone.
//!
//! # After a crash
//! The others strike the member off when it has said nothing for the lease, and take its partitions where the ledger
//! says that all before is settled. While the database was away nobody could say anything: a member that has just
//! reached it again strikes nobody off before all had the time of a lease to do the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use model::Lane;
use runtime::task;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::context::QueueContext;
use super::delays;
use super::ledger::{Progress, RollCall};
use super::log::Partition;
use super::partition::OwnedPartition;
use super::reader;
use super::share::{Holding, Share, share};
use super::topics::TopicRole;
use crate::QueueError;
use crate::retry::{intervals, pause};

/// How often the offsets are written that have changed.
const COMMIT_EVERY: Duration = Duration::from_millis(100);

/// How long a partition that is for another waits for what is in hand.
const GIVE_PATIENCE: Duration = Duration::from_secs(3);

/// How long a record may be in hand. RabbitMQ takes a message back after the same time.
const LONGEST_IN_HAND: Duration = Duration::from_secs(30 * 60);

/// Offsets that may be read after the oldest record that is in hand: what a crash delivers again at most.
const LARGEST_GAP: i64 = 10_000;

/// Where a record comes again that was in hand for too long.
const TAKEN_BACK_FOR: Duration = Duration::from_secs(60);

/// A partition that this member has, and what works on it.
struct Holder {
    owned: Arc<OwnedPartition>,
    reading: Vec<AbortOnDropHandle<()>>,
    written: Option<Progress>,
    /// Takes a record back that was in hand for too long.
    taking_back: Option<AbortOnDropHandle<()>>,
    /// Until when what is in hand of a partition for another may be settled.
    give_by: Option<Instant>,
}

/// The member.
pub(super) struct Member {
    context: Arc<QueueContext>,
    holders: BTreeMap<Partition, Holder>,
    /// Since when the ledger has answered without a break.
    steady_since: Option<Instant>,
    has_entered: bool,
    has_trouble: bool,
}

impl Member {
    /// A member that has nothing yet.
    pub(super) fn new(context: Arc<QueueContext>) -> Self {
        Self { context, holders: BTreeMap::new(), steady_since: None, has_entered: false, has_trouble: false }
    }

    /// Works until it is told to stop; then it gives everything back.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        // Several times in a lease, so that one answer that is late costs nothing.
        let mut renewals = interval(self.context.lease / 5);
        let mut commits = interval(COMMIT_EVERY.min(self.context.lease / 5));
        for ticks in [&mut renewals, &mut commits] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let is_renewal = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                _ = renewals.tick() => true,
                _ = commits.tick() => false,
            };
            let work = async { if is_renewal { self.renew().await.map(|()| true) } else { self.commit().await } };
            let Some(done) = stopping.run_until_cancelled(work).await else { break };
            match done {
                Ok(true) if std::mem::take(&mut self.has_trouble) => info!("the ledger of the queue answers again"),
                Ok(_) => {}
                Err(error) if std::mem::replace(&mut self.has_trouble, true) => {
                    debug!(%error, "the ledger of the queue cannot be reached, trying on");
                }
                Err(error) => warn!(%error, "the ledger of the queue cannot be reached, trying on"),
            }
        }
        self.leave().await;
    }

    /// Says that it lives, and comes to its share.
    async fn renew(&mut self) -> Result<(), QueueError> {
        let begun = Instant::now();
        let renewed = self.roll_call(begun).await;
        match &renewed {
            Ok(roll) => {
                self.steady_since.get_or_insert(begun);
                self.context.pool.ours_until(begun + self.context.lease);
                self.compare(roll);
                self.share(roll, begun).await?;
                // After the share: what is given now is in the roll call as ours.
                self.give_what_is_ready().await?;
            }
            Err(_) => self.steady_since = None,
        }
        renewed.map(drop)
    }

    async fn roll_call(&mut self, now: Instant) -> Result<RollCall, QueueError> {
        if !self.has_entered {
            let partitions = self.context.topics.groups().concat();
            self.context.ledger.enter(&partitions).await?;
            self.has_entered = true;
        }
        let is_steady = self.steady_since.is_some_and(|since| now - since >= self.context.lease);
        self.context.ledger.roll_call(is_steady).await
    }

    /// Finds out what was lost.
    fn compare(&mut self, roll: &RollCall) {
        let me = self.context.ledger.me();
        let is_ours = |holder: &Holder| {
            let owner = roll.owners.get(&holder.owned.partition);
            owner.is_some_and(|(owner, epoch)| owner == me && *epoch == holder.owned.lease.epoch)
        };
        let lost = self.holders.values().filter(|holder| !is_ours(holder));
        let lost: Vec<_> = lost.map(|holder| holder.owned.partition.clone()).collect();
        lost.iter().for_each(|partition| self.lose(partition));
    }

    /// Takes what is free of its share, and begins to give what is more.
    async fn share(&mut self, roll: &RollCall, begun: Instant) -> Result<(), QueueError> {
        // In the ledger as ours and not here: the answer to its taking was lost. Nobody else would read it.
        let me = self.context.ledger.me();
        let is_orphan = |(partition, (owner, _)): &(&Partition, &(String, i64))| {
            owner == me && !self.holders.contains_key(*partition)
        };
        let orphans: Vec<_> = roll.owners.iter().filter(is_orphan).map(|(partition, _)| partition.clone()).collect();
        let owner = |partition: &Partition| {
            let owner = roll.owners.get(partition).map(|(owner, _)| owner.clone());
            owner.filter(|owner| roll.members.contains(owner))
        };
        let holding = |partition: Partition| Holding { owner: owner(&partition), partition };
        let groups = self.context.topics.groups().map(|group| group.into_iter().map(holding).collect::<Vec<_>>());
        let Share { take, give } = share(&groups, &roll.members, self.context.ledger.me());
        for partition in give {
            self.begin_to_give(&partition);
        }
        for partition in orphans.into_iter().chain(take) {
            self.take(&partition).await?;
            // The rest with the next renewal: the lease must not run out meanwhile.
            if begun.elapsed() > self.context.lease / 2 {
                break;
            }
        }
        Ok(())
    }

    async fn take(&mut self, partition: &Partition) -> Result<(), QueueError> {
        let Some(role) = self.context.topics.role(&partition.topic) else { return Ok(()) };
        let Some(lease) = self.context.ledger.take(partition).await? else {
            // Somebody was faster; or its row is gone, and is made again with the next roll call.
            self.has_entered = false;
            return Ok(());
        };
        debug!(topic = &*partition.topic, partition = partition.number, "a partition was taken");
        let owned = Arc::new(OwnedPartition::new(lease, role));
        self.context.pool.look_behind(&owned);
        self.context.owned().insert(partition.clone(), owned.clone());
        let held = Arc::default();
        let mut reading =
            vec![task::spawn("fluvio reader", reader::read(self.context.clone(), owned.clone(), Arc::clone(&held)))];
        if let TopicRole::Delay(_) = role {
            let releasing = delays::release(self.context.clone(), owned.clone(), held);
            reading.push(task::spawn("fluvio delays", releasing));
        }
        let holder = Holder { owned, reading, written: None, taking_back: None, give_by: None };
        self.holders.insert(partition.clone(), holder);
        Ok(())
    }

    /// Hands nothing more of it out.
    fn begin_to_give(&mut self, partition: &Partition) {
        if let Some(holder) = self.holders.get_mut(partition)
            && holder.give_by.is_none()
        {
            holder.give_by = Some(Instant::now() + GIVE_PATIENCE.min(self.context.lease));
            holder.owned.hand_out_no_more();
            holder.reading.clear();
            self.context.pool.forget(&holder.owned);
        }
    }

    /// Gives the partitions for others of which nothing is in hand, or whose time is over.
    async fn give_what_is_ready(&mut self) -> Result<(), QueueError> {
        let is_ready = |holder: &Holder| {
            let is_over = holder.give_by.is_some_and(|give_by| give_by <= Instant::now());
            holder.give_by.is_some() && (is_over || holder.owned.window().in_hand() == 0)
        };
        let ready = self.holders.values().filter(|holder| is_ready(holder));
        let ready: Vec<_> = ready.map(|holder| holder.owned.clone()).collect();
        let ledger = self.context.ledger.clone();
        let gives = ready.iter().map(|owned| {
            // Before the offset is read: what settles afterwards fails, and comes again.
            owned.end();
            let progress = owned.progress();
            let ledger = &ledger;
            async move { ledger.give(&progress).await }
        });
        // At once: the end of a process is short.
        let given = join_all(gives).await;
        for (owned, given) in ready.iter().zip(given) {
            given?;
            debug!(topic = &*owned.partition.topic, partition = owned.partition.number, "a partition was given");
            self.lose(&owned.partition);
        }
        Ok(())
    }

    /// It is not ours any more.
    fn lose(&mut self, partition: &Partition) {
        self.context.owned().remove(partition);
        if let Some(holder) = self.holders.remove(partition) {
            holder.owned.end();
            self.context.pool.forget(&holder.owned);
        }
    }

    /// Writes how far each partition has come. Whether there was anything to write.
    async fn commit(&mut self) -> Result<bool, QueueError> {
        // One that nobody reads any more, for it begins anew or its reader broke off, is taken again.
        let is_unread = |holder: &Holder| {
            let has_stopped = holder.owned.has_ended() || holder.reading.iter().any(|task| task.is_finished());
            holder.give_by.is_none() && has_stopped
        };
        let unread = self.holders.values().filter(|holder| is_unread(holder));
        let unread: Vec<_> = unread.map(|holder| holder.owned.partition.clone()).collect();
        unread.iter().for_each(|partition| self.lose(partition));
        let mut changed = Vec::new();
        for holder in self.holders.values_mut() {
            let progress = holder.owned.progress();
            if holder.written.as_ref() != Some(&progress) {
                changed.push(progress);
            }
            take_back(&self.context, holder);
        }
        if changed.is_empty() {
            return Ok(false);
        }
        let lost = self.context.ledger.commit(&changed).await?;
        for progress in changed {
            if let Some(holder) = self.holders.get_mut(&progress.partition) {
                holder.written = Some(progress);
            }
        }
        lost.iter().for_each(|partition| self.lose(partition));
        Ok(true)
    }

    /// Gives everything back at once: the process ends.
    async fn leave(&mut self) {
        let partitions: Vec<_> = self.holders.keys().cloned().collect();
        for partition in &partitions {
            self.begin_to_give(partition);
        }
        for holder in self.holders.values_mut() {
            holder.give_by = Some(Instant::now());
        }
        let left = async {
            self.give_what_is_ready().await?;
            self.context.ledger.leave().await
        };
        if let Err(error) = left.await {
            warn!(%error, "the partitions of the queue are not given back: others take them when the lease is over");
        }
    }
}

/// A record that keeps the commit back too long comes again later, and who works on it learns that.
fn take_back(context: &Arc<QueueContext>, holder: &mut Holder) {
    if holder.taking_back.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    let Some(hand) = holder.owned.holding_up(LONGEST_IN_HAND, LARGEST_GAP) else { return };
    let (context, owned) = (context.clone(), holder.owned.clone());
    holder.taking_back = Some(task::spawn("fluvio take back", async move {
        // A suspect that is worked on for so long has not ended its process.
        let lane = if let TopicRole::Lane(lane) = owned.role { lane } else { Lane::Live };
        let (topic, partition) = (&*owned.partition.topic, owned.partition.number);
        let mut intervals = intervals();
        // Until it settles by itself after all.
        while owned.holding_up(LONGEST_IN_HAND, LARGEST_GAP).is_some_and(|now| now.record.offset == hand.record.offset)
        {
            match context.publisher.publish(lane, hand.record.body.clone(), TAKEN_BACK_FOR).await {
                Ok(()) => {
                    warn!(topic, partition, "a message was in hand for too long: it was taken back, and comes again");
                    drop(owned.settle(hand.record.offset));
                    hand.lost.cancel();
                    return;
                }
                Err(error) => debug!(topic, partition, %error, "a message in hand for too long is not taken back yet"),
            }
            pause(&mut intervals).await;
        }
    }));
}
