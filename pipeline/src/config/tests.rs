//! What the settings promise: the page equals the table, every mistake is named, no secret is told.

use std::path::Path;

use jiff::civil::Time;
use nice::MediaHost;
use quota::Rate;
use secrecy::ExposeSecret;

use super::*;

mod mistakes;
mod needs;
mod page;
mod secrets;
mod standard;

/// The least that a service needs on embedded defaults.
const LEAST: &[(&str, &str)] = &[
    ("NICE_KNOVVU_TENANT__ID", "acme"),
    ("NICE_KNOVVU_NICE__CLIENT_ID", "client"),
    ("NICE_KNOVVU_NICE__CLIENT_SECRET", "s3cr3t-client"),
    ("NICE_KNOVVU_NICE__ACCESS_KEY_ID", "key"),
    ("NICE_KNOVVU_NICE__ACCESS_KEY_SECRET", "s3cr3t-key"),
    ("NICE_KNOVVU_NICE__GROUP", "Knovvu"),
];

/// Loads a text as `nice-knovvu.toml` with this environment.
fn load(text: &str, env: &[(&str, &str)], need: Need) -> Result<Config, ConfigErrors> {
    Config::from_text(text, DEFAULT_FILE, env.iter().copied(), need)
}

/// Loads a text for a service, with the mandatory keys in the environment.
fn load_service(text: &str) -> Config {
    load(text, LEAST, Need::Service).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The mistakes of a load that has to fail.
fn mistakes_of(text: &str, env: &[(&str, &str)], need: Need) -> String {
    load(text, env, need).expect_err("the load has a mistake").to_string()
}

#[test]
fn every_value_of_the_file_arrives_in_its_field() {
    let config = load_service(
        r#"
        [events]
        poll = false
        poll_interval = "200ms"
        webhook = true
        webhook_listen = "127.0.0.1:0"
        webhook_token = "t"
        [reconciliation]
        at = "23:05"
        settle = "0s"
        recheck = "0s"
        [limits]
        media_playback = "7/30s"
        live_reserve = 1
        [retry]
        not_ready_delays = ["1s", "2m"]
        first_look = 0.5
        [consumer]
        concurrency = 1024
        [log]
        format = "json"
        [nice]
        auth_flow = "access_key"
        acd_url = "http://127.0.0.1:8080/inContactAPI"
        media_hosts = ["*.AmazonAWS.com", "cdn.example.com", "127.0.0.1:8080", "[::1]:9000"]
        "#,
    );
    assert!(!config.events.poll);
    assert_eq!(config.events.poll_interval, Duration::from_millis(200));
    assert!(config.events.webhook, "the webhook is switched on");
    assert_eq!(config.events.webhook_listen.port(), 0);
    assert_eq!(config.events.webhook_token.as_ref().map(|token| token.expose_secret()), Some("t"));
    assert_eq!(config.reconciliation.at, Time::constant(23, 5, 0, 0));
    assert_eq!(config.reconciliation.settle, Duration::ZERO);
    assert_eq!(config.reconciliation.recheck, Duration::ZERO);
    assert_eq!(config.limits.media_playback, Rate { limit: 7, window: Duration::from_secs(30) });
    assert_eq!(config.limits.acd, Rate { limit: 2, window: Duration::from_secs(1) });
    assert_eq!(config.limits.live_reserve, 1.0);
    assert_eq!(config.retry.not_ready_delays, [Duration::from_secs(1), Duration::from_secs(120)]);
    assert_eq!(config.retry.first_look, 0.5);
    assert_eq!(config.consumer.concurrency, 1024);
    assert_eq!(config.log.format, LogFormat::Json);
    let nice = &config.nice;
    assert_eq!(nice.auth_flow, AuthFlow::AccessKey);
    assert_eq!(nice.acd_url.clone().map(String::from).as_deref(), Some("http://127.0.0.1:8080/inContactAPI"));
    assert!(nice.facade_url.is_none());
    let hosts: Vec<_> = nice.media_hosts.iter().map(MediaHost::to_string).collect();
    assert_eq!(hosts, ["*.amazonaws.com", "cdn.example.com", "127.0.0.1:8080", "[::1]:9000"]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let mut env = LEAST.to_vec();
    env.extend([
        ("NICE_KNOVVU_EVENTS__POLL_INTERVAL", "5s"),
        ("NICE_KNOVVU_RETRY__NOT_READY_DELAYS", "1s, 2s"),
        ("NICE_KNOVVU_NICE__MEDIA_HOSTS", r#"["a.example.com", "*.b.example.com"]"#),
        ("NICE_KNOVVU_LIMITS__LIVE_RESERVE", "0.25"),
        ("NICE_KNOVVU_EVENTS__POLL", "false"),
    ]);
    let text = "[events]\npoll_interval = \"not even a duration\"\n[nice]\ngroup = \"other\"\naccess_key_secret_file = \"/nowhere\"";
    let config = load(text, &env, Need::Service).expect("the environment overrides what is wrong in the file");
    assert_eq!(config.events.poll_interval, Duration::from_secs(5));
    assert_eq!(config.retry.not_ready_delays, [Duration::from_secs(1), Duration::from_secs(2)]);
    assert_eq!(config.limits.live_reserve, 0.25);
    assert!(!config.events.poll);
    let nice = &config.nice;
    assert_eq!((nice.group.as_deref(), nice.media_hosts.len()), (Some("Knovvu"), 2));
    assert_eq!(nice.access_key_secret.as_ref().map(|secret| secret.expose_secret()), Some("s3cr3t-key"));
}

#[test]
fn every_production_kind_has_its_typed_section() {
    let text = format!(
        "[queue]\nkind = \"rabbitmq\"\nurl = \"amqp://u:p@broker:5672/%2f\"\n\
         [catalog]\nkind = \"postgres\"\nurl = \"postgres://u:p@db/knovvu\"\nseal_key = \"{}\"\n\
         [recordings]\nkind = \"s3\"\nendpoint = \"http://127.0.0.1:9000\"\nbucket = \"recordings\"\n\
         access_key_id = \"minio\"\nsecret_access_key = \"minio-secret\"\n[tenant]\nid = \"acme\"\n",
        "0f".repeat(32)
    );
    let config = load(&text, &[], Need::Service).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.nice.access_key_secret.is_none(), "with postgres the [nice] settings stand in the database");
    assert_eq!((config.queue.kind, config.queue.url.is_some()), (QueueKind::Rabbitmq, true));
    assert_eq!((config.catalog.kind, config.catalog.url.is_some()), (CatalogKind::Postgres, true));
    assert_eq!(config.catalog.seal_key.as_ref().map(|key| key.expose()), Some(&[0x0f; 32]));
    assert_eq!((config.recordings.kind, config.recordings.region.as_str()), (RecordingsKind::S3, "us-east-1"));
}

#[test]
fn fluvio_is_found_by_its_key_by_the_url_of_before_or_by_its_profile() {
    let read =
        |text: &str| load(&format!("[queue]\n{text}"), &[], Need::Local).unwrap_or_else(|errors| panic!("{errors}"));
    let alone = read("kind = \"fluvio\"");
    assert!(alone.queue.cluster().is_none() && alone.queue.profile.is_none(), "its own configuration knows");
    assert_eq!((alone.queue.partitions, alone.queue.replication), (8, 1));
    let profile = read("kind = \"fluvio\"\nprofile = \"site\"\npartitions = 64\nreplication = 3");
    let queue = &profile.queue;
    assert_eq!((queue.profile.as_deref(), queue.partitions, queue.replication), (Some("site"), 64, 3));
    let named = read("kind = \"fluvio\"\nfluvio = \"SC.example.com:9003\"");
    assert_eq!(named.queue.cluster().as_deref(), Some("sc.example.com:9003"));
    assert!(named.to_redacted_toml().contains("fluvio = \"sc.example.com:9003\""), "it is no secret");
    let by_url = read("kind = \"fluvio\"\nurl = \"[::1]:9003\"");
    assert_eq!((by_url.queue.cluster().as_deref(), by_url.queue.rabbitmq().is_none()), (Some("[::1]:9003"), true));
}

#[test]
fn one_file_names_both_queues_whichever_it_is_that_counts() {
    let both = "url = \"amqps://u:s3cr3t@broker/v\"\nfluvio = \"127.0.0.1:9003\"\n";
    for kind in ["rabbitmq", "fluvio", "embedded"] {
        let config = load(&format!("[queue]\nkind = \"{kind}\"\n{both}"), &[], Need::Local).expect("both are named");
        let url = config.queue.rabbitmq().map(|url| url.expose_secret().to_owned());
        assert_eq!(url.as_deref(), Some("amqps://u:s3cr3t@broker/v"), "{kind}");
        assert_eq!(config.queue.cluster().as_deref(), Some("127.0.0.1:9003"), "{kind}");
    }
}

#[test]
fn a_local_command_asks_for_nothing_and_still_validates_what_is_there() {
    let config = load("", &[], Need::Local).expect("nothing is mandatory for a listing");
    assert!(config.tenant.id.is_none() && config.nice.group.is_none());
    assert_eq!(config.recordings.kind, RecordingsKind::Filesystem);
    assert_eq!(config.recordings.dir(&config.state), Path::new("./data/recordings"));
    let text = "[queue]\nkind = \"rabbitmq\"\n[catalog]\nkind = \"postgres\"\n[recordings]\nkind = \"s3\"";
    let config = load(text, &[], Need::Local).expect("incomplete sections are accepted");
    assert!(config.queue.url.is_none() && config.catalog.url.is_none() && config.recordings.bucket.is_none());
    assert!(mistakes_of("[nice]\nissuer = \"http://example.com\"", &[], Need::Local).contains("[nice] issuer"));
}

#[test]
fn a_consumer_of_a_shared_catalog_needs_no_tenant_and_no_webhook_token() {
    let text = format!(
        "[events]\nwebhook = true\n[catalog]\nkind = \"postgres\"\nurl = \"postgres://db/k\"\nseal_key = \"{}\"",
        "00".repeat(32)
    );
    load(&text, &[], Need::Consumer).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(mistakes_of("", &[], Need::Consumer).contains("[tenant] id"), "an embedded catalog is one tenant's");
}

#[test]
fn a_missing_settings_file_is_named_with_its_remedy() {
    let path = Path::new("/nowhere/nice-knovvu.toml");
    let errors = Config::load(Some(path), Vec::<(String, String)>::new(), Need::Local).expect_err("there is no file");
    let text = errors.to_string();
    assert!(text.contains("/nowhere/nice-knovvu.toml") && text.contains("--config"), "{text}");
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("settings.toml");
    std::fs::write(&path, [b'[', 0xff, b']']).expect("the file is written");
    let none = || Vec::<(String, String)>::new();
    let errors = Config::load(Some(&path), none(), Need::Local).expect_err("it is not UTF-8");
    assert!(errors.to_string().contains("not UTF-8"), "{errors}");
    let errors = Config::load(Some(directory.path()), none(), Need::Local).expect_err("it is a directory");
    assert!(errors.to_string().contains("cannot be read"), "{errors}");
    std::fs::write(&path, vec![b'#'; (LARGEST_FILE + 1) as usize]).expect("the file is written");
    let errors = Config::load(Some(&path), none(), Need::Local).expect_err("it is too large");
    assert!(errors.to_string().contains("larger than 1024 KiB"), "{errors}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = OsString::from_vec(vec![0xff, 0xfe]);
    let env = [(OsString::from("NICE_KNOVVU_LOG__FILTER"), bytes)];
    let text = Config::load(None, env, Need::Local).expect_err("it is not UTF-8").to_string();
    assert!(text.contains("NICE_KNOVVU_LOG__FILTER") && text.contains("not UTF-8"), "{text}");
    let name = OsString::from_vec([b"NICE_KNOVVU_".as_slice(), &[0xff]].concat());
    let text = Config::load(None, [(name, OsString::from("x"))], Need::Local).expect_err("no such key").to_string();
    assert!(text.contains("not UTF-8"), "{text}");
}

#[test]
fn mistakes_are_told_together_in_the_order_of_the_file() {
    let text = "[queue]\nprefx = \"a\"\n[agents]\nsync_interval = 10\n[events]\npoll_intervall = \"1s\"\n";
    let env = [("NICE_KNOVVU_ADMIN__LISTEN", "nowhere"), ("NICE_KNOVVU_TENANT__ID", "acme")];
    let told = mistakes_of(text, &env, Need::Service);
    let lines: Vec<_> = told.lines().collect();
    let order = ["[queue] prefx", "[agents] sync_interval", "[events] poll_intervall", "NICE_KNOVVU_ADMIN__LISTEN"];
    for (line, key) in lines.iter().zip(order) {
        assert!(line.contains(key), "{key} is not in {line}");
    }
    assert_eq!(lines[2], "nice-knovvu.toml: [events] poll_intervall: unknown key; did you mean poll_interval?");
    assert!(lines[4].starts_with("nice-knovvu.toml: [nice] client_id: missing"), "{told}");
    assert_eq!(lines.len(), 4 + 5, "{told}");
}

#[test]
fn service_links_of_kubernetes_are_no_settings() {
    let env = [
        ("NICE_KNOVVU_SERVICE_HOST", "10.0.0.1"),
        ("NICE_KNOVVU_SERVICE_PORT_HTTP", "9464"),
        ("NICE_KNOVVU_PORT", "tcp://10.0.0.1:9464"),
        ("NICE_KNOVVU_CONSUMER_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("NICE_KNOVVU_CONFIG", "/etc/nice-knovvu.toml"),
        ("NICE_KNOVVU", "not ours"),
    ];
    load("", &env, Need::Local).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn where_an_image_puts_its_files_is_no_installation() {
    let image = [("NICE_KNOVVU_STATE__DIR", "/var/lib/nice-knovvu"), ("NICE_KNOVVU_ADMIN__LISTEN", "0.0.0.0:9464")];
    let is_set = |text, env: &[(&str, &str)]| load(text, env, Need::Local).unwrap().is_set();
    assert!(!is_set("", &image) && !is_set("[log]\nfilter = \"info\"\n", &image));
    assert!(is_set("[tenant]\nid = \"acme\"\n", &image));
}
