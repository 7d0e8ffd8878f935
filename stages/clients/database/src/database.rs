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
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};
use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use model::text::without_mark;
use runtime::task;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use tokio::{task::JoinHandle, time::Instant};
use tokio_postgres::{
    Client, Config, Error, NoTls, Row,
    config::{Host, SslMode, TargetSessionAttrs},
    error::SqlState,
    types::ToSql,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

/// One host has this long from the first packet to a session that answers.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that sent something and hears nothing for so long is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

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

/// What every session is set to. A statement, and a transaction that its owner forgot, end by themselves; and a session
/// whose machine is gone ends within half a minute, with the locks that it holds. Each is set after connecting: a pool
/// (PgBouncer) refuses such things in the packet that begins a session, or, told to ignore them, leaves them out.
const SESSION: [(&str, &str); 6] = [
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
];

/// Of these, the first ones must have come through: what they bound would hold its locks for ever. Of the others the
/// server tells only where TCP leads to it.
const PROVEN: usize = 2;

/// What the question fails with whether a session kept what it was told.
const NOT_KEPT: &str = "KT002";

/// Where it did not.
const FORGETFUL: &str = "leads to a pool that does not keep what a session is set to (PgBouncer's pool_mode transaction or statement); let it \
     lead to the server itself, or to a pool with pool_mode = session";

/// What `fence_turn` fails with.
const SUPERSEDED: &str = "KT001";

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

/// Why the database did not do what was asked. No text repeats a password or a value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// The setting cannot be used.
    #[error("[catalog] url: {0}")]
    Settings(String),
    /// No connection, no answer in time, or a server that says "again later".
    #[error("{what}: the database cannot be reached: {cause}")]
    Unreachable {
        /// What was attempted.
        what: &'static str,
        /// What the server or the system said.
        cause: String,
    },
    /// The server is there and does not let us: password, permission, a database or table that does not exist.
    #[error("{what}: the database refuses: {cause}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// What the server said.
        cause: String,
    },
    /// The server could not do it, and would not the next time.
    #[error("{what}: the database failed: {cause}")]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// The server's code, and the constraint where one was broken.
        cause: String,
    },
    /// It was a write of a producer's turn, and another turn has begun.
    #[error("{what}: another turn of the producer has begun")]
    Superseded {
        /// What was attempted.
        what: &'static str,
    },
    /// The tables are not the ones that this executable works with; the text names the remedy.
    #[error("{0}")]
    Schema(String),
}

impl DatabaseError {
    /// Whether the same may work a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The error of one operation, by what it means for the caller.
    pub fn of(what: &'static str, error: &Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return if is_connection_error(error) {
                Self::Unreachable { what, cause: error_chain(error) }
            } else {
                Self::Failed { what, cause: error_chain(error) }
            };
        };
        let code = said.code().code();
        if code == SUPERSEDED {
            return Self::Superseded { what };
        }
        if code == NOT_KEPT {
            return Self::Settings(FORGETFUL.to_owned());
        }
        // The text of other classes may repeat a value of the statement.
        let cause = match &code[..2] {
            "08" | "25" | "28" | "3D" | "40" | "42" | "53" | "55" | "57" => format!("{} ({code})", said.message()),
            _ => match (said.table(), said.constraint()) {
                (Some(table), Some(constraint)) => format!("SQLSTATE {code}, table {table}, constraint {constraint}"),
                (Some(table), None) => format!("SQLSTATE {code}, table {table}, column {:?}", said.column()),
                _ => format!("SQLSTATE {code}"),
            },
        };
        match &code[..2] {
            // Connection, rollback (deadlock, serialisation), resources, locks.
            "08" | "40" | "53" | "55" => Self::Unreachable { what, cause },
            // Shut down, crashed, starting up, or this statement was cancelled.
            "57" => Self::Unreachable { what, cause },
            // A standby: the failover is under way.
            "25" if said.code() == &SqlState::READ_ONLY_SQL_TRANSACTION => Self::Unreachable { what, cause },
            // Its transaction was forgotten, or the plan is of an older schema: a new run is a new start.
            "25" | "26" => Self::Unreachable { what, cause },
            "0A" if said.message().contains("cached plan") => Self::Unreachable { what, cause },
            "28" | "3D" | "42" => Self::Refused { what, cause },
            _ => Self::Failed { what, cause },
        }
    }

    fn of_pool(what: &'static str, error: &PoolError) -> Self {
        let cause = match error {
            PoolError::Backend(error) => return Self::of(what, error),
            PoolError::Timeout(TimeoutType::Wait) => format!("all connections are in use for {POOL_WAIT:?}"),
            PoolError::Timeout(_) => "no connection in time".to_owned(),
            other => other.to_string(),
        };
        Self::Unreachable { what, cause }
    }
}

