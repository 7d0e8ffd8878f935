//! What NICE answered, in our types: checked ids, times in UTC, and personal data that no `Debug` shows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{AgentId, ContactId};
use reqwest::Url;

/// Which completed contacts are asked for.
#[derive(Debug, Clone)]
pub struct CompletedQuery {
    /// By change or by start.
    pub filter: CompletedFilter,
    /// The most rows of one page.
    pub top: u32,
    /// How many rows to pass over.
    pub skip: u64,
    /// NICE's own link to the page; where given, it decides and the rest is not sent.
    pub next: Option<NextLink>,
}

/// The two ways in which NICE selects completed contacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletedFilter {
    /// Changed at or after this time.
    UpdatedSince(Timestamp),
    /// Begun in `[from, to)`.
    Started {
        /// The first moment.
        from: Timestamp,
        /// The moment after the last.
        to: Timestamp,
    },
}

/// A link to the next page that leads back to where the page came from.
#[derive(Clone, PartialEq, Eq)]
pub struct NextLink(pub(super) Url);

impl fmt::Debug for NextLink {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextLink")
    }
}

/// One page of completed contacts.
#[derive(Debug, Clone)]
pub struct ContactPage {
    /// The rows in NICE's order.
    pub contacts: Vec<ContactRow>,
    /// What NICE suggests as the next `updatedSince`.
    pub last_poll_time: Option<Timestamp>,
    /// How many rows all pages have together.
    pub total: Option<u64>,
    /// NICE's link to the next page.
    pub next: Option<NextLink>,
    /// NICE sent a link to another host; it is not followed, page on by `skip`.
    pub refused_next: bool,
}

/// A contact, or a row that cannot be read as one.
pub type ContactRow = Result<Contact, BadRow>;

/// A row of a page that is not a contact; its neighbours are unharmed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[error("{reason}")]
pub struct BadRow {
    /// What is wrong, without the row's content.
    pub reason: String,
    /// Whose row it is, where that can be told: the contact may be asked for singly.
    pub contact_id: Option<ContactId>,
}

/// One leg of a call, as the ACD knows it.
#[derive(Clone, PartialEq)]
pub struct Contact {
    /// The leg.
    pub contact_id: ContactId,
    /// The call it belongs to; its own id where NICE names none.
    pub master_contact_id: ContactId,
    /// The agent; none for a call that nobody took.
    pub agent_id: Option<AgentId>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// How long it lasted, after-call work included.
    pub total_duration: Option<Duration>,
    /// NICE's number of the medium.
    pub media_type_id: Option<i64>,
    /// The agent called.
    pub is_outbound: Option<bool>,
    /// It goes on still.
    pub is_active: Option<bool>,
    /// Who called. Personal data: never logged.
    pub from_address: Option<String>,
    /// Who was called. Personal data: never logged.
    pub to_address: Option<String>,
    /// The agent's given name.
    pub first_name: Option<String>,
    /// The agent's family name.
    pub last_name: Option<String>,
    /// When NICE last changed it.
    pub last_update_time: Option<Timestamp>,
    /// When NICE laid the record away, and so calls it final.
    pub warehoused_at: Option<Timestamp>,
    /// The object as NICE sent it, NUL stripped from texts, capped in size; null in a row of a page. Personal data:
    /// never logged.
    pub raw: serde_json::Value,
}

/// NICE's number for phone calls.
const PHONE_CALL: i64 = 4;

impl Contact {
    /// When the leg ended: its start plus its total duration, fractions kept.
    pub fn ended_at(&self) -> Option<Timestamp> {
        let lasted = SignedDuration::try_from(self.total_duration?).ok()?;
        self.started_at?.checked_add(lasted).ok()
    }

    /// Whether it is a phone call; NICE leaves the medium out where only calls are listed.
    pub fn is_phone_call(&self) -> bool {
        self.media_type_id.is_none_or(|medium| medium == PHONE_CALL)
    }
}

impl fmt::Debug for Contact {
    /// Without names, numbers and the raw object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact")
            .field("contact_id", &self.contact_id)
            .field("master_contact_id", &self.master_contact_id)
            .field("agent_id", &self.agent_id)
            .field("started_at", &self.started_at)
            .field("total_duration", &self.total_duration)
            .field("media_type_id", &self.media_type_id)
            .field("last_update_time", &self.last_update_time)
            .finish_non_exhaustive()
    }
}

/// A leg in the hierarchy of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The leg.
    pub contact_id: ContactId,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// The whole group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReading {
    /// Every agent of the group, each once.
    pub agents: Vec<GroupAgent>,
    /// NICE's id of the group.
    pub group_id: String,
    /// Agents that NICE tells of and does not name: the service user may not see them.
    pub hidden: u64,
    /// Agents that NICE counts beyond those that it names. Its count is a hint.
    pub missing: u64,
    /// NICE answered with 204, so that not even an empty list was seen.
    pub no_content: bool,
}

