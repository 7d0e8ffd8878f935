//! The ledger in the Knovvu database. Only its clock says who lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Ledger, PartitionLease, Progress, RollCall};
use crate::QueueError;
use crate::fluvio::log::Partition;

/// How long an answer may take: shorter than a lease, so that a member learns in time that it cannot renew its own.
const ANSWER: Duration = Duration::from_secs(3);

const ENTER: &str = "
    insert into queue_partitions (queue, topic, number) select $1, * from unnest($2::text[], $3::int[])
    on conflict do nothing";

const LIVE: &str = "
    insert into queue_members (queue, member) values ($1, $2)
    on conflict (queue, member) do update set seen_at = clock_timestamp()";

const SWEEP: &str = "
    delete from queue_members where queue = $1 and seen_at < clock_timestamp() - $2 * interval '1 millisecond'";

const MEMBERS: &str = "select member from queue_members where queue = $1 order by joined_at, member";

const OWNERS: &str = "select topic, number, owner, epoch from queue_partitions where queue = $1 and owner is not null";

/// An owner that is still there has not let go: it died, and counts if it had begun a record. A second run of a take
/// whose answer was lost finds its own name.
const TAKE: &str = "
    with before as materialized (
        select topic, number, begun from queue_partitions where queue = $1 and topic = $2 and number = $3 for update
    )
    update queue_partitions p set owner = $4, epoch = epoch + 1, begun = p.next_offset,
        deaths = deaths + (owner is not null and owner <> $4 and p.begun > p.next_offset)::int
    from before
    where p.topic = before.topic and p.number = before.number
        and (owner is null or owner = $4 or not exists (
            select from queue_members m where m.queue = p.queue and m.member = p.owner))
    returning p.epoch, p.next_offset, before.begun, p.deaths";

const BEGIN_ANEW: &str = "
    update queue_partitions set next_offset = 0, begun = 0, deaths = 0, epoch = epoch + 1
    where queue = $1 and topic = any($2)";

/// With another number, so that no write that is under way brings the former offset back.
const RESTART: &str = "
    update queue_partitions set next_offset = $4, begun = $4, deaths = 0, epoch = epoch + 1
    where topic = $1 and number = $2 and epoch = $3";

/// Locked in order, since several are written at once. Of two that overtake each other, the one that has come further counts. Not awaited on disk: what a crash of the
/// server undoes here is delivered again.
const COMMIT: &str = "
    with locked as materialized (
        select topic, number from queue_partitions
        where (topic, number) in (select * from unnest($1::text[], $2::int[])) order by topic, number for update
    )
    update queue_partitions p set next_offset = greatest(p.next_offset, c.next_offset),
        begun = greatest(p.begun, c.begun),
        deaths = case when c.next_offset > p.next_offset then 0 else p.deaths end
    from locked l join unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[])
        as c (topic, number, epoch, next_offset, begun) on l.topic = c.topic and l.number = c.number
    where p.topic = c.topic and p.number = c.number and p.epoch = c.epoch and p.owner is not null
    returning p.topic, p.number, set_config('synchronous_commit', 'off', true)";

const GIVE: &str = "
    update queue_partitions set owner = null, next_offset = $4, begun = $4,
        deaths = case when $4 > next_offset then 0 else deaths end
    where topic = $1 and number = $2 and epoch = $3";

const LEAVE: &str = "delete from queue_members where queue = $1 and member = $2";

const SETTLED: &str = "select topic, number, next_offset from queue_partitions where queue = $1";

/// The ledger of a queue in the database, as one member sees it.
pub(in crate::fluvio) struct DatabaseLedger {
    database: Database,
    queue: String,
    me: String,
    lease: Duration,
}

impl DatabaseLedger {
    /// A member of its own; a member that says nothing for `lease` is dead.
    pub(in crate::fluvio) fn new(database: Database, queue: &str, lease: Duration) -> Self {
        let me = format!("{:016x}", runtime::chance::random::<u64>());
        Self { database, queue: queue.to_owned(), me, lease }
    }

