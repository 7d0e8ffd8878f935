//! Every setting, on one page: kind, default or example, meaning, and why one would change it.
//!
//! The loader, the names in the environment, `config.default.toml` and `check` all walk this table; a key that is not
//! here does not exist. A default is written as it would stand in an environment variable.

use super::value::Kind;

/// A section of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    pub(super) keys: &'static [Key],
}

/// A setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) preset: Preset,
    pub(super) needed: Needed,
    /// What it is, with its unit.
    pub(super) meaning: &'static str,
    /// Why one would change it; of a key without a default, what else there is to know, if anything.
    pub(super) change: &'static str,
}

/// What stands for a key that is given nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preset {
    /// This value.
    Default(&'static str),
    /// Nothing; this is how a value looks.
    Example(&'static str),
}

/// When a key without a default has to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// Never: it has a default, or its absence means something.
    Never,
    /// By whatever works for one tenant.
    Tenant,
    /// By whatever calls NICE, unless the database holds the NICE settings.
    Nice,
    /// As [`Needed::Nice`], for the OAuth flow.
    Oauth,
    /// By the webhook.
    Webhook,
    /// By whatever uses RabbitMQ.
    Rabbitmq,
    /// By whatever uses PostgreSQL.
    Postgres,
    /// By whatever reads sealed secrets from PostgreSQL.
    Sealed,
    /// By whatever stores recordings in S3.
    S3,
    /// As [`Needed::S3`], unless a file holds the key.
    S3Key,
}

use Kind::{
    ApiVersion, Bucket, Count, Duration, Flag, Interval, Intervals, Listen, MediaHosts, Name, Path, Quantile, Rate,
    Retention, SealKey, Secret, Share, Since, TenantId, Text, Time, Url, Word, Zone,
};

const STEPS: &str = r#"["30s", "1m", "2m", "5m", "10m", "15m", "30m", "60m"]"#;

