//! The queue passes the door's suite on a log in memory, with the ledger in the database and in the local state, and
//! keeps its own promises.

use std::collections::BTreeSet;

use database::Database;
use database::testing::test_database;
use futures::{FutureExt, StreamExt};
use model::{ContactEvent, EventSource};
use state::testing::TestState;
use tokio::time::Instant;

use super::memory_log::{MemoryLog, SharedLog};
use super::*;
use crate::conformance::{Subject, queue_checks};

/// A short one, so that a crash is noticed soon; long enough that a slow machine renews it in time.
const SHORT_LEASE: Duration = Duration::from_millis(1500);

/// Where several consumers renew theirs: none of them is struck off because the machine is slow.
const LONG_LEASE: Duration = Duration::from_secs(6);

/// Ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(delays: &[Duration]) -> FluvioOptions {
    FluvioOptions {
        address: None,
        profile: None,
        prefix: "test".to_owned(),
        partitions: 3,
        replication: 1,
        delays: delays.to_vec(),
        service: "test".to_owned(),
    }
}

async fn open_with(log: &Arc<MemoryLog>, place: FluvioLedger, delays: &[Duration], lease: Duration) -> FluvioQueue {
    let log = Arc::new(SharedLog(log.clone()));
    FluvioQueue::over(log, &options(delays), place, lease, Clock::system()).await.unwrap()
}

async fn open(log: &Arc<MemoryLog>, place: FluvioLedger) -> FluvioQueue {
    open_with(log, place, &[], SHORT_LEASE).await
}

impl FluvioQueue {
    /// Ends without a word, as the process would.
    pub(super) fn sever(&self) {
        self.inner.member().take();
    }

    fn owned(&self, topic: &str) -> usize {
        self.inner.context.owned().keys().filter(|partition| &*partition.topic == topic).count()
    }
}

/// Nobody who is a member now is one for long.
pub(super) async fn forget_members(database: &Database) {
    database.client().await.unwrap().execute("update queue_members set seen_at = 'epoch'", &[]).await.unwrap();
}

struct OnDatabase {
    log: Arc<MemoryLog>,
    database: Database,
    queue: FluvioQueue,
}

impl OnDatabase {
    async fn open(log: Arc<MemoryLog>, database: Database) -> Self {
        let queue = open(&log, FluvioLedger::Database(database.clone())).await;
        Self { log, database, queue }
    }

    /// One that several consumers share.
    async fn shared() -> Self {
        let (log, database) = (Arc::default(), test_database().await);
        let queue = open_with(&log, FluvioLedger::Database(database.clone()), &[], LONG_LEASE).await;
        Self { log, database, queue }
    }

    async fn another(&self) -> FluvioQueue {
        let lease = self.queue.inner.context.lease;
        open_with(&self.log, FluvioLedger::Database(self.database.clone()), &[], lease).await
    }

    async fn number(&self, sql: &str) -> i64 {
        self.database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }
}

impl Subject for OnDatabase {
    async fn fresh() -> Self {
        Self::open(Arc::default(), test_database().await).await
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn crash(self) -> Self {
        self.queue.sever();
        forget_members(&self.database).await;
        Self::open(self.log, self.database).await
    }
}

mod on_database {
    use super::*;
    queue_checks!(OnDatabase);
}

struct Alone {
    log: Arc<MemoryLog>,
    state: TestState,
    queue: FluvioQueue,
}

impl Alone {
    async fn open(log: Arc<MemoryLog>, state: TestState) -> Self {
        let queue = open(&log, FluvioLedger::Local(state.state.store().clone())).await;
        Self { log, state, queue }
    }
}

impl Subject for Alone {
    async fn fresh() -> Self {
        Self::open(Arc::default(), TestState::new()).await
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn crash(self) -> Self {
        self.queue.sever();
        Self::open(self.log, self.state.crashed()).await
    }
}

mod alone {
    use super::*;
    queue_checks!(Alone);
}

/// A cluster where this machine has one; its topics are divided as those in memory.
struct OnCluster {
    options: FluvioOptions,
    database: Database,
    queue: FluvioQueue,
}

impl OnCluster {
    async fn open(options: FluvioOptions, database: Database) -> Self {
        let log = Arc::new(Cluster::new(&options, QueueMetrics::default()).unwrap());
        let place = FluvioLedger::Database(database.clone());
        let queue = FluvioQueue::over(log, &options, place, SHORT_LEASE, Clock::system()).await.unwrap();
        Self { options, database, queue }
    }
}

impl Subject for OnCluster {
    async fn is_here() -> bool {
        test_servers::fluvio().await.is_some()
    }

