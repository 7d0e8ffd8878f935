//! What is asked of NICE: names, caps and budgets of the requests.

use model::ApiFamily;

/// Tokens, configurations and single contacts have some KiB.
const SMALL: usize = 1024 * 1024;

/// Playback may bring waveforms although they are declined.
const PLAYBACK: usize = 8 * 1024 * 1024;

/// NICE's largest page, 10,000 contacts of 3 KiB.
const LIST: usize = 32 * 1024 * 1024;

macro_rules! endpoints {
    ($($endpoint:ident: $name:literal, $cap:expr, $family:expr;)+) => {
        /// What is asked of NICE; the name is the label in metrics and the subject of error texts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Endpoint {
            $($endpoint),+
        }

        impl Endpoint {
            /// The label in metrics.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$endpoint => $name),+ }
            }

            /// The most bytes of an answer.
            pub(super) fn cap(self) -> usize {
                match self { $(Self::$endpoint => $cap),+ }
            }

            /// The budget it draws on. Data extraction has a pace of its own, a long poll only waits, and tokens,
            /// discovery and media are no calls of an API.
            pub(super) fn family(self) -> Option<ApiFamily> {
                match self { $(Self::$endpoint => $family),+ }
            }
        }
    };
}

endpoints! {
    Token: "token", SMALL, None;
    Discovery: "discovery", SMALL, None;
    Groups: "groups", LIST, Some(ApiFamily::Acd);
    GroupAgents: "group_agents", LIST, Some(ApiFamily::Acd);
    Teams: "teams", LIST, Some(ApiFamily::Acd);
    TeamAgents: "team_agents", LIST, Some(ApiFamily::Acd);
    Completed: "completed", LIST, Some(ApiFamily::Acd);
    Contact: "contact", SMALL, Some(ApiFamily::Acd);
    Hierarchy: "hierarchy", LIST, Some(ApiFamily::Acd);
    ContactPlayback: "contact_playback", PLAYBACK, Some(ApiFamily::MediaPlayback);
    SegmentPlayback: "segment_playback", PLAYBACK, Some(ApiFamily::MediaPlayback);
    Media: "media", SMALL, None;
    ExtractionBegin: "extraction_begin", SMALL, None;
    ExtractionJob: "extraction_job", SMALL, None;
    ExtractionFile: "extraction_file", SMALL, None;
    SessionJoin: "session_join", SMALL, Some(ApiFamily::Acd);
    SessionEvents: "session_events", SMALL, None;
}

impl Endpoint {
    /// Whether less of it can be asked for.
    pub(super) fn is_divisible(self) -> bool {
        self == Self::Completed
    }

    /// Whether what is asked concerns one call.
    pub(super) fn is_of_one_call(self) -> bool {
        matches!(self, Self::Contact | Self::Hierarchy | Self::ContactPlayback | Self::SegmentPlayback)
    }

    /// Whether it concerns the session of one agent, who may have left.
    pub(super) fn is_of_a_session(self) -> bool {
        matches!(self, Self::SessionJoin | Self::SessionEvents)
    }

    /// Whether NICE keeps the request until there is something to say: its silence says nothing of NICE.
    pub(super) fn is_long_poll(self) -> bool {
        self == Self::SessionEvents
    }
}