/// Every section, in the order of the page.
#[rustfmt::skip] // a key stays on its few lines, so that the page can be read
pub(super) const SECTIONS: &[Section] = &[
    section("tenant", "Whose calls this process brings in.", &[
        needed("id", TenantId, "acme", Needed::Tenant,
            "The producer's tenant; the consumer serves all.",
            "It must not change afterwards: it is part of every key."),
    ]),
    section("nice", "The tenant's NICE settings. With [catalog] kind = \"postgres\" they stand in the database instead.", &[
        key("issuer", Url(false), "https://cxone.niceincontact.com",
            "Where discovery begins.",
            "Your tenant lives in a sovereign cloud, such as https://cxone-gov.niceincontact.com."),
        key("auth_flow", Word(&["oauth", "access_key"]), "oauth",
            "How a token is obtained: oauth needs client_id and client_secret too, access_key (UserHub) only the key.",
            "NICE has issued an access key but no client to you."),
        needed("client_id", Text, "knovvu@example.com", Needed::Oauth,
            "The client that NICE registered for you; oauth only.",
            ""),
        needed("client_secret", Secret, "/run/secrets/nice_client_secret", Needed::Oauth,
            "The secret of that client; oauth only.",
            "It changes when NICE issues a new one."),
        needed("access_key_id", Text, "ABCDEF0123456789", Needed::Nice,
            "The id of the access key of the NICE user that reads the calls.",
            ""),
        needed("access_key_secret", Secret, "/run/secrets/nice_access_key_secret", Needed::Nice,
            "The secret of that access key.",
            "It changes when the key is renewed."),
        key("group_kind", Word(&["acd_group", "team"]), "acd_group",
            "What the group is in NICE.",
            "Your agents are kept together by a team."),
        needed("group", Text, "Knovvu", Needed::Nice,
            "The id or name of the group whose users' calls are brought in.",
            ""),
        key("api_version", ApiVersion, "v33.0",
            "The version in the paths of NICE's ACD API.",
            "NICE announces the end of this one."),
        key("acd_url", Url(true), "",
            "Root of the ACD API; empty: as discovery says.",
            "Discovery is wrong or unreachable, or a proxy stands in between."),
        key("facade_url", Url(true), "",
            "Root of media playback and data extraction; empty: as discovery says.",
            "As acd_url."),
        key("auth_url", Url(true), "",
            "Root of the token service; empty: as discovery says.",
            "As acd_url."),
        key("media_hosts", MediaHosts(false), r#"["*.amazonaws.com"]"#,
            "Recordings are fetched from these only: host, *.suffix or host:port (a loopback address needs its port).",
            "NICE hands out links to another store; a link off this list is a dead letter."),
        key("private_media_hosts", MediaHosts(true), "[]",
            "Those of media_hosts that may lead to a private address, written in the same way.",
            "The store is reached by an interface endpoint in your own network. Never this machine, never metadata."),
        key("recording_scope", Word(&["leg", "master"]), "leg",
            "Which audio belongs to a conversation: this agent's leg, or the whole call.",
            "The analysis shall hear what was said before and after a transfer."),
        needed("retention", Retention, "365d", Needed::Never,
            "How long conversations are kept after their end, 1d or more; none: for ever.",
            "Your rules say when call audio is to be gone: what ended before is erased, and not imported any more."),
    ]),
    section("agents", "The group's users become Knovvu agents.", &[
        key("sync_interval", Interval, "10m",
            "How often the group's users are read.",
            "New agents shall appear sooner, or NICE complains of too many calls."),
        key("hold_count", Count(0, 10_000), "5",
            "A reading that loses more agents than this at once, and more than hold_share, is held and not believed.",
            "Many agents leave at once and often, or a small group shall be guarded too."),
        key("hold_share", Share, "0.2",
            "The share of the agents, 0 to 1, that a reading may lose at once; see hold_count.",
            "As hold_count."),
        key("hold_for", Duration, "24h",
            "How long such a reading is held before it is taken after all; `agents sync --accept` takes it at once.",
            "Nobody looks at alarms for longer than that, over a long weekend say."),
    ]),
    section("events", "How the end of a call becomes known. The poll is the truth, the others only make it faster.", &[
        key("poll", Flag, "true",
            "Ask NICE for completed contacts.",
            "Another producer polls already. Without it a lost webhook is found by the nightly reconciliation only."),
        key("poll_interval", Interval, "15s",
            "How often the poll asks.",
            "A longer one saves calls of the [limits] acd budget, a shorter one saves waiting."),
        key("poll_overlap", Duration, "30m",
            "How far each poll looks back behind the last one: NICE may list a contact so late.",
            "NICE lists contacts later than that: nights find calls missing (replay_last_missing)."),
        key("import_since", Since, "1h",
            "How far back the very first start reaches: a duration before it, or a moment. Older calls come by backfill.",
            "The calls of the last days shall come by themselves. Once the group was read it changes nothing."),
        key("fresh", Interval, "1h",
            "A call that ended longer ago than this goes behind fresh calls: to the backfill queue.",
            "Calls become known late as a rule, and shall not wait behind a backfill."),
        key("webhook", Flag, "false",
            "Accept POST /nice/events/contact-ended.",
            "A Studio script can announce the end of each call."),
        key("webhook_listen", Listen, "127.0.0.1:8085",
            "Address and port of the webhook.",
            "The proxy in front of it, which ends TLS, is on another machine."),
        needed("webhook_token", Secret, "/run/secrets/webhook_token", Needed::Webhook,
            "The bearer token that the caller of the webhook presents.",
            "`openssl rand -hex 32` makes one."),
        key("agent_sessions", Flag, "false",
            "Listen to the session events of every agent who is logged in, by long poll: one connection for each.",
            "Calls shall be known within a second, and your service user may join sessions. Leave the poll on."),
    ]),
    section("reconciliation", "The nightly comparison of NICE's list with the catalog.", &[
        key("at", Time, "02:00",
            "Time of day at which it begins.",
            "Your calm hours are others."),
        key("timezone", Zone, "UTC",
            "The time zone of that time, by its IANA name.",
            "The night is your local one, such as Europe/Berlin."),
        key("window", Interval, "24h",
            "How far it looks back.",
            "More than a day, so that a night without a run is covered."),
        key("lateness", Duration, "24h",
            "NICE may list a call so long after its end: each night looks so far back behind what earlier ones covered.",
            "Your NICE lists calls later than that. Listing is cheap: a request for some thousand calls."),
        key("longest_call", Duration, "4h",
            "How long calls last at most as a rule: NICE lists by start, so the list begins this much before the window.",
            "Many calls last longer. The few that do are found by their last change, which takes more requests."),
        key("settle", Duration, "1h",
            "Longer than the flow leaves a call without a word: what was found before and is missing is replayed after it.",
            "A large backlog is usual; a replay too early is harmless, but costs calls."),
        key("recheck", Duration, "7d",
            "At this age a call without a recording, or without all that NICE names, is looked at once more. \"0s\": never.",
            "Your NICE is later still with its recordings, or never late."),
    ]),
    section("limits", "NICE's limits for one tenant of NICE's, shared by all processes and Knovvu tenants. Never more than this in ANY such span.", &[
        key("media_playback", Rate, "150/5m",
            "Requests for recordings.",
            "NICE has granted another quota, or other software uses part of it."),
        key("acd", Rate, "2/s",
            "Requests to the ACD API.",
            "As media_playback."),
        key("live_reserve", Share, "0.5",
            "The share of the budget, 0 to 1, that backfill and reconciliation may never take beyond the 15 % that are their floor.",
            "A backfill shall go faster, at the cost of fresh calls."),
        key("page_size", Count(50, 10_000), "4000",
            "Rows that a request for completed calls asks for. Where NICE cannot give so many, fewer are asked for.",
            "The network or NICE is too slow for so large an answer: some 1.5 MB."),
        key("timeout", Interval, "30s",
            "How long NICE may take for an answer, recordings excepted.",
            "Lists of calls take longer (nice_requests_total{outcome=\"timeout\"})."),
    ]),
    section("retry", "What waits, and for how long.", &[
        key("not_ready_delays", Intervals, STEPS,
            "The steps in which a call waits whose recording is not ready; the last one repeats.",
            "Your NICE is ready sooner or later; the broker keeps one queue per step."),
        key("first_look", Quantile, "0.99",
            "The share of recordings, 0 to 0.999, that shall be there when a call is looked at first; 0: look at once.",
            "Calls shall be ready sooner at the cost of the [limits] media_playback budget: 0.5, say. When they are \
            there is learned."),
        key("first_guess", Duration, "5m",
            "How long after its end a call is looked at first, before anything is learned; at most the longest of \
            not_ready_delays. 0: at once.",
            "A new tenant's recordings are known to take longer, and its first hundred calls use up the budget."),
        key("recording_deadline", Interval, "48h",
            "After so long a wait for its recording a call is final: no_recording. An outage or a backlog takes nothing of it.",
            "NICE delivers later than that, or your retention rules forbid to wait."),
        key("error_delay_min", Interval, "1s",
            "The first delay after a failed call to an outside system.",
            "An outside system recovers more slowly, or asks for fewer calls."),
        key("error_delay_max", Interval, "5m",
            "The longest such delay; they double up to it, with jitter. What concerns one call alone slows down to an hour.",
            "Recovery after an outage shall be noticed sooner."),
        key("dead_letter_age", Interval, "365d",
            "A dead letter that is older is dropped, and counted (dead_letters_dropped_total).",
            "Your rules say that nothing of a call is kept for longer."),
    ]),
    section("flow", "How a process ends.", &[
        key("grace", Duration, "30s",
            "After SIGTERM, how long the stages may finish what they hold.",
            "Long recordings shall not be fetched twice, or your orchestrator kills sooner."),
    ]),
    section("consumer", "The conversation consumer.", &[
        key("concurrency", Count(1, 1024), "16",
            "How many conversations of one tenant are worked on at a time; of several tenants together twice as many. \
            Bounds memory.",
            "The backlog grows although the rate budget is not used up."),
    ]),
    section("queue", "The queue between producer and consumer.", &[
        key("kind", Word(&["embedded", "rabbitmq", "fluvio"]), "embedded",
            "embedded: on the local disk, both services in one process; rabbitmq and fluvio: any number of processes.",
            "Production."),
        needed("url", Secret, "/run/secrets/queue_url", Needed::Rabbitmq,
            "Where the broker is, with its password: amqps://user:password@host:5671/vhost; fluvio: host:port.",
            "A secret, since it contains the password. Plain amqp:// is accepted only to a loopback address."),
        key("ca_file", Path(true), "",
            "A file of certificates in PEM that are trusted besides the system's; amqps only.",
            "The broker's certificate is of your own authority."),
        key("prefix", Name, "knovvu.nice",
            "The names of all queues begin with it.",
            "Several installations share a broker."),
    ]),
    section("catalog", "The Knovvu database.", &[
        key("kind", Word(&["embedded", "postgres"]), "embedded",
            "embedded: on the local disk, with the [nice] settings of this file; postgres: the Knovvu database.",
            "Production."),
        needed("url", Secret, "/run/secrets/catalog_url", Needed::Postgres,
            "Where the database is, with its password: postgres://user:password@host/database?sslmode=verify-full.",
            "A secret, since it contains the password. sslrootcert=FILE adds an authority of your own."),
        key("connections", Count(2, 64), "8",
            "The most connections that a process has open; the producer's lease takes one more.",
            "The database admits fewer, or conversations wait for a connection."),
        needed("seal_key", SealKey, "/run/secrets/seal_key", Needed::Sealed,
            "The key that seals NICE's secrets in the database: 32 bytes in hex. The same for all processes.",
            "`openssl rand -hex 32` makes one. Without it the sealed secrets are lost."),
        needed("erasure_key", SealKey, "/run/secrets/erasure_key", Needed::Never,
            "postgres only: the key by which erased conversations are known; none: one that is derived from seal_key.",
            "The seal key was replaced after something was erased: set this to the one before, or it comes back."),
        key("analysis_retention", Retention, "30d",
            "postgres only: how long finished entries of the analysis queue are kept; at least a day.",
            "Somebody evaluates them later, or the table is to stay smaller."),
    ]),
    section("recordings", "Where the recordings are stored.", &[
        key("kind", Word(&["filesystem", "s3"]), "filesystem",
            "filesystem: below dir; s3: MinIO, AWS.",
            "Production."),
        key("dir", Path(true), "",
            "The directory; empty: recordings in [state] dir. filesystem only.",
            "The recordings lie on a disk of their own."),
        needed("endpoint", Url(false), "https://s3.us-east-1.amazonaws.com", Needed::S3,
            "Root of the S3 service; s3 only.",
            ""),
        needed("bucket", Bucket, "recordings", Needed::S3,
            "The bucket; it exists. s3 only.",
            ""),
        key("region", Text, "us-east-1",
            "The region that requests are signed for; s3 only.",
            "Your bucket is in another one; MinIO takes the default."),
        needed("access_key_id", Text, "knovvu", Needed::S3Key,
            "The id of the key to the bucket; s3 only.",
            "Not with credentials_file."),
        needed("secret_access_key", Secret, "/run/secrets/s3_secret_access_key", Needed::S3Key,
            "The secret of that key; s3 only.",
            "Not with credentials_file. A file that holds it is read again when it changes."),
        needed("session_token", Secret, "/run/secrets/s3_session_token", Needed::Never,
            "The session token of a temporary key; s3 only.",
            "Not with credentials_file."),
        key("credentials_file", Path(true), "",
            "A file in the format of AWS's shared credentials that holds the key instead; s3 only.",
            "The key is rotated: the file is read again when it changes, without a restart."),
        key("credentials_profile", Text, "default",
            "The profile in that file.",
            "The file holds several."),
        key("encryption", Word(&["none", "sse-s3", "sse-kms"]), "none",
            "Which encryption at rest the store is asked for; s3 only.",
            "Your rules demand it and the bucket does not encrypt by itself."),
        needed("kms_key_id", Text, "arn:aws:kms:eu-central-1:111122223333:key/recordings", Needed::Never,
            "The key of sse-kms; none: the store's default key.",
            "The recordings have a key of their own."),
        key("memory_mib", Count(12, 4096), "32",
            "What all uploads of a process hold of their recordings at a time, in MiB; s3 only.",
            "Many recordings above 5 MiB arrive slowly at a time: each takes up to 10 MiB, and the others wait."),
        key("min_rate", Count(1, 100_000_000), "1024",
            "The slowest that a recording may arrive from its host, in bytes per second over a minute of waiting for it.",
            "Slower ones hold a place of [consumer] concurrency for too long, or a poor line is all that you have."),
        key("ca_file", Path(true), "",
            "A file of certificates in PEM that are trusted besides the system's; s3 only.",
            "The store's certificate is of your own authority."),
        needed("verify_every", Retention, "30d", Needed::Never,
            "Consumers read recordings of the last so many days back, spread over as many days, 1d or more; none: never.",
            "You want to know that what is stored stays what it was; `recordings_verified_total` and an alert tell."),
        key("verify_sample", Count(1, 1_000_000), "1000",
            "How many conversations of each tenant each consumer reads back within verify_every.",
            "More certainty, for more requests and traffic of the store."),
    ]),
    section("state", "What a process remembers on its local disk.", &[
        key("dir", Path(false), "./data",
            "The directory; one process at a time.",
            "It shall lie on a disk that survives the process."),
        key("retention", Interval, "3d",
            "How long processed ids are remembered; beyond it the catalog decides.",
            "Less disk, or fewer questions to the catalog."),
    ]),
    section("admin", "Health, metrics and the commands that ask the daemon.", &[
        key("listen", Listen, "127.0.0.1:9464",
            "Address and port; it has no authentication.",
            "Prometheus is on another machine; then only inside a trusted network."),
    ]),
    section("log", "The log, on stderr.", &[
        key("format", Word(&["text", "json"]), "text",
            "text for people, json for machines.",
            "A log collector reads it."),
        key("filter", Text, "info",
            "Level, or levels by module, such as info,stages=debug.",
            "Something has to be understood."),
    ]),
];

