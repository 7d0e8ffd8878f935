//! `bench reconcile-worker`: the store in a process of its own, so that its memory is its own and it can be killed.
//!
//! It answers on stdout with one line of JSON for each step, and takes orders, where it takes any, on stdin.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use catalog::{Catalog, ConversationRow, EmbeddedCatalog, Fate, PostgresCatalog, ReplayRun, RunKind, TombstoneKey};
use clap::{Args, ValueEnum};
use database::{Database, DatabaseOptions};
use flow::{FlowExt, RetryPolicy};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use model::{Agent, AgentId, ContactEvent, Conversation, EventSource, Memberships, Unmetered};
use nice::{Auth, GroupKind, GroupSelector, NiceSettings};
use queue::{EmbeddedQueue, Queue};
use runtime::{Clock, task};
use secrecy::SecretString;
use serde_json::json;
use stages::{
    dedupe::dedupe,
    enqueue::Enqueue,
    metrics::Metrics,
    source::{compare::Compare, replay::ReplayWorker, roster::Roster},
    tenants::{FixedSettings, RecordingScope, Tenants},
};
use state::{State, StateOptions};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::calls::{Calls, key, tenant};
use crate::machine;

/// Keys that one question to the catalog names, as the comparison does it.
const BATCH: usize = 10_000;

/// Rows of the embedded catalog that share a commit.
const ROWS_A_COMMIT: u64 = 10_000;

/// Remembered longer than the oldest listed call is old, so that nothing is forgotten.
const RETENTION: Duration = Duration::from_secs(40 * 86_400);

/// What the worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Task {
    /// Fills the store, then ends.
    Load,
    /// Compares all listed ids in memory; the order on stdin says with what.
    Check,
    /// Works on the run to its end.
    Run,
}

/// What `bench reconcile-worker` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerOptions {
    #[arg(long, value_enum)]
    task: Task,
    /// Where the store lies
    #[arg(long)]
    dir: PathBuf,
    /// Calls of which the embedded catalog has a row: the newest
    #[arg(long)]
    rows: u64,
    /// The root of the API
    #[arg(long, default_value = "")]
    nice: String,
    /// The database of the catalog; the embedded one unless named
    #[arg(long)]
    postgres: Option<String>,
    #[command(flatten)]
    calls: Calls,
}

/// Does one task.
pub(crate) async fn run(options: &WorkerOptions) -> anyhow::Result<()> {
    match options.task {
        Task::Load => load(options).await,
        Task::Check => check(options).await,
        Task::Run => reconcile(options).await,
    }
}

fn open(dir: &Path) -> anyhow::Result<State> {
    let retention = SignedDuration::try_from(RETENTION)?;
    let opened = State::open(dir, StateOptions { max_ids: u64::MAX, retention, ..StateOptions::default() })?;
    anyhow::ensure!(opened.set_aside.is_none(), "the state was damaged");
    Ok(opened.state)
}

fn catalog(options: &WorkerOptions, state: &State) -> anyhow::Result<Arc<dyn Catalog>> {
    Ok(match &options.postgres {
        Some(url) => Arc::new(postgres(url)?),
        None => Arc::new(EmbeddedCatalog::open(state.store())?),
    })
}

fn postgres(url: &str) -> anyhow::Result<PostgresCatalog> {
    Ok(PostgresCatalog::new(database(url)?, Some(TombstoneKey::new(&[7; 32]))))
}

/// The database of the catalog.
pub(super) fn database(url: &str) -> anyhow::Result<Database> {
    Ok(Database::new(DatabaseOptions { url: SecretString::from(url), connections: 8, service: "bench" })?)
}

async fn load(options: &WorkerOptions) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (state, tenant, calls) = (open(&options.dir)?, tenant()?, &options.calls);
    let digests = calls.stored().map_while(|id| key(&tenant, id).ok()).map(|key| key.digest());
    let ids = state.processed().seed(digests)?;
    let catalog = EmbeddedCatalog::open(state.store())?;
    let skip = calls.known.saturating_sub(options.rows);
    let mut rows = 0;
    for id in calls.stored().skip_while(|id| *id < super::calls::FIRST_ID + skip) {
        catalog.restore(&row(id, calls)?)?;
        rows += 1;
        if rows % ROWS_A_COMMIT == 0 {
            catalog.check().await?;
        }
    }
    catalog.check().await?;
    println!("{}", json!({ "ids": ids, "rows": rows, "seconds": begun.elapsed().as_secs_f64() }));
    Ok(())
}

