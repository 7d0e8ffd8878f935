//! Settings go in and come out the same; what stands in the table is of no use without the key.

use std::time::Duration;

use database::{
    schema,
    testing::{TestDatabase, open, test_database},
};
use flow::StageError;
use model::Unmetered;
use nice::{Auth, GroupKind, GroupSelector};
use secrecy::{ExposeSecret, SecretString};
use test_servers::Postgres;

use super::row::MASK;
use super::*;
use crate::metrics::Metrics;
use crate::tenants::{Tenants, TenantsOptions};

const CANARY: &str = "canary-secret-4f1d";

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn oauth() -> NiceSettings {
    NiceSettings {
        issuer: "https://cxone.example.com/".parse().unwrap(),
        auth: Auth::OAuth {
            client_id: "knovvu@example.com".to_owned(),
            client_secret: SecretString::from(format!("{CANARY}-client")),
            access_key_id: "KEY1".to_owned(),
            access_key_secret: SecretString::from(format!("{CANARY}-access")),
        },
        api_version: "v33.0".to_owned(),
        group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: "Knovvu".to_owned() },
        acd_url: Some("https://acd.example.com/".parse().unwrap()),
        facade_url: None,
        auth_url: None,
        media_hosts: vec!["*.amazonaws.com".parse().unwrap(), "127.0.0.1:9000".parse().unwrap()],
        private_media_hosts: vec!["b.vpce.amazonaws.com".parse().unwrap()],
    }
}

fn access_key() -> NiceSettings {
    let access_key_secret = SecretString::from(CANARY);
    NiceSettings {
        auth: Auth::AccessKey { access_key_id: "KEY2".to_owned(), access_key_secret },
        group: GroupSelector { kind: GroupKind::Team, id_or_name: "7".to_owned() },
        ..oauth()
    }
}

fn table(database: &Database, key: u8) -> SettingsTable {
    SettingsTable::new(database.clone(), Some(Seal::new(&[key; 32])))
}

/// Tenants that read their settings at each use.
fn tenants(table: &SettingsTable) -> Tenants {
    let options = TenantsOptions { reread: Duration::ZERO, kept: 8, ..TenantsOptions::default() };
    Tenants::with_options(Arc::new(table.clone()), Arc::new(|_| Arc::new(Unmetered)), Metrics::new(), options)
}

async fn execute(database: &Database, statement: &str) -> Result<u64, tokio_postgres::Error> {
    database.client().await.unwrap().execute(statement, &[]).await
}

fn secrets(auth: &Auth) -> Vec<String> {
    match auth {
        Auth::OAuth { client_id, client_secret, access_key_id, access_key_secret } => vec![
            client_id.clone(),
            client_secret.expose_secret().to_owned(),
            access_key_id.clone(),
            access_key_secret.expose_secret().to_owned(),
        ],
        Auth::AccessKey { access_key_id, access_key_secret } => {
            vec![access_key_id.clone(), access_key_secret.expose_secret().to_owned()]
        }
    }
}

#[tokio::test]
async fn what_was_set_comes_back() {
    let database = test_database().await;
    let table = table(&database, 1);
    assert!(table.get(&tenant("acme")).await.unwrap().is_none());
    for (settings, scope) in [(oauth(), RecordingScope::Leg), (access_key(), RecordingScope::Master)] {
        table.set(&tenant("acme"), &settings, scope, Retention::default()).await.unwrap();
        let read = table.get(&tenant("acme")).await.unwrap().unwrap();
        assert_eq!(format!("{:?}", read.nice), format!("{settings:?}"));
        assert_eq!(secrets(&read.nice.auth), secrets(&settings.auth));
        assert_eq!((read.nice.acd_url, read.nice.auth_url), (settings.acd_url, None));
        assert_eq!(read.scope, scope);
    }
    let known = execute(&database, "select from tenants where tenant_id = 'acme' and slug = 'acme'").await.unwrap();
    assert_eq!(known, 1, "the tenant itself is there");
}

