//! The servers of a benchmark, and what they have used so far.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use clap::Args;
use test_servers::{Fluvio, Postgres, RabbitMq, S3};

use crate::broker::Broker;
use crate::source::{self, Source};

/// What every benchmark on real servers may be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The daemon
    #[arg(long, default_value = "target/release/nice-knovvu")]
    pub(crate) daemon: PathBuf,
    /// Where the peers' dependencies are installed, with pip and npm, if they are not there
    #[arg(long, default_value = "target/bench-peers")]
    pub(crate) peers_dir: PathBuf,
    /// Where state and logs go; a temporary folder unless named
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Conversations that each process works on at a time
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: u16,
    /// The share of conversations, 0 to 1, that the observed programs of ours trace
    #[arg(long, default_value_t = 1.0)]
    pub(crate) sample: f64,
    /// Bytes of each recording
    #[arg(long, default_value_t = 16 * 1024)]
    pub(crate) bytes: u64,
}

/// Servers that only this benchmark uses.
pub(crate) struct Bed {
    /// The database.
    pub(crate) postgres: Postgres,
    /// The broker.
    pub(crate) rabbitmq: RabbitMq,
    /// The other one, where it is asked for.
    pub(crate) fluvio: Option<Fluvio>,
    /// The recording store.
    pub(crate) s3: S3,
    /// NICE.
    pub(crate) source: Source,
    /// A connection of the benchmark's own.
    pub(crate) broker: Broker,
    statistics: tokio_postgres::Client,
    dir: PathBuf,
}

/// Runs of this process so far.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Seconds of processor time that the servers have used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// PostgreSQL.
    pub(crate) postgres: f64,
    /// RabbitMQ.
    pub(crate) rabbitmq: f64,
    /// Fluvio, both of its processes.
    pub(crate) fluvio: f64,
    /// The recording store.
    pub(crate) s3: f64,
    /// The simulated NICE.
    pub(crate) source: f64,
}

impl Used {
    /// What was used since `earlier`, for each of `count` conversations, in milliseconds.
    pub(crate) fn millis_since(self, earlier: Self, count: usize) -> Self {
        let each = |now: f64, then: f64| (now - then) * 1000.0 / count.max(1) as f64;
        Self {
            postgres: each(self.postgres, earlier.postgres),
            rabbitmq: each(self.rabbitmq, earlier.rabbitmq),
            fluvio: each(self.fluvio, earlier.fluvio),
            s3: each(self.s3, earlier.s3),
            source: each(self.source, earlier.source),
        }
    }

    /// All servers together.
    pub(crate) fn sum(self) -> f64 {
        self.postgres + self.rabbitmq + self.fluvio + self.s3 + self.source
    }
}

/// A store that has taken an object: the gateway makes its pools for the first one, which takes seconds, and whoever
/// runs first would pay for them.
async fn warm_store() -> S3 {
    let store = S3::start().await;
    let bucket = store.bucket().await;
    store.request("PUT", &format!("/{bucket}/first"), b"first".to_vec()).await;
    store
}

impl Bed {
    /// Starts everything.
    pub(crate) async fn start(dir: &Path, source: source::Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let source = Source::start(source, dir).await?;
        let (postgres, rabbitmq, s3) = tokio::join!(Postgres::start(), RabbitMq::start(), warm_store());
        let broker = Broker::connect(&rabbitmq.url()).await?;
        let statistics = connect(&postgres.url()).await?;
        Ok(Self { postgres, rabbitmq, fluvio: None, s3, source, broker, statistics, dir: dir.to_owned() })
    }

    /// The same, and Fluvio.
    pub(crate) async fn start_with_fluvio(dir: &Path, source: source::Options) -> anyhow::Result<Self> {
        let fluvio = Fluvio::find().await.context("no fluvio-run on the PATH: leave --queue fluvio out")?;
        Ok(Self { fluvio: Some(fluvio), ..Self::start(dir, source).await? })
    }

    /// An empty store in the place of the full one: it keeps its objects in memory.
    pub(crate) async fn renew_store(&mut self) {
        self.s3.kill().await;
        self.s3 = warm_store().await;
    }

    /// A name and a folder that no other run has.
    pub(crate) fn run(&self) -> anyhow::Result<(String, PathBuf)> {
        let name = format!("run{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let dir = self.dir.join(&name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?; // of an earlier process in the same --dir
        }
        std::fs::create_dir_all(&dir)?;
        Ok((name, dir))
    }

    /// What the servers have used so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            postgres: self.postgres.cpu_seconds(),
            rabbitmq: self.rabbitmq.cpu_seconds(),
            fluvio: self.fluvio.as_ref().map_or(0.0, Fluvio::cpu_seconds),
            s3: self.s3.cpu_seconds(),
            source: self.source.process.cpu_seconds()?,
        })
    }

    /// How often PostgreSQL has synced its log. A connection reports its syncs at the latest when it ends.
    pub(crate) async fn log_syncs(&self) -> anyhow::Result<f64> {
        let row = self.statistics.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await?;
        Ok(row.get::<_, i64>(0) as f64)
    }

    /// The process that is RabbitMQ.
    pub(crate) async fn rabbitmq_pid(&self) -> anyhow::Result<u32> {
        let answer = self.rabbitmq.ctl(&["eval", "os:getpid()."]).await;
        answer.trim().trim_matches('"').parse().context("RabbitMQ did not tell its process id")
    }
}

/// A connection to a database, which lives as long as the client.
pub(crate) async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.context("reach PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}