/// A row that is ready for analysis.
fn row(id: u64, calls: &Calls) -> anyhow::Result<ConversationRow> {
    let key = key(&tenant()?, id)?;
    let conversation = Conversation {
        tenant: key.tenant,
        external_id: key.external_id,
        source: EventSource::Poll,
        lane: model::Lane::Live,
        master: key.external_id,
        agent: AgentId::from_number(7)?,
        started_at: calls.from(),
        ended_at: calls.from(),
        direction: None,
        customer_number: None,
        metadata: json!({}),
    };
    let row = ConversationRow::metadata_saved(&conversation);
    let at = Some(calls.to);
    Ok(ConversationRow { state: model::ConversationState::Ready, enqueued_at: at, ..row })
}

/// Answers each order on stdin with the seconds it took and what was found missing.
async fn check(options: &WorkerOptions) -> anyhow::Result<()> {
    let (state, tenant) = (open(&options.dir)?, tenant()?);
    let keys = options.calls.listed().map(|id| key(&tenant, id)).collect::<anyhow::Result<Vec<_>>>()?;
    let digests: Vec<_> = keys.iter().map(|key| key.digest()).collect();
    let embedded = EmbeddedCatalog::open(state.store())?;
    let postgres = options.postgres.as_deref().map(self::postgres).transpose()?;
    println!("{}", json!({ "resident": machine::resident_bytes()? }));
    for order in std::io::stdin().lock().lines() {
        let begun = Instant::now();
        let missing = match order?.as_str() {
            "digest" => keys.iter().zip(&digests).filter(|(key, digest)| key.digest() != **digest).count(),
            "memory" => digests.iter().filter(|digest| !state.processed().contains(digest)).count(),
            "memory+digest" => keys.iter().filter(|key| !state.processed().contains(&key.digest())).count(),
            "embedded" => unknown(&embedded, &keys).await?,
            "postgres" => unknown(postgres.as_ref().context("no database")?, &keys).await?,
            other => bail!("the order {other:?}"),
        };
        println!("{}", json!({ "seconds": begun.elapsed().as_secs_f64(), "missing": missing }));
    }
    Ok(())
}

async fn unknown(catalog: &dyn Catalog, keys: &[model::ConversationKey]) -> anyhow::Result<usize> {
    let mut unknown = 0;
    for batch in keys.chunks(BATCH) {
        unknown += catalog.fates(batch).await?.into_iter().filter(|fate| *fate == Fate::Unknown).count();
    }
    Ok(unknown)
}

