//! Tenants in use: what NICE says to one of them, and what the others notice of it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails loudly, and its tasks end with it")]
#![allow(dead_code, reason = "the rig is that of the client's own tests")]

#[path = "../clients/nice/tests/client/fake.rs"]
mod fake;
#[path = "../clients/nice/tests/client/rig.rs"]
mod rig;

use std::collections::HashMap;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use flow::StageError;
use model::{ContactId, TenantId};
use nice::{Auth, NiceError, Timeouts};
use secrecy::SecretString;
use stages::{
    metrics::Metrics,
    tenants::{
        QuotaOf, RecordingScope, SettingsError, SettingsSource, Tenant, TenantSettings, Tenants, TenantsOptions,
    },
};

use crate::fake::{Fake, Request, Step, json, status};
use crate::rig::{Counting, TOKEN_PATH, is_refused, is_transient, issue, settings, short};

const CONTACT: &str = r#"{"contactId":7,"agentId":5}"#;

fn seven() -> ContactId {
    ContactId::from_number(7).unwrap()
}

/// Settings that a test writes.
#[derive(Default)]
struct Table {
    rows: Mutex<HashMap<String, TenantSettings>>,
    reads: AtomicUsize,
}

#[async_trait]
impl SettingsSource for Table {
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.rows.lock().unwrap().get(tenant.as_str()).cloned())
    }
}

impl Table {
    fn write(&self, tenant: &str, api: &Fake, secret: &str) {
        let access_key_secret = SecretString::from(secret);
        let mut nice = settings(api, &[]);
        nice.auth = Auth::AccessKey { access_key_id: "key".to_owned(), access_key_secret };
        let row = TenantSettings {
            nice,
            scope: RecordingScope::Leg,
            retention: Default::default(),
            revision: secret.to_owned(),
        };
        self.rows.lock().unwrap().insert(tenant.to_owned(), row);
    }
}

/// Tenants whose settings are hardly ever read again, each with a budget of its own.
fn tenants(table: &Arc<Table>, budgets: HashMap<&'static str, Arc<Counting>>) -> Tenants {
    let quota: QuotaOf = Arc::new(move |tenant| budgets[tenant.as_str()].clone());
    let timeouts = Timeouts { api: Duration::from_secs(2), poll: Duration::from_millis(50), ..short() };
    let options = TenantsOptions { reread: Duration::from_secs(3600), kept: 8, timeouts, ..TenantsOptions::default() };
    Tenants::with_options(table.clone(), quota, Metrics::new(), options)
}

async fn get(tenants: &Tenants, tenant: &str) -> Arc<Tenant> {
    tenants.get(&tenant.parse().unwrap()).await.unwrap()
}

/// Issues tokens for the secret "new" only.
async fn particular() -> Fake {
    Fake::start(|request: &Request| match request.is(TOKEN_PATH) {
        true if request.body.contains("new") => issue(request),
        true => status(401),
        false => json(CONTACT),
    })
    .await
}

#[tokio::test]
async fn a_key_that_nice_refuses_is_looked_for_again_soon() {
    let api = particular().await;
    let table = Arc::new(Table::default());
    table.write("acme", &api, "old");
    let tenants = tenants(&table, HashMap::from([("acme", Arc::default())]));
    assert!(is_refused(&get(&tenants, "acme").await.nice.contact(seven()).await));
    table.write("acme", &api, "new");
    while get(&tenants, "acme").await.nice.contact(seven()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(table.reads.load(Ordering::Relaxed), 2, "once for each reason");
}

#[tokio::test]
async fn neither_a_refused_key_nor_an_empty_budget_is_another_tenants_trouble() {
    let api = particular().await;
    let table = Arc::new(Table::default());
    let budgets =
        HashMap::from([("refused", Arc::default()), ("full", Arc::new(Counting::default())), ("fine", Arc::default())]);
    budgets["full"].closed.store(1, Ordering::Relaxed);
    let tenants = tenants(&table, budgets);
    for (tenant, secret) in [("refused", "old"), ("full", "new"), ("fine", "new")] {
        table.write(tenant, &api, secret);
    }
    for _ in 0..20 {
        assert!(is_refused(&get(&tenants, "refused").await.nice.contact(seven()).await));
        let full = get(&tenants, "full").await.nice.contact(seven()).await;
        assert!(matches!(&full, Err(NiceError::Quota { retry_after: Some(_), .. })), "{full:?}");
        assert!(matches!(StageError::from(full.unwrap_err()), StageError::Busy { .. }));
        get(&tenants, "fine").await.nice.contact(seven()).await.unwrap();
    }
    assert!(api.count(TOKEN_PATH) <= 4, "a refused key is not hammered");
}

#[tokio::test]
async fn a_silent_nice_does_not_tie_up_every_worker() {
    let api = particular().await;
    let silent = Fake::start(|request: &Request| match request.is(TOKEN_PATH) {
        true => issue(request),
        false => vec![Step::Stall],
    })
    .await;
    let table = Arc::new(Table::default());
    table.write("silent", &silent, "new");
    table.write("fine", &api, "new");
    let tenants = tenants(&table, HashMap::from([("silent", Arc::default()), ("fine", Arc::default())]));
    let nice = get(&tenants, "silent").await.nice.clone();
    let workers = futures::future::join_all((0..16).map(|_| nice.contact(seven()))).await;
    assert!(workers.iter().all(is_transient), "nobody knew before");

    {
        let mut probes = (std::pin::pin!(nice.contact(seven())), std::pin::pin!(nice.contact(seven())));
        assert!(futures::poll!(probes.0.as_mut()).is_pending());
        get(&tenants, "silent").await;
        assert!(futures::poll!(probes.1.as_mut()).is_pending());
        let sent_away = tenants.get(&"silent".parse().unwrap()).await;
        assert!(matches!(sent_away, Err(StageError::Busy { .. })), "{sent_away:?}");
        get(&tenants, "fine").await.nice.contact(seven()).await.unwrap();
    }
    get(&tenants, "silent").await;
}

#[tokio::test]
async fn long_polls_that_hang_make_no_silent_nice() {
    let api = Fake::start(|request: &Request| match request.path.contains("get-next-event") {
        true => vec![Step::Stall],
        false if request.is(TOKEN_PATH) => issue(request),
        false => json(CONTACT),
    })
    .await;
    let table = Arc::new(Table::default());
    table.write("acme", &api, "new");
    let tenants = tenants(&table, HashMap::from([("acme", Arc::default())]));
    let (nice, session) = (get(&tenants, "acme").await.nice.clone(), "s1".parse().unwrap());
    let polls = futures::future::join_all((0..16).map(|_| nice.session_events(&session))).await;
    assert!(polls.iter().all(is_transient), "each is given up");
    let waiting = futures::future::join_all((0..16).map(|_| nice.session_events(&session)));
    let mut waiting = std::pin::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    get(&tenants, "acme").await.nice.contact(seven()).await.unwrap();
}
