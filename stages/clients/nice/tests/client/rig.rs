//! A client and the servers it talks to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{ApiFamily, Permit, Quota, QuotaClass, QuotaError};
use nice::{Auth, GroupKind, GroupSelector, MediaHost, NiceClient, NiceError, NiceMetrics, NiceSettings, Timeouts};
use runtime::metrics::Page;
use secrecy::SecretString;

use crate::fake::{Fake, Reply, Request, json, status};

/// Texts that must never be seen again.
pub(crate) const SECRET: &str = "canary-secret-7c1f";

/// A budget that counts, and that a test can close.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) admitted: Mutex<Vec<(ApiFamily, QuotaClass)>>,
    pub(crate) accounts: Mutex<Vec<Option<String>>>,
    pub(crate) closed: AtomicUsize,
    /// How long NICE asked to wait, at each refusal.
    pub(crate) refusals: Arc<Mutex<Vec<Option<Duration>>>>,
}

#[async_trait]
impl Quota for Counting {
    async fn admit(
        &self,
        account: Option<&str>,
        family: ApiFamily,
        class: QuotaClass,
    ) -> Result<Box<dyn Permit>, QuotaError> {
        if self.closed.load(Ordering::Relaxed) > 0 {
            return Err(QuotaError { what: "no room".into(), retry_after: Some(Duration::from_secs(7)) });
        }
        self.admitted.lock().unwrap().push((family, class));
        self.accounts.lock().unwrap().push(account.map(str::to_owned));
        Ok(Box::new(Place { refusals: self.refusals.clone() }))
    }
}

#[derive(Debug)]
struct Place {
    refusals: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Permit for Place {
    fn leave(&mut self) -> bool {
        true
    }

    fn refused(self: Box<Self>, retry_after: Option<Duration>) {
        self.refusals.lock().unwrap().push(retry_after);
    }
}

impl Counting {
    pub(crate) fn count(&self) -> usize {
        self.admitted.lock().unwrap().len()
    }
}

pub(crate) struct Rig {
    pub(crate) api: Fake,
    pub(crate) client: NiceClient,
    pub(crate) quota: Arc<Counting>,
    pub(crate) metrics: NiceMetrics,
    pub(crate) page: Page,
}

/// The token of the nth request, counted from one.
pub(crate) fn token(nth: usize) -> String {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"tenantId":"11ee-tenant","area":"na1","icClusterId":"C42"}"#);
    format!("e30.{claims}.{nth}")
}

pub(crate) fn issue(request: &Request) -> Reply {
    json(format!(r#"{{"access_token":"{}","expires_in":3600,"token_type":"Bearer"}}"#, token(request.nth + 1)))
}

pub(crate) const TOKEN_PATH: &str = "/authentication/v1/token/access-key";

pub(crate) fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        api: Duration::from_secs(20),
        page_size: 1_000,
        poll: Duration::from_secs(20),
        media_headers: Duration::from_secs(20),
        media_idle: Duration::from_secs(20),
        media_min_rate: 1,
        media_rate_window: Duration::from_secs(60),
        resume_delay: Duration::from_millis(1),
        renewal_delay: Duration::from_secs(60),
        extraction_pace: Duration::from_millis(1),
        extraction_poll: Duration::from_millis(1),
        extraction_total: Duration::from_secs(20),
        ..Timeouts::default()
    }
}

pub(crate) fn access_key() -> Auth {
    Auth::AccessKey { access_key_id: "key=1".into(), access_key_secret: SecretString::from(SECRET) }
}

pub(crate) fn settings(api: &Fake, media: &[MediaHost]) -> NiceSettings {
    NiceSettings {
        issuer: api.url(),
        auth: access_key(),
        api_version: "v33.0".into(),
        group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: "Knovvu".into() },
        acd_url: Some(api.url()),
        facade_url: Some(api.url()),
        auth_url: None,
        media_hosts: media.to_vec(),
        private_media_hosts: Vec::new(),
    }
}

pub(crate) fn host(fake: &Fake) -> MediaHost {
    fake.address.to_string().parse().unwrap()
}

impl Rig {
    /// A client of a server that issues tokens and answers the rest by `handler`.
    pub(crate) async fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(handler, &[], |_| {}, short()).await
    }

    pub(crate) async fn with(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        media: &[MediaHost],
        change: impl FnOnce(&mut NiceSettings),
        timeouts: Timeouts,
    ) -> Self {
        let handler = move |request: &Request| if request.is(TOKEN_PATH) { issue(request) } else { handler(request) };
        Self::bare(handler, media, change, timeouts).await
    }

    /// The same, tokens included.
    pub(crate) async fn bare(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        media: &[MediaHost],
        change: impl FnOnce(&mut NiceSettings),
        timeouts: Timeouts,
    ) -> Self {
        let api = Fake::start(handler).await;
        let mut settings = settings(&api, media);
        change(&mut settings);
        let (quota, page) = (Arc::new(Counting::default()), Page::default());
        let metrics = NiceMetrics::register(&page);
        let client = NiceClient::new(
            settings,
            nice::Network::Internet,
            quota.clone(),
            metrics.clone(),
            nice::NiceHealth::default(),
            timeouts,
        )
        .unwrap();
        Self { api, client, quota, metrics, page }
    }

    /// A client whose every contact is answered like this.
    pub(crate) async fn contact(reply: Reply) -> Self {
        Self::new(move |request| if request.is("/inContactAPI/") { reply.clone() } else { status(500) }).await
    }

    /// What the counter of this endpoint and status shows.
    pub(crate) fn counted(&self, endpoint: &str, status: &str) -> u64 {
        self.metrics.requests.with_label_values(&[endpoint, status]).get()
    }
}

pub(crate) fn is_transient<T>(result: &Result<T, NiceError>) -> bool {
    matches!(result, Err(NiceError::Transient { .. }))
}

pub(crate) fn is_media<T>(result: &Result<T, NiceError>) -> bool {
    matches!(result, Err(NiceError::Media { .. }))
}

pub(crate) fn is_permanent<T>(result: &Result<T, NiceError>) -> bool {
    matches!(result, Err(NiceError::Permanent { .. }))
}

/// No answer for such a call; once it says little.
pub(crate) fn is_odd<T>(result: &Result<T, NiceError>) -> bool {
    matches!(result, Err(NiceError::Odd { .. }))
}

pub(crate) fn is_refused<T>(result: &Result<T, NiceError>) -> bool {
    matches!(result, Err(NiceError::Refused { .. }))
}

pub(crate) fn is_not_ready<T>(result: &Result<T, NiceError>) -> bool {
    matches!(result, Err(NiceError::NotReady { .. }))
}
