//! An agent's session: joined, asked for events, and never ended.

use model::AgentId;
use nice::{AgentEvent, Feed, Join, SessionId};

use crate::fake::{json, status};
use crate::rig::{Rig, is_permanent, is_refused, is_transient, token};

const ROOT: &str = "/inContactAPI/services/v33.0/agent-sessions";

fn agent() -> AgentId {
    AgentId::from_number(900_001).unwrap()
}

fn session() -> SessionId {
    "a1.b-2=".parse().unwrap()
}

#[tokio::test]
async fn a_join_names_the_agent_in_both_ways_and_draws_on_the_budget() {
    let rig = Rig::new(|_| json(r#"{"sessionId":"a1.b-2="}"#)).await;
    assert_eq!(rig.client.join_session(agent()).await, Ok(Join::Joined(session())));
    let seen = rig.api.seen();
    let join = seen.last().unwrap();
    assert_eq!((join.method.as_str(), join.path.as_str()), ("POST", &*format!("{ROOT}/join?asAgentId=900001")));
    assert_eq!(join.body, r#"{"asAgentId":900001}"#);
    assert_eq!(
        (join.header("accept"), join.header("authorization")),
        ("application/json", &*format!("Bearer {}", token(1)))
    );
    assert_eq!((rig.quota.count(), rig.counted("session_join", "200")), (1, 1));
}

#[tokio::test]
async fn an_agent_who_is_not_logged_in_is_absent_and_no_error() {
    for code in [404, 409, 410] {
        let rig = Rig::new(move |_| status(code)).await;
        assert_eq!(rig.client.join_session(agent()).await, Ok(Join::Absent), "{code}");
    }
    let rig = Rig::new(|_| status(403)).await;
    assert!(is_refused(&rig.client.join_session(agent()).await));
    let rig = Rig::new(|_| status(204)).await;
    assert!(is_transient(&rig.client.join_session(agent()).await));
}

#[tokio::test]
async fn events_are_waited_for_without_the_budget() {
    let rig = Rig::new(|_| json(r#"{"sessionId":"c3","events":[{"Type":"AgentSessionStart"}]}"#)).await;
    let next = Some("c3".parse().unwrap());
    let expected = Feed::Events { next, events: vec![AgentEvent::SessionStarted] };
    assert_eq!(rig.client.session_events(&session()).await, Ok(expected));
    let seen = rig.api.seen();
    assert_eq!(seen.last().unwrap().path, format!("{ROOT}/a1.b-2=/get-next-event?timeout=60"));
    assert_eq!((seen.last().unwrap().method.as_str(), rig.quota.count()), ("GET", 0));
}

#[tokio::test]
async fn a_status_of_a_poll_means_what_the_description_says() {
    for (code, feed) in
        [(304, Feed::Idle), (204, Feed::Idle), (404, Feed::Ended), (409, Feed::Ended), (410, Feed::Ended)]
    {
        let rig = Rig::new(move |_| status(code)).await;
        assert_eq!(rig.client.session_events(&session()).await, Ok(feed), "{code}");
    }
    for code in [302, 408, 429, 500, 503] {
        let rig = Rig::new(move |_| status(code)).await;
        assert!(is_transient(&rig.client.session_events(&session()).await), "{code}");
    }
    let rig = Rig::new(|_| status(400)).await;
    assert!(is_permanent(&rig.client.session_events(&session()).await));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let handler = |request: &crate::fake::Request| {
        let fresh = request.header("authorization").ends_with(&token(2));
        if fresh { json(r#"{"sessionId":"s","events":[]}"#) } else { status(401) }
    };
    let rig = Rig::new(handler).await;
    assert!(rig.client.session_events(&session()).await.is_ok());
    assert!(rig.client.join_session(agent()).await.is_ok());
    assert_eq!((rig.counted("session_events", "401"), rig.counted("session_join", "401")), (1, 0));
}

#[tokio::test]
async fn a_session_id_that_leads_elsewhere_never_becomes_a_path() {
    for bad in ["../../../admin", "a/b", "..", "a?b", "%2e%2e"] {
        let body = format!(r#"{{"sessionId":"{bad}","events":[]}}"#);
        let rig = Rig::new(move |_| json(&body)).await;
        assert!(is_permanent(&rig.client.join_session(agent()).await), "{bad}");
        assert!(is_permanent(&rig.client.session_events(&session()).await), "{bad}");
        assert!(bad.parse::<SessionId>().is_err());
    }
}
