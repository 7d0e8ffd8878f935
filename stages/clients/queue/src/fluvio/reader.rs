//! Reads a partition that this member has, and puts its records where they wait.
//!
//! A lost broker ends the stream; it is opened again where it ended. Everything here may be cut off between two
//! records: what was read and not settled is read again by the next owner.

use std::ops::Range;
use std::sync::Arc;

use backoff::backoff::Backoff;
use futures::StreamExt;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::context::QueueContext;
use super::delays::HeldRecords;
use super::ledger::Progress;
use super::log::TopicRecord;
use super::partition::OwnedPartition;
use super::pool::WaitingRecord;
use super::topics::TopicRole;
use crate::retry::{LongFailure, TOLD_AFTER, intervals, pause};
use crate::{DELIVERY_LIMIT, QueueError};

/// Processes that die over the records of a lane's partition before those go to the suspects.
pub(super) const LANE_DEATHS: u32 = 3;

/// Processes that die over one suspect, which nobody works on beside it, before it is over the limit.
const SUSPECT_DEATHS: u32 = DELIVERY_LIMIT - LANE_DEATHS;

/// Records of a partition that wait to be handed out: so that the next one is there when one is settled.
const READ_AHEAD: usize = 256;

/// Records of a delay step in memory, some 1 MB of ordinary messages. Those after them are read when some of these are due.
const HELD_AHEAD: usize = 2_000;

/// Records that are taken from the stream at once.
const CHUNK: usize = 64;

/// Offsets for which a crash counts before their records are there, so that not every record costs a write.
const BEGUN_AHEAD: i64 = 64;

/// For how many leases a log must be found shorter than what was read of it before that is believed: a minute. A broker
/// that comes back may know of less for a while, and there is nothing to read meanwhile.
const SHORT_FOR: u32 = 12;

/// Reads a partition until it is given or lost.
pub(super) async fn read(context: Arc<QueueContext>, owned: Arc<OwnedPartition>, held: Arc<HeldRecords>) {
    let (mut intervals, mut short) = (intervals(), None);
    let (mut is_set_aside, mut trouble) = (false, LongFailure::default());
    loop {
        let mut reading = Reading { context: &context, owned: &owned, held: &held, short: &mut short, has_read: false };
        let begun = Instant::now();
        let ended = reading.read_once(&mut is_set_aside).await;
        if owned.has_ended() {
            // The member sees that nobody reads it, and takes it again.
            return;
        }
        if reading.has_read || begun.elapsed() >= TOLD_AFTER {
            Backoff::reset(&mut intervals);
            trouble.is_over();
        }
        if let Err(error) = ended {
            let (topic, partition) = (&*owned.partition.topic, owned.partition.number);
            match trouble.failed() {
                true => warn!(topic, partition, %error, "a partition is not read, trying on"),
                false => debug!(topic, partition, %error, "a partition is not read, trying on"),
            }
        }
        // An outage of this one holds no backfill up.
        owned.found(None);
        context.pool.look_behind(&owned);
        pause(&mut intervals).await;
    }
}

/// A log that is shorter than what was read of it.
struct Short {
    since: Instant,
    /// The least that it was.
    end: i64,
}

struct Reading<'a> {
    context: &'a Arc<QueueContext>,
    owned: &'a Arc<OwnedPartition>,
    held: &'a HeldRecords,
    short: &'a mut Option<Short>,
    has_read: bool,
}

