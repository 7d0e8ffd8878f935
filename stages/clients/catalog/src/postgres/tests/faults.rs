//! What holds when the server dies, sessions are ended and answers are lost.

use std::net::SocketAddr;
use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use std::time::Duration;

use database::{
    DatabaseOptions,
    testing::{open, test_database},
};
use futures::future::join_all;
use model::{ContactEvent, ConversationState, Hop};
use runtime::task;
use test_servers::{Postgres, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    roles::hop,
    sample::{at, conversation, key, recording},
    *,
};

/// Workers that complete one conversation after the other, and begin anew what failed.
struct Load {
    acknowledged: Arc<Mutex<Vec<u64>>>,
    failures: Arc<AtomicUsize>,
    count: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    workers: Vec<AbortOnDropHandle<()>>,
}

impl Load {
    fn on(catalog: &PostgresCatalog) -> Self {
        let (counter, count) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let (acknowledged, failures) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::<AtomicUsize>::default());
        let (next, counter) = (Arc::new(AtomicU64::new(1)), Arc::new(counter));
        let workers = (0..16).map(|_| {
            let (catalog, acknowledged, failures) = (catalog.clone(), acknowledged.clone(), failures.clone());
            let (next, counter, stopped) = (next.clone(), counter.clone(), stopped.clone());
            task::spawn("worker", async move {
                while !*stopped.borrow() {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    while let Err(error) = complete(&catalog, id).await {
                        let failures = failures.fetch_add(1, Ordering::Relaxed);
                        assert!(failures < 1000, "it does not recover: {error}");
                    }
                    acknowledged.lock().unwrap().push(id);
                    counter.send_modify(|count| *count += 1);
                }
            })
        });
        let workers = workers.collect();
        Self { acknowledged, failures, count, stop, workers }
    }

    /// Returns once so many more are acknowledged.
    async fn more(&mut self, more: usize) {
        let until = *self.count.borrow() + more;
        self.count.wait_for(|count| *count >= until).await.unwrap();
    }

    /// Lets the workers end; the acknowledged ids, and how many calls failed.
    async fn end(self) -> (Vec<u64>, usize) {
        self.stop.send_replace(true);
        for worker in join_all(self.workers).await {
            worker.unwrap();
        }
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        (acknowledged, self.failures.load(Ordering::Relaxed))
    }
}

/// As the stages do it: a redelivery begins with the metadata.
async fn complete(catalog: &PostgresCatalog, id: u64) -> Result<(), CatalogError> {
    catalog.save_metadata(&conversation(id)).await?;
    catalog.complete(&key(id), &[recording(id)], 0, at(1), None).await
}

