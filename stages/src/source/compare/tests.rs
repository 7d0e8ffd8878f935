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

#[test]
fn only_what_can_never_become_a_row_is_excluded() {
    assert_eq!(excluded(&hop("dequeue", "done", Some("erased"))), Some("erased".to_owned()));
    assert_eq!(excluded(&hop("fetch_metadata", "done", Some("not_in_group"))), None, "it may be in the group now");
    assert_eq!(excluded(&hop("fetch_metadata", "done", Some("never_answered"))), None, "NICE says otherwise now");
    assert_eq!(excluded(&hop("upload", "ok", None)), None);
    let dropped = excluded(&hop("upload", "dead_letter", Some("too large")));
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