impl Reading<'_> {
    /// Reads until the stream ends.
    async fn read_once(&mut self, is_set_aside: &mut bool) -> Result<(), QueueError> {
        let (context, owned) = (self.context, self.owned);
        let bounds = match context.log.bounds(&owned.partition).await {
            Ok(bounds) => bounds,
            Err(error) => {
                // While nobody answers it is not known to be short.
                if let Some(short) = self.short.as_mut() {
                    short.since = Instant::now();
                }
                return Err(error);
            }
        };
        self.find_place(&bounds).await?;
        if !*is_set_aside {
            self.set_suspects_aside(&bounds).await?;
            *is_set_aside = true;
        }
        owned.found(Some(bounds.end));
        context.pool.look_behind(owned);
        let from = owned.window().read_to();
        let mut records = context.log.read(&owned.partition, from).await?.ready_chunks(CHUNK);
        while let Some(chunk) = records.next().await {
            let mut failed = None;
            let is_new = |record: &TopicRecord| record.offset >= owned.window().read_to();
            let mut read = Vec::with_capacity(chunk.len());
            for record in chunk {
                match record {
                    Ok(record) if is_new(&record) => read.push(record),
                    Ok(_) => {}
                    Err(error) => failed = Some(error),
                }
            }
            let has_some = !read.is_empty();
            match owned.role {
                TopicRole::Lane(_) => self.lane(read).await?,
                TopicRole::Suspects => self.suspects(read).await?,
                TopicRole::Delay(step) => {
                    for record in read {
                        owned.room(HELD_AHEAD).await;
                        owned.window().add(record.offset);
                        self.held.hold(record, step, &context.clock);
                    }
                }
            }
            self.has_read |= has_some;
            context.pool.look_behind(owned);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Where to go on, in a log that may have been cut at its begin, or made anew.
    async fn find_place(&mut self, bounds: &Range<i64>) -> Result<(), QueueError> {
        let (topic, partition) = (&*self.owned.partition.topic, self.owned.partition.number);
        let read_to = self.owned.window().read_to();
        if read_to > bounds.end {
            let short = self.short.get_or_insert_with(|| Short { since: Instant::now(), end: bounds.end });
            short.end = short.end.min(bounds.end);
            if short.since.elapsed() < self.context.lease * SHORT_FOR {
                return Err(QueueError(format!("it ends at {}, before {read_to}, which was read", bounds.end)));
            }
            error!(topic, partition, "the topic was made anew or has lost its end: reading it from its begin");
            return self.begin_anew(bounds.start).await;
        }
        if let Some(short) = self.short.take() {
            error!(topic, partition, "the topic has lost its end, and has new messages there: reading it from there");
            return self.begin_anew(short.end.max(bounds.start)).await;
        }
        if read_to < bounds.start {
            let count = bounds.start - read_to;
            error!(topic, partition, count, "messages were deleted for their age before they were read");
            self.owned.window().skip_to(bounds.start);
        }
        Ok(())
    }

    /// This member has it no more, and takes it again: what is in hand is of the log that is gone.
    async fn begin_anew(&self, offset: i64) -> Result<(), QueueError> {
        let progress = Progress { next: offset, ..self.owned.progress() };
        self.context.ledger.restart(&progress).await?;
        self.owned.end();
        Err(QueueError("it begins anew".to_owned()))
    }

    /// Where processes died over a lane's records again and again, those that may be the cause go to the suspects. A
    /// crash in between leaves some twice.
    async fn set_suspects_aside(&self, bounds: &Range<i64>) -> Result<(), QueueError> {
        let (context, owned) = (self.context, self.owned);
        let to = owned.lease.begun.min(bounds.end);
        let from = owned.window().read_to();
        if !matches!(owned.role, TopicRole::Lane(_)) || owned.lease.deaths < LANE_DEATHS || from >= to {
            return Ok(());
        }
        let (topic, partition, count) = (&*owned.partition.topic, owned.partition.number, to - from);
        warn!(topic, partition, count, "processes died over these messages: each is tried alone now");
        let mut records = context.log.read(&owned.partition, from).await?.ready_chunks(CHUNK);
        while owned.window().read_to() < to {
            let Some(chunk) = records.next().await else {
                return Err(QueueError("the stream ended".to_owned()));
            };
            let chunk = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            let suspects: Vec<_> = chunk.into_iter().filter(|record| (from..to).contains(&record.offset)).collect();
            futures::future::try_join_all(suspects.iter().map(|record| context.publisher.suspect(record))).await?;
            match suspects.last() {
                Some(last) => owned.window().skip_to(last.offset + 1),
                None => owned.window().skip_to(to),
            }
        }
        self.write(owned.progress()).await
    }

    async fn lane(&self, records: Vec<TopicRecord>) -> Result<(), QueueError> {
        for record in records {
            self.owned.room(READ_AHEAD).await;
            self.begin(record.offset, BEGUN_AHEAD).await?;
            self.put(record, false);
        }
        Ok(())
    }

    /// One at a time, so that a crash has one cause.
    async fn suspects(&self, records: Vec<TopicRecord>) -> Result<(), QueueError> {
        for record in records {
            self.owned.all_settled().await;
            let lease = &self.owned.lease;
            let over_limit = record.offset == lease.next && lease.deaths >= SUSPECT_DEATHS;
            // What was settled before must be in the ledger: else a crash would count for that one.
            self.write(self.owned.progress()).await?;
            self.put(record, over_limit);
        }
        Ok(())
    }

    fn put(&self, record: TopicRecord, over_limit: bool) {
        self.owned.window().add(record.offset);
        self.context.pool.push(WaitingRecord { owned: self.owned.clone(), record, over_limit });
    }

    /// Before a record is handed out, the ledger knows that a crash may be its doing.
    async fn begin(&self, offset: i64, ahead: i64) -> Result<(), QueueError> {
        if self.owned.has_begun(offset) {
            return Ok(());
        }
        let begun = offset + 1 + ahead;
        self.write(Progress { begun, ..self.owned.progress() }).await?;
        self.owned.begin_up_to(begun);
        Ok(())
    }

    async fn write(&self, progress: Progress) -> Result<(), QueueError> {
        match self.context.ledger.commit(&[progress]).await?.is_empty() {
            true => Ok(()),
            false => Err(QueueError("another consumer has the partition now".to_owned())),
        }
    }
}
