//! How the service behaves: the life of a call, and the habits of its answers.

use std::time::Duration;

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
    /// How far back `contacts/completed` reaches: contacts that began earlier are left out without a word. Default 30
    /// days; none for no end.
    pub completed_reach: Option<Duration>,
    /// Requests and the window they are counted in; more are answered 429. Default off.
    pub rate_limit: Option<(u32, Duration)>,
    /// Counts them as a sliding window; else as a token bucket that refills evenly. Default off: a bucket.
    pub strict_window: bool,
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
            completed_reach: Some(Duration::from_secs(30 * 24 * 3600)),
            rate_limit: None,
            strict_window: false,
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

/// How the data extraction answers.
#[derive(Clone, Debug)]
pub struct ExtractionConfig {
    /// The service user may extract interaction metadata; else 403. Default on.
    pub permitted: bool,
    /// The least time between two calls that ask for a job; an earlier one is answered 403. Default 30 s.
    pub pace: Duration,
    /// How long a job runs. Default 10 s.
    pub job_time: Duration,
    /// How a job ends. Default: with a file.
    pub outcome: ExtractionOutcome,
    /// How long a link to a file works. Default 30 s.
    pub link_ttl: Duration,
    /// From the end of a leg's after-call work to its row. Default 30 min.
    pub delay: Duration,
    /// The largest number of days of one job. Default 15.
    pub days_max: i32,
    /// A file begins with a byte order mark. Default on.
    pub byte_order_mark: bool,
}

impl Default for ExtractionConfig {
    fn default() -> Self {
        Self {
            permitted: true,
            pace: Duration::from_secs(30),
            job_time: Duration::from_secs(10),
            outcome: ExtractionOutcome::Succeeded,
            link_ttl: Duration::from_secs(30),
            delay: Duration::from_secs(1800),
            days_max: 15,
            byte_order_mark: true,
        }
    }
}

/// How a job of the data extraction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtractionOutcome {
    /// With a link to a file.
    Succeeded,
    /// With an error message.
    Failed,
    /// Cancelled by an administrator.
    Cancelled,
    /// Too late: the file is gone.
    Expired,
}