/// Whether an error says something of all sessions: the server is gone, a standby now, or has other tables. Conflicts
/// and want of resources do not.
fn ends_sessions(error: &Error) -> bool {
    match error.as_db_error().map(|said| &said.code().code()[..2]) {
        None => is_connection_error(error),
        Some(class) => matches!(class, "08" | "0A" | "25" | "26" | "57"),
    }
}

fn is_connection_error(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    // Neither parameters nor results: these two name a column, and are our own mistakes.
    error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>() || source.is::<rustls::Error>())
}

/// An error and what lies below it; `tokio_postgres` itself says only the upper half.
fn error_chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(below) = source {
        let said = below.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = below.source();
    }
    text
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
        self.inner.pool.get().await.map_err(|error| DatabaseError::of_pool(what, &error))
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

    /// Whether all connections are at work, and the server has answered some of it lately: a question would wait for the
    /// others, and its wait would say nothing of the server.
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

/// A connection outside the pool; it ends when this is dropped.
#[derive(Debug)]
pub struct Dedicated {
    /// The session.
    pub client: Client,
    /// Moves its bytes; ends when the connection is gone.
    pub driver: AbortOnDropHandle<()>,
}

/// Opens sessions.
#[derive(Clone)]
struct Connector {
    /// One configuration for each host, in the order of the URL.
    hosts: Arc<[Config]>,
    /// What a session is set to after connecting, and what finds out whether it is.
    session: Arc<[String; 2]>,
    /// None where every host is this machine.
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    fn new(url: &str, service: &str) -> Result<Self, DatabaseError> {
        let url = Url::read(url)?;
        let config: Config = url.plain.parse().map_err(|error: Error| {
            DatabaseError::Settings(match url.plain.matches('@').count() {
                0 | 1 => format!("{}; see the PostgreSQL manual", error_chain(&error)),
                // What was read as an option may be a part of the password.
                _ => "cannot be read; write an @ in user or password as %40".to_owned(),
            })
        })?;
        let count = config.get_hosts().len();
        if count == 0 || (!config.get_hostaddrs().is_empty() && config.get_hostaddrs().len() != count) {
            return Err(DatabaseError::Settings(
                "names no host; write postgres://user:password@host/database".to_owned(),
            ));
        }
        let hosts = (0..count).map(|at| one_host(&config, at, url.ssl, service)).collect::<Result<Arc<[_]>, _>>()?;
        let tls = hosts.iter().any(|host| host.get_ssl_mode() == SslMode::Require);
        let tls = tls.then(|| tls_connector(url.root_certificate.as_deref())).transpose()?;
        let session = Arc::new(session_of(config.get_options().unwrap_or_default())?);
        Ok(Self { hosts, session, tls })
    }

    /// How long it takes to find out that no host answers.
    fn patience(&self) -> Duration {
        HOST_TIMEOUT * u32::try_from(self.hosts.len()).unwrap_or(u32::MAX) + Duration::from_secs(1)
    }

