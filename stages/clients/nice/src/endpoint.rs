//! What is asked of NICE: names, caps and budgets of the requests.

use model::ApiFamily;

/// What is asked of NICE; the name is the label in metrics and the subject of error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Token,
    Discovery,
    Groups,
    GroupAgents,
    Teams,
    TeamAgents,
    Completed,
    Contact,
    Hierarchy,
    ContactPlayback,
    SegmentPlayback,
    Media,
    ExtractionBegin,
    ExtractionJob,
    ExtractionFile,
    SessionJoin,
    SessionEvents,
}

/// Tokens, configurations and single contacts have some KiB.
const SMALL: usize = 1024 * 1024;

/// Playback may bring waveforms although they are declined.
const PLAYBACK: usize = 8 * 1024 * 1024;

/// NICE's largest page, 10,000 contacts of 3 KiB.
const LIST: usize = 32 * 1024 * 1024;

impl Endpoint {
    /// The label in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Discovery => "discovery",
            Self::Groups => "groups",
            Self::GroupAgents => "group_agents",
            Self::Teams => "teams",
            Self::TeamAgents => "team_agents",
            Self::Completed => "completed",
            Self::Contact => "contact",
            Self::Hierarchy => "hierarchy",
            Self::ContactPlayback => "contact_playback",
            Self::SegmentPlayback => "segment_playback",
            Self::Media => "media",
            Self::ExtractionBegin => "extraction_begin",
            Self::ExtractionJob => "extraction_job",
            Self::ExtractionFile => "extraction_file",
            Self::SessionJoin => "session_join",
            Self::SessionEvents => "session_events",
        }
    }

    /// The most bytes of an answer.
    pub(super) fn cap(self) -> usize {
        match self {
            Self::Token | Self::Discovery | Self::Contact | Self::Media => SMALL,
            Self::ExtractionBegin | Self::ExtractionJob | Self::ExtractionFile => SMALL,
            Self::SessionJoin | Self::SessionEvents => SMALL,
            Self::ContactPlayback | Self::SegmentPlayback => PLAYBACK,
            Self::Groups | Self::GroupAgents | Self::Teams | Self::TeamAgents | Self::Completed | Self::Hierarchy => {
                LIST
            }
        }
    }

    /// The budget it draws on; data extraction has a pace of its own, and a long poll only waits.
    pub(super) fn family(self) -> Option<ApiFamily> {
        match self {
            Self::ContactPlayback | Self::SegmentPlayback => Some(ApiFamily::MediaPlayback),
            Self::SessionEvents | Self::ExtractionBegin | Self::ExtractionJob | Self::ExtractionFile => None,
            _ => Some(ApiFamily::Acd),
        }
    }

    /// Whether less of it can be asked for.
    pub(super) fn is_divisible(self) -> bool {
        self == Self::Completed
    }

    /// Whether NICE keeps the request until there is something to say: its silence says nothing of NICE.
    pub(super) fn is_long_poll(self) -> bool {
        self == Self::SessionEvents
    }
}
