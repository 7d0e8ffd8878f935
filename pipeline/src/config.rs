//! The settings: a TOML file and the environment → a [`Config`], or every mistake at once.
//!
//! ```text
//!  file ─────────┐
//!                ├─► source ─► load (walks keys.rs) ─► sections ─► Config
//!  environment ──┘             value.rs reads each value     page.rs shows them
//! ```
//!
//! `keys.rs` is the one page that says which settings exist. Every key is also `NICE_KNOVVU_SECTION__KEY`, which wins
//! over the file; every secret also `KEY_file`, the path of a file that holds it.
//!
//! # Contract
//! Only the settings file and the secret files are touched, before any port, store or server. A mistake names the key
//! as written and the remedy. No secret reaches an error, a `Debug` or [`Config::to_redacted_toml`].

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{civil::Time, tz::TimeZone};
use model::ImportSince;
use reqwest::Url;
use secrecy::SecretString;
use stages::verify::Schedule;

mod error;
mod keys;
mod load;
mod nearest;
mod page;
mod sections;
mod source;
mod value;

#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "the page is written by a test")]
pub(crate) use self::page::default_page;
pub(crate) use self::{
    error::ConfigErrors,
    sections::{Encryption, GroupKind, LogFormat, RecordingScope},
    value::{MediaHost, Rate, SealKey},
};
#[cfg(test)]
pub(crate) use self::{keys::written, page::settings_page};

/// The settings file that is read where none is named.
pub(crate) const DEFAULT_FILE: &str = "nice-knovvu.toml";

/// Larger than any settings file.
const LARGEST_FILE: u64 = 1 << 20;

/// Which settings a command cannot do without. Whatever is given is validated in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Everything: `run`, `check`.
    Service,
    /// Everything but the recording store: `producer`.
    Producer,
    /// Everything but the webhook; the tenant only where the catalog is embedded: `consumer`.
    Consumer,
    /// Tenant, queue, catalog with its key, and the recording store: `erase`.
    Erasure,
    /// Tenant, NICE and catalog: `agents sync`.
    Nice,
    /// The catalog with its key: `settings`.
    Settings,
    /// The catalog: `migrate`.
    #[cfg_attr(not(feature = "servers"), expect(dead_code, reason = "the command is refused"))]
    Catalog,
    /// Nothing but what has a default: listings.
    Local,
}

/// The settings, each section a plain struct.
///
/// A section without which some commands work is an `Option`: `Some` whenever it is complete, so always where the
/// [`Need`] asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Whose calls this process brings in.
    pub tenant: Option<TenantConfig>,
    /// The tenant's NICE settings; with a PostgreSQL catalog those of the database are valid instead.
    pub nice: Option<NiceConfig>,
    /// The sync of agents.
    pub agents: AgentsConfig,
    /// How the end of a call becomes known.
    pub events: EventsConfig,
    /// The nightly comparison.
    pub reconciliation: ReconciliationConfig,
    /// NICE's limits for one tenant of NICE's.
    pub limits: LimitsConfig,
    /// What waits, and for how long.
    pub retry: RetryConfig,
    /// How a process ends.
    pub flow: FlowConfig,
    /// The conversation consumer.
    pub consumer: ConsumerConfig,
    /// The queue; none where a broker is chosen without its address.
    pub queue: Option<QueueConfig>,
    /// The Knovvu database; none where PostgreSQL is chosen without its address.
    pub catalog: Option<CatalogConfig>,
    /// Where the recordings are stored; none where S3 is chosen and not described.
    pub recordings: Option<RecordingsConfig>,
    /// The slowest that a recording may arrive from its host, in bytes per second.
    pub recording_min_rate: u64,
    /// How much of it is read back by itself.
    pub verify: Option<Schedule>,
    /// What a process remembers on its local disk.
    pub state: StateConfig,
    /// Health, metrics and the commands that ask the daemon.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
    /// Whether anything is not as by default.
    is_set: bool,
    /// The effective settings as TOML, secrets masked.
    page: String,
}

