//! The servers of production: RabbitMQ, PostgreSQL and S3.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::{Catalog, PostgresCatalog, TombstoneKey};
use database::{DatabaseError, DatabaseOptions, ProducerLease, schema};
use model::TenantId;
use queue::{Queue, RabbitError, RabbitOptions, RabbitQueue};
use quota::{SharedStores, Stores};
use recordings::{Credentials, Encryption, RecordingStore, S3Options, S3Store};
use stages::{
    metrics::Metrics,
    tenants::{Seal, SettingsError, SettingsSource, SettingsTable},
};

use crate::command_error::CommandError;
use crate::config;
use crate::config::{CatalogKind, Config, RecordingsConfig, RecordingsKind, SecretSource};
use crate::lease::Lease;

pub(crate) use database::Database;

/// What the servers' operators see of us.
pub(super) const SERVICE: &str = "nice-knovvu";

/// Chooses the one cryptography that every TLS connection uses.
pub(crate) fn install_crypto() {
    // Fails only where one is chosen already, and that is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// The way to the Knovvu database, where it is on a server; connects to nothing yet.
pub(crate) fn database(config: &Config) -> Result<Option<Database>, CommandError> {
    match (config.catalog.kind, &config.catalog.url) {
        (CatalogKind::Postgres, Some(url)) => {
            let connections = config.catalog.connections;
            Ok(Some(Database::new(DatabaseOptions { url: url.clone(), connections, service: SERVICE })?))
        }
        (CatalogKind::Postgres, None) => {
            Err(CommandError::usage("[catalog] url: missing, but needed for [catalog] kind = \"postgres\""))
        }
        (CatalogKind::Embedded, _) => Ok(None),
    }
}

/// The catalog in that database, whose tables must be the ones we know, and whose tombstones must be of our key.
pub(crate) async fn catalog(config: &Config, database: &Database) -> Result<Arc<dyn Catalog>, CommandError> {
    schema::check(database).await?;
    let key = config.catalog.erasure_key.as_ref().or(config.catalog.seal_key.as_ref());
    let catalog = PostgresCatalog::new(database.clone(), key.map(|key| TombstoneKey::derived(key.expose())));
    catalog.check_key().await?;
    Ok(Arc::new(catalog))
}

/// The queue on RabbitMQ.
pub(super) async fn rabbit_queue(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Queue>, CommandError> {
    Ok(Arc::new(RabbitQueue::connect(rabbit(config)?, &metrics.queue).await?))
}

/// The settings of RabbitMQ, be it the queue or the one beside it.
fn rabbit(config: &Config) -> Result<RabbitOptions, CommandError> {
    let queue = &config.queue;
    let Some(url) = queue.rabbitmq().cloned() else {
        return Err(CommandError::usage(
            "[queue] url: missing, but needed for RabbitMQ; write amqps://user:password@host:port/vhost, or url_file",
        ));
    };
    Ok(RabbitOptions {
        url,
        prefix: queue.prefix.clone(),
        delays: config.retry.not_ready_delays.clone(),
        ca: queue.ca_file.as_deref().map(|path| readable("[queue] ca_file", path)).transpose()?,
        service: SERVICE.to_owned(),
    })
}

/// Lets the client of RabbitMQ check its settings.
pub(super) fn validate_rabbit(config: &Config) -> Result<(), CommandError> {
    Ok(rabbit(config)?.validate()?)
}

/// The recording store in a bucket; connects to nothing yet. `marks` is where this machine's processes tell each other
/// of their uploads.
pub(super) async fn recordings(
    config: &Config,
    marks: Option<PathBuf>,
    metrics: &Metrics,
) -> Result<Arc<dyn RecordingStore>, CommandError> {
    let Some(options) = s3(&config.recordings)? else {
        return Err(CommandError::usage("[recordings] endpoint, bucket: missing"));
    };
    let options = S3Options { marks, ..options };
    Ok(Arc::new(S3Store::open(options, metrics.recordings.clone()).await.map_err(CommandError::usage)?))
}

/// The settings of S3, where it is the store and its bucket and key are given.
fn s3(store: &RecordingsConfig) -> Result<Option<S3Options>, CommandError> {
    if store.kind != RecordingsKind::S3 {
        return Ok(None);
    }
    let credentials = match (&store.credentials_file, &store.access_key_id, &store.secret_access_key) {
        (Some(file), ..) => Credentials::Profile { file: file.clone(), profile: store.credentials_profile.clone() },
        (None, Some(id), Some(secret)) => key(id, secret, store.session_token.as_ref())?,
        _ => return Ok(None),
    };
    let (Some(endpoint), Some(bucket)) = (&store.endpoint, &store.bucket) else {
        return Ok(None);
    };
    let encryption = match store.encryption {
        config::EncryptionKind::None => Encryption::Bucket,
        config::EncryptionKind::SseS3 => Encryption::SseS3,
        config::EncryptionKind::SseKms => Encryption::SseKms { key_id: store.kms_key_id.clone() },
    };
    let options =
        S3Options::new(endpoint.clone(), bucket.clone(), store.region.clone(), credentials).for_rate(store.min_rate);
    Ok(Some(S3Options { encryption, ca_file: store.ca_file.clone(), memory: store.memory_mib * MIB, ..options }))
}

/// Bytes in a MiB.
const MIB: usize = 1 << 20;

/// The key; if files hold it, it is read again when they change.
fn key(id: &str, secret: &SecretSource, token: Option<&SecretSource>) -> Result<Credentials, CommandError> {
    let access_key_id = id.to_owned();
    match (secret, token) {
        (SecretSource::Here(secret), None) => {
            Ok(Credentials::Static { access_key_id, secret_access_key: secret.clone(), session_token: None })
        }
        (SecretSource::Here(secret), Some(SecretSource::Here(token))) => Ok(Credentials::Static {
            access_key_id,
            secret_access_key: secret.clone(),
            session_token: Some(token.clone()),
        }),
        (SecretSource::File(secret), None) => Ok(Credentials::SecretFile {
            access_key_id,
            secret_access_key_file: secret.clone(),
            session_token_file: None,
        }),
        (SecretSource::File(secret), Some(SecretSource::File(token))) => Ok(Credentials::SecretFile {
            access_key_id,
            secret_access_key_file: secret.clone(),
            session_token_file: Some(token.clone()),
        }),
        _ => Err(CommandError::usage(
            "[recordings] session_token: give it as secret_access_key is given: both in files, or neither",
        )),
    }
}

/// Longer than any file of certificates or keys.
const LARGEST_FILE: u64 = 1 << 20;

/// The text of a file that the settings name.
fn readable(key: &str, path: &Path) -> Result<String, CommandError> {
    config::read_small(path, LARGEST_FILE).map_err(|fault| {
        let remedy = "correct the path, or let this user read the file";
        CommandError::usage(format!("{key}: {}: {fault}; {remedy}", path.display()))
    })
}

/// The NICE settings of all tenants; without the seal key they can be shown only.
pub(crate) fn settings_table(config: &Config, database: &Database) -> SettingsTable {
    let seal = config.catalog.seal_key.as_ref().map(|key| Seal::new(key.expose()));
    SettingsTable::new(database.clone(), seal)
}

/// The same table, as the registry of tenants takes it.
pub(super) fn settings_source(config: &Config, database: &Database) -> Arc<dyn SettingsSource> {
    Arc::new(settings_table(config, database))
}

/// The rate budgets that all processes share.
pub(super) fn budgets(database: &Database) -> Arc<dyn Stores> {
    Arc::new(SharedStores::new(database.clone()))
}

/// Fails if connections to the database share sessions (a pooler): a lease would hold nothing then.
pub(crate) async fn check_session(database: &Database) -> Result<(), CommandError> {
    Ok(::database::check_session(database).await?)
}

/// The right to be the tenant's producer.
pub(super) fn lease(database: Option<&Database>, tenant: &TenantId) -> Lease {
    match database {
        Some(database) => Lease::Contended(ProducerLease::new(database.clone(), tenant.clone())),
        None => Lease::Sole,
    }
}

/// Lets the clients of database and store check their settings before anything is touched.
pub(super) fn validate(config: &Config) -> Result<(), CommandError> {
    if config.catalog.url.is_some() {
        database(config)?;
    }
    let store = &config.recordings;
    if s3(store)?.is_some() {
        for (key, file) in [("credentials_file", &store.credentials_file), ("ca_file", &store.ca_file)] {
            if let Some(file) = file {
                readable(&format!("[recordings] {key}"), file)?;
            }
        }
    }
    Ok(())
}

impl From<RabbitError> for CommandError {
    fn from(error: RabbitError) -> Self {
        match &error {
            RabbitError::Url(_) | RabbitError::Prefix => Self::usage(error),
            RabbitError::Unreachable { .. } | RabbitError::Login { .. } | RabbitError::VirtualHost { .. } => {
                Self::unreachable(error)
            }
            RabbitError::Forbidden { .. } | RabbitError::Differs { .. } | RabbitError::Failed(_) => Self::failed(error),
        }
    }
}

impl From<SettingsError> for CommandError {
    fn from(error: SettingsError) -> Self {
        match &error {
            SettingsError::Unreachable(_) => Self::unreachable(format!("[catalog] url: {error}")),
            SettingsError::Unusable(_) => Self::failed(error),
        }
    }
}

impl From<DatabaseError> for CommandError {
    fn from(error: DatabaseError) -> Self {
        match &error {
            DatabaseError::Settings(_) => Self::usage(error),
            // The setting is named that leads there.
            DatabaseError::Unreachable { .. } | DatabaseError::Refused { .. } => {
                Self::unreachable(format!("[catalog] url: {error}"))
            }
            DatabaseError::Failed { .. } | DatabaseError::Superseded { .. } | DatabaseError::Schema(_) => {
                Self::failed(error)
            }
        }
    }
}
