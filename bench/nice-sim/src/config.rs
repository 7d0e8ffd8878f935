//! What a simulation is made of: every knob, with the default of the contract.

use std::{net::SocketAddr, time::Duration};

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
    /// Where ended calls are pushed to. Default: nowhere.
    pub webhook: Option<WebhookConfig>,
    /// What goes wrong. Default: nothing.
    pub faults: Faults,
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
            webhook: None,
            faults: Faults::none(),
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

/// The calls that the schedule begins with. More can be added while the simulation runs.
#[derive(Clone, Debug)]
pub struct DayConfig {
    /// How many calls with an agent. Default 0: an empty day.
    pub calls: usize,
    /// Hang-ups are spread evenly over this time from the start. Default 60 s.
    pub over: Duration,
    /// And over this time before the start: history that is there already. Default 0.
    pub history: Duration,
    /// Share of calls that are transferred once or twice. Default 0.15.
    pub transfer_share: f64,
    /// Share of calls whose recording never exists. Default 0.05.
    pub never_recorded_share: f64,
    /// Share of legs taken by an agent outside the wanted group. Default 0.3.
    pub out_of_group_share: f64,
    /// Share of calls that the agent placed. Default 0.25.
    pub outbound_share: f64,
    /// Contacts nobody answered, on top of the calls and as a share of them. Default 0.05.
    pub abandoned_share: f64,
    /// Chats, on top of the calls and as a share of them. Default 0.05.
    pub chat_share: f64,
    /// Share of calls that were elevated between channels: more than one interaction. Default 0.05.
    pub elevated_share: f64,
    /// How long agents talk, in seconds of the call's own story: nobody waits for it. Default 20 to 600.
    pub talk_secs: (u64, u64),
    /// How large recordings are. Default 40 KiB to 400 KiB.
    pub recording_size: RecordingSize,
}

impl Default for DayConfig {
    fn default() -> Self {
        Self {
            calls: 0,
            over: Duration::from_secs(60),
            history: Duration::ZERO,
            transfer_share: 0.15,
            never_recorded_share: 0.05,
            out_of_group_share: 0.3,
            outbound_share: 0.25,
            abandoned_share: 0.05,
            chat_share: 0.05,
            elevated_share: 0.05,
            talk_secs: (20, 600),
            recording_size: RecordingSize::Between(40 * 1024, 400 * 1024),
        }
    }
}

/// How large a segment's recording is; the file of a transferred call is as large as its segments together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingSize {
    /// Exactly this many bytes.
    Fixed(u64),
    /// Evenly drawn, both ends included.
    Between(u64, u64),
}

/// What happens to a call, and when. Time zero is the hang-up.
#[derive(Clone, Debug)]
pub struct LifeConfig {
    /// After-call work. Default 30 s.
    pub acw: Duration,
    /// From the end of after-call work to the first sight in `contacts/completed`. Default 45 s.
    pub completed_delay: Duration,
    /// From the end of after-call work to the second update (warehouse stamps, disposition). Default 5 min.
    pub second_update_delay: Duration,
    /// From the end of after-call work to the recording, evenly drawn. Default 2 min to 30 min.
    pub recording_delay: (Duration, Duration),
}

impl Default for LifeConfig {
    fn default() -> Self {
        Self {
            acw: Duration::from_secs(30),
            completed_delay: Duration::from_secs(45),
            second_update_delay: Duration::from_secs(300),
            recording_delay: (Duration::from_secs(120), Duration::from_secs(1800)),
        }
    }
}

/// How the ACD answers.
#[derive(Clone, Debug)]
pub struct AcdConfig {
    /// `services/v{n}` below this answers old field names. Default 30.
    pub new_names_from: u32,
    /// Largest page of an administrative list; the default page is half of it. Default 100.
    pub admin_page_max: usize,
    /// Largest page of a contact list, and its default. Default 10 000.
    pub contacts_page_max: usize,
    /// Answers every scalar as text, as 2016 did. Default off.
    pub scalars_as_strings: bool,
    /// Wraps every answer in `{"resultSet": …}`. Default off.
    pub result_set_wrapper: bool,
    /// Puts a single contact under the key `contactId`, as the published types have it. Default off: flat.
    pub contact_nested: bool,
    /// Lists the master itself among the `childContacts` of a hierarchy. Default off.
    pub hierarchy_includes_master: bool,
    /// A contact list without `orderBy` comes in another order each time. Default on: it is not promised to be stable.
    pub unsorted_is_unstable: bool,
    /// Requests and the window they are counted in; more are answered 429. Default off.
    pub rate_limit: Option<(u32, Duration)>,
}

impl Default for AcdConfig {
    fn default() -> Self {
        Self {
            new_names_from: 30,
            admin_page_max: 100,
            contacts_page_max: 10_000,
            scalars_as_strings: false,
            result_set_wrapper: false,
            contact_nested: false,
            hierarchy_includes_master: false,
            unsorted_is_unstable: true,
            rate_limit: None,
        }
    }
}

/// How media playback and the signed links answer.
#[derive(Clone, Debug)]
pub struct PlaybackConfig {
    /// Requests that the window takes. Default 150.
    pub limit: u32,
    /// The window. Default 300 s.
    pub window: Duration,
    /// Counts as a sliding window, so that no window of that length ever holds more; else as a token bucket that
    /// refills evenly. Default off: a bucket.
    pub strict_window: bool,
    /// A 429 carries `Retry-After`. Default off.
    pub retry_after: bool,
    /// What a call whose recording is not there yet answers. Default: drawn per call.
    pub not_ready: NotReady,
    /// The contact id of a later leg finds the call as well. Default off: 404.
    pub legs_find_the_call: bool,
    /// The service user may play recordings; else 403. Default on.
    pub permitted: bool,
    /// `isDownload=true` answers `{"redirectUrl": …}`. Default on.
    pub redirect_url: bool,
    /// Wraps the answer as the help page of 2018 shows it. Default off.
    pub old_shape: bool,
    /// How long a signed link works. Default 300 s.
    pub media_link_ttl: Duration,
    /// Media answers carry `Content-Length`; else they are chunked. Default on.
    pub content_length: bool,
    /// Media answers honour `Range`. Default on.
    pub ranges: bool,
}

impl Default for PlaybackConfig {
    fn default() -> Self {
        Self {
            limit: 150,
            window: Duration::from_secs(300),
            strict_window: false,
            retry_after: false,
            not_ready: NotReady::Mixed,
            legs_find_the_call: false,
            permitted: true,
            redirect_url: true,
            old_shape: false,
            media_link_ttl: Duration::from_secs(300),
            content_length: true,
            ranges: true,
        }
    }
}

/// What media playback answers before a recording is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// One of the three below, drawn per call.
    Mixed,
    /// 404, as for an unknown call.
    NotFound,
    /// 200 with `interactions: []`.
    NoInteractions,
    /// 200 with the call's metadata but no link.
    NoLink,
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
