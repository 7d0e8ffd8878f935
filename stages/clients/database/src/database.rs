//! The way to PostgreSQL: a pool of connections, each wait bounded, and what broke off done again.
//!
//! In goes a URL; out come clients, or the answers of operations. An operation whose connection is lost may have had
//! its effect, even when the loss hit the answer of its commit. It is run again all the same: operations go by key
//! and are repeatable, so that the second run finds what the first one did.
//!
//! A URL may name several hosts (`postgres://user@a,b/knovvu`). They are tried in their order, and the first one
//! that takes writes is used; after a failover that is the other one.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_postgres::{Client, Config, Error, Row, types::ToSql};
use tokio_util::task::AbortOnDropHandle;

use crate::DatabaseError;
use crate::connector::Connector;
use crate::error::ends_sessions;
use crate::url::HOST_TIMEOUT;

/// How long one asks for a connection while all are in use.
const POOL_WAIT: Duration = Duration::from_secs(10);

/// What was answered so long ago shows that the server answers.
const LATELY: Duration = Duration::from_secs(5);

/// How long a connection may take to show that it is alive before it is used again.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(3);

/// One run of an operation. Half of [`PATIENCE`], so that a server that hangs leaves time for another one.
const ATTEMPT: Duration = Duration::from_secs(15);

/// All runs of one operation; then the caller learns that it failed. A restart or a failover fits into it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to reach the Knovvu database.
#[derive(Clone)]
pub struct DatabaseOptions {
    /// The setting `[catalog] url`; carries the password.
    pub url: SecretString,
    /// The most connections of the pool.
    pub connections: usize,
    /// Shown by the server as `application_name`.
    pub service: &'static str,
}

/// The Knovvu database, for any number of owners.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    connector: Connector,
    /// When an operation was answered last.
    answered: Mutex<Option<Instant>>,
}

impl fmt::Debug for Database {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("pool", &self.inner.pool.status()).finish_non_exhaustive()
    }
}

impl Database {
    /// Reads the URL and makes the pool; connects to nothing.
    pub fn new(options: DatabaseOptions) -> Result<Self, DatabaseError> {
        let connector = Connector::new(options.url.expose_secret(), options.service)?;
        let manager = Manager::from_connect(
            Config::new(),
            connector.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Verified },
        );
        let pool = Pool::builder(manager)
            .max_size(options.connections.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(connector.patience()))
            .recycle_timeout(Some(RECYCLE_TIMEOUT))
            .build()
            .map_err(|error| DatabaseError::Settings(error.to_string()))?;
        Ok(Self { inner: Arc::new(Inner { pool, connector, answered: Mutex::default() }) })
    }

    /// A connection that answered just now; back in the pool when dropped.
    pub async fn client(&self) -> Result<Object, DatabaseError> {
        self.client_for("connect").await
    }

    async fn client_for(&self, what: &'static str) -> Result<Object, DatabaseError> {
        self.inner.pool.get().await.map_err(|error| pool_error(what, &error))
    }

    /// Runs `operation`, and runs it again, with growing delays and jitter, when the connection was lost or the
    /// server says "again later". After half a minute the caller has an answer.
    ///
    /// The operation gets a connection of its own each time. It must be repeatable: a run of which the answer was
    /// lost may have had its effect.
    pub async fn run<T, Attempt>(
        &self,
        what: &'static str,
        operation: impl Fn(Object) -> Attempt,
    ) -> Result<T, DatabaseError>
    where
        Attempt: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + PATIENCE;
        let mut delays = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(50))
            .with_max_interval(Duration::from_secs(2))
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        loop {
            let attempt = async {
                let client = self.client_for(what).await?;
                operation(client).await.map_err(|error| {
                    if ends_sessions(&error) {
                        self.forget_sessions();
                    }
                    DatabaseError::of(what, &error)
                })
            };
            let error = match tokio::time::timeout_at(until.min(Instant::now() + ATTEMPT), attempt).await {
                Ok(Ok(answer)) => {
                    *self.answered() = Some(Instant::now());
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.forget_sessions();
                    DatabaseError::Unreachable { what, cause: "no answer in time".to_owned() }
                }
            };
            let delay = delays.next_backoff().unwrap_or(HOST_TIMEOUT);
            if !error.is_passing() || Instant::now() + delay >= until {
                return Err(error);
            }
            tracing::debug!(%error, "database: once more");
            tokio::time::sleep(delay).await;
        }
    }

    /// Whether all connections are at work, and the server has answered some of it lately: a question would wait for
    /// the others, and its wait would say nothing of the server.
    pub fn is_at_work(&self) -> bool {
        let pool = self.inner.pool.status();
        let is_full = pool.available == 0 && (pool.waiting > 0 || pool.size >= pool.max_size);
        is_full && self.answered().is_some_and(|at| at.elapsed() < LATELY)
    }

    fn answered(&self) -> MutexGuard<'_, Option<Instant>> {
        self.inner.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the sessions that nobody uses at the moment. Those with a server that hangs would each be asked for
    /// a sign of life; those with a server that has become a standby would be alive, and of no use for ever.
    fn forget_sessions(&self) {
        self.inner.pool.retain(|_, _| false);
        self.inner.pool.manager().statement_caches.clear();
    }

    /// The rows of one statement; see [`Self::run`].
    pub async fn query(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let operation = |client: Object| async move {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, parameters).await
        };
        self.run(what, operation).await
    }

    /// How many rows one statement wrote; see [`Self::run`].
    pub async fn execute(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, DatabaseError> {
        let operation = |client: Object| async move {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, parameters).await
        };
        self.run(what, operation).await
    }

    /// A connection of one's own, outside the pool, for a lock that is held for long.
    pub async fn dedicated(&self) -> Result<Dedicated, DatabaseError> {
        let what = "connect";
        match self.inner.connector.open().await {
            Ok((client, driver)) => Ok(Dedicated { client, driver }),
            Err(Some(error)) => Err(DatabaseError::of(what, &error)),
            Err(None) => Err(DatabaseError::Unreachable { what, cause: "no connection in time".to_owned() }),
        }
    }
}

fn pool_error(what: &'static str, error: &PoolError) -> DatabaseError {
    let cause = match error {
        PoolError::Backend(error) => return DatabaseError::of(what, error),
        PoolError::Timeout(TimeoutType::Wait) => format!("all connections are in use for {POOL_WAIT:?}"),
        PoolError::Timeout(_) => "no connection in time".to_owned(),
        other => other.to_string(),
    };
    DatabaseError::Unreachable { what, cause }
}

/// A connection outside the pool; it ends when this is dropped.
#[derive(Debug)]
pub struct Dedicated {
    /// The session.
    pub client: Client,
    /// Moves its bytes; ends when the connection is gone.
    pub driver: AbortOnDropHandle<()>,
}

#[cfg(test)]
mod tests;
