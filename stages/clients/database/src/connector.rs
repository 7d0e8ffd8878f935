//! Sessions: opened on the first host that gives one, and set to what every session is set to.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Connect;
use model::text::without_mark;
use runtime::task;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::DatabaseError;
use crate::error::{NOT_KEPT, error_chain};
use crate::url::{HOST_TIMEOUT, Url, one_host};

/// What every session is set to. A statement, and a transaction that its owner forgot, end by themselves; and a session
/// whose machine is gone ends within half a minute, with the locks that it holds. Each is set after connecting: a pool
/// (PgBouncer) refuses such things in the packet that begins a session, or, told to ignore them, leaves them out.
///
/// Every statement of ours is about some rows, found by an index. On a young table, or with statistics of yesterday, the
/// planner would rather hash the whole table for a batch: the cost of a conversation would grow with the rows that are
/// there.
const SESSION: [(&str, &str); 9] = [
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// Of these, the first ones must have come through: what they bound would hold its locks for ever. Of the others the
/// server tells only where TCP leads to it.
const PROVEN: usize = 2;

/// Opens sessions.
#[derive(Clone)]
pub(crate) struct Connector {
    /// One configuration for each host, in the order of the URL.
    pub(crate) hosts: Arc<[Config]>,
    /// What a session is set to after connecting, and what finds out whether it is.
    pub(crate) session: Arc<[String; 2]>,
    /// None where every host is this machine.
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    /// Reads the URL; connects to nothing.
    pub(crate) fn new(url: &str, service: &str) -> Result<Self, DatabaseError> {
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
    pub(crate) fn patience(&self) -> Duration {
        HOST_TIMEOUT * u32::try_from(self.hosts.len()).unwrap_or(u32::MAX) + Duration::from_secs(1)
    }

    /// A session on the first host that gives one; the error is that of the last host, none if it did not answer.
    pub(crate) async fn open(&self) -> Result<(Client, AbortOnDropHandle<()>), Option<Error>> {
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