/// The nightly comparison as the producer runs it, to its end, from where it stands.
async fn reconcile(options: &WorkerOptions) -> anyhow::Result<()> {
    let opened = Instant::now();
    let (state, tenant) = (open(&options.dir)?, tenant()?);
    let catalog = catalog(options, &state)?;
    let clock = Clock::system();
    let context = stages::Context::new(
        clock.clone(),
        Metrics::new(),
        catalog.clone(),
        RetryPolicy {
            not_ready_delays: vec![Duration::from_secs(30)],
            recording_deadline: Duration::from_secs(48 * 3600),
            error_delay_min: Duration::from_secs(1),
            error_delay_max: Duration::from_secs(300),
        },
        16,
    );
    let queue = Arc::new(EmbeddedQueue::open(state.store(), clock.clone())?);
    let (found, replayed) = mpsc::channel(64);
    let processed = state.processed().clone();
    let enqueue = Enqueue { queue: queue.clone(), fresh: Duration::from_secs(3600), clock: clock.clone() };
    let flow =
        dedupe(ReceiverStream::new(replayed), processed.clone(), RETENTION, &context).insist(enqueue, &context.flow);
    let settled = context.clone();
    let flow = task::spawn("flow", async move { flow.settle(&settled.flow).await });
    let (roster, known) = watch::channel(Roster::default());
    Roster::replace(&roster, &[agent()?]);
    let settle = Duration::from_secs(3600);
    let tenants = tenants(options)?;
    let replay = ReplayWorker {
        tenants: tenants.clone(),
        roster: known,
        compare: Compare {
            tenants,
            catalog: catalog.clone(),
            processed: Some(processed.clone()),
            polls: false,
            queue: queue.clone(),
            settle,
            longest_delay: Duration::from_secs(3600),
            clock,
        },
        processed,
        retention: RETENTION,
        queue: queue.clone(),
        has_consumers: false,
        longest_call: Duration::from_secs(4 * 3600),
        found,
        context,
    };
    let (from, to) = (options.calls.from(), options.calls.to);
    let run = match catalog.runs(&tenant, RunKind::Reconciliation, 1).await?.pop() {
        Some(run) => run,
        None => {
            let mut run = ReplayRun::new(tenant.clone(), RunKind::Reconciliation, from, to, Timestamp::now());
            run.id = catalog.begin_run(&run).await?;
            run
        }
    };
    let id = run.id;
    let idle = machine::resident_bytes()?;
    println!("{}", json!({ "opened": opened.elapsed().as_secs_f64(), "idle": idle }));
    machine::forget_peak()?;
    let (begun, used) = (Instant::now(), crate::process::cpu_seconds(std::process::id())?);
    replay.run(run).await;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = crate::process::cpu_seconds(std::process::id())? - used;
    let peak = machine::peak_bytes()?;
    drop(flow);
    let run = catalog.run(&tenant, RunKind::Reconciliation, id).await?.context("the run is gone")?;
    let published = published(&queue).await?;
    let doubled = published.values().filter(|times| **times > 1).count();
    let strange = published.keys().filter(|id| !options.calls.is_missing(**id)).count();
    println!(
        "{}",
        json!({
            "seconds": seconds, "cpu": cpu, "above_idle": peak.saturating_sub(idle), "listed": run.found.listed,
            "missing": run.found.missing, "replayed": run.found.replayed, "state": run.state.as_str(),
            "published": published.len(), "doubled": doubled, "strange": strange,
        })
    );
    Ok(())
}

/// How often each id is on the queue.
async fn published(queue: &EmbeddedQueue) -> anyhow::Result<BTreeMap<u64, u32>> {
    let mut published = BTreeMap::new();
    let mut deliveries = queue.deliveries(64);
    while queue.backlog().await? != Default::default() {
        let delivery = deliveries.next().await.context("the queue ended")??;
        let event = ContactEvent::decode(&delivery.body).ok().context("a message is unreadable")?;
        *published.entry(event.conversation.get()).or_default() += 1;
        delivery.settle.ack().await.ok().context("a message is not settled")?;
    }
    Ok(published)
}

fn tenants(options: &WorkerOptions) -> anyhow::Result<Arc<Tenants>> {
    let base: reqwest::Url = options.nice.parse()?;
    let nice = NiceSettings {
        issuer: base.clone(),
        auth: Auth::AccessKey { access_key_id: "key".into(), access_key_secret: "secret".into() },
        api_version: "v33.0".into(),
        group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: "Knovvu".into() },
        acd_url: Some(base.clone()),
        facade_url: Some(base.clone()),
        auth_url: Some(base),
        media_hosts: Vec::new(),
        private_media_hosts: Vec::new(),
    };
    let source = FixedSettings { tenant: tenant()?, nice, scope: RecordingScope::Leg, retention: Default::default() };
    Ok(Arc::new(Tenants::new(Arc::new(source), Arc::new(|_| Arc::new(Unmetered)), Metrics::new())))
}

fn agent() -> anyhow::Result<Agent> {
    Ok(Agent {
        external_id: AgentId::from_number(7)?,
        user_id: None,
        user_name: String::new(),
        first_name: String::new(),
        last_name: String::new(),
        memberships: Memberships::since(Timestamp::UNIX_EPOCH),
    })
}
