//! Conversations for people.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use model::{AgentId, Conversation};

use super::{Subject, acme, at, conversation, letter, recordings, tenant};
use crate::{ConversationFilter, DayCounts, Recorded};

/// Seconds of a day.
const DAY: u64 = 86_400;

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn by(conversation: Conversation, agent: u64) -> Conversation {
    Conversation { agent: AgentId::from_number(agent).unwrap(), ..conversation }
}

pub async fn days_are_counted_by_the_end_of_calls<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let calls: Vec<_> = [1, 2, 3, DAY + 1, 3 * DAY].map(|id| conversation(&acme(), id)).into();
    for call in &calls {
        catalog.save_metadata(call).await.unwrap();
    }
    catalog.save_metadata(&conversation(&tenant("other"), 1)).await.unwrap();
    catalog.complete(&calls[0].key(), &recordings(&calls[0], 1), 0, at(9), None).await.unwrap();
    catalog.complete(&calls[1].key(), &recordings(&calls[1], 1), 2, at(9), None).await.unwrap();
    catalog.complete_without_recording(&calls[3].key(), None).await.unwrap();
    catalog.add_dead_letter(letter(&acme(), 99, "why")).await.unwrap();
    let (first, second) = (day(at(1)), day(at(DAY as i64 + 1)));
    let counted = catalog.days(&acme(), first, second).await.unwrap();
    let expected = [
        DayCounts { ready: 2, incomplete: 1, metadata_saved: 1, dead: 1, ..DayCounts::none(first) },
        DayCounts { no_recording: 1, ..DayCounts::none(second) },
    ];
    assert_eq!(counted, expected);
    assert_eq!(catalog.days(&tenant("nobody"), first, second).await.unwrap(), []);
}

pub async fn conversations_are_found_by_agent_and_time_page_by_page<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    // Over two days, of two agents.
    let ids: Vec<u64> = (1..=4).chain(DAY + 1..=DAY + 3).collect();
    for id in &ids {
        catalog.save_metadata(&by(conversation(&acme(), *id), id % 2 + 1)).await.unwrap();
    }
    let whole = ConversationFilter { agent: None, from: at(2), to: at(DAY as i64 + 3), only_exceptions: false };
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = catalog.found(&acme(), &whole, before, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(Recorded { external_id: last.external_id, ended_at: last.ended_at });
        found.extend(page);
    }
    let seen: Vec<u64> = found.iter().map(|call| call.external_id.get()).collect();
    assert_eq!(seen, [DAY + 2, DAY + 1, 4, 3, 2]);
    assert_eq!(found[0].started_at, found[0].ended_at - SignedDuration::from_secs(90));
    let agent = AgentId::from_number(1).unwrap();
    let of_one = catalog.found(&acme(), &ConversationFilter { agent: Some(agent), ..whole }, None, 10).await.unwrap();
    let seen: BTreeSet<u64> = of_one.iter().map(|call| call.external_id.get()).collect();
    assert_eq!(seen, BTreeSet::from([2, 4, DAY + 2]));
    let call = conversation(&acme(), 3);
    catalog.complete(&call.key(), &recordings(&call, 1), 0, at(9), None).await.unwrap();
    let exceptions = ConversationFilter { only_exceptions: true, ..whole };
    let exceptions = catalog.found(&acme(), &exceptions, None, 10).await.unwrap();
    let seen: Vec<u64> = exceptions.iter().map(|call| call.external_id.get()).collect();
    assert_eq!(seen, [DAY + 2, DAY + 1, 4, 2]);
    assert_eq!(catalog.found(&tenant("other"), &whole, None, 10).await.unwrap(), []);
}
