//! Every setting, on one page: name, type, kind, default or example, meaning, and why one would change it.
//!
//! The structs, the loader, the names in the environment, `config.default.toml`, the mistakes and `check` are all made
//! from this table; a key that is not here does not exist. [`super::keys::settings`] says how an entry is written.

#![allow(rustdoc::broken_intra_doc_links, reason = "a meaning names sections as the file does: [nice]")]
#![cfg_attr(
    not(feature = "fluvio"),
    allow(dead_code, reason = "nothing reads what is Fluvio's; `./lint` looks with it")
)]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{civil::Time, tz::TimeZone};
use model::{ImportSince, TenantId};
use nice::{GroupKind, MediaHost};
use quota::Rate;
use reqwest::Url;
use secrecy::SecretString;
use stages::tenants::RecordingScope;

use super::keys::{Needed, Preset, Section, SettingKey, settings};
use super::reader::{SettingsReader, TableEntry};
use super::value::*;

settings! {
    /// Whose calls this process brings in.
    tenant: TenantConfig {
        /// The producer's tenant; the consumer serves all.
        id: TenantId = TENANT_ID, example("acme", Tenant),
            "It must not change afterwards: it is part of every key.";
    }

    /// The tenant's NICE settings. With [catalog] kind = "postgres" they are in the database instead.
    nice: NiceConfig {
        /// The URL at which discovery begins.
        issuer: Url = URL, default("https://cxone.niceincontact.com"),
            "Your tenant is in a sovereign cloud, such as https://cxone-gov.niceincontact.com.";
        /// How a token is obtained: oauth needs client_id and client_secret too, access_key (UserHub) only the key.
        auth_flow: AuthFlow = word(), default("oauth"),
            "NICE has issued an access key but no client to you.";
        /// The client that NICE registered for you; oauth only.
        client_id: String = TEXT, example("knovvu@example.com", Oauth), "";
        /// The secret of that client; oauth only.
        client_secret: SecretString = SECRET, example("/run/secrets/nice_client_secret", Oauth),
            "It changes when NICE issues a new one.";
        /// The id of the access key of the NICE user that reads the calls.
        access_key_id: String = TEXT, example("ABCDEF0123456789", Nice), "";
        /// The secret of that access key.
        access_key_secret: SecretString = SECRET, example("/run/secrets/nice_access_key_secret", Nice),
            "It changes when the key is renewed.";
        /// What the group is in NICE.
        group_kind: GroupKind = word(), default("acd_group"),
            "Your agents are kept together by a team.";
        /// The id or name of the group whose users' calls are brought in.
        group: String = TEXT, example("Knovvu", Nice), "";
        /// The version in the paths of NICE's ACD API.
        api_version: String = API_VERSION, default("v33.0"),
            "NICE announces that it ends this version.";
        /// Base URL of the ACD API; empty: discovery gives it.
        acd_url: Option<Url> = URL_OR_NONE, default(""),
            "Discovery is wrong or unreachable, or a proxy is in between.";
        /// Base URL of media playback and data extraction; empty: discovery gives it.
        facade_url: Option<Url> = URL_OR_NONE, default(""),
            "As acd_url.";
        /// Base URL of the token service; empty: discovery gives it.
        auth_url: Option<Url> = URL_OR_NONE, default(""),
            "As acd_url.";
        /// Recordings are fetched from these only: host, *.suffix or host:port (a loopback address needs its port).
        media_hosts: Vec<MediaHost> = MEDIA_HOSTS, default(["*.amazonaws.com"]),
            "NICE hands out links to another store; a link off this list is a dead letter.";
        /// Those of media_hosts that may lead to a private address, written in the same way.
        private_media_hosts: Vec<MediaHost> = MEDIA_HOSTS_OR_NONE, default([]),
            "The store is reached by an interface endpoint in your own network. Never this machine, never metadata.";
        /// Which audio belongs to a conversation: this agent's leg, or the whole call.
        recording_scope: RecordingScope = word(), default("leg"),
            "The analysis needs what was said before and after a transfer.";
        /// How long conversations are kept after their end, 1d or more; none: for ever.
        retention: Duration = DAYS, example("365d"),
            "Your rules limit how long call audio may be kept. Calls that ended earlier are erased, and no longer imported.";
    }

    /// The group's users become Knovvu agents.
    agents: AgentsConfig {
        /// How often the group's users are read.
        sync_interval: Duration = INTERVAL, default("10m"),
            "New agents must appear sooner, or NICE complains about too many requests.";
        /// If a reading of the group loses more agents than this, and more than hold_share, it is held: nothing changes yet.
        hold_count: u32 = count::<_, 0, 10_000>(), default(5),
            "Many agents often leave at the same time, or a small group needs this protection too.";
        /// The share of the agents, 0 to 1, that a reading may lose at once; see hold_count.
        hold_share: f64 = SHARE, default(0.2),
            "As hold_count.";
        /// How long such a reading is held before it is taken after all; `agents sync --accept` takes it at once.
        hold_for: Duration = SPAN, default("24h"),
            "Alarms may stay unread for longer than that, such as over a long weekend.";
    }

    /// How the end of a call becomes known. The poll is the truth, the others only make it faster.
    events: EventsConfig {
        /// Ask NICE for completed contacts.
        poll: bool = FLAG, default(true),
            "Another producer polls already. Without it a lost webhook is found by the nightly reconciliation only.";
        /// How often the poll asks.
        poll_interval: Duration = INTERVAL, default("15s"),
            "A longer one saves calls of the [limits] acd budget, a shorter one saves waiting.";
        /// How far each poll looks back behind the last one, since NICE may list a contact that late.
        poll_overlap: Duration = SPAN, default("30m"),
            "NICE lists contacts later than that: the nightly comparison finds missing calls (nice_knovvu_replay_last_missing).";
        /// How far back the very first start reaches: a duration before it, or a moment. Older calls come by backfill.
        import_since: ImportSince = SINCE, default("1h"),
            "The calls of the last days must come without a backfill. After the first reading of the group it has no effect.";
        /// A call that ended longer ago than this goes behind fresh calls: to the backfill queue.
        fresh: Duration = INTERVAL, default("1h"),
            "Calls usually become known late, and must not wait behind a backfill.";
        /// Accept POST /nice/events/contact-ended.
        webhook: bool = FLAG, default(false),
            "A Studio script can announce the end of each call.";
        /// Address and port of the webhook.
        webhook_listen: SocketAddr = LISTEN, default("127.0.0.1:8085"),
            "The proxy in front of it, which ends TLS, is on another machine.";
        /// The bearer token that the caller of the webhook presents.
        webhook_token: SecretString = SECRET, example("/run/secrets/webhook_token", Webhook),
            "`openssl rand -hex 32` makes one.";
        /// Listen to the session events of every agent who is logged in, by long poll: one connection for each.
        agent_sessions: bool = FLAG, default(false),
            "Calls must be known within a second, and your service user may join sessions. Leave the poll on.";
    }

    /// The nightly comparison of NICE's list with the catalog.
    reconciliation: ReconciliationConfig {
        /// Time of day at which it begins.
        at: Time = TIME, default("02:00"),
            "Your quiet hours are at another time.";
        /// The time zone of that time, by its IANA name.
        timezone: TimeZone = ZONE, default("UTC"),
            "The time must be your local time, such as Europe/Berlin.";
        /// How far it looks back.
        window: Duration = INTERVAL, default("24h"),
            "You want more than a day compared every night. Nights without a run are covered in any case.";
        /// How long after its end NICE may list a call: each night goes this far back behind what earlier nights covered.
        lateness: Duration = SPAN, default("24h"),
            "Your NICE lists calls later than that. Listing is cheap: one request for some thousand calls.";
        /// The usual maximum length of a call: NICE lists calls by their start, so the list begins this much before the window.
        longest_call: Duration = SPAN, default("4h"),
            "Many calls last longer. The few that do are found by their last change, which takes more requests.";
        /// A call that was found, and shows no progress for this long, is missing and is replayed.
        settle: Duration = SPAN, default("1h"),
            "A large backlog is usual. A replay that comes too early is harmless, but costs requests.";
        /// At this age a call without a recording, or without all that NICE names, is looked at once more. "0s": never.
        recheck: Duration = SPAN, default("7d"),
            "Your NICE gives recordings even later, or is never late.";
    }

    /// NICE's limits for one NICE tenant, shared by all processes and Knovvu tenants. ANY window of that length stays below them.
    limits: LimitsConfig {
        /// Requests for recordings.
        media_playback: Rate = RATE, default("150/5m"),
            "NICE has granted another quota, or other software uses part of it.";
        /// Requests to the ACD API.
        acd: Rate = RATE, default("2/s"),
            "As media_playback.";
        /// The share of the budget, 0 to 1, that backfill and reconciliation leave to live calls; 15 % are theirs in any case.
        live_reserve: f64 = SHARE, default(0.5),
            "A backfill must go faster, at the cost of fresh calls.";
        /// Rows that a request for completed calls asks for. If NICE cannot give so many, fewer are asked for.
        page_size: u32 = count::<_, 50, 10_000>(), default(4000),
            "The network or NICE is too slow for an answer of some 1.5 MB.";
        /// How long NICE may take for an answer, recordings excepted.
        timeout: Duration = INTERVAL, default("30s"),
            "Lists of calls take longer (nice_knovvu_nice_requests_total{status=\"timeout\"}).";
    }

    /// What waits, and for how long.
    retry: RetryConfig {
        /// How long a call waits before each next look for its recording; the last step repeats.
        not_ready_delays: Vec<Duration> = INTERVALS, default(["30s", "1m", "2m", "5m", "10m", "15m", "30m", "60m"]),
            "Your NICE is ready sooner or later; the broker keeps one queue or topic per step.";
        /// The share of recordings, 0 to 0.999, that should be there at the first look for them; 0: look at once.
        first_look: f64 = QUANTILE, default(0.99),
            "Calls must be ready sooner, at the cost of the [limits] media_playback budget: try 0.5. The delay is learned from earlier calls.";
        /// How long after the end of a call the first look comes, before anything is learned; at most the longest of not_ready_delays. 0: at once.
        first_guess: Duration = SPAN, default("5m"),
            "A new tenant's recordings are known to take longer, and its first hundred calls use up the budget.";
        /// How long a call waits for its recording. Then it ends as no_recording, or as a dead letter if NICE names one. Outages and backlogs do not count.
        recording_deadline: Duration = INTERVAL, default("48h"),
            "NICE delivers later than that, or your retention rules do not allow the wait.";
        /// The first delay after a failed call to an outside system.
        error_delay_min: Duration = INTERVAL, default("1s"),
            "An outside system recovers more slowly, or asks for fewer calls.";
        /// The longest such delay; delays double up to it, with jitter. If a failure concerns one call alone, they grow to the longest of not_ready_delays.
        error_delay_max: Duration = INTERVAL, default("5m"),
            "The end of an outage must be noticed sooner.";
        /// A dead letter that is older is dropped, and counted (nice_knovvu_dead_letters_dropped_total).
        dead_letter_age: Duration = INTERVAL, default("365d"),
            "Your rules say that nothing of a call is kept for longer.";
    }

    /// How soon a call is to be ready, and how a process ends.
    flow: FlowConfig {
        /// A call is to be ready within this time after its end. Dashboards and alerts show how many are not; nothing else depends on it.
        freshness_goal: Duration = SPAN, default("1h"),
            "You promise another time.";
        /// How long the stages may take to finish their work after SIGTERM.
        grace: Duration = SPAN, default("30s"),
            "Long recordings must not be fetched twice, or your orchestrator kills the process sooner.";
    }

    /// The conversation consumer.
    consumer: ConsumerConfig {
        /// How many conversations of one tenant are worked on at a time; of several tenants together twice as many. Bounds memory.
        concurrency: usize = count::<_, 1, 1024>(), default(16),
            "The backlog grows although the rate budget is not used up.";
    }

    /// The queue between producer and consumer.
    queue: QueueConfig {
        /// embedded: on the local disk, both services in one process; rabbitmq or fluvio: any number of processes.
        kind: QueueKind = word(), default("embedded"),
            "Production. `queue move` brings what waits from one kind to another.";
        /// Where RabbitMQ is, with its password: amqps://user:password@host:5671/vhost.
        url: SecretString = SECRET, example("/run/secrets/queue_url", Rabbitmq),
            "A secret, since it contains the password. Plain amqp:// is accepted only to a loopback address.";
        /// A PEM file of certificates that are trusted besides those of the system; amqps only.
        ca_file: Option<PathBuf> = PATH_OR_NONE, default(""),
            "Your own authority has signed the certificate of the broker.";
        /// The prefix of the names of all queues, or topics. In those of Fluvio a dot becomes a hyphen.
        prefix: String = NAME, default("knovvu.nice"),
            "Several installations share a broker.";
        /// host:port of the controller (SC) of a Fluvio cluster on this machine, spoken to in clear; empty: what the profile says.
        fluvio: Option<String> = HOST_PORT_OR_NONE, default(""),
            "A trial without a profile. It stands beside url, so that one file can name both queues.";
        /// The profile of Fluvio's own configuration with address, TLS and authentication; empty: the current one. fluvio only.
        profile: Option<String> = TEXT_OR_NONE, default(""),
            "The configuration holds several clusters, or the current one is changed by hand.";
        /// Into how many partitions each lane is divided: the most consumers that share it. Fixed once the topics exist. fluvio only.
        partitions: u32 = count::<_, 1, 64>(), default(8),
            "More than eight consumers. Set it before the first start.";
        /// How many brokers (SPUs) keep each message. Fixed once the topics exist. fluvio only.
        replication: u32 = count::<_, 1, 9>(), default(1),
            "Production: 3, so that a broker that is lost takes no message along.";
    }

    /// The Knovvu database.
    catalog: CatalogConfig {
        /// embedded: on the local disk, with the [nice] settings of this file; postgres: the Knovvu database.
        kind: CatalogKind = word(), default("embedded"),
            "Production.";
        /// Where the database is, with its password: postgres://user:password@host/database?sslmode=verify-full.
        url: SecretString = SECRET, example("/run/secrets/catalog_url", Postgres),
            "A secret, since it contains the password. sslrootcert=FILE adds an authority of your own.";
        /// The most connections that a process has open; the producer's lease takes one more.
        connections: usize = count::<_, 2, 64>(), default(8),
            "The database admits fewer, or conversations wait for a connection.";
        /// The key that seals NICE's secrets in the database: 32 bytes in hex. The same for all processes.
        seal_key: SealKey = SEAL_KEY, example("/run/secrets/seal_key", Sealed),
            "`openssl rand -hex 32` makes one. Without it the sealed secrets are lost.";
        /// postgres only: the key that recognizes erased conversations; none: a key that is derived from seal_key.
        erasure_key: SealKey = SEAL_KEY, example("/run/secrets/erasure_key"),
            "The seal key was replaced after an erasure: set this to the seal key of that time, or what was erased comes back.";
        /// postgres only: how long finished entries of the analysis queue are kept; at least a day.
        analysis_retention: Duration = DAYS, default("30d"),
            "Somebody evaluates them later, or the table must stay smaller.";
    }

    /// Where the recordings are stored.
    recordings: RecordingsConfig {
        /// filesystem: below dir; s3: MinIO, AWS.
        kind: RecordingsKind = word(), default("filesystem"),
            "Production.";
        /// The directory; empty: recordings in [state] dir. filesystem only.
        dir: Option<PathBuf> = PATH_OR_NONE, default(""),
            "The recordings lie on a disk of their own.";
        /// Root of the S3 service; s3 only.
        endpoint: Url = URL, example("https://s3.us-east-1.amazonaws.com", S3), "";
        /// The bucket; it exists. s3 only.
        bucket: String = BUCKET, example("recordings", S3), "";
        /// The region that requests are signed for; s3 only.
        region: String = TEXT, default("us-east-1"),
            "Your bucket is in another one; MinIO takes the default.";
        /// The id of the key to the bucket; s3 only.
        access_key_id: String = TEXT, example("knovvu", S3Key),
            "Not with credentials_file.";
        /// The secret of that key; s3 only.
        secret_access_key: SecretSource = SECRET_SOURCE, example("/run/secrets/s3_secret_access_key", S3Key),
            "Not with credentials_file. A file that holds it is read again when it changes.";
        /// The session token of a temporary key; s3 only.
        session_token: SecretSource = SECRET_SOURCE, example("/run/secrets/s3_session_token"),
            "Not with credentials_file.";
        /// A file in the format of AWS's shared credentials that holds the key instead; s3 only.
        credentials_file: Option<PathBuf> = PATH_OR_NONE, default(""),
            "The key is rotated: the file is read again when it changes, without a restart.";
        /// The profile in that file.
        credentials_profile: String = TEXT, default("default"),
            "The file holds several.";
        /// Which encryption at rest the store is asked for; s3 only.
        encryption: EncryptionKind = word(), default("none"),
            "Your rules demand it and the bucket does not encrypt by itself.";
        /// The key of sse-kms; none: the store's default key.
        kms_key_id: String = TEXT, example("arn:aws:kms:eu-central-1:111122223333:key/recordings"),
            "The recordings have a key of their own.";
        /// Memory in MiB for the parts of recordings that a process uploads at a time; s3 only.
        memory_mib: usize = count::<_, 12, 4096>(), default(32),
            "Many recordings above 5 MiB arrive slowly at the same time: each takes up to 10 MiB, and the others wait.";
        /// The lowest rate at which a recording may arrive from its host, in bytes per second over a minute in which it is waited for.
        min_rate: u64 = count::<_, 1, 100_000_000>(), default(1024),
            "Slower recordings occupy a slot of [consumer] concurrency for too long, or your network is slow.";
        /// A PEM file of certificates that are trusted besides those of the system; s3 only.
        ca_file: Option<PathBuf> = PATH_OR_NONE, default(""),
            "Your own authority has signed the certificate of the store.";
        /// Consumers read back recordings of calls that ended within this time, spread over the same time; 1d or more; none: never.
        verify_every: Duration = DAYS, example("30d"),
            "You want proof that stored recordings do not change; `nice_knovvu_recordings_verified_total` and an alert show it.";
        /// How many conversations of each tenant each consumer reads back within verify_every.
        verify_sample: u32 = count::<_, 1, 1_000_000>(), default(1000),
            "More certainty, for more requests and traffic of the store.";
    }

    /// What a process remembers on its local disk.
    state: StateConfig {
        /// The directory; only one process at a time may use it.
        dir: PathBuf = PATH, default("./data"),
            "It must be on a disk that survives the process.";
        /// How long processed ids are remembered; beyond it the catalog decides.
        retention: Duration = INTERVAL, default("3d"),
            "Less disk, or fewer questions to the catalog.";
    }

    /// The operator page, health, metrics, and what commands ask of the daemon.
    admin: AdminConfig {
        /// Address and port. Health and metrics have no authentication; page and API have, see read_token and act_token.
        listen: SocketAddr = LISTEN, default("127.0.0.1:9464"),
            "Prometheus or a browser is on another machine; then set both tokens, and end TLS in a proxy.";
        /// Who shows it may read page and API; none: on a loopback address the page is open to read, elsewhere it is closed.
        read_token: SecretString = SECRET, example("/run/secrets/admin_read_token"),
            "`openssl rand -hex 32` makes one.";
        /// Who shows it may act as well: replay, drop, backfill. Without it only the token in {state.dir}/admin.json may.
        act_token: SecretString = SECRET, example("/run/secrets/admin_act_token"),
            "`openssl rand -hex 32` makes one, other than read_token.";
        /// Names under which the page is asked for, besides those of this machine; others are refused on a loopback address.
        hosts: Vec<String> = HOST_NAMES, default([]),
            "A reverse proxy on this machine passes on the name that the browser used.";
        /// Whether recordings can be played on the page, by who may act. Each playing is in the audit.
        playback: bool = FLAG, default(false),
            "Operators may hear calls where you are.";
        /// The header in which a reverse proxy says what its user may: read or act; empty: none is believed.
        role_header: Option<String> = HEADER_OR_NONE, default(""),
            "A proxy signs people in. It must remove the header from what they send; see proxies.";
        /// The header in which it names the user, for the audit.
        user_header: String = HEADER, default("x-forwarded-user"),
            "Your proxy uses another one.";
        /// The addresses of these proxies; a header from elsewhere is not looked at.
        proxies: Vec<IpAddr> = ADDRESSES, default([]),
            "role_header is set.";
        /// How long the audit keeps what operators did; at least 30 days.
        audit_retention: Duration = MONTH, default("365d"),
            "Your rules want it longer, or shorter.";
    }

    /// Traces of conversations, sent to a collector by OTLP over HTTP.
    traces: TracesConfig {
        /// The root of the collector; spans go to /v1/traces below it. Empty: nothing is traced.
        endpoint: Option<CollectorUrl> = COLLECTOR_OR_NONE, default(""),
            "You look for the cause of a delay, and have a collector such as http://127.0.0.1:4318.",
            or(OTLP_TRACES_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT");
        /// The service that spans are of; empty: nice-knovvu-producer, nice-knovvu-consumer, or nice-knovvu.
        service_name: Option<String> = TEXT_OR_NONE, default(""),
            "Several installations send to one collector.",
            or("OTEL_SERVICE_NAME");
        /// The share of conversations, 0 to 1, that is traced. The producer decides for both services.
        sample: f64 = SHARE, default(1.0),
            "The collector, or its store, takes no more than a part.",
            or("OTEL_TRACES_SAMPLER_ARG");
        /// Headers of each request, in the form name=value,name=value.
        headers: CollectorHeaders = COLLECTOR_HEADERS, example("/run/secrets/traces_headers"),
            "The collector asks who sends, as with Authorization=Bearer%20….",
            or("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        /// A PEM file of certificates that are trusted besides those of the system.
        ca_file: Option<PathBuf> = PATH_OR_NONE, default(""),
            "Your own authority has signed the certificate of the collector.";
    }

    /// Signed days, by which an auditor sees that nothing was taken out later.
    proof: ProofConfig {
        /// The directory; each tenant has a folder in it. Empty: no day is signed.
        dir: Option<PathBuf> = PATH_OR_NONE, default(""),
            "Somebody must be able to check the balance of each day: `report --sign` writes there.";
        /// The key that signs: 32 bytes in hex, which `report keygen` makes.
        key: SealKey = SEAL_KEY, example("/run/secrets/proof_key"),
            "The key is replaced; then the auditor needs both public keys.";
        /// The producer signs each day that is over, after the nightly comparison.
        nightly: bool = FLAG, default(false),
            "Nobody shall have to think of it. It lists each day once more.";
    }

    /// The log, on stderr.
    log: LogConfig {
        /// text for people, json for machines.
        format: LogFormat = word(), default("text"),
            "A log collector reads it.";
        /// Level, or levels by module, such as info,stages=debug.
        filter: String = TEXT, default("info"),
            "You look for the cause of a problem.";
    }
}

/// Every key with its section and its place on the page.
pub(super) fn all() -> impl Iterator<Item = TableEntry> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (section, key)))
        .enumerate()
        .map(|(place, (section, key))| (place, section, key))
}
