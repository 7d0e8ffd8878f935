//! Points 4 and 6: what is visible of a call, from before its hang-up to its second update, and transferred calls.

use std::{collections::BTreeSet, time::Duration};

use jiff::SignedDuration;
use nice_sim::{CallSpec, Direction, LegSpec};

use crate::client::{Client, EVER, numbers, quiet};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_call_passes_through_its_life() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agent = client.sim.agents()[0];
    let call = client.sim.add_call(CallSpec::new(agent).hang_up_in(SignedDuration::from_secs(30)));
    let completed = format!("contacts/completed?{EVER}&agentId={agent}");
    let state = |states: serde_json::Value| {
        let row =
            states["agentStates"].as_array().and_then(|rows| rows.iter().find(|row| row["agentId"] == agent)).cloned();
        row.map(|row| (row["agentStateName"].clone(), row["isACW"].clone()))
    };

    // Talking: active, not completed.
    assert_eq!(numbers(&client.acd("contacts/active").await?["activeContacts"], "contactId"), call.contact_ids);
    assert_eq!(state(client.acd("agents/states").await?), Some(("InboundContact".into(), false.into())));
    assert_eq!(client.acd_status(&completed).await?, 204);

    // Hung up: after-call work, still active.
    client.sim.advance(35 * SECOND);
    assert_eq!(state(client.acd("agents/states").await?), Some(("Unavailable".into(), true.into())));
    assert_eq!(client.acd_status("contacts/active").await?, 200);

    // After-call work over: gone from the active ones, known by id, not yet listed.
    client.sim.advance(30 * SECOND);
    assert_eq!(client.acd_status("contacts/active").await?, 204);
    let contact = client.acd(&format!("contacts/{}", call.contact_ids[0])).await?;
    assert_eq!((&contact["isActive"], &contact["stateName"]), (&false.into(), &"EndContact".into()));
    assert_eq!(client.acd_status(&completed).await?, 204);

    // Listed, with the end of after-call work as its last change.
    client.sim.advance(45 * SECOND);
    let row = client.acd(&completed).await?["completedContacts"][0].clone();
    let truth = client.sim.truth()[0].clone();
    let update: jiff::Timestamp = row["lastUpdateTime"].as_str().unwrap_or_default().parse()?;
    assert_eq!(update, truth.hung_up_at + SignedDuration::from_secs(30));
    assert_eq!(truth.ended_at, update, "the reported end includes after-call work");
    assert_eq!(row["acwSeconds"], 30);
    assert!(row["primaryDispositionId"].is_null() && row["dateContactWarehoused"].is_null());

    // The second update brings it back under `updatedSince`.
    let since = (update + SignedDuration::from_secs(1)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let since = format!("contacts/completed?updatedSince={since}");
    assert_eq!(client.acd_status(&since).await?, 204);
    client.sim.advance(300 * SECOND);
    let row = client.acd(&since).await?["completedContacts"][0].clone();
    assert!(row["primaryDispositionId"].is_number() && row["dateContactWarehoused"].is_string());
    Ok(())
}

#[tokio::test]
async fn legs_of_a_transferred_call_share_their_master() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agents = client.sim.agents();
    let (a, b) = (agents[0], agents[15]);
    let call = client.sim.add_call(CallSpec::transferred(&[a, b, a]));
    assert_eq!(call.master_contact_id, call.contact_ids[0]);
    client.sim.advance(Duration::from_secs(3500));

    for id in &call.contact_ids {
        let hierarchy = client.acd(&format!("contacts/{id}/hierarchy")).await?;
        assert_eq!(hierarchy["masterContactId"], call.master_contact_id);
        assert_eq!(numbers(&hierarchy["childContacts"], "contactId"), call.contact_ids[1..]);
    }
    let playback = client.playback(call.master_contact_id).await?.json::<serde_json::Value>().await?;
    let voice = &playback["interactions"][0]["data"];
    assert_eq!(voice["segmentsDataList"].as_array().map(Vec::len), Some(3));
    assert_eq!(voice["participantDataList"].as_array().map(Vec::len), Some(4));

    let truth = client.sim.truth();
    assert_eq!(truth.iter().map(|leg| leg.agent_id).collect::<Vec<_>>(), [a, b, a]);
    assert_eq!(truth.iter().map(|leg| leg.in_group).collect::<Vec<_>>(), [true, false, true]);
    assert!(truth.iter().all(|leg| leg.recordings.len() == 1 && leg.legs == 3));
    let files: BTreeSet<_> = truth.iter().map(|leg| leg.recordings[0].sha256.clone()).collect();
    assert_eq!(files.len(), 3, "a segment is one leg's");
    assert_eq!(client.playback(call.contact_ids[1]).await?.status(), 404, "a later leg's id finds nothing");
    Ok(())
}

#[tokio::test]
async fn every_leg_of_a_live_call_ends_after_it_was_placed() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agents = client.sim.agents();
    let before = jiff::Timestamp::now() - SignedDuration::from_millis(5); // the simulation counts whole milliseconds
    client.sim.add_call(CallSpec::transferred(&agents[..3]));
    assert!(client.sim.truth().iter().all(|leg| leg.hung_up_at >= before));
    Ok(())
}

#[tokio::test]
async fn history_is_there_from_the_start() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agent = client.sim.agents()[1];
    client.sim.add_call(CallSpec {
        outbound: true,
        customer: Some("+905551234567".into()),
        legs: vec![LegSpec { agent_id: agent, talk_secs: Some(100), queue_secs: None }],
        ..CallSpec::new(agent).hang_up_in(SignedDuration::from_hours(-5))
    });
    let row = client.acd(&format!("contacts/completed?{EVER}")).await?["completedContacts"][0].clone();
    assert_eq!((&row["isOutbound"], &row["toAddress"]), (&true.into(), &"+905551234567".into()));
    assert_eq!(row["totalDurationSeconds"], 130);
    let truth = client.sim.truth()[0].clone();
    assert_eq!((truth.direction, truth.customer_number.as_str()), (Direction::Outbound, "+905551234567"));
    Ok(())
}

#[tokio::test]
async fn the_truth_remembers_who_was_in_the_group() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agents = client.sim.agents();
    client.sim.add_call(CallSpec::new(agents[0]));
    client.sim.advance(SECOND);
    client.sim.set_group(1001, [agents[15]]);
    client.sim.advance(SECOND);
    client.sim.add_call(CallSpec::new(agents[0]));
    client.sim.add_call(CallSpec::new(agents[15]));
    client.sim.advance(SECOND);
    assert_eq!(client.sim.truth().iter().map(|leg| leg.in_group).collect::<Vec<_>>(), [true, false, true]);
    Ok(())
}
