//! Accepted values → the typed sections.
//!
//! Each key is asked for by the type that its kind gives. A slip between table and struct is a panic, and a test
//! that builds every section finds it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use jiff::{civil::Time, tz::TimeZone};
use model::ImportSince;
use reqwest::Url;
use secrecy::SecretString;

use super::{
    AdminConfig, AgentsConfig, AuthFlow, CatalogConfig, Config, ConsumerConfig, EventsConfig, FlowConfig, LimitsConfig,
    LogConfig, NiceConfig, QueueConfig, QueueKind, ReconciliationConfig, RecordingsConfig, RetryConfig, S3Credentials,
    SecretSource, StateConfig, TenantConfig, WebhookConfig,
    load::Values,
    page,
    value::{MediaHost, Rate, SealKey, Value},
};

/// Bytes in a MiB.
const MIB: usize = 1 << 20;

/// An enumeration whose variants are the words of a key.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Typed for $name {
            fn typed(value: &Value) -> Option<Self> {
                match value {
                    $(Value::Word($word) => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

words!(
    /// What the group is in NICE.
    GroupKind {
        /// An ACD group.
        AcdGroup = "acd_group",
        /// A team.
        Team = "team",
    }
);

words!(
    /// Which audio belongs to a conversation.
    RecordingScope {
        /// What this agent's leg of the call contains.
        Leg = "leg",
        /// The whole call.
        Master = "master",
    }
);

words!(
    /// Which encryption at rest the store is asked for.
    Encryption {
        /// As the bucket says.
        None = "none",
        /// With keys of the store.
        SseS3 = "sse-s3",
        /// With a key of the key management service.
        SseKms = "sse-kms",
    }
);

words!(
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
    }
);

/// A type that some kind of value gives.
trait Typed: Sized {
    fn typed(value: &Value) -> Option<Self>;
}

/// Which variant of [`Value`] gives which type.
macro_rules! typed {
    ($($variant:ident => $type:ty,)+) => {
        $(impl Typed for $type {
            fn typed(value: &Value) -> Option<Self> {
                match value {
                    Value::$variant(value) => Some(value.clone()),
                    _ => None,
                }
            }
        })+
    };
}

typed!(
    Text => String,
    Path => PathBuf,
    Flag => bool,
    Count => u32,
    Share => f64,
    Duration => Duration,
    Since => ImportSince,
    Durations => Vec<Duration>,
    Rate => Rate,
    Word => &'static str,
    Url => Option<Url>,
    MediaHosts => Vec<MediaHost>,
    Zone => TimeZone,
    Time => Time,
    Listen => SocketAddr,
    Secret => SecretString,
    SealKey => SealKey,
);

impl Values {
    /// The value of a key, if it is given or has a default.
    fn optional<T: Typed>(&self, section: &'static str, key: &'static str) -> Option<T> {
        let setting = self.setting(section, key)?;
        Some(T::typed(&setting.value).unwrap_or_else(|| panic!("[{section}] {key} has another kind in the table")))
    }

    /// The value of a key that has a default.
    fn get<T: Typed>(&self, section: &'static str, key: &'static str) -> T {
        self.optional(section, key).unwrap_or_else(|| panic!("[{section}] {key} has no default in the table"))
    }
}

/// Builds the whole from values without a mistake.
pub(super) fn config(values: &Values) -> Config {
    Config {
        tenant: values.optional("tenant", "id").map(|id| TenantConfig { id }),
        nice: nice(values),
        agents: AgentsConfig {
            sync_interval: values.get("agents", "sync_interval"),
            hold_count: values.get("agents", "hold_count"),
            hold_share: values.get("agents", "hold_share"),
            hold_for: values.get("agents", "hold_for"),
        },
        events: events(values),
        reconciliation: ReconciliationConfig {
            at: values.get("reconciliation", "at"),
            timezone: values.get("reconciliation", "timezone"),
            window: values.get("reconciliation", "window"),
            lateness: values.get("reconciliation", "lateness"),
            longest_call: values.get("reconciliation", "longest_call"),
            settle: values.get("reconciliation", "settle"),
            recheck: values.get("reconciliation", "recheck"),
        },
        limits: LimitsConfig {
            media_playback: values.get("limits", "media_playback"),
            acd: values.get("limits", "acd"),
            live_reserve: values.get("limits", "live_reserve"),
            page_size: values.get("limits", "page_size"),
            timeout: values.get("limits", "timeout"),
        },
        retry: RetryConfig {
            not_ready_delays: values.get("retry", "not_ready_delays"),
            first_look: values.get("retry", "first_look"),
            first_guess: values.get("retry", "first_guess"),
            recording_deadline: values.get("retry", "recording_deadline"),
            error_delay_min: values.get("retry", "error_delay_min"),
            error_delay_max: values.get("retry", "error_delay_max"),
            dead_letter_age: values.get("retry", "dead_letter_age"),
        },
        flow: FlowConfig { grace: values.get("flow", "grace") },
        consumer: ConsumerConfig { concurrency: values.get::<u32>("consumer", "concurrency") as usize },
        queue: queue(values),
        catalog: catalog(values),
        recordings: recordings(values),
        recording_min_rate: u64::from(values.get::<u32>("recordings", "min_rate")),
        verify: values
            .optional("recordings", "verify_every")
            .map(|every| stages::verify::Schedule { every, sample: values.get("recordings", "verify_sample") }),
        state: StateConfig { dir: values.get("state", "dir"), retention: values.get("state", "retention") },
        admin: AdminConfig { listen: values.get("admin", "listen") },
        log: LogConfig { format: values.get("log", "format"), filter: values.get("log", "filter") },
        is_set: values.is_any_given(),
        page: page::redacted(values),
    }
}

/// Builds `[nice]`, if it is complete for its flow.
pub(super) fn nice(values: &Values) -> Option<NiceConfig> {
    let auth_flow = match values.get("nice", "auth_flow") {
        "oauth" => AuthFlow::Oauth {
            client_id: values.optional("nice", "client_id")?,
            client_secret: values.optional("nice", "client_secret")?,
        },
        "access_key" => AuthFlow::AccessKey,
        other => unreachable!("the table knows no flow {other}"),
    };
    Some(NiceConfig {
        issuer: values.get::<Option<Url>>("nice", "issuer")?,
        auth_flow,
        access_key_id: values.optional("nice", "access_key_id")?,
        access_key_secret: values.optional("nice", "access_key_secret")?,
        group_kind: values.get("nice", "group_kind"),
        group: values.optional("nice", "group")?,
        api_version: values.get("nice", "api_version"),
        acd_url: values.get("nice", "acd_url"),
        facade_url: values.get("nice", "facade_url"),
        auth_url: values.get("nice", "auth_url"),
        media_hosts: values.get("nice", "media_hosts"),
        private_media_hosts: values.get("nice", "private_media_hosts"),
        recording_scope: values.get("nice", "recording_scope"),
        retention: values.optional("nice", "retention"),
    })
}

fn events(values: &Values) -> EventsConfig {
    let token = values.optional("events", "webhook_token").filter(|_| values.get("events", "webhook"));
    EventsConfig {
        poll: values.get("events", "poll"),
        poll_interval: values.get("events", "poll_interval"),
        poll_overlap: values.get("events", "poll_overlap"),
        import_since: values.get("events", "import_since"),
        fresh: values.get("events", "fresh"),
        webhook: token.map(|token| WebhookConfig { listen: values.get("events", "webhook_listen"), token }),
        agent_sessions: values.get("events", "agent_sessions"),
    }
}

fn queue(values: &Values) -> Option<QueueConfig> {
    let url = values.optional("queue", "url");
    let kind = match values.get("queue", "kind") {
        "embedded" => QueueKind::Embedded,
        "rabbitmq" => QueueKind::Rabbitmq { url: url? },
        "fluvio" => QueueKind::Fluvio { url },
        other => unreachable!("the table knows no queue {other}"),
    };
    Some(QueueConfig { kind, ca_file: file(values, "queue", "ca_file"), prefix: values.get("queue", "prefix") })
}

fn catalog(values: &Values) -> Option<CatalogConfig> {
    match values.get("catalog", "kind") {
        "embedded" => Some(CatalogConfig::Embedded),
        "postgres" => Some(CatalogConfig::Postgres {
            url: values.optional("catalog", "url")?,
            connections: values.get::<u32>("catalog", "connections") as usize,
            seal_key: values.optional("catalog", "seal_key"),
            erasure_key: values.optional("catalog", "erasure_key"),
            analysis_retention: values.get("catalog", "analysis_retention"),
        }),
        other => unreachable!("the table knows no catalog {other}"),
    }
}

fn recordings(values: &Values) -> Option<RecordingsConfig> {
    match values.get("recordings", "kind") {
        "filesystem" => {
            let dir: PathBuf = values.get("recordings", "dir");
            let state: PathBuf = values.get("state", "dir");
            let dir = if dir.as_os_str().is_empty() { state.join("recordings") } else { dir };
            Some(RecordingsConfig::Filesystem { dir })
        }
        "s3" => Some(RecordingsConfig::S3 {
            endpoint: values.optional::<Option<Url>>("recordings", "endpoint")??,
            bucket: values.optional("recordings", "bucket")?,
            region: values.get("recordings", "region"),
            credentials: s3_credentials(values)?,
            encryption: values.get("recordings", "encryption"),
            kms_key_id: values.optional("recordings", "kms_key_id"),
            memory: values.get::<u32>("recordings", "memory_mib") as usize * MIB,
            ca_file: file(values, "recordings", "ca_file"),
        }),
        other => unreachable!("the table knows no recording store {other}"),
    }
}

fn s3_credentials(values: &Values) -> Option<S3Credentials> {
    if let Some(path) = file(values, "recordings", "credentials_file") {
        return Some(S3Credentials::File { path, profile: values.get("recordings", "credentials_profile") });
    }
    let secret = |key| {
        let setting = values.setting("recordings", key)?;
        let text = SecretString::typed(&setting.value)?;
        Some(setting.file.clone().map_or(SecretSource::Here(text), SecretSource::File))
    };
    Some(S3Credentials::Key {
        access_key_id: values.optional("recordings", "access_key_id")?,
        secret_access_key: secret("secret_access_key")?,
        session_token: secret("session_token"),
    })
}

/// A path that may be left empty.
fn file(values: &Values, section: &'static str, key: &'static str) -> Option<PathBuf> {
    Some(values.get(section, key)).filter(|path: &PathBuf| !path.as_os_str().is_empty())
}