/// `[tenant]`
#[derive(Debug, Clone)]
pub(crate) struct TenantConfig {
    /// 1 to 64 of `[A-Za-z0-9_-]`.
    pub id: String,
}

/// `[nice]`
#[derive(Debug, Clone)]
pub(crate) struct NiceConfig {
    /// Where discovery begins.
    pub issuer: Url,
    /// How a token is obtained.
    pub auth_flow: AuthFlow,
    /// The id of the access key.
    pub access_key_id: String,
    /// The secret of the access key.
    pub access_key_secret: SecretString,
    /// What the group is.
    pub group_kind: GroupKind,
    /// The group's id or name.
    pub group: String,
    /// Such as `v33.0`.
    pub api_version: String,
    /// Overrides discovery.
    pub acd_url: Option<Url>,
    /// Overrides discovery.
    pub facade_url: Option<Url>,
    /// Overrides discovery.
    pub auth_url: Option<Url>,
    /// Recordings are fetched from these only; never empty.
    pub media_hosts: Vec<MediaHost>,
    /// Those of them that may lead to a private address.
    pub private_media_hosts: Vec<MediaHost>,
    /// Which audio belongs to a conversation.
    pub recording_scope: RecordingScope,
    /// How long conversations are kept; none: for ever.
    pub retention: Option<Duration>,
}

/// How a token is obtained.
#[derive(Debug, Clone)]
pub(crate) enum AuthFlow {
    /// OAuth's password grant, by a registered client.
    Oauth {
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: SecretString,
    },
    /// UserHub's access key alone.
    AccessKey,
}

/// `[agents]`
#[derive(Debug, Clone)]
pub(crate) struct AgentsConfig {
    /// How often the group's users are read.
    pub sync_interval: Duration,
    /// A reading that loses more agents than this, and more than the share, is held.
    pub hold_count: u32,
    /// The share of the agents that a reading may lose.
    pub hold_share: f64,
    /// How long such a reading is held.
    pub hold_for: Duration,
}

/// `[events]`
#[derive(Debug, Clone)]
pub(crate) struct EventsConfig {
    /// Whether completed contacts are polled.
    pub poll: bool,
    /// How often.
    pub poll_interval: Duration,
    /// How far each poll looks back behind the last one.
    pub poll_overlap: Duration,
    /// How far back the first start reaches.
    pub import_since: ImportSince,
    /// A call that ended longer ago goes behind fresh ones.
    pub fresh: Duration,
    /// The webhook, where it is switched on.
    pub webhook: Option<WebhookConfig>,
    /// Whether the agents' session events are listened to.
    pub agent_sessions: bool,
}

/// The webhook of `[events]`
#[derive(Debug, Clone)]
pub(crate) struct WebhookConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its caller presents.
    pub token: SecretString,
}

/// `[reconciliation]`
#[derive(Debug, Clone)]
pub(crate) struct ReconciliationConfig {
    /// Time of day at which it begins.
    pub at: Time,
    /// The zone of that time.
    pub timezone: TimeZone,
    /// How far it looks back.
    pub window: Duration,
    /// NICE may list a call so long after its end.
    pub lateness: Duration,
    /// How much earlier than the window a call may have begun.
    pub longest_call: Duration,
    /// Longer than the flow leaves a call without a word.
    pub settle: Duration,
    /// The age at which a call that lacks recordings is looked at once more; zero for never.
    pub recheck: Duration,
}

/// `[limits]`
#[derive(Debug, Clone)]
pub(crate) struct LimitsConfig {
    /// Requests for recordings.
    pub media_playback: Rate,
    /// Requests to the ACD API.
    pub acd: Rate,
    /// The share, 0 to 1, that backfill may never take.
    pub live_reserve: f64,
    /// Rows that a request for completed calls asks for.
    pub page_size: u32,
    /// How long NICE may take for an answer.
    pub timeout: Duration,
}