/// Everything that was acknowledged is there, whole and once.
async fn assert_whole(catalog: &PostgresCatalog, acknowledged: &[u64]) {
    let queue = catalog.analysis_queue(0, usize::MAX).await.unwrap();
    for id in acknowledged {
        let row = catalog.conversation(&key(*id)).await.unwrap().unwrap();
        assert_eq!((row.state, row.recordings.len()), (ConversationState::Ready, 1), "{id}");
        assert_eq!(queue.iter().filter(|entry| entry.key == key(*id)).count(), 1, "{id}");
    }
    assert_eq!(catalog.counts().await.unwrap().ready, queue.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_of_the_server_and_callers_recover() {
    let server = Postgres::start().await;
    let database = TestDatabase::on(&server).await;
    let catalog = catalog_of(database.member("test_services"));
    let mut load = Load::on(&catalog);
    for _ in 0..2 {
        load.more(100).await;
        server.kill().await;
        server.start_again().await;
    }
    load.more(100).await;
    let (acknowledged, _) = load.end().await;
    assert_whole(&catalog_of(database.member("test_services")), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_an_administrator_ends_are_nobodys_error() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let catalog = catalog_of(database.member("test_services"));
    let mut load = Load::on(&catalog);
    for _ in 0..10 {
        load.more(20).await;
        database
            .sql(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and usename = 'test_services'",
            )
            .await;
    }
    load.more(20).await;
    let (acknowledged, failures) = load.end().await;
    assert_eq!(failures, 0);
    assert_whole(&catalog, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_of_the_network_are_nobodys_error() {
    let server = test_servers::postgres().await;
    let proxy = Proxy::before(server.address()).await;
    let database = TestDatabase::on(server).await;
    let url = database.url("test_services").replace(&server.address().to_string(), &proxy.address().to_string());
    let catalog = catalog_of(open(&url));
    let mut load = Load::on(&catalog);
    for _ in 0..20 {
        load.more(20).await;
        proxy.cut();
    }
    proxy.refuse(true);
    proxy.cut();
    proxy.refuse(false);
    load.more(20).await;
    let (acknowledged, failures) = load.end().await;
    assert_eq!(failures, 0);
    assert_whole(&catalog, &acknowledged).await;
}

/// Stands before the server, and cuts the connection instead of passing on an answer with a certain text.
struct Thief {
    address: SocketAddr,
    /// What it waits for.
    wanted: Arc<Mutex<Option<&'static [u8]>>>,
    stolen: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Thief {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wanted, stolen) = (Arc::<Mutex<Option<&'static [u8]>>>::default(), Arc::<AtomicUsize>::default());
        let (watched, counted) = (wanted.clone(), stolen.clone());
        let task = task::spawn("thief", async move {
            let mut connections = Vec::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (wanted, stolen) = (watched.clone(), counted.clone());
                connections.push(task::spawn("thief's connection", async move {
                    pass(client, TcpStream::connect(server).await.unwrap(), &wanted, &stolen).await.ok();
                }));
            }
        });
        Self { address, wanted, stolen, _task: task }
    }

    /// Steals the next answer that ends in this command tag.
    fn steal(&self, tag: &'static [u8]) {
        *self.wanted.lock().unwrap() = Some(tag);
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    wanted: &Mutex<Option<&'static [u8]>>,
    stolen: &AtomicUsize,
) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            length = client.read(&mut asked) => match length? {
                0 => return Ok(()),
                length => server.write_all(&asked[..length]).await?,
            },
            length = server.read(&mut answered) => match length? {
                0 => return Ok(()),
                length => {
                    let answer = &answered[..length];
                    let is_wanted = |tag: &&[u8]| answer.windows(tag.len()).any(|window| window == *tag);
                    if wanted.lock().unwrap().take_if(|tag| is_wanted(&&**tag)).is_some() {
                        // The server sends the tag when it has committed.
                        stolen.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    client.write_all(answer).await?;
                }
            },
        }
    }
}

#[tokio::test]
async fn a_lost_answer_after_commit_is_resolved_by_key() {
    let server = test_servers::postgres().await;
    let thief = Thief::before(server.address()).await;
    let database = TestDatabase::on(server).await;
    let url = database.url("test_services").replace(&server.address().to_string(), &thief.address.to_string());
    let catalog = catalog_of(open(&url));
    let (there, witness) = (conversation(1), catalog_of(database.admin.clone()));

    // The session stands: what sets it up has the same tag.
    catalog.check().await.unwrap();
    thief.steal(b"SELECT 1");
    let attempt = catalog.save_metadata(&there).await.unwrap().unwrap();
    assert!(!attempt.is_first(), "the attempt whose answer was lost was the first one");
    assert_eq!(thief.stolen.load(Ordering::Relaxed), 1);
    assert_eq!(witness.counts().await.unwrap().metadata_saved, 1);

    thief.steal(b"SELECT 1");
    catalog.complete(&key(1), &[recording(1)], 0, at(1), None).await.unwrap();
    assert_eq!(thief.stolen.load(Ordering::Relaxed), 2);
    assert_whole(&witness, &[1]).await;
    assert_eq!(witness.conversation(&key(1)).await.unwrap().unwrap().enqueued_at, Some(at(1)));

    thief.steal(b"INSERT 0 1");
    let letter = DeadLetter::of_event(
        &ContactEvent::new(there.tenant.clone(), there.external_id, there.source),
        "upload",
        "why",
        at(0),
    );
    assert!(catalog.add_dead_letter(letter).await.unwrap());
    assert_eq!(thief.stolen.load(Ordering::Relaxed), 3);
    let letters = witness.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);

    thief.steal(b"DELETE 1");
    assert!(catalog.remove_dead_letter(&letters[0]).await.unwrap(), "it was this caller who removed it");
    assert_eq!(thief.stolen.load(Ordering::Relaxed), 4);
    assert!(!catalog.remove_dead_letter(&letters[0]).await.unwrap());
}

#[tokio::test]
async fn a_row_that_breaks_a_rule_of_the_tables_fails_alone() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    database.sql("alter table conversations add check (external_id <> '13')").await;
    let catalog = catalog_of(database.member("test_services"));
    let conversations: Vec<_> = (1..=30).map(conversation).collect();
    let saved = join_all(conversations.iter().map(|one| catalog.save_metadata(one))).await;
    for (id, saved) in (1..).zip(saved) {
        assert_eq!(saved.is_ok(), id != 13, "{id}");
        if let Err(error) = saved {
            assert!(error.to_string().contains("table conversations, constraint"), "{error}");
        }
    }
    assert_eq!(catalog.counts().await.unwrap().metadata_saved, 29);
}

#[tokio::test]
async fn two_consumers_that_complete_the_same_conversations_at_once_do_not_block_each_other() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let (one, other) = (catalog_of(database.member("test_services")), catalog_of(database.member("test_services")));
    let ids: Vec<u64> = (1..=200).collect();
    let backwards: Vec<u64> = ids.iter().rev().copied().collect();
    let all = |catalog: PostgresCatalog, ids: Vec<u64>| async move {
        let results = join_all(ids.iter().map(|id| complete(&catalog, *id))).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    };
    futures::join!(all(one.clone(), ids.clone()), all(other, backwards));
    assert_whole(&one, &ids).await;
    assert_eq!(one.counts().await.unwrap().ready, 200);
}