    /// A session on the first host that gives one; the error is that of the last host, none if it did not answer.
    async fn open(&self) -> Result<(Client, AbortOnDropHandle<()>), Option<Error>> {
        let mut failed = None;
        for host in self.hosts.iter() {
            let session = async {
                let (client, driver) = match &self.tls {
                    Some(tls) if host.get_ssl_mode() == SslMode::Require => {
                        let (client, connection) = host.connect(tls.clone()).await?;
                        (client, task::spawn("postgres connection", drive(connection)))
                    }
                    _ => {
                        let (client, connection) = host.connect(NoTls).await?;
                        (client, task::spawn("postgres connection", drive(connection)))
                    }
                };
                // Nothing is prepared for it. Two messages: a pool may give the second one to another session.
                for said in self.session.iter() {
                    client.batch_execute(said).await?;
                }
                Ok::<_, Error>((client, driver))
            };
            failed = match tokio::time::timeout(HOST_TIMEOUT, session).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
        }
        Err(failed)
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(async {
            match self.open().await {
                // The pool ends the task with the client.
                Ok((client, driver)) => Ok((client, driver.detach())),
                Err(Some(error)) => Err(error),
                // There is no error to give for an answer that did not come: the pool's own timeout says it.
                Err(None) => std::future::pending().await,
            }
        })
    }
}

/// Moves a connection's bytes until it ends. How it ended, whoever waits for an answer hears as well.
async fn drive(connection: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = error_chain(&error), "database: connection ended");
    }
}

/// What a session is told, and the question whether it kept it. What the URL's options say comes later and wins.
fn session_of(options: &str) -> Result<[String; 2], DatabaseError> {
    let mut settings: Vec<(String, String)> = SESSION.map(|(name, value)| (name.into(), value.into())).into();
    let mut words = options.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let one = match word {
            "-c" => words.next(),
            _ => word.strip_prefix("--").or(word.strip_prefix("-c")),
        };
        // What is not understood is not repeated: it may be a part of a password that holds a question mark.
        let refuse = || DatabaseError::Settings("options: write each as -c name=value, without blanks".to_owned());
        let (name, value) = one.and_then(|one| one.split_once('=')).ok_or_else(refuse)?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte)) {
            return Err(refuse());
        }
        settings.push((name.to_ascii_lowercase(), value.replace('\'', "''")));
    }
    // As what a session begins with is read: a list stays one, where `set` would take it for one name.
    let told =
        settings.iter().map(|(name, value)| format!("select set_config('{name}', '{value}', false); ")).collect();
    let differs = SESSION[..PROVEN].iter().map(|(name, ours)| {
        let value = settings.iter().rfind(|(known, _)| known == name).map_or(*ours, |(_, value)| value);
        // A bare number is one of milliseconds.
        let unit = if value.bytes().all(|byte| byte.is_ascii_digit()) { "ms" } else { "" };
        format!("current_setting('{name}')::interval <> interval '{value}{unit}'")
    });
    let differs = differs.collect::<Vec<_>>().join(" or ");
    let asked = format!(
        "do $$ begin if {differs} then raise exception 'not kept' using errcode = '{NOT_KEPT}'; end if; end $$"
    );
    Ok([told, asked])
}

/// What a host on another machine is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ssl {
    /// Nothing said: TLS, but plain on this machine.
    Unsaid,
    /// Plain, which only this machine may ask for.
    Disable,
    /// TLS with a verified certificate.
    Require,
}

/// The URL, and what is read from it before `tokio_postgres` does, which knows fewer parameters.
struct Url {
    plain: String,
    ssl: Ssl,
    root_certificate: Option<String>,
}

impl Url {
    fn read(url: &str) -> Result<Self, DatabaseError> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(DatabaseError::Settings("does not begin with postgres://".to_owned()));
        }
        let mut read = Self { plain: url.to_owned(), ssl: Ssl::Unsaid, root_certificate: None };
        // A password in front of the @ may hold a question mark.
        let after_credentials = url.find('@').unwrap_or(0);
        let Some(question) = url[after_credentials..].find('?').map(|at| after_credentials + at) else {
            return Ok(read);
        };
        let mut kept = Vec::new();
        for parameter in url[question + 1..].split('&') {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => read.ssl = ssl_mode(mode)?,
                Some(("sslrootcert", "system")) => {}
                Some(("sslrootcert", path)) => read.root_certificate = Some(decoded(path)?),
                _ => kept.push(parameter),
            }
        }
        url[..question].clone_into(&mut read.plain);
        if !kept.is_empty() {
            read.plain = format!("{}?{}", read.plain, kept.join("&"));
        }
        Ok(read)
    }
}