/// `[retry]`
#[derive(Debug, Clone)]
pub(crate) struct RetryConfig {
    /// The steps of a call whose recording is not ready; never empty.
    pub not_ready_delays: Vec<Duration>,
    /// The share of recordings that shall be there at the first look, 0 to 0.999; 0: look at once.
    pub first_look: f64,
    /// When a call is looked at first before anything is learned.
    pub first_guess: Duration,
    /// After this a call without a recording is final.
    pub recording_deadline: Duration,
    /// The first delay after an error.
    pub error_delay_min: Duration,
    /// The longest delay after an error.
    pub error_delay_max: Duration,
    /// How long a dead letter stands on the shelf.
    pub dead_letter_age: Duration,
}

/// `[flow]`
#[derive(Debug, Clone)]
pub(crate) struct FlowConfig {
    /// How long the stages may finish what they hold.
    pub grace: Duration,
}

/// `[consumer]`
#[derive(Debug, Clone)]
pub(crate) struct ConsumerConfig {
    /// How many conversations are worked on at a time, 1 to 1024.
    pub concurrency: usize,
}

/// `[queue]`
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "servers"),
    expect(dead_code, reason = "validated with the rest; acted on by the clients of the servers")
)]
pub(crate) struct QueueConfig {
    /// Which queue.
    pub kind: QueueKind,
    /// Certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What the names of all queues begin with.
    pub prefix: String,
}

/// Which queue.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "servers"),
    expect(dead_code, reason = "validated with the rest; acted on by the clients of the servers")
)]
pub(crate) enum QueueKind {
    /// On the local disk.
    Embedded,
    /// RabbitMQ.
    Rabbitmq {
        /// `amqp://…` or `amqps://…`, with its password.
        url: SecretString,
    },
    /// Fluvio.
    Fluvio {
        /// The cluster; none: as its own profile says.
        #[allow(dead_code, reason = "validated with the rest; the client is not part of this executable")]
        url: Option<SecretString>,
    },
}

/// `[catalog]`
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "servers"),
    expect(dead_code, reason = "validated with the rest; acted on by the clients of the servers")
)]
pub(crate) enum CatalogConfig {
    /// On the local disk.
    Embedded,
    /// The Knovvu database.
    Postgres {
        /// `postgres://…`, with its password.
        url: SecretString,
        /// The most connections of a process.
        connections: usize,
        /// Seals and opens NICE's secrets; given to all but the commands that read no secret.
        seal_key: Option<SealKey>,
        /// By which erased conversations are known; none: by one derived from the seal key.
        erasure_key: Option<SealKey>,
        /// How long finished entries of the analysis queue are kept.
        analysis_retention: Duration,
    },
}

/// `[recordings]`
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "servers"),
    expect(dead_code, reason = "validated with the rest; acted on by the clients of the servers")
)]
#[expect(clippy::large_enum_variant, reason = "made once for a process")]
pub(crate) enum RecordingsConfig {
    /// Below a directory.
    Filesystem {
        /// The directory; never empty.
        dir: PathBuf,
    },
    /// MinIO, AWS.
    S3 {
        /// Root of the service.
        endpoint: Url,
        /// The bucket.
        bucket: String,
        /// The region that requests are signed for.
        region: String,
        /// The key to the bucket.
        credentials: S3Credentials,
        /// Encryption at rest.
        encryption: Encryption,
        /// The key of `sse-kms`.
        kms_key_id: Option<String>,
        /// Bytes that all uploads of the process hold at a time.
        memory: usize,
        /// Certificates that are trusted besides the system's.
        ca_file: Option<PathBuf>,
    },
}

/// Where the key to the bucket stands.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "servers"),
    expect(dead_code, reason = "validated with the rest; acted on by the clients of the servers")
)]
pub(crate) enum S3Credentials {
    /// In the settings.
    Key {
        /// The id of the key.
        access_key_id: String,
        /// The secret of the key.
        secret_access_key: SecretSource,
        /// The token of a temporary key.
        session_token: Option<SecretSource>,
    },
    /// In a file that is read again when it changes.
    File {
        /// In the format of AWS's shared credentials.
        path: PathBuf,
        /// The profile in it.
        profile: String,
    },
}

