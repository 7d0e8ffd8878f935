//! Which segments of a call belong to one leg.
//!
//! The recording platform knows agents by their UserHub id, the ACD by a number. Both are compared where both
//! are known; else the agent's name decides; a segment whose agent is not named belongs to the leg that covers it.

use std::time::Duration;

use jiff::Timestamp;
use model::{Agent, Conversation};
use nice::{Participant, Playback, Segment, SegmentId};

/// Whether the call may have more than one leg, so that its hierarchy must be asked for.
pub(super) fn may_be_transferred(conversation: &Conversation, playback: &Playback) -> bool {
    let segments = playback.interactions.iter().map(|interaction| interaction.segments.len()).sum::<usize>();
    segments > 1 || conversation.master != conversation.external_id || says_transferred(conversation)
}

/// The contact's own word: `transferIndicatorName` is `None` for a call that was never transferred.
fn says_transferred(conversation: &Conversation) -> bool {
    let text = |name: &str| match conversation.metadata.get(name) {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let name = text("transferIndicatorName").is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    let id = text("transferIndicatorId").is_some_and(|id| !id.is_empty() && id != "0");
    name || id
}

/// The segments of this leg's agent that overlap the leg in time, by start time.
pub(super) fn segments_of(conversation: &Conversation, agent: Option<&Agent>, playback: &Playback) -> Vec<SegmentId> {
    let mut segments: Vec<(&Segment, &[Participant])> = Vec::new();
    for interaction in &playback.interactions {
        for segment in &interaction.segments {
            if !segments.iter().any(|(known, _)| known.id == segment.id) {
                segments.push((segment, &interaction.participants));
            }
        }
    }
    segments.retain(|(segment, participants)| belongs(conversation, agent, segment, participants));
    segments.sort_by_key(|(segment, _)| segment.started_at);
    segments.into_iter().map(|(segment, _)| segment.id.clone()).collect()
}

fn belongs(
    conversation: &Conversation,
    agent: Option<&Agent>,
    segment: &Segment,
    participants: &[Participant],
) -> bool {
    let overlap = overlap(conversation, segment);
    let mut speakers = participants
        .iter()
        .filter(|participant| participant.is_agent && participant.segment_id.as_ref() == Some(&segment.id))
        .filter(|participant| participant.user_id.is_some() || participant.agent_name.is_some())
        .peekable();
    if speakers.peek().is_none() {
        let length = length(segment.started_at, segment.ended_at);
        return overlap > Duration::ZERO && overlap * 2 >= length;
    }
    overlap > Duration::ZERO && speakers.any(|speaker| is_agent(conversation, agent, speaker))
}

fn is_agent(conversation: &Conversation, agent: Option<&Agent>, speaker: &Participant) -> bool {
    let user_id = agent.and_then(|agent| agent.user_id.as_deref());
    if let (Some(known), Some(speaker)) = (user_id, speaker.user_id.as_deref()) {
        return known.eq_ignore_ascii_case(speaker);
    }
    if speaker.user_id.as_deref() == Some(conversation.agent.to_string().as_str()) {
        return true;
    }
    let name = agent.map(|agent| format!("{} {}", agent.first_name, agent.last_name));
    match (name, &speaker.agent_name) {
        (Some(known), Some(speaker)) => {
            let reversed = known.split_once(' ').map(|(first, last)| format!("{last}, {first}"));
            let speaker = speaker.trim().to_lowercase();
            speaker == known.trim().to_lowercase() || Some(speaker) == reversed.map(|name| name.to_lowercase())
        }
        _ => false,
    }
}

/// How long segment and leg run together; a border that is not known lies at the leg's.
fn overlap(conversation: &Conversation, segment: &Segment) -> Duration {
    let start = segment.started_at.unwrap_or(conversation.started_at);
    let end = segment.ended_at.unwrap_or(conversation.ended_at);
    length(Some(start.max(conversation.started_at)), Some(end.min(conversation.ended_at)))
}

fn length(start: Option<Timestamp>, end: Option<Timestamp>) -> Duration {
    match (start, end) {
        (Some(start), Some(end)) => Duration::try_from(end.duration_since(start)).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use model::{ContactEvent, EventSource};
    use nice::Interaction;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_775_000_000 + seconds).unwrap()
    }

    fn conversation(start: i64, end: i64) -> Conversation {
        let event = ContactEvent::new("acme".parse().unwrap(), "2".parse().unwrap(), EventSource::Poll);
        Conversation {
            tenant: event.tenant.clone(),
            external_id: event.conversation,
            source: event.source,
            lane: model::Lane::of(&event),
            master: "1".parse().unwrap(),
            agent: "7".parse().unwrap(),
            started_at: at(start),
            ended_at: at(end),
            direction: None,
            customer_number: None,
            metadata: serde_json::json!({}),
        }
    }

    fn agent(user_id: Option<&str>) -> Agent {
        Agent {
            external_id: "7".parse().unwrap(),
            user_id: user_id.map(str::to_owned),
            user_name: String::new(),
            first_name: "Ann".to_owned(),
            last_name: "Lee".to_owned(),
            memberships: model::Memberships::since(Timestamp::UNIX_EPOCH),
        }
    }

    /// A → B → A, with A's first after-call work reaching into B's part.
    fn transferred() -> Playback {
        let part = |id: &str, start: i64, end: i64| Segment {
            id: id.parse().unwrap(),
            started_at: Some(at(start)),
            ended_at: Some(at(end)),
        };
        let speaker = |id: &str, user: &str, name: &str| Participant {
            is_agent: true,
            segment_id: Some(id.parse().unwrap()),
            user_id: Some(user.to_owned()),
            agent_name: Some(name.to_owned()),
            channel: Some(1),
        };
        Playback {
            interactions: vec![Interaction {
                link: None,
                started_at: None,
                ended_at: None,
                segments: vec![part("s-2", 60, 200), part("s-1", 0, 60), part("s-3", 200, 300)],
                participants: vec![
                    speaker("s-1", "UUID-A", "Ann Lee"),
                    speaker("s-2", "uuid-b", "Bob Ray"),
                    speaker("s-3", "uuid-a", "Ann Lee"),
                ],
            }],
            skipped: 0,
        }
    }

    fn ids(segments: Vec<SegmentId>) -> Vec<String> {
        segments.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_leg_gets_its_own_agents_segment() {
        let by_id = agent(Some("uuid-a"));
        let by_name = agent(None);
        for agent in [&by_id, &by_name] {
            assert_eq!(ids(segments_of(&conversation(0, 90), Some(agent), &transferred())), ["s-1"]);
            assert_eq!(ids(segments_of(&conversation(200, 330), Some(agent), &transferred())), ["s-3"]);
        }
    }

    #[test]
    fn a_segment_without_an_agent_belongs_to_the_leg_that_covers_it() {
        let mut playback = transferred();
        playback.interactions[0].participants.clear();
        assert_eq!(ids(segments_of(&conversation(60, 230), None, &playback)), ["s-2"]);
    }

    #[test]
    fn only_a_sign_of_a_transfer_costs_a_second_request() {
        let mut whole = transferred();
        whole.interactions[0].segments.truncate(1);
        let mut leg = conversation(0, 60);
        assert!(may_be_transferred(&leg, &whole), "a leg of another master");
        leg.master = leg.external_id;
        assert!(!may_be_transferred(&leg, &whole));
        assert!(may_be_transferred(&leg, &transferred()), "several segments");
        leg.metadata = serde_json::json!({ "transferIndicatorName": "ReSkill" });
        assert!(may_be_transferred(&leg, &whole), "the contact says so");
    }
}
