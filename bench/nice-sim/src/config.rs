//! What a simulation is made of: every knob, with the default of the contract.

mod behaviour;
mod day;

use std::{net::SocketAddr, time::Duration};

pub use self::{
    behaviour::{AcdConfig, ExtractionConfig, ExtractionOutcome, LifeConfig, NotReady, PlaybackConfig},
    day::{DayConfig, RecordingSize},
};
use crate::faults::Faults;

/// A whole simulated tenant. [`SimConfig::default`] is the contract's default in every field.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Decides everything that looks like chance: one seed is one world and one day. Default 1.
    pub seed: u64,
    /// Where to listen. Default: a free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// The tenant and the secrets of its service user.
    pub tenant: TenantConfig,
    /// Agents, groups and teams.
    pub directory: DirectoryConfig,
    /// The calls that the schedule begins with.
    pub day: DayConfig,
    /// What happens to a call, and when.
    pub life: LifeConfig,
    /// How the ACD answers.
    pub acd: AcdConfig,
    /// How media playback and the signed links answer.
    pub playback: PlaybackConfig,
    /// How the data extraction answers.
    pub extraction: ExtractionConfig,
    /// Where ended calls are pushed to. Default: nowhere.
    pub webhook: Option<WebhookConfig>,
    /// What goes wrong. Default: nothing.
    pub faults: Faults,
    /// How long every answer takes at least. Default: no time at all.
    pub latency: Duration,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tenant: TenantConfig::default(),
            directory: DirectoryConfig::default(),
            day: DayConfig::default(),
            life: LifeConfig::default(),
            acd: AcdConfig::default(),
            playback: PlaybackConfig::default(),
            extraction: ExtractionConfig::default(),
            webhook: None,
            faults: Faults::none(),
            latency: Duration::ZERO,
        }
    }
}

impl SimConfig {
    /// The same world with every delay of a call's life cut to milliseconds: for tests that want the end of the story.
    #[must_use]
    pub fn hurried(mut self) -> Self {
        self.life = LifeConfig {
            acw: Duration::from_millis(100),
            completed_delay: Duration::from_millis(100),
            second_update_delay: Duration::from_secs(2),
            recording_delay: (Duration::from_millis(100), Duration::from_millis(600)),
        };
        self.extraction.delay = Duration::from_millis(600);
        self
    }
}

/// The tenant and the secrets of its service user.
#[derive(Clone, Debug)]
pub struct TenantConfig {
    /// The tenant's UUID.
    pub tenant_id: String,
    /// The ACD's integer name for the tenant.
    pub business_unit_id: i64,
    /// OAuth client of the back-end application.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Access key of the service user.
    pub access_key_id: String,
    /// Its secret. The default has `=`, `+`, `/` and `&` in it: whoever does not encode a form fails.
    pub access_key_secret: String,
    /// How long an access token lives. Default 3600 s.
    pub token_ttl: Duration,
    /// Answers `expires_in` as text, as old UserHub answers do. Default off.
    pub expires_in_as_string: bool,
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self {
            tenant_id: "11ee0000-1111-2222-3333-0242ac110003".into(),
            business_unit_id: 4_500_123,
            client_id: "b1946ac9-simulated-client".into(),
            client_secret: "simulated+client/secret==".into(),
            access_key_id: "SIMULATEDKEY0000000000000000000000000000000000000000====".into(),
            access_key_secret: "simulated+access/key&secret==".into(),
            token_ttl: Duration::from_secs(3600),
            expires_in_as_string: false,
        }
    }
}

/// Agents, groups and teams at the start.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// Agents of the tenant. Default 20.
    pub agents: usize,
    /// Groups; members are taken from the agents in order. Default: `Knovvu` (1001) with 12, `Billing` (1002) with 6.
    pub groups: Vec<GroupConfig>,
    /// Teams; every agent is in exactly one. Default: `Front Office` (501) and `Back Office` (502).
    pub teams: Vec<TeamConfig>,
    /// The group whose calls are wanted: what `in_group` in the truth is about. Default 1001.
    pub wanted_group: i64,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            agents: 20,
            groups: vec![
                GroupConfig { id: 1001, name: "Knovvu".into(), first_agent: 0, agents: 12 },
                GroupConfig { id: 1002, name: "Billing".into(), first_agent: 10, agents: 6 },
            ],
            teams: vec![
                TeamConfig { id: 501, name: "Front Office".into() },
                TeamConfig { id: 502, name: "Back Office".into() },
            ],
            wanted_group: 1001,
        }
    }
}

/// A group at the start.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// ACD id.
    pub id: i64,
    /// Display name.
    pub name: String,
    /// Index of the first agent in it.
    pub first_agent: usize,
    /// How many agents from there on.
    pub agents: usize,
}

/// A team at the start.
#[derive(Clone, Debug)]
pub struct TeamConfig {
    /// ACD id.
    pub id: i64,
    /// Display name.
    pub name: String,
}

/// Where ended calls are pushed to, and how unreliably.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The receiver.
    pub url: String,
    /// Sent as `Authorization: Bearer …`.
    pub secret: String,
    /// Share of events that are sent twice. Default 0.05.
    pub duplicate_share: f64,
    /// Share of events that are never sent. Default 0.05.
    pub loss_share: f64,
}

impl WebhookConfig {
    /// A receiver with the contract's rates of duplicates and losses.
    pub fn new(url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { url: url.into(), secret: secret.into(), duplicate_share: 0.05, loss_share: 0.05 }
    }
}
