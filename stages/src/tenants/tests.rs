//! One client for each tenant; what is wrong with one is nobody else's trouble.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::join_all;
use model::Unmetered;
use nice::{Auth, GroupKind, GroupSelector, NiceSettings};
use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::entry::UNUSABLE_DELAY;
use super::*;

/// Settings that a test writes.
struct Table {
    rows: Mutex<HashMap<String, Result<TenantSettings, SettingsError>>>,
    reads: AtomicUsize,
    /// One permit for each read that may go on.
    gate: Semaphore,
}

impl Table {
    fn write(&self, tenant: &str, row: Result<TenantSettings, SettingsError>) {
        self.rows.lock().unwrap().insert(tenant.to_owned(), row);
    }

    fn erase(&self, tenant: &str) {
        self.rows.lock().unwrap().remove(tenant);
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl SettingsSource for Table {
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if tenant.as_str() == "slow" {
            self.gate.acquire().await.unwrap().forget();
        }
        self.rows.lock().unwrap().get(tenant.as_str()).cloned().transpose()
    }
}

fn settings(revision: &str) -> TenantSettings {
    let issuer: reqwest::Url = "https://nice.example.com".parse().unwrap();
    TenantSettings {
        nice: NiceSettings {
            issuer,
            auth: Auth::AccessKey { access_key_id: "key".to_owned(), access_key_secret: SecretString::from("secret") },
            api_version: "v33.0".to_owned(),
            group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: "Knovvu".to_owned() },
            acd_url: None,
            facade_url: None,
            auth_url: None,
            media_hosts: Vec::new(),
            private_media_hosts: Vec::new(),
        },
        scope: RecordingScope::Leg,
        retention: Default::default(),
        revision: revision.to_owned(),
    }
}

struct Rig {
    table: Arc<Table>,
    budgets: Arc<AtomicUsize>,
    tenants: Arc<Tenants>,
}

impl Rig {
    fn new(kept: usize) -> Self {
        let table = Arc::new(Table { rows: Mutex::default(), reads: AtomicUsize::new(0), gate: Semaphore::new(0) });
        let budgets = Arc::new(AtomicUsize::new(0));
        let quota: QuotaOf = Arc::new({
            let budgets = budgets.clone();
            move |_| {
                budgets.fetch_add(1, Ordering::Relaxed);
                Arc::new(Unmetered)
            }
        });
        let options = TenantsOptions { kept, ..TenantsOptions::default() };
        let tenants = Arc::new(Tenants::with_options(table.clone(), quota, Metrics::new(), options));
        Self { table, budgets, tenants }
    }

    async fn get(&self, tenant: &str) -> Result<Arc<Tenant>, StageError> {
        self.tenants.get(&tenant.parse().unwrap()).await
    }
}

fn is_unknown(answer: &Result<Arc<Tenant>, StageError>) -> bool {
    matches!(answer, Err(StageError::Permanent { reason }) if reason.starts_with("unknown tenant"))
}

