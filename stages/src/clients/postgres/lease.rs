//! One producer per tenant: the lease that keeps a second one passive.
//!
//! The lease is a session's advisory lock. It ends with the session, so that nothing has to be cleaned up after a
//! crash: the server sees the connection close when the process dies, and within half a minute when the whole machine
//! is gone. The holder asks the server every few seconds and learns of a loss within eight.
//!
//! Between a loss and its notice two producers may be at work, and after a failover too, for the new server knows no
//! locks. That is harmless: each publishes what it finds, the consumers find the row that the other one's message has
//! led to, and one effect remains. The lease spares NICE's rate budget; correctness does not rest on it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::{Database, DatabaseError, Dedicated};
use crate::flow::task;
use crate::model::TenantId;

/// How often the holder asks whether its session stands.
const PING: Duration = Duration::from_secs(3);

/// How long the server may take for any answer here.
const ANSWER: Duration = Duration::from_secs(5);

/// How often a waiting producer tries; with jitter between half and all of it.
const RETRY: Duration = Duration::from_secs(3);

const LOCK: &str = "select pg_try_advisory_lock($1)";

const HOLDER: &str = "
    select a.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local'), a.backend_start::text
    from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and l.database = (select oid from pg_database where datname = current_database())
        and l.classid::bigint = ($1::bigint >> 32) & 4294967295 and l.objid::bigint = $1::bigint & 4294967295";

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
    pub async fn try_take(&self) -> Result<Option<Held>, DatabaseError> {
        let session = self.database.dedicated().await?;
        Ok(self.lock(&session.client).await?.then(|| Held::keep(session)))
    }

    /// Waits for the lease, as long as it takes, through outages of the database. Says once who has it.
    pub async fn wait(&self) -> Held {
        let (mut has_waited, mut is_broken) = (false, false);
        loop {
            match self.wait_on_one_session(&mut has_waited, &mut is_broken).await {
                Ok(held) => {
                    tracing::info!(tenant = %self.tenant, "producer lease: taken");
                    return held;
                }
                Err(error) if is_broken => tracing::debug!(%error, "producer lease: not asked for"),
                Err(error) => tracing::warn!(%error, "producer lease: not asked for; trying on"),
            }
            is_broken = true;
            pause().await;
        }
    }

    async fn wait_on_one_session(&self, has_waited: &mut bool, is_broken: &mut bool) -> Result<Held, DatabaseError> {
        let session = self.database.dedicated().await?;
        while !self.lock(&session.client).await? {
            *is_broken = false;
            if !std::mem::replace(has_waited, true) {
                let holder = self.holder(&session.client).await?;
                let holder = holder.as_deref().unwrap_or("it has just let go");
                tracing::info!(tenant = %self.tenant, holder, "another producer has the tenant, waiting");
            }
            pause().await;
        }
        Ok(Held::keep(session))
    }

    async fn lock(&self, client: &Client) -> Result<bool, DatabaseError> {
        let row = asked("take producer lease", client.query_one(LOCK, &[&self.number()])).await?;
        row.try_get(0).map_err(|error| DatabaseError::of("take producer lease", &error))
    }

    /// Who has the lease, as far as the server tells it to our user.
    async fn holder(&self, client: &Client) -> Result<Option<String>, DatabaseError> {
        let what = "read producer lease";
        let rows = asked(what, client.query(HOLDER, &[&self.number()])).await?;
        let told = |row: &tokio_postgres::Row| {
            let (pid, name, address): (i32, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let since: Option<&str> = row.try_get(3)?;
            Ok(format!("{name} at {address}, server process {pid}, since {}", since.unwrap_or("unknown")))
        };
        rows.first().map(told).transpose().map_err(|error: tokio_postgres::Error| DatabaseError::of(what, &error))
    }

    /// The lock's number, different from that of any other kind of lock.
    fn number(&self) -> i64 {
        let key = state::Key::of(&["producer lease", self.tenant.as_str()]);
        key.as_bytes().first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
    }
}

/// The lease, until this is dropped or the session is lost.
#[derive(Debug)]
pub struct Held {
    /// Closed when the session is gone.
    session: watch::Receiver<()>,
    _keeper: AbortOnDropHandle<()>,
}

impl Held {
    fn keep(session: Dedicated) -> Self {
        let (alive, watched) = watch::channel(());
        let keeper = task::spawn("producer lease", async move {
            keep_asking(session).await;
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

/// Returns when the session is gone, or does not answer.
async fn keep_asking(session: Dedicated) {
    let Dedicated { client, mut driver } = session;
    let answers = async {
        loop {
            sleep(PING).await;
            if let Err(error) = asked("keep producer lease", client.simple_query("")).await {
                return error.to_string();
            }
        }
    };
    let error = tokio::select! {
        error = answers => error,
        _ = &mut driver => "the connection is closed".to_owned(),
    };
    tracing::warn!(error, "producer lease: lost");
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
    sleep(RETRY.mul_f64(rand::random_range(0.5..1.0))).await;
}

#[cfg(test)]
mod tests;
