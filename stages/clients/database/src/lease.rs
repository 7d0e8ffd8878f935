//! One producer per tenant: the lease that keeps a second one passive.
//!
//! The lease is a session's advisory lock. It ends with the session, so that nothing has to be cleaned up after a
//! crash: the server sees the connection close when the process dies, and within half a minute when the whole machine
//! is gone. The holder asks the server every few seconds and learns of a loss within eight. A pool that lends sessions
//! by the transaction is refused: behind it the lock would be everybody's and nobody's.
//!
//! Between a loss and its notice two producers may be at work, and after a failover too, for the new server knows no
//! locks. That is harmless: the catalog refuses what the former one writes once the latter has begun its turn, and of
//! what both publish the consumers see that it has one effect.

use std::time::Duration;

use model::TenantId;
use runtime::{chance, task};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::task::AbortOnDropHandle;

use super::{Database, DatabaseError, Dedicated};

/// How often the holder asks whether its session stands.
const PING: Duration = Duration::from_secs(3);

/// How long the server may take for any answer here.
const ANSWER: Duration = Duration::from_secs(5);

/// How often a waiting producer tries; with jitter between half and all of it.
const RETRY: Duration = Duration::from_secs(3);

/// How often two connections are compared, before each counts as a session of its own.
const COMPARISONS: usize = 3;

/// Where a session means nothing.
const NO_SESSION: &str = "leads to a pool that gives every transaction another session (PgBouncer's pool_mode transaction or statement), and \
     time-outs, prepared statements and the producer's lease are those of one session; let it lead to the server itself, or to a \
     pool with pool_mode = session";

/// The lease of a tenant's producer, not held yet.
#[derive(Debug, Clone)]
pub struct ProducerLease {
    database: Database,
    tenant: TenantId,
}

impl ProducerLease {
    /// The lease of this tenant's producer.
    pub fn new(database: Database, tenant: TenantId) -> Self {
        Self { database, tenant }
    }

    /// Takes the lease if it is free.
    pub async fn try_take(&self) -> Result<Option<HeldLease>, DatabaseError> {
        let session = session(&self.database).await?;
        Ok(self.lock(&session.client).await?.then(|| HeldLease::keep(session, self.number())))
    }

    /// Waits for the lease, as long as it takes, through outages of the database. Says once who has it.
    pub async fn wait(&self) -> HeldLease {
        let (mut has_waited, mut is_broken) = (false, false);
        loop {
            match self.wait_on_one_session(&mut has_waited, &mut is_broken).await {
                Ok(held) => {
                    tracing::info!(tenant = %self.tenant, "producer lease: taken");
                    return held;
                }
                Err(error) if !error.is_passing() => {
                    tracing::error!(%error, "producer lease: not asked for; trying on")
                }
                Err(error) if is_broken => tracing::debug!(%error, "producer lease: not asked for"),
                Err(error) => tracing::warn!(%error, "producer lease: not asked for; trying on"),
            }
            is_broken = true;
            pause().await;
        }
    }

    async fn wait_on_one_session(
        &self,
        has_waited: &mut bool,
        is_broken: &mut bool,
    ) -> Result<HeldLease, DatabaseError> {
        let session = session(&self.database).await?;
        while !self.lock(&session.client).await? {
            *is_broken = false;
            if !std::mem::replace(has_waited, true) {
                let holder = self.holder(&session.client).await?;
                let holder = holder.as_deref().unwrap_or("it has just let go");
                tracing::info!(tenant = %self.tenant, holder, "another producer has the tenant, waiting");
            }
            pause().await;
        }
        Ok(HeldLease::keep(session, self.number()))
    }

    async fn lock(&self, client: &Client) -> Result<bool, DatabaseError> {
        let lock = format!("select pg_try_advisory_lock({})", self.number());
        let answer = told("take producer lease", client, &lock).await?;
        Ok(answer.is_some_and(|row| row.get(0) == Some("t")))
    }

    /// Who has the lease, as far as the server tells it to our user.
    async fn holder(&self, client: &Client) -> Result<Option<String>, DatabaseError> {
        let holder = format!(
            "select a.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local'), a.backend_start \
             from pg_locks l join pg_stat_activity a on a.pid = l.pid where {}",
            is_lock(self.number())
        );
        let row = told("read producer lease", client, &holder).await?;
        Ok(row.map(|row| {
            let [pid, name, address, since] = [0, 1, 2, 3].map(|column| row.get(column).unwrap_or("unknown"));
            format!("{name} at {address}, server process {pid}, since {since}")
        }))
    }