#[tokio::test]
async fn rows_are_locked_in_the_order_of_their_keys_whatever_the_order_they_came_in() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let catalog = catalog_of(database.member("test_services"));
    for id in [10, 9] {
        catalog.save_metadata(&conversation(id)).await.unwrap();
    }
    let mut session = database.admin.client().await.unwrap();
    let other = session.transaction().await.unwrap();
    other.query_one("select from conversations where external_id = '9' for update", &[]).await.unwrap();
    let recordings = [recording(9), recording(10)];
    let both = async {
        let (ten, nine) = (key(10), key(9));
        let asks = [
            catalog.complete(&ten, &recordings[1..], 0, at(1), None),
            catalog.complete(&nine, &recordings[..1], 0, at(1), None),
        ];
        join_all(asks).await
    };
    let meanwhile = async {
        let waits =
            "select from pg_locks waiting join pg_locks own using (pid) join pg_database d on d.oid = own.database
                     where not waiting.granted and datname = current_database()";
        while other.query(waits, &[]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        // Whoever has the first row gets the second.
        let next = "select from conversations where external_id = '10' for update nowait";
        let got = other.query_one(next, &[]).await.map(|_| ());
        other.commit().await.unwrap();
        got.unwrap();
    };
    let (completed, ()) = futures::join!(both, meanwhile);
    assert!(completed.iter().all(Result::is_ok), "{completed:?}");
}

#[tokio::test]
async fn hops_are_left_out_rather_than_held_without_bound() {
    let catalog = catalog_of(open("postgres://nobody@127.0.0.1:1/nowhere"));
    let hop = Hop {
        at: at(0),
        stage: "upload".to_owned(),
        outcome: "ok".to_owned(),
        attempt: 0,
        took_millis: 1,
        detail: None,
    };
    for _ in 0..20_000 {
        catalog.record_hop(&key(1), hop.clone()).await;
    }
    assert!(catalog.inner.timeline.left_out() > 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_holds_up_the_end_of_a_process_for_seconds_only() {
    let catalog = catalog_of(open("postgres://nobody@127.0.0.1:1/nowhere"));
    let hop = Hop {
        at: at(0),
        stage: "upload".to_owned(),
        outcome: "ok".to_owned(),
        attempt: 0,
        took_millis: 1,
        detail: None,
    };
    catalog.record_hop(&key(1), hop).await;
    let begun = tokio::time::Instant::now();
    catalog.flush().await;
    // Of the five that a process has after its grace.
    assert!(begun.elapsed() <= std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_database_whose_connections_are_all_at_work_is_not_away() {
    let admin = test_database().await;
    let row = admin.query("which", "select current_database()", &[]).await.unwrap();
    let url = test_servers::postgres().await.url();
    let url = format!("{}/{}", url.rsplit_once('/').unwrap().0, row[0].get::<_, &str>(0));
    let options = DatabaseOptions { url: url.into(), connections: 1, service: "test" };
    let catalog = catalog_of(Database::new(options).unwrap());
    let patience = Duration::from_millis(2500);
    catalog.agents(&key(1).tenant).await.unwrap();
    let work = catalog.inner.database.client().await.unwrap();
    tokio::time::timeout(patience, catalog.check()).await.expect("an answer").unwrap();
    // Of work that gets no answer nobody knows whether the server is there.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(tokio::time::timeout(patience, catalog.check()).await.is_err());
    drop(work);
    catalog.check().await.unwrap();
}

#[tokio::test]
async fn a_timeline_that_is_not_written_is_not_asked_for_when_the_database_is() {
    let database = test_database().await;
    let catalog = catalog_of(database.clone());
    let mut client = database.client().await.unwrap();
    let locked = client.transaction().await.unwrap();
    locked.batch_execute("lock table timeline_visits").await.unwrap();
    catalog.record_hop(&key(1), hop()).await;
    // The hop is on its way by now, or is as soon as it is flushed.
    tokio::time::timeout(Duration::from_millis(2500), catalog.check()).await.expect("an answer").unwrap();
    locked.rollback().await.unwrap();
    assert_eq!(catalog.hops(&key(1)).await.unwrap().len(), 1);
}