#[tokio::test(start_paused = true)]
async fn the_first_uses_share_one_client() {
    let rig = Rig::new(8);
    rig.table.write("acme", Ok(settings("1")));
    let all = join_all((0..100).map(|_| rig.get("acme"))).await;
    let first = all[0].as_ref().unwrap();
    assert!(all.iter().all(|tenant| Arc::ptr_eq(tenant.as_ref().unwrap(), first)));
    assert_eq!((rig.table.reads(), rig.budgets.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_lasts_as_long_as_its_settings() {
    let rig = Rig::new(8);
    rig.table.write("acme", Ok(settings("1")));
    let first = rig.get("acme").await.unwrap();
    tokio::time::advance(Duration::from_secs(14)).await;
    rig.get("acme").await.unwrap();
    assert_eq!(rig.table.reads(), 1, "not yet");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(Arc::ptr_eq(&first, &rig.get("acme").await.unwrap()));
    assert_eq!(rig.table.reads(), 2);
    rig.table.write("acme", Ok(TenantSettings { scope: RecordingScope::Master, ..settings("2") }));
    tokio::time::advance(Duration::from_secs(15)).await;
    let second = rig.get("acme").await.unwrap();
    assert_eq!(second.scope, RecordingScope::Master);
    assert_eq!(rig.budgets.load(Ordering::Relaxed), 1, "the budget is the tenant's, whatever its settings");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_tenant_is_known_soon_after_it_was_added() {
    let rig = Rig::new(8);
    assert!(is_unknown(&rig.get("acme").await));
    assert!(is_unknown(&rig.get("acme").await));
    assert_eq!(rig.table.reads(), 1, "its messages do not ask one by one");
    rig.table.write("acme", Ok(settings("1")));
    tokio::time::advance(UNKNOWN_FOR).await;
    assert!(rig.get("acme").await.is_ok());
    rig.table.erase("acme");
    tokio::time::advance(Duration::from_secs(15)).await;
    assert!(is_unknown(&rig.get("acme").await), "settings that are gone are not used");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_source_stops_nobody_who_was_known() {
    let rig = Rig::new(8);
    rig.table.write("acme", Ok(settings("1")));
    let first = rig.get("acme").await.unwrap();
    for tenant in ["acme", "other"] {
        rig.table.write(tenant, Err(SettingsError::Unreachable("down".to_owned())));
    }
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(Arc::ptr_eq(&first, &rig.get("acme").await.unwrap()));
    }
    assert!(matches!(rig.get("other").await, Err(StageError::Transient { .. })), "no dead letter");
    rig.table.write("other", Ok(settings("1")));
    tokio::time::advance(SOON).await;
    assert!(rig.get("other").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_holds_up_no_other_tenant_and_gives_up_in_the_end() {
    let rig = Rig::new(8);
    rig.table.write("slow", Ok(settings("1")));
    rig.table.write("acme", Ok(settings("1")));
    let mut slow = std::pin::pin!(rig.get("slow"));
    assert!(futures::poll!(slow.as_mut()).is_pending());
    assert!(rig.get("acme").await.is_ok());
    tokio::time::advance(READ_TIMEOUT).await;
    assert!(matches!(slow.await, Err(StageError::Transient { .. })));
}

#[tokio::test(start_paused = true)]
async fn while_one_reads_the_settings_again_the_others_go_on() {
    let rig = Rig::new(8);
    rig.table.write("slow", Ok(settings("1")));
    rig.table.gate.add_permits(1);
    let first = rig.get("slow").await.unwrap();
    tokio::time::advance(Duration::from_secs(15)).await;
    let mut reading = std::pin::pin!(rig.get("slow"));
    assert!(futures::poll!(reading.as_mut()).is_pending());
    assert!(Arc::ptr_eq(&first, &rig.get("slow").await.unwrap()));
    rig.table.gate.add_permits(1);
    assert!(Arc::ptr_eq(&first, &reading.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_gives_up_leaves_its_turn_to_the_next() {
    let rig = Rig::new(8);
    rig.table.write("slow", Ok(settings("1")));
    {
        let mut given_up = std::pin::pin!(rig.get("slow"));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
    }
    rig.table.gate.add_permits(1);
    assert!(rig.get("slow").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_tenant_with_useless_settings_wait_for_a_person() {
    let rig = Rig::new(8);
    rig.table.write("acme", Err(SettingsError::Unusable("client_secret: sealed with another key".to_owned())));
    let mut bad_version = settings("1");
    bad_version.nice.api_version = "latest".to_owned();
    rig.table.write("other", Ok(bad_version));
    for (tenant, named) in [("acme", "client_secret"), ("other", "api_version")] {
        let Err(StageError::Transient { reason, retry_after, .. }) = rig.get(tenant).await else { panic!("{tenant}") };
        assert!(reason.contains(named), "{reason}");
        assert_eq!(retry_after, Some(UNUSABLE_DELAY));
    }
    rig.table.write("acme", Ok(settings("2")));
    tokio::time::advance(Duration::from_secs(15)).await;
    assert!(rig.get("acme").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_kept_and_names_of_nobody_go_first() {
    let rig = Rig::new(3);
    for tenant in ["a", "b"] {
        rig.table.write(tenant, Ok(settings("1")));
    }
    let a = rig.get("a").await.unwrap();
    let b = rig.get("b").await.unwrap();
    for n in 0..100 {
        assert!(is_unknown(&rig.get(&format!("nobody{n}")).await));
    }
    assert_eq!(rig.tenants.kept.lock().unwrap().entries.len(), 3);
    assert!(Arc::ptr_eq(&a, &rig.get("a").await.unwrap()));
    for tenant in ["c", "d"] {
        rig.table.write(tenant, Ok(settings("1")));
        rig.get(tenant).await.unwrap();
    }
    assert!(Arc::ptr_eq(&a, &rig.get("a").await.unwrap()));
    assert!(!Arc::ptr_eq(&b, &rig.get("b").await.unwrap()), "the one not used for longest went");
}

#[tokio::test]
async fn the_settings_file_knows_one_tenant() {
    let TenantSettings { nice, scope, .. } = settings("1");
    let fixed = FixedSettings { tenant: "acme".parse().unwrap(), nice, scope, retention: Default::default() };
    assert!(fixed.nice_settings(&"acme".parse().unwrap()).await.unwrap().is_some());
    assert!(fixed.nice_settings(&"other".parse().unwrap()).await.unwrap().is_none());
}
