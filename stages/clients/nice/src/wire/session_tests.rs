use super::*;

/// The events of an answer, and the session that it names.
fn read(body: &str) -> (Option<String>, Vec<AgentEvent>) {
    match events(body.as_bytes()).unwrap() {
        Feed::Events { next, events } => (next.map(|next| next.as_str().to_owned()), events),
        other => panic!("{other:?}"),
    }
}

fn one_call(event: &str) -> CallEvent {
    match read(&format!(r#"{{"events":[{event}]}}"#)).1.as_slice() {
        [AgentEvent::Call(call)] => call.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_reads_the_same_in_any_case_and_type() {
    let told = one_call(
        r#"{"Type":"CallContactEvent","ContactID":"698800000001","MasterID":"698800000000","Status":"Disconnected",
            "FinalState":"True","LastStateChangeTimeUTC":"2026-04-01T16:34:25.990Z"}"#,
    );
    assert_eq!(told.contact.get(), 698_800_000_001);
    assert_eq!(told.master.map(|master| master.get()), Some(698_800_000_000));
    assert_eq!(told.phase, Phase::Over);
    assert_eq!(told.since, Some("2026-04-01T16:34:25.990Z".parse().unwrap()));
    for other in [
        r#"{"type":"CallContactEvent","contactId":698800000001,"masterId":698800000000,"status":"disconnected",
            "finalState":true,"lastStateChangeTimeUtc":"2026-04-01T16:34:25.990"}"#,
        r#"{"TYPE":"callcontactevent","CONTACTID":" 698800000001 ","MASTERID":"698800000000","STATUS":"DISCONNECTED",
            "FINALSTATE":"1","LASTSTATECHANGETIMEUTC":"2026-04-01T16:34:25.99Z","new":{"a":[1]},"ANI":null}"#,
    ] {
        assert_eq!(one_call(other), told, "{other}");
    }
}

#[test]
fn the_status_says_what_a_call_is_at() {
    for (status, last, phase) in [
        ("Incoming", "False", Phase::Offered),
        ("NaturalCallAMD", "False", Phase::Offered),
        ("Active", "False", Phase::Taken),
        ("Holding", "False", Phase::Taken),
        ("Joined", "False", Phase::Taken),
        ("Disconnected", "False", Phase::Disconnected),
        ("Disconnected", "perhaps", Phase::Disconnected),
        ("Disconnected", "True", Phase::Over),
        ("CallBackDisconnected", "True", Phase::Unknown),
        ("", "True", Phase::Unknown),
    ] {
        let event =
            format!(r#"{{"Type":"CallContactEvent","ContactID":"1","Status":"{status}","FinalState":"{last}"}}"#);
        assert_eq!(one_call(&event).phase, phase, "{status} {last}");
    }
    let silent = one_call(r#"{"Type":"CallContactEvent","ContactID":"1","Status":"Disconnected"}"#);
    assert_eq!((silent.phase, silent.since), (Phase::Disconnected, None));
}

#[test]
fn what_makes_no_sense_is_of_no_use_and_harms_nothing_beside_it() {
    let (next, events) = read(
        r#"{"SessionID":"abc","Events":[null,7,"x",[],{},{"Type":"PopURL"},{"Type":"Tomorrow"},
            {"Type":"CallContactEvent"},{"Type":"CallContactEvent","ContactID":"../1"},
            {"Type":"CallContactEvent","ContactID":0},{"Type":"AgentState","IsAcw":"True"},
            {"Type":"AgentSessionStart"},{"Type":"AgentSessionEnd"},{"Type":"CallContactEvent","ContactID":5}]}"#,
    );
    assert_eq!(next.as_deref(), Some("abc"));
    assert!(events[..10].iter().all(|event| *event == AgentEvent::Other), "{events:?}");
    assert_eq!(events[10..13], [AgentEvent::State, AgentEvent::SessionStarted, AgentEvent::SessionEnded]);
    assert!(matches!(events[13], AgentEvent::Call(CallEvent { phase: Phase::Unknown, .. })));
}

#[test]
fn an_answer_without_events_or_session_is_no_error() {
    assert_eq!(read("{}"), (None, Vec::new()));
    assert_eq!(read(r#"{"sessionId":"","events":null}"#), (None, Vec::new()));
    assert_eq!(read(r#"{"resultSet":{"sessionId":"a","events":[]}}"#).0.as_deref(), Some("a"));
    assert_eq!(events(b"").unwrap(), Feed::Idle);
    assert!(events(b"<html>").is_err());
    assert!(events(br#"{"events":7}"#).is_err());
}

#[test]
fn a_session_id_cannot_lead_to_another_path() {
    for good in ["a", "0f3c-9", "AbC_9.x", "bG9uZw==", "a+b", &"a".repeat(512)] {
        let body = format!(r#"{{"sessionId":"{good}"}}"#);
        assert_eq!(joined(body.as_bytes()).unwrap().as_str(), good);
    }
    assert_eq!(joined(br#"{"SessionId":12}"#).unwrap().as_str(), "12");
    for bad in ["..", ".", "a/b", "../x", "a%2fb", "a?b", "a#b", "a b", "-a", "é", "a\\u0000", &"a".repeat(513)] {
        let body = format!(r#"{{"sessionId":"{bad}","events":[]}}"#);
        assert_eq!(joined(body.as_bytes()), Err(ShapeError::Grammar("a session id")), "{bad}");
        assert_eq!(events(body.as_bytes()), Err(ShapeError::Grammar("a session id")), "{bad}");
    }
    assert!(joined(b"{}").is_err() && joined(b"").is_err() && joined(br#"{"sessionId":{}}"#).is_err());
}

#[test]
fn a_session_id_shows_in_no_debug_text() {
    assert!(!format!("{:?}", events(br#"{"sessionId":"canary"}"#)).contains("canary"));
}

/// An answer as the feed gives it.
const SPEC: &str = r#"{"sessionId":"a1","events":[{"Type":"AgentSessionStart","AgentId":"7"},
    {"Type":"CallContactEvent","ContactID":"698800000001","MasterID":698800000000,"Status":"Disconnected",
    "FinalState":"True","LastStateChangeTimeUTC":"2026-04-01T16:34:25.990Z"}]}"#;

proptest::proptest! {
    #[test]
    fn a_mangled_answer_never_makes_it_panic(at in 0..SPEC.len(), byte in proptest::prelude::any::<u8>()) {
        let mut body = SPEC.as_bytes().to_vec();
        body[at] = byte;
        drop((events(&body), joined(&body), events(&body[..at]), joined(&body[..at])));
    }
}
