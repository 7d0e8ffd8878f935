use super::*;

#[test]
fn groups_have_numbers_and_names() {
    let body = br#"{"totalRecords":2,"groups":[{"groupId":12,"groupName":"Knovvu","isActive":true},
        {"GroupId":"13","groupName":null}],"_links":{"next":null}}"#;
    let page = groups(body).unwrap();
    assert_eq!(page.rows[0], NamedGroup { id: "12".into(), name: "Knovvu".into() });
    assert_eq!(page.rows[1], NamedGroup { id: "13".into(), name: String::new() });
    assert_eq!((page.total, page.next), (Some(2), None));
    assert_eq!(teams(br#"{"resultSet":{"teams":[{"teamId":5,"teamName":"T"}]}}"#).unwrap().rows[0].id, "5");
}

#[test]
fn a_group_that_cannot_be_read_spoils_the_page() {
    for body in [
        &br#"{"groups":[{"groupId":"../1"}]}"#[..],
        br#"{"groups":[{"groupName":"a"}]}"#,
        br#"{"groups":[7]}"#,
        br#"{"groups":{}}"#,
        br#"{}"#,
        br#"{"totalRecords":4}"#,
        br#"{"groups":[{"groupId":1}"#,
        b"<html>",
    ] {
        assert!(groups(body).is_err());
    }
    assert!(groups(br#"{"totalRecords":0}"#).unwrap().rows.is_empty());
}

#[test]
fn agents_of_a_group() {
    let body = br#"{"totalRecords":2,"agents":[
        {"agentId":5,"userName":"ada","firstName":"Ada","lastName":"L","isActive":true,"userID":"u-1"},
        {"agentId":"6","isActive":"False"}]}"#;
    let rows = group_agents(body).unwrap().rows;
    assert_eq!(rows[0].agent_id.get(), 5);
    assert_eq!(rows[0].user_id.as_deref(), Some("u-1"));
    assert_eq!((rows[0].user_name.as_str(), rows[0].first_name.as_str()), ("ada", "Ada"));
    assert!(rows[0].is_active && !rows[1].is_active);
    assert_eq!((rows[1].agent_id.get(), rows[1].user_name.as_str()), (6, ""));
}

#[test]
fn agents_of_a_team_are_nested() {
    let body = br#"{"totalRecords":1,"teams":[{"teamId":1,"agents":[{"agentId":5,"userId":"u-1"},
        {"agentNo":6,"agentId":"11e766de-0000-0000-0000-0242ac110004"}]}]}"#;
    let rows = team_agents(body).unwrap().rows;
    assert_eq!(rows.iter().map(|agent| agent.agent_id.get()).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(rows[1].user_id.as_deref(), Some("11e766de-0000-0000-0000-0242ac110004"));
    let total = |body: &str| team_agents(body.as_bytes()).unwrap().total;
    assert_eq!(total(r#"{"totalRecords":1,"teams":[{"agents":[]}]}"#), None, "it counts teams");
    assert_eq!(total(r#"{"totalRecords":37,"teams":[{"agents":[]}]}"#), Some(37));
    assert!(team_agents(br#"{"teams":[]}"#).unwrap().rows.is_empty());
    assert!(team_agents(br#"{"teams":[{"teamId":1}]}"#).unwrap().rows.is_empty());
    assert_eq!(team_agents(br#"{"agents":[{"agentId":5}]}"#).unwrap().rows.len(), 1);
}

#[test]
fn an_agent_that_cannot_be_read_spoils_the_page() {
    for agent in ["{}", "7", "null", r#"{"agentId":0}"#, r#"{"agentId":"x"}"#, r#"{"agentId":-1}"#] {
        assert!(group_agents(format!("{{\"agents\":[{agent}]}}").as_bytes()).is_err(), "{agent}");
        assert!(team_agents(format!("{{\"teams\":[{{\"agents\":[{agent}]}}]}}").as_bytes()).is_err(), "{agent}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512)) {
        let _ = (groups(&body).is_ok(), teams(&body).is_ok(), group_agents(&body).is_ok(), team_agents(&body).is_ok());
    }
}