#[tokio::test]
async fn neither_table_nor_listing_gives_a_secret_away() {
    let database = test_database().await;
    let table = table(&database, 1);
    table.set(&tenant("acme"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    table.set(&tenant("zeta"), &access_key(), RecordingScope::Leg, Retention::default()).await.unwrap();
    let keyless = SettingsTable::new(database.clone(), None);
    let shown = keyless.show(&tenant("acme")).await.unwrap().unwrap();
    assert_eq!((shown.client_secret.as_deref(), shown.access_key_secret.as_str()), (Some(MASK), MASK));
    let listed = keyless.list().await.unwrap();
    assert_eq!(listed.iter().map(|shown| shown.tenant_id.as_str()).collect::<Vec<_>>(), ["acme", "zeta"]);
    assert!(keyless.show(&tenant("other")).await.unwrap().is_none());
    assert!(
        matches!(keyless.get(&tenant("acme")).await, Err(SettingsError::Unusable(text)) if text.contains("seal_key"))
    );

    let client = database.client().await.unwrap();
    let rows = client.query("select nice_settings::text from nice_settings", &[]).await.unwrap();
    let mut everything = rows.iter().map(|row| row.get::<_, String>(0)).collect::<String>();
    everything += &format!("{table:?} {listed:?} {}", serde_json::to_string(&listed).unwrap());
    assert!(!everything.contains(CANARY));
}

#[tokio::test]
async fn the_owner_writes_settings_and_the_services_read_them() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let acme = tenant("acme");
    table(&database.member("test_owner"), 1)
        .set(&acme, &oauth(), RecordingScope::Leg, Retention::default())
        .await
        .unwrap();
    for user in ["test_producer", "test_consumer"] {
        let table = table(&database.member(user), 1);
        assert!(table.get(&acme).await.unwrap().is_some());
        assert!(table.set(&acme, &access_key(), RecordingScope::Leg, Retention::default()).await.is_err(), "{user}");
    }
    assert!(table(&database.member("test_analysis"), 1).get(&acme).await.is_err());
}

#[tokio::test]
async fn every_change_is_another_revision() {
    let database = test_database().await;
    let table = table(&database, 1);
    let mut revisions = std::collections::HashSet::new();
    for change in ["", "update nice_settings set \"group\" = 'Other'", "delete from nice_settings", ""] {
        if change.is_empty() {
            table.set(&tenant("acme"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
        } else {
            execute(&database, change).await.unwrap();
        }
        if let Some(settings) = table.get(&tenant("acme")).await.unwrap() {
            assert!(revisions.insert(settings.revision), "seen before");
        }
    }
    assert_eq!(revisions.len(), 3);
}

#[tokio::test]
async fn a_rotated_key_is_used_from_the_next_reading_on() {
    let database = test_database().await;
    let table = table(&database, 1);
    let tenants = tenants(&table);
    assert!(matches!(tenants.get(&tenant("acme")).await, Err(StageError::Permanent { .. })));
    table.set(&tenant("acme"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    // An unknown tenant is looked for again at once, since nothing is remembered here.
    let first = tenants.get(&tenant("acme")).await.unwrap();
    assert!(Arc::ptr_eq(&first, &tenants.get(&tenant("acme")).await.unwrap()));
    table.set(&tenant("acme"), &access_key(), RecordingScope::Master, Retention::default()).await.unwrap();
    let second = tenants.get(&tenant("acme")).await.unwrap();
    assert_eq!(second.scope, RecordingScope::Master);
    assert!(!Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_tenant_sealed_with_another_key_waits_alone() {
    let database = test_database().await;
    table(&database, 2).set(&tenant("other"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    let table = table(&database, 1);
    table.set(&tenant("acme"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    let tenants = tenants(&table);
    let Err(StageError::Transient { reason, retry_after, .. }) = tenants.get(&tenant("other")).await else {
        panic!("a person can mend it")
    };
    assert!(reason.contains("access_key_secret") && reason.contains("[catalog] seal_key"), "{reason}");
    assert_eq!(retry_after, Some(Duration::from_secs(60)));
    assert!(tenants.get(&tenant("acme")).await.is_ok());
    table.set(&tenant("other"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    assert!(tenants.get(&tenant("other")).await.is_ok());
}

#[tokio::test]
async fn a_row_written_by_hand_is_named_by_its_column() {
    let database = test_database().await;
    let table = table(&database, 1);
    table.set(&tenant("zeta"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    for (change, named) in [
        ("issuer = 'canary'", "issuer"),
        ("issuer = 'http://canary.example.com'", "issuer"),
        ("acd_url = 'canary'", "acd_url"),
        ("api_version = 'canary'", "api_version"),
        ("\"group\" = ' '", "group"),
        ("media_hosts = '{canary..com}'", "media_hosts"),
        ("private_media_hosts = '{canary..com}'", "private_media_hosts"),
        ("private_media_hosts = '{elsewhere.example}'", "private_media_hosts"),
        ("client_secret = access_key_secret", "client_secret"),
        (
            "access_key_secret = (select access_key_secret from nice_settings where tenant_id = 'zeta')",
            "access_key_secret",
        ),
    ] {
        table.set(&tenant("acme"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
        execute(&database, &format!("update nice_settings set {change} where tenant_id = 'acme'")).await.unwrap();
        let Err(SettingsError::Unusable(text)) = table.get(&tenant("acme")).await else { panic!("{change}") };
        assert!(text.contains(named) && !text.contains("canary"), "{text}");
        assert!(table.show(&tenant("acme")).await.unwrap().is_some(), "it can be shown to whoever mends it");
    }
    for refused in ["client_secret = 'plain'", "auth_flow = 'basic'", "client_id = null", "media_hosts = '{}'"] {
        assert!(execute(&database, &format!("update nice_settings set {refused}")).await.is_err(), "{refused}");
    }
}

#[tokio::test]
async fn settings_that_no_client_would_take_are_not_written() {
    let database = test_database().await;
    let table = table(&database, 1);
    let bad = NiceSettings { api_version: "latest".to_owned(), ..oauth() };
    let refused = table.set(&tenant("acme"), &bad, RecordingScope::Leg, Retention::default()).await;
    assert!(matches!(refused, Err(SettingsError::Unusable(text)) if text.contains("api_version")));
    assert!(table.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_outage_of_the_database_stops_no_tenant_that_was_known() {
    let server = Postgres::start().await;
    let database = open(&server.database().await);
    schema::migrate(&database).await.unwrap();
    let table = table(&database, 1);
    table.set(&tenant("acme"), &oauth(), RecordingScope::Leg, Retention::default()).await.unwrap();
    let tenants = tenants(&table);
    let first = tenants.get(&tenant("acme")).await.unwrap();
    server.kill().await;
    assert!(Arc::ptr_eq(&first, &tenants.get(&tenant("acme")).await.unwrap()));
    assert!(matches!(tenants.get(&tenant("other")).await, Err(StageError::Transient { .. })));
}