/// A secret that may change while the process runs.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "servers"),
    expect(dead_code, reason = "validated with the rest; acted on by the clients of the servers")
)]
pub(crate) enum SecretSource {
    /// It stands in the settings, and does not.
    Here(SecretString),
    /// It stands in this file, which is read again when it changes.
    File(PathBuf),
}

/// `[state]`
#[derive(Debug, Clone)]
pub(crate) struct StateConfig {
    /// The directory.
    pub dir: PathBuf,
    /// How long processed ids are remembered.
    pub retention: Duration,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub(crate) struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// `[log]`
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// For people or machines.
    pub format: LogFormat,
    /// Level, or levels by module; not yet parsed.
    pub filter: String,
}

impl Config {
    /// Reads the file (none: no file) and the environment; `env` is best `std::env::vars_os()`.
    pub(crate) fn load<K: Into<OsString>, V: Into<OsString>>(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (K, V)>,
        need: Need,
    ) -> Result<Self, ConfigErrors> {
        let name = file.map(|path| path.display().to_string()).unwrap_or_default();
        let text = match file {
            Some(path) => source::read_small(path, LARGEST_FILE).map_err(|fault| {
                let remedy = format!("correct --config or {}", source::FILE_VARIABLE);
                ConfigErrors::one(&name, format!("the settings file cannot be used: {fault}; {remedy}"))
            })?,
            None => String::new(),
        };
        Self::from_text(&text, &name, env, need)
    }

    /// As [`Config::load`], with the file already read; `name` stands for it in mistakes.
    pub(crate) fn from_text<K: Into<OsString>, V: Into<OsString>>(
        text: &str,
        name: &str,
        env: impl IntoIterator<Item = (K, V)>,
        need: Need,
    ) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let file = source::read_text(text, name, &mut errors);
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into()));
        let environment = source::read_environment(env, &mut errors);
        let Some(file) = file else { return Err(errors.sorted()) };
        let values = load::accept(file, environment, need, name, load::Scope::Settings, &mut errors);
        errors.into_result()?;
        Ok(sections::config(&values))
    }

    /// Whether any setting was given.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    /// The effective settings as TOML, each with its origin; secrets are masked.
    pub(crate) fn to_redacted_toml(&self) -> &str {
        &self.page
    }
}

impl NiceConfig {
    /// Reads a table `[nice]` that stands alone; `name` stands for the text in mistakes.
    #[cfg_attr(not(feature = "servers"), expect(dead_code, reason = "the command is refused"))]
    pub(crate) fn from_toml(text: &str, name: &str) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let Some(entries) = source::read_text(text, name, &mut errors) else { return Err(errors.sorted()) };
        let scope = load::Scope::Nice;
        for entry in &entries {
            let stranger = keys::all().find(|(place, section, _)| *place == entry.key && !scope.holds(section));
            if stranger.is_some() {
                errors.add(entry.rank, &entry.place, "only the table [nice] is read here; remove this key");
            }
        }
        let values = load::accept(entries, Vec::new(), Need::Nice, name, scope, &mut errors);
        errors.into_result()?;
        sections::nice(&values).ok_or_else(|| ConfigErrors::one(name, "[nice]: not complete"))
    }
}

/// The file to load: the one named by `--config`, else by `NICE_KNOVVU_CONFIG`, else `./nice-knovvu.toml` if present.
#[allow(clippy::disallowed_methods, reason = "only this module reads the environment")]
pub(crate) fn settings_file(flag: Option<PathBuf>) -> Option<PathBuf> {
    let named = || std::env::var_os(source::FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    flag.or_else(named).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()))
}

/// A span of time as it is written in the settings and on the command line, such as `24h`; longer than none.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    value::span(text)
}
