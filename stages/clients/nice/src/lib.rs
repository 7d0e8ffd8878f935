//! The door to NICE CXone: a few methods, our types in and out.
//!
//! In: one tenant's settings and the rate budget that all its consumers share. Out: contacts, legs, the group's
//! agents, what happens to an agent, and recordings as streams. Every call has a timeout and a cap on what it reads;
//! a failed call leaves nothing behind on NICE's side, since all of them only read or listen. The client loops on
//! nothing but a renewed token and a broken recording: waiting for 429, 5xx and "not ready" is the flow's business.
//!
//! - [`settings`](NiceSettings), [`answers`](Contact), [`error`](NiceError): the types of the door.
//! - `http`: the one request function. `api`: bearer, budget, one renewed token. `body`: capped reading. `cached`: a value fetched once for all who wait.
//! - `token`, `discovery`: who we are and where NICE is. `group`, `calls`, `sessions`: what is asked there.
//! - `extraction`: the calls of past days from the recording side, read from a file of any length.
//! - `media`, `media_hosts`, `resolver`: a recording, and where it may come from.
//! - [`wire`]: NICE's JSON, read leniently by pure functions.

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use model::{Quota, QuotaClass};
use reqwest::Url;

mod answers;
mod api;
mod body;
mod cached;
mod calls;
mod discovery;
mod endpoint;
mod error;
mod extraction;
mod group;
mod health;
mod http;
mod media;
mod media_hosts;
mod metrics;
mod net;
mod network;
mod resolver;
mod sessions;
mod settings;
mod token;
#[doc(hidden)]
pub mod wire;

pub use answers::{
    BadRow, CompletedFilter, CompletedQuery, Contact, ContactPage, ContactRow, GroupAgent, GroupReading, Interaction,
    Leg, MediaLink, NextLink, Participant, Playback, Segment, SegmentId, SegmentIdError,
};
use api::Api;
use discovery::Discovery;
use endpoint::Endpoint;
pub use error::{Excess, NiceError, REFUSED_DELAY};
use extraction::ExtractionTurn;
pub use extraction::{EXTRACTION_DAYS, Extraction};
pub use health::{NiceHealth, NiceHealthBook, NiceReport, NiceState};
use http::{ApiAnswer, Http};
use media::MediaSource;
pub use media::{ContentRange, Media};
pub use media_hosts::{LinkRefused, MediaHost, MediaHostError, check_link};
pub use metrics::NiceMetrics;
pub use network::{Exchange, Network, WireError};
pub use sessions::{AgentEvent, CallEvent, Feed, Join, Phase, SessionId, SessionIdError};
pub use settings::{Auth, GroupKind, GroupSelector, NiceSettings, PAGE_SIZE, Timeouts};
use token::Tokens;
pub use wire::extraction::{ExtractedLeg, ExtractedRow};

/// Asks NICE for a fresh link to the same recording.
pub type LinkRefresher = Arc<dyn Fn() -> BoxFuture<'static, Result<MediaLink, NiceError>> + Send + Sync>;

/// One tenant's NICE. Clones share token, discovery and connections.
#[derive(Clone)]
pub struct NiceClient {
    inner: Arc<Inner>,
    class: QuotaClass,
}

struct Inner {
    settings: Arc<NiceSettings>,
    api: Api,
    discovery: Discovery,
    media: Arc<MediaSource>,
    extraction: ExtractionTurn,
    page_size: u32,
    /// Whether NICE takes the choice of fields of completed contacts.
    fields: AtomicU8,
}

impl NiceClient {
    /// Makes a client; nothing is sent yet. Its requests may go to a NICE in this process; `health` learns what became
    /// of them.
    pub fn new(
        settings: NiceSettings,
        network: Network,
        quota: Arc<dyn Quota>,
        metrics: NiceMetrics,
        health: NiceHealth,
        timeouts: Timeouts,
    ) -> Result<Self, NiceError> {
        settings.validate()?;
        let settings = Arc::new(settings);
        let http = Http::new(network.clone(), metrics.clone(), health, &timeouts)?;
        let tokens = Tokens::new(settings.clone(), metrics.clone(), &timeouts);
        let discovery = Discovery::new(settings.clone(), &timeouts);
        let (extraction, page_size) = (ExtractionTurn::new(&timeouts), timeouts.page_size);
        let media = Arc::new(MediaSource::new(&settings, network, metrics, timeouts)?);
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                api: Api {
                    http,
                    tokens,
                    quota,
                    never_taken: AtomicU32::new(0),
                    refusals: AtomicU64::new(0),
                    under_way: AtomicUsize::new(0),
                },
                discovery,
                media,
                extraction,
                page_size,
                fields: AtomicU8::new(calls::UNPROVEN),
            }),
            class: QuotaClass::Live,
        })
    }

    /// The same client, whose requests are of this class; a new client's are live.
    pub fn for_class(&self, class: QuotaClass) -> Self {
        Self { inner: self.inner.clone(), class }
    }

    /// Sends an API request.
    async fn get(&self, endpoint: Endpoint, url: &Url) -> Result<ApiAnswer, NiceError> {
        self.inner.api.get(endpoint, url, self.class).await
    }

    /// The most rows that one page of completed contacts shall have.
    pub fn page_size(&self) -> u32 {
        self.inner.page_size
    }

    /// Opens a recording: its host, status, length and type are checked, its bytes not yet read. Its stream asks
    /// `refresher`, where there is one, for a fresh link when the present one expires.
    pub async fn open_media(&self, link: &MediaLink, refresher: Option<LinkRefresher>) -> Result<Media, NiceError> {
        self.inner.media.clone().open(link, refresher).await
    }

    /// How often NICE has refused these settings since the client was made: others may stand in their place by now.
    pub fn refusals(&self) -> u64 {
        self.inner.api.refusals.load(Ordering::Relaxed)
    }

    /// Whether NICE answers nothing, and enough callers wait for it as it is.
    pub fn is_stuck(&self) -> bool {
        self.inner.api.is_stuck()
    }

    /// Asks for a token, for where NICE is, and for the group.
    pub async fn check(&self) -> Result<(), NiceError> {
        self.inner.discovery.facade(&self.inner.api).await?;
        self.group_agents().await.map(|_| ())
    }
}

impl std::fmt::Debug for NiceClient {
    /// Without credentials and tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NiceClient").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}