    /// The lock's number, different from that of any other kind of lock.
    fn number(&self) -> i64 {
        let key = model::Key::of(&["producer lease", self.tenant.as_str()]);
        key.as_bytes().first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
    }
}

/// The lease, until this is dropped or the session is lost.
#[derive(Debug)]
pub struct HeldLease {
    /// Closed when the session is gone.
    session: watch::Receiver<()>,
    _keeper: AbortOnDropHandle<()>,
}

impl HeldLease {
    fn keep(session: Dedicated, lock: i64) -> Self {
        let (alive, watched) = watch::channel(());
        let keeper = task::spawn("producer lease", async move {
            keep_asking(session, lock).await;
            drop(alive);
        });
        Self { session: watched, _keeper: keeper }
    }

    /// Returns once the lease is lost: whoever held it stops its sources, and waits for it again.
    pub async fn lost(&self) {
        let mut session = self.session.clone();
        // Nothing is ever sent: this ends when the keeper does.
        while session.changed().await.is_ok() {}
    }
}

/// Returns when the session is gone, does not answer, or has not got the lock.
async fn keep_asking(session: Dedicated, lock: i64) {
    let Dedicated { client, mut driver } = session;
    let held = format!("select 1 from pg_locks l where l.pid = pg_backend_pid() and {}", is_lock(lock));
    let answers = async {
        loop {
            sleep(PING).await;
            match told("keep producer lease", &client, &held).await {
                Ok(Some(_)) => {}
                Ok(None) => return "the session that answers has not got the lock".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    let error = tokio::select! {
        biased;
        error = answers => error,
        _ = &mut driver => "the connection is closed".to_owned(),
    };
    tracing::warn!(error, "producer lease: lost");
}

/// What finds this lock in `pg_locks l`.
fn is_lock(number: i64) -> String {
    let [high, low] = [number >> 32, number].map(|half| half & 0xffff_ffff);
    format!(
        "l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.classid::bigint = {high} and l.objid::bigint = {low} \
         and l.database = (select oid from pg_database where datname = current_database())"
    )
}

/// Fails where a connection is no session of its own. Every service asks this before it begins: the lease, what a
/// session is set to and the statements that it has prepared would be everybody's and nobody's.
pub async fn check_session(database: &Database) -> Result<(), DatabaseError> {
    session(database).await.map(drop)
}

/// A session that is ours alone. Behind a pool that lends sessions by the transaction, another connection that holds a
/// transaction open sits in the session that answered us, or we are answered by another one meanwhile.
async fn session(database: &Database) -> Result<Dedicated, DatabaseError> {
    let ours = database.dedicated().await?;
    for _ in 0..COMPARISONS {
        let before = backend(&ours.client).await?;
        let theirs = database.dedicated().await?;
        match asked(ASKS, theirs.client.batch_execute("begin")).await {
            Err(DatabaseError::Unreachable { cause, .. }) if cause.contains("statement pooling") => {
                return Err(DatabaseError::Settings(NO_SESSION.to_owned()));
            }
            begun => begun?,
        }
        if backend(&theirs.client).await? == before || backend(&ours.client).await? != before {
            return Err(DatabaseError::Settings(NO_SESSION.to_owned()));
        }
    }
    Ok(ours)
}

/// What is attempted where a session is compared with another.
const ASKS: &str = "take producer lease";

/// The server's process that answers a connection.
async fn backend(client: &Client) -> Result<Option<String>, DatabaseError> {
    let row = told(ASKS, client, "select pg_backend_pid()").await?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}

/// The first row of an answer. Nothing is prepared for it: that a pool may lend sessions is found out here.
async fn told(what: &'static str, client: &Client, sql: &str) -> Result<Option<SimpleQueryRow>, DatabaseError> {
    let messages = asked(what, client.simple_query(sql)).await?;
    Ok(messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }))
}

/// A question to the server, with an end.
async fn asked<T>(
    what: &'static str,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DatabaseError> {
    match timeout(ANSWER, question).await {
        Ok(answer) => answer.map_err(|error| DatabaseError::of(what, &error)),
        Err(_) => Err(DatabaseError::Unreachable { what, cause: "no answer in time".to_owned() }),
    }
}

async fn pause() {
    sleep(RETRY.mul_f64(chance::range(0.5..1.0))).await;
}

#[cfg(test)]
mod tests;
