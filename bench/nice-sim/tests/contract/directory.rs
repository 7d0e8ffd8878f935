//! Point 3: groups, teams and agents, and what happens when people move.

use crate::client::{Client, numbers, quiet};

#[tokio::test]
async fn a_group_lists_its_agents_and_the_others() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let groups = client.acd("groups").await?;
    assert_eq!(groups["totalRecords"], 2);
    assert_eq!((&groups["groups"][0]["groupId"], &groups["groups"][0]["groupName"]), (&1001.into(), &"Knovvu".into()));

    let members = client.acd("groups/1001/agents?assigned=true").await?;
    assert_eq!(numbers(&members["agents"], "agentId"), client.sim.group(1001));
    assert!(members["agents"][0]["userId"].as_str().is_some_and(|id| id.len() == 36));
    let others = client.acd("groups/1001/agents?assigned=false").await?;
    assert_eq!(numbers(&others["agents"], "agentId").len(), 8);
    assert_eq!(client.acd_status("groups/77/agents").await?, 404);
    assert_eq!(client.acd("groups/1001").await?["groups"][0]["groupId"], 1001);
    assert_eq!(
        client.acd(&format!("agents/{}/groups", members["agents"][0]["agentId"])).await?["agentGroups"][0]["groupId"],
        1001
    );
    Ok(())
}

#[tokio::test]
async fn agents_are_nested_under_their_team() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let teams = client.acd("teams").await?;
    assert_eq!(numbers(&teams["teams"], "teamId"), [501, 502]);
    let team = client.acd("teams/501/agents").await?;
    assert_eq!(numbers(&team["teams"][0]["agents"], "agentId").len(), 10);
    assert!(team["agents"].is_null());
    let all = client.acd("teams/agents").await?;
    assert_eq!(all["teams"].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test]
async fn people_move_leave_and_change_their_names() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let sim = &client.sim;
    let agents = sim.agents();
    sim.set_group(1001, [agents[0], agents[19]]);
    assert!(sim.rename_agent(agents[0], "Grace", "Hopper"));
    assert!(sim.set_agent_active(agents[19], false));
    assert!(!sim.set_agent_active(1, false));

    let members = client.acd("groups/1001/agents").await?;
    assert_eq!(numbers(&members["agents"], "agentId"), [agents[0], agents[19]]);
    assert_eq!(
        (&members["agents"][0]["firstName"], &members["agents"][1]["isActive"]),
        (&"Grace".into(), &false.into())
    );
    let active = client.acd("groups/1001/agents?isActive=true").await?;
    assert_eq!(numbers(&active["agents"], "agentId"), [agents[0]]);

    let hired = sim.add_agent("Nina", "New", 502);
    assert!(numbers(&client.acd("agents?searchString=nina").await?["agents"], "agentId") == [hired]);
    sim.set_group(1001, []);
    assert_eq!(client.acd_status("groups/1001/agents").await?, 204, "nobody is no content");
    Ok(())
}

#[tokio::test]
async fn hidden_agents_are_counted_and_not_named() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let sim = &client.sim;
    let members = sim.group(1001);
    assert!(client.acd("groups/1001/agents").await?["hiddenAgents"].is_null());
    sim.hide_agents(1001, members[..2].iter().copied());
    let list = client.acd("groups/1001/agents").await?;
    assert_eq!(numbers(&list["agents"], "agentId"), members[2..]);
    assert_eq!(list["hiddenAgents"], 2);
    assert_eq!(sim.group(1001), members, "they are members all the same");
    sim.hide_agents(1001, members.iter().copied());
    let list = client.acd("groups/1001/agents").await?;
    assert_eq!((&list["agents"], &list["hiddenAgents"]), (&serde_json::json!([]), &members.len().into()));
    sim.hide_agents(1001, []);
    assert_eq!(client.acd("groups/1001/agents").await?["hiddenAgents"], 0);
    sim.set_faults(nice_sim::Faults { group_no_content: 1.0, ..nice_sim::Faults::none() });
    assert_eq!(client.acd_status("groups/1001/agents").await?, 204);
    Ok(())
}

#[tokio::test]
async fn the_userhub_knows_the_same_people() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let users = client.json("/user-management/v1/users").await?;
    let agents = client.acd("agents").await?;
    assert_eq!(users["users"][3]["id"], agents["agents"][3]["userID"]);
    assert_eq!(users["users"].as_array().map(Vec::len), Some(20));
    Ok(())
}
