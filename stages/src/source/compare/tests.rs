use super::*;

fn hop(stage: &str, outcome: &str, detail: Option<&str>) -> Hop {
    Hop {
        at: Timestamp::UNIX_EPOCH,
        stage: stage.to_owned(),
        outcome: outcome.to_owned(),
        attempt: 0,
        took_millis: 0,
        detail: detail.map(str::to_owned),
    }
}

/// Of a call whose agent is known.
fn excluded_of(hop: &Hop) -> Option<String> {
    excluded(hop, &event(Some(7)))
}

fn event(agent: Option<u64>) -> ContactEvent {
    let id = model::ContactId::from_number(1).unwrap();
    let event = ContactEvent::new("acme".parse().unwrap(), id, model::EventSource::Reconciliation);
    ContactEvent { agent: agent.map(|id| model::AgentId::from_number(id).unwrap()), ..event }
}

#[test]
fn of_a_row_that_cannot_be_read_nice_has_the_last_word() {
    let dropped = hop("fetch_metadata", "done", Some("not_in_group"));
    assert_eq!(excluded(&dropped, &event(None)), Some("not_in_group".to_owned()), "not every night anew");
}

#[test]
fn only_what_can_never_become_a_row_is_excluded() {
    assert_eq!(excluded_of(&hop("dequeue", "done", Some("erased"))), Some("erased".to_owned()));
    assert_eq!(excluded_of(&hop("fetch_metadata", "done", Some("not_in_group"))), None, "it may be in the group now");
    assert_eq!(excluded_of(&hop("fetch_metadata", "done", Some("never_answered"))), None, "NICE says otherwise now");
    assert_eq!(excluded_of(&hop("upload", "ok", None)), None);
    let dropped = excluded_of(&hop("upload", "dead_letter", Some("too large")));
    assert_eq!(dropped, Some("dropped by an operator: too large".to_owned()));
}

#[test]
fn an_age_counts_from_its_moment_on() {
    let then = Timestamp::UNIX_EPOCH;
    let later = |seconds| then + SignedDuration::from_secs(seconds);
    assert!(!is_older(then, Duration::from_secs(10), later(9)));
    assert!(is_older(then, Duration::from_secs(10), later(10)));
    assert!(!is_older(later(60), Duration::ZERO, then), "a clock that was set back proves nothing");
}
