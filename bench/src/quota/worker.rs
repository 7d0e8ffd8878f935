//! `bench quota-worker`: the work with a budget of ours, or with none, in a process that can be killed.
//!
//! A backfill takes all it gets, live calls end as a Poisson process, the nightly comparison asks now and then. What
//! was refused is asked again. The server counts; this only says at its start what a backfill is promised.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use reqwest::{Client, StatusCode};
use secrecy::SecretString;
use serde_json::json;
use stages::clients::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use stages::clients::postgres::rate_budget::SharedQuota;
use stages::clients::postgres::{Database, DatabaseOptions};
use stages::clients::quota::{LocalLedger, LocalQuota, Patience, Rate, Shares};
use stages::flow::Metrics;
use state::{State, StateOptions};

/// What the work is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Means {
    /// The ledger in the local state.
    Local,
    /// The ledger in PostgreSQL.
    Shared,
    /// Nothing; who is refused waits twice as long as the time before.
    Backoff,
    /// One request at a time, and a fixed sleep after each.
    Sleep,
}

/// What `bench quota-worker` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerOptions {
    #[arg(long, value_enum)]
    means: Means,
    /// Where requests go
    #[arg(long)]
    url: String,
    /// Requests in a window
    #[arg(long)]
    limit: u32,
    /// Its length in seconds
    #[arg(long)]
    window: f64,
    /// Workers of the backfill
    #[arg(long)]
    workers: usize,
    /// Live calls in a window
    #[arg(long)]
    live: f64,
    /// Requests of the comparison in a window
    #[arg(long)]
    reconciliation: f64,
    /// The part that backfill may not take
    #[arg(long)]
    reserve: f64,
    /// Where the local state lies
    #[arg(long)]
    dir: PathBuf,
    /// The database of the shared budget
    #[arg(long, default_value = "")]
    postgres: String,
    /// Whose budget it is
    #[arg(long)]
    tenant: String,
}

/// What holds requests back.
enum Budget {
    Ledger(Arc<dyn Quota>),
    Backoff,
    Sleep(tokio::sync::Mutex<()>),
}

struct Work {
    budget: Budget,
    client: Client,
    url: String,
    /// Of NICE's time, in which delays are meant.
    second: Duration,
    /// Between two requests that are spread evenly.
    spacing: Duration,
}

/// Works until it is killed.
pub(crate) async fn run(options: &WorkerOptions) -> anyhow::Result<()> {
    let window = Duration::from_secs_f64(options.window);
    let rate = Rate { limit: options.limit, window };
    let shares = Shares::new(rate, options.reserve);
    let budget = match options.means {
        Means::Local => Budget::Ledger(local(options, shares)?),
        Means::Shared => Budget::Ledger(shared(options, shares)?),
        Means::Backoff => Budget::Backoff,
        Means::Sleep => Budget::Sleep(tokio::sync::Mutex::default()),
    };
    let client = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let (second, spacing) = (window / 300, window / options.limit.max(1));
    let work = Arc::new(Work { budget, client, url: options.url.clone(), second, spacing });
    println!("{}", json!({ "pace": shares.pace(QuotaClass::Backfill) }));
    for _ in 0..options.workers {
        let work = Arc::clone(&work);
        tokio::spawn(async move {
            loop {
                work.conversation(QuotaClass::Backfill, now()).await;
            }
        });
    }
    let reconciliation = work.clone().arriving(QuotaClass::Reconciliation, options.reconciliation / options.window);
    tokio::spawn(reconciliation);
    work.arriving(QuotaClass::Live, options.live / options.window).await;
    Ok(())
}

fn local(options: &WorkerOptions, shares: Shares) -> anyhow::Result<Arc<dyn Quota>> {
    let opened = State::open(&options.dir, StateOptions::default())?;
    ensure!(opened.set_aside.is_none(), "the state was damaged");
    let counted_for = SignedDuration::try_from(shares.rate().counted_for())?;
    let window = |name| opened.state.rate_window(name, shares.rate().limit, counted_for);
    let ledger = LocalLedger::new((window("acd")?, shares), (window("media_playback")?, shares), Metrics::new());
    Ok(Arc::new(LocalQuota::new(ledger, Patience::Endless)))
}

fn shared(options: &WorkerOptions, shares: Shares) -> anyhow::Result<Arc<dyn Quota>> {
    let url = SecretString::from(options.postgres.as_str());
    let database = Database::new(DatabaseOptions { url, connections: 4, service: "bench" })?;
    let tenant = options.tenant.parse().ok().context("the tenant's name")?;
    Ok(Arc::new(SharedQuota::new(database, tenant, shares, shares, Patience::Endless, Metrics::new())))
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Work {
    /// Conversations of a Poisson process, so many a second.
    async fn arriving(self: Arc<Self>, class: QuotaClass, a_second: f64) {
        let mut due = now();
        loop {
            let chance: f64 = rand::random_range(1e-9..1.0);
            due += Duration::from_secs_f64(-chance.ln() / a_second);
            tokio::time::sleep(due.saturating_sub(now())).await;
            let work = Arc::clone(&self);
            tokio::spawn(async move { work.conversation(class, due).await });
        }
    }

    /// One conversation needs one request that is taken.
    async fn conversation(&self, class: QuotaClass, due: Duration) {
        let mut delay = self.second;
        loop {
            let taken = match &self.budget {
                Budget::Ledger(quota) => {
                    admit(quota.as_ref(), class).await;
                    self.ask(class, due).await
                }
                Budget::Backoff => self.ask(class, due).await,
                Budget::Sleep(turn) => {
                    let _turn = turn.lock().await;
                    let taken = self.ask(class, due).await;
                    tokio::time::sleep(if taken { self.spacing } else { self.second * 60 }).await;
                    taken
                }
            };
            match (&self.budget, taken) {
                (_, true) => return,
                (Budget::Ledger(quota), false) => quota.refused(ApiFamily::MediaPlayback, None).await,
                (Budget::Backoff, false) => {
                    tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.5))).await;
                    delay = (delay * 2).min(self.second * 60);
                }
                (Budget::Sleep(_), false) => {}
            }
        }
    }

    async fn ask(&self, class: QuotaClass, due: Duration) -> bool {
        let url = format!("{}?class={}&due={}", self.url, class.as_str(), due.as_micros());
        match self.client.get(url).send().await {
            Ok(answer) => answer.status() == StatusCode::OK,
            Err(error) => {
                eprintln!("{error}");
                false
            }
        }
    }
}

/// Waits for a turn, however long it takes.
async fn admit(quota: &dyn Quota, class: QuotaClass) {
    while let Err(error) = quota.admit(ApiFamily::MediaPlayback, class).await {
        let wait = match &error {
            NiceError::Quota { retry_after: Some(wait), .. } => *wait,
            _ => Duration::from_secs(1),
        };
        eprintln!("{error}");
        tokio::time::sleep(wait).await;
    }
}