fn ssl_mode(mode: &str) -> Result<Ssl, DatabaseError> {
    match mode {
        "disable" => Ok(Ssl::Disable),
        "prefer" => Ok(Ssl::Unsaid),
        // A certificate that is not verified protects nothing, so that the three are one.
        "require" | "verify-ca" | "verify-full" => Ok(Ssl::Require),
        _ => Err(DatabaseError::Settings("sslmode is disable, prefer, require or verify-full".to_owned())),
    }
}

/// A parameter of a URL as it was meant.
fn decoded(text: &str) -> Result<String, DatabaseError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|digits| hex::decode(digits).ok());
        let (byte, used) = hex.map_or((*first, 1), |hex| (hex[0], 3));
        bytes.push(byte);
        rest = &rest[used..];
    }
    String::from_utf8(bytes).map_err(|_| DatabaseError::Settings("sslrootcert is not UTF-8".to_owned()))
}

/// The configuration of one host of the URL.
fn one_host(config: &Config, at: usize, ssl: Ssl, service: &str) -> Result<Config, DatabaseError> {
    let mut one = Config::new();
    let is_own_machine = match (&config.get_hosts()[at], config.get_hostaddrs().get(at)) {
        (Host::Unix(path), _) => {
            one.host_path(path);
            true
        }
        (Host::Tcp(host), address) => {
            one.host(host);
            address.map_or_else(|| is_loopback(host), |address| address.is_loopback())
        }
    };
    if let Some(address) = config.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    if let Some(port) = config.get_ports().get(at).or(config.get_ports().first()) {
        one.port(*port);
    }
    one.ssl_mode(match (ssl, is_own_machine, &config.get_hosts()[at]) {
        (_, _, Host::Unix(_)) | (Ssl::Unsaid | Ssl::Disable, true, _) => SslMode::Disable,
        (Ssl::Unsaid | Ssl::Require, ..) => SslMode::Require,
        (Ssl::Disable, false, _) => {
            let text = "sslmode=disable sends calls' data in the clear to another machine; remove it or use require";
            return Err(DatabaseError::Settings(text.to_owned()));
        }
    });
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    one.application_name(config.get_application_name().unwrap_or(service));
    one.ssl_negotiation(config.get_ssl_negotiation());
    one.channel_binding(config.get_channel_binding());
    one.connect_timeout(config.get_connect_timeout().copied().unwrap_or(HOST_TIMEOUT));
    one.tcp_user_timeout(config.get_tcp_user_timeout().copied().unwrap_or(UNACKNOWLEDGED));
    one.keepalives_idle(Duration::from_secs(10));
    one.keepalives_interval(Duration::from_secs(5));
    one.keepalives_retries(3);
    one.target_session_attrs(match config.get_target_session_attrs() {
        // Of several hosts the one that takes writes; of one host what it is, for a failover may make it that.
        TargetSessionAttrs::Any if config.get_hosts().len() > 1 => TargetSessionAttrs::ReadWrite,
        asked => asked,
    });
    Ok(one)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// TLS that verifies chain and name by the roots of this machine, and those of `extra_roots`.
fn tls_connector(extra_roots: Option<&str>) -> Result<MakeRustlsConnect, DatabaseError> {
    let unusable = |what: String| DatabaseError::Settings(format!("sslrootcert: {what}"));
    let roots = match extra_roots {
        None => Vec::new(),
        Some(path) => {
            let file = std::fs::read(path).map_err(|error| unusable(format!("{path}: {error}")))?;
            let roots = CertificateDer::pem_slice_iter(without_mark(&file)).collect::<Result<Vec<_>, _>>();
            roots.map_err(|error| unusable(format!("{path}: {error}")))?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider.clone())
        .map_err(|error| unusable(error.to_string()))?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DatabaseError::Settings(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests;
