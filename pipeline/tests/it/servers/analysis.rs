//! Services behind a pool of sessions, and the workers of `examples/` that take what is ready.

use std::path::Path;
use std::process::Command;

use test_servers::PgBouncer;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::oracle;
use crate::harness::Ended;

#[allow(dead_code, reason = "its `main` is for the command line")]
#[path = "../../../../examples/analysis_worker.rs"]
mod worker;

/// A pool that a whole process fits through, and then a second one.
const POOL_OF_SESSIONS: &str = "pool_mode = session\ndefault_pool_size = 40\nmax_client_conn = 100";

/// The workers' driver is that of Debian's Python.
const PYTHON: &str = "/usr/bin/python3";

/// The URL of a user that may do what the analysis may.
async fn analyst(bed: &ServerBed) -> String {
    let url = bed.catalog_url(Role::Consumer);
    let (server, database) = url.rsplit_once('/').expect("a database");
    let address = server.rsplit_once('@').expect("a user").1;
    let user = format!("analysis_{database}");
    bed.psql(&format!("create user {user} password 'analysis' in role knovvu_analysis")).await;
    format!("postgres://{user}:analysis@{address}/{database}")
}

/// Entries of the analysis queue: waiting, finished, on the shelf.
async fn entries(bed: &ServerBed) -> [usize; 3] {
    let counts = "select count(*) filter (where claimed_at is null), count(*) filter (where finished_at is not null),
        count(*) filter (where failed_at is not null) from analysis_queue";
    let counts = bed.psql(counts).await;
    let mut counts = counts.trim().split('|').map(|count| count.parse().expect("a count"));
    [(); 3].map(|()| counts.next().expect("three counts"))
}

#[tokio::test(flavor = "multi_thread")]
async fn services_behind_a_pool_of_sessions_lose_nothing_and_the_example_workers_take_what_is_ready() {
    let mut bed = ServerBed::new(small(1701, 20)).await;
    let pool = PgBouncer::before(&bed.servers.postgres, POOL_OF_SESSIONS).await;
    let direct = bed.catalog_url(Role::Producer);
    bed.set("CATALOG__URL", pool.url(direct.rsplit('/').next().expect("a database")));
    bed.set("CATALOG__CONNECTIONS", "4");
    let (producer, consumer) = (bed.producer(), bed.consumer("consumer"));
    place(bed.sim(), 0..20);
    bed.quiet().await;
    let unbounded = "select count(*) from pg_stat_activity a where a.datname = current_database()
        and a.application_name like 'nice-knovvu%' and a.state = 'idle in transaction'
        and a.state_change < now() - interval '1 minute'";
    assert_eq!(bed.psql(unbounded).await.trim(), "0");
    terminate([producer, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
    let ready = entries(&bed).await[0];
    assert!(ready >= 10, "{ready}");

    // One that cannot be analysed, for each of the workers; NICE gives empty recordings too.
    let analyst = analyst(&bed).await;
    bed.psql("update recordings set size_bytes = greatest(size_bytes, 1)").await;
    bed.psql(
        "update recordings set size_bytes = 0 where conversation_id in
        (select conversation_id from analysis_queue order by lane desc, enqueued_at, conversation_id limit 1)",
    )
    .await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/analysis_worker.py");
    let mut python = Command::new(PYTHON);
    python.arg(script).arg(&analyst).args(["--most", "3"]);
    let ended = Ended::of(python);
    assert_eq!(ended.code, Some(0), "it needs Debian's python3-psycopg2: {ended:?}");
    assert_eq!(ended.stdout.trim(), "3 conversations");
    assert_eq!(entries(&bed).await, [ready - 3, 2, 1]);

    bed.psql(
        "update recordings set size_bytes = 0 where conversation_id in
        (select conversation_id from analysis_queue where claimed_at is null limit 1)",
    )
    .await;
    let taken = worker::run(&analyst, Some(1_000)).await.expect("the worker works");
    assert_eq!(taken, ready as u64 - 3);
    assert_eq!(entries(&bed).await, [0, ready - 2, 2]);
    let shelf = bed.psql("select distinct attempts, reason from analysis_failed").await;
    assert_eq!(shelf.trim(), "1|a recording is empty");
}