    async fn query(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueueError> {
        match tokio::time::timeout(ANSWER, self.database.query(what, sql, parameters)).await {
            Ok(rows) => rows.map_err(unwritten),
            Err(_) => Err(QueueError(format!("the Knovvu database did not answer within {ANSWER:?}: {what}"))),
        }
    }
}

fn unwritten(error: DatabaseError) -> QueueError {
    QueueError(error.to_string())
}

fn partition(row: &Row) -> Partition {
    Partition { topic: row.get::<_, &str>(0).into(), number: row.get::<_, i32>(1).unsigned_abs() }
}

fn number(partition: &Partition) -> i32 {
    i32::try_from(partition.number).unwrap_or(i32::MAX)
}

#[async_trait]
impl Ledger for DatabaseLedger {
    fn me(&self) -> &str {
        &self.me
    }

    async fn enter(&self, partitions: &[Partition]) -> Result<(), QueueError> {
        let topics: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
        let numbers: Vec<i32> = partitions.iter().map(number).collect();
        self.query("enter queue partitions", ENTER, &[&self.queue, &topics, &numbers]).await.map(drop)
    }

    async fn roll_call(&self, sweep: bool) -> Result<RollCall, QueueError> {
        self.query("renew queue member", LIVE, &[&self.queue, &self.me]).await?;
        if sweep {
            let lease = self.lease.as_millis() as f64;
            self.query("strike off queue members", SWEEP, &[&self.queue, &lease]).await?;
        }
        let members = self.query("read queue members", MEMBERS, &[&self.queue]).await?;
        let owners = self.query("read queue partitions", OWNERS, &[&self.queue]).await?;
        Ok(RollCall {
            members: members.iter().map(|row| row.get(0)).collect(),
            owners: owners.iter().map(|row| (partition(row), (row.get(2), row.get(3)))).collect(),
        })
    }

    async fn take(&self, partition: &Partition) -> Result<Option<PartitionLease>, QueueError> {
        let (topic, number) = (&*partition.topic, number(partition));
        let rows = self.query("take queue partition", TAKE, &[&self.queue, &topic, &number, &self.me]).await?;
        Ok(rows.first().map(|row| PartitionLease {
            partition: partition.clone(),
            epoch: row.get(0),
            next: row.get(1),
            begun: row.get(2),
            deaths: row.get::<_, i32>(3).unsigned_abs(),
        }))
    }

    async fn commit(&self, progress: &[Progress]) -> Result<Vec<Partition>, QueueError> {
        let topics: Vec<&str> = progress.iter().map(|row| &*row.partition.topic).collect();
        let numbers: Vec<i32> = progress.iter().map(|row| number(&row.partition)).collect();
        let column = |value: fn(&Progress) -> i64| progress.iter().map(value).collect::<Vec<i64>>();
        let (epochs, nexts, begun) = (column(|row| row.epoch), column(|row| row.next), column(|row| row.begun));
        let parameters: [&(dyn ToSql + Sync); 5] = [&topics, &numbers, &epochs, &nexts, &begun];
        let rows = self.query("commit queue offsets", COMMIT, &parameters).await?;
        let written: Vec<Partition> = rows.iter().map(partition).collect();
        let lost = progress.iter().filter(|row| !written.contains(&row.partition));
        Ok(lost.map(|row| row.partition.clone()).collect())
    }

    async fn begin_anew(&self, topics: &[Arc<str>]) -> Result<(), QueueError> {
        let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.query("begin queue topics anew", BEGIN_ANEW, &[&self.queue, &topics]).await.map(drop)
    }

    async fn restart(&self, progress: &Progress) -> Result<(), QueueError> {
        let (topic, number) = (&*progress.partition.topic, number(&progress.partition));
        let parameters: [&(dyn ToSql + Sync); 4] = [&topic, &number, &progress.epoch, &progress.next];
        self.query("begin queue partition anew", RESTART, &parameters).await.map(drop)
    }

    async fn give(&self, progress: &Progress) -> Result<(), QueueError> {
        let (topic, number) = (&*progress.partition.topic, number(&progress.partition));
        self.query("give queue partition", GIVE, &[&topic, &number, &progress.epoch, &progress.next]).await.map(drop)
    }

    async fn leave(&self) -> Result<(), QueueError> {
        self.query("leave queue", LEAVE, &[&self.queue, &self.me]).await.map(drop)
    }

    async fn settled(&self) -> Result<BTreeMap<Partition, i64>, QueueError> {
        let rows = self.query("read queue offsets", SETTLED, &[&self.queue]).await?;
        Ok(rows.iter().map(|row| (partition(row), row.get(2))).collect())
    }
}