/// An agent of the group.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupAgent {
    /// The ACD id, by which contacts name the agent.
    pub agent_id: AgentId,
    /// The UserHub id, by which a recording's participants are known.
    pub user_id: Option<String>,
    /// The login; empty where NICE sent none.
    pub user_name: String,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Not deactivated.
    pub is_active: bool,
}

impl fmt::Debug for GroupAgent {
    /// Without the names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupAgent")
            .field("agent_id", &self.agent_id)
            .field("is_active", &self.is_active)
            .finish_non_exhaustive()
    }
}

/// The recordings of a contact or of one segment; voice only.
#[derive(Debug, Clone)]
pub struct Playback {
    /// One; more when the contact moved between channels; none where all were skipped.
    pub interactions: Vec<Interaction>,
    /// How many interactions were skipped that may hold a voice, for they do not say so in a way that is known here.
    pub skipped: u32,
}

/// One recorded interaction.
#[derive(Debug, Clone)]
pub struct Interaction {
    /// Where the recording lies; absent until it is processed.
    pub link: Option<MediaLink>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// One per agent leg.
    pub segments: Vec<Segment>,
    /// Who takes part.
    pub participants: Vec<Participant>,
}

/// One agent leg of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The recording platform's id.
    pub id: SegmentId,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Somebody whose voice is recorded.
#[derive(Clone, PartialEq, Eq)]
pub struct Participant {
    /// An agent, not a customer.
    pub is_agent: bool,
    /// The segment in which it takes part.
    pub segment_id: Option<SegmentId>,
    /// The agent's UserHub id.
    pub user_id: Option<String>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// The audio channel.
    pub channel: Option<i64>,
}

impl fmt::Debug for Participant {
    /// Without the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant")
            .field("is_agent", &self.is_agent)
            .field("segment_id", &self.segment_id)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// The recording platform's id of a segment: 1–64 letters, digits or `-`. It becomes part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(String);

/// A segment id that breaks its grammar; the text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment id breaks the grammar: 1 to 64 letters, digits or -")]
pub struct SegmentIdError;

impl SegmentId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SegmentId {
    type Err = SegmentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits =
            (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits { Ok(Self(text.to_owned())) } else { Err(SegmentIdError) }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A link to a recording: whoever holds it may listen, so no `Debug` shows it. Only NICE's answers make one.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaLink(pub(super) String);

impl MediaLink {
    /// A link as NICE wrote it: it is checked when it is opened.
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for MediaLink {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MediaLink")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact() -> Contact {
        let id = ContactId::from_number(698_800_000_001).unwrap();
        Contact {
            contact_id: id,
            master_contact_id: id,
            agent_id: None,
            started_at: Some("2026-04-01T16:29:31.443Z".parse().unwrap()),
            total_duration: Some(Duration::from_millis(294_500)),
            media_type_id: None,
            is_outbound: None,
            is_active: None,
            from_address: Some("5555558888".into()),
            to_address: None,
            first_name: Some("Ada".into()),
            last_name: None,
            last_update_time: None,
            warehoused_at: None,
            raw: serde_json::json!({ "fromAddress": "5555558888" }),
        }
    }

    #[test]
    fn the_end_is_start_plus_duration_with_fractions() {
        assert_eq!(contact().ended_at().unwrap().to_string(), "2026-04-01T16:34:25.943Z");
        assert_eq!(Contact { total_duration: Some(Duration::MAX), ..contact() }.ended_at(), None);
    }

    #[test]
    fn only_media_type_four_is_a_phone_call() {
        assert!(contact().is_phone_call());
        assert!(Contact { media_type_id: Some(4), ..contact() }.is_phone_call());
        assert!(!Contact { media_type_id: Some(3), ..contact() }.is_phone_call());
    }

    #[test]
    fn debug_shows_no_personal_data() {
        let text = format!("{:?} {:?}", contact(), MediaLink("https://secret.example/".into()));
        assert!(!text.contains("5555558888") && !text.contains("Ada") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_segment_id_cannot_leave_its_path() {
        assert!("11e766de-0000-0000-0000-0242ac110004".parse::<SegmentId>().is_ok());
        let long = "a".repeat(65);
        for text in ["", "..", "a/b", "a%2fb", "a b", "a\0", "é", "a.b", long.as_str()] {
            assert_eq!(text.parse::<SegmentId>(), Err(SegmentIdError), "{text}");
        }
    }
}