const fn section(name: &'static str, meaning: &'static str, keys: &'static [Key]) -> Section {
    Section { name, meaning, keys }
}

/// A key with a default.
const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
    change: &'static str,
) -> Key {
    Key { name, kind, preset: Preset::Default(default), needed: Needed::Never, meaning, change }
}

/// A key without a default; a secret's example is the path of its file.
const fn needed(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    needed: Needed,
    meaning: &'static str,
    change: &'static str,
) -> Key {
    Key { name, kind, preset: Preset::Example(example), needed, meaning, change }
}

impl Key {
    /// The key under which it is given, or under which a file that holds it is named.
    pub(super) fn written(&self, form: Form) -> String {
        match form {
            Form::Value => self.name.to_owned(),
            Form::SecretFile => format!("{}_file", self.name),
        }
    }

    /// The forms in which it may be given.
    pub(super) fn forms(&self) -> &'static [Form] {
        if self.kind.is_secret() { &[Form::Value, Form::SecretFile] } else { &[Form::Value] }
    }
}

/// How a value is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As itself.
    Value,
    /// As the path of a file that holds it.
    SecretFile,
}

/// Every key with its section and its place on the page.
pub(super) fn all() -> impl Iterator<Item = (usize, &'static Section, &'static Key)> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (section, key)))
        .enumerate()
        .map(|(place, (section, key))| (place, section, key))
}

/// Every key as it may be written, with the name of its section.
#[cfg(test)]
pub(crate) fn written() -> impl Iterator<Item = (&'static str, String)> {
    all().flat_map(|(_, section, key)| key.forms().iter().map(|form| (section.name, key.written(*form))))
}

/// The name of a key in the environment.
pub(super) fn environment_name(section: &str, written: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}__{}", section.to_ascii_uppercase(), written.to_ascii_uppercase())
}

/// What the names of all settings in the environment begin with.
pub(super) const ENVIRONMENT_PREFIX: &str = "NICE_KNOVVU_";