    async fn fresh() -> Self {
        let server = test_servers::fluvio().await.unwrap();
        let options = FluvioOptions {
            address: Some(server.address().to_string()),
            profile: None,
            prefix: format!("test.{:016x}", rand::random::<u64>()),
            partitions: 3,
            replication: 1,
            delays: Vec::new(),
            service: "test".to_owned(),
        };
        Self::open(options, test_database().await).await
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn crash(self) -> Self {
        self.queue.sever();
        self.queue.inner.context.log.close().await;
        forget_members(&self.database).await;
        Self::open(self.options, self.database).await
    }
}

mod on_cluster {
    use super::*;
    queue_checks!(OnCluster);
}

type Deliveries = BoxStream<'static, Result<QueueDelivery, QueueError>>;

async fn next(deliveries: &mut Deliveries) -> QueueDelivery {
    timeout(PATIENCE, deliveries.next()).await.expect("a delivery").unwrap().unwrap()
}

async fn next_text(deliveries: &mut Deliveries) -> String {
    let delivery = next(deliveries).await;
    let text = String::from_utf8(delivery.body.to_vec()).unwrap();
    // It may be lost at this moment; then it comes again.
    delivery.settle.ack().await.ok();
    text
}

async fn publish(queue: &FluvioQueue, texts: impl IntoIterator<Item = impl ToString>) {
    let publishes = texts.into_iter().map(|text| queue.publish(Lane::Live, Bytes::from(text.to_string())));
    futures::future::try_join_all(publishes.collect::<Vec<_>>()).await.unwrap();
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes what comes, be it a copy of what came before, until nothing is left.
async fn drain(queue: &FluvioQueue, deliveries: &mut Deliveries) {
    until("all is settled", async || {
        while let Ok(delivery) = timeout(Duration::from_millis(20), deliveries.next()).await {
            let QueueDelivery { over_limit, settle, .. } = delivery.unwrap().unwrap();
            assert!(!over_limit);
            settle.ack().await.ok();
        }
        queue.backlog().await.unwrap() == Backlog::default()
    })
    .await;
}

mod on_servers {
    use super::*;

    /// How the live topic, the backfill topic and all else are divided.
    fn shares(queues: &[&FluvioQueue]) -> Vec<[usize; 3]> {
        let share = |queue: &&FluvioQueue| {
            let (live, backfill) = (queue.owned("test-live"), queue.owned("test-backfill"));
            [live, backfill, queue.inner.context.owned().len() - live - backfill]
        };
        queues.iter().map(share).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_consumer_that_comes_goes_or_dies_changes_the_shares_and_loses_nothing() {
        let subject = OnDatabase::shared().await;
        let (first, second, third) = (subject.queue.clone(), subject.another().await, subject.another().await);
        let mut reading = first.deliveries(8);
        assert!(reading.next().now_or_never().is_none());
        until("one has all", async || shares(&[&first]) == [[3, 3, 13]]).await;
        let mut reading_too = second.deliveries(8);
        assert!(reading_too.next().now_or_never().is_none());
        until("two have a half", async || {
            let shares = shares(&[&first, &second]);
            (0..3).all(|group| shares[0][group].abs_diff(shares[1][group]) <= 1 && shares[0][group] > 0)
                && shares.iter().flatten().sum::<usize>() == 19
        })
        .await;

        // One goes with a word, another dies without.
        publish(&first, 0..60).await;
        let mut seen = BTreeSet::new();
        let held = next(&mut reading_too).await;
        second.close().await;
        assert!(held.lost.is_cancelled());
        assert!(held.settle.ack().await.is_err(), "it is another's now");
        let mut last = third.deliveries(8);
        assert!(last.next().now_or_never().is_none());
        until("the third has its share", async || third.inner.context.owned().len() >= 9).await;
        let held = next(&mut reading).await;
        first.sever();
        while seen.len() < 60 {
            seen.insert(next_text(&mut last).await);
        }
        drop(held);
        until("the last one has all", async || shares(&[&third]) == [[3, 3, 13]]).await;
        drain(&third, &mut last).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_lost_a_partition_moves_its_offset_no_more() {
        let subject = OnDatabase::fresh().await;
        publish(&subject.queue, ["one"]).await;
        let mut deliveries = subject.queue.deliveries(1);
        let held = next(&mut deliveries).await;
        let sql = subject.database.client().await.unwrap();
        // Another takes everything.
        sql.execute("update queue_partitions set owner = 'another', epoch = epoch + 1", &[]).await.unwrap();
        sql.execute("insert into queue_members (queue, member, seen_at) values ('test', 'another', 'infinity')", &[])
            .await
            .unwrap();
        timeout(PATIENCE, held.lost.cancelled()).await.expect("it learns of it");
        assert!(held.settle.ack().await.is_err());
        tokio::time::sleep(2 * SHORT_LEASE).await;
        assert_eq!(subject.number("select sum(next_offset)::bigint from queue_partitions").await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_slow_message_does_not_keep_the_offset_of_the_others_back() {
        let subject = OnDatabase::fresh().await;
        let event = |attempt| {
            let mut event =
                ContactEvent::new("acme".parse().unwrap(), "698800000001".parse().unwrap(), EventSource::Poll);
            event.attempt = attempt;
            Bytes::from(event.encode())
        };
        // Of one conversation, so that they lie in one partition.
        let publishes = (0..10_100).map(|attempt| subject.queue.publish(Lane::Live, event(attempt)));
        futures::stream::iter(publishes).buffered(512).for_each(async |published| published.unwrap()).await;
        let mut deliveries = subject.queue.deliveries(16);
        let slow = next(&mut deliveries).await;
        for _ in 1..10_100 {
            next(&mut deliveries).await.settle.ack().await.unwrap();
        }
        timeout(PATIENCE, slow.lost.cancelled()).await.expect("it is taken back");
        assert!(slow.settle.ack().await.is_err());
        until("the offset moves", async || {
            subject.number("select max(next_offset) from queue_partitions where topic = 'test-live'").await == 10_100
        })
        .await;
        let backlog = subject.queue.backlog().await.unwrap();
        assert_eq!(backlog, Backlog { delayed: 1, ..Backlog::default() }, "it comes again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_arrives_together_goes_as_one_batch() {
        let subject = OnDatabase::fresh().await;
        publish(&subject.queue, 0..500).await;
        let appends = subject.log.appends();
        assert_eq!(appends.iter().sum::<usize>(), 500);
        assert!(appends.len() < 50, "{appends:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_outage_of_the_log_is_waited_for() {
        let subject = OnDatabase::fresh().await;
        let queue = subject.queue.clone();
        publish(&queue, ["one"]).await;
        let mut deliveries = queue.deliveries(8);
        let held = next(&mut deliveries).await;
        queue.publish_delayed(Lane::Live, Bytes::from("later"), Duration::from_secs(1)).await.unwrap();
        subject.log.set_away(true);
        assert!(queue.check().await.is_err() && queue.backlog().await.is_err());
        assert!(queue.publish(Lane::Live, Bytes::from("lost")).await.is_err());
        held.settle.ack().await.unwrap();
        let mut settled = subject.another().await.deliveries(8);
        assert!(settled.next().now_or_never().is_none());
        drop(settled);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        subject.log.set_away(false);
        publish(&queue, ["two"]).await;
        let texts = BTreeSet::from([next_text(&mut deliveries).await, next_text(&mut deliveries).await]);
        assert_eq!(texts, BTreeSet::from(["later".to_owned(), "two".to_owned()]));
        queue.check().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_outage_of_the_database_stops_the_handing_out_and_condemns_nothing() {
        let server = test_servers::Postgres::start().await;
        let proxy = test_servers::Proxy::before(server.address()).await;
        let direct = database::testing::TestDatabase::on(&server).await;
        let url = direct.url("test_services").replace(&server.address().to_string(), &proxy.address().to_string());
        let log = Arc::<MemoryLog>::default();
        let queue = open_with(&log, FluvioLedger::Database(database::testing::open(&url)), &[], LONG_LEASE).await;
        // One that only waits for the other to be struck off.
        let another = open_with(&log, FluvioLedger::Database(database::testing::open(&url)), &[], LONG_LEASE).await;
        let mut others = another.deliveries(2);
        publish(&queue, 0..20).await;
        let mut deliveries = queue.deliveries(2);
        let held = next(&mut deliveries).await;
        proxy.stall(true);
        let pool = &queue.inner.context.pool;
        until("nothing is handed out", async || {
            // Whatever is handed out before is handed back.
            drop(deliveries.next().now_or_never());
            tokio::time::sleep(LONG_LEASE / 8).await;
            let taken = pool.take();
            let is_none = taken.is_none();
            if let Some((waiting, _)) = taken {
                waiting.owned.take_back(waiting.record.offset);
                pool.push_back_first(waiting);
            }
            is_none
        })
        .await;
        proxy.stall(false);
        held.settle.ack().await.ok();
        let mut seen = BTreeSet::new();
        while seen.len() < 19 {
            let delivery = tokio::select! { one = next(&mut deliveries) => one, other = next(&mut others) => other };
            assert!(!delivery.over_limit);
            seen.insert(String::from_utf8(delivery.body.to_vec()).unwrap());
            delivery.settle.ack().await.ok();
        }
        let sql = direct.admin.client().await.unwrap();
        let deaths: i64 = sql.query_one("select sum(deaths) from queue_partitions", &[]).await.unwrap().get(0);
        assert_eq!(deaths, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_that_lost_its_begin_or_was_made_anew_is_read_from_where_it_begins() {
        let mut subject = OnDatabase::fresh().await;
        publish(&subject.queue, 0..30).await;
        subject.log.expire("test-live");
        publish(&subject.queue, 100..110).await;
        let mut seen = BTreeSet::new();
        let mut deliveries = subject.queue.deliveries(8);
        while seen.len() < 10 {
            seen.insert(next_text(&mut deliveries).await.parse::<u32>().unwrap());
        }
        assert_eq!(seen, (100..110).collect());
        drain(&subject.queue, &mut deliveries).await;
        drop(deliveries);

        // Deleted, and made anew by a process that starts; there is more in it than there was.
        subject.log.delete("test-live");
        let producer = subject.another().await;
        publish(&producer, 1000..1100).await;
        subject = subject.crash().await;
        let mut deliveries = subject.queue.deliveries(8);
        let mut seen = BTreeSet::new();
        while seen.len() < 100 {
            seen.insert(next_text(&mut deliveries).await.parse::<u32>().unwrap());
        }
        assert_eq!(seen, (1000..1100).collect());

        // Emptied behind the back of a consumer: believed when it lasts.
        drain(&subject.queue, &mut deliveries).await;
        // Whoever asks how the queue is writes offsets, too: none of them brings the former ones back.
        let asked = subject.queue.clone();
        let _asking = task::spawn("probe", async move {
            loop {
                asked.check().await.ok();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        subject.log.empty("test-live");
        publish(&subject.queue, 2000..2003).await;
        let mut seen = BTreeSet::new();
        while seen.len() < 3 {
            seen.insert(next_text(&mut deliveries).await.parse::<u32>().unwrap());
        }
        assert_eq!(seen, (2000..2003).collect());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_takes_the_place_of_messages_that_the_log_has_lost_is_read() {
        let subject = OnDatabase::fresh().await;
        let mut deliveries = subject.queue.deliveries(8);
        publish(&subject.queue, 0..60).await;
        for _ in 0..60 {
            next_text(&mut deliveries).await;
        }
        drain(&subject.queue, &mut deliveries).await;
        subject.log.cut("test-live");
        // It is seen while it is short; then it is as long as before.
        until("the log is found short", async || subject.log.looked_at("test-live") == 3).await;
        publish(&subject.queue, 100..200).await;
        let mut seen = BTreeSet::new();
        while seen.len() < 100 {
            let text = next_text(&mut deliveries).await;
            seen.extend(text.parse::<u32>().ok().filter(|number| *number >= 100));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_ledger_that_has_lost_its_rows_begins_anew_under_a_running_consumer() {
        let subject = OnDatabase::fresh().await;
        let mut deliveries = subject.queue.deliveries(8);
        publish(&subject.queue, ["one"]).await;
        assert_eq!(next_text(&mut deliveries).await, "one");
        subject.database.client().await.unwrap().execute("delete from queue_partitions", &[]).await.unwrap();
        publish(&subject.queue, ["two"]).await;
        // What was settled before comes again, too.
        while next_text(&mut deliveries).await != "two" {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_in_a_delay_step_of_former_settings_still_comes() {
        let subject = OnDatabase::fresh().await;
        let (place, step) = (|| FluvioLedger::Database(subject.database.clone()), Duration::from_millis(2_345));
        let former = open_with(&subject.log, place(), &[step], SHORT_LEASE).await;
        former.publish_delayed(Lane::Live, Bytes::from("one"), step).await.unwrap();
        let queue = open_with(&subject.log, place(), &[], SHORT_LEASE).await;
        assert_eq!(queue.backlog().await.unwrap().delayed, 1);
        assert_eq!(next_text(&mut queue.deliveries(1)).await, "one");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_partition_whose_taking_was_not_answered_is_taken_again() {
        let subject = OnDatabase::shared().await;
        let (first, second) = (subject.queue.clone(), subject.another().await);
        let (mut reading, mut reading_too) = (first.deliveries(8), second.deliveries(8));
        assert!(reading.next().now_or_never().is_none() && reading_too.next().now_or_never().is_none());
        until("both have a share", async || shares(&[&first, &second]).iter().flatten().sum::<usize>() == 19).await;
        // The ledger gives everything to the first one, which knows nothing of it.
        let sql = subject.database.client().await.unwrap();
        let me = first.inner.context.ledger.me().to_owned();
        sql.execute("update queue_partitions set owner = $1, epoch = epoch + 1", &[&me]).await.unwrap();
        publish(&second, 0..30).await;
        let mut seen = BTreeSet::new();
        while seen.len() < 30 {
            let delivery = tokio::select! { one = next(&mut reading) => one, other = next(&mut reading_too) => other };
            seen.insert(delivery.body.clone());
            // It may be lost again at this moment.
            delivery.settle.ack().await.ok();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn processes_that_die_over_one_message_do_not_condemn_those_beside_it() {
        let mut subject = OnDatabase::fresh().await;
        publish(&subject.queue, ["poison"]).await;
        publish(&subject.queue, 0..12).await;
        let mut innocent = BTreeSet::<Bytes>::new();
        for death in 0.. {
            assert!(death < 40, "nothing is condemned: {innocent:?}");
            let mut deliveries = subject.queue.deliveries(6);
            let (mut held, begun) = (Vec::new(), Instant::now());
            // The poison kills its process, with all that it holds; what is not taken by then is not harmed.
            let over_limit = loop {
                assert!(begun.elapsed() < PATIENCE, "the poison comes no more");
                let Ok(delivery) = timeout(SHORT_LEASE, deliveries.next()).await else {
                    // Suspects are taken one at a time: those that are held come first.
                    for QueueDelivery { body, settle, .. } in held.drain(..) {
                        innocent.insert(body);
                        settle.ack().await.unwrap();
                    }
                    continue;
                };
                let delivery = delivery.unwrap().unwrap();
                if &delivery.body[..] == b"poison" {
                    let over_limit = delivery.over_limit;
                    held.push(delivery);
                    break over_limit;
                }
                assert!(!delivery.over_limit);
                held.push(delivery);
            };
            if over_limit {
                held.pop().unwrap().settle.ack().await.unwrap();
                break;
            }
            subject.queue.check().await.unwrap();
            subject = subject.crash().await;
        }
        let mut deliveries = subject.queue.deliveries(16);
        while innocent.len() < 12 {
            let delivery = next(&mut deliveries).await;
            assert!(!delivery.over_limit);
            innocent.insert(delivery.body.clone());
            delivery.settle.ack().await.unwrap();
        }
        drain(&subject.queue, &mut deliveries).await;
    }
}
