//! What each command cannot do without, and which settings stand in for one another.

use super::*;

/// Servers in place of everything embedded, but for the recording store.
const SERVERS: &[(&str, &str)] = &[
    ("NICE_KNOVVU_QUEUE__KIND", "rabbitmq"),
    ("NICE_KNOVVU_QUEUE__URL", "amqp://u:s3cr3t@broker"),
    ("NICE_KNOVVU_CATALOG__KIND", "postgres"),
    ("NICE_KNOVVU_CATALOG__URL", "postgres://u:s3cr3t@db/knovvu"),
    ("NICE_KNOVVU_CATALOG__SEAL_KEY", "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"),
];

const BUCKET: &str = "[recordings]\nkind = \"s3\"\nendpoint = \"https://s3.example.com\"\nbucket = \"recordings\"\n";

/// The keys that are told as missing, as `[section] key`.
fn missing(text: &str, env: &[(&str, &str)], need: Need) -> Vec<String> {
    let Err(errors) = load(text, env, need) else { return Vec::new() };
    let told = errors.to_string();
    let key = |line: &str| {
        let (key, _) = line.strip_prefix("nice-knovvu.toml: ")?.split_once(": missing")?;
        Some(key.to_owned())
    };
    told.lines().map(|line| key(line).unwrap_or_else(|| panic!("{line} is no missing key"))).collect()
}

#[test]
fn a_producer_needs_its_tenant_and_no_recording_store() {
    let s3 = "[recordings]\nkind = \"s3\"\n";
    assert_eq!(missing(s3, SERVERS, Need::Producer), ["[tenant] id"]);
    assert_eq!(missing(&format!("[tenant]\nid = \"acme\"\n{s3}"), SERVERS, Need::Producer), [""; 0]);
    let webhook = "[tenant]\nid = \"acme\"\n[events]\nwebhook = true\n";
    assert_eq!(missing(webhook, SERVERS, Need::Producer), ["[events] webhook_token"]);
}

#[test]
fn a_consumer_needs_its_recording_store_and_no_tenant() {
    assert_eq!(missing("", SERVERS, Need::Consumer), [""; 0]);
    let lacks = ["endpoint", "bucket", "access_key_id", "secret_access_key"].map(|key| format!("[recordings] {key}"));
    assert_eq!(missing("[recordings]\nkind = \"s3\"\n", SERVERS, Need::Consumer), lacks);
}

#[test]
fn the_commands_of_the_database_need_no_broker_no_tenant_and_no_store() {
    let servers = "[queue]\nkind = \"rabbitmq\"\n[catalog]\nkind = \"postgres\"\n[recordings]\nkind = \"s3\"\n";
    assert_eq!(missing(servers, &[], Need::Catalog), ["[catalog] url"]);
    assert_eq!(missing(servers, &[], Need::Settings), ["[catalog] url", "[catalog] seal_key"]);
    assert_eq!(missing(servers, &[], Need::Local), [""; 0]);
}

#[test]
fn a_file_of_credentials_stands_for_the_key() {
    let text = format!("{BUCKET}credentials_file = \"/run/secrets/aws\"\ncredentials_profile = \"calls\"\n");
    let config = load(&text, SERVERS, Need::Consumer).unwrap_or_else(|errors| panic!("{errors}"));
    let store = &config.recordings;
    assert_eq!(store.credentials_file.as_deref(), Some(Path::new("/run/secrets/aws")));
    assert_eq!(store.credentials_profile, "calls");
}

#[test]
fn a_secret_that_can_be_read_again_is_known_by_its_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, "s3cr3t\n").expect("the secret is written");
    let id = "access_key_id = \"minio\"\n";
    let in_file = format!("{BUCKET}{id}secret_access_key_file = {:?}\n", file.to_str().expect("it is UTF-8"));
    let here = format!("{BUCKET}{id}secret_access_key = \"s3cr3t\"\nsession_token = \"s3cr3t-token\"\n");
    let secrets = |text: &str| {
        let config = load(text, SERVERS, Need::Consumer).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!format!("{config:?}").contains("s3cr3t"), "{config:?}");
        (config.recordings.secret_access_key.clone(), config.recordings.session_token.clone())
    };
    assert!(matches!(secrets(&in_file), (Some(SecretSource::File(path)), None) if path == file));
    let (Some(SecretSource::Here(secret)), Some(SecretSource::Here(token))) = secrets(&here) else {
        panic!("the secrets are in the settings")
    };
    assert_eq!((secret.expose_secret(), token.expose_secret()), ("s3cr3t", "s3cr3t-token"));
}

#[test]
fn authorities_of_our_own_and_the_encryption_arrive_in_their_fields() {
    let text = format!(
        "[queue]\nca_file = \"/etc/broker.pem\"\n[catalog]\nconnections = 3\n{BUCKET}access_key_id = \"k\"\n\
         secret_access_key = \"s\"\nencryption = \"sse-kms\"\nkms_key_id = \"calls\"\nca_file = \"/etc/s3.pem\"\n"
    );
    let config = load(&text, SERVERS, Need::Consumer).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.queue.ca_file.as_deref(), Some(Path::new("/etc/broker.pem")));
    assert_eq!(config.catalog.connections, 3);
    let store = &config.recordings;
    assert_eq!((store.encryption, store.kms_key_id.as_deref()), (EncryptionKind::SseKms, Some("calls")));
    assert_eq!(store.ca_file.as_deref(), Some(Path::new("/etc/s3.pem")));
}

#[test]
fn a_table_of_nice_settings_alone_is_read_with_its_defaults() {
    let text = "[nice]\nauth_flow = \"access_key\"\naccess_key_id = \"k\"\naccess_key_secret = \"s3cr3t\"\ngroup = \"Knovvu\"\n";
    let nice = NiceConfig::from_toml(text, "stdin").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((nice.group.as_deref(), nice.api_version.as_str()), (Some("Knovvu"), "v33.0"));
    assert_eq!(nice.access_key_secret.as_ref().map(|secret| secret.expose_secret()), Some("s3cr3t"));
}

#[test]
fn a_table_of_nice_settings_with_a_mistake_is_refused_key_by_key() {
    let told = |text: &str| NiceConfig::from_toml(text, "stdin").expect_err("it has a mistake").to_string();
    let empty = told("");
    let keys: Vec<_> = empty.lines().map(|line| line.split(": ").nth(1).unwrap_or_default()).collect();
    let lacks = ["client_id", "client_secret", "access_key_id", "access_key_secret", "group"];
    assert_eq!(keys, lacks.map(|key| format!("[nice] {key}")), "{empty}");
    assert!(empty.lines().all(|line| line.starts_with("stdin: ")), "{empty}");
    assert!(!empty.contains("NICE_KNOVVU_"), "the environment is not read here: {empty}");
    let whole =
        "[nice]\nauth_flow = \"access_key\"\naccess_key_id = \"k\"\naccess_key_secret = \"s3cr3t\"\ngroup = \"g\"\n";
    for (more, says) in [
        ("[tenant]\nid = \"acme\"\n", "[tenant] id: only the table [nice] is read here; remove this key"),
        ("[queue]\nurl = \"amqp://u:s3cr3t@h\"\n", "[queue] url: only the table [nice] is read here"),
        ("[nise]\ngroup = \"g\"\n", "did you mean [nice]?"),
        ("[tenant]\nid =", "stdin:7:"),
    ] {
        let told = told(&format!("{whole}{more}"));
        assert!(told.contains(says) && !told.contains("s3cr3t"), "{more:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}
